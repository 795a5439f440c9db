//! Finds a partition for a record that names none.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use klamm_core::partitioner;

use crate::partitioner::{Partitioner, PartitionerError, Placement, Unplaced};

use super::error::SendError;
use super::guard::message;
use super::slot::Pick;
use super::spread::Spreader;
use super::topics::Topic;

/// Who finds partitions.
#[derive(Clone, Default)]
pub(super) enum Placing {
    /// Kafka's default: keys by murmur2, the others sticky.
    #[default]
    ByKey,
    /// Sticky, whatever the key (`partitioner.ignore.keys`).
    Sticky,
    /// Somebody else (`partitioner.class`, `partitioner`).
    Custom(Arc<dyn Partitioner>),
}

impl Placing {
    pub(super) fn pick(
        &self,
        spreader: &Spreader,
        topic: &Topic,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Pick, SendError> {
        match (self, key) {
            (Self::ByKey, Some(key)) => {
                Ok(Pick::Index(partitioner::for_key(key, topic.count as u32) as usize))
            }
            (Self::ByKey | Self::Sticky, _) => Ok(Pick::Sticky),
            (Self::Custom(custom), key) => {
                let failed = |source| SendError::Partitioner { topic: topic.name.clone(), source };
                ask(&**custom, spreader, topic, key, value).map_err(failed)
            }
        }
    }
}

fn ask(
    custom: &dyn Partitioner,
    spreader: &Spreader,
    topic: &Topic,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<Pick, PartitionerError> {
    let available = || spreader.available(&topic.name, &topic.spread, topic.count);
    let partitions = i32::try_from(topic.count).unwrap_or(i32::MAX);
    let record = Unplaced::of(&topic.name, key, value, partitions, &available);
    let told = catch_unwind(AssertUnwindSafe(|| custom.partition(&record)));
    match told.map_err(|panic| PartitionerError::Panicked { message: message(&*panic).to_owned() })? {
        Placement::Partition(partition) => match usize::try_from(partition) {
            Ok(index) if index < topic.count => Ok(Pick::Index(index)),
            _ => Err(PartitionerError::NoSuchPartition { partition, partitions }),
        },
        Placement::Sticky => Ok(Pick::Sticky),
        Placement::Random => {
            Ok(Pick::Index(spreader.random(&topic.name, &topic.spread, topic.count) as usize))
        }
    }
}

impl fmt::Debug for Placing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByKey => "ByKey",
            Self::Sticky => "Sticky",
            Self::Custom(_) => "Custom",
        })
    }
}
