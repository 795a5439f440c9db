//! What idempotent producers wrote last: tells a retry from a gap (KIP-98, KIP-360).
//!
//! In: headers of appended batches. Out: verdicts on new ones.
//!
//! Invariant: a pure function of the batches in the log, so every replica that holds the same log holds the same state.

mod snapshot;

use std::collections::{BTreeMap, VecDeque};

use klamm_wire::BatchHeader;

/// Batches remembered for each producer: as many as a producer may have in flight.
const BATCHES: usize = 5;

/// One batch a producer wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducedBatch {
    /// Sequence of its first record.
    pub base_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Its max timestamp.
    pub timestamp: i64,
}

/// What one producer wrote last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerEntry {
    /// Epoch of the producer.
    pub epoch: i16,
    /// Up to five batches of this epoch, oldest first.
    pub batches: VecDeque<ProducedBatch>,
}

/// The verdict on a batch of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// It is the next one.
    Next,
    /// It is in the log already: a retry whose answer got lost.
    Duplicate(ProducedBatch),
    /// Batches before it are missing, or it is an old one not remembered any more.
    OutOfOrder {
        /// Last sequence in the log, -1 if there is none in this epoch.
        last: i32,
    },
    /// A newer instance of the producer has taken over.
    Fenced {
        /// Its epoch.
        epoch: i16,
    },
}

/// The idempotent producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerStates {
    producers: BTreeMap<i64, ProducerEntry>,
}

impl ProducerStates {
    /// Judges a batch, which must come from an idempotent producer.
    ///
    /// A producer without state may begin anywhere: its records may have been deleted (Kafka ≥ 2.5).
    pub fn check(&self, header: &BatchHeader) -> Sequence {
        let Some(known) = self.producers.get(&header.producer_id) else {
            return Sequence::Next;
        };
        if header.producer_epoch < known.epoch {
            return Sequence::Fenced { epoch: known.epoch };
        }
        if header.producer_epoch > known.epoch {
            return if header.base_sequence == 0 {
                Sequence::Next
            } else {
                Sequence::OutOfOrder { last: -1 }
            };
        }
        let same = |b: &&ProducedBatch| {
            b.base_sequence == header.base_sequence && b.last_sequence == header.last_sequence()
        };
        if let Some(batch) = known.batches.iter().find(same) {
            return Sequence::Duplicate(*batch);
        }
        let last = known.batches.back().map_or(-1, |batch| batch.last_sequence);
        // after i32::MAX comes 0
        let next = last.checked_add(1).unwrap_or(0);
        if header.base_sequence == next { Sequence::Next } else { Sequence::OutOfOrder { last } }
    }

    /// Notes a batch that was appended. Batches without producer change nothing.
    pub fn appended(&mut self, header: &BatchHeader) {
        if !header.has_producer() || header.is_control() {
            return;
        }
        let entry = self
            .producers
            .entry(header.producer_id)
            .or_insert_with(|| ProducerEntry { epoch: header.producer_epoch, batches: VecDeque::new() });
        if entry.epoch != header.producer_epoch {
            entry.epoch = header.producer_epoch;
            entry.batches.clear();
        }
        if entry.batches.len() == BATCHES {
            entry.batches.pop_front();
        }
        entry.batches.push_back(ProducedBatch {
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
        });
    }

    /// Whether any batch remembered lies at or behind `offset`: a truncation to there makes the state wrong.
    pub fn reaches(&self, offset: i64) -> bool {
        self.producers.values().any(|p| p.batches.back().is_some_and(|batch| batch.last_offset >= offset))
    }

    /// Forgets producers whose last batch is older than `before_ms`.
    pub fn expire(&mut self, before_ms: i64) {
        self.producers.retain(|_, p| p.batches.back().is_some_and(|batch| batch.timestamp >= before_ms));
    }

    /// The producers by id.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        self.producers.iter().map(|(id, entry)| (*id, entry))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.producers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(epoch: i16, base_sequence: i32, count: i32, base_offset: i64) -> BatchHeader {
        BatchHeader {
            base_offset,
            length: 100,
            partition_leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 1_000 + base_offset,
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence,
            count,
        }
    }

    fn after(batches: &[BatchHeader]) -> ProducerStates {
        let mut states = ProducerStates::default();
        batches.iter().for_each(|batch| states.appended(batch));
        states
    }

    /// Goal: a retry is answered with the offsets of the original, however late among the last five.
    #[test]
    fn each_of_the_last_five_batches_is_known_as_a_duplicate() {
        let batches: Vec<_> = (0..6).map(|i| header(0, i * 2, 2, 100 + i64::from(i) * 2)).collect();
        let states = after(&batches);
        for batch in &batches[1..] {
            let Sequence::Duplicate(known) = states.check(batch) else { panic!("{batch:?} not known") };
            assert_eq!((known.base_offset, known.last_offset), (batch.base_offset, batch.base_offset + 1));
        }
        assert_eq!(states.check(&batches[0]), Sequence::OutOfOrder { last: 11 }, "the sixth is forgotten");
    }

    #[test]
    fn a_batch_must_continue_where_the_last_one_ended() {
        let states = after(&[header(0, 0, 3, 0)]);
        assert_eq!(states.check(&header(0, 3, 1, 0)), Sequence::Next);
        assert_eq!(states.check(&header(0, 4, 1, 0)), Sequence::OutOfOrder { last: 2 });
        assert_eq!(states.check(&header(0, 2, 1, 0)), Sequence::OutOfOrder { last: 2 });
        assert_eq!(
            states.check(&header(0, 0, 2, 0)),
            Sequence::OutOfOrder { last: 2 },
            "same start, other end"
        );
    }

    #[test]
    fn sequences_go_on_from_zero_after_the_largest_one() {
        let states = after(&[header(0, i32::MAX - 1, 2, 0)]);
        assert_eq!(states.check(&header(0, 0, 1, 0)), Sequence::Next);
        let states = after(&[header(0, i32::MAX, 3, 0)]);
        assert_eq!(states.check(&header(0, 2, 1, 0)), Sequence::Next, "a batch across the wrap");
        assert_eq!(states.check(&header(0, 0, 1, 0)), Sequence::OutOfOrder { last: 1 });
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_fences_the_old_one() {
        let states = after(&[header(1, 0, 3, 0)]);
        assert_eq!(states.check(&header(2, 1, 1, 0)), Sequence::OutOfOrder { last: -1 });
        assert_eq!(states.check(&header(2, 0, 3, 0)), Sequence::Next, "same sequences, but not a duplicate");
        assert_eq!(states.check(&header(0, 3, 1, 0)), Sequence::Fenced { epoch: 1 });
        let states = after(&[header(1, 0, 3, 0), header(2, 0, 1, 3)]);
        assert_eq!(states.check(&header(1, 0, 3, 0)), Sequence::Fenced { epoch: 2 });
        assert_eq!(
            states.iter().next().unwrap().1.batches.len(),
            1,
            "batches of the old epoch are forgotten"
        );
    }

    #[test]
    fn a_producer_without_state_may_begin_anywhere() {
        assert_eq!(ProducerStates::default().check(&header(3, 500, 1, 0)), Sequence::Next);
    }

    #[test]
    fn silent_producers_expire() {
        let mut states = after(&[header(0, 0, 1, 10)]);
        states.expire(1_010);
        assert_eq!(states.iter().count(), 1);
        states.expire(1_011);
        assert_eq!(states.iter().count(), 0);
    }
}
