//! The unresolved batches of one partition, in order, and their sequence numbers.
//!
//! Invariant: batches stand in the order they were opened, whatever happens to them; one that failed keeps its
//! place. Sequences (if any) are a prefix of the queue and grow without gaps but those noted in `hole`.

use std::collections::VecDeque;

use klamm_wire::ErrorCode;
use klamm_wire::planted::{Bug, planted};

use super::events::{BatchId, Cause, Part, RequestId, Settings};
use crate::Tick;

/// Producer id and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Sealing,
    Ready,
    /// Too large: its parts will stand in its place.
    Splitting,
    InFlight {
        request: RequestId,
        broker: i32,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    pub(super) id: BatchId,
    pub(super) opened: Tick,
    pub(super) state: State,
    /// Does not linger any more.
    pub(super) due: bool,
    pub(super) bytes: usize,
    pub(super) records: u32,
    /// Sequence of the first record under the partition's identity, from the first attempt on.
    pub(super) sequence: Option<i32>,
    pub(super) failures: u32,
    /// Has been in a request before.
    pub(super) sent: bool,
    pub(super) not_before: Tick,
    pub(super) maybe_written: bool,
    pub(super) last: Option<Cause>,
    /// Timed out while in flight: resolved, but its place is kept until the request is over.
    pub(super) given_up: bool,
}

impl Batch {
    fn new(id: BatchId, opened: Tick, due: bool) -> Self {
        Self {
            id,
            opened,
            state: State::Open,
            due,
            bytes: 0,
            records: 0,
            sequence: None,
            failures: 0,
            sent: false,
            not_before: Tick::ZERO,
            maybe_written: false,
            last: None,
            given_up: false,
        }
    }

    pub(super) fn in_flight(&self) -> bool {
        matches!(self.state, State::InFlight { .. })
    }
}

/// What could be done next for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing before something else happens.
    Nothing,
    /// Nothing before this moment.
    Wait(Tick),
    /// The batch at this index can go into a request to the leader.
    Send(usize),
    /// The batch at this index could go if it were sealed.
    Seal(usize),
    /// Something waits for a leader.
    NoLeader,
    /// Something waits for a producer id.
    NoIdentity,
}

#[derive(Debug, Default)]
pub(super) struct Partition {
    pub(super) leader: Option<i32>,
    /// What the metadata say instead of telling about the partition.
    pub(super) unknown: Option<ErrorCode>,
    pub(super) queue: VecDeque<Batch>,
    pub(super) identity: Option<Identity>,
    next_sequence: i32,
    /// A batch under this identity was acknowledged. Before that only one is in flight, because a broker that
    /// knows nothing of a producer takes any sequence for its first.
    confirmed: bool,
    /// A batch with a sequence was given up and may be missing in the log: until a later one is acknowledged or
    /// none with a sequence is left, nothing new is sent.
    hole: Option<BatchId>,
    /// The broker has lost the thread: as soon as nothing is in flight, a new epoch starts (KIP-360).
    reset: bool,
}

impl Partition {
    pub(super) fn open(&mut self, id: BatchId, now: Tick, due: bool) {
        self.queue.push_back(Batch::new(id, now, due));
    }

    pub(super) fn find(&self, id: BatchId) -> Option<usize> {
        self.queue.binary_search_by_key(&id, |batch| batch.id).ok()
    }

    pub(super) fn batch_mut(&mut self, id: BatchId) -> Option<&mut Batch> {
        let at = self.find(id)?;
        self.queue.get_mut(at)
    }

    /// The batch of this number, or all its parts.
    pub(super) fn parts_of(&self, number: u64) -> Vec<BatchId> {
        let from = self.queue.partition_point(|batch| batch.id.number < number);
        let parts = self.queue.iter().skip(from).take_while(|batch| batch.id.number == number);
        parts.map(|batch| batch.id).collect()
    }

    /// Puts parts in the place of a batch; they take its sequences, one behind the other. `false` if it is not there
    /// to be split any more.
    pub(super) fn split(&mut self, id: BatchId, parts: &[Part]) -> bool {
        let found = self.find(id).filter(|at| self.queue[*at].state == State::Splitting);
        let Some((at, whole)) = found.and_then(|at| Some((at, self.queue.remove(at)?))) else { return false };
        let mut before = 0;
        for (n, part) in parts.iter().enumerate() {
            let batch = Batch {
                id: id.part(before),
                state: State::Ready,
                bytes: part.bytes,
                records: part.records,
                sequence: whole.sequence.map(|sequence| advance(sequence, before)),
                not_before: Tick::ZERO,
                ..whole
            };
            self.queue.insert(at + n, batch);
            before += part.records;
        }
        true
    }

