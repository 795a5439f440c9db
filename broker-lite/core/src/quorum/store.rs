//! What one voter keeps in its directory: a [`Log`] like a partition's, Kafka's snapshots of what was before it, and the
//! vote.
//!
//! ```text
//! snapshot │ snapshot                      at most two; the log reaches back to the end of the older one
//!          └─ start ──batches───────── end
//!
//! 00000000000000000000.log ...             see `crate::log`
//! 00000000000000001234-0000000007.checkpoint   end offset and epoch of a snapshot
//! quorum-state
//! ```
//!
//! Invariant: a snapshot is durable before anything of the log goes that it stands for.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use klamm_wire::RawBatch;
use klamm_wire::metadata_records::MetadataRecord;

use super::control::{self, Place};
use super::{LeaderChange, QuorumLog, QuorumState, SnapshotId};
use crate::log::{Cause, Damage, Log, LogError, LogSettings};
use crate::metadata::Checkpoint;
use crate::storage::{Directory, StorageError, read_file};

/// Snapshots kept.
const KEPT: usize = 2;
const STATE: &str = "quorum-state";
const CHECKPOINT: &str = ".checkpoint";

/// A log and its snapshots.
#[derive(Debug)]
pub struct MetadataStore<D> {
    log: Log<D>,
    snapshots: Vec<(SnapshotId, Bytes)>,
    incoming: Option<(SnapshotId, BytesMut)>,
}

