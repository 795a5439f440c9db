//! What a cluster went through, as its metadata log tells it.

use std::time::Duration;

use uuid::Uuid;

use crate::cluster::LeaderChange;

/// Something that happened to the cluster, with the time since the cluster started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A partition has another leader or leader epoch.
    LeaderChanged(LeaderChange),
    /// A partition has other in-sync replicas.
    #[non_exhaustive]
    IsrChanged {
        /// When.
        at: Duration,
        /// Topic.
        topic: String,
        /// Id of the topic.
        topic_id: Uuid,
        /// Partition.
        partition: i32,
        /// In-sync replicas from now on.
        isr: Vec<i32>,
        /// In-sync replicas before.
        previous: Vec<i32>,
    },
    /// A broker has registered: a new process, or one that the controller had forgotten. It is fenced at first.
    #[non_exhaustive]
    BrokerRegistered {
        /// When.
        at: Duration,
        /// Broker.
        broker: i32,
        /// Epoch of the registration.
        epoch: i64,
    },
    /// The controller counts a broker as dead: it leads nothing, and clients are not shown it.
    #[non_exhaustive]
    Fenced {
        /// When.
        at: Duration,
        /// Broker.
        broker: i32,
    },
    /// The controller counts a broker as alive.
    #[non_exhaustive]
    Unfenced {
        /// When.
        at: Duration,
        /// Broker.
        broker: i32,
    },
    /// A topic was created.
    #[non_exhaustive]
    TopicCreated {
        /// When.
        at: Duration,
        /// Topic.
        topic: String,
        /// Id of the topic.
        topic_id: Uuid,
    },
    /// A topic was deleted.
    #[non_exhaustive]
    TopicDeleted {
        /// When.
        at: Duration,
        /// Topic.
        topic: String,
        /// Id of the topic.
        topic_id: Uuid,
    },
    /// A controller has won an election of the metadata quorum and is active: it knows all that is committed.
    #[non_exhaustive]
    ControllerElected {
        /// When.
        at: Duration,
        /// Its id.
        controller: i32,
        /// Its epoch, higher than that of every controller before.
        epoch: i32,
    },
    /// Something was done to a node, or it has come to it by itself.
    #[non_exhaustive]
    Node {
        /// When.
        at: Duration,
        /// Broker, or controller (from 3001 on).
        node: i32,
        /// What.
        what: NodeEvent,
    },
}

impl Event {
    /// Time since the cluster started.
    pub fn at(&self) -> Duration {
        match self {
            Self::LeaderChanged(change) => change.at,
            Self::IsrChanged { at, .. }
            | Self::BrokerRegistered { at, .. }
            | Self::Fenced { at, .. }
            | Self::Unfenced { at, .. }
            | Self::TopicCreated { at, .. }
            | Self::TopicDeleted { at, .. }
            | Self::ControllerElected { at, .. }
            | Self::Node { at, .. } => *at,
        }
    }
}

/// Something that was done to a node, or that it has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// Its process was killed.
    Killed,
    /// It lost power.
    PoweredOff,
    /// It was shut down in order.
    ShutDown,
    /// It was stopped, with its connections open.
    Paused,
    /// It goes on.
    Resumed,
    /// A new process of it was started.
    Started,
    /// Its disk failed, and it has ended by that.
    DiskFailed {
        /// What the disk said.
        cause: String,
    },
    /// One of its replicas gave up the end of its log.
    Truncated {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Offset at which the log ends now.
        to: i64,
    },
}
