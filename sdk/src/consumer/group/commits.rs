//! Commits: what is to be committed, and trying until that is done. Which of several counts, [`CommitOrder`] says.
//!
//! [`CommitOrder`]: klamm_core::group::CommitOrder

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use klamm_core::group::{Attempt, CommitRefusal, CommittedOffset, Event, Offsets, Refusal};
use klamm_core::{Tick, TopicPartition};
use klamm_wire::ErrorCode;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::error::CommitError;
use super::{Group, Machine, Place};

#[cfg(test)]
mod tests;

/// For each partition of a commit, the time of owning it that the commit is from ([`Membership::tenure`]).
///
/// [`Membership::tenure`]: klamm_core::group::Membership::tenure
pub(super) type Tenures = BTreeMap<TopicPartition, Option<u64>>;

/// A commit that is not over. What it commits is to be looked up after it has begun, so that it never says less than one
/// that began before.
pub(in crate::consumer) struct Commit {
    group: Arc<Group>,
    number: u64,
}

impl Drop for Commit {
    fn drop(&mut self) {
        let machine = &mut *self.group.machine.lock();
        machine.order.end(self.number);
        machine.background.remove(&self.number);
        machine.behind.remove(&self.number);
    }
}

impl Commit {
    /// Goes on by itself: whoever gives partitions of it up or closes waits for it.
    fn in_the_background(self, offsets: &Offsets) -> Self {
        self.group.machine.lock().background.insert(self.number, offsets.keys().cloned().collect());
        self
    }

    /// Commits these, which are owned now, in attempts until `deadline`.
    pub(in crate::consumer) fn offsets(
        self,
        offsets: Offsets,
        deadline: Tick,
    ) -> impl Future<Output = Result<(), CommitError>> + Send + 'static {
        let tenures = self.group.tenures(&offsets);
        // Or the next automatic commit would go back behind this one.
        self.group.shared.done_up_to(&offsets);
        async move { self.until(offsets, tenures, deadline, None).await }
    }

    /// As [`Self::offsets`], with an attempt at once, of who can commit at this moment and may not be able to any more in the next.
    fn at_once(
        self,
        offsets: Offsets,
        deadline: Tick,
    ) -> impl Future<Output = Result<(), CommitError>> + Send + 'static {
        let tenures = self.group.tenures(&offsets);
        let begun = self.begin(&offsets, &tenures);
        async move { self.until(offsets, tenures, deadline, Some(begun)).await }
    }

    async fn until(
        &self,
        mut offsets: Offsets,
        tenures: Tenures,
        deadline: Tick,
        mut begun: Option<Begun>,
    ) -> Result<(), CommitError> {
        let group = &self.group;
        if !group.is_member() {
            if !group.config.named {
                return Err(CommitError::NoGroup);
            }
            group.activate();
        }
        let client = &group.shared.client;
        let waited = deadline.saturating_sub(group.shared.now());
        let (mut last, mut gone) = (None, false);
        loop {
            let attempt = self.attempt(begun.take(), &offsets, &tenures);
            let answer = client.rt().before(deadline, attempt).await;
            let refusal = match answer {
                None => return Err(CommitError::TimedOut { waited, last }),
                Some(None) => return Err(CommitError::Closed),
                Some(Some(Ok(()))) if gone => {
                    return Err(CommitError::Refused { code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION });
                }
                Some(Some(Ok(()))) => return Ok(()),
                Some(Some(Err(refusal))) => refusal,
            };
            match refusal {
                CommitRefusal::NotOwned(partition) => return Err(CommitError::NotOwned { partition }),
                CommitRefusal::HasMembers(code) => return Err(CommitError::HasMembers { code }),
                CommitRefusal::Expelled(code) => return Err(CommitError::Expelled { code }),
                CommitRefusal::Refused(code) => return Err(CommitError::Refused { code }),
                CommitRefusal::Later(refusal) => {
                    if let Refusal::Code(code) = refusal {
                        last = Some(code);
                    }
                    // The others are not to wait for a topic that was deleted.
                    if last == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) {
                        let before = offsets.len();
                        offsets.retain(|name, _| !group.is_gone(&name.topic));
                        gone |= offsets.len() < before;
                    }
                    let pause = group.shared.now().saturating_add(client.settings().retry_backoff);
                    client.rt().sleep_until(pause.min(deadline)).await;
                    if group.shared.now() >= deadline {
                        return Err(CommitError::TimedOut { waited, last });
                    }
                }
            }
        }
    }

    /// One attempt; `None` if the consumer was closed meanwhile.
    ///
    /// Whoever lost a partition and has it again goes on where others committed: what was to be committed before is void.
    pub(super) async fn once(
        &self,
        offsets: &Offsets,
        tenures: &Tenures,
    ) -> Option<Result<(), CommitRefusal>> {
        self.attempt(None, offsets, tenures).await
    }

    async fn attempt(
        &self,
        mut begun: Option<Begun>,
        offsets: &Offsets,
        tenures: &Tenures,
    ) -> Option<Result<(), CommitRefusal>> {
        let group = &*self.group;
        let (sent, answer) = loop {
            match begun.take().unwrap_or_else(|| self.begin(offsets, tenures)) {
                Begun::Over(result) => return result,
                Begun::Sent(sent, answer) => break (sent, answer),
                // It is dropped.
                Begun::Waits(over) => drop(over.await),
            }
        };
        let answer = answer.await.ok()?;
        if answer.is_ok() {
            let machine = &mut *group.machine.lock();
            machine.order.acknowledged(self.number, &sent);
            if machine.passed_on(tenures).is_some() {
                machine.order.forget(|name| sent.contains_key(name));
            }
        }
        Some(answer)
    }

    /// Begins an attempt.
    fn begin(&self, offsets: &Offsets, tenures: &Tenures) -> Begun {
        let group = &*self.group;
        let now = group.shared.now();
        let machine = &mut *group.machine.lock();
        // Whoever closes drops the replies under this lock.
        if group.closed.load(Ordering::Acquire) {
            return Begun::Over(None);
        }
        if let Some(name) = machine.passed_on(tenures) {
            return Begun::Over(Some(Err(CommitRefusal::NotOwned(name.clone()))));
        }
        let left = match machine.order.attempt(self.number, offsets) {
            Attempt::Send(left) => left,
            Attempt::Wait(later) => {
                let (wake, over) = oneshot::channel();
                machine.behind.entry(later).or_default().push(wake);
                return Begun::Waits(over);
            }
        };
        if left.is_empty() {
            return Begun::Over(Some(Ok(())));
        }
        let (reply, answer) = oneshot::channel();
        machine.attempts += 1;
        let id = machine.attempts;
        machine.replies.insert(id, reply);
        machine.membership.step(now, Event::Commit(id, left.clone()), &mut machine.effects);
        group.work.notify_one();
        Begun::Sent(left, answer)
    }
}

