//! The consumer as a member of a group.
//!
//! ```text
//! subscribe, commit, recv ─▶ Membership (klamm-core) ◀─ group task ◀─ coordinator
//!                               │ effects
//!                               ├─▶ Fetcher: partitions come and go
//!                               └─▶ listener, assignors: on tasks of their own
//! ```
//!
//! One short lock, `machine`, taken before those of the reader and the fetcher ([`Rank`]). [`drive`] carries out what the machine wants; it decides nothing.

mod closing;
mod commits;
mod drive;
mod error;
mod holders;
mod listener;
mod requests;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use klamm_core::assign::{Assignor, RebalanceProtocol};
use klamm_core::consumer::StartOffset;
use klamm_core::group::{
    CommitOrder, CommitRefusal, CommittedOffset, Effect, Event, GroupSettings, Membership, Refusal,
};
use klamm_core::metadata::{MatchedTopics, TopicPattern};
use klamm_core::{Tick, TopicPartition};
use klamm_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use self::closing::Closing;
use self::requests::Asker;
use super::error::ConsumerError;
use super::lock::{Ordered, Rank};
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
    /// Attempts at commits so far.
    attempts: u64,
    order: CommitOrder,
    /// Dropped to wake the commits that wait for the one of this number.
    behind: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
    /// Commits that go on though nobody waits for them, and of what.
    background: BTreeMap<u64, BTreeSet<TopicPartition>>,
    /// Of partitions that are read: in which time of owning them, and from where the group had committed; none if from anywhere else.
    began: BTreeMap<TopicPartition, (u64, Option<i64>)>,
    /// By when an unsubscribing is to be over that is under way.
    unsubscribed_by: Option<Tick>,
    closing: Option<Closing>,
    listener: Option<Arc<dyn RebalanceListener>>,
    /// Topics subscribed to by name.
    topics: BTreeSet<Arc<str>>,
    /// Others are subscribed to than when they were last asked for.
    resubscribed: bool,
    following: Option<Following>,
    task: Option<Task>,
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
    machine: Ordered<Machine>,
    /// Wakes the group task.
    work: Notify,
    /// Wakes whoever waits for the membership to end.
    ended: Notify,
    /// Tells whoever commits that there is less time than before.
    hurry: Notify,
    closed: AtomicBool,
    /// Calls for records that wait at this moment.
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
        let machine = Machine {
            mode: Mode::Free,
            membership,
            effects: Vec::new(),
            replies: BTreeMap::new(),
            attempts: 0,
            order: CommitOrder::default(),
            behind: BTreeMap::new(),
            background: BTreeMap::new(),
            began: BTreeMap::new(),
            unsubscribed_by: None,
            closing: None,
            listener: None,
            topics: BTreeSet::new(),
            resubscribed: false,
            following: None,
            task: None,
        };
        Arc::new(Self {
            shared,
            config: Arc::new(config),
            assignors: assignors.into_iter().map(named).collect(),
            machine: Ordered::new(Rank::Group, machine),
            work: Notify::new(),
            ended: Notify::new(),
            hurry: Notify::new(),
            closed: AtomicBool::new(false),
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
            machine.unsubscribed_by = None;
        }
        if self.config.auto_commit.is_some() && self.config.named {
            self.commit_in_the_background();
            self.shared.count_turns();
            self.activate();
        }
        Ok(())
    }

    /// These, which were assigned by hand, are to begin where the group committed; of earlier ones none any more.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NoGroup`] without `group.id`.
    pub(super) fn begin_by_hand(
        self: &Arc<Self>,
        partitions: Vec<TopicPartition>,
    ) -> Result<(), ConsumerError> {
        match partitions.first() {
            Some(first) if !self.config.named => {
                return Err(ConsumerError::NoGroup { partition: first.clone() });
            }
            Some(_) => self.activate(),
            None => {}
        }
        self.step(Event::ByHand(partitions));
        Ok(())
    }

    /// This one, assigned by hand or owned, is to be read from where the group has committed.
    fn want(self: &Arc<Self>, partition: &TopicPartition) -> Result<(), ConsumerError> {
        let partition = partition.clone();
        if !self.config.named && !self.is_member() {
            return Err(ConsumerError::NoGroup { partition });
        }
        self.activate();
        self.step(Event::Want(vec![partition]));
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
            if self.config.auto_commit.is_some() && self.config.named {
                self.commit_in_the_background();
            }
            self.shared.assign(Vec::new());
            self.shared.count_turns();
        }
        {
            let machine = &mut *self.machine.lock();
            machine.mode = Mode::Member;
            machine.resubscribed = true;
            machine.unsubscribed_by = None;
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
        {
            let Machine { membership, began, .. } = &mut *self.machine.lock();
            if let Some(tenure) = membership.tenure(partition) {
                began.insert(partition.clone(), (tenure, None));
            }
        }
        match to {
            StartOffset::Committed => self.want(partition),
            _ => Ok(()),
        }
    }

    /// Gives everything up and leaves; returns when that is done, at most after `default.api.timeout.ms`, or `request.timeout.ms`
    /// if that is longer.
    pub(super) async fn unsubscribe(&self) {
        if !self.is_member() {
            return;
        }
        let by = self.patience_ends();
        {
            let mut machine = self.machine.lock();
            machine.mode = Mode::Free;
            machine.topics.clear();
            machine.unsubscribed_by = Some(by);
        }
        self.hurry.notify_waiters();
        self.follow(None);
        self.step(Event::Unsubscribe);
        self.until(by, |membership| membership.is_idle()).await;
        self.machine.lock().unsubscribed_by.take_if(|at| *at == by);
    }

    /// When that has to be over which is done for others: what they read again if it is not, or wait for.
    pub(super) fn patience_ends(&self) -> Tick {
        self.shared.now().saturating_add(self.shared.client.settings().patience())
    }

    /// When `default.api.timeout.ms` is over that begins now.
    fn api_deadline(&self) -> Tick {
        self.shared.now().saturating_add(self.shared.client.settings().api_timeout())
    }

    async fn until(&self, deadline: Tick, done: impl Fn(&Membership) -> bool) {
        let client = &self.shared.client;
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if done(&self.machine.lock().membership) || client.rt().before(deadline, ended).await.is_none() {
                return;
            }
        }
    }

    /// Somebody has called for records; [`Shared::calls`] counts that already.
    #[inline]
    pub(super) fn came_back(&self) {
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

    /// Committed offsets, also of partitions that others have.
    pub(super) async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Option<CommittedOffset>>, CommitError> {
        if !self.config.named && !self.is_member() {
            return Err(CommitError::NoGroup);
        }
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
