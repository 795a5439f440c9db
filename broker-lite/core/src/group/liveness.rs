//! Heartbeat (12) and LeaveGroup (13): who is still there.

use klamm_wire::ErrorCode;
use klamm_wire::messages::leave_group_request::MemberIdentity;
use klamm_wire::messages::leave_group_response::MemberResponse;
use klamm_wire::messages::{HeartbeatRequest, LeaveGroupRequest, LeaveGroupResponse};

use super::state::{Group, State};
use super::timers::Timer;
use super::{Cx, GroupCoordinator, Response, Turn};

impl GroupCoordinator {
    /// Heartbeat, all versions.
    pub fn heartbeat(&mut self, turn: &mut Turn<'_>, to: u64, request: &HeartbeatRequest) {
        let code = if request.group_id.is_empty() {
            ErrorCode::INVALID_GROUP_ID
        } else {
            let heard = self.with_group(&request.group_id, |cx, group| {
                Some(cx.heartbeat(turn, group, request).err().unwrap_or(ErrorCode::NONE))
            });
            heard.unwrap_or(ErrorCode::UNKNOWN_MEMBER_ID)
        };
        turn.answer(to, Response::Heartbeat(code));
    }

    /// LeaveGroup; versions before 3 name one member, which stands in `members` here.
    pub fn leave(&mut self, turn: &mut Turn<'_>, to: u64, request: &LeaveGroupRequest) {
        if request.group_id.is_empty() {
            return turn.answer(to, Response::Failed(ErrorCode::INVALID_GROUP_ID));
        }
        let left = self.with_group(&request.group_id, |cx, group| {
            Some(request.members.iter().map(|member| (member, cx.leave(turn, group, member))).collect())
        });
        let unknown = || request.members.iter().map(|member| (member, Err(ErrorCode::UNKNOWN_MEMBER_ID)));
        let left: Vec<(&MemberIdentity, Result<(), ErrorCode>)> = left.unwrap_or_else(|| unknown().collect());
        let some = left.iter().any(|(_, left)| left.is_ok());
        let answer = |(member, left): (&MemberIdentity, Result<(), ErrorCode>)| {
            MemberResponse::default()
                .with_member_id(member.member_id.clone())
                .with_group_instance_id(member.group_instance_id.clone())
                .with_error_code(left.err().unwrap_or(ErrorCode::NONE).0)
        };
        let members = left.into_iter().map(answer).collect();
        turn.answer(to, Response::Leave(LeaveGroupResponse::default().with_members(members)));
        if some {
            self.with_group(&request.group_id, |cx, group| match group.state {
                State::Stable | State::CompletingRebalance => cx.prepare_rebalance(turn, group),
                State::PreparingRebalance => cx.complete_join_if_all_are_there(turn, group),
                State::Empty => {}
            });
        }
    }
}

impl Cx<'_> {
    fn heartbeat(
        &mut self,
        turn: &Turn<'_>,
        group: &Group,
        request: &HeartbeatRequest,
    ) -> Result<(), ErrorCode> {
        group.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != group.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        self.heard_of(turn, group, &request.member_id);
        match group.state {
            State::Empty => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            State::PreparingRebalance => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    fn leave(
        &mut self,
        turn: &mut Turn<'_>,
        group: &mut Group,
        member: &MemberIdentity,
    ) -> Result<(), ErrorCode> {
        let (id, instance) = (member.member_id.as_str(), member.group_instance_id.as_deref());
        if id.is_empty() {
            // an administrator, who knows the instance only
            let known = instance.and_then(|instance| group.static_member(instance)).cloned();
            let id = known.ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
            self.remove(turn, group, &id);
            return Ok(());
        }
        if let Some(promised) = group.promised.take(id) {
            self.timers.cancel(&Timer::Session(group.id.clone(), promised));
            return Ok(());
        }
        group.check_member(id, instance)?;
        self.remove(turn, group, id);
        Ok(())
    }

    /// A member has been silent for too long, or an id has not come back.
    pub(super) fn session_is_over(&mut self, turn: &mut Turn<'_>, group: &mut Group, id: &str) {
        if group.promised.remove(id) {
            if group.state == State::PreparingRebalance && group.has_all_joined() {
                self.complete_join(turn, group);
            }
            return;
        }
        if group.members.get(id).is_none_or(|member| member.is_waited_on()) {
            return;
        }
        self.remove(turn, group, id);
        match group.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(turn, group),
            State::PreparingRebalance if group.has_all_joined() => self.complete_join(turn, group),
            State::PreparingRebalance | State::Empty => {}
        }
    }
}
