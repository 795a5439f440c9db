//! What a voter keeps when its process dies: its log on a disk like a broker's, its vote, its snapshots.

use std::sync::Arc;

use broker_lite_core::metadata::METADATA_TOPIC_ID;
use broker_lite_core::quorum::{MetadataStore, QuorumState, SnapshotId};
use broker_lite_core::storage::StorageError;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::disk::{Disk, Leave, Stored};

/// A voter's disk.
#[derive(Debug)]
pub(crate) struct VoterDisk {
    pub(crate) disk: Arc<Disk>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    state: Option<QuorumState>,
    snapshots: Vec<(SnapshotId, Bytes)>,
}

impl VoterDisk {
    /// Nothing is kept yet.
    pub(crate) fn new(disk: Arc<Disk>) -> Arc<Self> {
        Arc::new(Self { disk, kept: Mutex::default() })
    }

    /// What the last process has left.
    pub(super) fn open(&self) -> Result<(Option<QuorumState>, MetadataStore<Stored>), StorageError> {
        self.disk.open();
        let storage = self.disk.take((METADATA_TOPIC_ID, 0));
        let kept = self.kept.lock();
        Ok((kept.state, MetadataStore::open(storage, kept.snapshots.clone())?))
    }

    /// Keeps what must never be forgotten; durable when this returns.
    pub(super) fn persist(&self, state: QuorumState) {
        self.kept.lock().state = Some(state);
    }

    /// Takes the log back from a process that is over.
    pub(super) fn put_back(&self, store: MetadataStore<Stored>, leave: Leave) {
        let (storage, snapshots) = store.into_parts();
        self.kept.lock().snapshots = snapshots;
        self.disk.put_back(std::iter::once(((METADATA_TOPIC_ID, 0), storage)), leave);
    }
}
