//! Emptying a broker: all its replicas move elsewhere.
//!
//! In: a broker, what the cluster looks like now. Out: reassignments, until no replica is left there. Which go where is
//! decided by `klamm_core::placement`; this only looks, asks and waits.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use klamm_core::TopicPartition;
use klamm_core::placement::{Move, NoRoom, Placed, Step, evacuate};
use klamm_wire::ErrorCode;

use super::Admin;
use super::error::{AdminError, PartitionError, TopicError};
use super::reassignments::{Reassignment, ReassignmentUnderWay};
use crate::error::Recovery;

/// How a broker is to be emptied; comes from [`Admin::drain`].
#[derive(Debug, Clone)]
#[must_use = "nothing moves before `run`"]
pub struct Drain {
    admin: Admin,
    broker: i32,
    topics: Option<BTreeSet<String>>,
    at_once: usize,
    poll_interval: Duration,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainProgress {
    /// Partitions that have left the broker since the beginning.
    pub moved: usize,
    /// Partitions that still have a replica there.
    pub left: usize,
    /// Those of them that are on their way.
    pub under_way: Vec<TopicPartition>,
}

/// The broker is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Partitions that have left it.
    pub moved: usize,
}

/// Why a broker is not empty.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The cluster did not answer. What has begun goes on; run it again to see the rest through.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The controller does not want to move a partition.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// Nobody says where the replicas of a topic are. Nothing was begun in this step.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// A replica has nowhere to go. Nothing was begun in this step.
    #[error(
        "partition {partition} cannot leave: it has {replicas} replicas, and only {others} other brokers are in \
        service; add a broker, or give the topic fewer replicas"
    )]
    NoRoom {
        /// The partition.
        partition: TopicPartition,
        /// How many replicas it has.
        replicas: usize,
        /// How many other brokers are in service.
        others: usize,
    },
    /// The one who was told of the progress wanted it to end. What was under way was cancelled.
    #[error("cancelled: {moved} partitions have moved, {left} are left")]
    Cancelled {
        /// Partitions that have left the broker.
        moved: usize,
        /// Partitions that have not.
        left: usize,
    },
}

impl DrainError {
    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Admin(error) => error.recovery(),
            Self::Partition(error) => error.recovery(),
            Self::Topic(error) => error.recovery(),
            Self::NoRoom { .. } => Recovery::Fix,
            Self::Cancelled { .. } => Recovery::Retry,
        }
    }
}

impl From<NoRoom> for DrainError {
    fn from(NoRoom { partition, replicas, others }: NoRoom) -> Self {
        Self::NoRoom { partition, replicas, others }
    }
}

impl Admin {
    /// Empties a broker: every replica on it moves to another one, into a rack of its own if there is one, to the
    /// broker that has the fewest; of the new replicas, whoever is the preferred leader least often comes first.
    ///
    /// Replicas may come to the broker again, with a new topic for example: stop it soon after, and then
    /// [`unregister_broker`](Self::unregister_broker).
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::ops::ControlFlow;
    ///
    /// let drained = admin.drain(4).run(|progress| {
    ///     println!("{} partitions are left", progress.left);
    ///     ControlFlow::Continue(())
    /// });
    /// println!("{} partitions have moved", drained.await?.moved);
    /// // Stop broker 4, then:
    /// admin.unregister_broker(4).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn drain(&self, broker: i32) -> Drain {
        let poll_interval = Duration::from_millis(500);
        Drain { admin: self.clone(), broker, topics: None, at_once: 100, poll_interval }
    }
}

impl Drain {
    /// Moves partitions of these topics only.
    pub fn topics<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.topics = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// How many partitions move at a time, at least 1. Default: 100.
    pub fn at_once(mut self, partitions: usize) -> Self {
        self.at_once = partitions.max(1);
        self
    }

    /// How long to wait between two looks at the cluster. Default: 500 ms; ten times as long as a look takes if that is
    /// more, but not more than 10 s.
    pub fn poll_interval(mut self, pause: Duration) -> Self {
        self.poll_interval = pause;
        self
    }

