//! How far the batches of an answer reach, by their headers alone.

use bytes::Bytes;
use klamm_wire::RawBatch;

/// What the headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Offset behind the last whole batch; the offset asked for if there is none.
    pub next: i64,
    /// Bytes of the whole batches; a cut-off batch behind them is not counted.
    pub bytes: usize,
    /// Epoch of the last whole batch; -1 if there is none.
    pub epoch: i32,
    /// `false` if something that is not a batch, or no later batch, came first or ended the walk.
    pub sound: bool,
}

/// Walks the batches that were fetched at offset `from`. Nothing is copied, summed or decompressed.
pub fn scan(records: &Bytes, from: i64) -> Scan {
    let mut rest = records.clone();
    let mut scan = Scan { next: from, bytes: 0, epoch: -1, sound: true };
    while let Some(batch) = RawBatch::split(&mut rest) {
        let Ok(batch) = batch else {
            return Scan { sound: false, ..scan };
        };
        let header = batch.header();
        let begins_after = scan.bytes == 0 || header.base_offset >= scan.next;
        // An offset near the top of the range must not wrap the position around.
        let Some(end) = header.base_offset.checked_add(i64::from(header.last_offset_delta)) else {
            return Scan { sound: false, ..scan };
        };
        if header.last_offset_delta < 0 || !begins_after || end < scan.next || end == i64::MAX {
            return Scan { sound: false, ..scan };
        }
        scan.next = end + 1;
        scan.epoch = header.partition_leader_epoch;
        scan.bytes += batch.bytes().len();
    }
    // A broker always sends the first batch whole, however large (KIP-74).
    scan.sound = records.is_empty() || scan.bytes > 0;
    scan
}

#[cfg(test)]
mod tests {
    use super::super::tests::batch;
    use super::*;

    fn joined(parts: &[Bytes]) -> Bytes {
        Bytes::from(parts.concat())
    }

    #[test]
    fn whole_batches_count_and_a_cut_off_tail_does_not() {
        let (first, second) = (batch(10, 3), batch(13, 2));
        let whole = joined(&[first.clone(), second.clone()]);
        let both = Scan { next: 15, bytes: whole.len(), epoch: 3, sound: true };
        assert_eq!(scan(&whole, 10), both);
        for cut in 1..second.len() {
            let cut_off = whole.slice(..whole.len() - cut);
            assert_eq!(scan(&cut_off, 10), Scan { next: 13, bytes: first.len(), epoch: 3, sound: true });
        }
    }

    #[test]
    fn a_batch_may_begin_before_the_offset_asked_for_but_must_reach_it() {
        assert_eq!(scan(&batch(10, 3), 12).next, 13);
        assert!(!scan(&batch(10, 3), 13).sound);
    }

    #[test]
    fn batches_that_go_backwards_end_the_walk() {
        let first = batch(10, 3);
        let mixed = joined(&[first.clone(), batch(11, 3)]);
        assert_eq!(scan(&mixed, 10), Scan { next: 13, bytes: first.len(), epoch: 3, sound: false });
    }

    #[test]
    fn nothing_is_sound_and_less_than_one_batch_is_not() {
        assert!(scan(&Bytes::new(), 7).sound);
        assert!(!scan(&batch(7, 1).slice(..20), 7).sound);
        assert!(!scan(&Bytes::from(vec![0xff; 100]), 7).sound);
    }
}
