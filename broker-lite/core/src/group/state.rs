//! One group: its members, what they offer, what they have committed.
//!
//! Invariant: `supported` counts for each protocol the members that offer it, `joining` those that wait for the others, and
//! each member with an instance id is the one that `statics` names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use klamm_wire::ErrorCode;
use klamm_wire::messages::join_group_request::JoinGroupRequestProtocol;

use super::records::{CommittedOffset, GroupMetadata, GroupRecord, MemberMetadata};
use super::subscription;

/// What a group is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody is in it.
    Empty,
    /// Members are waited for.
    PreparingRebalance,
    /// The leader's assignment is waited for.
    CompletingRebalance,
    /// Every member has, or can have, its assignment.
    Stable,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: Arc<str>,
    pub(super) instance_id: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// Protocols in the order of its liking, with what it has to say for each.
    pub(super) protocols: Vec<(Arc<str>, Bytes)>,
    pub(super) assignment: Bytes,
    /// Whom to answer when everybody has joined.
    pub(super) joining: Option<u64>,
    /// Whom to answer when the assignment is there.
    pub(super) syncing: Option<u64>,
    /// It has never been in a generation, and is not waited for longer than that.
    pub(super) is_new: bool,
}

impl Member {
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let offered = self.protocols.iter().find(|(name, _)| &**name == protocol);
        offered.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// Whether it offers exactly this.
    pub(super) fn offers(&self, protocols: &[JoinGroupRequestProtocol]) -> bool {
        self.protocols.len() == protocols.len()
            && self
                .protocols
                .iter()
                .zip(protocols)
                .all(|((name, metadata), offered)| **name == *offered.name && *metadata == offered.metadata)
    }

    /// Whether its silence is no reason to remove it: the next word is the coordinator's.
    pub(super) fn is_waited_on(&self) -> bool {
        !self.is_new && (self.joining.is_some() || self.syncing.is_some())
    }
}

/// Protocols out of a request, in memory of their own.
pub(super) fn protocols(offered: &[JoinGroupRequestProtocol]) -> Vec<(Arc<str>, Bytes)> {
    let copied = |protocol: &JoinGroupRequestProtocol| {
        (Arc::from(protocol.name.as_str()), Bytes::copy_from_slice(&protocol.metadata))
    };
    offered.iter().map(copied).collect()
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) id: Arc<str>,
    /// Tells it from others that had the same id before.
    pub(super) incarnation: u64,
    /// A record of it is replicated: it may be shown.
    pub(super) recorded: bool,
    /// Writes that concern it and are not replicated yet.
    pub(super) writes: usize,
    pub(super) state: State,
    pub(super) previous: State,
    /// When it came into its state, ms since 1970.
    pub(super) state_since_ms: Option<i64>,
    pub(super) protocol_type: Option<Arc<str>>,
    pub(super) protocol: Option<Arc<str>>,
    pub(super) generation: i32,
    pub(super) leader: Option<Arc<str>>,
    pub(super) members: BTreeMap<Arc<str>, Member>,
    statics: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids that were handed out and have not come back yet.
    pub(super) promised: BTreeSet<Arc<str>>,
    /// Members that have not asked for their assignment yet.
    pub(super) unsynced: BTreeSet<Arc<str>>,
    joining: usize,
    supported: BTreeMap<Arc<str>, usize>,
    /// Topics that its consumers subscribe to, if that is known.
    subscribed: Option<BTreeSet<String>>,
    /// Somebody has joined since the initial wait was last prolonged.
    pub(super) joined_meanwhile: bool,
    /// How long the initial wait is, and how much longer it can become, ms.
    pub(super) initial_wait: Option<(i64, i64)>,
    pub(super) offsets: BTreeMap<Arc<str>, BTreeMap<i32, CommittedOffset>>,
}

impl Group {
    pub(super) fn new(id: Arc<str>, incarnation: u64, since_ms: i64) -> Self {
        Self {
            id,
            incarnation,
            recorded: false,
            writes: 0,
            state: State::Empty,
            previous: State::Empty,
            state_since_ms: Some(since_ms),
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            promised: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            joining: 0,
            supported: BTreeMap::new(),
            subscribed: None,
            joined_meanwhile: false,
            initial_wait: None,
            offsets: BTreeMap::new(),
        }
    }

