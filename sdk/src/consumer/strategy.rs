//! Which assignors a member offers (`partition.assignment.strategy`).

use std::fmt;
use std::sync::Arc;

use klamm_core::assign::{
    Assignor, CooperativeStickyAssignor, RangeAssignor, RoundRobinAssignor, StickyAssignor,
};

/// How the partitions of a group are shared out. All members have to have one in common.
#[derive(Clone)]
#[non_exhaustive]
pub enum AssignmentStrategy {
    /// `range`: each topic in as many ranges as it has members; equal partitions of several topics stay together.
    Range,
    /// `roundrobin`: partitions are dealt out one by one.
    RoundRobin,
    /// `sticky`: as even as possible, moving as little as possible; everybody stops during a rebalance.
    Sticky,
    /// `cooperative-sticky`: the same, and what does not move is read throughout (KIP-429).
    CooperativeSticky,
    /// One of your own, see [`Self::custom`].
    Custom(CustomAssignor),
}

/// Makes an assignor of yours.
#[derive(Clone)]
pub struct CustomAssignor(Arc<dyn Fn() -> Box<dyn Assignor> + Send + Sync>);

impl AssignmentStrategy {
    /// An assignor of your own; `make` is called once for each consumer.
    ///
    /// `assign` runs on a worker; `user_data` and `on_assignment` run on the group's task and have to return at once.
    pub fn custom<A: Assignor + 'static>(make: impl Fn() -> A + Send + Sync + 'static) -> Self {
        Self::Custom(CustomAssignor(Arc::new(move || Box::new(make()))))
    }

    pub(super) fn build(&self) -> Box<dyn Assignor> {
        match self {
            Self::Range => Box::new(RangeAssignor),
            Self::RoundRobin => Box::new(RoundRobinAssignor),
            Self::Sticky => Box::new(StickyAssignor::default()),
            Self::CooperativeSticky => Box::new(CooperativeStickyAssignor::default()),
            Self::Custom(CustomAssignor(make)) => make(),
        }
    }

    /// By the name of the assignor, or of Kafka's class.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name.strip_prefix("org.apache.kafka.clients.consumer.").unwrap_or(name) {
            "range" | "RangeAssignor" => Some(Self::Range),
            "roundrobin" | "RoundRobinAssignor" => Some(Self::RoundRobin),
            "sticky" | "StickyAssignor" => Some(Self::Sticky),
            "cooperative-sticky" | "CooperativeStickyAssignor" => Some(Self::CooperativeSticky),
            _ => None,
        }
    }
}

impl fmt::Debug for AssignmentStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.build().name())
    }
}

impl fmt::Debug for CustomAssignor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomAssignor")
    }
}
