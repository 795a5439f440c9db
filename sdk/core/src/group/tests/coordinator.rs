//! A model of Kafka's group coordinator, classic protocol, as far as members can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use klamm_wire::ErrorCode;

use crate::assign::read_assignment;
use crate::group::*;
use crate::{Tick, TopicPartition};

/// A client, and which life of it.
pub(super) type Caller = (usize, u32);

/// Who waits for an answer, and its ticket.
pub(super) type Waiter = (Caller, u64);

/// The id of a member, and the name of a static one.
pub(super) type Identity<'a> = (&'a Arc<str>, Option<&'a Arc<str>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Stable,
    /// Waits for members to join, until then.
    Preparing(Tick),
    /// Waits for the leader's assignment.
    Completing,
}

/// What the log has of a group.
#[derive(Debug, Default)]
struct Written {
    generation: i32,
    leader: Option<Arc<str>>,
    members: BTreeMap<Arc<str>, Known>,
}

#[derive(Debug, Clone)]
struct Known {
    /// Of a static member.
    instance: Option<Arc<str>>,
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
    written: Written,
    promised: BTreeSet<Arc<str>>,
    ids: u32,
    /// Where it is, and until when nobody knows that.
    pub(super) node: i32,
    pub(super) moves: u32,
    pub(super) away_until: Tick,
    session: Tick,
    rebalance: Tick,
}

impl Known {
    /// What it is assigned.
    fn partitions(&self) -> Vec<TopicPartition> {
        if self.assignment.is_empty() {
            return Vec::new();
        }
        read_assignment(self.assignment.clone()).expect("ours").partitions
    }
}