/// What came of beginning an attempt.
enum Begun {
    /// A later commit comes first; told when that is over.
    Waits(oneshot::Receiver<()>),
    /// As [`Commit::once`] says.
    Over(Option<Result<(), CommitRefusal>>),
    /// What was sent, and where the answer comes.
    Sent(Offsets, oneshot::Receiver<Result<(), CommitRefusal>>),
}

impl Machine {
    /// A partition that is not owned any more since then, or again.
    fn passed_on<'a>(&self, tenures: &'a Tenures) -> Option<&'a TopicPartition> {
        let passed =
            |(name, since): &(&TopicPartition, &Option<u64>)| self.membership.tenure(name) != **since;
        tenures.iter().find(passed).map(|(name, _)| name)
    }
}

impl Group {
    pub(in crate::consumer) fn begin_commit(self: &Arc<Self>) -> Commit {
        let number = self.machine.lock().order.begin();
        Commit { group: self.clone(), number }
    }

    /// Commits these.
    pub(in crate::consumer) async fn commit(self: &Arc<Self>, offsets: Offsets) -> Result<(), CommitError> {
        self.begin_commit().offsets(offsets, self.api_deadline()).await
    }

    /// Commits what was handed out by now.
    pub(in crate::consumer) async fn commit_positions(self: &Arc<Self>) -> Result<(), CommitError> {
        let (commit, deadline) = (self.begin_commit(), self.api_deadline());
        commit.offsets(self.positions(), deadline).await
    }

