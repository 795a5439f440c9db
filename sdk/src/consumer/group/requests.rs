//! Requests to the group coordinator. Each goes out once; when to ask again is decided by the membership.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_core::TopicPartition;
use klamm_core::assign::read_assignment;
use klamm_core::group::{CommittedOffset, Event, JoinAnswer, Joined, JoinedMember, Offsets, Reason, Refusal};
use klamm_wire::codec;
use klamm_wire::messages::find_coordinator_response::Coordinator;
use klamm_wire::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_wire::messages::leave_group_request::MemberIdentity;
use klamm_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use klamm_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use klamm_wire::messages::{
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest,
    TopicName,
};
use klamm_wire::{ErrorCode, StrBytes};

use super::GroupConfig;
use crate::client::{Client, Lane, Target};
use crate::error::RequestError;

const PROTOCOL_TYPE: &str = "consumer";
/// State of a group whose members have their assignments.
const STABLE: &str = "Stable";

/// Asks on behalf of one member.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) client: Client,
    pub(super) config: Arc<GroupConfig>,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn no_answer(error: &RequestError) -> Refusal {
    tracing::debug!(%error, "the group coordinator did not answer");
    Refusal::NoAnswer
}

fn check(code: i16) -> Result<(), Refusal> {
    match ErrorCode(code) {
        code if code.is_ok() => Ok(()),
        code => Err(Refusal::Code(code)),
    }
}

impl Asker {
    fn group(&self) -> GroupId {
        GroupId(text(&self.config.group_id))
    }

    fn instance(&self) -> Option<StrBytes> {
        self.config.instance_id.as_deref().map(text)
    }

    pub(super) async fn find(self) -> Event {
        Event::Coordinator(self.coordinator().await)
    }

    async fn coordinator(&self) -> Result<i32, Refusal> {
        let key = text(&self.config.group_id);
        let encode = |version| {
            let request = match version {
                4.. => FindCoordinatorRequest::default().with_coordinator_keys(vec![key.clone()]),
                _ => FindCoordinatorRequest::default().with_key(key.clone()),
            };
            codec::encode_request(version, &request)
        };
        let limit = self.client.settings().request_timeout;
        let asked =
            self.client.call_encoded::<FindCoordinatorRequest>(Target::Any, Lane::Main, &encode, limit);
        let mut response = asked.await.map_err(|error| no_answer(&error))?;
        let Coordinator { error_code, node_id, .. } = match response.coordinators.pop() {
            Some(found) => found,
            None => {
                Coordinator::default().with_error_code(response.error_code).with_node_id(response.node_id)
            }
        };
        check(error_code)?;
        self.until_known(node_id.0).await;
        Ok(node_id.0)
    }

    /// A new client asks for its coordinator and for the cluster at the same time. Who is not known after `retry.backoff.ms` is
    /// looked for again, as somebody who does not answer.
    async fn until_known(&self, broker: i32) {
        let client = &self.client;
        let is_known = || client.metadata().brokers.contains_key(&broker);
        if is_known() {
            return;
        }
        client.request_refresh("the coordinator is a broker that is not known yet");
        let limit = client.rt().now().saturating_add(client.settings().retry_backoff);
        loop {
            let changed = client.changed();
            if is_known() || client.rt().before(limit, changed).await.is_none() {
                return;
            }
        }
    }

    pub(super) async fn join(
        self,
        ticket: u64,
        coordinator: i32,
        member_id: Arc<str>,
        protocols: Vec<(String, Bytes)>,
        limit: Duration,
    ) -> Event {
        let protocol = |(name, metadata): (String, Bytes)| {
            JoinGroupRequestProtocol::default().with_name(text(&name)).with_metadata(metadata)
        };
        let request = JoinGroupRequest::default()
            .with_group_id(self.group())
            .with_session_timeout_ms(millis(self.config.session))
            .with_rebalance_timeout_ms(millis(self.config.max_poll))
            .with_member_id(text(&member_id))
            .with_group_instance_id(self.instance())
            .with_protocol_type(text(PROTOCOL_TYPE))
            .with_protocols(protocols.into_iter().map(protocol).collect());
        let to = Target::Broker(coordinator);
        let response =
            match self.client.call_within::<JoinGroupRequest>(to, Lane::Group, &request, limit).await {
                Ok(response) => response,
                Err(error) => return Event::Join(ticket, JoinAnswer::Refused(no_answer(&error))),
            };
        let answer = match ErrorCode(response.error_code) {
            ErrorCode::MEMBER_ID_REQUIRED => JoinAnswer::MemberIdRequired(response.member_id.as_str().into()),
            code if !code.is_ok() => JoinAnswer::Refused(Refusal::Code(code)),
            _ => {
                let leads = response.leader == response.member_id;
                let member = |told: &klamm_wire::messages::join_group_response::JoinGroupResponseMember| {
                    JoinedMember {
                        id: told.member_id.as_str().into(),
                        instance: told.group_instance_id.as_ref().map(|id| id.as_str().into()),
                        metadata: told.metadata.clone(),
                    }
                };
                JoinAnswer::Joined(Joined {
                    generation: response.generation_id,
                    assignor: response.protocol_name.as_ref().map_or("", |name| name.as_str()).into(),
                    member_id: response.member_id.as_str().into(),
                    stands: response.skip_assignment,
                    members: leads.then(|| response.members.iter().map(member).collect()),
                })
            }
        };
        Event::Join(ticket, answer)
    }