    /// As the record says; what it has committed is told by other records.
    pub(super) fn load(id: Arc<str>, incarnation: u64, value: GroupMetadata) -> Self {
        let mut group = Self::new(id, incarnation, -1);
        group.recorded = true;
        group.state = if value.members.is_empty() { State::Empty } else { State::Stable };
        group.previous = group.state;
        group.state_since_ms = (value.state_since_ms != -1).then_some(value.state_since_ms);
        group.generation = value.generation;
        group.protocol = value.protocol.map(Arc::from);
        group.leader = value.leader.map(Arc::from);
        group.protocol_type = (!value.protocol_type.is_empty()).then(|| Arc::from(value.protocol_type));
        for member in value.members {
            let protocol = group.protocol.clone().unwrap_or_default();
            group.add(Member {
                id: member.id.into(),
                instance_id: member.instance_id.map(Arc::from),
                client_id: member.client_id.into(),
                client_host: member.client_host.into(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                protocols: vec![(protocol, member.subscription)],
                assignment: member.assignment,
                joining: None,
                syncing: None,
                is_new: false,
            });
        }
        group.note_subscriptions();
        group
    }

    /// The record of this generation with these assignments.
    pub(super) fn record(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupRecord {
        let protocol = self.protocol.as_deref();
        let member = |member: &Member| MemberMetadata {
            id: member.id.to_string(),
            instance_id: member.instance_id.as_deref().map(str::to_owned),
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol.unwrap_or_default()),
            assignment: assignment(member),
        };
        let value = GroupMetadata {
            protocol_type: self.protocol_type.as_deref().unwrap_or_default().to_owned(),
            generation: self.generation,
            protocol: protocol.map(str::to_owned),
            leader: self.leader.as_deref().map(str::to_owned),
            state_since_ms: self.state_since_ms.unwrap_or(-1),
            members: self.members.values().map(member).collect(),
        };
        GroupRecord::Group { group: self.id.clone(), value: Some(value) }
    }

    /// The record of a group that has just come into being.
    pub(super) fn empty_record(&self) -> GroupRecord {
        let value = GroupMetadata {
            protocol_type: String::new(),
            generation: 0,
            protocol: None,
            leader: None,
            state_since_ms: self.state_since_ms.unwrap_or(-1),
            members: Vec::new(),
        };
        GroupRecord::Group { group: self.id.clone(), value: Some(value) }
    }

    pub(super) fn enter(&mut self, state: State, wall_ms: i64) {
        self.previous = self.state;
        self.state = state;
        self.state_since_ms = Some(wall_ms);
    }

    pub(super) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    pub(super) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(subscription::CONSUMER)
    }

    /// Adds a member that can be added: see [`Self::takes`].
    pub(super) fn add(&mut self, member: Member) {
        if let Some(instance) = &member.instance_id {
            self.statics.insert(instance.clone(), member.id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.promised.remove(&member.id);
        self.count(&member);
        self.joining += usize::from(member.joining.is_some());
        self.members.insert(member.id.clone(), member);
    }

    fn count(&mut self, member: &Member) {
        for (name, _) in &member.protocols {
            *self.supported.entry(name.clone()).or_default() += 1;
        }
    }

    fn discount(&mut self, member: &Member) {
        for (name, _) in &member.protocols {
            if let Some(count) = self.supported.get_mut(name) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.supported.remove(name);
                }
            }
        }
    }

    /// Removes a member, or an id that was promised. If it was the leader, another one is.
    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        let removed = self.members.remove(id);
        if let Some(member) = &removed {
            self.discount(member);
            self.joining -= usize::from(member.joining.is_some());
            if let Some(instance) = &member.instance_id
                && self.statics.get(instance) == Some(&member.id)
            {
                self.statics.remove(instance);
            }
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.promised.remove(id);
        self.unsynced.remove(id);
        removed
    }

    /// Puts a new life of a static member in the place of the one before, and returns that one.
    pub(super) fn replace_static(&mut self, old: &str, new: Arc<str>) -> Option<Member> {
        let old = self.members.remove(old)?;
        self.joining -= usize::from(old.joining.is_some());
        let member = Member { id: new.clone(), joining: None, syncing: None, is_new: false, ..old.clone() };
        if let Some(instance) = &member.instance_id {
            self.statics.insert(instance.clone(), new.clone());
        }
        if self.is_leader(&old.id) {
            self.leader = Some(new.clone());
        }
        if self.unsynced.remove(&old.id) {
            self.unsynced.insert(new.clone());
        }
        self.members.insert(new, member);
        Some(old)
    }

