//! The walk itself.

use std::cell::Cell;

use super::cursor::{Cursor, Fault, Malformed};
use super::table::{Field, Shape};
use super::tables::STRUCTS;

/// Elements that any message may have.
const FREE_ELEMENTS: usize = 1 << 17;
/// Beyond these, bytes of a message for each further one. `kafka-protocol` takes up to 32 bytes of memory for one
/// byte of an element that holds next to nothing; elements that mean something are longer than this, or few.
const BYTES_PER_ELEMENT: usize = 32;

/// Version of the message at hand, whether it is flexible, and how many more elements it may have.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) version: i16,
    pub(super) flexible: bool,
    pub(super) elements: &'a Elements,
}

/// Counts structures and strings in arrays, and tagged fields that nobody knows.
pub(super) struct Elements {
    left: Cell<usize>,
    limit: usize,
}

impl Elements {
    /// For a message of `bytes`.
    pub(super) fn of(bytes: usize) -> Self {
        let limit = FREE_ELEMENTS + bytes / BYTES_PER_ELEMENT;
        Self { left: Cell::new(limit), limit }
    }

    fn count(&self, more: usize, at: &Cursor<'_>) -> Result<(), Malformed> {
        match self.left.get().checked_sub(more) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => at.fail(Fault::Elements { limit: self.limit }),
        }
    }
}

impl Walk<'_> {
    /// Walks one structure. Schemas do not contain themselves, so the depth has a bound.
    pub(super) fn structure(self, number: u16, bytes: &mut Cursor<'_>) -> Result<(), Malformed> {
        let fields = fields(number);
        for field in fields.iter().filter(|field| field.tag().is_none() && field.exists(self.version)) {
            self.value(field.0, field.nullable(self.version), bytes)?;
        }
        if self.flexible { self.tagged(fields, bytes) } else { Ok(()) }
    }

    fn tagged(self, fields: &[Field], bytes: &mut Cursor<'_>) -> Result<(), Malformed> {
        let mut tags = bytes.tags()?;
        while let Some((tag, mut content)) = tags.next(bytes)? {
            match fields.iter().find(|field| field.tag() == Some(tag)) {
                Some(field) if field.exists(self.version) => {
                    self.value(field.0, field.nullable(self.version), &mut content)?;
                    content.finish()?;
                }
                Some(_) => return content.fail(Fault::TagVersion(tag)),
                None => self.elements.count(1, bytes)?,
            }
        }
        Ok(())
    }

    fn value(self, shape: Shape, nullable: bool, bytes: &mut Cursor<'_>) -> Result<(), Malformed> {
        match shape {
            Shape::Fixed(size) => bytes.take(size.into()).map(drop),
            Shape::Struct(number) if nullable => self.optional(number, bytes),
            Shape::Struct(number) => self.structure(number, bytes),
            Shape::Text => match self.length(shape, nullable, bytes)? {
                Some(length) => bytes.text(length).map(drop),
                None => Ok(()),
            },
            Shape::Blob => match self.length(shape, nullable, bytes)? {
                Some(length) => bytes.claimed(length).map(drop),
                None => Ok(()),
            },
            Shape::Fixeds(_) | Shape::Texts | Shape::Structs(_) => {
                match self.length(shape, nullable, bytes)? {
                    Some(claimed) => self.elements(shape, claimed, bytes),
                    None => Ok(()),
                }
            }
        }
    }

    /// Walks the elements of an array, once their count is seen to be possible.
    fn elements(self, shape: Shape, claimed: u32, bytes: &mut Cursor<'_>) -> Result<(), Malformed> {
        match shape {
            Shape::Fixeds(size) => {
                let count = bytes.count(claimed, size.into())?;
                bytes.take(count * usize::from(size))?;
            }
            Shape::Structs(number) => {
                let count = bytes.count(claimed, self.least_size(number))?;
                self.elements.count(count, bytes)?;
                for _ in 0..count {
                    self.structure(number, bytes)?;
                }
            }
            _ => {
                let count = bytes.count(claimed, self.least(Shape::Text, false))?;
                self.elements.count(count, bytes)?;
                for _ in 0..count {
                    self.value(Shape::Text, false, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// A structure behind a marker: 1 is there, -1 is null.
    fn optional(self, number: u16, bytes: &mut Cursor<'_>) -> Result<(), Malformed> {
        let start = bytes.clone();
        match bytes.array().map(i8::from_be_bytes)? {
            1 => self.structure(number, bytes),
            -1 => Ok(()),
            other => start.fail(Fault::Marker(other)),
        }
    }

    /// The length or count in front of a value; `None` is a null that is allowed.
    fn length(self, shape: Shape, nullable: bool, bytes: &mut Cursor<'_>) -> Result<Option<u32>, Malformed> {
        let start = bytes.clone();
        let length = match shape {
            _ if self.flexible => bytes.compact_length()?,
            Shape::Text => bytes.length16()?,
            _ => bytes.length32()?,
        };
        if length.is_none() && !nullable {
            return start.fail(Fault::Null);
        }
        Ok(length)
    }

    /// Least number of bytes a structure takes.
    pub(super) fn least_size(self, number: u16) -> usize {
        let present = fields(number).iter().filter(|f| f.tag().is_none() && f.exists(self.version));
        let sum: usize = present.map(|f| self.least(f.0, f.nullable(self.version))).sum();
        sum + usize::from(self.flexible)
    }

    fn least(self, shape: Shape, nullable: bool) -> usize {
        match shape {
            Shape::Fixed(size) => size.into(),
            Shape::Struct(_) if nullable => 1,
            Shape::Struct(number) => self.least_size(number),
            _ if self.flexible => 1,
            Shape::Text => 2,
            _ => 4,
        }
    }
}

fn fields(number: u16) -> &'static [Field] {
    STRUCTS.get(usize::from(number)).copied().unwrap_or_default()
}
