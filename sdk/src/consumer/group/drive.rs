//! The group task: it carries out the effects of the [`Membership`] and tells it what came of them.
//!
//! [`Membership`]: klamm_core::group::Membership

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use klamm_core::assign::{
    Assignment, Member, Subscription, Topics, read_subscription, write_assignment, write_subscription,
};
use klamm_core::group::{
    Call, Chosen, CommitRefusal, Effect, Event, Fatal, JoinedMember, Shapes, TopicShape,
};
use klamm_core::metadata::{ClusterMetadata, TopicMetadata};
use klamm_core::{Tick, TopicPartition};
use klamm_wire::ErrorCode;
use klamm_wire::planted::{Bug, planted};
use tokio::sync::oneshot;

use super::holders::Holders;
use super::listener::RebalanceContext;
use super::{CommitError, Group, GroupConfig, Machine, SharedAssignor};
use crate::consumer::ConsumerError;
use crate::rt::Task;

/// Version of subscriptions and assignments that are sent.
const METADATA_VERSION: i16 = 3;

struct Driver {
    group: Arc<Group>,
    asking: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
    /// Listener calls under way.
    calls: BTreeMap<u64, Task>,
    /// Dropped to call a commit back.
    commits: BTreeMap<u64, oneshot::Sender<()>>,
    /// Calls for records, when last looked at.
    polls: u64,
    commit_at: Option<Tick>,
    holders: Holders,
    look_at: Tick,
    /// Version of the metadata that the machine has.
    seen: Option<u64>,
    /// When to look at the topics again.
    keep_at: Tick,
}

/// Runs until it is aborted, or the membership is over.
pub(super) async fn drive(group: Arc<Group>) {
    let client = group.shared.client.clone();
    let mut driver = Driver {
        group,
        asking: FuturesUnordered::new(),
        calls: BTreeMap::new(),
        commits: BTreeMap::new(),
        polls: 0,
        commit_at: None,
        holders: Holders::default(),
        look_at: Tick::ZERO,
        seen: None,
        keep_at: Tick::ZERO,
    };
    while !driver.group.closed.load(Ordering::Acquire) {
        let changed = client.changed();
        driver.look();
        driver.keep_topics();
        let deadline = driver.turn().min(driver.keep_at);
        driver.group.ended.notify_waiters();
        tokio::select! {
            biased;
            Some(event) = driver.asking.next(), if !driver.asking.is_empty() => {
                // A leader's choice is compared with the topics as they are now.
                driver.look();
                if let Some(event) = event {
                    match event {
                        Event::Led(..) => driver.keep_at = Tick::ZERO,
                        Event::Committed(id, _) => drop(driver.commits.remove(&id)),
                        _ => {}
                    }
                    driver.group.step(event);
                }
            }
            () = driver.group.work.notified() => {}
            () = changed => {}
            () = client.rt().sleep_until(deadline) => {}
        }
    }
    driver.group.ended.notify_waiters();
}

/// What assignments depend on, of every topic of which that is known.
fn shapes(metadata: &ClusterMetadata, with_racks: bool) -> Shapes {
    let shape = |topic: &Arc<TopicMetadata>| match topic.error.is_ok() {
        true => Some((topic.name.clone(), shape(metadata, topic, with_racks))),
        false => topic.gone.then(|| (topic.name.clone(), TopicShape::default())),
    };
    metadata.topics.values().filter_map(shape).collect()
}

fn shape(metadata: &ClusterMetadata, topic: &TopicMetadata, with_racks: bool) -> TopicShape {
    let rack = |id: &i32| Some(metadata.brokers.get(id)?.rack.as_deref().map(Arc::from));
    let partitions = topic.partitions.iter().take_while(|_| with_racks);
    let racks = partitions.map(|partition| {
        let known: Option<Vec<Option<Arc<str>>>> = partition.replicas.iter().map(rack).collect();
        known.map(|racks| racks.into_iter().flatten().collect())
    });
    TopicShape { partitions: topic.partitions.len(), racks: racks.collect() }
}

