//! The types of the generated tables.

/// "And every later version."
pub(super) const FOREVER: i8 = i8::MAX;

/// One api: key, request, response.
pub(super) struct Api(pub(super) i16, pub(super) Message, pub(super) Message);

/// Lowest and highest version, first flexible version, number of the structure.
pub(super) struct Message(pub(super) i8, pub(super) i8, pub(super) i8, pub(super) u16);

/// Shape, first and last version, first and last nullable version, tag or -1.
pub(super) struct Field(
    pub(super) Shape,
    pub(super) i8,
    pub(super) i8,
    pub(super) i8,
    pub(super) i8,
    pub(super) i8,
);

/// How a field lies in the bytes. The plural ones are arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// So many bytes.
    Fixed(u8),
    Text,
    Blob,
    /// A structure, by its number.
    Struct(u16),
    Fixeds(u8),
    Texts,
    Structs(u16),
}

impl Message {
    pub(super) fn flexible(&self, version: i16) -> bool {
        self.2 != FOREVER && version >= i16::from(self.2)
    }

    pub(super) fn has(&self, version: i16) -> bool {
        within(version, self.0, self.1)
    }
}

impl Field {
    pub(super) fn exists(&self, version: i16) -> bool {
        within(version, self.1, self.2)
    }

    pub(super) fn nullable(&self, version: i16) -> bool {
        within(version, self.3, self.4)
    }

    /// The tag, if this is a tagged field.
    pub(super) fn tag(&self) -> Option<u32> {
        u32::try_from(self.5).ok()
    }
}

fn within(version: i16, first: i8, last: i8) -> bool {
    i16::from(first) <= version && version <= i16::from(last)
}
