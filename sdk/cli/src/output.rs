//! Standard output: data for whoever reads it, which may be nobody any more.

use std::io;

use tokio::io::{AsyncWriteExt, Stdout};

use crate::Failure;

/// Why nothing more can be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unwritten {
    /// Whoever read it has gone: a reason to end, and nothing to complain of.
    NobodyReads,
    /// Anything else.
    Failed(String),
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Failed(format!("standard output: {error}")),
        }
    }
}

/// Standard output. Writes wait on a thread of their own, so that signals are heard meanwhile.
pub(crate) struct Output(Stdout);

impl Output {
    pub(crate) fn new() -> Self {
        Self(tokio::io::stdout())
    }

    /// Writes all of it, and returns when it is written.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Unwritten> {
        self.0.write_all(bytes).await?;
        Ok(self.0.flush().await?)
    }

    /// Writes the result of a command.
    pub(crate) async fn print(&mut self, text: &str) -> Result<(), Failure> {
        match self.write(text.as_bytes()).await {
            Ok(()) => Ok(()),
            Err(Unwritten::NobodyReads) => Err(Failure::NobodyReads),
            Err(Unwritten::Failed(reason)) => Err(Failure::Failed(reason)),
        }
    }
}

/// Rows under a head, each column as wide as it must be.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([head[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["größer".to_owned(), "23".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME    N\na       1\ngrößer  23\n");
        assert_eq!(table(&["NAME", "N"], &[]), "NAME  N\n");
    }
}