impl Driver {
    /// Tells the machine what the topics are like, if that is news.
    fn look(&mut self) {
        let metadata = self.group.shared.client.metadata();
        if self.seen.replace(metadata.version) == Some(metadata.version) {
            return;
        }
        self.group.step(Event::Topics(shapes(&metadata, self.group.config.rack.is_some())));
        if let Some(matched) = &metadata.matched {
            self.group.matched(matched);
        }
    }

    /// Asks for topics that are not known yet, and keeps those that are from being forgotten: when they are others than before, and
    /// now and then. Topics that match a pattern are kept by that.
    fn keep_topics(&mut self) {
        let now = self.group.shared.now();
        let topics: BTreeSet<_> = {
            let machine = &mut *self.group.machine.lock();
            if !std::mem::take(&mut machine.resubscribed) && now < self.keep_at {
                return;
            }
            machine.topics.iter().chain(machine.membership.led_topics()).cloned().collect()
        };
        let client = &self.group.shared.client;
        let mut pause = client.settings().metadata_max_idle / 4;
        for topic in topics {
            match client.topic_now(&topic, self.group.shared.may_create()) {
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(error) => tracing::debug!(topic = &*topic, %error, "no metadata for a subscribed topic"),
            }
            // It may be refused, and allowed one day.
            pause = pause.min(self.group.config.heartbeat);
        }
        self.keep_at = now.saturating_add(pause);
    }

    /// Tells the machine the time and who polls, and carries out what it wants. Returns when to look again.
    fn turn(&mut self) -> Tick {
        let now = self.group.shared.now();
        let polls = self.group.shared.calls();
        let waits = self.group.waiting.load(Ordering::Relaxed) > 0;
        let polled = std::mem::replace(&mut self.polls, polls) != polls;
        let held = self.held_since(now);
        let beat = now.saturating_add(self.group.config.heartbeat).min(self.look_at);
        loop {
            let (effects, deadline) = {
                let Machine { membership, effects, .. } = &mut *self.group.machine.lock();
                if membership.held_since() != held {
                    membership.step(now, Event::Held(held), effects);
                }
                // Where the last call has come back, the application has its time from here on.
                if waits || polled || membership.is_waited_for() {
                    membership.step(now, Event::Polled(Some(now).filter(|_| !waits)), effects);
                }
                membership.on_deadline(now, effects);
                self.group.stalled.store(membership.is_stalled(), Ordering::Relaxed);
                (std::mem::take(effects), membership.deadline())
            };
            if effects.is_empty() {
                self.commit_by_itself(now);
                let next = [deadline, self.commit_at].into_iter().flatten().min();
                return next.map_or(beat, |next| next.min(beat));
            }
            for effect in effects {
                self.carry_out(effect);
            }
        }
    }

    /// Since when somebody has had records without coming back, looked at now and then.
    fn held_since(&mut self, now: Tick) -> Option<Tick> {
        let GroupConfig { heartbeat, max_poll, auto_commit, .. } = &*self.group.config;
        let overdue = self.holders.oldest().is_some_and(|since| since.saturating_add(*max_poll) <= now);
        if overdue || self.look_at <= now {
            self.look_at = now.saturating_add((*heartbeat).min(*max_poll / 4));
            self.holders.look(now, self.group.shared.holders(auto_commit.is_some()));
        }
        self.holders.oldest()
    }

    fn ask(&mut self, future: impl Future<Output = Event> + Send + 'static) {
        self.asking.push(future.map(Some).boxed());
    }