impl<D: Directory> MetadataStore<D> {
    /// Opens what a directory holds, and tells how its voter stood; `None` if it never ran.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn open(mut directory: D) -> Result<(Self, Option<QuorumState>), StorageError> {
        let names = directory.names()?;
        let malformed =
            |file: &str, reason: String| StorageError::Malformed { file: file.to_owned(), reason };
        let state = match names.iter().any(|name| name == STATE) {
            true => {
                let text = read_file(&mut directory, STATE)?;
                let text = String::from_utf8_lossy(&text);
                Some(QuorumState::decode(&text).map_err(|error| malformed(STATE, error.to_string()))?)
            }
            false => None,
        };
        let mut snapshots = Vec::new();
        for name in &names {
            if let Some(id) = snapshot_id(name) {
                snapshots.push((id, read_file(&mut directory, name)?));
            }
        }
        // What is torn at the end was never counted as durable.
        let (mut log, _) = Log::open(directory, settings())?;
        if let Some((latest, _)) = snapshots.last()
            && !continues(&log, *latest)
        {
            // The process ended between the snapshot and the log that follows it.
            log.restart_at(latest.end_offset)?;
        }
        // The directory is synced for the first vote, and need not be again for the first record.
        log.prepare()?;
        let mut store = Self { log, snapshots, incoming: None };
        store.thin_out()?;
        Ok((store, state))
    }

    /// At which size and age segments end: nothing of one is given up before all of it may be.
    pub fn set_segments(&mut self, bytes: u64, ms: i64) {
        self.log.set_settings(LogSettings { segment_bytes: bytes, segment_ms: ms, ..settings() });
    }

    /// Keeps how the voter stands; durable when this returns.
    ///
    /// # Errors
    ///
    /// What the storage says; the voter must not go on then.
    pub fn persist(&mut self, state: &QuorumState, voters: &BTreeSet<i32>) -> Result<(), StorageError> {
        let directory = self.log.directory_mut();
        directory.replace_later(STATE, state.encode(voters).into())?;
        directory.sync_now()
    }

    /// As [`Self::persist`], but durable only with the next sync. That is soon enough for a state that says no more than who
    /// leads in an epoch: a voter that forgets that is not free to vote again in it, and no majority is without one that has
    /// voted.
    ///
    /// # Errors
    ///
    /// As [`Self::persist`].
    pub fn note(&mut self, state: &QuorumState, voters: &BTreeSet<i32>) -> Result<(), StorageError> {
        self.log.directory_mut().replace_later(STATE, state.encode(voters).into())
    }

    /// The log.
    pub fn log(&self) -> &Log<D> {
        &self.log
    }

    /// The log, to note what has become durable.
    pub fn log_mut(&mut self) -> &mut Log<D> {
        &mut self.log
    }

    /// The directory, for the next process.
    pub fn into_directory(self) -> D {
        self.log.into_directory()
    }

    /// Appends records of the controller as one batch, all or nothing; returns the offset after the last.
    ///
    /// # Errors
    ///
    /// What the storage says; [`LogError::NotNext`] if `epoch` is older than the log's.
    pub fn append_records(
        &mut self,
        epoch: i32,
        wall_ms: i64,
        records: &[MetadataRecord],
    ) -> Result<i64, LogError> {
        if !records.is_empty() {
            let place = Place { offset: self.log.end_offset(), epoch, wall_ms };
            self.append_batch(control::batch(place, records.iter().map(MetadataRecord::encode)))?;
        }
        Ok(self.log.end_offset())
    }

    fn append_batch(&mut self, batch: Option<(klamm_wire::BatchHeader, Bytes)>) -> Result<(), LogError> {
        let too_large = || StorageError::Failed("a batch beyond 2 GiB".into());
        let (header, bytes) = batch.ok_or_else(too_large)?;
        self.log.append(&header, &[bytes])
    }

    /// A snapshot that is kept.
    pub fn snapshot_bytes(&self, id: SnapshotId) -> Option<&Bytes> {
        self.snapshots.iter().find(|(kept, _)| *kept == id).map(|(_, bytes)| bytes)
    }

    /// The latest snapshot, with its bytes.
    pub fn latest_snapshot(&self) -> Option<(SnapshotId, &Bytes)> {
        self.snapshots.last().map(|(id, bytes)| (*id, bytes))
    }

    /// Keeps a snapshot of the log up to `id`, and gives up what lies before the one before it.
    ///
    /// # Errors
    ///
    /// What the storage says.
    pub fn keep_snapshot(&mut self, id: SnapshotId, bytes: Bytes) -> Result<(), LogError> {
        if self.snapshots.last().is_some_and(|(latest, _)| latest.end_offset >= id.end_offset) {
            return Ok(());
        }
        self.write_snapshot(id, &bytes)?;
        self.snapshots.push((id, bytes));
        self.thin_out()?;
        if self.snapshots.len() == KEPT
            && let Some((oldest, _)) = self.snapshots.first()
        {
            self.log.advance_start(oldest.end_offset)?;
        }
        Ok(())
    }

    fn write_snapshot(&mut self, id: SnapshotId, bytes: &Bytes) -> Result<(), StorageError> {
        let directory = self.log.directory_mut();
        directory.replace_later(&snapshot_name(id), bytes.clone())?;
        directory.sync_now()
    }

    /// Removes the oldest snapshots.
    fn thin_out(&mut self) -> Result<(), StorageError> {
        let surplus = self.snapshots.len().saturating_sub(KEPT);
        for (id, _) in self.snapshots.drain(..surplus) {
            self.log.directory_mut().remove(&snapshot_name(id))?;
        }
        Ok(())
    }

    /// Epoch of the record before `offset`, as a snapshot that ends there names it.
    pub fn epoch_before(&self, offset: i64) -> i32 {
        let held =
            (offset > self.log.start_offset()).then(|| self.log.epochs().epoch_at(offset - 1)).flatten();
        held.unwrap_or_else(|| self.start_epoch())
    }
}

/// It is looked through from its beginning in any case.
fn settings() -> LogSettings {
    LogSettings { keeps_epochs: false, ..LogSettings::default() }
}

/// Whether a log goes on from a snapshot: it reaches up to its end, and parts from what that stands for nowhere before.
fn continues<D: Directory>(log: &Log<D>, snapshot: SnapshotId) -> bool {
    let end = snapshot.end_offset;
    let held = end > log.start_offset();
    end <= log.end_offset() && (!held || log.epochs().epoch_at(end - 1) == Some(snapshot.epoch))
}

fn snapshot_name(id: SnapshotId) -> String {
    format!("{:020}-{:010}{CHECKPOINT}", id.end_offset, id.epoch)
}

