//! What groups have committed: looked at, set, forgotten.

use klamm_core::TopicPartition;
use klamm_wire::codec;
use klamm_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_wire::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use klamm_wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use klamm_wire::messages::offset_fetch_response::{
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
};
use klamm_wire::messages::{
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use klamm_wire::{ErrorCode, StrBytes};

use super::coordinators::{Batch, may_move};
use super::group_id;
use crate::admin::Admin;
use crate::admin::call::{How, Verdict, by_topic, text, verdict};
use crate::admin::error::{AdminError, Refused};
use crate::admin::results::{GroupResults, PartitionResults, Results};

/// First version of OffsetFetch that is asked for several groups (KIP-709).
const SEVERAL_GROUPS: i16 = 8;

/// An offset that a group has committed, or shall have: of the next record to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupOffset {
    /// The offset.
    pub offset: i64,
    /// Leader epoch of the record before, if whoever committed told it (KIP-320).
    pub leader_epoch: Option<i32>,
    /// What whoever committed noted with it.
    pub metadata: String,
}

impl GroupOffset {
    /// Goes on at this offset.
    pub fn at(offset: i64) -> Self {
        Self { offset, leader_epoch: None, metadata: String::new() }
    }

    /// Notes something with it, at most `offset.metadata.max.bytes` of the broker (4096).
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<String>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// With the leader epoch of the record before.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: i32) -> Self {
        self.leader_epoch = Some(epoch);
        self
    }
}

impl From<i64> for GroupOffset {
    fn from(offset: i64) -> Self {
        Self::at(offset)
    }
}

/// Of which group which offsets are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetsOfGroup {
    group: String,
    partitions: Option<Vec<TopicPartition>>,
}

impl OffsetsOfGroup {
    /// All that the group has committed.
    pub fn all(group: impl Into<String>) -> Self {
        Self { group: group.into(), partitions: None }
    }

    /// Those of these partitions.
    pub fn of<P: Into<TopicPartition>>(
        group: impl Into<String>,
        partitions: impl IntoIterator<Item = P>,
    ) -> Self {
        Self { group: group.into(), partitions: Some(partitions.into_iter().map(Into::into).collect()) }
    }
}

impl<S: Into<String>> From<S> for OffsetsOfGroup {
    fn from(group: S) -> Self {
        Self::all(group)
    }
}

/// What one group has committed: one result per partition, `None` where it is nothing.
pub type GroupOffsets = PartitionResults<Option<GroupOffset>>;

impl Admin {
    /// Lists the offsets that groups have committed. A group that does not exist has committed nothing.
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// for (group, offsets) in admin.list_group_offsets(["billing", "audit"]).await? {
    ///     for (partition, committed) in offsets? {
    ///         println!("{group} goes on in {partition} at {:?}", committed?.map(|committed| committed.offset));
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// OffsetFetch, api key 9, to the coordinators; brokers before Apache Kafka 3.0 are asked group by group. If a group is
    /// named twice, its last mention counts.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if no coordinator answers in time.
    pub async fn list_group_offsets<G: Into<OffsetsOfGroup>>(
        &self,
        groups: impl IntoIterator<Item = G>,
    ) -> Result<GroupResults<GroupOffsets>, AdminError> {
        let groups: Vec<OffsetsOfGroup> = groups.into_iter().map(Into::into).collect();
        let names: Vec<String> = groups.iter().map(|wanted| wanted.group.clone()).collect();
        let wanted = groups.into_iter().map(|wanted| (wanted.group, wanted.partitions)).collect();
        let told = self
            .attempts()
            .ask_coordinators::<OffsetFetchRequest, _, _>(
                &How::any(),
                Batch::From(SEVERAL_GROUPS),
                wanted,
                |version, groups| codec::encode_request(version, &fetch(version, groups)),
                |_, asked, answer| read_fetched(asked, answer),
            )
            .await?;
        Ok(Results::in_order(names, &told))
    }

