//! A model of Kafka's group coordinator, classic protocol, as far as members can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use klamm_wire::ErrorCode;

use crate::Tick;
use crate::assign::read_assignment;
use crate::group::*;

/// Who waits for an answer: a client and its ticket.
pub(super) type Waiter = (usize, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Stable,
    /// Waits for members to join, until then.
    Preparing(Tick),
    /// Waits for the leader's assignment.
    Completing,
}

#[derive(Debug)]
struct Known {
    metadata: Bytes,
    joining: Option<Waiter>,
    syncing: Option<Waiter>,
    seen: Tick,
    assignment: Bytes,
}

#[derive(Debug)]
pub(super) struct Coordinator {
    state: State,
    pub(super) generation: i32,
    members: BTreeMap<Arc<str>, Known>,
    leader: Option<Arc<str>>,
    promised: BTreeSet<Arc<str>>,
    ids: u32,
    /// Where it is, and until when nobody knows that.
    pub(super) node: i32,
    pub(super) away_until: Tick,
    session: Tick,
    rebalance: Tick,
}

/// Answers, by the client they go to.
pub(super) type Answers = Vec<(usize, Event)>;

fn refused(code: ErrorCode) -> Refusal {
    Refusal::Code(code)
}

impl Coordinator {
    pub(super) fn new(session: Tick, rebalance: Tick) -> Self {
        Self {
            state: State::Stable,
            generation: 0,
            members: BTreeMap::new(),
            leader: None,
            promised: BTreeSet::new(),
            ids: 0,
            node: 1,
            away_until: Tick::ZERO,
            session,
            rebalance,
        }
    }

    fn serves(&self, now: Tick, node: i32) -> bool {
        node == self.node && now >= self.away_until
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        let sessions = self.members.values().filter(|known| known.joining.is_none());
        let sessions = sessions.map(|known| known.seen + self.session);
        let rebalance = match self.state {
            State::Preparing(until) => Some(until),
            _ => None,
        };
        sessions.chain(rebalance).min()
    }

    pub(super) fn on_deadline(&mut self, now: Tick, out: &mut Answers) {
        let before = self.members.len();
        let session = self.session;
        self.members.retain(|_, known| known.joining.is_some() || known.seen + session > now);
        if self.members.len() != before {
            self.rebalance(now);
        }
        if matches!(self.state, State::Preparing(until) if until <= now) {
            self.members.retain(|_, known| known.joining.is_some());
        }
        self.complete(now, out);
    }

    fn rebalance(&mut self, now: Tick) {
        if !matches!(self.state, State::Preparing(_)) {
            self.state = State::Preparing(now + self.rebalance);
        }
    }