    /// What could be done next; `identity` is what a partition without one would take.
    pub(super) fn next(&self, now: Tick, settings: &Settings, identity: Option<Identity>) -> Next {
        if self.reset {
            return Next::Nothing;
        }
        let (mut in_flight, mut elsewhere) = (0, false);
        for (at, batch) in self.queue.iter().enumerate() {
            match batch.state {
                State::InFlight { broker, .. } => {
                    in_flight += 1;
                    elsewhere |= Some(broker) != self.leader;
                    continue;
                }
                State::Sealing | State::Splitting => return Next::Nothing,
                State::Open if !batch.due => return Next::Nothing,
                State::Open | State::Ready => {}
            }
            if in_flight >= settings.max_in_flight && !planted(Bug::IgnoreInFlightLimit) {
                return Next::Nothing;
            }
            if self.leader.is_none() {
                return Next::NoLeader;
            }
            if batch.not_before > now {
                return Next::Wait(batch.not_before);
            }
            if settings.idempotent {
                if self.identity.or(identity).is_none() {
                    return Next::NoIdentity;
                }
                // One that is sent again waits for all before it, and none overtakes one that is still on its
                // way to another broker.
                let again = batch.sequence.is_some();
                if in_flight > 0 && (again || elsewhere || !self.confirmed) || !again && self.hole.is_some() {
                    return Next::Nothing;
                }
            }
            return if batch.state == State::Ready { Next::Send(at) } else { Next::Seal(at) };
        }
        Next::Nothing
    }

    /// Gives the batch its sequence, unless it has one, and returns it with the identity it belongs to.
    pub(super) fn stamp(&mut self, at: usize, identity: Option<Identity>) -> Option<(Identity, i32)> {
        let identity = self.identity.or(identity)?;
        self.identity = Some(identity);
        let batch = self.queue.get_mut(at)?;
        if batch.failures > 0 && planted(Bug::NewSequenceOnRetry) {
            batch.sequence = None;
        }
        let sequence = *batch.sequence.get_or_insert_with(|| {
            let sequence = self.next_sequence;
            self.next_sequence = advance(sequence, batch.records);
            sequence
        });
        Some((identity, sequence))
    }

    /// The batch is in the log, and with it every one before it that has a sequence.
    pub(super) fn confirm(&mut self, id: BatchId) {
        self.confirmed = true;
        if self.hole.is_some_and(|hole| hole < id) {
            self.hole = None;
        }
    }

    /// The log is a new one, so whichever sequence comes first is taken for the first.
    pub(super) fn doubt(&mut self) {
        self.confirmed = false;
    }

    /// The batch left the queue without being known to be in the log.
    pub(super) fn lose(&mut self, batch: &Batch) {
        if batch.sequence.is_none() {
            return;
        }
        self.hole = self.hole.max(Some(batch.id));
        let oldest = self.queue.front().is_none_or(|next| next.id > batch.id);
        // If it is missing for certain, everything behind it will be refused for the gap.
        self.reset |=
            oldest && !batch.maybe_written && self.queue.iter().any(|behind| behind.sequence.is_some());
    }

    /// The broker refuses the sequence of a batch. `true` if that is the oldest unresolved one, and news: it has lost
    /// earlier ones, and a new epoch starts. What is behind a batch that failed is refused too, through no fault of
    /// its own.
    pub(super) fn distrust(&mut self, id: BatchId) -> bool {
        let news = !self.reset && self.find(id) == Some(0);
        self.reset |= news;
        news
    }

    /// Takes out a batch that must not be sent under the new epoch that is about to start: an attempt under the old
    /// one was never answered, and may still reach the log before the new epoch does.
    pub(super) fn take_unrepeatable(&mut self) -> Option<Batch> {
        if !self.reset || self.queue.iter().any(Batch::in_flight) {
            return None;
        }
        let at = self.queue.iter().position(|batch| batch.sequence.is_some() && batch.maybe_written)?;
        self.queue.remove(at)
    }

    /// Starts a new epoch if one is needed and nothing is in flight. Returns an identity that is used up and must
    /// not be taken again.
    pub(super) fn settle(&mut self) -> Option<Identity> {
        let unresolved = self.hole.is_some() && self.queue.iter().all(|batch| batch.sequence.is_none());
        if !(self.reset || unresolved) || self.queue.iter().any(Batch::in_flight) {
            return None;
        }
        for batch in &mut self.queue {
            batch.sequence = None;
        }
        self.reset = false;
        self.hole = None;
        self.confirmed = false;
        self.next_sequence = 0;
        let used_up = self.identity.filter(|identity| identity.epoch == i16::MAX);
        self.identity = match self.identity {
            Some(Identity { id, epoch }) if epoch < i16::MAX => Some(Identity { id, epoch: epoch + 1 }),
            _ => None,
        };
        used_up
    }
}

/// The sequence after `records` records; after the largest comes 0.
fn advance(sequence: i32, records: u32) -> i32 {
    let next = (i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX);
    i32::try_from(next).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero_after_the_largest() {
        assert_eq!(advance(0, 3), 3);
        assert_eq!(advance(i32::MAX, 1), 0);
        assert_eq!(advance(i32::MAX - 1, 5), 3);
    }

    #[test]
    fn a_used_up_epoch_asks_for_another_producer_id() {
        let mut partition = Partition::default();
        partition.open(BatchId::new(0), Tick::ZERO, true);
        let last = Identity { id: 7, epoch: i16::MAX };
        assert_eq!(partition.stamp(0, Some(last)), Some((last, 0)));
        assert!(partition.distrust(BatchId::new(0)));
        assert_eq!(partition.settle(), Some(last));
        assert_eq!(
            partition.stamp(0, Some(Identity { id: 8, epoch: 0 })),
            Some((Identity { id: 8, epoch: 0 }, 0))
        );
    }
}