    fn carry_out(&mut self, effect: Effect) {
        let asker = self.group.asker();
        match effect {
            Effect::FindCoordinator => self.ask(asker.find()),
            Effect::Join { ticket, coordinator, member_id, topics, owned, generation, limit } => {
                if self.group.is_following() {
                    // Members whose metadata are older than those of the one who began this would begin the next ones.
                    self.group.shared.client.request_refresh("the group rebalances");
                }
                let protocols = self.protocols(&topics.into_iter().collect::<Vec<_>>(), &owned, generation);
                self.ask(asker.join(ticket, coordinator, member_id, protocols, limit));
            }
            Effect::Lead { ticket, assignor, members, stands } => {
                let group = self.group.clone();
                self.ask(async move { Event::Led(ticket, lead(&group, &assignor, &members, stands).await) });
            }
            Effect::Sync { ticket, coordinator, member_id, generation, assignor, assignments } => {
                self.ask(asker.sync(ticket, coordinator, member_id, generation, assignor, assignments));
            }
            Effect::Heartbeat { ticket, coordinator, member_id, generation } => {
                self.ask(asker.heartbeat(ticket, coordinator, member_id, generation));
            }
            Effect::Leave { ticket, coordinator, member_id, reason } => {
                self.ask(asker.leave(ticket, coordinator, member_id, reason));
            }
            Effect::Commit { id, coordinator, member_id, generation, offsets } => {
                let shared = self.group.shared.clone();
                let told = shared.commits.listens().then(|| offsets.clone());
                let (hold, recalled) = oneshot::channel::<()>();
                self.commits.insert(id, hold);
                let commit = async move {
                    let answer = tokio::select! {
                        biased;
                        event = asker.commit(id, coordinator, member_id, generation, offsets) => Some(event),
                        _ = recalled => None,
                    };
                    if let (Some(offsets), Some(Event::Committed(_, Ok(())))) = (told, &answer) {
                        shared.commits.committed(offsets);
                    }
                    answer
                };
                self.asking.push(commit.boxed());
            }
            Effect::Recall(id) => drop(self.commits.remove(&id)),
            Effect::FetchOffsets { ticket, coordinator, partitions } => self.ask(async move {
                let found = asker.offsets(coordinator, &partitions).await;
                Event::Offsets(ticket, found)
            }),
            Effect::CommitDone(id, result) => {
                if let Some(reply) = self.group.machine.lock().replies.remove(&id) {
                    // Whoever asked may have gone.
                    let _ = reply.send(result);
                }
            }
            Effect::Adopt(assignor, assignment, generation) => self.adopt(&assignor, &assignment, generation),
            Effect::Add(partitions) => {
                self.group.machine.lock().order.forget(|name| partitions.contains(name));
                self.group.shared.add(partitions);
            }
            Effect::Stop(partitions) => self.group.shared.stop(&partitions),
            Effect::Start(found) => {
                self.group.begins(&found);
                self.group.shared.begin(found);
            }
            Effect::Tell(id, call) => {
                let told = tell(self.group.clone(), id, call);
                self.calls.insert(id, self.group.shared.client.rt().spawn(told));
            }
            Effect::Abandon(id) => {
                tracing::warn!("a rebalance listener took longer than max.poll.interval.ms and was given up");
                self.calls.remove(&id);
            }
            Effect::Fail(why) => self.fail(why),
            Effect::Closed => self.group.closed.store(true, Ordering::Release),
        }
        self.calls.retain(|_, task| !task.is_finished());
    }

    fn fail(&self, why: Fatal) {
        tracing::error!(%why, "the group membership failed");
        self.group
            .shared
            .stash(ConsumerError::Group { group: self.group.config.group_id.as_str().into(), why });
        self.group.shared.common.arrived.notify_waiters();
    }

    fn adopt(&self, name: &str, assignment: &Assignment, generation: i32) {
        if let Some(assignor) = assignor(&self.group, name) {
            let told = || assignor.lock().on_assignment(assignment, generation);
            if std::panic::catch_unwind(AssertUnwindSafe(told)).is_err() {
                tracing::error!(assignor = name, "the assignor panicked in on_assignment");
            }
        }
    }