    /// Ends the join phase once everybody is in. Whoever waited for an assignment is told to join again.
    fn complete(&mut self, now: Tick, out: &mut Answers) {
        if !matches!(self.state, State::Preparing(_)) {
            return;
        }
        for known in self.members.values_mut() {
            if let Some((client, ticket)) = known.syncing.take() {
                let again = refused(ErrorCode::REBALANCE_IN_PROGRESS);
                out.push((client, Event::Sync(ticket, Err(again))));
            }
        }
        if self.members.values().any(|known| known.joining.is_none()) {
            return;
        }
        self.generation += 1;
        self.state = if self.members.is_empty() { State::Stable } else { State::Completing };
        self.leader = self.members.keys().next().cloned();
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.joined(&id);
            if let Some(known) = self.members.get_mut(&id) {
                known.seen = now;
                known.assignment = Bytes::new();
                if let Some((client, ticket)) = known.joining.take() {
                    out.push((client, Event::Join(ticket, answer)));
                }
            }
        }
    }

    fn joined(&self, id: &Arc<str>) -> JoinAnswer {
        let told = |(id, known): (&Arc<str>, &Known)| JoinedMember {
            id: id.clone(),
            instance: None,
            metadata: known.metadata.clone(),
        };
        let members = (self.leader.as_ref() == Some(id)).then(|| self.members.iter().map(told).collect());
        JoinAnswer::Joined(Joined {
            generation: self.generation,
            assignor: "the".into(),
            member_id: id.clone(),
            members,
            stands: false,
        })
    }

    pub(super) fn join(
        &mut self,
        now: Tick,
        node: i32,
        (client, ticket): Waiter,
        id: &Arc<str>,
        metadata: Bytes,
        out: &mut Answers,
    ) {
        let mut say = |answer| out.push((client, Event::Join(ticket, answer)));
        if !self.serves(now, node) {
            return say(JoinAnswer::Refused(refused(ErrorCode::NOT_COORDINATOR)));
        }
        if id.is_empty() {
            self.ids += 1;
            let id: Arc<str> = format!("m{}", self.ids).into();
            self.promised.insert(id.clone());
            return say(JoinAnswer::MemberIdRequired(id));
        }
        match self.members.get(id) {
            None if !self.promised.remove(id) => {
                return say(JoinAnswer::Refused(refused(ErrorCode::UNKNOWN_MEMBER_ID)));
            }
            Some(known) if known.metadata == metadata => {
                let leads = self.leader.as_ref() == Some(id);
                if self.state == State::Completing || self.state == State::Stable && !leads {
                    return say(self.joined(id));
                }
            }
            _ => {}
        }
        let joining = Some((client, ticket));
        let known = Known { metadata, joining, syncing: None, seen: now, assignment: Bytes::new() };
        self.members.insert(id.clone(), known);
        self.rebalance(now);
        self.complete(now, out);
    }

    fn check(&mut self, now: Tick, node: i32, id: &Arc<str>, generation: i32) -> Result<(), Refusal> {
        if !self.serves(now, node) {
            return Err(refused(ErrorCode::NOT_COORDINATOR));
        }
        let Some(known) = self.members.get_mut(id) else {
            return Err(refused(ErrorCode::UNKNOWN_MEMBER_ID));
        };
        if generation != self.generation {
            return Err(refused(ErrorCode::ILLEGAL_GENERATION));
        }
        known.seen = now;
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn sync(
        &mut self,
        now: Tick,
        node: i32,
        (client, ticket): Waiter,
        id: &Arc<str>,
        generation: i32,
        assignments: Vec<(Arc<str>, Bytes)>,
        out: &mut Answers,
    ) {
        if let Err(refusal) = self.check(now, node, id, generation) {
            return out.push((client, Event::Sync(ticket, Err(refusal))));
        }
        match self.state {
            State::Preparing(_) => {
                let again = refused(ErrorCode::REBALANCE_IN_PROGRESS);
                return out.push((client, Event::Sync(ticket, Err(again))));
            }
            State::Completing => {
                if let Some(known) = self.members.get_mut(id) {
                    known.syncing = Some((client, ticket));
                }
                if self.leader.as_ref() != Some(id) {
                    return;
                }
                for (id, bytes) in assignments {
                    if let Some(known) = self.members.get_mut(&id) {
                        known.assignment = bytes;
                    }
                }
                self.state = State::Stable;
            }
            State::Stable => {
                if let Some(known) = self.members.get_mut(id) {
                    known.syncing = Some((client, ticket));
                }
            }
        }
        for known in self.members.values_mut() {
            if let Some((client, ticket)) = known.syncing.take() {
                let assignment = read_assignment(known.assignment.clone()).map_err(|error| error.to_string());
                out.push((client, Event::Sync(ticket, Ok(assignment))));
            }
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        now: Tick,
        node: i32,
        id: &Arc<str>,
        generation: i32,
    ) -> Result<(), Refusal> {
        self.check(now, node, id, generation)?;
        match self.state {
            State::Preparing(_) => Err(refused(ErrorCode::REBALANCE_IN_PROGRESS)),
            _ => Ok(()),
        }
    }

    pub(super) fn commit(
        &mut self,
        now: Tick,
        node: i32,
        id: &Arc<str>,
        generation: i32,
    ) -> Result<(), Refusal> {
        self.check(now, node, id, generation)?;
        match self.state {
            State::Completing => Err(refused(ErrorCode::REBALANCE_IN_PROGRESS)),
            _ => Ok(()),
        }
    }

    pub(super) fn leave(
        &mut self,
        now: Tick,
        node: i32,
        id: &Arc<str>,
        out: &mut Answers,
    ) -> Result<(), Refusal> {
        if !self.serves(now, node) {
            return Err(refused(ErrorCode::NOT_COORDINATOR));
        }
        if self.members.remove(id).is_none() {
            return Err(refused(ErrorCode::UNKNOWN_MEMBER_ID));
        }
        self.rebalance(now);
        self.complete(now, out);
        Ok(())
    }

    pub(super) fn is_deserted(&self) -> bool {
        self.members.is_empty()
    }
}
