//! Records: offsets, deletion, and who produces them. Each partition's leader is asked.

use crate::consumer::Isolation;
use klamm_core::TopicPartition;
use klamm_wire::codec;
use klamm_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use klamm_wire::messages::describe_producers_request::TopicRequest;
use klamm_wire::messages::describe_producers_response::ProducerState;
use klamm_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_wire::messages::{
    BrokerId, DeleteRecordsRequest, DescribeProducersRequest, ListOffsetsRequest, TopicName,
};

use super::Admin;
use super::call::{How, Repeat, by_topic, verdict};
use super::error::AdminError;
use super::results::{PartitionResults, Results};

/// Up to where records are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordsBefore {
    /// All with a lower offset than this.
    Offset(i64),
    /// All that are committed when the leader hears of it.
    HighWatermark,
}

impl From<i64> for RecordsBefore {
    fn from(offset: i64) -> Self {
        Self::Offset(offset)
    }
}

/// Which offset to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OffsetSpec {
    /// The first record's.
    Earliest,
    /// The next record's: the high watermark, or the last stable offset for those who read committed.
    Latest,
    /// That of the first record with this timestamp or a later one, in milliseconds since the Unix epoch.
    Timestamp(i64),
    /// That of the record with the highest timestamp (KIP-734; Apache Kafka 3.0).
    MaxTimestamp,
    /// The first one on the leader's own disk (KIP-405; Apache Kafka 3.4).
    EarliestLocal,
    /// The last one in tiered storage (KIP-1005; Apache Kafka 3.9).
    LatestTiered,
}

impl OffsetSpec {
    fn code(self) -> i64 {
        match self {
            Self::Timestamp(ms) => ms.max(0),
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::EarliestLocal => -4,
            Self::LatestTiered => -5,
        }
    }

    fn needs(self) -> Option<(i16, &'static str)> {
        match self {
            Self::MaxTimestamp => Some((7, "the offset of the highest timestamp")),
            Self::EarliestLocal => Some((8, "the first offset on the leader's own disk")),
            Self::LatestTiered => Some((9, "the last offset in tiered storage")),
            _ => None,
        }
    }
}

/// An offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedOffset {
    /// The offset; `None` if no record is as asked for.
    pub offset: Option<i64>,
    /// The record's timestamp, where a timestamp was asked for.
    pub timestamp: Option<i64>,
    /// Leader epoch of the record, if the broker tells.
    pub leader_epoch: Option<i32>,
}

/// A producer that has written to a partition lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerOnPartition {
    /// Producer id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i32,
    /// Sequence number of its last record; `None` if there was none.
    pub last_sequence: Option<i32>,
    /// When it last wrote, in milliseconds since the Unix epoch.
    pub last_timestamp: i64,
    /// Epoch of its transaction coordinator; `None` without transactions.
    pub coordinator_epoch: Option<i32>,
    /// Where its open transaction begins here; `None` if there is none.
    pub transaction_start: Option<i64>,
}

impl From<ProducerState> for ProducerOnPartition {
    fn from(told: ProducerState) -> Self {
        Self {
            id: told.producer_id.0,
            epoch: told.producer_epoch,
            last_sequence: Some(told.last_sequence).filter(|sequence| *sequence >= 0),
            last_timestamp: told.last_timestamp,
            coordinator_epoch: Some(told.coordinator_epoch).filter(|epoch| *epoch >= 0),
            transaction_start: Some(told.current_txn_start_offset).filter(|offset| *offset >= 0),
        }
    }
}

