//! Offsets in a store of the application's, for partitions that are assigned by hand.
//!
//! ```text
//! assign_stored ◀─ load ─ OffsetStore ◀─ save ─ stored_offsets, stored_after
//! ```
//!
//! A stored offset says of which topic it is (by id), and of which leader's record (by epoch): whoever goes on there notices if
//! the topic was created anew, or if the log was truncated.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;

use futures::future::BoxFuture;
use klamm_core::TopicPartition;
use klamm_core::consumer::StartIn;
use uuid::Uuid;

use super::error::ConsumerError;
use super::labels::TopicOf;
use super::offsets::know_topics;
use super::{Consumer, ConsumerRecord};

pub use file::{FileOffsetStore, FileStoreError};

/// Where to go on in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoredOffset {
    /// Offset of the next record to read.
    pub offset: i64,
    /// Leader epoch of the record before, if known (KIP-320).
    pub leader_epoch: Option<i32>,
    /// Id of the topic that the records were read from; nil if the brokers are too old to tell. (Before Kafka 3.1 they tell it with the
    /// metadata, not with the records: then it is what the metadata told last.)
    pub topic_id: Uuid,
}

/// Stored offsets by partition.
pub type StoredOffsets = BTreeMap<TopicPartition, StoredOffset>;

/// What a store says when it cannot load or save.
pub type OffsetStoreError = Box<dyn Error + Send + Sync>;

/// Keeps offsets for whoever does not leave them to a group in Kafka. [`FileOffsetStore`] is one; where results live in a database,
/// the best store is a table beside them, written in the same transaction.
///
/// Offsets are kept by group, which here is nothing but a name for whoever shares them.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use klamm::{Consumer, FileOffsetStore, OffsetStore, TopicPartition};
///
/// let store = FileOffsetStore::open("offsets")?;
/// let consumer = Consumer::builder().bootstrap_servers("localhost:9092").build()?;
/// consumer.assign_stored(&store, "reports", [("orders", 0), ("orders", 1)]).await?;
/// loop {
///     let records = consumer.poll(500, std::time::Duration::from_secs(1)).await?;
///     // … do something with them …
///     store.save("reports", &consumer.stored_after(&records)).await?;
/// }
/// # }
/// ```
pub trait OffsetStore: Send + Sync {
    /// What is stored of these partitions; those of which nothing is stored are left out.
    ///
    /// # Errors
    ///
    /// Whatever the store has to say. Nobody reads anything then.
    fn load<'a>(
        &'a self,
        group: &'a str,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<StoredOffsets, OffsetStoreError>>;

    /// Stores these, all or none, in the place of earlier ones of the same partitions. Others stay.
    ///
    /// # Errors
    ///
    /// Whatever the store has to say. It may be called again.
    fn save<'a>(
        &'a self,
        group: &'a str,
        offsets: &'a StoredOffsets,
    ) -> BoxFuture<'a, Result<(), OffsetStoreError>>;
}

impl<K: 'static, V: 'static> Consumer<K, V> {
    /// Assigns these partitions as [`Self::assign`] does, each from where `store` says for `group`; where it says nothing, or
    /// where the topic has been created anew since, as `auto.offset.reset` says. If the log was truncated below the stored
    /// offset, reading goes on where it differs, or stops, as `auto.offset.reset` says (KIP-320).
    ///
    /// Leave `group.id` out, or set `enable.auto.commit=false`: else the offsets are committed to Kafka as well.
    ///
    /// Returns when the store has answered and the topics are known, at most after `default.api.timeout.ms`.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::OffsetStore`] if the store cannot load; [`ConsumerError::Subscribed`];
    /// [`ConsumerError::NoLeader`] and [`ConsumerError::Refused`] if a topic is not to be found. Then nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn assign_stored<P: Into<TopicPartition>>(
        &self,
        store: &dyn OffsetStore,
        group: &str,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<(), ConsumerError> {
        if self.shared.is_closed() {
            return Err(ConsumerError::Closed);
        }
        let partitions: BTreeSet<TopicPartition> = partitions.into_iter().map(Into::into).collect();
        let partitions: Vec<_> = partitions.into_iter().collect();
        let stored = store
            .load(group, &partitions)
            .await
            .map_err(|cause| ConsumerError::OffsetStore { cause: Arc::from(cause) })?;
        let deadline = self.shared.now().saturating_add(self.shared.client.settings().api_timeout());
        know_topics(&self.shared, &partitions, deadline).await?;
        let cluster = self.shared.client.metadata();
        let id = |topic: &str| cluster.topics.get(topic).map_or(Uuid::nil(), |topic| topic.id);
        let start = |name: &TopicPartition, now: Uuid| {
            let StoredOffset { offset, leader_epoch, topic_id } = *stored.get(name)?;
            if !topic_id.is_nil() && !now.is_nil() && topic_id != now {
                tracing::warn!(partition = %name, offset, "the topic was created anew since this offset was stored");
                return None;
            }
            Some((offset, leader_epoch.unwrap_or(-1)))
        };
        let starts = partitions.iter().map(|name| {
            let topic_id = id(&name.topic);
            StartIn { partition: name.clone(), topic_id, place: start(name, topic_id) }
        });
        let starts = starts.collect();
        self.group.take_by_hand()?;
        self.shared.assign(Vec::new());
        self.group.begin_by_hand(Vec::new())?;
        self.shared.add(partitions);
        self.shared.begin_in(starts);
        Ok(())
    }

    /// Where to go on behind everything that was handed out of the assigned partitions, to be stored. Partitions of which the
    /// position is not known yet are left out.
    pub fn stored_offsets(&self) -> StoredOffsets {
        let stored = |(name, (offset, epoch), id): (TopicPartition, (i64, i32), Uuid)| {
            let topic_id = if id.is_nil() { self.shared.topic_now(&name) } else { id };
            (name, StoredOffset { offset, leader_epoch: Some(epoch).filter(|epoch| *epoch >= 0), topic_id })
        };
        self.group.places().into_iter().map(stored).collect()
    }

    /// Where to go on behind these records, to be stored with what was made of them. Of records of a topic and of one that was
    /// created again under its name, those of the later one count.
    pub fn stored_after<'a, T: 'a, U: 'a>(
        &self,
        records: impl IntoIterator<Item = &'a ConsumerRecord<T, U>>,
    ) -> StoredOffsets {
        let mut last: BTreeMap<TopicPartition, (u64, StoredOffset)> = BTreeMap::new();
        for record in records {
            let TopicOf { id: topic_id, generation } = self.shared.topic_of(record);
            let leader_epoch = Some(record.leader_epoch).filter(|epoch| *epoch >= 0);
            let at = StoredOffset { offset: record.offset + 1, leader_epoch, topic_id };
            let behind = |(before, known): &(u64, StoredOffset)| match known.topic_id == topic_id {
                true => known.offset < at.offset,
                false => *before < generation,
            };
            let name = record.topic_partition();
            if last.get(&name).is_none_or(behind) {
                last.insert(name, (generation, at));
            }
        }
        last.into_iter().map(|(name, (_, at))| (name, at)).collect()
    }
}
