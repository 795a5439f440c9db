//! The consumer as a member of a group.
//!
//! ```text
//! subscribe, commit, recv ─▶ Membership (klamm-core) ◀─ group task ◀─ coordinator
//!                               │ effects
//!                               ├─▶ Fetcher: partitions come and go
//!                               └─▶ listener, assignors: on tasks of their own
//! ```
//!
//! One short lock, `machine`, taken before those of the reader and the fetcher, and never held while code of the application
//! runs. [`drive`] carries out what the machine wants; it decides nothing.

mod drive;
mod error;
mod listener;
mod requests;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use klamm_core::TopicPartition;
use klamm_core::assign::{Assignor, RebalanceProtocol};
use klamm_core::consumer::StartOffset;
use klamm_core::group::{CommitRefusal, CommittedOffset, Effect, Event, GroupSettings, Membership, Refusal};
use klamm_core::metadata::{MatchedTopics, TopicPattern};
use klamm_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use self::requests::Asker;
use super::error::ConsumerError;
use super::shared::{Lane, Shared};
use crate::rt::Task;

pub use error::CommitError;
pub(super) use klamm_core::group::Offsets;
pub use klamm_core::metadata::PatternError;
pub use listener::{RebalanceContext, RebalanceListener};
pub(super) use turns::{Asking, Caller, Place, Turns};

/// Settings of the membership.
#[derive(Debug, Clone)]
pub(super) struct GroupConfig {
    pub(super) group_id: String,
    /// `false` if `group_id` is the default.
    pub(super) named: bool,
    pub(super) instance_id: Option<String>,
    pub(super) session: Duration,
    pub(super) heartbeat: Duration,
    pub(super) max_poll: Duration,
    /// `auto.commit.interval.ms`, if commits are automatic.
    pub(super) auto_commit: Option<Duration>,
    /// `client.rack`.
    pub(super) rack: Option<Arc<str>>,
    /// `exclude.internal.topics`.
    pub(super) exclude_internal: bool,
}

/// An assignor, which is code of the application.
type SharedAssignor = Arc<Mutex<Box<dyn Assignor>>>;

/// Who says what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nobody yet.
    Free,
    /// The application, by hand.
    Manual,
    /// The group.
    Member,
}

/// For each partition of a commit, the time of owning it that the commit is from ([`Membership::tenure`]).
type Tenures = BTreeMap<TopicPartition, Option<u64>>;

/// Topics by a pattern.
#[derive(Debug)]
struct Following {
    pattern: TopicPattern,
    /// The brokers have told their topics: the membership has those that match.
    told: bool,
}

struct Machine {
    mode: Mode,
    membership: Membership,
    effects: Vec<Effect>,
    replies: BTreeMap<u64, oneshot::Sender<Result<(), CommitRefusal>>>,
    commits: u64,
    listener: Option<Arc<dyn RebalanceListener>>,
    /// Topics subscribed to by name.
    topics: BTreeSet<Arc<str>>,
    following: Option<Following>,
    task: Option<Task>,
    /// What was committed by itself.
    committed: Offsets,
}

impl Machine {
    fn is_member(&self) -> bool {
        self.mode == Mode::Member || !self.membership.is_idle()
    }
}

