//! OffsetCommit (8), OffsetFetch (9), OffsetDelete (47).
//!
//! Who may commit: a member in its generation, or anybody without a generation (-1) as long as the group has no members.

use std::sync::Arc;

use klamm_wire::messages::offset_commit_request::OffsetCommitRequestPartition;
use klamm_wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use klamm_wire::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use klamm_wire::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use klamm_wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use klamm_wire::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, TopicName,
};
use klamm_wire::planted::{Bug, planted};
use klamm_wire::{ErrorCode, StrBytes};

use super::records::{CommittedOffset, GroupRecord};
use super::state::{Group, State};
use super::{Change, Cx, GroupCoordinator, Response, Then, Turn, Write, text};

/// First version that knows of groups that do not exist.
const GROUP_NOT_FOUND_FROM: i16 = 9;

/// A group's part of OffsetFetch.
pub(super) type Fetch = OffsetFetchRequestGroup;

impl GroupCoordinator {
    /// OffsetCommit of partitions that exist; answers are by name and id of the topic, as asked.
    pub fn commit(&mut self, turn: &mut Turn<'_>, to: u64, request: &OffsetCommitRequest, version: i16) {
        let id = request.group_id.as_str();
        if !self.groups.contains_key(id) {
            if request.generation_id_or_member_epoch >= 0 {
                let code = match version >= GROUP_NOT_FOUND_FROM {
                    true => ErrorCode::GROUP_ID_NOT_FOUND,
                    false => ErrorCode::ILLEGAL_GENERATION,
                };
                return turn.answer(to, Response::Failed(code));
            }
            let id: Arc<str> = Arc::from(id);
            let group = Group::new(id.clone(), self.next_incarnation(), turn.wall_ms);
            self.groups.insert(id, group);
        }
        let refused = self.with_group(id, |cx, group| cx.commit(turn, group, to, request).err());
        if let Some(code) = refused {
            turn.answer(to, Response::Failed(code));
        }
        self.drop_if_never_written(id);
    }

    fn drop_if_never_written(&mut self, id: &str) {
        let is_nothing = |group: &Group| {
            let nobody = group.members.is_empty() && group.promised.is_empty();
            !group.recorded && group.writes == 0 && nobody
        };
        if self.groups.get(id).is_some_and(is_nothing) {
            self.groups.remove(id);
        }
    }

    /// A group's part of OffsetFetch, with topics by name. With `stable`, commits on their way are waited for.
    pub fn fetch(&mut self, turn: &mut Turn<'_>, to: u64, fetch: OffsetFetchRequestGroup, stable: bool) {
        match self.writes.back() {
            Some(last) if stable => {
                let deadline = turn.now.saturating_add(self.settings.commit_timeout);
                let (end, then) = (last.end, Some(Then::Fetch(to, fetch)));
                self.writes.push_back(Write { end, deadline, group: None, changes: Vec::new(), then });
            }
            _ => turn.answer(to, Response::Fetch(self.look_up(&fetch))),
        }
    }

    pub(super) fn look_up(&self, fetch: &Fetch) -> OffsetFetchResponseGroup {
        let group = self.shown(&fetch.group_id);
        let topics = match &fetch.topics {
            Some(topics) => topics.iter().map(|topic| looked_up(group, topic)).collect(),
            None => group.map(all_of).unwrap_or_default(),
        };
        OffsetFetchResponseGroup::default().with_group_id(fetch.group_id.clone()).with_topics(topics)
    }

    /// OffsetDelete of partitions that exist.
    pub fn delete_offsets(&mut self, turn: &mut Turn<'_>, to: u64, request: &OffsetDeleteRequest) {
        let deleted = self.with_group(&request.group_id, |cx, group| {
            if group.state != State::Empty && !group.is_of_consumers() {
                return Some(Err(ErrorCode::NON_EMPTY_GROUP));
            }
            Some(cx.delete_offsets(turn, group, to, request))
        });
        if let Err(code) = deleted.unwrap_or(Err(ErrorCode::GROUP_ID_NOT_FOUND)) {
            turn.answer(to, Response::Failed(code));
        }
    }

