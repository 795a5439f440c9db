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
use klamm_core::group::{CommitRefusal, Effect, Event, GroupSettings, Membership, Offsets, Refusal};
use klamm_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use self::requests::Asker;
use super::shared::Shared;
use crate::rt::Task;

pub use error::CommitError;
pub use listener::{RebalanceContext, RebalanceListener};
pub(super) use turns::Turns;

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
}

/// An assignor, which is code of the application.
type SharedAssignor = Arc<Mutex<Box<dyn Assignor>>>;

struct Machine {
    membership: Membership,
    effects: Vec<Effect>,
    replies: BTreeMap<u64, oneshot::Sender<Result<(), CommitRefusal>>>,
    commits: u64,
    listener: Option<Arc<dyn RebalanceListener>>,
    topics: BTreeSet<Arc<str>>,
    task: Option<Task>,
    /// What was committed by itself.
    committed: Offsets,
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
pub(super) struct Waiting<'a>(&'a Group);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
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
                membership,
                effects: Vec::new(),
                replies: BTreeMap::new(),
                commits: 0,
                listener: None,
                topics: BTreeSet::new(),
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

    /// Whether the consumer subscribed.
    pub(super) fn is_active(&self) -> bool {
        self.machine.lock().task.is_some()
    }

    pub(super) fn subscribe(
        self: &Arc<Self>,
        topics: BTreeSet<Arc<str>>,
        listener: Option<Arc<dyn RebalanceListener>>,
    ) {
        if !self.config.named {
            static WARNED: std::sync::Once = std::sync::Once::new();
            WARNED.call_once(|| tracing::warn!("no group.id is set: joining the group `default`"));
        }
        let mut machine = self.machine.lock();
        machine.listener = listener;
        machine.topics.clone_from(&topics);
        if machine.task.is_none() {
            self.shared.count_turns();
            machine.task = Some(self.shared.client.rt().spawn(drive::drive(self.clone())));
        }
        drop(machine);
        self.step(Event::Subscribe(topics));
    }

    /// Gives everything up and leaves; returns when that is done, at most after `default.api.timeout.ms`.
    pub(super) async fn unsubscribe(&self) {
        if !self.is_active() {
            return;
        }
        self.machine.lock().topics.clear();
        self.step(Event::Unsubscribe);
        self.until(|membership| membership.is_idle()).await;
    }

    /// As [`Self::unsubscribe`], for good.
    pub(super) async fn close(&self) {
        if self.is_active() {
            self.step(Event::Close);
            self.until(|_| self.closed.load(Ordering::Acquire)).await;
            let mut machine = self.machine.lock();
            machine.task = None;
            machine.replies.clear();
        }
    }

    /// The consumer is gone.
    pub(super) fn abandon(&self) {
        self.closed.store(true, Ordering::Release);
        self.machine.lock().task = None;
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

    /// The call waits until this is dropped.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    /// Commits what was handed out.
    pub(super) async fn commit_positions(&self) -> Result<(), CommitError> {
        // Or the next automatic commit would go back behind this one.
        self.shared.done();
        let owned = self.owned();
        self.commit(self.shared.committable(&owned, false)).await
    }

    fn owned(&self) -> BTreeSet<TopicPartition> {
        self.machine.lock().membership.owned().clone()
    }

    pub(super) async fn commit(&self, offsets: Offsets) -> Result<(), CommitError> {
        if !self.is_active() {
            return Err(CommitError::NoGroup);
        }
        let client = &self.shared.client;
        let waited = client.settings().api_timeout();
        let deadline = self.shared.now().saturating_add(waited);
        let mut last = None;
        loop {
            let answer = client.rt().before(deadline, self.commit_once(offsets.clone())).await;
            match answer {
                None => return Err(CommitError::TimedOut { waited, last }),
                Some(None) => return Err(CommitError::Closed),
                Some(Some(Ok(()))) => return Ok(()),
                Some(Some(Err(CommitRefusal::NotOwned(partition)))) => {
                    return Err(CommitError::NotOwned { partition });
                }
                Some(Some(Err(CommitRefusal::Expelled(code)))) => return Err(CommitError::Expelled { code }),
                Some(Some(Err(CommitRefusal::Refused(code)))) => return Err(CommitError::Refused { code }),
                Some(Some(Err(CommitRefusal::Later(refusal)))) => {
                    if let Refusal::Code(code) = refusal {
                        last = Some(code);
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

    /// One attempt; `None` if the consumer was closed meanwhile.
    async fn commit_once(&self, offsets: Offsets) -> Option<Result<(), CommitRefusal>> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        let id = {
            let mut machine = self.machine.lock();
            machine.commits += 1;
            let id = machine.commits;
            machine.replies.insert(id, reply);
            id
        };
        self.step(Event::Commit(id, offsets));
        answer.await.ok()
    }

    /// Committed offsets, also of partitions that others have.
    pub(super) async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Option<i64>>, CommitError> {
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