/// See the [module](self).
pub(super) struct Group {
    pub(super) shared: Arc<Shared>,
    config: Arc<GroupConfig>,
    /// In the order of preference.
    assignors: Vec<(Arc<str>, SharedAssignor)>,
    machine: Mutex<Machine>,
    /// Wakes the group task.
    work: Notify,
    /// Wakes whoever waits for the membership to end.
    ended: Notify,
    closed: AtomicBool,
    /// Calls for records so far, and those that wait at this moment.
    polls: AtomicU64,
    waiting: AtomicUsize,
    stalled: AtomicBool,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Counts a call for records that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    group: Arc<Group>,
    lane: Option<Arc<Lane>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.group.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(lane) = &self.lane {
            lane.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Group {
    pub(super) fn new(
        shared: Arc<Shared>,
        config: GroupConfig,
        assignors: Vec<Box<dyn Assignor>>,
    ) -> Arc<Self> {
        let cooperative =
            assignors.iter().all(|assignor| assignor.protocols().contains(&RebalanceProtocol::Cooperative));
        let client = &shared.client;
        let settings = GroupSettings {
            alone: config.named,
            is_static: config.instance_id.is_some(),
            protocol: if cooperative { RebalanceProtocol::Cooperative } else { RebalanceProtocol::Eager },
            session: config.session,
            heartbeat: config.heartbeat,
            max_poll: config.max_poll,
            request: client.settings().request_timeout,
            backoff: klamm_core::backoff::Backoff::new(
                client.settings().retry_backoff,
                client.settings().retry_backoff_max,
            ),
        };
        let membership = Membership::new(settings, client.rt().rng("group"));
        let named =
            |assignor: Box<dyn Assignor>| (Arc::from(assignor.name()), Arc::new(Mutex::new(assignor)));
        Arc::new(Self {
            shared,
            config: Arc::new(config),
            assignors: assignors.into_iter().map(named).collect(),
            machine: Mutex::new(Machine {
                mode: Mode::Free,
                membership,
                effects: Vec::new(),
                replies: BTreeMap::new(),
                commits: 0,
                listener: None,
                topics: BTreeSet::new(),
                following: None,
                task: None,
                committed: Offsets::new(),
            }),
            work: Notify::new(),
            ended: Notify::new(),
            closed: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            stalled: AtomicBool::new(false),
        })
    }

    fn asker(&self) -> Asker {
        Asker { client: self.shared.client.clone(), config: self.config.clone() }
    }

    /// Applies an event; its effects are carried out by the group task.
    fn step(&self, event: Event) {
        let now = self.shared.now();
        let Machine { membership, effects, .. } = &mut *self.machine.lock();
        membership.step(now, event, effects);
        self.work.notify_one();
    }

    /// Whether the group says what is read, or what it gave is being given up still.
    pub(super) fn is_member(&self) -> bool {
        self.machine.lock().is_member()
    }

    fn is_active(&self) -> bool {
        self.machine.lock().task.is_some()
    }

    fn activate(self: &Arc<Self>) {
        let mut machine = self.machine.lock();
        if machine.task.is_none() && !self.closed.load(Ordering::Acquire) {
            machine.task = Some(self.shared.client.rt().spawn(drive::drive(self.clone())));
        }
    }

    /// The application says from now on what is read. With automatic commits, what is done of what it read before is
    /// committed in the background.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::Subscribed`] as long as the consumer is a member, or has not left yet.
    pub(super) fn take_by_hand(self: &Arc<Self>) -> Result<(), ConsumerError> {
        {
            let mut machine = self.machine.lock();
            if machine.is_member() {
                return Err(ConsumerError::Subscribed);
            }
            machine.mode = Mode::Manual;
        }
        if self.config.auto_commit.is_some() && self.config.named {
            self.commit_in_the_background();
            self.shared.count_turns();
            self.activate();
        }
        Ok(())
    }

    /// Commits what is done and was not committed by itself already.
    fn commit_in_the_background(self: &Arc<Self>) {
        let offsets = self.done();
        self.machine.lock().committed.clear();
        if !offsets.is_empty() && self.is_active() {
            let group = self.clone();
            let commit = async move {
                if let Err(error) = group.commit(offsets).await {
                    tracing::warn!(%error, "positions not committed before others were assigned");
                }
            };
            self.shared.client.rt().spawn(commit).detach();
        }
    }

    /// What is done and not known to be committed.
    fn done(&self) -> Offsets {
        let mut offsets = self.shared.committable(&self.held(), true);
        let mut machine = self.machine.lock();
        for name in std::mem::take(&mut *self.shared.recreated.lock()) {
            machine.committed.remove(&name);
        }
        offsets.retain(|name, at| machine.committed.get(name) != Some(at));
        offsets
    }

    /// These, assigned by hand or owned, are to begin where the group committed.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NoGroup`] without `group.id`.
    pub(super) fn want(self: &Arc<Self>, partitions: Vec<TopicPartition>) -> Result<(), ConsumerError> {
        let Some(first) = partitions.first() else { return Ok(()) };
        if !self.config.named && !self.is_member() {
            return Err(ConsumerError::NoGroup { partition: first.clone() });
        }
        self.activate();
        self.step(Event::Want(partitions));
        Ok(())
    }

    pub(super) fn subscribe(
        self: &Arc<Self>,
        topics: BTreeSet<Arc<str>>,
        listener: Option<Arc<dyn RebalanceListener>>,
    ) {
        self.follow(None);
        self.become_member(|machine| {
            machine.listener = listener;
            machine.topics.clone_from(&topics);
        });
        self.step(Event::Subscribe(topics));
    }

    /// Joins once the brokers have told their topics.
    pub(super) fn subscribe_pattern(
        self: &Arc<Self>,
        pattern: &str,
        listener: Option<Arc<dyn RebalanceListener>>,
    ) -> Result<(), PatternError> {
        let pattern = TopicPattern::new(pattern, self.config.exclude_internal)?;
        self.become_member(|machine| {
            machine.listener = listener;
            machine.topics.clear();
        });
        self.follow(Some(pattern));
        self.work.notify_one();
        Ok(())
    }

    fn become_member(self: &Arc<Self>, subscribe: impl FnOnce(&mut Machine)) {
        if !self.config.named {
            static WARNED: std::sync::Once = std::sync::Once::new();
            WARNED.call_once(|| tracing::warn!("no group.id is set: joining the group `default`"));
        }
        if !self.is_member() {
            self.commit_in_the_background();
            self.shared.assign(Vec::new());
            self.shared.count_turns();
        }
        {
            let machine = &mut *self.machine.lock();
            machine.mode = Mode::Member;
            subscribe(machine);
        }
        self.activate();
    }

    /// Follows a pattern from now on, or none.
    fn follow(&self, pattern: Option<TopicPattern>) {
        let machine = &mut *self.machine.lock();
        if pattern.is_some() || machine.following.is_some() {
            machine.following = pattern.clone().map(|pattern| Following { pattern, told: false });
            self.shared.never_create(pattern.is_some());
            self.shared.client.follow(pattern);
        }
    }

    /// Whether topics are subscribed to by a pattern.
    fn is_following(&self) -> bool {
        self.machine.lock().following.is_some()
    }

    /// Tells the membership which topics match, if that is news.
    fn matched(&self, matched: &MatchedTopics) {
        let now = self.shared.now();
        let Machine { membership, effects, following, .. } = &mut *self.machine.lock();
        let Some(following) = following.as_mut().filter(|following| following.pattern.is(&matched.pattern))
        else {
            return;
        };
        let topics = matched.topics.clone();
        let event = match std::mem::replace(&mut following.told, true) {
            true => Event::Matched(topics),
            false => Event::Subscribe(topics),
        };
        membership.step(now, event, effects);
    }

    /// Goes on elsewhere in an assigned partition.
    pub(super) fn seek(
        self: &Arc<Self>,
        partition: &TopicPartition,
        to: StartOffset,
    ) -> Result<(), ConsumerError> {
        self.shared.seek(partition, to)?;
        match to {
            StartOffset::Committed => self.want(vec![partition.clone()]),
            _ => Ok(()),
        }
    }

    /// Gives everything up and leaves; returns when that is done, at most after `default.api.timeout.ms`.
    pub(super) async fn unsubscribe(&self) {
        if !self.is_member() {
            return;
        }
        {
            let mut machine = self.machine.lock();
            machine.mode = Mode::Free;
            machine.topics.clear();
        }
        self.follow(None);
        self.step(Event::Unsubscribe);
        self.until(|membership| membership.is_idle()).await;
    }

    /// As [`Self::unsubscribe`], for good.
    pub(super) async fn close(self: &Arc<Self>) {
        if self.is_active() {
            self.commit_last().await;
            self.step(Event::Close);
            self.until(|_| self.closed.load(Ordering::Acquire)).await;
            self.end();
        }
    }

    /// What is done and was assigned by hand is committed, if commits are automatic. A member does so when it gives up.
    async fn commit_last(self: &Arc<Self>) {
        if self.config.auto_commit.is_none() || self.is_member() {
            return;
        }
        let done = self.done();
        if !done.is_empty()
            && let Err(error) = self.commit(done).await
        {
            tracing::warn!(%error, "positions not committed before closing");
        }
    }

    fn end(&self) {
        self.closed.store(true, Ordering::Release);
        let mut machine = self.machine.lock();
        let task = machine.task.take();
        machine.replies.clear();
        drop(machine);
        drop(task);
    }

    /// The consumer is gone: what [`Self::close`] does is done by a task of its own, within `request.timeout.ms`. On a runtime
    /// that is ending nothing is done.
    pub(super) fn abandon(self: &Arc<Self>) {
        if !self.is_active() || self.closed.load(Ordering::Acquire) {
            self.end();
            return self.shared.close();
        }
        // What was handed out stays known until it is committed.
        self.shared.end_reading();
        let group = self.clone();
        let rt = self.shared.client.rt();
        let deadline = rt.now().saturating_add(self.shared.client.settings().request_timeout);
        let leave = async move {
            if group.shared.client.rt().before(deadline, group.close()).await.is_none() {
                tracing::warn!(
                    "a dropped consumer could not leave its group in time; its session will time out"
                );
            }
            group.end();
            group.shared.close();
        };
        rt.spawn(leave).detach();
    }

    /// Says nothing to anybody.
    pub(super) fn vanish(&self) {
        self.end();
    }

    async fn until(&self, done: impl Fn(&Membership) -> bool) {
        let client = &self.shared.client;
        let deadline = self.shared.now().saturating_add(client.settings().api_timeout());
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if done(&self.machine.lock().membership) || client.rt().before(deadline, ended).await.is_none() {
                return;
            }
        }
    }

    /// Counts a call for records. Cheap enough for every record.
    pub(super) fn polled(&self) {
        self.polls.fetch_add(1, Ordering::Relaxed);
        if self.stalled.load(Ordering::Relaxed) {
            self.work.notify_one();
        }
    }

    /// The call waits until this is dropped: for records of a lane, or for a partition to read.
    pub(super) fn wait(self: &Arc<Self>, lane: Option<&Arc<Lane>>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(lane) = lane {
            lane.waiting.fetch_add(1, Ordering::Relaxed);
        }
        Waiting { group: self.clone(), lane: lane.cloned() }
    }

    /// Commits what is done.
    pub(super) async fn commit_done(self: &Arc<Self>) -> Result<(), CommitError> {
        self.commit(self.shared.committable(&self.held(), true)).await
    }

    /// Commits what was handed out.
    pub(super) async fn commit_positions(self: &Arc<Self>) -> Result<(), CommitError> {
        self.commit(self.positions()).await
    }

    /// Behind what was handed out. Who commits that is done with it.
    pub(super) fn positions(&self) -> Offsets {
        self.shared.committable(&self.held(), false)
    }

    /// What is assigned by hand, or owned.
    fn held(&self) -> BTreeSet<TopicPartition> {
        let machine = self.machine.lock();
        if machine.is_member() { machine.membership.owned().clone() } else { self.shared.assigned() }
    }

    /// Since when each of the partitions is owned.
    fn tenures(&self, offsets: &Offsets) -> Tenures {
        let machine = self.machine.lock();
        offsets.keys().map(|name| (name.clone(), machine.membership.tenure(name))).collect()
    }

    pub(super) async fn commit(self: &Arc<Self>, mut offsets: Offsets) -> Result<(), CommitError> {
        if !self.is_member() {
            if !self.config.named {
                return Err(CommitError::NoGroup);
            }
            self.activate();
        }
        let client = &self.shared.client;
        let waited = client.settings().api_timeout();
        let deadline = self.shared.now().saturating_add(waited);
        let tenures = self.tenures(&offsets);
        // Or the next automatic commit would go back behind this one.
        self.shared.done_up_to(&offsets);
        let (mut last, mut gone) = (None, false);
        loop {
            let answer = client.rt().before(deadline, self.commit_once(offsets.clone(), &tenures)).await;
            match answer {
                Some(Some(Ok(()))) if gone => {
                    return Err(CommitError::Refused { code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION });
                }
                None => return Err(CommitError::TimedOut { waited, last }),
                Some(None) => return Err(CommitError::Closed),
                Some(Some(Ok(()))) => return Ok(()),
                Some(Some(Err(CommitRefusal::NotOwned(partition)))) => {
                    return Err(CommitError::NotOwned { partition });
                }
                Some(Some(Err(CommitRefusal::HasMembers(code)))) => {
                    return Err(CommitError::HasMembers { code });
                }
                Some(Some(Err(CommitRefusal::Expelled(code)))) => return Err(CommitError::Expelled { code }),
                Some(Some(Err(CommitRefusal::Refused(code)))) => return Err(CommitError::Refused { code }),
                Some(Some(Err(CommitRefusal::Later(refusal)))) => {
                    if let Refusal::Code(code) = refusal {
                        last = Some(code);
                    }
                    // The others are not to wait for a topic that was deleted.
                    if last == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) {
                        let before = offsets.len();
                        offsets.retain(|name, _| !self.is_gone(&name.topic));
                        gone |= offsets.len() < before;
                    }
                    let pause =
                        self.shared.now().saturating_add(client.settings().retry_backoff).min(deadline);
                    client.rt().sleep_until(pause).await;
                    if self.shared.now() >= deadline {
                        return Err(CommitError::TimedOut { waited, last });
                    }
                }
            }
        }
    }

