//! Bytes to and from a broker, over plain sockets.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Only turns a hang into a finding.
const SILENCE: Duration = Duration::from_secs(8);
/// Longest answer taken.
const LONGEST: usize = 64 << 20;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer without its length.
    Answer(Vec<u8>),
    /// The peer has closed the connection.
    Closed,
    /// Nothing, for so long that nothing will come.
    Silent,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection(TcpStream);

impl Connection {
    pub(super) fn open(address: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(Self(stream))
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    pub(super) fn half_close(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    pub(super) fn receive(&mut self) -> Outcome {
        let mut length = [0; 4];
        if let Err(error) = self.0.read_exact(&mut length) {
            return gone(&error);
        }
        let length = u32::from_be_bytes(length) as usize;
        let mut answer = vec![0; length.min(LONGEST)];
        match self.0.read_exact(&mut answer) {
            Ok(()) => Outcome::Answer(answer),
            Err(error) => gone(&error),
        }
    }
}

fn gone(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::Silent,
        _ => Outcome::Closed,
    }
}

/// A request header; `tags` are those of a flexible one.
pub(super) fn header(
    api: i16,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    tags: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(api.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(correlation_id.to_be_bytes());
    out.extend(client_id.map_or(-1, |id| id.len() as i16).to_be_bytes());
    out.extend(client_id.unwrap_or_default().as_bytes());
    let flexible = super::apis().iter().find(|known| known.key == api).map(|known| known.request.flexible);
    if flexible.is_some_and(|flexible| version >= flexible) {
        out.extend(tags);
    }
    out
}

/// Puts the length before a request.
pub(super) fn frame(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}
