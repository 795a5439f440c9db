//! Kafka's file `<offset>.snapshot`: what producers had written when the log ended there.
//!
//! ```text
//! version 2 │ crc 4 │ count 4 │ per producer: id 8, epoch 2, last sequence 4, last offset 8, offset delta 4,
//! timestamp 8, coordinator epoch 4, first offset of its transaction 8 │ ours: older batches of each, Kafka reads no further
//! ```
//!
//! Kafka keeps one batch of each producer here. We keep all that are remembered: a retry of an older one must be told
//! from a gap after a restart, too.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use klamm_wire::crc::crc32c;

use super::{BATCHES, ProducedBatch, ProducerEntry, ProducerStates};

const VERSION: i16 = 1;
/// Version and CRC.
const SUMMED_FROM: usize = 6;
const ENTRY_BYTES: usize = 46;
/// Base and last sequence, base and last offset, timestamp.
const OLDER_BYTES: usize = 32;
/// Says that our part follows.
const OLDER_MAGIC: u32 = u32::from_be_bytes(*b"klam");

impl ProducerStates {
    /// The content of the file.
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        let known =
            || self.producers.iter().filter_map(|(id, entry)| Some((*id, entry, entry.batches.back()?)));
        body.put_i32(i32::try_from(known().count()).unwrap_or(i32::MAX));
        for (id, entry, last) in known() {
            body.put_i64(id);
            body.put_i16(entry.epoch);
            body.put_i32(last.last_sequence);
            body.put_i64(last.last_offset);
            body.put_i32(i32::try_from(last.last_offset - last.base_offset).unwrap_or(i32::MAX));
            body.put_i64(last.timestamp);
            body.put_i32(-1);
            body.put_i64(-1);
        }
        body.put_u32(OLDER_MAGIC);
        for (_, entry, _) in known() {
            let older = entry.batches.iter().take(entry.batches.len() - 1);
            body.put_u8(older.len() as u8);
            for batch in older {
                body.put_i32(batch.base_sequence);
                body.put_i32(batch.last_sequence);
                body.put_i64(batch.base_offset);
                body.put_i64(batch.last_offset);
                body.put_i64(batch.timestamp);
            }
        }
        let mut whole = BytesMut::with_capacity(SUMMED_FROM + body.len());
        whole.put_i16(VERSION);
        whole.put_u32(crc32c(&body));
        whole.put_slice(&body);
        whole.freeze()
    }

    /// Reads the file, ours or Kafka's; `None` if it is damaged.
    pub fn decode(content: &[u8]) -> Option<Self> {
        let mut rest = content;
        let (version, crc) = (rest.try_get_i16().ok()?, rest.try_get_u32().ok()?);
        if version != VERSION || crc != crc32c(rest) {
            return None;
        }
        let count = usize::try_from(rest.try_get_i32().ok()?).ok()?;
        if rest.len() < count.checked_mul(ENTRY_BYTES)? {
            return None;
        }
        let mut states = Self::default();
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            let (id, epoch) = (rest.get_i64(), rest.get_i16());
            let (last_sequence, last_offset, delta) = (rest.get_i32(), rest.get_i64(), rest.get_i32());
            let timestamp = rest.get_i64();
            rest.advance(12);
            let before = last_sequence.checked_sub(delta);
            let batch = ProducedBatch {
                // sequences go on from 0 after the largest
                base_sequence: before
                    .filter(|first| *first >= 0)
                    .unwrap_or_else(|| wrapped(last_sequence, delta)),
                last_sequence,
                base_offset: last_offset.saturating_sub(i64::from(delta)),
                last_offset,
                timestamp,
            };
            // Kafka notes producers of which it has seen no records, too
            let batches = if last_sequence >= 0 { [batch].into() } else { [].into() };
            states.producers.insert(id, ProducerEntry { epoch, batches });
            ids.push(id);
        }
        if rest.try_get_u32().is_ok_and(|magic| magic == OLDER_MAGIC) {
            for id in ids {
                states.decode_older(id, &mut rest)?;
            }
        }
        Some(states)
    }

    fn decode_older(&mut self, id: i64, rest: &mut &[u8]) -> Option<()> {
        let older = usize::from(rest.try_get_u8().ok()?);
        if older >= BATCHES || rest.len() < older * OLDER_BYTES {
            return None;
        }
        let entry = self.producers.get_mut(&id)?;
        for at in 0..older {
            let batch = ProducedBatch {
                base_sequence: rest.get_i32(),
                last_sequence: rest.get_i32(),
                base_offset: rest.get_i64(),
                last_offset: rest.get_i64(),
                timestamp: rest.get_i64(),
            };
            entry.batches.insert(at, batch);
        }
        Some(())
    }
}

fn wrapped(last_sequence: i32, delta: i32) -> i32 {
    let first = i64::from(last_sequence) - i64::from(delta) + i64::from(i32::MAX) + 1;
    i32::try_from(first).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states() -> ProducerStates {
        let batch = |at: i64| ProducedBatch {
            base_sequence: at as i32,
            last_sequence: at as i32 + 1,
            base_offset: 100 + at,
            last_offset: 101 + at,
            timestamp: 1_000 + at,
        };
        let entry = |epoch, batches: &[i64]| ProducerEntry {
            epoch,
            batches: batches.iter().map(|at| batch(*at)).collect(),
        };
        ProducerStates { producers: [(7, entry(0, &[0, 2, 4])), (9, entry(3, &[0]))].into() }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for states in [states(), ProducerStates::default()] {
            assert_eq!(ProducerStates::decode(&states.encode()), Some(states));
        }
    }

    #[test]
    fn kafkas_part_stands_alone() {
        let ours = states().encode();
        let mut body = BytesMut::from(&ours[SUMMED_FROM..SUMMED_FROM + 4 + 2 * ENTRY_BYTES]);
        let crc = crc32c(&body);
        let mut kafkas = BytesMut::new();
        kafkas.put_i16(VERSION);
        kafkas.put_u32(crc);
        kafkas.put_slice(&body.split());
        let read = ProducerStates::decode(&kafkas).unwrap();
        let last: Vec<_> = read.iter().map(|(id, entry)| (id, entry.epoch, entry.batches.clone())).collect();
        let all = states();
        let expected: Vec<_> = all
            .iter()
            .map(|(id, entry)| (id, entry.epoch, [*entry.batches.back().unwrap()].into()))
            .collect();
        assert_eq!(last, expected);
    }

    #[test]
    fn any_damage_is_seen() {
        let sound = states().encode();
        for at in 0..sound.len() {
            let mut bad = sound.to_vec();
            bad[at] ^= 1;
            assert_eq!(ProducerStates::decode(&bad), None, "byte {at}");
            assert_eq!(ProducerStates::decode(&sound[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn a_batch_across_the_largest_sequence_keeps_its_first_one() {
        assert_eq!(wrapped(1, 3), i32::MAX - 1);
    }
}
