//! The kinds of clusters there are, and what each can do.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{System, Unavailable, kafka, lite, mock, processes, up};

/// Something that a behaviour may need of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Can {
    /// What is produced can be consumed.
    KeepRecords,
    /// Consumers form groups, which commit offsets.
    Groups,
    /// It can be administered: topics are created with settings, described and deleted. A mock makes them up.
    CreateTopics,
    /// Topics can be validated without being created, placed by hand, and deleted by id.
    CreateTopicsInFull,
    /// Settings of topics and brokers can be changed, and tell where they come from.
    AlterConfigs,
    /// Topics can be given more partitions.
    CreatePartitions,
    /// Replicas can be moved between brokers.
    Reassign,
    /// Leaders are elected on request.
    ElectLeaders,
    /// Records can be deleted up to an offset.
    DeleteRecords,
    /// Brokers tell of their log directories, and of the producers of a partition.
    DescribeLogs,
    /// The quorum and the features can be described, and features updated.
    DescribeQuorum,
    /// Brokers can be unregistered, and fenced ones shown.
    UnregisterBroker,
    /// Followers copy from leaders, and one of them leads when the leader is gone.
    Replicate,
    /// One broker's process can be killed.
    Kill,
    /// A killed broker can be started on its own data, and is back in a moment. A JVM takes too long to do it often.
    RestartQuickly,
    /// One broker's process can be ended in order, as an operator does.
    StopInOrder,
    /// The controller is a node of its own: leaders are elected also while two of three brokers are away.
    ControllerApart,
    /// One broker can be stopped and go on.
    Pause,
    /// All brokers together can be stopped and go on.
    Freeze,
    /// The network between one broker and the rest of the cluster can be cut; clients still reach it.
    Cut,
    /// All brokers can lose power in one instant, with what was not synced.
    PowerOff,
    /// The brokers' logs can be held against each other.
    SeeLogs,
    /// Time passes only while everybody waits, and chance comes from a seed.
    VirtualTime,
    /// Clients come over sockets.
    RealSockets,
    /// Several threads run, so that one may block.
    Threads,
}

/// A cluster on its way.
pub type Starting = BoxFuture<'static, Result<Arc<dyn System>, Unavailable>>;

/// One kind of cluster.
#[derive(Debug)]
pub struct Kind {
    /// Its short name, for the table and the command line.
    pub id: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// What it can do.
    pub can: &'static [Can],
    /// Starts one.
    pub start: fn() -> Starting,
}

impl Kind {
    /// Whether its runtime has a clock that jumps.
    pub fn is_virtual(&self) -> bool {
        self.can.contains(&Can::VirtualTime)
    }

    /// The first thing a behaviour needs that this kind cannot do.
    pub fn lacks(&self, needs: &[Can]) -> Option<Can> {
        needs.iter().copied().find(|need| !self.can.contains(need))
    }
}

/// Every kind of cluster, the cheapest first.
pub const KINDS: &[Kind] = &[
    Kind {
        id: "mock",
        title: "klamm's MockConnector",
        can: &[Can::KeepRecords, Can::Threads],
        start: || Box::pin(mock::start()),
    },
    Kind {
        id: "memory",
        title: "broker-lite in process",
        can: &[
            Can::KeepRecords,
            Can::Groups,
            Can::CreateTopics,
            Can::CreateTopicsInFull,
            Can::AlterConfigs,
            Can::CreatePartitions,
            Can::Reassign,
            Can::ElectLeaders,
            Can::DeleteRecords,
            Can::DescribeLogs,
            Can::DescribeQuorum,
            Can::UnregisterBroker,
            Can::Replicate,
            Can::Kill,
            Can::RestartQuickly,
            Can::ControllerApart,
            Can::Pause,
            Can::Freeze,
            Can::Cut,
            Can::SeeLogs,
            Can::Threads,
        ],
        start: || Box::pin(lite::in_process()),
    },
    Kind {
        id: "tcp",
        title: "broker-lite over TCP",
        can: &[
            Can::KeepRecords,
            Can::Groups,
            Can::CreateTopics,
            Can::CreateTopicsInFull,
            Can::AlterConfigs,
            Can::CreatePartitions,
            Can::Reassign,
            Can::ElectLeaders,
            Can::DeleteRecords,
            Can::DescribeLogs,
            Can::DescribeQuorum,
            Can::UnregisterBroker,
            Can::Replicate,
            Can::Kill,
            Can::RestartQuickly,
            Can::ControllerApart,
            Can::Pause,
            Can::Freeze,
            Can::Cut,
            Can::SeeLogs,
            Can::RealSockets,
            Can::Threads,
        ],
        start: || Box::pin(lite::over_tcp()),
    },
    Kind {
        id: "virtual",
        title: "broker-lite in virtual time",
        can: &[
            Can::KeepRecords,
            Can::Groups,
            Can::CreateTopics,
            Can::CreateTopicsInFull,
            Can::AlterConfigs,
            Can::CreatePartitions,
            Can::Reassign,
            Can::ElectLeaders,
            Can::DeleteRecords,
            Can::DescribeLogs,
            Can::DescribeQuorum,
            Can::UnregisterBroker,
            Can::Replicate,
            Can::Kill,
            Can::RestartQuickly,
            Can::ControllerApart,
            Can::Pause,
            Can::Freeze,
            Can::Cut,
            Can::PowerOff,
            Can::SeeLogs,
            Can::VirtualTime,
        ],
        start: || Box::pin(lite::in_virtual_time()),
    },
    Kind {
        id: "up",
        title: "broker-lite up, a process of its own",
        can: &[
            Can::KeepRecords,
            Can::Groups,
            Can::CreateTopics,
            Can::CreateTopicsInFull,
            Can::AlterConfigs,
            Can::CreatePartitions,
            Can::Reassign,
            Can::ElectLeaders,
            Can::DeleteRecords,
            Can::DescribeLogs,
            Can::DescribeQuorum,
            Can::UnregisterBroker,
            Can::Replicate,
            Can::Freeze,
            Can::RealSockets,
            Can::Threads,
        ],
        start: || Box::pin(up::start()),
    },
    Kind {
        id: "processes",
        title: "broker-lite node, three processes",
        can: &[
            Can::KeepRecords,
            Can::Groups,
            Can::CreateTopics,
            Can::CreateTopicsInFull,
            Can::AlterConfigs,
            Can::CreatePartitions,
            Can::Reassign,
            Can::ElectLeaders,
            Can::DeleteRecords,
            Can::DescribeLogs,
            Can::DescribeQuorum,
            Can::UnregisterBroker,
            Can::Replicate,
            Can::Kill,
            Can::RestartQuickly,
            Can::StopInOrder,
            Can::Pause,
            Can::Freeze,
            Can::Cut,
            Can::RealSockets,
            Can::Threads,
        ],
        start: || Box::pin(processes::start()),
    },
    Kind {
        id: "kafka",
        title: "Apache Kafka 4.3.0, three nodes",
        can: &[
            Can::KeepRecords,
            Can::Groups,
            Can::CreateTopics,
            Can::CreateTopicsInFull,
            Can::AlterConfigs,
            Can::CreatePartitions,
            Can::Reassign,
            Can::ElectLeaders,
            Can::DeleteRecords,
            Can::DescribeLogs,
            Can::DescribeQuorum,
            Can::UnregisterBroker,
            Can::Replicate,
            Can::Kill,
            Can::Pause,
            Can::Freeze,
            Can::RealSockets,
            Can::Threads,
        ],
        start: || Box::pin(kafka::start()),
    },
];
