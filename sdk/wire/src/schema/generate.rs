//! Writes random messages by the same tables that the walk reads, for tests.

use bytes::{BufMut, BytesMut};

use super::table::{Field, Shape};
use super::{Kind, message, tables::STRUCTS};
use crate::codec::put_uvarint;

/// Random bytes that run out into zeros, so that a failing case shrinks.
pub(crate) struct Entropy<'a>(pub(crate) &'a [u8]);

impl Entropy<'_> {
    fn next(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn one_of(&mut self, count: u8) -> usize {
        usize::from(self.next() % count)
    }
}

/// Which tagged fields a message gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TagsToWrite {
    None,
    Unknown,
    Known,
}

/// A body of this version, which must be in the schema.
pub(crate) fn body(
    kind: Kind,
    api_key: i16,
    version: i16,
    tags: TagsToWrite,
    entropy: &mut Entropy<'_>,
) -> BytesMut {
    let message = message(kind, api_key).unwrap();
    let mut writer = Writer { version, flexible: message.flexible(version), tags, entropy };
    let mut out = BytesMut::new();
    writer.structure(message.3, &mut out);
    out
}

struct Writer<'a, 'b> {
    version: i16,
    flexible: bool,
    tags: TagsToWrite,
    entropy: &'a mut Entropy<'b>,
}

impl Writer<'_, '_> {
    fn structure(&mut self, number: u16, out: &mut BytesMut) {
        let (fields, version) = (STRUCTS[usize::from(number)], self.version);
        for field in fields.iter().filter(|f| f.tag().is_none() && f.exists(version)) {
            self.value(field, out);
        }
        if self.flexible {
            self.tagged(fields, out);
        }
    }

    fn tagged(&mut self, fields: &[Field], out: &mut BytesMut) {
        let mut known: Vec<&Field> =
            fields.iter().filter(|f| f.tag().is_some() && f.exists(self.version)).collect();
        known.sort_by_key(|f| f.tag());
        known.retain(|_| self.tags == TagsToWrite::Known && self.entropy.one_of(2) == 1);
        let unknown = self.tags != TagsToWrite::None && self.entropy.one_of(4) == 1;
        put_uvarint(out, known.len() as u32 + u32::from(unknown));
        for field in known {
            let mut content = BytesMut::new();
            self.value(field, &mut content);
            put_uvarint(out, field.tag().unwrap());
            put_uvarint(out, content.len() as u32);
            out.put_slice(&content);
        }
        if unknown {
            put_uvarint(out, 100 + self.entropy.one_of(100) as u32);
            put_uvarint(out, 2);
            out.put_slice(b"xy");
        }
    }

    fn value(&mut self, field: &Field, out: &mut BytesMut) {
        if field.nullable(self.version) && self.entropy.one_of(4) == 1 {
            return self.null(field.0, out);
        }
        match field.0 {
            Shape::Struct(number) => {
                if field.nullable(self.version) {
                    out.put_i8(1);
                }
                self.structure(number, out);
            }
            shape => self.present(shape, out),
        }
    }

    fn null(&self, shape: Shape, out: &mut BytesMut) {
        match shape {
            Shape::Struct(_) => out.put_i8(-1),
            _ if self.flexible => out.put_u8(0),
            Shape::Text => out.put_i16(-1),
            _ => out.put_i32(-1),
        }
    }

    fn present(&mut self, shape: Shape, out: &mut BytesMut) {
        match shape {
            // 0 or 1, so that it may be a boolean.
            Shape::Fixed(1) => out.put_u8(self.entropy.next() & 1),
            Shape::Fixed(size) => (0..size).for_each(|_| out.put_u8(self.entropy.next())),
            Shape::Struct(number) => self.structure(number, out),
            Shape::Text => {
                let text = vec![b'a' + self.entropy.next() % 26; self.entropy.one_of(6)];
                if self.flexible {
                    put_uvarint(out, text.len() as u32 + 1);
                } else {
                    out.put_i16(text.len() as i16);
                }
                out.put_slice(&text);
            }
            Shape::Blob => {
                let blob = vec![self.entropy.next(); self.entropy.one_of(9) * 20];
                self.length(blob.len(), out);
                out.put_slice(&blob);
            }
            Shape::Fixeds(size) => self.elements(Shape::Fixed(size), out),
            Shape::Texts => self.elements(Shape::Text, out),
            Shape::Structs(number) => self.elements(Shape::Struct(number), out),
        }
    }

    fn elements(&mut self, shape: Shape, out: &mut BytesMut) {
        let count = self.entropy.one_of(4);
        self.length(count, out);
        for _ in 0..count {
            self.present(shape, out);
        }
    }

    fn length(&self, length: usize, out: &mut BytesMut) {
        if self.flexible {
            put_uvarint(out, length as u32 + 1);
        } else {
            out.put_i32(length as i32);
        }
    }
}
