//! A coordinator over a log in memory, with members that say what they are told to say.

mod membership;
mod offsets;
mod properties;
mod records;
mod statics;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_wire::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_wire::messages::leave_group_request::MemberIdentity;
use klamm_wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use klamm_wire::messages::*;
use klamm_wire::{ErrorCode, StrBytes};

use super::state::State;
use super::*;

pub(super) const GROUP: &str = "g";
pub(super) const S: Duration = Duration::from_secs(1);
pub(super) const SESSION: i32 = 10_000;
pub(super) const REBALANCE: i32 = 60_000;
const START_MS: i64 = 1_700_000_000_000;

/// What was written, and whether more can be.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) records: Vec<GroupRecord>,
    pub(super) refuses: Option<ErrorCode>,
}

impl GroupLog for Written {
    fn append(&mut self, records: &[GroupRecord]) -> Result<i64, ErrorCode> {
        if let Some(code) = self.refuses {
            return Err(code);
        }
        self.records.extend_from_slice(records);
        Ok(self.records.len() as i64)
    }
}

pub(super) struct World {
    pub(super) coordinator: GroupCoordinator,
    pub(super) log: Written,
    pub(super) now: Duration,
    pub(super) answers: BTreeMap<u64, Response>,
    /// Everything is replicated at once.
    pub(super) replicates: bool,
    /// How far the log is replicated.
    pub(super) replicated: usize,
    next: u64,
}

