//! How each type of field is written and read; records are always flexible.

use bytes::{BufMut, BytesMut};
use uuid::Uuid;

use crate::codec::put_uvarint;
use crate::schema::{Cursor, Fault, Malformed};

/// A field's type.
pub(super) trait Value: Sized {
    /// Least number of bytes a value takes.
    const MIN_BYTES: usize;

    fn write(&self, version: i16, out: &mut BytesMut);
    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed>;
}

/// Reads the content of a tagged field, which must hold nothing else.
pub(super) fn read_whole<T: Value>(version: i16, content: &mut Cursor<'_>) -> Result<T, Malformed> {
    let value = T::read(version, content)?;
    content.finish()?;
    Ok(value)
}

/// Collects tagged fields in rising order of their tags.
#[derive(Default)]
pub(super) struct TagWriter {
    count: u32,
    fields: BytesMut,
}

impl TagWriter {
    pub(super) fn put(&mut self, tag: u32, version: i16, value: &impl Value) {
        let mut content = BytesMut::new();
        value.write(version, &mut content);
        self.count += 1;
        put_uvarint(&mut self.fields, tag);
        put_length(&mut self.fields, content.len());
        self.fields.extend_from_slice(&content);
    }

    pub(super) fn finish(self, out: &mut BytesMut) {
        put_uvarint(out, self.count);
        out.extend_from_slice(&self.fields);
    }
}

/// No record comes near 4 GiB: a batch could not hold it.
fn put_length(out: &mut BytesMut, length: usize) {
    put_uvarint(out, u32::try_from(length).unwrap_or(u32::MAX));
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Value for $number {
            const MIN_BYTES: usize = size_of::<$number>();

            fn write(&self, _: i16, out: &mut BytesMut) {
                out.put_slice(&self.to_be_bytes());
            }

            fn read(_: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
                bytes.array().map(<$number>::from_be_bytes)
            }
        }
    )*};
}

numbers!(i8, i16, u16, i32, i64);

impl Value for bool {
    const MIN_BYTES: usize = 1;

    fn write(&self, _: i16, out: &mut BytesMut) {
        out.put_u8(u8::from(*self));
    }

    fn read(_: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        bytes.array().map(|[byte]| byte != 0)
    }
}

impl Value for Uuid {
    const MIN_BYTES: usize = 16;

    fn write(&self, _: i16, out: &mut BytesMut) {
        out.put_slice(self.as_bytes());
    }

    fn read(_: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        bytes.array().map(Self::from_bytes)
    }
}

impl Value for String {
    const MIN_BYTES: usize = 1;

    fn write(&self, _: i16, out: &mut BytesMut) {
        put_length(out, self.len() + 1);
        out.put_slice(self.as_bytes());
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let start = bytes.clone();
        Option::read(version, bytes)?.map_or_else(|| start.fail(Fault::Null), Ok)
    }
}

impl Value for Option<String> {
    const MIN_BYTES: usize = 1;

    fn write(&self, version: i16, out: &mut BytesMut) {
        match self {
            Some(text) => text.write(version, out),
            None => out.put_u8(0),
        }
    }

    fn read(_: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let Some(length) = bytes.compact_length()? else {
            return Ok(None);
        };
        bytes.text(length).map(|text| Some(text.to_owned()))
    }
}

impl<T: Value> Value for Vec<T> {
    const MIN_BYTES: usize = 1;

    fn write(&self, version: i16, out: &mut BytesMut) {
        put_length(out, self.len() + 1);
        for element in self {
            element.write(version, out);
        }
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let start = bytes.clone();
        Option::read(version, bytes)?.map_or_else(|| start.fail(Fault::Null), Ok)
    }
}

impl<T: Value> Value for Option<Vec<T>> {
    const MIN_BYTES: usize = 1;

    fn write(&self, version: i16, out: &mut BytesMut) {
        match self {
            Some(elements) => elements.write(version, out),
            None => out.put_u8(0),
        }
    }

    fn read(version: i16, bytes: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let Some(claimed) = bytes.compact_length()? else {
            return Ok(None);
        };
        let count = bytes.count(claimed, T::MIN_BYTES)?;
        (0..count).map(|_| T::read(version, bytes)).collect::<Result<_, _>>().map(Some)
    }
}