    /// Takes what a member offers now; returns whom the earlier request of the same kind has kept waiting.
    pub(super) fn update(
        &mut self,
        id: &str,
        protocols: Vec<(Arc<str>, Bytes)>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
        joining: Option<u64>,
    ) -> Option<u64> {
        let mut member = self.members.remove(id)?;
        self.discount(&member);
        self.joining -= usize::from(member.joining.is_some());
        member.protocols = protocols;
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
        let before = std::mem::replace(&mut member.joining, joining);
        self.count(&member);
        self.joining += usize::from(member.joining.is_some());
        self.members.insert(member.id.clone(), member);
        before
    }

    /// Whom to answer now that the wait of a member for the others is over.
    pub(super) fn end_join(&mut self, id: &str) -> Option<u64> {
        let waiting = self.members.get_mut(id)?.joining.take();
        self.joining -= usize::from(waiting.is_some());
        waiting
    }

    pub(super) fn joining(&self) -> usize {
        self.joining
    }

    /// The member that has this instance id now.
    pub(super) fn static_member(&self, instance: &str) -> Option<&Arc<str>> {
        self.statics.get(instance)
    }

    pub(super) fn has_all_joined(&self) -> bool {
        self.members.len() == self.joining && self.promised.is_empty()
    }

    pub(super) fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0).max(0)
    }

    /// Whether whoever offers this can be a member: of the same type, with a protocol that all have.
    pub(super) fn takes(&self, protocol_type: &str, offered: &[JoinGroupRequestProtocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !offered.is_empty();
        }
        let all = self.members.len();
        self.protocol_type.as_deref() == Some(protocol_type)
            && offered
                .iter()
                .any(|protocol| self.supported.get(protocol.name.as_str()).copied().unwrap_or(0) == all)
    }

    /// The protocol that most members like best among those that all have; of equals the leader's choice.
    pub(super) fn elect_protocol(&self) -> Option<Arc<str>> {
        let all = self.members.len();
        let is_candidate = |name: &Arc<str>| self.supported.get(name).is_some_and(|count| *count == all);
        let vote = |member: &Member| {
            member.protocols.iter().map(|(name, _)| name).find(|name| is_candidate(name)).cloned()
        };
        let mut votes: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for choice in self.members.values().filter_map(vote) {
            *votes.entry(choice).or_default() += 1;
        }
        let most = votes.values().max().copied()?;
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        let liked = leader.into_iter().flat_map(|leader| &leader.protocols).map(|(name, _)| name);
        let liked = liked.chain(votes.keys()).find(|name| votes.get(*name) == Some(&most));
        liked.cloned()
    }

    /// Whether the member exists, and is the one that its instance id stands for.
    pub(super) fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(now) if **now != *member => return Err(ErrorCode::FENCED_INSTANCE_ID),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(ErrorCode::UNKNOWN_MEMBER_ID) }
    }

    /// Begins the next generation of whoever is there.
    pub(super) fn next_generation(&mut self, wall_ms: i64) {
        self.generation = self.generation.wrapping_add(1);
        self.protocol = self.elect_protocol();
        self.note_subscriptions();
        let state = if self.members.is_empty() { State::Empty } else { State::CompletingRebalance };
        self.enter(state, wall_ms);
        self.unsynced.clear();
    }

    /// Reads which topics the members subscribe to.
    pub(super) fn note_subscriptions(&mut self) {
        self.subscribed = None;
        if !self.is_of_consumers() {
            return;
        }
        if self.members.is_empty() {
            self.subscribed = Some(BTreeSet::new());
        } else if let Some(protocol) = &self.protocol {
            let topics = |member: &Member| subscription::topics(&member.metadata(protocol));
            let all: Option<Vec<_>> = self.members.values().map(topics).collect();
            self.subscribed = all.map(|all| all.into_iter().flatten().collect());
        }
    }

    pub(super) fn knows_subscriptions(&self) -> bool {
        self.subscribed.is_some()
    }

    pub(super) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribed.as_ref().map_or_else(|| self.is_of_consumers(), |topics| topics.contains(topic))
    }

    pub(super) fn set_offset(&mut self, topic: &Arc<str>, partition: i32, value: Option<CommittedOffset>) {
        match value {
            Some(value) => {
                self.offsets.entry(topic.clone()).or_default().insert(partition, value);
            }
            None => {
                if let Some(partitions) = self.offsets.get_mut(topic) {
                    partitions.remove(&partition);
                    if partitions.is_empty() {
                        self.offsets.remove(topic);
                    }
                }
            }
        }
    }
}