    /// Sets what a group has committed, so that its members go on there when they join. The group must not have members; one
    /// that does not exist comes into being.
    ///
    /// Offsets are taken as they are: whether there is a record, `auto.offset.reset` of the members decides later.
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// admin.alter_group_offsets("billing", [(("orders", 0), 1_000), (("orders", 1), 0)]).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// OffsetCommit, api key 8, to the coordinator, again after a lost answer.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError::GroupActive`] if the group has members, and other [`AdminError`]s if the coordinator does not
    /// answer in time. A partition that does not exist is an error in the results.
    pub async fn alter_group_offsets<P: Into<TopicPartition>, O: Into<GroupOffset>>(
        &self,
        group: impl Into<String>,
        offsets: impl IntoIterator<Item = (P, O)>,
    ) -> Result<PartitionResults<()>, AdminError> {
        let group = group.into();
        let offsets: Vec<(TopicPartition, GroupOffset)> =
            offsets.into_iter().map(|(partition, offset)| (partition.into(), offset.into())).collect();
        let partitions: Vec<_> = offsets.iter().map(|(partition, _)| partition.clone()).collect();
        let partition = |(partition, offset): (i32, GroupOffset)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(partition)
                .with_committed_offset(offset.offset)
                .with_committed_leader_epoch(offset.leader_epoch.unwrap_or(-1))
                .with_committed_metadata(Some(text(&offset.metadata)))
        };
        let topic = |(name, partitions): (StrBytes, Vec<_>)| {
            let partitions = partitions.into_iter().map(partition).collect();
            OffsetCommitRequestTopic::default().with_name(TopicName(name)).with_partitions(partitions)
        };
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(&group))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(by_topic(offsets).map(topic).collect());
        let told = self
            .attempts()
            .ask_coordinators::<OffsetCommitRequest, _, _>(
                &How::any(),
                Batch::Single,
                [(group.clone(), ())].into(),
                |version, _| codec::encode_request(version, &request),
                |_, asked, answer| {
                    let told = answer.topics.iter().flat_map(|topic| {
                        let partitions = topic.partitions.iter();
                        partitions.map(|told| (place(&topic.name, told.partition_index), told.error_code))
                    });
                    one_group(asked, of_partitions(told))
                },
            )
            .await?;
        match told.into_values().next() {
            Some(Ok(told)) => Ok(Results::in_order(partitions, &told)),
            Some(Err(refused)) if is_for_members(refused.code) => Err(self.active(&group, refused).await),
            Some(Err(refused)) => Err(refused.into()),
            None => Err(Refused::unnamed().into()),
        }
    }

    /// Forgets what a group has committed for partitions. Members may be there, as long as they do not read the topics.
    ///
    /// OffsetDelete, api key 47, to the coordinator, again after a lost answer.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if the coordinator does not answer in time, or refuses the whole: there is no such group
    /// (GROUP_ID_NOT_FOUND), or its members are not known to be consumers (NON_EMPTY_GROUP). A topic that is read
    /// (GROUP_SUBSCRIBED_TO_TOPIC) or does not exist is an error in the results.
    pub async fn delete_group_offsets<P: Into<TopicPartition>>(
        &self,
        group: impl Into<String>,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<PartitionResults<()>, AdminError> {
        let group = group.into();
        let partitions: Vec<TopicPartition> = partitions.into_iter().map(Into::into).collect();
        let topic = |(name, partitions): (StrBytes, Vec<(i32, ())>)| {
            let partitions = partitions.into_iter().map(|(partition, ())| {
                OffsetDeleteRequestPartition::default().with_partition_index(partition)
            });
            OffsetDeleteRequestTopic::default()
                .with_name(TopicName(name))
                .with_partitions(partitions.collect())
        };
        let named = partitions.iter().map(|partition| (partition.clone(), ()));
        let request = OffsetDeleteRequest::default()
            .with_group_id(group_id(&group))
            .with_topics(by_topic(named).map(topic).collect());
        let told = self
            .attempts()
            .ask_coordinators::<OffsetDeleteRequest, _, _>(
                &How::any(),
                Batch::Single,
                [(group, ())].into(),
                |version, _| codec::encode_request(version, &request),
                |_, asked, answer| {
                    let told = answer.topics.iter().flat_map(|topic| {
                        let partitions = topic.partitions.iter();
                        partitions.map(|told| (place(&topic.name, told.partition_index), told.error_code))
                    });
                    let whole = verdict(answer.error_code, None);
                    one_group(asked, whole.and_then(|()| of_partitions(told)))
                },
            )
            .await?;
        match told.into_values().next().unwrap_or_else(|| Err(Refused::unnamed())) {
            Ok(told) => Ok(Results::in_order(partitions, &told)),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Says whose offsets those are.
    async fn active(&self, group: &str, refused: Refused) -> AdminError {
        let described = self.describe_groups([group]).await.map(Results::all);
        match described {
            Ok(Ok(mut described)) if !described.is_empty() => described.swap_remove(0).into(),
            _ => refused.into(),
        }
    }
}

/// By which codes coordinators say that only members may commit.
fn is_for_members(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::ILLEGAL_GENERATION
            | ErrorCode::REBALANCE_IN_PROGRESS
            | ErrorCode::STALE_MEMBER_EPOCH
    )
}

fn place(topic: &TopicName, partition: i32) -> TopicPartition {
    TopicPartition::new(topic.as_str(), partition)
}

type PartitionVerdicts = std::collections::BTreeMap<TopicPartition, Verdict<()>>;

/// One verdict per partition, or the one that concerns the group.
fn of_partitions(told: impl Iterator<Item = (TopicPartition, i16)>) -> Verdict<PartitionVerdicts> {
    let mut verdicts = PartitionVerdicts::new();
    for (partition, code) in told {
        let told = ErrorCode(code);
        if may_move(told) || is_for_members(told) {
            return Err(Refused::new(told, None));
        }
        verdicts.insert(partition, verdict(code, None));
    }
    Ok(verdicts)
}

/// The verdict about the one group that was asked for.
fn one_group<T, V>(asked: &[(String, T)], told: Verdict<V>) -> Vec<(String, Verdict<V>)> {
    asked.first().map(|(group, _)| (group.clone(), told)).into_iter().collect()
}

fn fetch(version: i16, groups: &[(String, Option<Vec<TopicPartition>>)]) -> OffsetFetchRequest {
    let topics = |partitions: &Option<Vec<TopicPartition>>| {
        let partitions = partitions.as_ref()?.iter().map(|partition| (partition.clone(), ()));
        let indexes = |partitions: Vec<(i32, ())>| partitions.into_iter().map(|(index, ())| index).collect();
        Some(by_topic(partitions).map(move |(topic, named)| (TopicName(topic), indexes(named))).collect())
    };
    if version >= SEVERAL_GROUPS {
        let group = |(group, partitions): &(String, Option<Vec<TopicPartition>>)| {
            let topics: Option<Vec<(TopicName, Vec<i32>)>> = topics(partitions);
            let topics = topics.map(|topics| {
                let topic = |(name, indexes)| {
                    OffsetFetchRequestTopics::default().with_name(name).with_partition_indexes(indexes)
                };
                topics.into_iter().map(topic).collect()
            });
            OffsetFetchRequestGroup::default().with_group_id(group_id(group)).with_topics(topics)
        };
        return OffsetFetchRequest::default().with_groups(groups.iter().map(group).collect());
    }
    let Some((group, partitions)) = groups.first() else { return OffsetFetchRequest::default() };
    let topics: Option<Vec<(TopicName, Vec<i32>)>> = topics(partitions);
    let topics = topics.map(|topics| {
        let topic = |(name, indexes)| {
            OffsetFetchRequestTopic::default().with_name(name).with_partition_indexes(indexes)
        };
        topics.into_iter().map(topic).collect()
    });
    OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(topics)
}

fn read_fetched<T>(
    asked: &[(String, T)],
    mut answer: OffsetFetchResponse,
) -> Vec<(String, Verdict<GroupOffsets>)> {
    if answer.groups.is_empty() {
        let told = verdict(answer.error_code, None);
        let topics = std::mem::take(&mut answer.topics).into_iter();
        let offsets = topics.flat_map(|topic| {
            let told = topic.partitions.into_iter();
            told.map(move |told| (place(&topic.name, told.partition_index), Told::from(told).verdict()))
        });
        return one_group(asked, told.map(|()| Results::in_each(offsets)));
    }
    let group = |group: klamm_wire::messages::offset_fetch_response::OffsetFetchResponseGroup| {
        let offsets = group.topics.into_iter().flat_map(|topic| {
            let told = topic.partitions.into_iter();
            told.map(move |told| (place(&topic.name, told.partition_index), Told::from(told).verdict()))
        });
        let told = verdict(group.error_code, None).map(|()| {
            let mut offsets: Vec<_> = offsets.collect();
            offsets.sort_by(|a, b| a.0.cmp(&b.0));
            Results::in_each(offsets)
        });
        (group.group_id.as_str().to_owned(), told)
    };
    answer.groups.into_iter().map(group).collect()
}

/// One partition of an answer, of whichever version.
struct Told {
    offset: i64,
    leader_epoch: i32,
    metadata: Option<StrBytes>,
    code: i16,
}

impl Told {
    fn verdict(self) -> Verdict<Option<GroupOffset>> {
        verdict(self.code, None)?;
        Ok((self.offset >= 0).then(|| GroupOffset {
            offset: self.offset,
            leader_epoch: Some(self.leader_epoch).filter(|epoch| *epoch >= 0),
            metadata: self.metadata.map(|text| text.as_str().to_owned()).unwrap_or_default(),
        }))
    }
}

impl From<OffsetFetchResponsePartition> for Told {
    fn from(told: OffsetFetchResponsePartition) -> Self {
        Self {
            offset: told.committed_offset,
            leader_epoch: told.committed_leader_epoch,
            metadata: told.metadata,
            code: told.error_code,
        }
    }
}

impl From<OffsetFetchResponsePartitions> for Told {
    fn from(told: OffsetFetchResponsePartitions) -> Self {
        Self {
            offset: told.committed_offset,
            leader_epoch: told.committed_leader_epoch,
            metadata: told.metadata,
            code: told.error_code,
        }
    }
}