    /// What each assignor tells the leader.
    fn protocols(
        &self,
        topics: &[Arc<str>],
        owned: &[TopicPartition],
        generation: Option<i32>,
    ) -> Vec<(String, Bytes)> {
        let told = self.group.assignors.iter().map(|(name, assignor)| {
            let asked = || assignor.lock().user_data(topics);
            let user_data = std::panic::catch_unwind(AssertUnwindSafe(asked)).unwrap_or_else(|_| {
                tracing::error!(assignor = &**name, "the assignor panicked in user_data");
                None
            });
            let subscription = Subscription {
                topics: topics.to_vec(),
                user_data,
                owned: owned.to_vec(),
                generation,
                rack: self.group.config.rack.clone(),
            };
            (name.to_string(), write_subscription(&subscription, METADATA_VERSION))
        });
        told.collect()
    }

    /// Commits what is done, every `auto.commit.interval.ms`.
    fn commit_by_itself(&mut self, now: Tick) {
        let Some(interval) = self.group.config.auto_commit else {
            return;
        };
        if self.commit_at.is_some_and(|at| at > now) {
            return;
        }
        let first = self.commit_at.replace(now.saturating_add(interval)).is_none();
        let commit = self.group.begin_commit();
        let offsets = self.group.done();
        if first || offsets.is_empty() {
            return;
        }
        let tenures = self.group.tenures(&offsets);
        let commit = async move {
            match commit.once(&offsets, &tenures).await {
                Some(Err(why @ CommitRefusal::Later(_))) => {
                    tracing::debug!(?why, "positions not committed; the next time will do");
                }
                Some(Err(why)) => tracing::warn!(?why, "positions not committed"),
                Some(Ok(())) | None => {}
            }
            None
        };
        self.asking.push(commit.boxed());
    }
}

/// Calls the listener, and says when it is done.
async fn tell(group: Arc<Group>, id: u64, call: Call) {
    let listener = group.machine.lock().listener.clone();
    if let Call::Revoked(partitions, _) = &call {
        // The listener has to hear of it while the call counts, whatever becomes of commits.
        let half = group.half_of_the_time();
        group.background_commits(half, |name| partitions.contains(name)).await;
        commit_what_goes(&group, partitions, half).await;
    }
    if let Some(listener) = listener {
        let context = RebalanceContext::new(group.clone());
        let told = async {
            match &call {
                Call::Assigned(partitions, reason) => listener.assigned(&context, partitions, *reason).await,
                Call::Revoked(partitions, reason) => listener.revoked(&context, partitions, *reason).await,
                Call::Lost(partitions, reason) => listener.lost(&context, partitions, *reason).await,
            }
        };
        if AssertUnwindSafe(told).catch_unwind().await.is_err() {
            tracing::error!("a rebalance listener panicked");
        }
    }
    if let Call::Lost(partitions, _) = &call
        && planted(Bug::CommitAfterLoss)
    {
        commit_what_goes(&group, partitions, group.half_of_the_time()).await;
    }
    group.step(Event::Told(id));
}

/// Commits what is done of partitions that are given up, if commits are automatic.
async fn commit_what_goes(group: &Arc<Group>, partitions: &[TopicPartition], until: Tick) {
    if group.config.auto_commit.is_none() {
        return;
    }
    let partitions: BTreeSet<_> = partitions.iter().cloned().collect();
    let commit = group.begin_commit();
    let done = group.shared.committable(&partitions, true);
    let commit = commit.offsets(done, until.min(group.patience_ends()));
    match group.in_half_of_the_time(until, commit).await {
        None => tracing::warn!("there was no time to commit positions before giving partitions up"),
        Some(Ok(())) => {}
        Some(Err(CommitError::Refused { code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION })) => {
            tracing::debug!("positions of a topic that was deleted are not committed");
        }
        Some(Err(error)) => tracing::warn!(%error, "positions not committed before giving partitions up"),
    }
}

fn assignor(group: &Group, name: &str) -> Option<SharedAssignor> {
    group.assignors.iter().find(|(known, _)| &**known == name).map(|(_, assignor)| assignor.clone())
}

