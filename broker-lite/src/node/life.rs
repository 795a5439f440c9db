//! One incarnation of one node: its tasks, whether they run, and what it still owes to clients.
//!
//! In: spawn, pause, resume, kill. Out: tasks that stop at their next poll, all together.
//!
//! Invariant: after [`Life::kill`] returns no task of the node is polled again and no answer leaves it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use crate::rt::Rt;

/// The switch all tasks of one incarnation hang on.
#[derive(Debug)]
pub(crate) struct Life {
    rt: Rt,
    state: Mutex<State>,
    produce_arrived: Notify,
    quiet: Notify,
}

#[derive(Debug, Default)]
struct State {
    dead: bool,
    paused: bool,
    parked: Vec<Waker>,
    /// Each is entered before it is spawned, and gone when it is done.
    tasks: BTreeMap<u64, Option<AbortHandle>>,
    next_task: u64,
    produce_in_flight: usize,
    /// Somebody wants the node dead as soon as a Produce is unanswered.
    trap: Option<oneshot::Sender<usize>>,
    /// Tasks not dropped yet; outlives `tasks`, which only serves to abort.
    undropped: usize,
}

impl Life {
    /// A running node without tasks.
    pub(crate) fn new(rt: Rt) -> Arc<Self> {
        Arc::new(Self { rt, state: Mutex::default(), produce_arrived: Notify::new(), quiet: Notify::new() })
    }

    /// Runs a task that stops with the node.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.state.lock();
        if state.dead {
            return;
        }
        let id = state.next_task;
        state.next_task += 1;
        state.undropped += 1;
        state.tasks.insert(id, None);
        drop(state);
        let gated = Gated { life: self.clone(), id, task: Some(Box::pin(task)) };
        // Without the lock: a runtime that is shutting down drops the task at once.
        let handle = self.rt.spawn(gated);
        let mut state = self.state.lock();
        if state.dead {
            drop(state);
            handle.abort();
        } else if let Some(entry) = state.tasks.get_mut(&id) {
            *entry = Some(handle);
        }
    }

    /// Ends the node. Returns the Produce requests left unanswered, or `None` if it was dead.
    pub(crate) fn kill(&self) -> Option<usize> {
        let state = self.state.lock();
        if state.dead {
            return None;
        }
        Some(self.end(state))
    }

    fn end(&self, mut state: MutexGuard<'_, State>) -> usize {
        state.dead = true;
        let tasks = std::mem::take(&mut state.tasks);
        let parked = std::mem::take(&mut state.parked);
        let unanswered = std::mem::take(&mut state.produce_in_flight);
        let trap = state.trap.take();
        // What is dropped from here on may want the lock.
        drop(state);
        tasks.values().flatten().for_each(AbortHandle::abort);
        drop(parked);
        if let Some(trap) = trap {
            // Nobody waits any more: the node is dead all the same, as was asked for.
            let _ = trap.send(unanswered);
        }
        self.produce_arrived.notify_waiters();
        unanswered
    }

    /// Kills the node while a Produce is unanswered: now, or in the moment the next one comes in.
    /// Returns how many were unanswered, `None` if the node was dead or dies of something else.
    pub(crate) async fn kill_when_produce_in_flight(&self) -> Option<usize> {
        let sprung = {
            let mut state = self.state.lock();
            if state.dead {
                return None;
            }
            if state.produce_in_flight > 0 {
                return Some(self.end(state));
            }
            let (trap, sprung) = oneshot::channel();
            state.trap = Some(trap);
            sprung
        };
        sprung.await.ok().filter(|unanswered| *unanswered > 0)
    }

    /// Waits until a Produce is unanswered, or the node is dead.
    pub(crate) async fn until_produce_in_flight(&self) {
        loop {
            let arrived = self.produce_arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            {
                let state = self.state.lock();
                if state.dead || state.produce_in_flight > 0 {
                    return;
                }
            }
            arrived.await;
        }
    }

    /// Waits until the node is dead, of whatever.
    pub(crate) async fn until_dead(&self) {
        loop {
            let died = self.produce_arrived.notified();
            tokio::pin!(died);
            died.as_mut().enable();
            if self.state.lock().dead {
                return;
            }
            died.await;
        }
    }

    /// Waits until every task is dropped, with its sockets; only of use after [`Self::kill`].
    pub(crate) async fn until_quiet(&self) {
        loop {
            let quiet = self.quiet.notified();
            tokio::pin!(quiet);
            quiet.as_mut().enable();
            if self.state.lock().undropped == 0 {
                return;
            }
            quiet.await;
        }
    }

    /// Stops polling the node's tasks. `false` if it is dead or paused already.
    pub(crate) fn pause(&self) -> bool {
        let mut state = self.state.lock();
        let change = !state.dead && !state.paused;
        state.paused |= change;
        change
    }

    /// Polls the node's tasks again. `false` if it is dead or not paused.
    pub(crate) fn resume(&self) -> bool {
        let mut state = self.state.lock();
        if state.dead || !state.paused {
            return false;
        }
        state.paused = false;
        let parked = std::mem::take(&mut state.parked);
        drop(state);
        parked.into_iter().for_each(Waker::wake);
        true
    }

    /// Whether the node was killed.
    pub(crate) fn is_dead(&self) -> bool {
        self.state.lock().dead
    }

    /// Whether the node is paused.
    pub(crate) fn is_paused(&self) -> bool {
        self.state.lock().paused
    }

    /// Produce requests taken in and not answered.
    pub(crate) fn produce_in_flight(&self) -> usize {
        self.state.lock().produce_in_flight
    }

    /// Counts a Produce request that will be answered.
    pub(crate) fn produce_arrived(self: &Arc<Self>) -> Owed {
        let mut state = self.state.lock();
        state.produce_in_flight += 1;
        if state.trap.as_ref().is_some_and(|trap| !trap.is_closed()) {
            self.end(state);
            return Owed(None);
        }
        drop(state);
        self.produce_arrived.notify_waiters();
        Owed(Some(self.clone()))
    }

    /// Hands out an answer, unless the node is dead; both under one lock, so that a kill falls
    /// either before or after it.
    pub(crate) fn answer<T>(&self, owed: Option<Owed>, hand_out: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.state.lock();
        if state.dead {
            drop(state);
            return None;
        }
        if let Some(mut owed) = owed {
            owed.0 = None;
            state.produce_in_flight = state.produce_in_flight.saturating_sub(1);
        }
        Some(hand_out())
    }
}

