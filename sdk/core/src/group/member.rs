//! The membership's state, its clockwork, and what the application asks of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use klamm_wire::planted::{Bug, planted};

use super::event::{
    Call, CommitRefusal, Effect, Event, Fatal, GroupSettings, Offsets, Reason, Refusal, Shapes, TopicShape,
};
use crate::assign::Assignment;
use crate::{Tick, TopicPartition};

/// Heartbeat intervals in which the other members join, but for those that are busy.
const BEATS_TO_JOIN: u32 = 3;

/// Where the member stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not subscribed.
    Idle,
    /// On the way to a JoinGroup.
    Preparing(Reason),
    Joining(u64),
    Leading(u64),
    Syncing(u64),
    /// Changing over to an assignment.
    Adopting(Assignment),
    Stable,
    /// Left because the application does not poll.
    Stalled,
    /// Cannot go on.
    Failed,
    /// Giving everything up, then out. With `true` for good.
    Ending(Reason, bool),
    /// LeaveGroup is under way, by a ticket.
    Leaving(u64, Reason, bool),
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coordinator {
    Unknown,
    Asked,
    Known(i32),
}

/// A listener call that has not returned.
#[derive(Debug, Clone)]
pub(super) struct Calling {
    pub(super) id: u64,
    pub(super) call: Call,
    deadline: Tick,
}

/// A commit that is not answered.
#[derive(Debug)]
pub(super) struct UnderWay {
    /// Generation in which it was sent; `None` by who is no member.
    pub(super) generation: Option<i32>,
    /// Whether the member had its assignment of that generation.
    pub(super) synced: bool,
    partitions: BTreeSet<TopicPartition>,
}

/// Committed offsets to be found out.
#[derive(Debug, Default)]
pub(super) struct Starting {
    pub(super) wanted: BTreeSet<TopicPartition>,
    pub(super) asked: Option<u64>,
    /// Wanted since that was asked: its answer may be of before.
    pub(super) since: BTreeSet<TopicPartition>,
    pub(super) retry_at: Option<Tick>,
    pub(super) failures: u32,
}

/// One member of one group. See the [module](super).
#[derive(Debug)]
pub struct Membership {
    pub(super) settings: GroupSettings,
    pub(super) rng: fastrand::Rng,
    pub(super) phase: Phase,
    /// Topics the application wants; `None` if it does not want any group.
    pub(super) topics: Option<BTreeSet<Arc<str>>>,
    /// Topics told in the last JoinGroup.
    pub(super) told_topics: BTreeSet<Arc<str>>,
    /// What topics are like.
    pub(super) shapes: Shapes,
    /// What those were like that this member, as leader, assigned.
    pub(super) led: Option<Shapes>,
    /// Whether [`Self::shapes`] are of after that assignor looked at the topics, and not compared yet.
    pub(super) looked_since: bool,
    /// When this member, as leader, joins again if nobody gives up what it has withheld.
    pub(super) withheld_until: Option<Tick>,
    /// How often in a row it has withheld something.
    pub(super) withheld: u32,
    /// Whether the coordinator, answering the last request to join, made another member the leader.
    pub(super) follows: bool,
    /// Why it began to join, however often it has tried since; `None` once it has its assignment.
    pub(super) joins_for: Option<Reason>,
    /// Owned as told in requests to join since the last changeover. Others wait until what is not assigned again is given up,
    /// also if it was lost meanwhile.
    pub(super) claimed: BTreeSet<TopicPartition>,
    pub(super) coordinator: Coordinator,
    /// A commit of somebody who is no member needs the coordinator.
    pub(super) asked_for: bool,
    /// It has subscribed, and not chosen by hand since: others may be further than what it knows.
    was_member: bool,
    pub(super) member_id: Arc<str>,
    pub(super) generation: Option<i32>,
    pub(super) assignor: Arc<str>,
    /// Generation in which the owned partitions were assigned.
    pub(super) held_since: Option<i32>,
    pub(super) owned: BTreeSet<TopicPartition>,
    /// A number for each time that a partition was taken over, as long as it is owned.
    pub(super) tenures: BTreeMap<TopicPartition, u64>,
    /// Owned partitions that the listener is told to give up. They can be committed until it returns.
    pub(super) going: BTreeSet<TopicPartition>,
    pub(super) calls: VecDeque<Call>,
    pub(super) calling: Option<Calling>,
    /// Join again once the present changeover is done.
    pub(super) again: Option<Reason>,
    /// The request of a changeover that was under way when the member began to end: it goes on, because only in the
    /// generation that it leads to can what is done be committed.
    pub(super) aside: Option<u64>,
    pub(super) starting: Starting,
    pub(super) commits: BTreeMap<u64, UnderWay>,
    /// Something was given up or lost: commits of it must not leave any more.
    pub(super) shrunk: bool,
    /// Heartbeat under way, and when it was sent.
    pub(super) beating: Option<(u64, Tick)>,
    pub(super) next_beat: Tick,
    /// The coordinator counts the session from here on at the earliest.
    pub(super) alive: Tick,
    /// When it may have heard of this member last, for all that is known.
    pub(super) heard: Tick,
    /// When the application last asked for records; `None` while it waits for some.
    polled: Option<Tick>,
    /// Since when somebody has had records without asking for more.
    held: Option<Tick>,
    pub(super) retry_at: Option<Tick>,
    pub(super) failures: u32,
    /// Attempts to join in a row that came to no assignment.
    pub(super) vain: u32,
    tickets: u64,
}

