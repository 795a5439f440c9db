//! From one generation to the next: who is waited for and for how long, who leads, and what becomes of the assignment.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use klamm_wire::ErrorCode;

use super::state::{Group, State};
use super::timers::Timer;
use super::{Cx, GroupCoordinator, GroupKey, Response, Turn, join, sync};
use crate::Tick;

/// An assignment that is being written down.
#[derive(Debug)]
pub(super) struct Assigned {
    pub(super) generation: i32,
    pub(super) assignment: BTreeMap<Arc<str>, Bytes>,
}

/// Least time between two looks at a group whose members are all away, whatever they have asked for.
const LEAST_WAIT_MS: i32 = 1000;

fn millis(ms: i64) -> Tick {
    Tick::from_millis(u64::try_from(ms).unwrap_or(0))
}

impl GroupCoordinator {
    /// The assignment of a generation is written down, or cannot be.
    pub(super) fn assign(
        &mut self,
        turn: &mut Turn<'_>,
        key: &Option<GroupKey>,
        assigned: &Assigned,
        written: Result<(), ErrorCode>,
    ) {
        let Some(key) = key else { return };
        self.with_group(&key.id, |cx, group| {
            if group.incarnation == key.incarnation {
                cx.assign(turn, group, assigned, written);
            }
        });
    }
}