impl Admin {
    /// Deletes the records of partitions up to an offset, on all replicas. Gives each partition's low watermark: the
    /// lowest offset that any of its replicas begins at.
    ///
    /// A request whose answer is lost is sent again, but not if it says [`RecordsBefore::HighWatermark`] for one of its
    /// partitions: by then there are more records.
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// let kept_from = admin.delete_records([(("orders", 0), 1_000.into())]).await?.all()?;
    /// println!("{kept_from:?}"); // [1000]
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// DeleteRecords, api key 21, to the leaders.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if no leader answers in time. An offset that is not there (OFFSET_OUT_OF_RANGE), or a
    /// topic that may not be cut (POLICY_VIOLATION: its `cleanup.policy` is not `delete`), is an error in the results.
    pub async fn delete_records<P: Into<TopicPartition>>(
        &self,
        records: impl IntoIterator<Item = (P, RecordsBefore)>,
    ) -> Result<PartitionResults<i64>, AdminError> {
        let wanted: Vec<_> =
            records.into_iter().map(|(partition, before)| (partition.into(), before)).collect();
        let partitions: Vec<_> = wanted.iter().map(|(partition, _)| partition.clone()).collect();
        let moving = wanted.iter().any(|(_, before)| *before == RecordsBefore::HighWatermark);
        let how = How { repeat: if moving { Repeat::Harmful } else { Repeat::Harmless }, ..How::any() };
        let encode = |version, wanted: &[(TopicPartition, RecordsBefore)]| {
            let topics = by_topic(wanted.iter().cloned()).map(|(topic, partitions)| {
                let partitions = partitions.into_iter().map(|(partition, before)| {
                    let offset = match before {
                        RecordsBefore::Offset(offset) => offset.max(0),
                        RecordsBefore::HighWatermark => -1,
                    };
                    DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset)
                });
                DeleteRecordsTopic::default()
                    .with_name(TopicName(topic))
                    .with_partitions(partitions.collect())
            });
            let request = DeleteRecordsRequest::default()
                .with_topics(topics.collect())
                .with_timeout_ms(self.timeout_ms());
            codec::encode_request(version, &request)
        };
        let told = self
            .attempts()
            .ask_leaders::<DeleteRecordsRequest, _, _>(&how, wanted, encode, |response| {
                let told = response.topics.into_iter().flat_map(|topic| {
                    topic.partitions.into_iter().map(move |told| {
                        let partition = TopicPartition::new(topic.name.as_str(), told.partition_index);
                        (partition, verdict(told.error_code, None).map(|()| told.low_watermark))
                    })
                });
                told.collect()
            })
            .await?;
        Ok(Results::in_order(partitions, &told))
    }

    /// Lists offsets as a reader with `isolation.level` sees them.
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// use klamm::{Isolation, OffsetSpec};
    ///
    /// let asked = [(("orders", 0), OffsetSpec::Earliest), (("orders", 1), OffsetSpec::Timestamp(1_700_000_000_000))];
    /// for (partition, listed) in admin.list_offsets(asked, Isolation::ReadUncommitted).await? {
    ///     println!("{partition}: {:?}", listed?.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ListOffsets, api key 2, to the leaders.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if no leader answers in time. A partition that does not exist is an error in the results.
    pub async fn list_offsets<P: Into<TopicPartition>>(
        &self,
        offsets: impl IntoIterator<Item = (P, OffsetSpec)>,
        isolation: Isolation,
    ) -> Result<PartitionResults<ListedOffset>, AdminError> {
        let wanted: Vec<_> = offsets.into_iter().map(|(partition, spec)| (partition.into(), spec)).collect();
        let partitions: Vec<_> = wanted.iter().map(|(partition, _)| partition.clone()).collect();
        let committed = isolation == Isolation::ReadCommitted;
        let needs = wanted.iter().filter_map(|(_, spec)| spec.needs()).max();
        let needs = needs.or_else(|| committed.then_some((2, "reading committed records only")));
        let how = How { needs, ..How::any() };
        let encode = |version, wanted: &[(TopicPartition, OffsetSpec)]| {
            let topics = by_topic(wanted.iter().cloned()).map(|(topic, partitions)| {
                let partitions = partitions.into_iter().map(|(partition, spec)| {
                    ListOffsetsPartition::default()
                        .with_partition_index(partition)
                        .with_current_leader_epoch(-1)
                        .with_timestamp(spec.code())
                });
                ListOffsetsTopic::default().with_name(TopicName(topic)).with_partitions(partitions.collect())
            });
            let request = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_isolation_level(committed.into())
                .with_topics(topics.collect());
            let request = if version >= 10 { request.with_timeout_ms(self.timeout_ms()) } else { request };
            codec::encode_request(version, &request)
        };
        let told = self
            .attempts()
            .ask_leaders::<ListOffsetsRequest, _, _>(&how, wanted, encode, |response| {
                let told = response.topics.into_iter().flat_map(|topic| {
                    topic.partitions.into_iter().map(move |told| {
                        let partition = TopicPartition::new(topic.name.as_str(), told.partition_index);
                        let listed = ListedOffset {
                            offset: Some(told.offset).filter(|offset| *offset >= 0),
                            timestamp: Some(told.timestamp).filter(|timestamp| *timestamp >= 0),
                            leader_epoch: Some(told.leader_epoch).filter(|epoch| *epoch >= 0),
                        };
                        (partition, verdict(told.error_code, None).map(|()| listed))
                    })
                });
                told.collect()
            })
            .await?;
        Ok(Results::in_order(partitions, &told))
    }

    /// Describes the producers that partitions remember, in the order of their ids.
    ///
    /// DescribeProducers, api key 61 (KIP-664), to the leaders.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if no leader answers in time. A partition that does not exist is an error in the results.
    pub async fn describe_producers<P: Into<TopicPartition>>(
        &self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<PartitionResults<Vec<ProducerOnPartition>>, AdminError> {
        let partitions: Vec<TopicPartition> = partitions.into_iter().map(Into::into).collect();
        let wanted: Vec<_> = partitions.iter().map(|partition| (partition.clone(), ())).collect();
        let encode = |version, wanted: &[(TopicPartition, ())]| {
            let topics = by_topic(wanted.iter().cloned()).map(|(topic, partitions)| {
                let indexes = partitions.into_iter().map(|(partition, ())| partition).collect();
                TopicRequest::default().with_name(TopicName(topic)).with_partition_indexes(indexes)
            });
            let request = DescribeProducersRequest::default().with_topics(topics.collect());
            codec::encode_request(version, &request)
        };
        let told = self
            .attempts()
            .ask_leaders::<DescribeProducersRequest, _, _>(&How::any(), wanted, encode, |response| {
                let told = response.topics.into_iter().flat_map(|topic| {
                    topic.partitions.into_iter().map(move |told| {
                        let partition = TopicPartition::new(topic.name.as_str(), told.partition_index);
                        let verdict = verdict(told.error_code, told.error_message.as_ref());
                        let mut producers: Vec<_> =
                            told.active_producers.into_iter().map(ProducerOnPartition::from).collect();
                        producers.sort_by_key(|producer| producer.id);
                        (partition, verdict.map(|()| producers))
                    })
                });
                told.collect()
            })
            .await?;
        Ok(Results::in_order(partitions, &told))
    }
}
