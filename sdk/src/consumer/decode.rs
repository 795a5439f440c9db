//! From the bytes of a record to the application's types, and what becomes of records that do not fit them.

use std::any::type_name;
use std::sync::Arc;

use bytes::Bytes;
use klamm_core::TopicPartition;
use klamm_core::consumer::ChunkRecord;

use super::error::{ConsumerError, RecordPart};
use super::intercept::Chain;
use super::record::ConsumerRecord;
use super::shared::{Lane, Shared};
use crate::deserializer::{DeserializeError, Deserializer};

/// What to do with a poison record: one whose key or value its deserializer refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoisonPolicy {
    /// Its partition does not go on: the error is told again, at most every `retry.backoff.ms` and more and more slowly, until
    /// the application seeks behind the record. It is not committed. Other partitions go on.
    ///
    /// Where several tasks read from the same consumer and another one has a later record of the partition already, this does
    /// what [`Self::HandOver`] does.
    #[default]
    Fail,
    /// It is left out, with a warning in the log that names it. It counts as read.
    Skip,
    /// The error is told once, with the record as bytes ([`ConsumerError::poison`]), and the next call goes on behind it. It
    /// counts as handed out.
    HandOver,
}

/// Makes records of the application's types.
pub(super) struct Decoder<K, V> {
    pub(super) key: Arc<dyn Deserializer<K>>,
    pub(super) value: Arc<dyn Deserializer<V>>,
    pub(super) poison: PoisonPolicy,
    pub(super) interceptors: Arc<Chain<K, V>>,
}

impl<K: 'static, V: 'static> Decoder<K, V> {
    /// The record for the application; `None` if it is left out.
    pub(super) fn decode(
        &self,
        shared: &Shared,
        lane: &Lane,
        (partition, record): (TopicPartition, ChunkRecord),
    ) -> Result<Option<ConsumerRecord<K, V>>, ConsumerError> {
        let raw = ConsumerRecord::from_chunk(partition, record);
        match self.deserialize(raw) {
            Ok(mut record) => {
                self.interceptors.consumed(&mut record);
                Ok(Some(record))
            }
            Err(poison) => self.refuse(shared, lane, *poison),
        }
    }

    fn refuse(
        &self,
        shared: &Shared,
        lane: &Lane,
        poison: Poison,
    ) -> Result<Option<ConsumerRecord<K, V>>, ConsumerError> {
        let Poison { raw, part, type_name, cause } = poison;
        let held = match self.poison {
            PoisonPolicy::Skip => {
                let (topic, partition, offset) = (&*raw.topic, raw.partition, raw.offset);
                tracing::warn!(topic, partition, offset, %part, type_name, %cause, "a poison record is left out");
                return Ok(None);
            }
            PoisonPolicy::HandOver => false,
            PoisonPolicy::Fail => shared.hold_at(lane, &raw.topic_partition(), raw.offset),
        };
        Err(ConsumerError::Deserialize {
            topic: raw.topic.clone(),
            partition: raw.partition,
            offset: raw.offset,
            part,
            type_name,
            cause: Arc::from(cause),
            raw: Arc::new(raw),
            held,
        })
    }

    fn deserialize(&self, raw: ConsumerRecord) -> Result<ConsumerRecord<K, V>, Box<Poison>> {
        let topic = &*raw.topic;
        let key = raw.key.as_ref().map(|key| self.key.deserialize(topic, Bytes::clone(key))).transpose();
        let value = raw.value.as_ref().map(|value| self.value.deserialize(topic, value.clone())).transpose();
        match (key, value) {
            (Ok(key), Ok(value)) => {
                let ConsumerRecord { topic, partition, offset, timestamp_ms, timestamp_type, .. } = raw;
                let ConsumerRecord { leader_epoch, headers, .. } = raw;
                Ok(ConsumerRecord {
                    topic,
                    partition,
                    offset,
                    timestamp_ms,
                    timestamp_type,
                    leader_epoch,
                    headers,
                    key,
                    value,
                })
            }
            (Err(cause), _) => {
                Err(Box::new(Poison { raw, part: RecordPart::Key, type_name: type_name::<K>(), cause }))
            }
            (_, Err(cause)) => {
                Err(Box::new(Poison { raw, part: RecordPart::Value, type_name: type_name::<V>(), cause }))
            }
        }
    }
}

/// A record that does not fit.
struct Poison {
    raw: ConsumerRecord,
    part: RecordPart,
    type_name: &'static str,
    cause: DeserializeError,
}
