//! `flush.messages` = 1 by hand: exact effects, and what counts when.

use klamm_wire::ErrorCode;

use super::support::*;
use crate::log::testing::{idempotent, plain};
use crate::replica::*;
use crate::storage::{Directory, MemoryDirectory, StorageError};

const SEGMENT: &str = "00000000000000000000.log";

fn durable(min_insync_replicas: usize) -> ReplicaSettings {
    ReplicaSettings { sync_before_ack: true, ..settings(min_insync_replicas) }
}

fn alone() -> Sut {
    Sut::new(1, durable(1)).with(&registration(&[1], Some(1), 0, 0))
}

fn sync(generation: u64, upto: i64) -> Effect {
    Effect::Sync { generation, upto }
}

impl Sut {
    fn synced(&mut self, generation: u64, upto: i64) {
        self.replica.synced(self.now, generation, upto, &mut self.fx);
    }

    fn set(&mut self, settings: ReplicaSettings) {
        self.replica.set_settings(self.now, settings, &mut self.fx);
    }

    /// Loses power and starts again.
    fn lose_power(self, settings: ReplicaSettings) -> Self {
        let broker = self.replica.identity().broker_id;
        let mut directory = self.replica.into_directory();
        directory.power_off();
        Self::on(broker, settings, directory)
    }

    fn syncs(&mut self) -> Vec<Effect> {
        self.fx().into_iter().filter(|effect| matches!(effect, Effect::Sync { .. })).collect()
    }
}

#[test]
fn without_the_setting_no_sync_is_ever_asked_for() {
    let (mut leader, mut follower) = pair(settings(2));
    leader.append(&plain(3), 1).unwrap();
    follower.fetch(&mut leader).unwrap();
    follower.fetch(&mut leader).unwrap();
    assert_eq!(leader.replica.is_durable(0, 3), Ok(true));
    follower.apply(&registration(&[1, 2], Some(2), 1, 1));
    assert_eq!((leader.syncs(), follower.syncs()), (vec![], vec![]));
}

/// Goal: flushing that nobody waits for neither holds an answer back nor stops.
#[test]
fn other_values_of_flush_messages_and_flush_ms_sync_without_holding_anything_back() {
    let mut by_count = settings(1);
    by_count.log.flush_messages = 5;
    let mut leader = Sut::new(1, by_count).with(&registration(&[1], Some(1), 0, 0));
    leader.append(&plain(3), 1).unwrap();
    assert_eq!(leader.fx(), [Effect::Appended(3), Effect::HighWatermark(3)]);
    leader.append(&plain(3), 1).unwrap();
    assert_eq!(leader.fx(), [Effect::Appended(6), sync(0, 6), Effect::HighWatermark(6)]);
    leader.synced(0, 6);
    assert_eq!(leader.replica.log().recovery_point(), 6);

    let mut by_time = settings(1);
    by_time.log.flush_interval = Some(S);
    let mut leader = Sut::new(1, by_time).with(&registration(&[1], Some(1), 0, 0));
    leader.append(&plain(1), 1).unwrap();
    assert_eq!(leader.syncs(), []);
    assert_eq!(leader.replica.deadline(), Some(S));
    leader.pass(S);
    assert_eq!(leader.syncs(), [sync(0, 1)]);
    leader.synced(0, 1);
    assert!(leader.replica.deadline() > Some(S), "nothing is left to be flushed");

    let mut by_size = settings(1);
    by_size.log.segment_bytes = 1;
    let mut leader = Sut::new(1, by_size).with(&registration(&[1], Some(1), 0, 0));
    leader.append(&plain(1), 1).unwrap();
    assert_eq!(leader.syncs(), []);
    leader.append(&plain(1), 1).unwrap();
    assert_eq!(leader.syncs(), [sync(0, 2)], "a segment is full");
}

#[test]
fn a_leader_alone_commits_and_acknowledges_when_the_sync_is_done() {
    let mut leader = alone();
    leader.append(&plain(3), 1).unwrap();
    assert_eq!(leader.fx(), [Effect::Appended(3), sync(0, 3)]);
    assert_eq!(leader.replica.is_durable(0, 3), Ok(false));
    assert_eq!(leader.replica.acked(0, 3), Ok(false));
    leader.synced(0, 3);
    assert_eq!(leader.fx(), [Effect::Synced(3), Effect::HighWatermark(3)]);
    assert_eq!(leader.replica.is_durable(0, 3), Ok(true));
    assert_eq!(leader.replica.acked(0, 3), Ok(true));
}

/// Goal: what comes while a sync runs costs one more sync, not one each, and is not vouched for by the running one.
#[test]
fn appends_during_a_sync_go_along_with_the_next_one() {
    let mut leader = alone();
    leader.append(&plain(1), 1).unwrap();
    leader.append(&plain(1), 1).unwrap();
    leader.append(&plain(1), 1).unwrap();
    assert_eq!(leader.syncs(), [sync(0, 1)]);
    leader.synced(0, 1);
    assert_eq!(leader.fx(), [Effect::Synced(1), Effect::HighWatermark(1), sync(0, 3)]);
    assert_eq!(leader.replica.is_durable(0, 2), Ok(false));
    let after = leader.lose_power(durable(1));
    assert_eq!(after.replica.log_end_offset(), 1, "durable is what was written when the sync began");
}

