//! The end of a consumer: what is done is committed, the group is left, all within one time limit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use klamm_core::Tick;
use klamm_core::group::Event;
use tokio::sync::oneshot;

use super::Group;

/// A closing that is under way, or over.
pub(super) struct Closing {
    /// When it ends at the latest.
    by: Tick,
    over: Shared<BoxFuture<'static, ()>>,
}

impl Group {
    /// Leaves for good, and ends reading; returns when that is done, at most after `default.api.timeout.ms`, or
    /// `request.timeout.ms` if that is longer. Goes on if the future is dropped. Whoever comes later waits for the same.
    pub(in crate::consumer) async fn close(self: &Arc<Self>) {
        if let Some(over) = self.start_to_close(self.shared.client.settings().patience()) {
            over.await;
        }
    }

    /// The consumer is gone: what [`Self::close`] does is done within `request.timeout.ms`. On a runtime that is ending nothing
    /// is done.
    pub(in crate::consumer) fn abandon(self: &Arc<Self>) {
        if self.start_to_close(self.shared.client.settings().request_timeout).is_some() {
            // What was handed out stays known until it is committed.
            self.shared.end_reading();
        }
    }

    /// Says nothing to anybody.
    pub(in crate::consumer) fn vanish(&self) {
        self.end();
    }

    /// Closes by a task of its own, unless that is under way; `None` if there is nothing to wait for.
    fn start_to_close(self: &Arc<Self>, within: Duration) -> Option<Shared<BoxFuture<'static, ()>>> {
        let by = self.shared.now().saturating_add(within);
        let (tell, told) = oneshot::channel();
        let over = {
            let mut machine = self.machine.lock();
            if let Some(closing) = &machine.closing {
                return Some(closing.over.clone());
            }
            if machine.task.is_none() {
                drop(machine);
                self.end();
                self.shared.close();
                return None;
            }
            // It is told or, with the runtime, dropped.
            let over = told.map(|_| ()).boxed().shared();
            machine.closing = Some(Closing { by, over: over.clone() });
            over
        };
        self.hurry.notify_waiters();
        let group = self.clone();
        let closing = async move {
            group.commit_last().await;
            group.step(Event::Close);
            group.until(by, |_| group.closed.load(Ordering::Acquire)).await;
            if !group.closed.load(Ordering::Acquire) {
                tracing::warn!("the consumer could not leave its group in time; its session will time out");
            }
            group.end();
            group.shared.close();
            // Nobody may be waiting.
            let _ = tell.send(());
        };
        self.shared.client.rt().spawn(closing).detach();
        Some(over)
    }

    /// When a commit has to be done that something else follows: the listener, or LeaveGroup, needs time as well.
    pub(super) fn half_of_the_time(&self) -> Tick {
        let now = self.shared.now();
        let half = now.saturating_add(self.config.max_poll / 2);
        let machine = self.machine.lock();
        let closed_by = machine.closing.as_ref().map(|closing| closing.by);
        let unsubscribed_by = machine.unsubscribed_by.filter(|by| *by > now);
        let by = closed_by.into_iter().chain(unsubscribed_by).min();
        by.map_or(half, |by| half.min(now.saturating_add(by.saturating_sub(now) / 2)))
    }

    /// Waits for something until then, or for half of the time that is left once less is left than there was.
    pub(super) async fn in_half_of_the_time<T>(
        &self,
        until: Tick,
        wanted: impl Future<Output = T>,
    ) -> Option<T> {
        let mut wanted = std::pin::pin!(wanted);
        let mut until = until;
        loop {
            let mut hurry = std::pin::pin!(self.hurry.notified());
            hurry.as_mut().enable();
            until = until.min(self.half_of_the_time());
            tokio::select! {
                biased;
                done = &mut wanted => return Some(done),
                () = self.shared.client.rt().sleep_until(until) => return None,
                () = hurry => {}
            }
        }
    }

    /// What is to be committed in the background, and with automatic commits what is done, is committed of what was assigned by hand.
    /// A member does so when it gives up.
    async fn commit_last(self: &Arc<Self>) {
        if self.is_member() {
            return;
        }
        let half = self.half_of_the_time();
        self.background_commits(half, |_| true).await;
        if self.config.auto_commit.is_none() {
            return;
        }
        let commit = self.begin_commit();
        let done = self.done();
        if !done.is_empty()
            && let Err(error) = commit.offsets(done, half).await
        {
            tracing::warn!(%error, "positions not committed before closing");
        }
    }

    fn end(&self) {
        self.closed.store(true, Ordering::Release);
        let mut machine = self.machine.lock();
        let task = machine.task.take();
        machine.replies.clear();
        machine.behind.clear();
        drop(machine);
        drop(task);
    }
}
