//! JoinGroup (11).
//!
//! A member without an id is given one first and has to come back with it (KIP-394), unless it has an instance id
//! (KIP-345): then it takes the place of its earlier life, which is fenced from then on.

use std::sync::Arc;

use klamm_wire::messages::join_group_response::JoinGroupResponseMember;
use klamm_wire::messages::{JoinGroupRequest, JoinGroupResponse};
use klamm_wire::{ErrorCode, StrBytes};

use super::settings::NEW_MEMBER_JOIN_TIMEOUT;
use super::state::{Group, Member, State, protocols};
use super::timers::Timer;
use super::{Cx, GroupCoordinator, GroupKey, Response, Then, Turn, said_of, sync, text};

/// First version in which a member has to come back with the id it was given.
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// First version in which a leader can be told that there is nothing to assign.
const SKIP_ASSIGNMENT_FROM: i16 = 9;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// As it calls itself.
    pub client_id: &'a str,
    /// Where it is, as Kafka writes addresses: `/127.0.0.1`.
    pub host: &'a str,
}

/// A static member whose new life is being written down.
#[derive(Debug)]
pub(super) struct Replaced {
    to: u64,
    version: i16,
    generation: i32,
    /// The life before, to go back to.
    old: Member,
    new: Arc<str>,
    /// As the old life knew it.
    leader: Option<Arc<str>>,
}

impl GroupCoordinator {
    /// JoinGroup, all versions; the rebalance time-out of version 0 is its session time-out.
    pub fn join(
        &mut self,
        turn: &mut Turn<'_>,
        to: u64,
        request: &JoinGroupRequest,
        version: i16,
        caller: Caller<'_>,
    ) {
        let refuse = |code| Response::Join(refused(&request.member_id, code));
        if request.group_id.is_empty() {
            return turn.answer(to, refuse(ErrorCode::INVALID_GROUP_ID));
        }
        if !self.settings.session_timeout_ms.contains(&request.session_timeout_ms) {
            return turn.answer(to, refuse(ErrorCode::INVALID_SESSION_TIMEOUT));
        }
        let is_new = !self.groups.contains_key(request.group_id.as_str());
        if is_new {
            if !request.member_id.is_empty() {
                return turn.answer(to, refuse(ErrorCode::UNKNOWN_MEMBER_ID));
            }
            let id: Arc<str> = Arc::from(request.group_id.as_str());
            let group = Group::new(id.clone(), self.next_incarnation(), turn.wall_ms);
            self.groups.insert(id, group);
        }
        let failed = self.with_group(&request.group_id, |cx, group| {
            let join = Join { to, request, version, caller };
            cx.join(turn, group, &join);
            // so that a coordinator to come knows of the group
            if !is_new {
                return None;
            }
            let record = group.empty_record();
            cx.write(turn, group, &[record], Vec::new(), Some(Then::Created(to))).err()
        });
        if let Some(code) = failed {
            self.creation_failed(turn, &request.group_id, code);
        }
    }

    /// The record of a new group could not be written: whoever waits is told, and the group is none.
    fn creation_failed(&mut self, turn: &mut Turn<'_>, id: &str, code: ErrorCode) {
        let Some(group) = self.groups.remove(id) else { return };
        for to in group.members.values().filter_map(|member| member.joining) {
            turn.answer(to, Response::Join(refused("", code)));
        }
        self.timers.cancel(&Timer::Join(group.id.clone()));
        for member in group.members.keys().chain(&group.promised) {
            self.timers.cancel(&Timer::Session(group.id.clone(), member.clone()));
        }
    }

    /// The record of a new group takes too long: whoever it came into being for is told, if it still waits.
    pub(super) fn creation_is_late(
        &mut self,
        turn: &mut Turn<'_>,
        key: &Option<GroupKey>,
        to: u64,
        code: ErrorCode,
    ) {
        let Some(key) = key else { return };
        self.with_group(&key.id, |_, group| {
            let waits = group.members.values().find(|member| member.joining == Some(to));
            if let Some(id) = waits.map(|member| member.id.clone()) {
                group.end_join(&id);
                turn.answer(to, Response::Join(refused("", code)));
            }
        });
    }

    /// The new life of a static member is written down, or cannot be.
    pub(super) fn replaced(
        &mut self,
        turn: &mut Turn<'_>,
        key: &Option<GroupKey>,
        replaced: &Replaced,
        written: Result<(), ErrorCode>,
    ) {
        let Some(key) = key else { return };
        self.with_group(&key.id, |cx, group| {
            if group.incarnation == key.incarnation {
                cx.replaced(turn, group, replaced, written);
            }
        });
    }
}

/// One request.
struct Join<'a> {
    to: u64,
    request: &'a JoinGroupRequest,
    version: i16,
    caller: Caller<'a>,
}

