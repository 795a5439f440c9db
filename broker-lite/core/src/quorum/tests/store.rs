//! What a voter finds that ended at a bad moment, and what it is sent.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::simulation::settings;
use crate::metadata::{Checkpoint, Image};
use crate::quorum::{LeaderChange, MetadataStore, Now, QuorumLog, QuorumState, SnapshotId, Voter};
use crate::storage::{Directory, MemoryDirectory};

type Store = MetadataStore<MemoryDirectory>;

/// A log of one record in each epoch.
fn led_in(epochs: &[i32]) -> Store {
    let (mut store, _) = Store::open(MemoryDirectory::new()).unwrap();
    for epoch in epochs {
        let (voters, granting) = (vec![1, 2, 3], vec![1, 2]);
        let change = LeaderChange { leader: 1, epoch: *epoch, voters, granting, wall_ms: 0 };
        store.append_leader_change(&change).unwrap();
    }
    store
}

fn snapshot(id: SnapshotId) -> Bytes {
    Checkpoint::write(id, &Image::default(), 0).unwrap()
}

/// Goal: a voter that ended between a snapshot it was sent and the log that follows it does not keep the log that the snapshot
/// was to replace, however long: its leader would send the snapshot again, and again.
#[test]
fn a_log_that_parts_from_its_snapshot_begins_anew_behind_it() {
    for (epochs, kept) in [([1, 2, 2, 2], false), ([1, 5, 5, 5], true)] {
        let mut directory = led_in(&epochs).into_directory();
        let id = SnapshotId { end_offset: 2, epoch: 5 };
        directory.replace_later(&Checkpoint::file_name(id), snapshot(id)).unwrap();
        directory.sync_now().unwrap();
        let (store, _) = Store::open(directory).unwrap();
        let (start, end) = if kept { (0, 4) } else { (2, 2) };
        assert_eq!((store.start_offset(), store.end_offset(), store.last_epoch()), (start, end, 5));
        assert_eq!(store.snapshot(), Some(id));
    }
}

#[test]
fn a_part_of_a_snapshot_that_lies_nowhere_is_passed_over() {
    let (mut store, _) = Store::open(MemoryDirectory::new()).unwrap();
    let follows = QuorumState { epoch: 1, leader: Some(2), voted: None };
    let (rng, now) = (fastrand::Rng::with_seed(1), Now::default());
    let voters = BTreeSet::from([1, 2, 3]);
    let mut voter = Voter::new(now, 1, voters, settings(), Some(follows), &store, rng);
    let (id, mut fx) = (SnapshotId { end_offset: 2, epoch: 1 }, Vec::new());
    for position in [u64::MAX, u64::MAX - 1, 7] {
        voter.take_snapshot(now.tick, id, 10, position, b"abc", &mut store, &mut fx).unwrap();
    }
    assert_eq!((store.snapshot(), fx), (None, vec![]));
}

/// Goal: a log does not keep what its snapshots stand for because it lies in a segment with what they do not.
#[test]
fn records_go_by_segments_as_large_as_is_set() {
    for (segment_bytes, left) in [(1, 1), (1 << 30, 4)] {
        let mut store = led_in(&[]);
        store.set_segments(segment_bytes, i64::MAX);
        for epoch in 1..=4 {
            let change = LeaderChange { leader: 1, epoch, voters: vec![1], granting: vec![1], wall_ms: 0 };
            store.append_leader_change(&change).unwrap();
        }
        for end_offset in [3, 4] {
            let id = SnapshotId { end_offset, epoch: end_offset as i32 };
            store.keep_snapshot(id, snapshot(id)).unwrap();
        }
        assert_eq!((store.start_offset(), store.log().batches().count()), (3, left));
    }
}