fn snapshot_id(name: &str) -> Option<SnapshotId> {
    let (end_offset, epoch) = name.strip_suffix(CHECKPOINT)?.split_once('-')?;
    Some(SnapshotId { end_offset: end_offset.parse().ok()?, epoch: epoch.parse().ok()? })
}

impl<D: Directory> QuorumLog for MetadataStore<D> {
    type Records = Vec<Bytes>;

    fn start_offset(&self) -> i64 {
        self.log.start_offset()
    }

    fn start_epoch(&self) -> i32 {
        let start = self.log.start_offset();
        let at_start = self.snapshots.iter().find(|(id, _)| id.end_offset == start);
        at_start.map_or(0, |(id, _)| id.epoch)
    }

    fn end_offset(&self) -> i64 {
        self.log.end_offset()
    }

    fn last_epoch(&self) -> i32 {
        self.epoch_before(self.log.end_offset())
    }

    fn end_of_epoch(&self, epoch: i32) -> (i32, i64) {
        let entries = self.log.epochs().entries();
        let after = entries.partition_point(|entry| entry.epoch <= epoch);
        let end = entries.get(after).map_or(self.log.end_offset(), |next| next.start_offset);
        match after.checked_sub(1).and_then(|index| entries.get(index)) {
            Some(floor) => (floor.epoch, end),
            None => (self.start_epoch(), end),
        }
    }

    fn snapshot(&self) -> Option<SnapshotId> {
        self.snapshots.last().map(|(id, _)| *id)
    }

    fn none(&self) -> Vec<Bytes> {
        Vec::new()
    }

    fn is_none(records: &Vec<Bytes>) -> bool {
        records.iter().all(Bytes::is_empty)
    }

    fn read(&self, offset: i64, limit: i64, max_bytes: usize) -> Result<Vec<Bytes>, LogError> {
        self.log.read(offset, limit, max_bytes, true)
    }

    fn append(&mut self, records: &Vec<Bytes>) -> Result<(), LogError> {
        let mut whole = match &records[..] {
            [one] => one.clone(),
            many => many.concat().into(),
        };
        while let Some(batch) = RawBatch::split(&mut whole) {
            let at = self.log.end_offset();
            let damaged = |error| Damage { segment: 0, position: 0, offset: at, cause: Cause::Batch(error) };
            let batch = batch.map_err(damaged)?;
            batch.verify_crc().map_err(damaged)?;
            self.log.append(batch.header(), &[batch.bytes().clone()])?;
        }
        Ok(())
    }

    fn append_leader_change(&mut self, change: &LeaderChange) -> Result<(), LogError> {
        let place = Place { offset: self.log.end_offset(), epoch: change.epoch, wall_ms: change.wall_ms };
        self.append_batch(control::control(place, control::LEADER_CHANGE, &control::leader_change(change)))
    }

    fn truncate_to(&mut self, offset: i64) -> Result<(), LogError> {
        self.log.truncate_to(offset).map(|_| ())
    }

    fn receive_snapshot(&mut self, id: SnapshotId, position: u64, bytes: &[u8]) {
        if position == 0 {
            self.incoming = Some((id, BytesMut::new()));
        }
        if let Some((incoming, received)) = &mut self.incoming
            && *incoming == id
            && received.len() as u64 == position
        {
            received.extend_from_slice(bytes);
        }
    }

    fn load_snapshot(&mut self, id: SnapshotId) -> Result<bool, LogError> {
        let Some((_, bytes)) = self.incoming.take().filter(|(incoming, _)| *incoming == id) else {
            return Ok(false);
        };
        let bytes = bytes.freeze();
        if Checkpoint::read(id, &bytes).is_err() {
            return Ok(false);
        }
        self.write_snapshot(id, &bytes)?;
        self.log.restart_at(id.end_offset)?;
        for (old, _) in std::mem::replace(&mut self.snapshots, vec![(id, bytes)]) {
            if old != id {
                self.log.directory_mut().remove(&snapshot_name(old))?;
            }
        }
        Ok(true)
    }
}