    /// Topics are no more: what was committed for them is forgotten.
    pub fn topics_deleted(&mut self, turn: &mut Turn<'_>, names: &[Arc<str>]) {
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with_group(&id, |cx, group| {
                let known = names.iter().filter_map(|name| Some((name, group.offsets.get(name)?)));
                let each = known.flat_map(|(name, offsets)| {
                    offsets.keys().map(|partition| (name.clone(), *partition)).collect::<Vec<_>>()
                });
                let gone: Vec<_> = each.collect();
                cx.forget(turn, group, &gone);
            });
        }
    }
}

impl Cx<'_> {
    fn commit(
        &mut self,
        turn: &mut Turn<'_>,
        group: &mut Group,
        to: u64,
        request: &OffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        may_commit(group, request)?;
        if matches!(group.state, State::Stable | State::PreparingRebalance) {
            self.heard_of(turn, group, &request.member_id);
        }
        let expires =
            (request.retention_time_ms != -1).then(|| turn.wall_ms.saturating_add(request.retention_time_ms));
        let (mut records, mut changes, mut topics) = (Vec::new(), Vec::new(), Vec::new());
        for topic in &request.topics {
            let name: Arc<str> = Arc::from(topic.name.as_str());
            let mut answers = Vec::with_capacity(topic.partitions.len());
            for part in &topic.partitions {
                let answer =
                    OffsetCommitResponsePartition::default().with_partition_index(part.partition_index);
                if self.is_too_large(part) {
                    answers.push(answer.with_error_code(ErrorCode::OFFSET_METADATA_TOO_LARGE.0));
                    continue;
                }
                answers.push(answer);
                let value = CommittedOffset {
                    offset: part.committed_offset,
                    leader_epoch: part.committed_leader_epoch,
                    metadata: Arc::from(part.committed_metadata.as_deref().unwrap_or_default()),
                    commit_timestamp_ms: turn.wall_ms,
                    expire_timestamp_ms: expires,
                    topic_id: topic.topic_id,
                };
                let (partition, value) = (part.partition_index, Some(value));
                records.push(GroupRecord::Offset {
                    group: group.id.clone(),
                    topic: name.clone(),
                    partition,
                    value: value.clone(),
                });
                changes.push(Change::Offset { topic: name.clone(), partition, value });
            }
            let answer = OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_topic_id(topic.topic_id)
                .with_partitions(answers);
            topics.push(answer);
        }
        let answer = Response::Commit(OffsetCommitResponse::default().with_topics(topics));
        if records.is_empty() {
            turn.answer(to, answer);
            return Ok(());
        }
        if planted(Bug::CommitAnsweredEarly) {
            turn.answer(to, answer);
            return self.write(turn, group, &records, changes, None);
        }
        self.write(turn, group, &records, changes, Some(Then::Answer(to, answer)))
    }

    fn is_too_large(&self, part: &OffsetCommitRequestPartition) -> bool {
        let max = self.settings.offset_metadata_max;
        let units = |text: &StrBytes| text.encode_utf16().count();
        part.committed_metadata.as_ref().is_some_and(|text| text.len() > max && units(text) > max)
    }

    fn delete_offsets(
        &mut self,
        turn: &mut Turn<'_>,
        group: &mut Group,
        to: u64,
        request: &OffsetDeleteRequest,
    ) -> Result<(), ErrorCode> {
        let (mut gone, mut topics) = (Vec::new(), Vec::new());
        for topic in &request.topics {
            let name: Arc<str> = Arc::from(topic.name.as_str());
            let subscribed = group.is_subscribed_to(&name);
            let code = if subscribed { ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC } else { ErrorCode::NONE };
            let mut answers = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions.iter().map(|part| part.partition_index) {
                let answer = OffsetDeleteResponsePartition::default().with_partition_index(partition);
                answers.push(answer.with_error_code(code.0));
                if !subscribed && self.has_offset(group, &name, partition) {
                    gone.push((name.clone(), partition));
                }
            }
            let answer =
                OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(answers);
            topics.push(answer);
        }
        let answer = Response::DeleteOffsets(OffsetDeleteResponse::default().with_topics(topics));
        if gone.is_empty() {
            turn.answer(to, answer);
            return Ok(());
        }
        let (records, changes) = tombstones(group, &gone);
        self.write(turn, group, &records, changes, Some(Then::Answer(to, answer)))
    }

    /// Whether something is committed, or about to be.
    fn has_offset(&self, group: &Group, topic: &str, partition: i32) -> bool {
        let of_group =
            |write: &&Write| write.group.as_ref().is_some_and(|key| key.incarnation == group.incarnation);
        let names = |change: &Change| {
            matches!(change, Change::Offset { topic: name, partition: number, .. }
                if **name == *topic && *number == partition)
        };
        let on_its_way = || self.writes.iter().filter(of_group).flat_map(|write| &write.changes).any(names);
        group.offsets.get(topic).is_some_and(|known| known.contains_key(&partition)) || on_its_way()
    }

    /// Writes that these are forgotten; what cannot be written now is tried again when there is reason to.
    pub(super) fn forget(&mut self, turn: &mut Turn<'_>, group: &mut Group, gone: &[(Arc<str>, i32)]) {
        for part in gone.chunks(MOST_TOMBSTONES) {
            let (records, changes) = tombstones(group, part);
            let _ = self.write(turn, group, &records, changes, None);
        }
    }
}

