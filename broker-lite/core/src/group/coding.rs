//! Kafka's types in both of their forms, read from bytes that nobody has checked and written.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// Bytes that are not what they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cut off, or not what its lengths claim")]
pub struct Malformed;

/// Reads from the front.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest, flexible: false }
    }

    /// From here on lengths are compact, and structures end with tagged fields.
    pub(super) fn flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Malformed> {
        self.rest.try_get_i16().map_err(|_| Malformed)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.rest.try_get_i32().map_err(|_| Malformed)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.rest.try_get_i64().map_err(|_| Malformed)
    }

    fn uvarint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.rest.try_get_u8().map_err(|_| Malformed)?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// A length, `None` for null.
    fn length(&mut self, short: bool) -> Result<Option<usize>, Malformed> {
        let length = match (self.flexible, short) {
            (true, _) => i64::from(self.uvarint()?) - 1,
            (false, true) => i64::from(self.i16()?),
            (false, false) => i64::from(self.i32()?),
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| Malformed),
        }
    }

    pub(super) fn nullable_string(&mut self) -> Result<Option<String>, Malformed> {
        let Some(length) = self.length(true)? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| Malformed)?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn string(&mut self) -> Result<String, Malformed> {
        self.nullable_string()?.ok_or(Malformed)
    }

    pub(super) fn nullable_bytes(&mut self) -> Result<Option<Bytes>, Malformed> {
        let Some(length) = self.length(false)? else { return Ok(None) };
        Ok(Some(Bytes::copy_from_slice(self.take(length)?)))
    }

    /// How many elements follow, each of at least one byte.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.length(false)?.ok_or(Malformed)?;
        if count > self.rest.len() { Err(Malformed) } else { Ok(count) }
    }

    /// The tagged fields at the end of a structure; `known` may take one.
    pub(super) fn tags(
        &mut self,
        mut known: impl FnMut(u32, &mut Reader<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let size = self.uvarint()? as usize;
            let mut content = Reader { rest: self.take(size)?, flexible: true };
            known(tag, &mut content)?;
        }
        Ok(())
    }

    pub(super) fn uuid(&mut self) -> Result<Uuid, Malformed> {
        let bytes = self.take(16)?.try_into().map_err(|_| Malformed)?;
        Ok(Uuid::from_bytes(bytes))
    }
}

/// Writes in the form without compact lengths.
pub(super) fn put_string(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => {
            // requests carry strings of the same limit
            out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
            out.put_slice(text.as_bytes());
        }
        None => out.put_i16(-1),
    }
}

pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
    out.put_slice(bytes);
}

/// Writes a string in the compact form.
pub(super) fn put_compact_string(out: &mut BytesMut, text: &str) {
    put_uvarint(out, u32::try_from(text.len() + 1).unwrap_or(u32::MAX));
    out.put_slice(text.as_bytes());
}

pub(super) fn put_uvarint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