    /// As [`Self::commit_positions`], in the background; the future tells the outcome.
    pub(in crate::consumer) fn commit_in_passing(
        self: &Arc<Self>,
    ) -> impl Future<Output = Result<(), CommitError>> + Send + 'static + use<> {
        let (commit, deadline) = (self.begin_commit(), self.api_deadline());
        let positions = self.positions();
        let commit = commit.in_the_background(&positions).offsets(positions, deadline);
        if self.config.named {
            // Or whoever closes would find nobody to wait for.
            self.activate();
        }
        let (told, outcome) = oneshot::channel();
        let commit = async move {
            // Nobody may be waiting.
            let _ = told.send(commit.await);
        };
        self.shared.client.rt().spawn(commit).detach();
        async move { outcome.await.unwrap_or(Err(CommitError::Closed)) }
    }

    /// Commits that these records are done. What was read before others had the partition is void: they have gone on.
    pub(in crate::consumer) async fn commit_read(
        self: &Arc<Self>,
        offsets: Offsets,
    ) -> Result<(), CommitError> {
        match self.read_before(&offsets) {
            Some(partition) => Err(CommitError::NotOwned { partition }),
            None => self.commit(offsets).await,
        }
    }

    /// Reading begins where the group has committed.
    pub(super) fn begins(&self, found: &BTreeMap<TopicPartition, Option<CommittedOffset>>) {
        self.shared.went_back.lock().retain(|name| !found.contains_key(name));
        let Machine { membership, began, .. } = &mut *self.machine.lock();
        began.retain(|name, (since, _)| membership.tenure(name) == Some(*since));
        for (name, at) in found {
            if let Some(tenure) = membership.tenure(name) {
                // It may have been sought before.
                began.entry(name.clone()).or_insert((tenure, Some(at.as_ref().map_or(0, |at| at.offset))));
            }
        }
    }

    /// A partition of which this was read before it was taken over, from others who have committed more: nothing was read since, or only
    /// what lies behind.
    fn read_before(&self, offsets: &Offsets) -> Option<TopicPartition> {
        for (name, at) in offsets {
            let position = self.shared.position(name).flatten();
            let elsewhere = self.shared.went_back.lock().contains(name);
            let Machine { membership, began, .. } = &mut *self.machine.lock();
            let Some(tenure) = membership.tenure(name) else { continue };
            let Some((_, began)) = began.get_mut(name).filter(|(since, _)| *since == tenure) else {
                return Some(name.clone());
            };
            // Or the log has lost its end, or is another one: what lies before is read again.
            began.take_if(|began| elsewhere || position.is_some_and(|position| position < *began));
            if began.is_some_and(|began| at.offset < began) {
                return Some(name.clone());
            }
        }
        None
    }

    /// Waits until commits of these that go on by themselves are over, at most until then.
    pub(super) async fn background_commits(&self, until: Tick, of: impl Fn(&TopicPartition) -> bool) {
        let over: Vec<_> = {
            let Machine { background, behind, .. } = &mut *self.machine.lock();
            let concerned = background.iter().filter(|(_, partitions)| partitions.iter().any(&of));
            let waits = |(number, _): (&u64, _)| {
                let (wake, over) = oneshot::channel();
                behind.entry(*number).or_default().push(wake);
                over
            };
            concerned.map(waits).collect()
        };
        if over.is_empty() {
            return;
        }
        let over = futures::future::join_all(over);
        if self.in_half_of_the_time(until, over).await.is_none() {
            tracing::warn!("commits in the background are not over when their partitions are given up");
        }
    }

    /// Commits what is done, for a listener.
    pub(in crate::consumer) async fn commit_done(self: &Arc<Self>) -> Result<(), CommitError> {
        let (commit, deadline) = (self.begin_commit(), self.patience_ends());
        let done = self.shared.committable(&self.held(), true);
        commit.offsets(done, deadline).await
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

    /// Commits what is done and was not committed already.
    pub(super) fn commit_in_the_background(self: &Arc<Self>) {
        let (commit, deadline) = (self.begin_commit(), self.patience_ends());
        let offsets = self.done();
        let commit = commit.in_the_background(&offsets);
        self.machine.lock().order.forget(|_| true);
        if !offsets.is_empty() && self.is_active() {
            // Soon others are assigned, or it is a member, which commits only what the group gave it.
            let commit = commit.at_once(offsets, deadline);
            let commit = async move {
                if let Err(error) = commit.await {
                    tracing::warn!(%error, "positions not committed before others were assigned");
                }
            };
            self.shared.client.rt().spawn(commit).detach();
        }
    }

    /// What is done and not known to be committed.
    pub(super) fn done(&self) -> Offsets {
        let mut offsets = self.shared.committable(&self.held(), true);
        let mut machine = self.machine.lock();
        let recreated = std::mem::take(&mut *self.shared.recreated.lock());
        machine.order.forget(|name| recreated.contains(name));
        offsets.retain(|name, at| machine.order.committed(name) != Some(at));
        offsets
    }

    /// Behind what was handed out. Who commits that is done with it.
    pub(in crate::consumer) fn positions(&self) -> Offsets {
        self.shared.committable(&self.held(), false)
    }

    /// As [`Self::positions`], with the ids of the topics that these are positions in; nil where unknown.
    pub(in crate::consumer) fn places(&self) -> Vec<(TopicPartition, Place, Uuid)> {
        self.shared.places(&self.held(), false)
    }

    /// What is assigned by hand, or owned.
    fn held(&self) -> BTreeSet<TopicPartition> {
        let machine = self.machine.lock();
        if machine.is_member() { machine.membership.owned().clone() } else { self.shared.assigned() }
    }

    /// Since when each of the partitions is owned.
    pub(super) fn tenures(&self, offsets: &Offsets) -> Tenures {
        let machine = self.machine.lock();
        offsets.keys().map(|name| (name.clone(), machine.membership.tenure(name))).collect()
    }
}
