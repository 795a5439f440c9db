//! SyncGroup (14): the leader hands in the assignment, everybody gets its part when it is replicated.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use klamm_wire::ErrorCode;
use klamm_wire::messages::{SyncGroupRequest, SyncGroupResponse};
use klamm_wire::planted::{Bug, planted};

use super::rebalance::Assigned;
use super::state::{Group, State};
use super::timers::Timer;
use super::{Cx, GroupCoordinator, Response, Then, Turn, text};

impl GroupCoordinator {
    /// SyncGroup, all versions.
    pub fn sync(&mut self, turn: &mut Turn<'_>, to: u64, request: &SyncGroupRequest) {
        let refuse = |code| Response::Sync(refused(code));
        if request.group_id.is_empty() {
            return turn.answer(to, refuse(ErrorCode::INVALID_GROUP_ID));
        }
        let known = self.with_group(&request.group_id, |cx, group| {
            if group.state == State::Empty {
                return false;
            }
            match check(group, request) {
                Ok(()) => cx.sync(turn, group, to, request),
                Err(code) => turn.answer(to, refuse(code)),
            }
            true
        });
        if !known {
            turn.answer(to, refuse(ErrorCode::UNKNOWN_MEMBER_ID));
        }
    }
}

fn check(group: &Group, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
    group.check_member(&request.member_id, request.group_instance_id.as_deref())?;
    if request.generation_id != group.generation {
        return Err(ErrorCode::ILLEGAL_GENERATION);
    }
    let differs = |asked: Option<&str>, known: Option<&str>| {
        asked.zip(known).is_some_and(|(asked, known)| asked != known)
    };
    let of_type = differs(request.protocol_type.as_deref(), group.protocol_type.as_deref());
    let of_name = differs(request.protocol_name.as_deref(), group.protocol.as_deref());
    if of_type || of_name { Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL) } else { Ok(()) }
}

impl Cx<'_> {
    fn sync(&mut self, turn: &mut Turn<'_>, group: &mut Group, to: u64, request: &SyncGroupRequest) {
        let id = request.member_id.as_str();
        match group.state {
            State::CompletingRebalance => {
                self.has_synced(group, id);
                let before = group.members.get_mut(id).and_then(|member| member.syncing.replace(to));
                // Kafka never answers an earlier request; here the answers behind it would wait for ever
                if let Some(before) = before {
                    turn.answer(before, Response::Sync(refused(ErrorCode::REBALANCE_IN_PROGRESS)));
                }
                if group.is_leader(id) {
                    self.take_assignment(turn, group, request);
                }
            }
            State::Stable => {
                self.has_synced(group, id);
                turn.answer(to, Response::Sync(accepted(group, id)));
            }
            State::PreparingRebalance | State::Empty => {
                turn.answer(to, Response::Sync(refused(ErrorCode::REBALANCE_IN_PROGRESS)));
            }
        }
    }

    fn has_synced(&mut self, group: &mut Group, id: &str) {
        group.unsynced.remove(id);
        if group.unsynced.is_empty() {
            self.timers.cancel(&Timer::Sync(group.id.clone()));
        }
    }

    fn take_assignment(&mut self, turn: &mut Turn<'_>, group: &mut Group, request: &SyncGroupRequest) {
        let assignment: BTreeMap<Arc<str>, Bytes> = request
            .assignments
            .iter()
            .map(|part| (Arc::from(part.member_id.as_str()), Bytes::copy_from_slice(&part.assignment)))
            .filter(|(member, _)| group.members.contains_key(member))
            .collect();
        let record = group.record(|member| assignment.get(&member.id).cloned().unwrap_or_default());
        let generation = group.generation;
        if planted(Bug::AssignedEarly) {
            let _ = self.write(turn, group, &[record], Vec::new(), None);
            return self.assign(turn, group, &Assigned { generation, assignment }, Ok(()));
        }
        let then = Then::Assign(Assigned { generation, assignment });
        if let Err(code) = self.write(turn, group, &[record], Vec::new(), Some(then)) {
            let nothing = Assigned { generation, assignment: BTreeMap::new() };
            self.assign(turn, group, &nothing, Err(code));
        }
    }
}

pub(super) fn refused(code: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(code.0)
}

pub(super) fn accepted(group: &Group, member: &str) -> SyncGroupResponse {
    let assignment = group.members.get(member).map(|member| member.assignment.clone());
    SyncGroupResponse::default()
        .with_protocol_type(group.protocol_type.as_deref().map(text))
        .with_protocol_name(group.protocol.as_deref().map(text))
        .with_assignment(assignment.unwrap_or_default())
}
