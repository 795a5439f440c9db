//! Why an administrative call failed: as a whole, or for one of the things it names.

use std::fmt;

use klamm_core::TopicPartition;
use klamm_wire::ErrorCode;
use klamm_wire::messages::ApiKey;
use uuid::Uuid;

use super::configs::ConfigResource;
use super::groups::{GroupDescription, GroupState};
use crate::error::{Recovery, RequestError};

/// Why a whole call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No answer. If broker and client have no version of the api in common, this names the api and what both offer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The broker refused the request as a whole.
    #[error("refused: {}", Told(*.code, .message.as_deref(), *.maybe_done))]
    Refused {
        /// What the broker said.
        code: ErrorCode,
        /// The broker's own words.
        message: Option<String>,
        /// An earlier attempt of the same call, whose answer was lost, may have done it.
        maybe_done: bool,
    },
    /// The group has members, which commit for themselves: its offsets are as they were.
    #[error("group {group:?} is {state} with {}: stop them or remove them, and ask again", in_words(.members))]
    GroupActive {
        /// The group.
        group: String,
        /// Its state.
        state: GroupState,
        /// Its members: client id and host.
        members: Vec<(String, String)>,
    },
    /// The broker offers the api, but not in a version that can say what was asked.
    #[error(
        "the broker speaks {api:?} up to version {offered}, but {what} needs {needed}: upgrade it, or do without"
    )]
    TooOld {
        /// The api.
        api: ApiKey,
        /// The highest version that both sides speak.
        offered: i16,
        /// The lowest version that would do.
        needed: i16,
        /// What was asked for.
        what: &'static str,
    },
    /// The answer can be read, but contradicts itself or the request.
    #[error("the broker's answer to {api:?} makes no sense: {reason}")]
    Senseless {
        /// The api.
        api: ApiKey,
        /// What is wrong.
        reason: &'static str,
    },
}

impl AdminError {
    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Request(error) => error.recovery(),
            Self::Refused { code, .. } => recovery(*code),
            Self::GroupActive { .. } | Self::TooOld { .. } | Self::Senseless { .. } => Recovery::Fix,
        }
    }

    /// Returns `true` if the broker may have carried out the call despite this error.
    pub fn maybe_written(&self) -> bool {
        match self {
            Self::Request(error) => error.maybe_written(),
            Self::Refused { code, maybe_done, .. } => *maybe_done || *code == ErrorCode::REQUEST_TIMED_OUT,
            Self::GroupActive { .. } | Self::TooOld { .. } => false,
            Self::Senseless { .. } => true,
        }
    }
}

/// What a broker said about one thing, or why it said nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: ErrorCode,
    pub(super) message: Option<String>,
    pub(super) maybe_done: bool,
}

impl Refused {
    pub(super) fn new(code: ErrorCode, message: Option<String>) -> Self {
        Self { code, message, maybe_done: false }
    }

    /// For a thing that the answer does not name.
    pub(super) fn unnamed() -> Self {
        Self::new(ErrorCode::UNKNOWN_SERVER_ERROR, Some("the broker's answer does not name it".to_owned()))
    }

    /// For a thing of which two different things are wanted in one call.
    pub(super) fn twice() -> Self {
        let text = "named twice in one call, with different wishes; ask in two calls";
        Self::new(ErrorCode::INVALID_REQUEST, Some(text.to_owned()))
    }

    /// For a thing about which nobody answered, while others got their answers.
    pub(super) fn unanswered(error: &AdminError) -> Self {
        let code = match error {
            AdminError::Refused { code, .. } => *code,
            AdminError::GroupActive { .. } => ErrorCode::NON_EMPTY_GROUP,
            AdminError::TooOld { .. } => ErrorCode::UNSUPPORTED_VERSION,
            AdminError::Senseless { .. } => ErrorCode::UNKNOWN_SERVER_ERROR,
            AdminError::Request(RequestError::TimedOut { .. }) => ErrorCode::REQUEST_TIMED_OUT,
            AdminError::Request(RequestError::Version(_)) => ErrorCode::UNSUPPORTED_VERSION,
            AdminError::Request(_) => ErrorCode::NETWORK_EXCEPTION,
        };
        Self { code, message: Some(error.to_string()), maybe_done: error.maybe_written() }
    }
}

impl From<Refused> for AdminError {
    fn from(Refused { code, message, maybe_done }: Refused) -> Self {
        Self::Refused { code, message, maybe_done }
    }
}

impl From<GroupDescription> for AdminError {
    /// Says that the group has these members, which commit for themselves.
    fn from(GroupDescription { id, state, members, .. }: GroupDescription) -> Self {
        let members = members.into_iter().map(|member| (member.client_id, member.client_host)).collect();
        Self::GroupActive { group: id, state, members }
    }
}

/// The error of one item of a call.
pub(super) trait ItemError<K> {
    fn new(item: K, refused: Refused) -> Self;
}

