//! When to ask for metadata, for which topics, and when to start again from the bootstrap list.
//!
//! In: topics wanted, doubts, answers and failures. Out: [`Effect`]s for the driver.
//!
//! ```text
//!          topic wanted, doubt, age            answer
//!   idle ───────────────────────────▶ asking ──────────▶ idle
//!    ▲                                  │
//!    └── after retry.backoff.ms ◀───────┴─ failure, or a topic without leaders
//! ```
//!
//! Invariants: at most one query is out. Queries are `retry.backoff.ms` apart, except that a topic never asked
//! for, or a pattern, is asked for at once. A query has one answer to "may the broker create topics", so topics wanted with
//! and without creation never share one. A pattern is looked at whenever all topics are told, and never creates one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_wire::ErrorCode;
use klamm_wire::StrBytes;
use klamm_wire::messages::metadata_request::MetadataRequestTopic;
use klamm_wire::messages::metadata_response::MetadataResponseTopic;
use klamm_wire::messages::{MetadataRequest, MetadataResponse, TopicName};

use super::witness::Witnesses;
use super::{BrokerMetadata, ClusterMetadata, MatchedTopics, TopicMetadata, TopicPattern, update};
use crate::Tick;
use crate::backoff::Backoff;

/// Settings of [`Refresh`].
#[derive(Debug, Clone)]
pub struct RefreshSettings {
    /// Everything is asked for again after this time (`metadata.max.age.ms`).
    pub max_age: Duration,
    /// Topics not used for this long are dropped (`metadata.max.idle.ms`).
    pub max_idle: Duration,
    /// Pause between queries (`retry.backoff.ms`, `retry.backoff.max.ms`).
    pub retry: Backoff,
    /// Start again from the bootstrap list after this long without an answer, and at once when no known
    /// broker can be reached (`metadata.recovery.rebootstrap.trigger.ms`); `None`: never
    /// (`metadata.recovery.strategy=none`).
    pub rebootstrap: Option<Duration>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// Somebody waits for this topic.
    Wanted {
        /// Name of the topic.
        topic: Arc<str>,
        /// Whether the broker may create it.
        auto_create: bool,
    },
    /// Somebody used this topic.
    Used(&'a str),
    /// Find and keep all topics that match, now and with every refresh; `None`: no longer.
    Follow(Option<TopicPattern>),
    /// An answer of a broker contradicts the snapshot.
    Doubted,
    /// The answer to the query that is out, by the broker of this id; `None`: whose address was only in the bootstrap list.
    Answered(Option<i32>, &'a MetadataResponse),
    /// The query that is out has no answer.
    Failed,
    /// No broker of the snapshot can be reached to send the query to.
    Unreachable,
    /// An answer of a broker named the leader of a partition (KIP-951).
    Leader {
        /// Name of the topic.
        topic: &'a str,
        /// Index of the partition.
        partition: i32,
        /// Broker id of the leader.
        leader: i32,
        /// Its epoch.
        leader_epoch: i32,
        /// Where the answer says it is, for a broker that is not known yet.
        endpoint: Option<BrokerMetadata>,
    },
}

/// What the driver has to do, in the order emitted.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Show this snapshot to everybody.
    Publish(Arc<ClusterMetadata>),
    /// Close all connections, drop the query that is out, and know only the bootstrap list.
    Rebootstrap,
    /// Send this to the broker that it names or to any, and report `Answered`, `Failed` or `Unreachable`.
    Ask(Query),
}

/// A Metadata request for any broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Topics to ask for, maybe none: then only brokers are told. `None` asks for all topics there are.
    pub topics: Option<Vec<Arc<str>>>,
    /// Whether the broker may create the ones that do not exist.
    pub auto_create: bool,
    /// The broker to ask, if it can be reached: it has told of a topic that another one denies.
    pub of: Option<i32>,
}

