//! From the bytes of a record to the application's types, and what becomes of records that do not fit them.

use std::any::{Any, TypeId, type_name};
use std::sync::Arc;

use bytes::Bytes;

use super::error::{ConsumerError, RecordPart};
use super::intercept::Chain;
use super::record::ConsumerRecord;
use super::shared::{Lane, Shared};
use crate::deserializer::{DeserializeError, Deserializer, Plain};

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

/// How a key or a value is read.
pub(super) enum Reads<T> {
    /// `T` is [`Bytes`], handed out as they came: neither a call nor a second owner for each record.
    AsTheyCame,
    By(Arc<dyn Deserializer<T>>),
}

impl<T: 'static> Reads<T> {
    pub(super) fn by<D: Deserializer<T>>(deserializer: D) -> Self {
        match TypeId::of::<(D, T)>() == TypeId::of::<(Plain, Bytes)>() {
            true => Self::AsTheyCame,
            false => Self::By(Arc::new(deserializer)),
        }
    }

    /// `None` if the bytes are to be handed out as they came.
    #[inline]
    fn read(&self, topic: &str, bytes: Option<&Bytes>) -> Option<Result<Option<T>, DeserializeError>> {
        match self {
            Self::AsTheyCame => None,
            Self::By(deserializer) => {
                Some(bytes.map(|bytes| deserializer.deserialize(topic, bytes.clone())).transpose())
            }
        }
    }
}

/// The same, where `T` and `U` are; else `None`.
#[inline]
fn same<T: 'static, U: 'static>(from: &mut Option<T>) -> Option<U> {
    let from: &mut dyn Any = from;
    from.downcast_mut::<Option<U>>().and_then(Option::take)
}

/// Makes records of the application's types.
pub(super) struct Decoder<K, V> {
    pub(super) key: Reads<K>,
    pub(super) value: Reads<V>,
    pub(super) poison: PoisonPolicy,
    pub(super) interceptors: Arc<Chain<K, V>>,
}

impl<K: 'static, V: 'static> Decoder<K, V> {
    /// Whether records are handed out as they came.
    #[inline]
    pub(super) fn passes(&self) -> bool {
        matches!((&self.key, &self.value), (Reads::AsTheyCame, Reads::AsTheyCame))
    }

    /// The record for the application, of a decoder that [passes](Self::passes) them.
    #[inline]
    pub(super) fn pass(&self, raw: &mut Option<ConsumerRecord>) -> Option<ConsumerRecord<K, V>> {
        let mut record = same(raw)?;
        self.interceptors.consumed(&mut record);
        Some(record)
    }

    /// The record for the application; `None` if it is left out.
    pub(super) fn decode(
        &self,
        shared: &Shared,
        lane: &Lane,
        raw: ConsumerRecord,
    ) -> Result<Option<ConsumerRecord<K, V>>, ConsumerError> {
        match self.deserialize(raw) {
            Ok(mut record) => {
                self.interceptors.consumed(&mut record);
                Ok(Some(record))
            }
            Err(poison) => self.refuse(shared, lane, *poison),
        }
    }

    #[cold]
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

    #[inline]
    fn deserialize(&self, mut raw: ConsumerRecord) -> Result<ConsumerRecord<K, V>, Box<Poison>> {
        let topic = &*raw.topic;
        let key = self.key.read(topic, raw.key.as_ref()).transpose();
        let value = self.value.read(topic, raw.value.as_ref()).transpose();
        match (key, value) {
            (Ok(key), Ok(value)) => Ok(ConsumerRecord {
                key: key.unwrap_or_else(|| same(&mut raw.key)),
                value: value.unwrap_or_else(|| same(&mut raw.value)),
                topic: raw.topic,
                partition: raw.partition,
                offset: raw.offset,
                timestamp_ms: raw.timestamp_ms,
                timestamp_type: raw.timestamp_type,
                leader_epoch: raw.leader_epoch,
                headers: raw.headers,
            }),
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