    /// Whether a topic does not exist any more, as far as is known; asks for it.
    fn is_gone(&self, topic: &str) -> bool {
        let client = &self.shared.client;
        let known = client.topic_now(topic, false);
        if matches!(known, Ok(Some(_))) {
            client.request_refresh("a topic is unknown to the group coordinator");
        }
        client.metadata().topics.get(topic).is_some_and(|told| told.gone)
    }

    /// One attempt; `None` if the consumer was closed meanwhile.
    ///
    /// Whoever lost a partition and has it again goes on where others committed: what was to be committed before is void.
    async fn commit_once(&self, offsets: Offsets, tenures: &Tenures) -> Option<Result<(), CommitRefusal>> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        {
            let now = self.shared.now();
            let machine = &mut *self.machine.lock();
            let again =
                |(name, since): &(&TopicPartition, &Option<u64>)| machine.membership.tenure(name) != **since;
            if let Some((name, _)) = tenures.iter().find(again) {
                return Some(Err(CommitRefusal::NotOwned(name.clone())));
            }
            machine.commits += 1;
            let id = machine.commits;
            machine.replies.insert(id, reply);
            machine.membership.step(now, Event::Commit(id, offsets), &mut machine.effects);
        }
        self.work.notify_one();
        answer.await.ok()
    }

    /// Committed offsets, also of partitions that others have.
    pub(super) async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Option<CommittedOffset>>, CommitError> {
        let client = &self.shared.client;
        let waited = client.settings().api_timeout();
        let deadline = self.shared.now().saturating_add(waited);
        let mut last = None;
        loop {
            if self.shared.is_closed() {
                return Err(CommitError::Closed);
            }
            let asker = self.asker();
            let asked = async {
                let coordinator = match asker.clone().find().await {
                    Event::Coordinator(found) => found?,
                    _ => return Err(Refusal::NoAnswer),
                };
                asker.offsets(coordinator, partitions).await
            };
            match client.rt().before(deadline, asked).await {
                Some(Ok(found)) => return Ok(found),
                Some(Err(Refusal::Code(code)))
                    if !code.is_retriable() && code != ErrorCode::UNSTABLE_OFFSET_COMMIT =>
                {
                    return Err(CommitError::Refused { code });
                }
                Some(Err(Refusal::Code(code))) => last = Some(code),
                Some(Err(Refusal::NoAnswer)) => {}
                None => return Err(CommitError::TimedOut { waited, last }),
            }
            let pause = self.shared.now().saturating_add(client.settings().retry_backoff).min(deadline);
            client.rt().sleep_until(pause).await;
            if self.shared.now() >= deadline {
                return Err(CommitError::TimedOut { waited, last });
            }
        }
    }
}