    /// How many partitions of each topic the members of a stable group have together; `None` if that is not to be learnt.
    pub(super) async fn assigned(self, coordinator: i32) -> Option<BTreeMap<Arc<str>, usize>> {
        let request = DescribeGroupsRequest::default().with_groups(vec![self.group()]);
        let limit = self.client.settings().request_timeout;
        let to = Target::Broker(coordinator);
        let response =
            self.client.call_within::<DescribeGroupsRequest>(to, Lane::Main, &request, limit).await.ok()?;
        let group = response.groups.into_iter().next().filter(|group| ErrorCode(group.error_code).is_ok())?;
        if group.group_state.as_str() != STABLE {
            return None;
        }
        let mut partitions = BTreeSet::new();
        for member in group.members {
            partitions.extend(read_assignment(member.member_assignment).ok()?.partitions);
        }
        let mut counts = BTreeMap::new();
        for partition in partitions {
            *counts.entry(partition.topic).or_default() += 1;
        }
        Some(counts)
    }

    pub(super) async fn sync(
        self,
        ticket: u64,
        coordinator: i32,
        member_id: Arc<str>,
        generation: i32,
        assignor: Arc<str>,
        assignments: Vec<(Arc<str>, Bytes)>,
    ) -> Event {
        let assignment = |(id, bytes): (Arc<str>, Bytes)| {
            SyncGroupRequestAssignment::default().with_member_id(text(&id)).with_assignment(bytes)
        };
        let assignments: Vec<_> = assignments.into_iter().map(assignment).collect();
        let encode = |version| {
            let mut request = SyncGroupRequest::default()
                .with_group_id(self.group())
                .with_generation_id(generation)
                .with_member_id(text(&member_id))
                .with_group_instance_id(self.instance())
                .with_assignments(assignments.clone());
            if version >= 5 {
                request.protocol_type = Some(text(PROTOCOL_TYPE));
                request.protocol_name = Some(text(&assignor));
            }
            codec::encode_request(version, &request)
        };
        let (to, limit) = (Target::Broker(coordinator), self.client.settings().request_timeout);
        let answer = match self.client.call_encoded::<SyncGroupRequest>(to, Lane::Group, &encode, limit).await
        {
            Ok(response) => check(response.error_code)
                .map(|()| read_assignment(response.assignment).map_err(|error| error.to_string())),
            Err(error) => Err(no_answer(&error)),
        };
        Event::Sync(ticket, answer)
    }

