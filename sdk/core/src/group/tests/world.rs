//! Members and a coordinator that lose, delay and misplace each other's messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_wire::ErrorCode;
use klamm_wire::planted::{Bug, plant};
use proptest::prelude::*;

use super::coordinator::{Answers, Caller, Coordinator};
use super::one::settings;
use crate::assign::*;
use crate::group::*;
use crate::{Tick, TopicPartition};

const MS: Tick = Duration::from_millis(1);
const S: Tick = Duration::from_secs(1);

enum Message {
    /// An effect of a client on its way; the incarnation that sent it.
    Out(usize, u32, Effect),
    /// An event on its way to an incarnation of a client.
    In(usize, u32, Event),
    /// Topics on their way to an incarnation of a client, which hears how they are by then.
    Look(usize, u32),
}

struct Client {
    member: Membership,
    /// Of a static member.
    instance: Option<Arc<str>>,
    incarnation: u32,
    /// The ticket of the last request to join that has arrived.
    joined: u64,
    /// How often the coordinator had moved when it was fenced.
    fenced: u32,
    /// Added and neither lost nor told to be revoked.
    held: BTreeSet<TopicPartition>,
    /// As the listener knows it.
    told: BTreeSet<TopicPartition>,
    /// What was stopped and not told yet, and whether it was committed since: what is lost must not be.
    stopped: BTreeMap<TopicPartition, bool>,
    calling: Option<(u64, Call)>,
    generation: i32,
    commits: u64,
    stopped_polling: bool,
}

struct World {
    rng: fastrand::Rng,
    now: Tick,
    protocol: RebalanceProtocol,
    clients: Vec<Client>,
    coordinator: Coordinator,
    on_the_way: BTreeMap<(Tick, u64), Message>,
    sent: u64,
    /// Trouble is over.
    calm: bool,
    topics: BTreeMap<Arc<str>, usize>,
    /// Who was assigned what in each generation.
    given: BTreeMap<(i32, TopicPartition), usize>,
    rebalances: usize,
    losses: usize,
    commits: usize,
}