/// Answers, by the client they go to.
pub(super) type Answers = Vec<(Caller, Event)>;

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
            written: Written::default(),
            promised: BTreeSet::new(),
            ids: 0,
            node: 1,
            moves: 0,
            away_until: Tick::ZERO,
            session,
            rebalance,
        }
    }

    /// Whose a partition is in the present assignment.
    pub(super) fn owner(&self, partition: &TopicPartition) -> Option<&Arc<str>> {
        let owner = self.members.iter().find(|(_, known)| known.partitions().contains(partition));
        owner.map(|(id, _)| id)
    }

    fn write(&mut self) {
        let (leader, members) = (self.leader.clone(), self.members.clone());
        self.written = Written { generation: self.generation, leader, members };
    }

    /// Another node is the coordinator, and knows what is written; for a while nobody knows that.
    pub(super) fn move_away(&mut self, now: Tick, until: Tick, out: &mut Answers) {
        self.node = 3 - self.node;
        self.moves += 1;
        self.away_until = until;
        let elsewhere = refused(ErrorCode::NOT_COORDINATOR);
        for known in std::mem::take(&mut self.members).into_values() {
            if let Some((client, ticket)) = known.joining {
                out.push((client, Event::Join(ticket, JoinAnswer::Refused(elsewhere))));
            }
            if let Some((client, ticket)) = known.syncing {
                out.push((client, Event::Sync(ticket, Err(elsewhere))));
            }
        }
        self.promised.clear();
        self.state = State::Stable;
        self.generation = self.written.generation;
        self.leader = self.written.leader.clone();
        // Nobody waits at the new one yet.
        let loaded = |known: &Known| Known { joining: None, syncing: None, seen: now, ..known.clone() };
        self.members = self.written.members.iter().map(|(id, known)| (id.clone(), loaded(known))).collect();
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
        let mut time_is_up = false;
        if matches!(self.state, State::Preparing(until) if until <= now) {
            // A static member that is away keeps its place as long as its session lasts.
            self.members.retain(|_, known| known.joining.is_some() || known.instance.is_some());
            time_is_up = self.members.values().any(|known| known.joining.is_some());
            self.state = State::Preparing(now + self.rebalance);
        }
        self.complete_if(time_is_up, now, out);
    }

    fn rebalance(&mut self, now: Tick) {
        if !matches!(self.state, State::Preparing(_)) {
            self.state = State::Preparing(now + self.rebalance);
        }
    }

    fn complete(&mut self, now: Tick, out: &mut Answers) {
        self.complete_if(false, now, out);
    }

    /// Ends the join phase once everybody is in, or its time is up. Whoever waited for an assignment is told to join again.
    fn complete_if(&mut self, time_is_up: bool, now: Tick, out: &mut Answers) {
        if !matches!(self.state, State::Preparing(_)) {
            return;
        }
        for known in self.members.values_mut() {
            if let Some((client, ticket)) = known.syncing.take() {
                let again = refused(ErrorCode::REBALANCE_IN_PROGRESS);
                out.push((client, Event::Sync(ticket, Err(again))));
            }
        }
        if !time_is_up && self.members.values().any(|known| known.joining.is_none()) {
            return;
        }
        self.generation += 1;
        self.state = if self.members.is_empty() { State::Stable } else { State::Completing };
        let mut joined = self.members.iter().filter(|(_, known)| known.joining.is_some());
        self.leader = joined.next().map(|(id, _)| id.clone());
        if self.members.is_empty() {
            self.write();
        }
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.joined(&id, false);
            if let Some(known) = self.members.get_mut(&id) {
                known.seen = now;
                known.assignment = Bytes::new();
                if let Some((client, ticket)) = known.joining.take() {
                    out.push((client, Event::Join(ticket, answer)));
                }
            }
        }
    }

    fn joined(&self, id: &Arc<str>, stands: bool) -> JoinAnswer {
        let told = |(id, known): (&Arc<str>, &Known)| JoinedMember {
            id: id.clone(),
            instance: known.instance.clone(),
            metadata: known.metadata.clone(),
        };
        let members = (self.leader.as_ref() == Some(id)).then(|| self.members.iter().map(told).collect());
        JoinAnswer::Joined(Joined {
            generation: self.generation,
            assignor: "the".into(),
            member_id: id.clone(),
            stands: stands && members.is_some(),
            members,
        })
    }

    pub(super) fn join(
        &mut self,
        now: Tick,
        node: i32,
        (client, ticket): Waiter,
        (id, instance): Identity<'_>,
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
            let Some(instance) = instance else {
                self.promised.insert(id.clone());
                return say(JoinAnswer::MemberIdRequired(id));
            };
            if let Some(old) = self.life_of(instance) {
                return self.replace(now, &old, &id, (client, ticket), metadata, out);
            }
            return self.enter(now, id, Some(instance.clone()), (client, ticket), metadata, out);
        }
        match self.members.get(id) {
            None if !self.promised.remove(id) => {
                return say(JoinAnswer::Refused(self.stranger(instance)));
            }
            Some(known) if known.metadata == metadata => {
                let leads = self.leader.as_ref() == Some(id);
                if self.state == State::Completing || self.state == State::Stable && !leads {
                    return say(self.joined(id, false));
                }
            }
            _ => {}
        }
        self.enter(now, id.clone(), instance.cloned(), (client, ticket), metadata, out);
    }

    fn enter(
        &mut self,
        now: Tick,
        id: Arc<str>,
        instance: Option<Arc<str>>,
        waiter: Waiter,
        metadata: Bytes,
        out: &mut Answers,
    ) {
        let joining = Some(waiter);
        let known = Known { instance, metadata, joining, syncing: None, seen: now, assignment: Bytes::new() };
        self.members.insert(id, known);
        self.rebalance(now);
        self.complete(now, out);
    }

    /// The present life of a static member.
    fn life_of(&self, instance: &Arc<str>) -> Option<Arc<str>> {
        let mut lives = self.members.iter().filter(|(_, known)| known.instance.as_ref() == Some(instance));
        lives.next().map(|(id, _)| id.clone())
    }

    /// Why somebody with an id that is not known is refused.
    fn stranger(&self, instance: Option<&Arc<str>>) -> Refusal {
        match instance.and_then(|instance| self.life_of(instance)) {
            Some(_) => refused(ErrorCode::FENCED_INSTANCE_ID),
            None => refused(ErrorCode::UNKNOWN_MEMBER_ID),
        }
    }

    /// A static member is back: its earlier life is fenced, and in a stable group all stays as it is.
    fn replace(
        &mut self,
        now: Tick,
        old: &Arc<str>,
        id: &Arc<str>,
        (client, ticket): Waiter,
        metadata: Bytes,
        out: &mut Answers,
    ) {
        let Some(mut known) = self.members.remove(old) else { return };
        let fenced = refused(ErrorCode::FENCED_INSTANCE_ID);
        if let Some((client, ticket)) = known.joining.take() {
            out.push((client, Event::Join(ticket, JoinAnswer::Refused(fenced))));
        }
        if let Some((client, ticket)) = known.syncing.take() {
            out.push((client, Event::Sync(ticket, Err(fenced))));
        }
        if self.leader.as_ref() == Some(old) {
            self.leader = Some(id.clone());
        }
        known.metadata = metadata;
        known.seen = now;
        if self.state != State::Stable {
            known.joining = Some((client, ticket));
        }
        self.members.insert(id.clone(), known);
        match self.state {
            State::Stable => {
                self.write();
                out.push((client, Event::Join(ticket, self.joined(id, true))));
            }
            State::Completing => {
                self.rebalance(now);
                self.complete(now, out);
            }
            State::Preparing(_) => self.complete(now, out),
        }
    }

    /// How many partitions of each topic are assigned.
    pub(super) fn assigned(&self) -> BTreeMap<Arc<str>, usize> {
        let mut counts = BTreeMap::new();
        for name in self.members.values().flat_map(Known::partitions) {
            *counts.entry(name.topic).or_default() += 1;
        }
        counts
    }

    fn check(
        &mut self,
        now: Tick,
        node: i32,
        (id, instance): Identity<'_>,
        generation: i32,
    ) -> Result<(), Refusal> {
        if !self.serves(now, node) {
            return Err(refused(ErrorCode::NOT_COORDINATOR));
        }
        let stranger = self.stranger(instance);
        let Some(known) = self.members.get_mut(id) else {
            return Err(stranger);
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
        identity: Identity<'_>,
        generation: i32,
        assignments: Vec<(Arc<str>, Bytes)>,
        out: &mut Answers,
    ) {
        let (id, _) = identity;
        if let Err(refusal) = self.check(now, node, identity, generation) {
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
                self.write();
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
        identity: Identity<'_>,
        generation: i32,
    ) -> Result<(), Refusal> {
        self.check(now, node, identity, generation)?;
        match self.state {
            State::Preparing(_) => Err(refused(ErrorCode::REBALANCE_IN_PROGRESS)),
            _ => Ok(()),
        }
    }

    pub(super) fn commit(
        &mut self,
        now: Tick,
        node: i32,
        identity: Identity<'_>,
        generation: i32,
    ) -> Result<(), Refusal> {
        self.check(now, node, identity, generation)?;
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

    /// Static members do not say that they go.
    pub(super) fn is_deserted(&self) -> bool {
        self.members.values().all(|known| known.instance.is_some())
    }
}