#[test]
fn a_report_that_nobody_waits_for_changes_nothing() {
    let mut leader = alone();
    leader.synced(0, 3);
    leader.append(&plain(1), 1).unwrap();
    leader.fx();
    leader.synced(0, 7);
    leader.synced(5, 1);
    assert_eq!((leader.fx(), leader.replica.durable_end()), (vec![], 0));
}

/// Goal: a follower's fetch offset is a promise; what a loss of power could take is not promised.
#[test]
fn a_follower_asks_again_only_when_all_it_has_is_durable() {
    let (mut leader, mut follower) = pair(durable(2));
    leader.append(&plain(3), -1).unwrap();
    follower.fetch(&mut leader).unwrap();
    assert_eq!(follower.fx(), [Effect::Appended(3), sync(0, 3)]);
    assert_eq!(follower.replica.fetch_position(), None);
    follower.synced(0, 3);
    assert_eq!(follower.fx(), [Effect::Synced(3)]);
    assert_eq!(follower.replica.fetch_position().unwrap().offset, 3);
}

#[test]
fn the_leaders_own_end_counts_for_the_high_watermark_only_when_durable() {
    let (mut leader, mut follower) = pair(durable(2));
    leader.append(&plain(3), -1).unwrap();
    follower.fetch(&mut leader).unwrap();
    follower.synced(0, 3);
    leader.fx();
    follower.fetch(&mut leader).unwrap();
    assert_eq!(leader.fx(), [], "the follower has it safe, the leader has not");
    leader.synced(0, 3);
    assert_eq!(leader.fx(), [Effect::Synced(3), Effect::HighWatermark(3)]);
}

#[test]
fn a_retry_waits_for_the_sync_of_the_original() {
    let mut leader = alone();
    leader.append(&idempotent(5, 0, 0, &[b"a"]), 1).unwrap();
    let again = leader.append(&idempotent(5, 0, 0, &[b"a"]), 1).unwrap();
    assert!(again.duplicate);
    assert_eq!(leader.syncs(), [sync(0, 1)]);
    assert_eq!(leader.replica.is_durable(0, again.last_offset + 1), Ok(false));
}

/// Goal: the bytes that a running sync covers may be others by the time it ends.
#[test]
fn a_truncation_voids_the_running_sync() {
    let (mut leader, mut follower) = pair(durable(1));
    leader.append(&plain(2), 1).unwrap();
    follower.fetch(&mut leader).unwrap();
    assert_eq!(follower.syncs(), [sync(0, 2)]);
    follower.apply(&registration(&[1, 2], Some(1), 1, 1));
    follower
        .replica
        .truncate(follower.now, 1, EpochEnd { epoch: 0, end_offset: 0 }, &mut follower.fx)
        .unwrap();
    assert_eq!(follower.replica.fetch_position().unwrap().offset, 0, "nothing is left to be synced");
    follower.fx();
    let mut other = Sut::new(1, durable(1)).with(&registration(&[1, 2], Some(1), 1, 1));
    other.append(&plain(2), 1).unwrap();
    follower.fetch(&mut other).unwrap();
    assert_eq!(follower.syncs(), [sync(1, 2)]);
    follower.synced(0, 2);
    assert_eq!(
        (follower.fx(), follower.replica.fetch_position()),
        (vec![], None),
        "the old sync, of other bytes"
    );
    assert_eq!(follower.replica.durable_end(), 0);
    follower.synced(1, 2);
    assert_eq!(follower.fx(), [Effect::Synced(2)]);
}

#[test]
fn what_a_truncation_leaves_unsynced_is_synced_anew() {
    let (mut leader, mut follower) = pair(durable(1));
    leader.append(&plain(2), 1).unwrap();
    leader.append(&plain(2), 1).unwrap();
    follower.fetch(&mut leader).unwrap();
    follower.apply(&registration(&[1, 2], Some(1), 1, 1));
    follower.fx();
    follower
        .replica
        .truncate(follower.now, 1, EpochEnd { epoch: 0, end_offset: 2 }, &mut follower.fx)
        .unwrap();
    assert_eq!(follower.fx(), [Effect::Truncated(2), sync(1, 2)]);
}

