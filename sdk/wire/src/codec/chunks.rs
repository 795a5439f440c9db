//! A body under construction, in pieces.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;

use super::CodecError;
use crate::seam::Frame;

/// Writes primitives into its own memory and takes record chunks as they are.
pub(super) struct Chunks {
    api_key: i16,
    version: i16,
    flexible: bool,
    done: Vec<Bytes>,
    open: BytesMut,
}

impl Chunks {
    pub(super) fn new(api_key: i16, version: i16, flexible: bool, capacity: usize) -> Self {
        Self { api_key, version, flexible, done: Vec::new(), open: BytesMut::with_capacity(capacity) }
    }

    pub(super) fn raw(&mut self) -> &mut BytesMut {
        &mut self.open
    }

    /// A number of elements, in front of them.
    pub(super) fn count(&mut self, count: usize) -> Result<(), CodecError> {
        self.length(count, "too many elements")
    }

    /// A string; `None` is null.
    pub(super) fn text(&mut self, text: Option<&str>) -> Result<(), CodecError> {
        match text {
            None if self.flexible => self.open.put_u8(0),
            None => self.open.put_i16(-1),
            Some(text) => {
                let length = i16::try_from(text.len()).map_err(|_| self.invalid("string over 32767 B"))?;
                if self.flexible {
                    put_uvarint(&mut self.open, u32::from(length.unsigned_abs()) + 1);
                } else {
                    self.open.put_i16(length);
                }
                self.open.put_slice(text.as_bytes());
            }
        }
        Ok(())
    }

    /// Records, never null; the chunks are shared, not copied.
    pub(super) fn records(&mut self, chunks: &[Bytes]) -> Result<(), CodecError> {
        self.length(chunks.iter().map(Bytes::len).sum(), "records over 2 GiB")?;
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            if !self.open.is_empty() {
                self.done.push(self.open.split().freeze());
            }
            self.done.push(chunk.clone());
        }
        Ok(())
    }

    /// A structure of `kafka-protocol` as the content of a tagged field.
    pub(super) fn tagged(&mut self, tag: u32, content: &impl Encodable) -> Result<(), CodecError> {
        let size = content.compute_size(self.version).map_err(|e| self.invalid(&e))?;
        let size = u32::try_from(size).map_err(|_| self.invalid("tagged field over 4 GiB"))?;
        put_uvarint(&mut self.open, tag);
        put_uvarint(&mut self.open, size);
        self.structure(content)
    }

    pub(super) fn structure(&mut self, content: &impl Encodable) -> Result<(), CodecError> {
        let done = content.encode(&mut self.open, self.version);
        done.map_err(|e| self.invalid(&e))
    }

    /// Ends a structure that has no tagged fields.
    pub(super) fn no_tags(&mut self) {
        if self.flexible {
            self.open.put_u8(0);
        }
    }

    pub(super) fn finish(mut self) -> Frame {
        if !self.open.is_empty() {
            self.done.push(self.open.freeze());
        }
        Frame { api_key: self.api_key, api_version: self.version, body: self.done, expects_reply: true }
    }

    pub(super) fn invalid(&self, reason: &(impl ToString + ?Sized)) -> CodecError {
        CodecError::Invalid { api_key: self.api_key, version: self.version, reason: reason.to_string() }
    }

    fn length(&mut self, length: usize, reason: &str) -> Result<(), CodecError> {
        let length = i32::try_from(length).map_err(|_| self.invalid(reason))?;
        if self.flexible {
            put_uvarint(&mut self.open, length.unsigned_abs() + 1);
        } else {
            self.open.put_i32(length);
        }
        Ok(())
    }
}

/// An unsigned varint, as flexible messages have it.
pub(crate) fn put_uvarint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
