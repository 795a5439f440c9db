//! Errors that every part of the client shares. Each answers "what now?" by `recovery()`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use klamm_wire::codec::CodecError;
use klamm_wire::negotiation::NegotiationError;
use klamm_wire::{ErrorCode, LinkError};

/// What the caller may do next. Every error of this crate maps to exactly one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// Try the same call again. The client has already used up its own budget.
    Retry,
    /// Abort the open transaction, then start a new one on the same producer.
    Abort,
    /// Drop this object and make a new one. No later call on it can succeed.
    Rebuild,
    /// Change the input or the configuration; the same call fails again.
    Fix,
    /// The partitions are not this consumer's, or not any more: whoever has them reads on from the last commit. Drop what was
    /// begun, and go on with what comes.
    GoOn,
}

/// A setting that cannot be, found before anything was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The value is impossible, by itself or together with another setting.
    #[error("{setting}={value}: must be {expected}")]
    Invalid {
        /// Kafka's name of the setting.
        setting: Cow<'static, str>,
        /// The value given.
        value: String,
        /// What would be right.
        expected: Cow<'static, str>,
    },
    /// The setting has no default and was not given.
    #[error("{setting} is missing: {expected}")]
    Missing {
        /// Kafka's name of the setting.
        setting: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// Kafka has this setting, this client does not have it yet.
    #[error("{setting} is not supported yet: {reason}")]
    NotSupportedYet {
        /// Kafka's name of the setting.
        setting: String,
        /// The value given.
        value: String,
        /// What to do without it.
        reason: &'static str,
    },
    /// The setting is one of another kind of client.
    #[error("{setting} is a setting of {belongs_to}")]
    Misplaced {
        /// Kafka's name of the setting.
        setting: &'static str,
        /// Whose it is.
        belongs_to: &'static str,
    },
    /// Kafka has no such setting.
    #[error("unknown setting {setting}{}", .nearest.map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    Unknown {
        /// The name given.
        setting: String,
        /// The known name that is spelt most alike.
        nearest: Option<&'static str>,
    },
    /// The client was made outside of a tokio runtime.
    #[error("no tokio runtime: make the client inside of one, for example in a #[tokio::main] function")]
    NoRuntime,
}

impl ConfigError {
    /// An impossible value.
    pub(crate) fn invalid(
        setting: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Invalid { setting: setting.into(), value: value.to_string(), expected: expected.into() }
    }

    /// Always [`Recovery::Fix`].
    pub fn recovery(&self) -> Recovery {
        Recovery::Fix
    }
}

/// Why one request to one broker has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The broker could not be reached; the request was not sent.
    #[error("cannot reach {broker}: {source}")]
    Unreachable {
        /// Address, with the id if it is known.
        broker: String,
        /// What happened.
        source: LinkError,
    },
    /// The connection broke while the answer was awaited, or just before the request was sent.
    #[error("connection to {broker} lost: {source}")]
    Lost {
        /// Address, with the id if it is known.
        broker: String,
        /// What happened.
        source: LinkError,
    },
    /// No answer within `request.timeout.ms`.
    #[error("no answer from {broker} within {limit:?}")]
    TimedOut {
        /// Address, with the id if it is known.
        broker: String,
        /// Time waited.
        limit: Duration,
        /// `true` once the request was handed to the connection.
        sent: bool,
    },
    /// No broker at all could be reached in time; one entry per address that was tried.
    #[error("no broker could be reached within {limit:?}{}", Causes(.causes))]
    NoBroker {
        /// Time waited.
        limit: Duration,
        /// Address and cause of the last failure there.
        causes: Vec<(String, RequestError)>,
    },
    /// The metadata does not name this broker.
    #[error("broker {id} is not known")]
    UnknownBroker {
        /// The broker id.
        id: i32,
    },
    /// Broker and client have no version of the request in common.
    #[error(transparent)]
    Version(#[from] NegotiationError),
    /// The request cannot be encoded, or the answer cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Too many requests wait for a connection to this broker.
    #[error("{limit} requests already wait for a connection to {broker}")]
    QueueFull {
        /// Address, with the id if it is known.
        broker: String,
        /// The limit (`max_queued_requests`).
        limit: usize,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl RequestError {
    /// Returns `true` if the broker may have carried out the request despite this error.
    pub fn maybe_written(&self) -> bool {
        match self {
            Self::Lost { source, .. } => !matches!(source, LinkError::NotSent { .. }),
            Self::TimedOut { sent, .. } => *sent,
            // The request may have been understood although its answer was not.
            Self::Codec(error) => matches!(error, CodecError::Malformed(_)),
            _ => false,
        }
    }

    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Version(_) | Self::Codec(_) => Recovery::Fix,
            Self::Closed => Recovery::Rebuild,
            _ => Recovery::Retry,
        }
    }
}

/// Why a client could not be started, or is not ready.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A setting is impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No broker answered in time; one entry per address that was tried.
    #[error("cluster not reached within {waited:?}{}", Causes(.causes))]
    NotReached {
        /// Time waited.
        waited: Duration,
        /// Address and cause of the last failure there.
        causes: Vec<(String, RequestError)>,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl ClientError {
    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Config(_) => Recovery::Fix,
            Self::NotReached { .. } => Recovery::Retry,
            Self::Closed => Recovery::Rebuild,
        }
    }
}

/// Why there is no metadata for a topic.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The broker refuses the topic, for example its name.
    #[error("topic {topic:?}: {code}")]
    Topic {
        /// Name of the topic.
        topic: String,
        /// What the broker said.
        code: ErrorCode,
    },
    /// The topic was not known in time; brokers did answer.
    #[error("topic {topic:?} not known within {waited:?}: {code}")]
    UnknownTopic {
        /// Name of the topic.
        topic: String,
        /// Time waited.
        waited: Duration,
        /// What the broker said last, usually UNKNOWN_TOPIC_OR_PARTITION.
        code: ErrorCode,
    },
    /// No broker answered in time; one entry per address that was tried.
    #[error("no metadata for topic {topic:?} within {waited:?}{}", Causes(.causes))]
    TimedOut {
        /// Name of the topic.
        topic: String,
        /// Time waited.
        waited: Duration,
        /// Address and cause of the last failure there.
        causes: Vec<(String, RequestError)>,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl MetadataError {
    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Topic { .. } => Recovery::Fix,
            Self::UnknownTopic { .. } | Self::TimedOut { .. } => Recovery::Retry,
            Self::Closed => Recovery::Rebuild,
        }
    }
}

/// Prints `; host:port: cause` for each address.
struct Causes<'a, E>(&'a [(String, E)]);

impl<E: fmt::Display> fmt::Display for Causes<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(address, cause)| write!(f, "; {address}: {cause}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_a_broken_connection_refused_is_not_written() {
        let lost = |source| RequestError::Lost { broker: "b".to_owned(), source };
        assert!(lost(LinkError::closed()).maybe_written());
        let refused = lost(LinkError::closed().before_sending());
        assert_eq!((refused.maybe_written(), refused.recovery()), (false, Recovery::Retry));
    }
}