/// One Produce request that is still to be answered.
#[derive(Debug)]
pub(crate) struct Owed(Option<Arc<Life>>);

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(life) = self.0.take() {
            let mut state = life.state.lock();
            state.produce_in_flight = state.produce_in_flight.saturating_sub(1);
        }
    }
}

/// A task that is polled only while its node lives and is not paused.
struct Gated {
    life: Arc<Life>,
    id: u64,
    task: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = self.life.state.lock();
            if state.dead {
                drop(state);
                self.task = None;
                return Poll::Ready(());
            }
            if state.paused {
                state.parked.push(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let Some(task) = self.task.as_mut() else { return Poll::Ready(()) };
        let done = task.as_mut().poll(cx).is_ready();
        if done {
            self.task = None;
            let handle = self.life.state.lock().tasks.remove(&self.id);
            drop(handle);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.task = None;
        let mut state = self.life.state.lock();
        state.undropped -= 1;
        if state.undropped == 0 {
            self.life.quiet.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    fn life() -> Arc<Life> {
        Life::new(Rt::current(Some(1)).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_node_does_nothing_until_it_is_resumed() {
        let life = life();
        let (ask, mut asked) = mpsc::channel::<u32>(8);
        let (answer, mut answers) = mpsc::channel(8);
        life.spawn(async move {
            while let Some(number) = asked.recv().await {
                answer.send(number).await.unwrap();
            }
        });
        assert!(life.pause());
        ask.send(7).await.unwrap();
        life.rt.sleep(Duration::from_secs(60)).await;
        assert!(answers.try_recv().is_err(), "the task must not have been polled");
        assert!(life.resume());
        assert_eq!(answers.recv().await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_killed_node_drops_its_tasks_and_hands_out_no_answer() {
        let life = life();
        let (held, mut dropped) = mpsc::channel::<()>(1);
        life.spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        let owed = life.produce_arrived();
        assert_eq!(life.kill(), Some(1));
        assert_eq!(life.kill(), None);
        assert_eq!(dropped.recv().await, None, "the task's own values are dropped");
        assert_eq!(life.answer(Some(owed), || "answer"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kill_on_produce_falls_before_the_answer() {
        let life = life();
        let victim = life.clone();
        let (unanswered, ()) = tokio::join!(life.kill_when_produce_in_flight(), async {
            victim.rt.sleep(Duration::from_millis(1)).await;
            let owed = victim.produce_arrived();
            assert_eq!(victim.answer(Some(owed), || ()), None, "the kill came first");
        });
        assert_eq!(unanswered, Some(1));
    }
}