pub(super) fn settings() -> GroupSettings {
    GroupSettings { initial_rebalance_delay: Duration::from_secs(3), ..GroupSettings::default() }
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A consumer's subscription.
pub(super) fn subscribed(topics: &[&str]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(topics.len() as i32);
    for topic in topics {
        out.put_i16(topic.len() as i16);
        out.put_slice(topic.as_bytes());
    }
    out.put_i32(-1);
    out.freeze()
}

pub(super) fn join(member: &str, instance: Option<&str>, protocols: &[&str]) -> JoinGroupRequest {
    let protocol = |name: &&str| {
        JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(subscribed(&["orders"]))
    };
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_group_instance_id(instance.map(text))
        .with_session_timeout_ms(SESSION)
        .with_rebalance_timeout_ms(REBALANCE)
        .with_protocol_type(text("consumer"))
        .with_protocols(protocols.iter().map(protocol).collect())
}

impl World {
    pub(super) fn new(settings: GroupSettings) -> Self {
        let coordinator = GroupCoordinator::new(settings, fastrand::Rng::with_seed(7));
        let mut world = Self {
            coordinator,
            log: Written::default(),
            now: S,
            answers: BTreeMap::new(),
            replicates: true,
            replicated: 0,
            next: 0,
        };
        world.step(|coordinator, turn, _| coordinator.loaded(turn));
        world
    }

    /// The next coordinator: it knows what is in the log.
    pub(super) fn fail_over(&mut self) {
        let settings = self.coordinator.settings.clone();
        let seed = 1000 + self.next;
        let mut next = GroupCoordinator::new(settings, fastrand::Rng::with_seed(seed));
        for record in &self.log.records {
            let (key, value) = record.encode();
            next.replay(GroupRecord::decode(&key, value.as_deref()).unwrap().unwrap());
        }
        let before = std::mem::replace(&mut self.coordinator, next);
        let mut answers = Vec::new();
        before.unload(&mut answers);
        self.take(answers);
        self.step(|coordinator, turn, _| coordinator.loaded(turn));
    }

    fn take(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            let before = self.answers.insert(answer.to, answer.response);
            assert_eq!(before, None, "answered twice");
        }
    }

    /// Lets the coordinator do something; returns the token for the answer.
    pub(super) fn step(&mut self, work: impl FnOnce(&mut GroupCoordinator, &mut Turn<'_>, u64)) -> u64 {
        self.next += 1;
        let to = self.next;
        let mut answers = Vec::new();
        let wall_ms = START_MS + self.now.as_millis() as i64;
        let mut turn = Turn { now: self.now, wall_ms, log: &mut self.log, answers: &mut answers };
        work(&mut self.coordinator, &mut turn, to);
        self.take(answers);
        if self.replicates {
            self.replicate();
        }
        to
    }

    pub(super) fn replicate(&mut self) {
        let mut answers = Vec::new();
        let wall_ms = START_MS + self.now.as_millis() as i64;
        loop {
            let end = self.log.records.len() as i64;
            let mut turn = Turn { now: self.now, wall_ms, log: &mut self.log, answers: &mut answers };
            self.coordinator.replicated(&mut turn, end);
            if end == self.log.records.len() as i64 {
                self.replicated = self.log.records.len();
                break;
            }
        }
        self.take(answers);
    }

    /// As far as this offset, and no further.
    pub(super) fn replicate_to(&mut self, end: i64) {
        self.replicates = false;
        self.step(|coordinator, turn, _| coordinator.replicated(turn, end));
    }

    /// Lets time pass, doing what falls due on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.coordinator.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(|coordinator, turn, _| coordinator.on_deadline(turn));
        }
        self.now = end;
    }

    pub(super) fn join(&mut self, request: &JoinGroupRequest, version: i16) -> u64 {
        let caller = Caller { client_id: "client", host: "/127.0.0.1" };
        self.step(|coordinator, turn, to| coordinator.join(turn, to, request, version, caller))
    }

    pub(super) fn joined(&self, token: u64) -> JoinGroupResponse {
        match self.answers.get(&token) {
            Some(Response::Join(answer)) => answer.clone(),
            other => panic!("not an answer to JoinGroup: {other:?}"),
        }
    }

    /// Asks for an id.
    pub(super) fn first_join(&mut self, protocols: &[&str]) -> String {
        let token = self.join(&join("", None, protocols), 9);
        let answer = self.joined(token);
        assert_eq!(ErrorCode(answer.error_code), ErrorCode::MEMBER_ID_REQUIRED);
        answer.member_id.to_string()
    }

    /// A member that has come back with the id it was given.
    pub(super) fn member(&mut self, protocols: &[&str]) -> (String, u64) {
        let id = self.first_join(protocols);
        let token = self.join(&join(&id, None, protocols), 9);
        (id, token)
    }

    pub(super) fn sync(&mut self, member: &str, generation: i32, parts: &[(&str, &'static str)]) -> u64 {
        let part = |(member, assignment): &(&str, &'static str)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(member))
                .with_assignment(Bytes::from_static(assignment.as_bytes()))
        };
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_member_id(text(member))
            .with_generation_id(generation)
            .with_assignments(parts.iter().map(part).collect());
        self.step(|coordinator, turn, to| coordinator.sync(turn, to, &request))
    }

    pub(super) fn synced(&self, token: u64) -> SyncGroupResponse {
        match self.answers.get(&token) {
            Some(Response::Sync(answer)) => answer.clone(),
            other => panic!("not an answer to SyncGroup: {other:?}"),
        }
    }

    pub(super) fn assignment(&self, token: u64) -> Result<String, ErrorCode> {
        let answer = self.synced(token);
        let text = String::from_utf8(answer.assignment.to_vec()).unwrap();
        if answer.error_code == 0 { Ok(text) } else { Err(ErrorCode(answer.error_code)) }
    }

    pub(super) fn heartbeat(&mut self, member: &str, generation: i32) -> ErrorCode {
        self.heartbeat_as(member, None, generation)
    }

    pub(super) fn heartbeat_as(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> ErrorCode {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_member_id(text(member))
            .with_group_instance_id(instance.map(text))
            .with_generation_id(generation);
        let token = self.step(|coordinator, turn, to| coordinator.heartbeat(turn, to, &request));
        match self.answers[&token] {
            Response::Heartbeat(code) => code,
            ref other => panic!("not an answer to Heartbeat: {other:?}"),
        }
    }

    pub(super) fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<ErrorCode> {
        let member = |(id, instance): &(&str, Option<&str>)| {
            MemberIdentity::default().with_member_id(text(id)).with_group_instance_id(instance.map(text))
        };
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_members(members.iter().map(member).collect());
        let token = self.step(|coordinator, turn, to| coordinator.leave(turn, to, &request));
        match &self.answers[&token] {
            Response::Leave(answer) => answer.members.iter().map(|m| ErrorCode(m.error_code)).collect(),
            other => panic!("not an answer to LeaveGroup: {other:?}"),
        }
    }

    pub(super) fn commit_request(member: &str, generation: i32, offset: i64) -> OffsetCommitRequest {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(3)
            .with_committed_metadata(Some(text("note")));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text("orders")))
            .with_partitions(vec![partition]);
        OffsetCommitRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_member_id(text(member))
            .with_generation_id_or_member_epoch(generation)
            .with_retention_time_ms(-1)
            .with_topics(vec![topic])
    }

    pub(super) fn commit(&mut self, member: &str, generation: i32, offset: i64) -> u64 {
        let request = Self::commit_request(member, generation, offset);
        self.step(|coordinator, turn, to| coordinator.commit(turn, to, &request, 9))
    }

    pub(super) fn committed(&self, token: u64) -> ErrorCode {
        match &self.answers[&token] {
            Response::Commit(answer) => ErrorCode(answer.topics[0].partitions[0].error_code),
            Response::Failed(code) => *code,
            other => panic!("not an answer to OffsetCommit: {other:?}"),
        }
    }

    /// What is committed for the one partition, -1 for nothing.
    pub(super) fn offset(&mut self) -> i64 {
        let fetch = offset_fetch_request::OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_topics(None);
        let token = self.step(|coordinator, turn, to| coordinator.fetch(turn, to, fetch, false));
        match &self.answers[&token] {
            Response::Fetch(answer) => {
                answer.topics.first().map_or(-1, |topic| topic.partitions[0].committed_offset)
            }
            other => panic!("not an answer to OffsetFetch: {other:?}"),
        }
    }

    pub(super) fn state(&self) -> Option<State> {
        self.coordinator.groups.get(GROUP).map(|group| group.state)
    }

    pub(super) fn shown_state(&self) -> String {
        self.coordinator.describe(&GroupId(text(GROUP)), 5).group_state.to_string()
    }

    /// Two members in generation 1, which are assigned `a` and `b`; the leader first.
    pub(super) fn stable_pair(&mut self) -> (String, String) {
        let (one, first) = self.member(&["range"]);
        let (two, second) = self.member(&["range"]);
        self.pass(10 * S);
        let (first, second) = (self.joined(first), self.joined(second));
        assert_eq!((first.generation_id, second.generation_id), (1, 1));
        assert_eq!((&*first.leader, &*second.leader), (&*one, &*one));
        let waits = self.sync(&two, 1, &[]);
        let leader = self.sync(&one, 1, &[(&one, "a"), (&two, "b")]);
        assert_eq!(self.assignment(leader), Ok("a".to_owned()));
        assert_eq!(self.assignment(waits), Ok("b".to_owned()));
        (one, two)
    }
}
