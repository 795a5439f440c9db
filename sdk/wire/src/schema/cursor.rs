//! Reads the primitives of the protocol off a slice, checking every length against what is left.

/// What contradicts the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes end within a value.
    #[error("ends early")]
    Truncated,
    /// An unsigned varint that does not fit 32 bits.
    #[error("varint overflow")]
    Varint,
    /// A length or count below -1.
    #[error("negative length")]
    Negative,
    /// A length beyond the end of the bytes.
    #[error("claims {claimed} B where {left} B are left")]
    Length {
        /// What the length says.
        claimed: u32,
        /// What is there.
        left: usize,
    },
    /// A count of elements for which the bytes do not suffice.
    #[error("claims {claimed} elements where {left} B are left")]
    Count {
        /// What the count says.
        claimed: u32,
        /// What is there.
        left: usize,
    },
    /// More elements than a message of this size can mean.
    #[error("more than {limit} elements, most of them next to empty")]
    Elements {
        /// The most that is let pass.
        limit: usize,
    },
    /// Null where the version does not allow it.
    #[error("null in a field that must not be null")]
    Null,
    /// A marker of an optional structure that is neither 1 nor -1.
    #[error("presence marker {0}")]
    Marker(i8),
    /// A tag that is not higher than the one before it.
    #[error("tag {0} out of order")]
    TagOrder(u32),
    /// A tagged field that only other versions of the message have.
    #[error("tag {0} is not of this version")]
    TagVersion(u32),
    /// Bytes left over after the end of a message or of a tagged field.
    #[error("{0} B left over")]
    Trailing(usize),
    /// A string that is not UTF-8.
    #[error("not UTF-8")]
    Utf8,
}

/// A fault and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {at}")]
pub struct Malformed {
    /// Offset from the start of the message.
    pub at: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// A position in bytes that nobody has checked yet.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    at: usize,
}

/// The tagged fields at the end of a flexible structure.
#[derive(Debug)]
pub(crate) struct Tags {
    left: u32,
    last: Option<u32>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at: 0 }
    }

    /// Bytes not read yet.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn fail<T>(&self, fault: Fault) -> Result<T, Malformed> {
        Err(Malformed { at: self.at, fault })
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                self.at += count;
                Ok(taken)
            }
            None => self.fail(Fault::Truncated),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                self.at += N;
                Ok(*taken)
            }
            None => self.fail(Fault::Truncated),
        }
    }

    /// An unsigned varint of at most 32 bits; longer forms of small numbers are allowed, as in Kafka.
    pub(crate) fn uvarint(&mut self) -> Result<u32, Malformed> {
        let start = self.clone();
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                return start.fail(Fault::Varint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }

    /// A length in 2 bytes; `None` is null.
    pub(crate) fn length16(&mut self) -> Result<Option<u32>, Malformed> {
        let start = self.clone();
        let length = i16::from_be_bytes(self.array()?);
        start.signed(i32::from(length))
    }

    /// A length or count in 4 bytes; `None` is null.
    pub(crate) fn length32(&mut self) -> Result<Option<u32>, Malformed> {
        let start = self.clone();
        let length = i32::from_be_bytes(self.array()?);
        start.signed(length)
    }

    /// A length or count in the compact form; `None` is null.
    pub(crate) fn compact_length(&mut self) -> Result<Option<u32>, Malformed> {
        Ok(self.uvarint()?.checked_sub(1))
    }

    fn signed(&self, length: i32) -> Result<Option<u32>, Malformed> {
        match length {
            -1 => Ok(None),
            _ => u32::try_from(length).map(Some).or_else(|_| self.fail(Fault::Negative)),
        }
    }

    /// As many bytes as a length claims.
    pub(crate) fn claimed(&mut self, length: u32) -> Result<&'a [u8], Malformed> {
        let left = self.left();
        match usize::try_from(length) {
            Ok(count) if count <= left => self.take(count),
            _ => self.fail(Fault::Length { claimed: length, left }),
        }
    }

    /// A string of as many bytes as a length claims.
    pub(crate) fn text(&mut self, length: u32) -> Result<&'a str, Malformed> {
        let start = self.clone();
        std::str::from_utf8(self.claimed(length)?).or_else(|_| start.fail(Fault::Utf8))
    }

    /// Checks a claimed count of elements that take at least `min_bytes` each.
    pub(crate) fn count(&self, claimed: u32, min_bytes: usize) -> Result<usize, Malformed> {
        let left = self.left();
        match usize::try_from(claimed) {
            Ok(count) if count <= left / min_bytes.max(1) => Ok(count),
            _ => self.fail(Fault::Count { claimed, left }),
        }
    }

    /// The next `length` bytes as a cursor of their own, positioned alike.
    pub(crate) fn window(&mut self, length: u32) -> Result<Self, Malformed> {
        let at = self.at;
        Ok(Self { rest: self.claimed(length)?, at })
    }

    /// Fails if anything is left.
    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { self.fail(Fault::Trailing(self.rest.len())) }
    }

    /// Starts the tagged fields.
    pub(crate) fn tags(&mut self) -> Result<Tags, Malformed> {
        let start = self.clone();
        let claimed = self.uvarint()?;
        // A tag and its size take a byte each.
        if usize::try_from(claimed).is_ok_and(|count| count <= self.left() / 2) {
            return Ok(Tags { left: claimed, last: None });
        }
        start.fail(Fault::Count { claimed, left: self.left() })
    }
}

impl Tags {
    /// The next tagged field; tags rise strictly, so none comes twice.
    pub(crate) fn next<'a>(
        &mut self,
        bytes: &mut Cursor<'a>,
    ) -> Result<Option<(u32, Cursor<'a>)>, Malformed> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let start = bytes.clone();
        let tag = bytes.uvarint()?;
        if self.last.is_some_and(|last| last >= tag) || i32::try_from(tag).is_err() {
            return start.fail(Fault::TagOrder(tag));
        }
        self.last = Some(tag);
        let size = bytes.uvarint()?;
        Ok(Some((tag, bytes.window(size)?)))
    }
}