    /// What would be moved first, and where to; nothing is moved.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn plan(&self) -> Result<Vec<Reassignment>, DrainError> {
        let (step, _) = self.look(&Begun::new()).await?;
        Ok(step.moves.into_iter().map(reassignment).collect())
    }

    /// Moves everything off the broker, and returns when the last replica has gone. Whoever is told of the progress may
    /// say [`ControlFlow::Break`] to cancel what is under way.
    ///
    /// It looks at what is and goes on from there: partitions made on the way move too, a topic that is deleted counts
    /// as moved, and a replica whose new broker dies gets another one. It has no time limit of its own.
    ///
    /// # Errors
    ///
    /// Returns [`DrainError`]. After any of them, running it again goes on where this one stopped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, what has begun goes on by itself and nothing more begins.
    pub async fn run(
        self,
        mut told: impl FnMut(&DrainProgress) -> ControlFlow<()>,
    ) -> Result<Drained, DrainError> {
        let rt = self.admin.client.rt();
        let mut seen: BTreeSet<TopicPartition> = BTreeSet::new();
        let mut begun = Begun::new();
        let mut unsure = 0;
        loop {
            let looking = rt.now();
            let (step, sure) = self.look(&begun).await?;
            unsure = if sure { 0 } else { unsure + 1 };
            let took = rt.now().saturating_sub(looking);
            seen.extend(step.left().cloned());
            let left = step.left().count();
            let moved = seen.len().saturating_sub(left);
            let progress = DrainProgress { moved, left, under_way: step.under_way };
            let go_on = told(&progress);
            if left == 0 && (sure || unsure > LOOKS_IF_UNSURE) {
                return Ok(Drained { moved });
            }
            if go_on.is_break() {
                let ours = progress.under_way.iter().filter(|partition| begun.contains_key(*partition));
                self.cancel(ours.cloned()).await?;
                return Err(DrainError::Cancelled { moved, left });
            }
            begun.extend(step.moves.iter().map(|m| (m.partition.clone(), m.to.clone())));
            if !step.moves.is_empty() {
                let begin = step.moves.into_iter().map(reassignment);
                refused(self.admin.reassign(begin, false).await?, LOOK_AGAIN)?;
            }
            let spared = took.saturating_mul(10).min(MOST_SPARED);
            rt.sleep(self.poll_interval.max(spared)).await;
        }
    }

    async fn cancel(&self, partitions: impl Iterator<Item = TopicPartition>) -> Result<(), DrainError> {
        let cancelled = self.admin.reassign_partitions(partitions.map(Reassignment::cancel)).await?;
        let nothing_to_do = [ErrorCode::NO_REASSIGNMENT_IN_PROGRESS, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION];
        refused(cancelled, &nothing_to_do)
    }

    /// What there is to do, as the cluster is now; `false` with it if one broker knows a topic and another does not: it
    /// has been deleted since, or is so new that word of it is on its way.
    async fn look(&self, begun: &Begun) -> Result<(Step, bool), DrainError> {
        let admin = &self.admin;
        let brokers = admin.describe_cluster().await?.brokers;
        let brokers = brokers.into_iter().map(|broker| (broker.id, broker.rack)).collect();
        let names = admin.list_topics().await?.into_iter().map(|topic| topic.name);
        let under_way = admin.list_reassignments().await?;
        let under_way: BTreeMap<_, _> = under_way.into_iter().map(|r| (r.partition.clone(), r)).collect();
        let (mut partitions, mut fixed, mut sure) = (Vec::new(), Vec::new(), true);
        for (name, described) in admin.describe_topics(names).await? {
            let topic = match described {
                Ok(topic) => topic,
                Err(error) if error.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                    sure = false;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let wanted = self.topics.as_ref().is_none_or(|topics| topics.contains(&name));
            let placed = if wanted { &mut partitions } else { &mut fixed };
            placed.extend(topic.partitions.iter().map(|described| {
                let partition = TopicPartition::new(name.as_str(), described.partition);
                let moving = under_way.get(&partition);
                place(partition, &described.replicas, moving, begun)
            }));
        }
        Ok((evacuate(self.broker, &brokers, &partitions, &fixed, self.at_once)?, sure))
    }
}

/// Looks after which a topic that not all brokers know is taken for deleted.
const LOOKS_IF_UNSURE: u32 = 5;
/// Longest pause for the sake of a cluster that is slow to answer.
const MOST_SPARED: Duration = Duration::from_secs(10);

/// Partitions that were begun to be moved, and where to.
type Begun = BTreeMap<TopicPartition, Vec<i32>>;

/// The look at the partition was too old.
const LOOK_AGAIN: &[ErrorCode] =
    &[ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::INVALID_REPLICATION_FACTOR];

/// What a partition is, from two answers of different age: the controller tells of reassignments, a broker that may lag
/// behind it of replicas.
fn place(
    partition: TopicPartition,
    replicas: &[i32],
    moving: Option<&ReassignmentUnderWay>,
    begun: &Begun,
) -> Placed {
    let without = |gone: &[i32]| replicas.iter().copied().filter(|id| !gone.contains(id)).collect::<Vec<_>>();
    if let Some(ReassignmentUnderWay { adding, removing, .. }) = moving {
        let mut target = without(removing);
        target.extend(adding.iter().filter(|id| !replicas.contains(id))); // not heard of by the broker
        return Placed { partition, target, adding: adding.clone(), removing: removing.clone() };
    }
    let over = begun.get(&partition).filter(|to| to.iter().all(|id| replicas.contains(id)));
    match over {
        // Done, says the controller, and the broker has not heard of the end.
        Some(to) => Placed { target: to.clone(), adding: Vec::new(), removing: without(to), partition },
        None => Placed { target: replicas.to_vec(), adding: Vec::new(), removing: Vec::new(), partition },
    }
}

fn reassignment(Move { partition, to }: Move) -> Reassignment {
    Reassignment::to(partition, to)
}

/// The first refusal that matters.
fn refused(results: super::PartitionResults<()>, harmless: &[ErrorCode]) -> Result<(), DrainError> {
    let mut errors = results.into_iter().filter_map(|(_, result)| result.err());
    errors.find(|error| !harmless.contains(&error.code)).map_or(Ok(()), |error| Err(error.into()))
}