impl Cx<'_> {
    fn join(&mut self, turn: &mut Turn<'_>, group: &mut Group, join: &Join<'_>) {
        let request = join.request;
        let id = request.member_id.as_str();
        if !self.has_room(group, id) {
            group.remove(id);
            return turn.answer(join.to, Response::Join(refused("", ErrorCode::GROUP_MAX_SIZE_REACHED)));
        }
        if !group.takes(&request.protocol_type, &request.protocols) {
            let code = ErrorCode::INCONSISTENT_GROUP_PROTOCOL;
            return turn.answer(join.to, Response::Join(refused(id, code)));
        }
        if id.is_empty() {
            return self.join_first(turn, group, join);
        }
        let instance = request.group_instance_id.as_deref();
        if instance.is_none() && group.promised.contains(id) {
            return self.add_member(turn, group, join, Arc::from(id));
        }
        match group.check_member(id, instance) {
            Ok(()) => self.join_again(turn, group, join),
            Err(code) => {
                let answer = refused(id, code);
                turn.answer(join.to, Response::Join(answer));
            }
        }
    }

    fn has_room(&self, group: &Group, id: &str) -> bool {
        let max = self.settings.max_size;
        match group.state {
            State::Empty => true,
            State::PreparingRebalance => {
                group.members.get(id).is_some_and(|member| member.joining.is_some()) || group.joining() < max
            }
            State::CompletingRebalance | State::Stable => {
                group.members.contains_key(id) || group.members.len() < max
            }
        }
    }

    /// Somebody without an id.
    fn join_first(&mut self, turn: &mut Turn<'_>, group: &mut Group, join: &Join<'_>) {
        let instance = join.request.group_instance_id.as_deref();
        let id = self.new_id(instance.unwrap_or(join.caller.client_id));
        match instance.and_then(|instance| group.static_member(instance)).cloned() {
            Some(old) => self.replace_static(turn, group, join, &old, id),
            None if instance.is_some() || join.version < MEMBER_ID_REQUIRED_FROM => {
                self.add_member(turn, group, join, id);
            }
            None => {
                group.promised.insert(id.clone());
                let at = turn.after(join.request.session_timeout_ms);
                self.timers.set(Timer::Session(group.id.clone(), id.clone()), at);
                turn.answer(join.to, Response::Join(refused(&id, ErrorCode::MEMBER_ID_REQUIRED)));
            }
        }
    }

    fn new_id(&mut self, name: &str) -> Arc<str> {
        let mut bytes = [0; 16];
        self.rng.fill(&mut bytes);
        Arc::from(format!("{name}-{}", uuid::Builder::from_random_bytes(bytes).into_uuid()))
    }

    fn add_member(&mut self, turn: &mut Turn<'_>, group: &mut Group, join: &Join<'_>, id: Arc<str>) {
        let request = join.request;
        let member = Member {
            id: id.clone(),
            instance_id: request.group_instance_id.as_deref().map(Arc::from),
            client_id: Arc::from(join.caller.client_id),
            client_host: Arc::from(join.caller.host),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: protocols(&request.protocols),
            assignment: bytes::Bytes::new(),
            joining: Some(join.to),
            syncing: None,
            is_new: true,
        };
        if group.state == State::PreparingRebalance && group.previous == State::Empty {
            group.joined_meanwhile = true;
        }
        if group.members.is_empty() {
            group.protocol_type = Some(Arc::from(request.protocol_type.as_str()));
        }
        group.add(member);
        let at = turn.now.saturating_add(NEW_MEMBER_JOIN_TIMEOUT);
        self.timers.set(Timer::Session(group.id.clone(), id), at);
        self.prepare_rebalance_or_complete_join(turn, group);
    }

    /// A member that is known.
    fn join_again(&mut self, turn: &mut Turn<'_>, group: &mut Group, join: &Join<'_>) {
        let request = join.request;
        let id = request.member_id.as_str();
        let same = group.members.get(id).is_some_and(|member| member.offers(&request.protocols));
        let leads = group.is_leader(id);
        match group.state {
            // it has not heard of the generation, or has lost the answer
            State::CompletingRebalance if same => {
                turn.answer(join.to, Response::Join(accepted(group, id, leads)));
            }
            // a follower has no reason to join again, and takes up what it has; the leader may want to assign anew
            State::Stable if same && !leads => {
                turn.answer(join.to, Response::Join(accepted(group, id, false)));
            }
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                self.update_member(turn, group, join, id);
                self.prepare_rebalance_or_complete_join(turn, group);
            }
            State::Empty => {
                turn.answer(join.to, Response::Join(refused(id, ErrorCode::UNKNOWN_MEMBER_ID)));
            }
        }
    }

    fn update_member(&self, turn: &mut Turn<'_>, group: &mut Group, join: &Join<'_>, id: &str) {
        let request = join.request;
        let (rebalance, session) = (request.rebalance_timeout_ms, request.session_timeout_ms);
        let waited = group.update(id, protocols(&request.protocols), rebalance, session, Some(join.to));
        // Kafka never answers an earlier request; here the answers behind it would wait for ever
        if let Some(before) = waited {
            turn.answer(before, Response::Join(refused(id, ErrorCode::REBALANCE_IN_PROGRESS)));
        }
    }

    /// A static member is back without its id: its earlier life is fenced.
    fn replace_static(
        &mut self,
        turn: &mut Turn<'_>,
        group: &mut Group,
        join: &Join<'_>,
        old: &Arc<str>,
        new: Arc<str>,
    ) {
        let leader = group.leader.clone();
        let Some(old) = group.replace_static(old, new.clone()) else { return };
        self.fence(turn, group, &old);
        self.heard_of(turn, group, &new);
        self.update_member(turn, group, join, &new);
        match group.state {
            State::Stable if group.elect_protocol() == group.protocol => {
                let record = group.record(|member| member.assignment.clone());
                let (to, version, generation) = (join.to, join.version, group.generation);
                let then = Replaced { to, version, generation, old, new, leader };
                match turn.log.append(&[record]).map_err(said_of) {
                    Ok(end) => self.appended(turn, group, end, Vec::new(), Some(Then::Replaced(then))),
                    Err(code) => self.replaced(turn, group, &then, Err(code)),
                }
            }
            State::Stable => self.prepare_rebalance_or_complete_join(turn, group),
            // the leader may be assigning to the earlier life already
            State::CompletingRebalance => self.prepare_rebalance(turn, group),
            State::PreparingRebalance | State::Empty => self.complete_join_if_all_are_there(turn, group),
        }
    }

    fn fence(&mut self, turn: &mut Turn<'_>, group: &Group, old: &Member) {
        self.forget_session(group, &old.id);
        let code = ErrorCode::FENCED_INSTANCE_ID;
        if let Some(to) = old.joining {
            turn.answer(to, Response::Join(refused(&old.id, code)));
        }
        if let Some(to) = old.syncing {
            turn.answer(to, Response::Sync(sync::refused(code)));
        }
    }

    fn replaced(
        &mut self,
        turn: &mut Turn<'_>,
        group: &mut Group,
        replaced: &Replaced,
        written: Result<(), ErrorCode>,
    ) {
        let new = &replaced.new;
        let waits = group.members.get(new).is_some_and(|member| member.joining == Some(replaced.to));
        if !waits || group.state != State::Stable || group.generation != replaced.generation {
            // it is gone and was told so, or a rebalance that has begun meanwhile answers instead
            return;
        }
        let Err(code) = written else {
            group.end_join(new);
            let leads = group.is_leader(new);
            let mut answer = accepted(group, new, leads);
            if replaced.version >= SKIP_ASSIGNMENT_FROM {
                answer.skip_assignment = leads;
            } else {
                // it must not think that it has to assign
                answer.members.clear();
                answer.leader = text(replaced.leader.as_deref().unwrap_or_default());
            }
            return turn.answer(replaced.to, Response::Join(answer));
        };
        let old = &replaced.old;
        let answer = accepted(group, new, false)
            .with_member_id(StrBytes::default())
            .with_leader(text(replaced.leader.as_deref().unwrap_or_default()))
            .with_error_code(code.0);
        group.update(new, old.protocols.clone(), old.rebalance_timeout_ms, old.session_timeout_ms, None);
        group.replace_static(new, old.id.clone());
        self.forget_session(group, new);
        self.heard_of(turn, group, &old.id);
        turn.answer(replaced.to, Response::Join(answer));
    }
}

/// A refusal that names the member as it named itself.
pub(super) fn refused(member: &str, code: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(code.0)
        .with_member_id(text(member))
        .with_generation_id(-1)
        .with_protocol_name(None)
}

/// The generation as it is, for the leader with what all members have to say.
pub(super) fn accepted(group: &Group, member: &str, leads: bool) -> JoinGroupResponse {
    let protocol = group.protocol.as_deref();
    let tell = |member: &Member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(&member.id))
            .with_group_instance_id(member.instance_id.as_deref().map(text))
            .with_metadata(member.metadata(protocol.unwrap_or_default()))
    };
    let members = if leads { group.members.values().map(tell).collect() } else { Vec::new() };
    JoinGroupResponse::default()
        .with_generation_id(group.generation)
        .with_protocol_type(group.protocol_type.as_deref().map(text))
        .with_protocol_name(protocol.map(text))
        .with_leader(text(group.leader.as_deref().unwrap_or_default()))
        .with_member_id(text(member))
        .with_members(members)
}