impl World {
    fn new(seed: u64, protocol: RebalanceProtocol) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let told = settings(protocol, false);
        let mut world = Self {
            now: S,
            protocol,
            clients: Vec::new(),
            coordinator: Coordinator::new(told.session, told.max_poll),
            on_the_way: BTreeMap::new(),
            sent: 0,
            calm: false,
            topics: [("t".into(), 5), ("u".into(), 3)].into(),
            given: BTreeMap::new(),
            rebalances: 0,
            losses: 0,
            commits: 0,
            rng: rng.fork(),
        };
        for _ in 0..rng.usize(1..5) {
            let instance = (rng.u8(..3) == 0).then(|| format!("i{}", world.clients.len()).into());
            let client = world.newcomer(0, instance);
            world.clients.push(client);
            world.look(world.clients.len() - 1);
        }
        world
    }

    fn newcomer(&mut self, incarnation: u32, instance: Option<Arc<str>>) -> Client {
        let told = settings(self.protocol, instance.is_some());
        Client {
            member: Membership::new(told, self.rng.fork()),
            instance,
            incarnation,
            joined: 0,
            fenced: 0,
            held: BTreeSet::new(),
            told: BTreeSet::new(),
            stopped: BTreeMap::new(),
            calling: None,
            generation: -1,
            commits: 0,
            stopped_polling: false,
        }
    }

    /// A newcomer gets to know the topics.
    fn look(&mut self, at: usize) {
        let delay = self.delay();
        self.send(delay, Message::Look(at, self.clients[at].incarnation));
    }

    fn send(&mut self, delay: Tick, message: Message) {
        self.sent += 1;
        self.on_the_way.insert((self.now + delay, self.sent), message);
    }

    fn delay(&mut self) -> Tick {
        let slow = !self.calm && self.rng.u8(..) < 12;
        MS * self.rng.u32(1..if slow { 8_000 } else { 20 })
    }

    fn lost(&mut self) -> bool {
        !self.calm && self.rng.u8(..) < 8
    }

    fn step(&mut self, client: usize, event: Event) {
        let mut out = Vec::new();
        self.clients[client].member.step(self.now, event, &mut out);
        self.carry_out(client, out);
    }

    fn carry_out(&mut self, at: usize, effects: Vec<Effect>) {
        assert!(effects.len() < 30, "a flood: {effects:?}");
        for effect in effects {
            let incarnation = self.clients[at].incarnation;
            let client = &mut self.clients[at];
            match effect {
                Effect::Add(partitions) => {
                    client.held.extend(partitions);
                    self.share_generations(at);
                }
                Effect::Stop(partitions) => {
                    client.stopped.extend(partitions.into_iter().map(|name| (name, false)));
                }
                Effect::Start(_) | Effect::Closed => {}
                // The place was taken at a coordinator that did not write it down: whoever starts it again gets it.
                Effect::Fail(Fatal::Refused(ErrorCode::FENCED_INSTANCE_ID))
                    if self.coordinator.moves > client.fenced && client.instance.is_some() =>
                {
                    self.restart(at);
                    self.clients[at].fenced = self.coordinator.moves;
                    return;
                }
                Effect::Fail(why) => panic!("failed: {why}"),
                Effect::Abandon(id) => {
                    let (calling, call) = client.calling.take().expect("a call to abandon");
                    assert_eq!(calling, id);
                    client.heard(&call);
                }
                Effect::Adopt(_, assignment, generation) => {
                    client.generation = generation;
                    self.rebalances += 1;
                    for name in assignment.partitions {
                        let owner = *self.given.entry((generation, name.clone())).or_insert(at);
                        assert_eq!(owner, at, "{name} has two owners in generation {generation}");
                    }
                    self.share_generations(at);
                }
                Effect::Tell(id, call) => self.tell(at, id, call),
                Effect::Lead { .. } => self.send(MS, Message::Out(at, incarnation, effect)),
                Effect::CommitDone(..) | Effect::Recall(_) => {}
                Effect::Commit { ref offsets, .. } => {
                    for name in offsets.keys() {
                        assert!(client.held.contains(name), "{name} is committed and not held");
                        client.stopped.entry(name.clone()).and_modify(|committed| *committed = true);
                        self.commits += 1;
                    }
                    self.post(at, incarnation, effect);
                }
                Effect::Join { ref owned, .. } => {
                    assert!(client.calling.is_none(), "joins while a listener is called");
                    let held: Vec<_> = client.held.iter().cloned().collect();
                    assert_eq!(*owned, held, "what it says is not what it holds");
                    assert!(self.protocol == RebalanceProtocol::Cooperative || owned.is_empty());
                    self.post(at, incarnation, effect);
                }
                other => self.post(at, incarnation, other),
            }
        }
    }

    /// Whoever has its assignment of a generation holds nothing that another member of it holds.
    fn share_generations(&self, at: usize) {
        let this = &self.clients[at];
        let same = |(other, client): &(usize, &Client)| *other != at && client.generation == this.generation;
        for (other, client) in self.clients.iter().enumerate().filter(same) {
            let both: Vec<_> = client.held.intersection(&this.held).collect();
            assert!(both.is_empty(), "{at} and {other} hold {both:?} in generation {}", this.generation);
        }
    }

    fn tell(&mut self, at: usize, id: u64, call: Call) {
        let client = &mut self.clients[at];
        assert!(client.calling.is_none(), "two calls at a time");
        match &call {
            Call::Assigned(partitions, _) => {
                for name in partitions {
                    assert!(!client.told.contains(name), "{name} assigned twice");
                    assert!(client.held.contains(name));
                }
            }
            Call::Revoked(partitions, _) => {
                assert!(
                    partitions.iter().all(|name| client.told.contains(name) && client.held.contains(name))
                );
                client.stopped.retain(|name, _| !partitions.contains(name));
            }
            Call::Lost(partitions, _) => {
                self.losses += 1;
                for name in partitions {
                    assert!(client.told.contains(name), "{name} lost and never assigned");
                    client.held.remove(name);
                    let committed = client.stopped.remove(name);
                    assert_eq!(committed, Some(false), "{name} is lost, and committed since");
                }
            }
        }
        client.calling = Some((id, call));
        let slow = !self.calm && self.rng.u8(..) < 10;
        let takes = MS * self.rng.u32(1..if slow { 80_000 } else { 300 });
        let incarnation = self.clients[at].incarnation;
        self.send(takes, Message::In(at, incarnation, Event::Told(id)));
    }

    /// Sends a request off, or loses it.
    fn post(&mut self, at: usize, incarnation: u32, effect: Effect) {
        if self.lost() {
            return self.unanswered(at, incarnation, &effect);
        }
        let delay = self.delay();
        self.send(delay, Message::Out(at, incarnation, effect));
    }

    fn unanswered(&mut self, at: usize, incarnation: u32, effect: &Effect) {
        let none = Refusal::NoAnswer;
        let event = match effect {
            Effect::FindCoordinator => Event::Coordinator(Err(none)),
            Effect::Join { ticket, .. } => Event::Join(*ticket, JoinAnswer::Refused(none)),
            Effect::Sync { ticket, .. } => Event::Sync(*ticket, Err(none)),
            Effect::Heartbeat { ticket, .. } => Event::Heartbeat(*ticket, Err(none)),
            Effect::FetchOffsets { ticket, .. } => Event::Offsets(*ticket, Err(none)),
            Effect::Commit { id, .. } => Event::Committed(*id, Err(none)),
            Effect::Leave { ticket, .. } => Event::Left(*ticket, Err(none)),
            other => panic!("not a request: {other:?}"),
        };
        let after = MS * self.rng.u32(1..5_000);
        self.send(after, Message::In(at, incarnation, event));
    }

    fn arrive(&mut self, at: usize, incarnation: u32, effect: &Effect) {
        let now = self.now;
        let mut out = Answers::new();
        let caller: Caller = (at, incarnation);
        let waiter = |ticket| (caller, ticket);
        let instance = self.clients[at].instance.clone();
        let instance = instance.as_ref();
        match effect.clone() {
            Effect::FindCoordinator => {
                let away = now < self.coordinator.away_until;
                let none = Refusal::Code(ErrorCode::COORDINATOR_NOT_AVAILABLE);
                out.push((
                    caller,
                    Event::Coordinator(if away { Err(none) } else { Ok(self.coordinator.node) }),
                ));
            }
            // Late, it would fence the life that came after it.
            Effect::Join { ticket, .. }
                if instance.is_some() && self.is_overtaken(at, incarnation, ticket) =>
            {
                return self.unanswered(at, incarnation, effect);
            }
            Effect::Join { ticket, coordinator, member_id, topics, owned, generation, .. } => {
                self.clients[at].joined = ticket;
                let topics = topics.into_iter().collect();
                let subscription = Subscription { topics, owned, generation, ..Subscription::default() };
                let metadata = write_subscription(&subscription, 3);
                let identity = (&member_id, instance);
                self.coordinator.join(now, coordinator, waiter(ticket), identity, metadata, &mut out);
            }
            Effect::Lead { ticket, members, stands, .. } => {
                let chosen = if stands { self.what_stands() } else { self.lead(&members) };
                out.push((caller, Event::Led(ticket, Ok(chosen))));
            }
            Effect::Sync { ticket, coordinator, member_id, generation, assignments, .. } => {
                let waiter = waiter(ticket);
                self.coordinator.sync(
                    now,
                    coordinator,
                    waiter,
                    (&member_id, instance),
                    generation,
                    assignments,
                    &mut out,
                );
            }
            Effect::Heartbeat { ticket, coordinator, member_id, generation } => {
                let answer = self.coordinator.heartbeat(now, coordinator, (&member_id, instance), generation);
                out.push((caller, Event::Heartbeat(ticket, answer)));
            }
            Effect::Commit { id, coordinator, member_id, generation, offsets } => {
                let answer = self.coordinator.commit(now, coordinator, (&member_id, instance), generation);
                for name in offsets.keys().filter(|_| answer.is_ok()) {
                    let owner = self.coordinator.owner(name);
                    assert!(
                        owner.is_none_or(|owner| *owner == member_id),
                        "{member_id} commits {name} of {owner:?}"
                    );
                }
                out.push((caller, Event::Committed(id, answer)));
            }
            Effect::FetchOffsets { ticket, partitions, .. } => {
                let found =
                    partitions.into_iter().map(|name| (name, Some(CommittedOffset::new(3)))).collect();
                out.push((caller, Event::Offsets(ticket, Ok(found))));
            }
            Effect::Leave { ticket, coordinator, member_id, .. } => {
                let answer = self.coordinator.leave(now, coordinator, &member_id, &mut out);
                out.push((caller, Event::Left(ticket, answer)));
            }
            other => panic!("not a request: {other:?}"),
        }
        let request = !matches!(effect, Effect::Lead { .. });
        if request && out.iter().any(|(to, _)| *to == caller) && self.lost() {
            // The coordinator did it, and the client never hears.
            out.retain(|(to, _)| *to != caller);
            self.unanswered(at, incarnation, effect);
        }
        self.deliver(out);
    }

    /// Whether a later request to join, or a later life's, is here already.
    fn is_overtaken(&self, at: usize, incarnation: u32, ticket: u64) -> bool {
        let client = &self.clients[at];
        client.incarnation != incarnation || ticket < client.joined
    }

    fn deliver(&mut self, answers: Answers) {
        for ((at, incarnation), event) in answers {
            let delay = self.delay();
            self.send(delay, Message::In(at, incarnation, event));
        }
    }

    fn lead(&self, members: &[JoinedMember]) -> Chosen {
        let member = |told: &JoinedMember| Member {
            id: told.id.clone(),
            instance: None,
            subscription: read_subscription(told.metadata.clone()).expect("ours"),
        };
        let members: Vec<Member> = members.iter().map(member).collect();
        let mut known = Topics::default();
        for (topic, count) in &self.topics {
            known.insert(topic.clone(), *count);
        }
        let given = match self.protocol {
            RebalanceProtocol::Eager => RangeAssignor.assign(&known, &members),
            RebalanceProtocol::Cooperative => CooperativeStickyAssignor::default().assign(&known, &members),
        };
        let given = given.expect("cannot fail");
        let mut claimed = members.iter().flat_map(|member| &member.subscription.owned);
        let taken = |name: &TopicPartition| given.values().any(|each| each.partitions.contains(name));
        let withheld = claimed.any(|name| !taken(name));
        let bytes = |(id, assignment)| (id, write_assignment(&assignment, 3));
        let assignments = given.into_iter().map(bytes).collect();
        Chosen { assignments, shapes: self.shapes(), withheld }
    }

    /// What a static leader that is back finds assigned: nothing, if nobody tells it.
    fn what_stands(&mut self) -> Chosen {
        let untold = self.lost();
        let assigned = if untold { BTreeMap::new() } else { self.coordinator.assigned() };
        let count = |topic| TopicShape::new(assigned.get(topic).copied().unwrap_or(0));
        let shapes = self.topics.keys().map(|topic| (topic.clone(), count(topic))).collect();
        Chosen { assignments: Vec::new(), shapes, withheld: false }
    }

    fn shapes(&self) -> Shapes {
        self.topics.iter().map(|(topic, count)| (topic.clone(), TopicShape::new(*count))).collect()
    }

    fn disturb(&mut self) {
        let at = self.rng.usize(..self.clients.len());
        match self.rng.u8(..14) {
            0 => self.restart(at),
            1 => self.subscribe(at),
            2 => self.move_coordinator(4_000),
            3 => {
                // One grows, the other is deleted and created again.
                *self.topics.entry("t".into()).or_default() += 1;
                let other = self.topics.entry("u".into()).or_default();
                *other = if *other == 0 { 3 } else { 0 };
                for client in 0..self.clients.len() {
                    self.step(client, Event::Topics(self.shapes()));
                }
            }
            4 => self.clients[at].stopped_polling ^= true,
            5 => self.step(at, Event::Unsubscribe),
            6 => {
                self.step(at, Event::Unsubscribe);
                self.subscribe(at);
            }
            _ => self.commit(at),
        }
    }

    fn restart(&mut self, at: usize) {
        let Client { incarnation, fenced, ref instance, .. } = self.clients[at];
        let instance = instance.clone();
        self.clients[at] = Client { fenced, ..self.newcomer(incarnation + 1, instance) };
        self.look(at);
        self.subscribe(at);
    }

    fn move_coordinator(&mut self, most_ms: u32) {
        let until = self.now + MS * self.rng.u32(1..most_ms);
        let mut out = Answers::new();
        self.coordinator.move_away(self.now, until, &mut out);
        self.deliver(out);
    }

    fn commit(&mut self, at: usize) {
        self.clients[at].commits += 1;
        let id = self.clients[at].commits;
        // Also what it has no more: the machine has to refuse that.
        let all = self.topics.iter().flat_map(|(topic, count)| {
            (0..*count as i32)
                .map(move |partition| (TopicPartition { topic: topic.clone(), partition }, 9.into()))
        });
        let all: Offsets = all.collect();
        let all_the_same = self.rng.u8(..4) == 0;
        let told = self.clients[at].told.clone();
        let some = all.into_iter().filter(|(name, _)| all_the_same || told.contains(name)).collect();
        self.step(at, Event::Commit(id, some));
    }

    fn subscribe(&mut self, at: usize) {
        // Kafka does not look whether a static member is back with other topics.
        let others = !self.calm && self.clients[at].instance.is_none();
        let some: BTreeSet<Arc<str>> = match self.rng.u8(..4) {
            0 if others => ["t".into()].into(),
            1 if others => ["u".into()].into(),
            _ => ["t".into(), "u".into()].into(),
        };
        self.step(at, Event::Subscribe(some));
    }

    /// Goes on until `until`, with trouble every now and then unless it is calm.
    fn run(&mut self, until: Tick) {
        let mut steps = 0;
        let mut trouble = self.now;
        while self.now < until {
            steps += 1;
            assert!(steps < 200_000, "it never rests");
            let message = self.on_the_way.keys().next().map(|(at, _)| *at);
            let clients = self.clients.iter().filter_map(|client| client.member.deadline()).min();
            let next = [message, clients, self.coordinator.deadline(), Some(until), Some(trouble)];
            self.now = next.into_iter().flatten().min().expect("until").max(self.now);
            let due = self.on_the_way.first_entry().filter(|entry| entry.key().0 <= self.now);
            if let Some(message) = due.map(|entry| entry.remove()) {
                self.receive(message);
            }
            for at in 0..self.clients.len() {
                if !self.clients[at].stopped_polling {
                    self.step(at, Event::Polled(Some(self.now)));
                }
                let mut turns = 0;
                while self.clients[at].member.deadline().is_some_and(|due| due <= self.now) {
                    let mut out = Vec::new();
                    self.clients[at].member.on_deadline(self.now, &mut out);
                    self.carry_out(at, out);
                    turns += 1;
                    assert!(turns < 3, "it spins: {:?}", self.clients[at].member);
                }
            }
            if self.coordinator.deadline().is_some_and(|due| due <= self.now) {
                let mut out = Answers::new();
                self.coordinator.on_deadline(self.now, &mut out);
                self.deliver(out);
            }
            if trouble <= self.now {
                trouble = self.now + MS * self.rng.u32(100..6_000);
                if !self.calm {
                    self.disturb();
                }
            }
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Out(at, incarnation, effect) => {
                // What a dead client has sent still arrives; nobody hears the answer.
                self.arrive(at, incarnation, &effect);
            }
            Message::Look(at, incarnation) => {
                if self.clients[at].incarnation == incarnation {
                    self.step(at, Event::Topics(self.shapes()));
                }
            }
            Message::In(at, incarnation, event) => {
                if self.clients[at].incarnation != incarnation {
                    return;
                }
                if let Event::Told(id) = event {
                    let Some((_, call)) = self.clients[at].calling.take_if(|(calling, _)| *calling == id)
                    else {
                        return;
                    };
                    self.clients[at].heard(&call);
                }
                self.step(at, event);
            }
        }
    }

    fn settle(&mut self) {
        self.calm = true;
        for at in 0..self.clients.len() {
            self.clients[at].stopped_polling = false;
            self.subscribe(at);
        }
        let end = self.now + 400 * S;
        self.run(end);
        let mut owners = BTreeMap::new();
        for (at, client) in self.clients.iter().enumerate() {
            assert!(client.member.is_stable(), "member {at} is not at rest: {:?}", client.member);
            assert_eq!(client.generation, self.coordinator.generation);
            assert_eq!(client.held, client.told);
            assert_eq!(&client.held, client.member.owned());
            for name in &client.held {
                assert_eq!(owners.insert(name.clone(), at), None, "{name} has two owners at rest");
            }
        }
        let all: usize = self.topics.values().sum();
        assert_eq!(owners.len(), all, "some partitions have no owner");
    }

    /// Topics grow while members commit: whoever hears of it in two steps joins once, and so do all.
    fn grow(&mut self) {
        let before = self.coordinator.generation;
        *self.topics.entry("t".into()).or_default() += 1;
        let one_more = self.shapes();
        *self.topics.entry("t".into()).or_default() += 1;
        for at in 0..self.clients.len() {
            self.step(at, Event::Topics(one_more.clone()));
        }
        let soon = self.now + MS * self.rng.u32(0..15);
        self.run(soon);
        for at in 0..self.clients.len() {
            self.step(at, Event::Topics(self.shapes()));
        }
        let end = self.now + 20 * S;
        while self.now < end {
            let soon = self.now + MS * self.rng.u32(1..30);
            self.run(soon);
            let at = self.rng.usize(..self.clients.len());
            self.commit(at);
        }
        assert!(self.clients.iter().all(|client| client.member.is_stable()));
        let joined = self.coordinator.generation - before;
        assert_eq!(joined, 1, "generations for one change of topics");
    }

    /// All close while the coordinator moves: nobody is to be waited for until its session is over.
    fn desert(&mut self) {
        self.move_coordinator(2_000);
        for at in 0..self.clients.len() {
            let soon = self.now + MS * self.rng.u32(0..400);
            self.run(soon);
            self.step(at, Event::Close);
        }
        let end = self.now + 5 * S;
        self.run(end);
        assert!(self.coordinator.is_deserted(), "somebody has not left: {:?}", self.coordinator);
        // A static member may have had a part in a changeover, for three heartbeats.
        let end = self.now + 6 * S;
        self.run(end);
        for client in &self.clients {
            assert!(client.member.is_idle() && client.held.is_empty(), "{:?}", client.member);
        }
    }
}