macro_rules! item_errors {
    ($($(#[$doc:meta])* $name:ident($item:ident: $type:ty, $(#[$item_doc:meta])* $text:literal);)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error($text, .$item, Told(*.code, .message.as_deref(), *.maybe_done))]
        #[non_exhaustive]
        pub struct $name {
            $(#[$item_doc])*
            pub $item: $type,
            /// What the broker said; NETWORK_EXCEPTION if it did not answer while others did.
            pub code: ErrorCode,
            /// The broker's own words, or why there was no answer.
            pub message: Option<String>,
            /// An earlier attempt of the same call, whose answer was lost, may have done it.
            pub maybe_done: bool,
        }

        impl $name {
            /// Returns the one sensible reaction to this error.
            pub fn recovery(&self) -> Recovery {
                recovery(self.code)
            }
        }

        impl ItemError<$type> for $name {
            fn new($item: $type, Refused { code, message, maybe_done }: Refused) -> Self {
                Self { $item, code, message, maybe_done }
            }
        }
    )*};
}

item_errors! {
    /// Why nothing was done for one topic.
    TopicError(topic: String, /** Name of the topic. */ "topic {:?}: {}");
    /// Why nothing was done for one topic that was named by its id.
    TopicIdError(id: Uuid, /** Id of the topic. */ "topic with id {}: {}");
    /// Why nothing was done for one partition.
    PartitionError(partition: TopicPartition, /** The partition. */ "partition {}: {}");
    /// Why the settings of one resource cannot be seen, or are as they were.
    ConfigsError(resource: ConfigResource, /** What has the settings. */ "settings of {}: {}");
    /// Why the level of one feature is as it was.
    FeatureError(feature: String, /** Name of the feature. */ "feature {:?}: {}");
    /// Why one broker told nothing.
    BrokerError(broker: i32, /** Id of the broker. */ "broker {}: {}");
    /// Why nothing was done for one group, or nothing is known of it.
    GroupAdminError(group: String, /** Its id. */ "group {:?}: {}");
    /// Why one member still is in its group.
    MemberError(member: String, /** Its `group.instance.id`, or its id if it has none. */ "member {:?}: {}");
}

fn recovery(code: ErrorCode) -> Recovery {
    match code {
        // "Retriable" to Kafka, because another broker may know the topic: here they had time to hear of it.
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID => Recovery::Fix,
        ErrorCode::ELECTION_NOT_NEEDED => Recovery::Fix,
        code if code.is_retriable() => Recovery::Retry,
        _ => Recovery::Fix,
    }
}

/// What to do about a code whose name does not say it.
fn cure(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::INVALID_REPLICATION_FACTOR => "ask for at most as many replicas as there are live brokers",
        ErrorCode::INVALID_REPLICA_ASSIGNMENT => {
            "name registered brokers, each once, and as many for every new partition"
        }
        ErrorCode::POLICY_VIOLATION => "the cluster's own policy forbids it: ask whoever runs the cluster",
        ErrorCode::REASSIGNMENT_IN_PROGRESS => "wait for the reassignment under way, or cancel it",
        ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE => "the first replica must be live and in sync",
        ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE => "no replica that could lead is live: start one",
        ErrorCode::THROTTLING_QUOTA_EXCEEDED => "wait, or ask for less at once",
        ErrorCode::REQUEST_TIMED_OUT => "it may have been done all the same: look before you ask again",
        ErrorCode::NON_EMPTY_GROUP => "stop its members or remove them first",
        ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC => "its members still read the topic: stop them first",
        ErrorCode::TOPIC_DELETION_DISABLED => "set delete.topic.enable=true on the brokers",
        ErrorCode::CLUSTER_AUTHORIZATION_FAILED
        | ErrorCode::GROUP_AUTHORIZATION_FAILED
        | ErrorCode::TOPIC_AUTHORIZATION_FAILED => "this client's principal needs the right to do it",
        _ => return None,
    })
}

/// The first members of a group, in words.
fn in_words(all: &[(String, String)]) -> String {
    const NAMED: usize = 3;
    let named: Vec<_> = all.iter().take(NAMED).map(|(client, host)| format!("{client} at {host}")).collect();
    let more = match all.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let noun = if all.len() == 1 { "member" } else { "members" };
    let named = if named.is_empty() { String::new() } else { format!(" ({}{more})", named.join(", ")) };
    format!("{} {noun}{named}", all.len())
}

/// A code with everything that helps.
struct Told<'a>(ErrorCode, Option<&'a str>, bool);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Self(code, message, maybe_done) = self;
        write!(f, "{code}")?;
        message.map_or(Ok(()), |message| write!(f, ": {message}"))?;
        cure(code).map_or(Ok(()), |cure| write!(f, "; {cure}"))?;
        match maybe_done {
            true => f.write_str("; an earlier attempt whose answer was lost may have done it"),
            false => Ok(()),
        }
    }
}