impl Membership {
    /// A member of no group yet. `rng` spreads retries.
    pub fn new(settings: GroupSettings, rng: fastrand::Rng) -> Self {
        Self {
            settings,
            rng,
            phase: Phase::Idle,
            topics: None,
            told_topics: BTreeSet::new(),
            shapes: Shapes::new(),
            led: None,
            looked_since: false,
            withheld_until: None,
            withheld: 0,
            follows: false,
            joins_for: None,
            claimed: BTreeSet::new(),
            coordinator: Coordinator::Unknown,
            asked_for: false,
            was_member: false,
            member_id: "".into(),
            generation: None,
            assignor: "".into(),
            held_since: None,
            owned: BTreeSet::new(),
            tenures: BTreeMap::new(),
            going: BTreeSet::new(),
            calls: VecDeque::new(),
            calling: None,
            again: None,
            aside: None,
            starting: Starting::default(),
            commits: BTreeMap::new(),
            shrunk: false,
            beating: None,
            next_beat: Tick::ZERO,
            alive: Tick::ZERO,
            heard: Tick::ZERO,
            polled: Some(Tick::ZERO),
            held: None,
            retry_at: None,
            failures: 0,
            vain: 0,
            tickets: 0,
        }
    }

    /// Applies one event. Effects are appended to `out`; `now` never decreases.
    pub fn step(&mut self, now: Tick, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Subscribe(topics) => self.subscribe(now, topics),
            Event::Matched(topics) => self.matched(topics),
            Event::Unsubscribe => self.end(Reason::Unsubscribed, false),
            Event::Close => self.end(Reason::Closed, true),
            Event::Polled(at) => {
                self.polled = at;
                self.come_back(now);
            }
            Event::Held(since) => {
                self.held = since;
                self.come_back(now);
            }
            Event::Topics(shapes) => self.look_at(shapes),
            Event::Coordinator(answer) => self.found(now, answer, out),
            Event::Join(ticket, answer) => self.join_answered(now, ticket, answer, out),
            Event::Led(ticket, chosen) => self.led(now, ticket, chosen, out),
            Event::Sync(ticket, answer) => self.sync_answered(now, ticket, answer, out),
            Event::Heartbeat(ticket, answer) => self.beaten(now, ticket, answer, out),
            Event::Left(ticket, answer) => self.left(now, ticket, answer, out),
            Event::Told(id) => self.told(id),
            Event::ByHand(partitions) => self.by_hand(partitions),
            Event::Want(partitions) => self.want(partitions),
            Event::Commit(id, offsets) => self.commit(id, offsets, out),
            Event::Committed(id, answer) => self.committed(now, id, answer, out),
            Event::Offsets(ticket, answer) => self.offsets(now, ticket, answer, out),
        }
        self.proceed(now, out);
    }

    /// Fires whatever is due at `now`.
    pub fn on_deadline(&mut self, now: Tick, out: &mut Vec<Effect>) {
        if let Some(calling) = self.calling.take_if(|calling| calling.deadline <= now) {
            out.push(Effect::Abandon(calling.id));
            self.returned(calling.call);
        }
        if self.session_ends().is_some_and(|at| at <= now) {
            self.coordinator = Coordinator::Unknown;
            self.lose(Reason::SessionTimedOut, out);
            self.prepare(Reason::SessionTimedOut);
        }
        if self.poll_ends().is_some_and(|at| at <= now) {
            self.stall(out);
        }
        if self.withheld_until.take_if(|at| *at <= now).is_some() {
            self.rejoin(Reason::Rebalance);
        }
        self.proceed(now, out);
    }

    /// When [`Self::on_deadline`] wants to run next.
    pub fn deadline(&self) -> Option<Tick> {
        let calling = self.calling.as_ref().map(|calling| calling.deadline);
        let beat =
            (self.beats() && self.beating.is_none() && self.known().is_some()).then_some(self.next_beat);
        let starting = self.starting.retry_at.filter(|_| !self.starting.wanted.is_empty());
        let waits = matches!(self.phase, Phase::Preparing(_)) || self.waits_to_leave();
        let retry = self.retry_at.filter(|_| waits || self.wants_coordinator());
        let forgotten = self.waits_to_leave().then(|| self.forgotten_at());
        let part = self.owes_its_part().then(|| self.part_ends());
        let ends = [self.session_ends(), self.poll_ends(), forgotten, part];
        [calling, beat, starting, retry, self.withheld_until].into_iter().chain(ends).flatten().min()
    }

    /// Partitions that this member owns, also those that it is giving up.
    pub fn owned(&self) -> &BTreeSet<TopicPartition> {
        &self.owned
    }

    /// Tells one time of owning a partition from the next; `None` if it is not owned.
    pub fn tenure(&self, partition: &TopicPartition) -> Option<u64> {
        self.tenures.get(partition).filter(|_| self.owned.contains(partition)).copied()
    }

    /// Generation of the group, if this is a member.
    pub fn generation(&self) -> Option<i32> {
        self.generation
    }

    /// Id given by the coordinator; empty at first.
    pub fn member_id(&self) -> &Arc<str> {
        &self.member_id
    }

    /// `true` if the member has its assignment and knows of no change.
    pub fn is_stable(&self) -> bool {
        self.phase == Phase::Stable && self.calling.is_none() && self.calls.is_empty()
    }

    /// `true` if the member has left because nobody polls; [`Event::Polled`] brings it back.
    pub fn is_stalled(&self) -> bool {
        self.phase == Phase::Stalled
    }

    /// Since when somebody has records without asking for more, as it was last told.
    pub fn held_since(&self) -> Option<Tick> {
        self.held
    }

    /// `true` if the application was last told to be waiting for records.
    pub fn is_waited_for(&self) -> bool {
        self.polled.is_none()
    }

    /// `true` if the member is in no group and on the way to none.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Failed | Phase::Closed)
    }

    /// The group's coordinator, if it is known.
    pub fn coordinator(&self) -> Option<i32> {
        self.known()
    }

    fn subscribe(&mut self, now: Tick, topics: BTreeSet<Arc<str>>) {
        let same = self.topics.as_ref() == Some(&topics);
        self.topics = Some(topics);
        self.was_member = true;
        self.polled = self.polled.map(|_| now);
        match self.phase {
            Phase::Idle | Phase::Failed => {
                self.starting = Starting::default();
                self.joins_for = None;
                self.phase = Phase::Preparing(Reason::SubscriptionChanged);
            }
            // Nobody has to give anything up for what changes nothing.
            _ if same => {}
            _ => self.rejoin(Reason::SubscriptionChanged),
        }
    }

    fn matched(&mut self, topics: BTreeSet<Arc<str>>) {
        if self.topics.as_ref().is_some_and(|before| *before != topics) {
            self.topics = Some(topics);
            self.rejoin(Reason::TopicsChanged);
        }
    }

    /// Joins again: at once, or when the present changeover is done.
    pub(super) fn rejoin(&mut self, reason: Reason) {
        match self.phase {
            Phase::Stable => self.phase = Phase::Preparing(reason),
            Phase::Joining(_) | Phase::Leading(_) | Phase::Syncing(_) | Phase::Adopting(_) => {
                self.again = Some(reason);
            }
            // The JoinGroup to come tells the topics.
            Phase::Preparing(_) if reason != Reason::Rebalance => self.joins_for = Some(reason),
            _ => {}
        }
    }

    /// Begins the way to a JoinGroup anew; what is under way does not count any more.
    pub(super) fn prepare(&mut self, reason: Reason) {
        use Phase::{Adopting, Joining, Leading, Preparing, Stable, Syncing};
        if matches!(self.phase, Preparing(_) | Joining(_) | Leading(_) | Syncing(_) | Adopting(_) | Stable) {
            self.phase = Preparing(reason);
            self.again = None;
        }
    }

    fn end(&mut self, reason: Reason, for_good: bool) {
        self.topics = None;
        self.again = None;
        // A pause before a JoinGroup is none before a LeaveGroup.
        self.retry_at.take_if(|_| self.coordinator != Coordinator::Unknown);
        if let Phase::Joining(ticket) | Phase::Leading(ticket) | Phase::Syncing(ticket) = self.phase {
            self.aside = Some(ticket);
        }
        self.phase = match self.phase {
            Phase::Closed => Phase::Closed,
            Phase::Leaving(ticket, reason, before) => Phase::Leaving(ticket, reason, before || for_good),
            Phase::Ending(_, true) => return,
            _ => Phase::Ending(reason, for_good),
        };
    }

    /// Who has stalled is back once the application asks for records again, and whoever had some has done so.
    fn come_back(&mut self, now: Tick) {
        if self.phase == Phase::Stalled && self.polling_ends().is_none_or(|at| at > now) {
            self.phase = match self.topics {
                Some(_) => Phase::Preparing(Reason::PollStalled),
                None => Phase::Idle,
            };
        }
    }

    fn look_at(&mut self, shapes: Shapes) {
        self.shapes = shapes;
        self.looked_since = true;
    }

    /// Why this leader has to join again: the topics are not what it assigned.
    pub(super) fn outdated(&self) -> Option<Reason> {
        let led = self.led.as_ref().filter(|_| self.looked_since)?;
        let changed = |(topic, now): (&Arc<str>, _)| Some((led.get(topic)?, now));
        let differs = |(before, now): &(&TopicShape, &TopicShape)| now.differs(before);
        let (before, now) = self.shapes.iter().filter_map(changed).find(differs)?;
        Some(match before.partitions == 0 || now.partitions == 0 {
            true => Reason::TopicsChanged,
            false => Reason::PartitionsChanged,
        })
    }

    /// Topics of the group, if this is its leader: some may be of interest to others only.
    pub fn led_topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.led.iter().flat_map(|led| led.keys())
    }

    /// Leaves because nobody polls. A static member just falls silent, so that it gets the same when it is back.
    fn stall(&mut self, out: &mut Vec<Effect>) {
        self.leave(Reason::PollStalled, out);
        self.lose(Reason::PollStalled, out);
        if !planted(Bug::CommitAfterLoss) {
            self.member_id = "".into();
        }
        self.again = None;
        // Whatever it was about to join for.
        self.joins_for = None;
        self.phase = Phase::Stalled;
    }

    /// Sends a LeaveGroup if there is somebody to send it to, by the ticket that is returned.
    pub(super) fn leave(&mut self, reason: Reason, out: &mut Vec<Effect>) -> Option<u64> {
        let coordinator = self.known().filter(|_| self.has_to_leave())?;
        let ticket = self.ticket();
        out.push(Effect::Leave { ticket, coordinator, member_id: self.member_id.clone(), reason });
        Some(ticket)
    }

    /// Whether the coordinator may know this member, and is to be told that it goes.
    fn has_to_leave(&self) -> bool {
        !self.settings.is_static && !self.member_id.is_empty()
    }

    /// Whether this member ends, and owns nothing any more.
    fn has_given_up(&self) -> bool {
        let done = self.owned.is_empty() && self.calling.is_none() && self.calls.is_empty();
        matches!(self.phase, Phase::Ending(..)) && done
    }

    /// Whether this member has given everything up and looks for the coordinator to leave it.
    pub(super) fn waits_to_leave(&self) -> bool {
        let unable = self.known().is_none() || self.retry_at.is_some();
        self.has_given_up() && unable && self.has_to_leave()
    }

    /// When the coordinator has forgotten this member by itself.
    pub(super) fn forgotten_at(&self) -> Tick {
        self.heard.max(self.alive).saturating_add(self.settings.session)
    }

    /// Until when it goes on with its part: others that hear of a rebalance by their heartbeats have joined by then.
    pub(super) fn part_ends(&self) -> Tick {
        let beats = self.settings.heartbeat.saturating_mul(BEATS_TO_JOIN);
        self.heard.saturating_add(beats.min(self.settings.session))
    }

    /// Nothing is owned from here on.
    pub(super) fn lose(&mut self, reason: Reason, out: &mut Vec<Effect>) {
        self.generation = None;
        if !planted(Bug::CommitAfterLoss) {
            self.held_since = None;
        }
        self.led = None;
        self.withheld_until = None;
        if !self.settings.is_static {
            // whoever leaves makes the others join again
            self.claimed.clear();
        }
        self.aside = None;
        self.beating = None;
        self.starting = Starting::default();
        self.shrunk = true;
        let lost: Vec<_> = std::mem::take(&mut self.owned).difference(&self.going).cloned().collect();
        self.going.clear();
        if !lost.is_empty() {
            out.push(Effect::Stop(lost.clone()));
            self.calls.push_back(Call::Lost(lost, reason));
            self.joins_for = Some(reason);
        }
    }

    pub(super) fn fail(&mut self, why: Fatal, out: &mut Vec<Effect>) {
        self.lose(Reason::Failed, out);
        self.again = None;
        self.member_id = "".into();
        if !matches!(self.phase, Phase::Ending(..) | Phase::Leaving(..) | Phase::Closed) {
            self.phase = Phase::Failed;
            out.push(Effect::Fail(why));
        }
    }

    /// Out of the group.
    pub(super) fn gone(&mut self, for_good: bool, out: &mut Vec<Effect>) {
        self.aside = None;
        self.joins_for = None;
        self.member_id = "".into();
        self.generation = None;
        self.held_since = None;
        self.led = None;
        self.withheld_until = None;
        if for_good {
            self.phase = Phase::Closed;
            out.push(Effect::Closed);
        } else if self.topics.is_some() {
            self.phase = Phase::Preparing(Reason::SubscriptionChanged);
        } else {
            self.phase = Phase::Idle;
        }
    }

    fn told(&mut self, id: u64) {
        if let Some(calling) = self.calling.take_if(|calling| calling.id == id) {
            self.returned(calling.call);
        }
    }

    fn returned(&mut self, call: Call) {
        match call {
            Call::Revoked(..) => {
                self.owned = &self.owned - &self.going;
                self.shrunk = true;
                self.starting.wanted = &self.starting.wanted - &self.going;
                self.going.clear();
            }
            Call::Assigned(partitions, _) => {
                self.starting.wanted.extend(partitions.into_iter().filter(|name| self.owned.contains(name)));
            }
            Call::Lost(..) => {}
        }
    }

    /// Tells the listener whatever comes next.
    pub(super) fn call(&mut self, now: Tick, out: &mut Vec<Effect>) -> bool {
        if self.calling.is_some() {
            return false;
        }
        let Some(call) = self.calls.pop_front() else {
            return false;
        };
        let id = self.ticket();
        out.push(Effect::Tell(id, call.clone()));
        self.calling = Some(Calling { id, call, deadline: now.saturating_add(self.settings.max_poll) });
        true
    }

    fn commit(&mut self, id: u64, offsets: Offsets, out: &mut Vec<Effect>) {
        let alone = self.is_alone();
        let past = self.held_since.filter(|_| planted(Bug::CommitAfterLoss));
        let foreign = offsets.keys().find(|name| !alone && !self.owned.contains(*name) && past.is_none());
        self.asked_for |= alone && !offsets.is_empty();
        let refusal = match (foreign, self.known()) {
            _ if offsets.is_empty() => Ok(()),
            (Some(name), _) => Err(CommitRefusal::NotOwned(name.clone())),
            (None, None) => Err(CommitRefusal::Later(Refusal::NoAnswer)),
            (None, Some(coordinator)) => {
                let member_id = self.member_id.clone();
                let generation = self.generation.or(past).unwrap_or(-1);
                let partitions = offsets.keys().cloned().collect();
                let synced = !self.is_joining();
                self.commits.insert(id, UnderWay { generation: self.generation, synced, partitions });
                return out.push(Effect::Commit { id, coordinator, member_id, generation, offsets });
            }
        };
        out.push(Effect::CommitDone(id, refusal));
    }

    /// Calls back what was to be committed and is not owned any more: a request may wait for its connection.
    pub(super) fn recall(&mut self, out: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.shrunk) || planted(Bug::CommitAfterLoss) {
            return;
        }
        let owned = &self.owned;
        let gone = |commit: &UnderWay| {
            let gone = commit.partitions.iter().find(|name| !owned.contains(*name));
            gone.filter(|_| commit.generation.is_some()).cloned()
        };
        let void: Vec<_> =
            self.commits.iter().filter_map(|(id, commit)| Some((*id, gone(commit)?))).collect();
        for (id, name) in void {
            self.commits.remove(&id);
            out.push(Effect::Recall(id));
            out.push(Effect::CommitDone(id, Err(CommitRefusal::NotOwned(name))));
        }
    }

    /// Whether it has asked for an assignment that it does not have yet.
    pub(super) fn is_joining(&self) -> bool {
        let joining = matches!(self.phase, Phase::Joining(_) | Phase::Leading(_) | Phase::Syncing(_));
        joining || self.aside.is_some()
    }

    /// Whether the group waits for what this member has begun: a static one does not leave, so if the coordinator made it the leader,
    /// or is going to, nobody would have an assignment, or could commit, as long as its session lasts.
    pub(super) fn owes_its_part(&self) -> bool {
        let able = self.settings.is_static && self.known().is_some() && !self.follows;
        self.has_given_up() && able && self.aside.is_some()
    }

    /// Whether this is no member, and commits all the same.
    fn is_alone(&self) -> bool {
        let out = self.topics.is_none() && matches!(self.phase, Phase::Idle | Phase::Failed);
        self.settings.alone && out && !self.was_member
    }

    fn by_hand(&mut self, partitions: Vec<TopicPartition>) {
        if self.topics.is_none() && matches!(self.phase, Phase::Idle | Phase::Failed) {
            self.was_member = false;
            self.starting = Starting::default();
            self.want(partitions);
        }
    }

    fn want(&mut self, partitions: Vec<TopicPartition>) {
        let alone = self.is_alone();
        if alone {
            self.phase = Phase::Idle;
        }
        let mine = partitions.into_iter().filter(|name| alone || self.owned.contains(name));
        let mine: Vec<_> = mine.collect();
        self.starting.since.extend(mine.iter().cloned());
        self.starting.wanted.extend(mine);
    }

    pub(super) fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    pub(super) fn known(&self) -> Option<i32> {
        match self.coordinator {
            Coordinator::Known(id) => Some(id),
            _ => None,
        }
    }

    pub(super) fn wants_coordinator(&self) -> bool {
        use Phase::{Adopting, Ending, Leading, Preparing, Stable, Syncing};
        // Who ends has something to commit, and to leave.
        let ends = matches!(self.phase, Ending(..)) && (self.generation.is_some() || self.has_to_leave());
        let member =
            ends || matches!(self.phase, Preparing(_) | Leading(_) | Syncing(_) | Adopting(_) | Stable);
        let alone = self.is_alone() && (self.asked_for || !self.starting.wanted.is_empty());
        (member || alone) && self.coordinator == Coordinator::Unknown
    }

    /// Whether the coordinator expects heartbeats.
    pub(super) fn beats(&self) -> bool {
        use Phase::{Adopting, Ending, Leading, Preparing, Stable, Syncing};
        let waiting =
            matches!(self.phase, Preparing(_) | Leading(_) | Syncing(_) | Adopting(_) | Stable | Ending(..));
        waiting && self.generation.is_some() && self.aside.is_none() && !self.waits_to_leave()
    }

    fn session_ends(&self) -> Option<Tick> {
        self.beats().then(|| self.alive.saturating_add(self.settings.session))
    }

    fn poll_ends(&self) -> Option<Tick> {
        use Phase::{Adopting, Joining, Leading, Preparing, Stable, Syncing};
        let counts =
            matches!(self.phase, Preparing(_) | Joining(_) | Leading(_) | Syncing(_) | Adopting(_) | Stable);
        self.polling_ends().filter(|_| counts)
    }

    /// When `max.poll.interval.ms` is over: of who has records, or else of the last call for some.
    fn polling_ends(&self) -> Option<Tick> {
        Some(self.held.or(self.polled)?.saturating_add(self.settings.max_poll))
    }
}
