//! What a voter keeps when its process dies: the directory of its log, on a disk like a broker's.

use std::sync::Arc;

use broker_lite_core::metadata::{METADATA_TOPIC, METADATA_TOPIC_ID};
use broker_lite_core::quorum::{MetadataStore, QuorumState};
use broker_lite_core::storage::StorageError;

use crate::disk::{Disk, Leave, Stored};

/// A voter's disk.
#[derive(Debug)]
pub(crate) struct VoterDisk {
    pub(crate) disk: Arc<Disk>,
}

impl VoterDisk {
    /// What lies on `disk` is kept there.
    pub(crate) fn new(disk: Arc<Disk>) -> Arc<Self> {
        Arc::new(Self { disk })
    }

    /// What the last process has left.
    pub(super) fn open(&self) -> Result<(MetadataStore<Stored>, Option<QuorumState>), StorageError> {
        self.disk.open()?;
        MetadataStore::open(self.disk.take((METADATA_TOPIC_ID, 0), &Arc::from(METADATA_TOPIC))?)
    }

    /// Takes the directory back from a process that is over.
    pub(super) fn put_back(&self, store: MetadataStore<Stored>, leave: Leave) {
        let directory = store.into_directory();
        self.disk.put_back(std::iter::once(((METADATA_TOPIC_ID, 0), directory)), leave);
    }
}
