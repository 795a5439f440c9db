//! What is shipped: the text files below a directory.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// One file, read whole.
pub(crate) struct SourceFile {
    /// Path below the input directory, with `/` between its parts.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) text: Bytes,
    /// Digest of `text`.
    pub(crate) sha256: [u8; 32],
}

impl SourceFile {
    /// Its lines, each with its terminator; the last may have none.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Bytes> {
        self.text.split_inclusive(|byte| *byte == b'\n').map(|line| self.text.slice_ref(line))
    }
}

/// What lies below a directory.
#[derive(Default)]
pub(crate) struct Survey {
    /// To be shipped, ordered by name.
    pub(crate) files: Vec<SourceFile>,
    empty: usize,
    binary: usize,
    over_limit: usize,
    build_output: usize,
    hidden: usize,
    links: usize,
}

impl Survey {
    /// Lines of all files.
    pub(crate) fn records(&self) -> u64 {
        self.files.iter().map(|file| file.lines().count() as u64).sum()
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.text.len() as u64).sum()
    }

    /// One line for people: what is shipped and what is not.
    pub(crate) fn summary(&self, root: &Path) -> String {
        format!(
            "{} files below {}; skipped: {} empty, {} binary, {} over the size limit, {} target, {} hidden, {} links",
            self.files.len(),
            root.display(),
            self.empty,
            self.binary,
            self.over_limit,
            self.build_output,
            self.hidden,
            self.links
        )
    }

    fn visit(&mut self, root: &Path, dir: &Path, limit: u64) -> io::Result<()> {
        let mut entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (kind, path) = (entry.file_type()?, entry.path());
            let name = entry.file_name();
            if kind.is_symlink() {
                self.links += 1;
            } else if kind.is_dir() {
                if name == "target" {
                    self.build_output += 1;
                } else if name.to_string_lossy().starts_with('.') {
                    self.hidden += 1;
                } else {
                    self.visit(root, &path, limit)?;
                }
            } else if kind.is_file() {
                self.take(root, &path, entry.metadata()?.len(), limit)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, root: &Path, path: &Path, length: u64, limit: u64) -> io::Result<()> {
        if length > limit {
            self.over_limit += 1;
            return Ok(());
        }
        let text = fs::read(path)?;
        if text.is_empty() {
            self.empty += 1;
        } else if std::str::from_utf8(&text).is_err() {
            self.binary += 1;
        } else if text.split_inclusive(|byte| *byte == b'\n').any(|line| line.len() > LINE_LIMIT_BYTES) {
            self.over_limit += 1;
        } else {
            let below = path.strip_prefix(root).unwrap_or(path);
            let parts: Vec<_> = below.components().map(|part| part.as_os_str().to_string_lossy()).collect();
            let sha256 = Sha256::digest(&text).into();
            self.files.push(SourceFile { name: parts.join("/"), text: text.into(), sha256 });
        }
        Ok(())
    }
}

/// A line is one record, and a record must fit into max.request.size (1 MiB by default) with its key and header.
const LINE_LIMIT_BYTES: usize = 1_000_000;

/// Reads every file below `root` that can be shipped. Links and hidden folders are not followed.
///
/// # Errors
///
/// The first directory or file that cannot be read.
pub(crate) fn survey(root: &Path, limit: u64) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let name_it = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", root.display()));
    survey.visit(root, root, limit).map_err(name_it)?;
    Ok(survey)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, bytes: &[u8]) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_cannot_be_shipped_is_skipped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "b/text.txt", b"one\ntwo");
        write(dir.path(), "a.txt", b"x\n");
        write(dir.path(), "empty", b"");
        write(dir.path(), "binary", &[0xff, 0xfe, 0x00]);
        write(dir.path(), "large", &[b'a'; 101]);
        write(dir.path(), "target/built.txt", b"x");
        write(dir.path(), ".git/config", b"x");
        std::os::unix::fs::symlink(dir.path().join("a.txt"), dir.path().join("link")).unwrap();
        let survey = survey(dir.path(), 100).unwrap();
        let names: Vec<_> = survey.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a.txt", "b/text.txt"]);
        let skipped = [
            survey.empty,
            survey.binary,
            survey.over_limit,
            survey.build_output,
            survey.hidden,
            survey.links,
        ];
        assert_eq!(skipped, [1; 6]);
        assert_eq!((survey.records(), survey.bytes()), (3, 9));
    }

    #[test]
    fn lines_keep_their_terminators_and_make_up_the_file() {
        for text in ["one\ntwo\n", "no end", "\n\n", "dos\r\nlines\r\n"] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), "file", text.as_bytes());
            let survey = survey(dir.path(), 100).unwrap();
            let lines: Vec<_> = survey.files[0].lines().collect();
            assert_eq!(lines.concat(), text.as_bytes());
            assert!(lines.iter().rev().skip(1).all(|line| line.ends_with(b"\n")), "{text:?}");
        }
    }
}