impl Cx<'_> {
    pub(super) fn prepare_rebalance_or_complete_join(&mut self, turn: &mut Turn<'_>, group: &mut Group) {
        match group.state {
            State::PreparingRebalance => self.complete_join_if_all_are_there(turn, group),
            _ => self.prepare_rebalance(turn, group),
        }
    }

    /// Begins to wait for the members. The first ones of an empty group wait for others, however many they are.
    pub(super) fn prepare_rebalance(&mut self, turn: &mut Turn<'_>, group: &mut Group) {
        if group.state == State::CompletingRebalance {
            self.withdraw_assignment(turn, group, ErrorCode::REBALANCE_IN_PROGRESS);
        }
        group.unsynced.clear();
        self.timers.cancel(&Timer::Sync(group.id.clone()));
        let was_empty = group.state == State::Empty;
        group.enter(State::PreparingRebalance, turn.wall_ms);
        let all = i64::from(group.rebalance_timeout_ms());
        if was_empty {
            let delay = i64::try_from(self.settings.initial_rebalance_delay.as_millis()).unwrap_or(i64::MAX);
            group.initial_wait = Some((delay, (all - delay).max(0)));
            group.joined_meanwhile = false;
            self.timers.set(Timer::Join(group.id.clone()), turn.now.saturating_add(millis(delay)));
        } else if group.has_all_joined() {
            self.complete_join(turn, group);
        } else {
            group.initial_wait = None;
            self.timers.set(Timer::Join(group.id.clone()), turn.now.saturating_add(millis(all)));
        }
    }

    pub(super) fn complete_join_if_all_are_there(&mut self, turn: &mut Turn<'_>, group: &mut Group) {
        let waits_for_more = group.previous == State::Empty;
        if group.state == State::PreparingRebalance && !waits_for_more && group.has_all_joined() {
            self.complete_join(turn, group);
        }
    }

    /// The initial wait is prolonged as long as members keep coming, at most to their rebalance time-out.
    pub(super) fn join_time_is_up(&mut self, turn: &mut Turn<'_>, group: &mut Group) {
        match group.initial_wait {
            Some((delay, left)) if group.joined_meanwhile && left > 0 => {
                group.joined_meanwhile = false;
                let most =
                    i64::try_from(self.settings.initial_rebalance_delay.as_millis()).unwrap_or(i64::MAX);
                let next = most.min(left);
                group.initial_wait = Some((next, (left - delay).max(0)));
                self.timers.set(Timer::Join(group.id.clone()), turn.now.saturating_add(millis(next)));
            }
            _ => self.complete_join(turn, group),
        }
    }

    /// Ends the wait: whoever has not come back is out, unless it is static; the others make the next generation.
    pub(super) fn complete_join(&mut self, turn: &mut Turn<'_>, group: &mut Group) {
        self.timers.cancel(&Timer::Join(group.id.clone()));
        group.initial_wait = None;
        let missing = group.members.values().filter(|m| m.joining.is_none() && m.instance_id.is_none());
        let missing: Vec<_> = missing.map(|member| member.id.clone()).collect();
        for id in missing {
            self.remove(turn, group, &id);
        }
        if !has_leader(group) && !group.members.is_empty() {
            // only static members, and all of them away: their sessions decide
            let at = turn.after(group.rebalance_timeout_ms().max(LEAST_WAIT_MS));
            self.timers.set(Timer::Join(group.id.clone()), at);
            return;
        }
        group.next_generation(turn.wall_ms);
        if group.state == State::Empty {
            let record = group.record(|_| Bytes::new());
            // what fails here is written with the next generation
            let _ = self.write(turn, group, &[record], Vec::new(), None);
            return;
        }
        let ids: Vec<_> = group.members.keys().cloned().collect();
        for id in ids {
            if let Some(to) = group.end_join(&id) {
                let leads = group.is_leader(&id);
                turn.answer(to, Response::Join(join::accepted(group, &id, leads)));
            }
            self.heard_of(turn, group, &id);
            if let Some(member) = group.members.get_mut(&id) {
                member.is_new = false;
            }
            group.unsynced.insert(id);
        }
        self.timers.set(Timer::Sync(group.id.clone()), turn.after(group.rebalance_timeout_ms()));
    }

    /// Whoever has joined and not asked for its assignment in time is out.
    pub(super) fn sync_time_is_up(&mut self, turn: &mut Turn<'_>, group: &mut Group) {
        let waits = matches!(group.state, State::CompletingRebalance | State::Stable);
        if !waits || group.unsynced.is_empty() {
            return;
        }
        for id in std::mem::take(&mut group.unsynced) {
            self.remove(turn, group, &id);
        }
        self.prepare_rebalance(turn, group);
    }

    pub(super) fn assign(
        &mut self,
        turn: &mut Turn<'_>,
        group: &mut Group,
        assigned: &Assigned,
        written: Result<(), ErrorCode>,
    ) {
        if group.state != State::CompletingRebalance || group.generation != assigned.generation {
            return;
        }
        if let Err(code) = written {
            self.withdraw_assignment(turn, group, code);
            return self.prepare_rebalance_or_complete_join(turn, group);
        }
        for member in group.members.values_mut() {
            member.assignment = assigned.assignment.get(&member.id).cloned().unwrap_or_default();
        }
        let waiting = group.members.values_mut().filter_map(|m| Some((m.id.clone(), m.syncing.take()?)));
        let waiting: Vec<_> = waiting.collect();
        for (id, to) in waiting {
            turn.answer(to, Response::Sync(sync::accepted(group, &id)));
            self.heard_of(turn, group, &id);
        }
        group.enter(State::Stable, turn.wall_ms);
    }

    /// Nobody is assigned anything in this generation.
    fn withdraw_assignment(&mut self, turn: &mut Turn<'_>, group: &mut Group, code: ErrorCode) {
        let mut told = Vec::new();
        for member in group.members.values_mut() {
            member.assignment = Bytes::new();
            if let Some(to) = member.syncing.take() {
                turn.answer(to, Response::Sync(sync::refused(code)));
                told.push(member.id.clone());
            }
        }
        for id in told {
            self.heard_of(turn, group, &id);
        }
    }
}

/// Whether the leader has joined; if it has not, whoever has is the leader now.
fn has_leader(group: &mut Group) -> bool {
    let joined = |id: &Arc<str>| group.members.get(id).is_some_and(|member| member.joining.is_some());
    if group.leader.as_ref().is_some_and(joined) {
        return true;
    }
    let next = group.members.values().find(|member| member.joining.is_some());
    match next.map(|member| member.id.clone()) {
        Some(next) => {
            group.leader = Some(next);
            true
        }
        None => false,
    }
}