    pub(super) async fn heartbeat(
        self,
        ticket: u64,
        coordinator: i32,
        member_id: Arc<str>,
        generation: i32,
    ) -> Event {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group())
            .with_generation_id(generation)
            .with_member_id(text(&member_id))
            .with_group_instance_id(self.instance());
        let to = Target::Broker(coordinator);
        let limit = self.client.settings().request_timeout.min(self.config.session);
        let asked = self.client.call_within::<HeartbeatRequest>(to, Lane::Heartbeat, &request, limit);
        let answer = match asked.await {
            Ok(response) => check(response.error_code),
            Err(error) => Err(no_answer(&error)),
        };
        Event::Heartbeat(ticket, answer)
    }

    pub(super) async fn leave(
        self,
        ticket: u64,
        coordinator: i32,
        member_id: Arc<str>,
        reason: Reason,
    ) -> Event {
        let encode = |version| {
            let mut member = MemberIdentity::default().with_member_id(text(&member_id));
            if version >= 5 {
                member.reason = Some(text(&reason.to_string()));
            }
            let request = LeaveGroupRequest::default().with_group_id(self.group()).with_members(vec![member]);
            codec::encode_request(version, &request)
        };
        let limit = self.client.settings().request_timeout;
        let to = Target::Broker(coordinator);
        // A JoinGroup that waits must not hold it up.
        let asked = self.client.call_encoded::<LeaveGroupRequest>(to, Lane::Main, &encode, limit);
        let answer = match asked.await {
            Ok(response) => check(response.error_code)
                .and_then(|()| response.members.iter().try_for_each(|member| check(member.error_code))),
            Err(error) => Err(no_answer(&error)),
        };
        Event::Left(ticket, answer)
    }

    pub(super) async fn commit(
        self,
        id: u64,
        coordinator: i32,
        member_id: Arc<str>,
        generation: i32,
        offsets: Offsets,
    ) -> Event {
        let mut topics = BTreeMap::<Arc<str>, Vec<OffsetCommitRequestPartition>>::new();
        for (TopicPartition { topic, partition }, at) in offsets {
            let committed = OffsetCommitRequestPartition::default()
                .with_partition_index(partition)
                .with_committed_offset(at.offset)
                .with_committed_leader_epoch(at.leader_epoch.unwrap_or(-1))
                .with_committed_metadata(Some(StrBytes::from_string(at.metadata)));
            topics.entry(topic).or_default().push(committed);
        }
        let topic = |(name, partitions): (Arc<str>, Vec<_>)| {
            OffsetCommitRequestTopic::default().with_name(TopicName(text(&name))).with_partitions(partitions)
        };
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group())
            .with_generation_id_or_member_epoch(generation)
            .with_member_id(text(&member_id))
            .with_group_instance_id(self.instance().filter(|_| generation >= 0))
            .with_topics(topics.into_iter().map(topic).collect());
        let to = Target::Broker(coordinator);
        let answer = match self.client.call::<OffsetCommitRequest>(to, Lane::Main, &request).await {
            Ok(response) => {
                let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
                partitions.try_for_each(|partition| check(partition.error_code))
            }
            Err(error) => Err(no_answer(&error)),
        };
        Event::Committed(id, answer)
    }

    /// Committed offsets of partitions.
    pub(super) async fn offsets(
        &self,
        coordinator: i32,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Option<CommittedOffset>>, Refusal> {
        let mut topics = BTreeMap::<&str, Vec<i32>>::new();
        for name in partitions {
            topics.entry(&name.topic).or_default().push(name.partition);
        }
        let encode = |version| {
            let mut request = OffsetFetchRequest::default();
            if version >= 7 {
                request.require_stable = true;
            }
            if version >= 8 {
                let topic = |(name, indexes): (&&str, &Vec<i32>)| {
                    OffsetFetchRequestTopics::default()
                        .with_name(TopicName(text(name)))
                        .with_partition_indexes(indexes.clone())
                };
                let group = OffsetFetchRequestGroup::default()
                    .with_group_id(self.group())
                    .with_topics(Some(topics.iter().map(topic).collect()));
                request.groups = vec![group];
            } else {
                let topic = |(name, indexes): (&&str, &Vec<i32>)| {
                    OffsetFetchRequestTopic::default()
                        .with_name(TopicName(text(name)))
                        .with_partition_indexes(indexes.clone())
                };
                request.group_id = self.group();
                request.topics = Some(topics.iter().map(topic).collect());
            }
            codec::encode_request(version, &request)
        };
        let (to, limit) = (Target::Broker(coordinator), self.client.settings().request_timeout);
        let asked = self.client.call_encoded::<OffsetFetchRequest>(to, Lane::Main, &encode, limit);
        told(asked.await.map_err(|error| no_answer(&error))?)
    }
}

/// The answer's offsets, whichever version it has.
fn told(
    mut response: OffsetFetchResponse,
) -> Result<BTreeMap<TopicPartition, Option<CommittedOffset>>, Refusal> {
    check(response.error_code)?;
    let mut found = BTreeMap::new();
    let mut add = |topic: &TopicName, partition: i32, at: CommittedOffset, code: i16| {
        check(code)?;
        let name = TopicPartition::new(topic.0.as_str(), partition);
        found.insert(name, Some(at).filter(|at| at.offset >= 0));
        Ok(())
    };
    match response.groups.pop() {
        Some(group) => {
            check(group.error_code)?;
            for topic in &group.topics {
                for told in &topic.partitions {
                    let at =
                        CommittedOffset::new(told.committed_offset).leader_epoch(told.committed_leader_epoch);
                    let metadata = told.metadata.as_ref().map_or("", |metadata| metadata.as_str());
                    add(&topic.name, told.partition_index, at.metadata(metadata), told.error_code)?;
                }
            }
        }
        None => {
            for topic in &response.topics {
                for told in &topic.partitions {
                    let at =
                        CommittedOffset::new(told.committed_offset).leader_epoch(told.committed_leader_epoch);
                    let metadata = told.metadata.as_ref().map_or("", |metadata| metadata.as_str());
                    add(&topic.name, told.partition_index, at.metadata(metadata), told.error_code)?;
                }
            }
        }
    }
    Ok(found)
}
