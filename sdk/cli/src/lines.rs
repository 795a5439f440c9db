//! Lines of bytes: what stands between newlines, whatever it is.
//!
//! In: bytes as they are read. Out: lines without their newline; the last one need not have one. Nothing else is taken
//! off: a carriage return before the newline is part of the line.
//!
//! Invariant: at most `limit` bytes of one line are kept, so that input without a newline needs no memory without end.

use bytes::{Buf, Bytes, BytesMut};

/// A line, or why it is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Its bytes, without the newline.
    Whole(Bytes),
    /// It has more bytes than are allowed; they are gone.
    TooLong,
}

/// Splits input into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    buffer: BytesMut,
    /// Bytes at the front of `buffer` that hold no newline.
    searched: usize,
    /// Inside of a line that is too long.
    skipping: bool,
    limit: usize,
}

impl Lines {
    /// Lines of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, skipping: false, limit }
    }

    /// Where to read to, once [`Self::next_line`] has nothing more.
    pub(crate) fn read_buffer(&mut self, room: usize) -> &mut BytesMut {
        self.buffer.reserve(room);
        &mut self.buffer
    }

    /// The next line that has its newline.
    pub(crate) fn next_line(&mut self) -> Option<Line> {
        let unsearched = &self.buffer[self.searched..];
        let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            if self.skipping || self.searched > self.limit {
                self.skipping = true;
                self.buffer.clear();
                self.searched = 0;
            }
            return None;
        };
        let line = self.buffer.split_to(self.searched + at);
        self.buffer.advance(1);
        self.searched = 0;
        Some(self.line(line))
    }

    /// The last line, at the end of the input, if it has no newline.
    pub(crate) fn last_line(&mut self) -> Option<Line> {
        let rest = self.buffer.split();
        self.searched = 0;
        (self.skipping || !rest.is_empty()).then(|| self.line(rest))
    }

    /// Whether the input, so far, ends in the middle of a line.
    pub(crate) fn is_inside_a_line(&self) -> bool {
        self.skipping || !self.buffer.is_empty()
    }

    fn line(&mut self, line: BytesMut) -> Line {
        let too_long = std::mem::take(&mut self.skipping) || line.len() > self.limit;
        if too_long { Line::TooLong } else { Line::Whole(line.freeze()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of input that arrives in pieces of `size` bytes.
    fn lines(input: &[u8], size: usize, limit: usize) -> Vec<Line> {
        let mut lines = Lines::new(limit);
        let mut all = Vec::new();
        for piece in input.chunks(size) {
            lines.read_buffer(piece.len()).extend_from_slice(piece);
            all.extend(std::iter::from_fn(|| lines.next_line()));
        }
        all.extend(lines.last_line());
        all
    }

    fn whole(line: &'static [u8]) -> Line {
        Line::Whole(Bytes::from_static(line))
    }

    #[test]
    fn a_line_is_what_stands_between_newlines_however_it_arrives() {
        let input = b"one\n\n\xff\0three\r\nlast";
        let expected = [whole(b"one"), whole(b""), whole(b"\xff\0three\r"), whole(b"last")];
        for size in 1..=input.len() {
            assert_eq!(lines(input, size, 100), expected, "in pieces of {size}");
        }
        assert_eq!(lines(b"one\n", 9, 100), [whole(b"one")], "no line follows the last newline");
        assert_eq!(lines(b"", 9, 100), []);
        assert_eq!(lines(b"\n", 9, 100), [whole(b"")]);
    }

    #[test]
    fn a_line_over_the_limit_is_counted_and_not_kept() {
        let input = b"1234\n12345\n1\n123456789";
        let expected = [whole(b"1234"), Line::TooLong, whole(b"1"), Line::TooLong];
        for size in 1..=input.len() {
            assert_eq!(lines(input, size, 4), expected, "in pieces of {size}");
        }
        let mut endless = Lines::new(100);
        for _ in 0..1000 {
            endless.read_buffer(1000).extend_from_slice(&[b'x'; 1000]);
            assert_eq!(endless.next_line(), None);
            assert!(endless.buffer.len() <= 100);
        }
        assert!(endless.is_inside_a_line());
        endless.read_buffer(2).extend_from_slice(b"\n1");
        assert_eq!(endless.next_line(), Some(Line::TooLong));
        assert_eq!(endless.last_line(), Some(whole(b"1")));
    }
}
