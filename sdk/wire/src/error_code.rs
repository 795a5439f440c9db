//! Kafka's error codes.

/// An error code as it stands on the wire; 0 is none, negative and unknown ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub i16);