/// Runs the assignor over what all members told.
async fn lead(group: &Group, name: &str, told: &[JoinedMember], stands: bool) -> Result<Chosen, String> {
    let Some(assignor) = assignor(group, name) else {
        return Err(format!("the coordinator chose {name:?}, which this member did not offer"));
    };
    let mut members = Vec::new();
    for member in told {
        let subscription = read_subscription(member.metadata.clone())
            .map_err(|error| format!("subscription of member {}: {error}", member.id))?;
        members.push(Member { id: member.id.clone(), instance: member.instance.clone(), subscription });
    }
    let wanted: BTreeSet<Arc<str>> =
        members.iter().flat_map(|member| member.subscription.topics.iter().cloned()).collect();
    let (topics, mut shapes) = known_topics(group, &wanted).await;
    if stands {
        let coordinator = group.machine.lock().membership.coordinator();
        let assigned = match coordinator {
            Some(coordinator) => group.asker().assigned(coordinator).await,
            None => None,
        };
        // Where nobody tells what is assigned, nothing may be: this leader joins again, and assigns.
        let assigned = assigned.unwrap_or_default();
        shapes.iter_mut().for_each(|(topic, shape)| {
            shape.partitions = assigned.get(topic).copied().unwrap_or(0);
        });
        return Ok(Chosen { assignments: Vec::new(), shapes, withheld: false });
    }
    let claimed = members.iter().flat_map(|member| member.subscription.owned.iter().cloned());
    let claimed: Vec<TopicPartition> = claimed.filter(|name| exists(&shapes, name)).collect();
    let run = move || assignor.lock().assign(&topics, &members);
    let given = match group.shared.client.rt().offload(run).await {
        Some(given) => given.map_err(|error| error.to_string())?,
        None => return Err(format!("assignor {name:?} panicked")),
    };
    let all = given.values().flat_map(|assignment| &assignment.partitions).collect::<BTreeSet<_>>();
    let withheld = claimed.iter().any(|name| !all.contains(name));
    let bytes = |(id, assignment)| (id, write_assignment(&assignment, METADATA_VERSION));
    Ok(Chosen { assignments: given.into_iter().map(bytes).collect(), shapes, withheld })
}

fn exists(shapes: &Shapes, name: &TopicPartition) -> bool {
    let partitions = shapes.get(&name.topic).map_or(0, |shape| shape.partitions);
    usize::try_from(name.partition).is_ok_and(|number| number < partitions)
}

/// The topics as the brokers tell them; whatever they do not tell within `request.timeout.ms` has no partitions yet.
async fn known_topics(group: &Group, wanted: &BTreeSet<Arc<str>>) -> (Topics, Shapes) {
    let client = &group.shared.client;
    let deadline = group.shared.now().saturating_add(client.settings().request_timeout);
    let mut open: Vec<&Arc<str>> = wanted.iter().collect();
    loop {
        let changed = client.changed();
        // Whatever is told is not looked for again: that would ask for what is refused once more, and keep others from hearing of it.
        open.retain(|topic| {
            let known = client.topic_now(topic, group.shared.may_create());
            // Told to be refused, or to be not there; or not told by whoever was asked last, and known well enough.
            let refused = client.metadata().topics.get(*topic).is_some_and(|told| !told.error.is_ok());
            matches!(known, Ok(None)) && !refused
        });
        if open.is_empty() || client.rt().before(deadline, changed).await.is_none() {
            break;
        }
    }
    let metadata = client.metadata();
    let mut topics = Topics::default();
    let mut shapes: Shapes = wanted.iter().map(|topic| (topic.clone(), TopicShape::default())).collect();
    let with_racks = group.config.rack.is_some();
    for topic in metadata.topics.values().filter(|topic| topic.is_there() && wanted.contains(&topic.name)) {
        let rack = |broker: &i32| metadata.brokers.get(broker).and_then(|broker| broker.rack.as_deref());
        let racks = topic
            .partitions
            .iter()
            .map(|partition| partition.replicas.iter().filter_map(rack).map(Arc::from).collect());
        topics.insert_with_racks(topic.name.clone(), racks.collect());
        shapes.insert(topic.name.clone(), shape(&metadata, topic, with_racks));
    }
    (topics, shapes)
}