impl Query {
    /// The request itself.
    pub fn request(&self) -> MetadataRequest {
        let topic = |name: &Arc<str>| {
            let name = TopicName(StrBytes::from_string(String::from(&**name)));
            MetadataRequestTopic::default().with_name(Some(name))
        };
        MetadataRequest::default()
            .with_topics(self.topics.as_ref().map(|topics| topics.iter().map(topic).collect()))
            .with_allow_auto_topic_creation(self.auto_create)
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Due {
    /// Never asked for: ask at once.
    New,
    /// Ask when the pause is over.
    Again,
    /// Known, or in the query that is out.
    No,
}

#[derive(Debug)]
struct Interest {
    auto_create: bool,
    used_at: Tick,
    due: Due,
}

#[derive(Debug)]
struct Followed {
    pattern: TopicPattern,
    due: Due,
}

/// When something was answered, and by which broker.
type Source = (Tick, Option<i32>);

/// Decides when to ask for metadata, and merges the answers.
#[derive(Debug)]
pub struct Refresh {
    settings: RefreshSettings,
    rng: fastrand::Rng,
    snapshot: Arc<ClusterMetadata>,
    interests: BTreeMap<Arc<str>, Interest>,
    /// Of every topic in the snapshot.
    witnesses: BTreeMap<Arc<str>, Witnesses>,
    followed: Option<Followed>,
    /// All topics were asked for last: now it is the turn of those wanted by name.
    asked_for_all: bool,
    brokers_due: bool,
    asking: Option<Query>,
    failures: u32,
    not_before: Tick,
    all_due_at: Tick,
    unanswered_since: Option<Tick>,
}

impl Refresh {
    /// Knows nothing, and wants to ask for the brokers at once.
    pub fn new(settings: RefreshSettings, rng: fastrand::Rng) -> Self {
        Self {
            all_due_at: settings.max_age,
            settings,
            rng,
            snapshot: Arc::default(),
            interests: BTreeMap::new(),
            witnesses: BTreeMap::new(),
            followed: None,
            asked_for_all: false,
            brokers_due: true,
            asking: None,
            failures: 0,
            not_before: Tick::ZERO,
            unanswered_since: None,
        }
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> &Arc<ClusterMetadata> {
        &self.snapshot
    }

    /// Applies one event. Effects are appended to `out`; `now` never decreases.
    pub fn step(&mut self, now: Tick, event: Event<'_>, out: &mut Vec<Effect>) {
        match event {
            Event::Wanted { topic, auto_create } => self.wanted(now, topic, auto_create, out),
            Event::Used(topic) => {
                if let Some(interest) = self.interests.get_mut(topic) {
                    interest.used_at = now;
                }
            }
            Event::Follow(pattern) => self.follow(pattern, out),
            Event::Doubted => self.all_due(now),
            Event::Answered(from, response) => self.answered(now, from, response, out),
            Event::Failed => self.failed(now),
            Event::Unreachable => {
                self.failed(now);
                if self.settings.rebootstrap.is_some() && !self.snapshot.brokers.is_empty() {
                    self.rebootstrap(now, out);
                }
            }
            Event::Leader { topic, partition, leader, leader_epoch, endpoint } => {
                let leader = (leader, leader_epoch);
                let news = update::with_leader(&self.snapshot, topic, partition, leader, endpoint);
                if let Some(cluster) = news {
                    self.publish(cluster, out);
                }
            }
        }
    }

    /// When [`Self::on_deadline`] wants to run.
    pub fn deadline(&self) -> Option<Tick> {
        let ask_at = match self.asking {
            Some(_) => None,
            None if self.is_new() => Some(Tick::ZERO),
            None if self.is_due() => Some(self.not_before),
            None => None,
        };
        [ask_at, Some(self.all_due_at), self.rebootstrap_at()].into_iter().flatten().min()
    }

    /// Fires whatever is due at `now`.
    pub fn on_deadline(&mut self, now: Tick, out: &mut Vec<Effect>) {
        if self.rebootstrap_at().is_some_and(|at| at <= now) {
            self.rebootstrap(now, out);
        }
        if self.all_due_at <= now {
            self.all_due(now);
        }
        if self.asking.is_none() && (self.is_new() || (self.is_due() && self.not_before <= now)) {
            self.ask(now, out);
        }
    }

    fn is_due(&self) -> bool {
        self.brokers_due || self.dues().any(|due| due != Due::No)
    }

    /// Whether there is something that was never asked for.
    fn is_new(&self) -> bool {
        self.dues().any(|due| due == Due::New)
    }

    fn dues(&self) -> impl Iterator<Item = Due> {
        self.interests.values().map(|interest| interest.due).chain(self.followed.iter().map(|f| f.due))
    }

    fn follow(&mut self, pattern: Option<TopicPattern>, out: &mut Vec<Effect>) {
        self.followed = pattern.map(|pattern| Followed { pattern, due: Due::New });
        if self.snapshot.matched.is_some() {
            let cluster = ClusterMetadata { matched: None, ..ClusterMetadata::clone(&self.snapshot) };
            self.publish(cluster, out);
        }
    }

    /// Only a client that knew brokers can have lost them.
    fn rebootstrap_at(&self) -> Option<Tick> {
        let since = self.unanswered_since.filter(|_| !self.snapshot.brokers.is_empty())?;
        since.checked_add(self.settings.rebootstrap?)
    }

    fn wanted(&mut self, now: Tick, topic: Arc<str>, auto_create: bool, out: &mut Vec<Effect>) {
        if let Some(interest) = self.interests.get_mut(&topic) {
            interest.used_at = now;
            if auto_create && !interest.auto_create {
                (interest.auto_create, interest.due) = (true, Due::New);
            }
            return;
        }
        // A refusal told to somebody else before is not the answer to this question.
        let follows = self.snapshot.matched.as_ref().is_some_and(|matched| matched.topics.contains(&topic));
        if self.snapshot.topics.contains_key(&topic) && !follows {
            let mut cluster = ClusterMetadata::clone(&self.snapshot);
            cluster.topics.remove(&topic);
            self.publish(cluster, out);
        }
        self.interests.insert(topic, Interest { auto_create, used_at: now, due: Due::New });
    }

    fn all_due(&mut self, now: Tick) {
        self.brokers_due = true;
        self.all_due_at = now.saturating_add(self.settings.max_age);
        for interest in self.interests.values_mut().filter(|interest| interest.due == Due::No) {
            interest.due = Due::Again;
        }
        self.follow_again();
    }

    fn follow_again(&mut self) {
        if let Some(followed) = self.followed.as_mut().filter(|followed| followed.due == Due::No) {
            followed.due = Due::Again;
        }
    }

    fn ask(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let max_idle = self.settings.max_idle;
        self.interests.retain(|_, interest| {
            interest.due == Due::New || now.saturating_sub(interest.used_at) <= max_idle
        });
        let named = self.interests.values().any(|interest| interest.due != Due::No);
        self.brokers_due = false;
        self.unanswered_since.get_or_insert(now);
        let follows = self.followed.as_mut().filter(|followed| followed.due != Due::No);
        let mut query = match follows.filter(|_| !(named && self.asked_for_all)) {
            Some(followed) => {
                followed.due = Due::No;
                Query { topics: None, auto_create: false, of: None }
            }
            None => self.ask_by_name(),
        };
        self.asked_for_all = query.topics.is_none();
        query.of = self.witness(&query);
        self.asking = Some(query.clone());
        out.push(Effect::Ask(query));
    }

    /// Who must know what became of a topic that is asked for.
    fn witness(&self, query: &Query) -> Option<i32> {
        let asked = |name: &Arc<str>| query.topics.as_ref().is_none_or(|topics| topics.contains(name));
        let doubtful = self.witnesses.iter().filter(|(name, _)| asked(name));
        doubtful.flat_map(|(_, topic)| topic.to_ask()).find(|id| self.snapshot.brokers.contains_key(id))
    }

    fn ask_by_name(&mut self) -> Query {
        let due = |interest: &&mut Interest| interest.due != Due::No;
        // What somebody waits for goes first.
        let first = self.interests.values_mut().filter(due).max_by_key(|interest| interest.due == Due::New);
        let auto_create = first.is_some_and(|interest| interest.auto_create);
        let mut topics = Vec::new();
        for (name, interest) in &mut self.interests {
            if interest.due != Due::No && interest.auto_create == auto_create {
                interest.due = Due::No;
                topics.push(name.clone());
            }
        }
        Query { topics: Some(topics), auto_create, of: None }
    }

    fn answered(&mut self, now: Tick, from: Option<i32>, response: &MetadataResponse, out: &mut Vec<Effect>) {
        let code = ErrorCode(response.error_code);
        if code == ErrorCode::REBOOTSTRAP_REQUIRED && self.settings.rebootstrap.is_some() {
            self.failed(now);
            return self.rebootstrap(now, out);
        }
        // A broker that is still starting may not know of any broker.
        if !code.is_ok() || update::brokers(response).is_empty() {
            return self.failed(now);
        }
        let Some(query) = self.asking.take() else { return };
        self.unanswered_since = None;
        let mut cluster = ClusterMetadata::clone(&self.snapshot);
        update::cluster(&mut cluster, response);
        let satisfied = match query.topics {
            Some(names) => self.told_by_name((now, from), &names, response, &mut cluster),
            None => self.told_all((now, from), response, &mut cluster),
        };
        self.witnesses.retain(|name, _| cluster.topics.contains_key(name));
        self.failures = if satisfied { 0 } else { self.failures.saturating_add(1) };
        self.pause(now);
        self.publish(cluster, out);
    }

    /// Returns `false` if something has to be asked for again.
    fn told_by_name(
        &mut self,
        source: Source,
        names: &[Arc<str>],
        response: &MetadataResponse,
        cluster: &mut ClusterMetadata,
    ) -> bool {
        let matched = cluster.matched.clone();
        let follows = |name: &Arc<str>| matched.as_ref().is_some_and(|found| found.topics.contains(name));
        cluster.topics.retain(|name, _| self.interests.contains_key(name) || follows(name));
        let mut satisfied = true;
        for name in names {
            let told = response
                .topics
                .iter()
                .find(|topic| topic.name.as_ref().is_some_and(|told| told.0.as_str() == &**name));
            satisfied &= match told {
                Some(told) => self.told(source, name, told, cluster),
                None => {
                    self.again(name);
                    false
                }
            };
        }
        satisfied
    }

    /// As [`Self::told_by_name`], for an answer that tells all topics there are.
    fn told_all(
        &mut self,
        source: Source,
        response: &MetadataResponse,
        cluster: &mut ClusterMetadata,
    ) -> bool {
        let pattern = self.followed.as_ref().map(|followed| followed.pattern.clone());
        let wanted_before: BTreeSet<_> = self.interests.keys().cloned().collect();
        let (mut matched, mut told_of) = (BTreeSet::new(), BTreeSet::new());
        let mut satisfied = true;
        for told in &response.topics {
            let Some(name) = &told.name else { continue };
            let matches = pattern.as_ref().is_some_and(|p| p.matches(name.as_str(), told.is_internal));
            let wanted = self.interests.get_key_value(name.as_str()).map(|(name, _)| name.clone());
            if !matches && wanted.is_none() {
                continue;
            }
            let name = wanted.unwrap_or_else(|| Arc::from(name.as_str()));
            if matches && ErrorCode(told.error_code) != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
                matched.insert(name.clone());
            }
            if let Some(interest) = self.interests.get_mut(&name) {
                interest.due = Due::No;
            }
            told_of.insert(name.clone());
            if !self.told(source, &name, told, cluster) {
                satisfied = false;
                if matches {
                    self.follow_again();
                }
            }
        }
        // What this broker does not list may be there all the same.
        let before =
            cluster.matched.clone().filter(|before| pattern.as_ref().is_some_and(|p| p.is(&before.pattern)));
        let before = before.iter().flat_map(|before| &before.topics);
        for name in before.filter(|name| !matched.contains(*name)).cloned().collect::<Vec<_>>() {
            let gone = match told_of.contains(&name) {
                true => cluster.topics.get(&name).is_none_or(|topic| topic.gone),
                false => self.denied(source, &name, cluster),
            };
            if !gone {
                matched.insert(name);
                satisfied = false;
                self.follow_again();
            }
        }
        // Somebody may wait to hear that a topic is refused.
        cluster.topics.retain(|name, _| wanted_before.contains(name) || matched.contains(name));
        cluster.matched = pattern.map(|pattern| Arc::new(MatchedTopics { pattern, topics: matched }));
        satisfied
    }

    /// Takes what an answer tells of one topic; returns `false` if it has to be asked for again.
    fn told(
        &mut self,
        source: Source,
        name: &Arc<str>,
        told: &MetadataResponseTopic,
        cluster: &mut ClusterMetadata,
    ) -> bool {
        let old = cluster.topics.get(name);
        let mut gone = false;
        match ErrorCode(told.error_code) {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => gone = self.denied(source, name, cluster),
            ErrorCode::NONE => {
                let witnesses = self.witnesses.entry(name.clone()).or_default();
                if !old.is_none_or(|old| witnesses.renames(source.0, old.id, told.topic_id)) {
                    self.again(name);
                    return false;
                }
                witnesses.tells(source.1);
            }
            _ => {}
        }
        let topic = update::topic(name, old, told, gone);
        let verdict = verdict(&topic);
        match verdict {
            Verdict::Good => {}
            Verdict::AskAgain => self.again(name),
            Verdict::Refused => drop(self.interests.remove(name)),
        }
        cluster.topics.insert(name.clone(), Arc::new(topic));
        verdict != Verdict::AskAgain
    }

    /// The broker does not know a topic. Returns whether that is gone.
    fn denied(&mut self, (now, from): Source, name: &Arc<str>, cluster: &ClusterMetadata) -> bool {
        let witnesses = self.witnesses.entry(name.clone()).or_default();
        witnesses.denies(now, from, cluster.brokers.keys().copied())
    }

    fn again(&mut self, name: &str) {
        if let Some(interest) = self.interests.get_mut(name) {
            interest.due = Due::Again;
        }
    }

    fn query_again(&mut self, query: Query) {
        match query.topics {
            Some(names) => names.iter().for_each(|name| self.again(name)),
            None => self.follow_again(),
        }
    }

    fn failed(&mut self, now: Tick) {
        let Some(query) = self.asking.take() else { return };
        self.brokers_due = true;
        self.query_again(query);
        self.failures = self.failures.saturating_add(1);
        self.pause(now);
    }

    fn pause(&mut self, now: Tick) {
        self.not_before = now + self.settings.retry.delay(self.failures.max(1), &mut self.rng);
    }

    fn rebootstrap(&mut self, now: Tick, out: &mut Vec<Effect>) {
        if let Some(query) = self.asking.take() {
            self.query_again(query);
        }
        self.all_due(now);
        self.failures = 0;
        self.not_before = now;
        self.unanswered_since = None;
        let cluster = ClusterMetadata {
            brokers: BTreeMap::new(),
            controller: None,
            ..ClusterMetadata::clone(&self.snapshot)
        };
        self.publish(cluster, out);
        out.push(Effect::Rebootstrap);
    }

    fn publish(&mut self, mut cluster: ClusterMetadata, out: &mut Vec<Effect>) {
        cluster.version = self.snapshot.version + 1;
        self.snapshot = Arc::new(cluster);
        out.push(Effect::Publish(self.snapshot.clone()));
    }
}

#[derive(PartialEq, Eq)]
enum Verdict {
    Good,
    AskAgain,
    Refused,
}

fn verdict(topic: &TopicMetadata) -> Verdict {
    let leaderless = |partition: &super::PartitionMetadata| partition.leader.is_none();
    match topic.error {
        ErrorCode::NONE if topic.partitions.iter().any(leaderless) => Verdict::AskAgain,
        ErrorCode::NONE => Verdict::Good,
        code if code.is_retriable() => Verdict::AskAgain,
        _ => Verdict::Refused,
    }
}

#[cfg(test)]
#[path = "refresh_tests.rs"]
mod tests;