impl Client {
    fn heard(&mut self, call: &Call) {
        match call {
            Call::Assigned(partitions, _) => self.told.extend(partitions.iter().cloned()),
            Call::Revoked(partitions, _) => {
                self.told.retain(|name| !partitions.contains(name));
                self.held.retain(|name| !partitions.contains(name));
            }
            Call::Lost(partitions, _) => self.told.retain(|name| !partitions.contains(name)),
        }
    }
}

fn live(seed: u64, protocol: RebalanceProtocol) -> (usize, usize, usize) {
    let mut world = World::new(seed, protocol);
    for at in 0..world.clients.len() {
        world.subscribe(at);
    }
    world.run(300 * S);
    world.settle();
    world.grow();
    world.desert();
    (world.rebalances, world.losses, world.commits)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn eager_groups_share_everything_once_and_come_to_rest(seed in any::<u64>()) {
        live(seed, RebalanceProtocol::Eager);
    }

    #[test]
    fn cooperative_groups_share_everything_once_and_come_to_rest(seed in any::<u64>()) {
        live(seed, RebalanceProtocol::Cooperative);
    }
}

#[test]
fn the_worlds_see_rebalances_losses_and_commits() {
    for protocol in [RebalanceProtocol::Eager, RebalanceProtocol::Cooperative] {
        let seen: Vec<_> = (0..10).map(|seed| live(seed, protocol)).collect();
        let rebalances: usize = seen.iter().map(|(rebalances, ..)| rebalances).sum();
        let losses: usize = seen.iter().map(|(_, losses, _)| losses).sum();
        let commits: usize = seen.iter().map(|(.., commits)| commits).sum();
        let busy = rebalances > 200 && losses > 10 && commits > 200;
        assert!(busy, "{rebalances} rebalances, {losses} losses, {commits} commits: too quiet");
    }
}

/// Goal: the worlds can fail. Each bug breaks one of their promises within a few seeds.
#[test]
fn the_worlds_find_members_that_keep_join_or_commit_what_they_must_not() {
    use RebalanceProtocol::{Cooperative, Eager};
    for (bug, protocol) in [
        (Bug::KeepRevoked, Cooperative),
        (Bug::JoinBeforeRevoked, Eager),
        (Bug::CommitAfterLoss, Cooperative),
    ] {
        let found = |seed| {
            let _planted = Planted::new(bug);
            std::panic::catch_unwind(|| live(seed, protocol)).is_err()
        };
        assert!((0..20).any(found), "no world finds {bug:?}");
    }
}

/// A bug in this thread until this is dropped.
struct Planted;

impl Planted {
    fn new(bug: Bug) -> Self {
        plant(Some(bug));
        Self
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        plant(None);
    }
}