/// Most tombstones in one batch: with names of the longest kind it stays below the limit of a batch.
const MOST_TOMBSTONES: usize = 1000;

fn tombstones(group: &Group, gone: &[(Arc<str>, i32)]) -> (Vec<GroupRecord>, Vec<Change>) {
    let record = |(topic, partition): &(Arc<str>, i32)| GroupRecord::Offset {
        group: group.id.clone(),
        topic: topic.clone(),
        partition: *partition,
        value: None,
    };
    let change = |(topic, partition): &(Arc<str>, i32)| Change::Offset {
        topic: topic.clone(),
        partition: *partition,
        value: None,
    };
    (gone.iter().map(record).collect(), gone.iter().map(change).collect())
}

fn may_commit(group: &Group, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
    let (member, instance) = (request.member_id.as_str(), request.group_instance_id.as_deref());
    let generation = request.generation_id_or_member_epoch;
    if generation < 0 && group.state == State::Empty {
        return Ok(());
    }
    if generation >= 0 || !member.is_empty() || instance.is_some() {
        group.check_member(member, instance)?;
        if generation != group.generation && !planted(Bug::TakeOldGeneration) {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
    } else {
        return Err(ErrorCode::UNKNOWN_MEMBER_ID);
    }
    match group.state {
        State::CompletingRebalance => Err(ErrorCode::REBALANCE_IN_PROGRESS),
        _ => Ok(()),
    }
}

fn found(partition: i32, value: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    let answer = OffsetFetchResponsePartitions::default().with_partition_index(partition);
    match value {
        Some(value) => answer
            .with_committed_offset(value.offset)
            .with_committed_leader_epoch(value.leader_epoch)
            .with_metadata(Some(text(&value.metadata))),
        None => answer
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(StrBytes::default())),
    }
}

fn looked_up(group: Option<&Group>, topic: &OffsetFetchRequestTopics) -> OffsetFetchResponseTopics {
    let known = group.and_then(|group| group.offsets.get(topic.name.as_str()));
    // committed for another topic that had this name
    let other = |value: &&CommittedOffset| {
        let (id, asked) = (value.topic_id, topic.topic_id);
        id.is_nil() || asked.is_nil() || id == asked
    };
    let partition = |number: &i32| found(*number, known.and_then(|known| known.get(number)).filter(other));
    OffsetFetchResponseTopics::default()
        .with_name(topic.name.clone())
        .with_topic_id(topic.topic_id)
        .with_partitions(topic.partition_indexes.iter().map(partition).collect())
}

fn all_of(group: &Group) -> Vec<OffsetFetchResponseTopics> {
    let topic = |(name, known): (&Arc<str>, &std::collections::BTreeMap<i32, CommittedOffset>)| {
        let partitions = known.iter().map(|(number, value)| found(*number, Some(value))).collect();
        OffsetFetchResponseTopics::default().with_name(TopicName(text(name))).with_partitions(partitions)
    };
    group.offsets.iter().map(topic).collect()
}