/// Goal: a killed process leaves its writes to the operating system; whoever comes next may not count on that.
#[test]
fn after_a_restart_the_unsynced_tail_is_synced_before_it_counts() {
    let mut leader = alone();
    leader.append(&plain(2), 1).unwrap();
    leader.synced(0, 2);
    leader.append(&plain(3), 1).unwrap();
    let mut again = Sut::on(1, durable(1), leader.replica.into_directory());
    assert_eq!((again.replica.log_end_offset(), again.replica.durable_end()), (5, 2));
    again.apply(&registration(&[1], Some(1), 1, 1));
    assert_eq!(again.syncs(), [sync(0, 5)]);
    assert_eq!(again.replica.high_watermark(), 2);
    again.synced(0, 5);
    assert_eq!(again.fx(), [Effect::Synced(5), Effect::HighWatermark(5)]);

    let storage = {
        let (mut leader, mut follower) = pair(durable(1));
        leader.append(&plain(2), 1).unwrap();
        follower.fetch(&mut leader).unwrap();
        follower.replica.into_directory()
    };
    let again = Sut::on(2, durable(1), storage).with(&registration(&[1, 2], Some(1), 0, 0));
    assert_eq!(again.replica.fetch_position(), None, "a follower does not promise it either");
}

/// Goal: a tail cut at any byte leaves whole batches, and what was durable is among them.
#[test]
fn a_tail_torn_at_any_byte_is_cut_to_whole_batches() {
    let written = || {
        let mut leader = alone();
        leader.append(&plain(2), 1).unwrap();
        leader.synced(0, 2);
        for count in [1, 2, 1] {
            leader.append(&plain(count), 1).unwrap();
        }
        leader.replica.into_directory()
    };
    let whole = {
        let mut directory = written();
        let file = directory.open(SEGMENT).unwrap();
        (directory.synced_len(file), directory.size(file))
    };
    let ends: Vec<(u64, i64)> = {
        let replica = Replica::new(identity(1), written(), durable(1)).unwrap();
        let batches = replica.log().batches().map(|found| found.unwrap());
        batches.map(|(at, batch)| (at + batch.bytes().len() as u64, batch.header().next_offset())).collect()
    };
    let unsynced = whole.1 - whole.0;
    for kept in 0..=unsynced {
        let mut directory = written();
        directory.power_off_torn(&mut |_| kept);
        let left = whole.0 + kept;
        let replica = Replica::new(identity(1), directory, durable(1)).unwrap();
        let (at, offset) = *ends.iter().rev().find(|(at, _)| *at <= left).unwrap();
        assert_eq!(replica.log_end_offset(), offset, "{kept} B of the tail kept");
        assert_eq!(replica.recovered_from().is_some(), at != left, "{kept} B of the tail kept");
        assert_eq!(replica.log().verify(), []);
    }
}

#[test]
fn a_failed_sync_takes_the_replica_offline_for_good() {
    let mut leader = alone();
    leader.append(&plain(1), 1).unwrap();
    leader.fx();
    leader.replica.sync_failed(&StorageError::Failed("input/output error".into()), &mut leader.fx);
    let failed = Effect::StorageFailed("storage failed: input/output error".into());
    assert_eq!(leader.fx(), [failed, Effect::RoleChanged(Role::Offline)]);
    assert_eq!(leader.replica.is_durable(0, 1), Err(ErrorCode::KAFKA_STORAGE_ERROR));
    assert_eq!(leader.replica.acked(0, 1), Err(ErrorCode::KAFKA_STORAGE_ERROR));
    leader.synced(0, 1);
    leader.replica.sync_failed(&StorageError::Failed("again".into()), &mut leader.fx);
    leader.apply(&registration(&[1], Some(1), 1, 1));
    assert_eq!(leader.fx(), [], "never tried again, never believed");
}

#[test]
fn switched_on_it_asks_for_what_is_not_durable_and_switched_off_it_lets_go() {
    let mut leader = Sut::new(1, settings(1)).with(&registration(&[1], Some(1), 0, 0));
    leader.append(&plain(2), 1).unwrap();
    leader.fx();
    leader.set(durable(1));
    assert_eq!(leader.fx(), [sync(0, 2)]);
    leader.append(&plain(1), 1).unwrap();
    assert_eq!(leader.fx(), [Effect::Appended(3)]);
    assert_eq!(leader.replica.high_watermark(), 2, "what was committed stays so");
    leader.set(settings(1));
    assert_eq!(leader.fx(), [Effect::Synced(3), Effect::HighWatermark(3)]);
}

#[test]
fn what_is_durable_ends_with_the_last_whole_batch_that_is() {
    let mut whole = Vec::new();
    {
        let mut leader = alone();
        for _ in 0..200 {
            leader.append(&plain(2), 1).unwrap();
        }
        whole.push(leader.bytes());
    }
    let size = whole[0].len() / 200;
    for synced in [0, 1, size - 1, size, size + 1, 57 * size - 1, 57 * size, 200 * size - 1, 200 * size] {
        let mut directory = MemoryDirectory::new();
        let file = directory.create(SEGMENT).unwrap();
        directory.append(file, &[whole[0].slice(..synced)]).unwrap();
        directory.sync_now().unwrap();
        directory.append(file, &[whole[0].slice(synced..)]).unwrap();
        let replica = Replica::new(identity(1), directory, durable(1)).unwrap();
        assert_eq!(replica.durable_end(), (synced / size * 2) as i64, "synced {synced} B");
    }
}
