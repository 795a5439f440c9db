//! The crate's only door to time, chance and tasks.
//!
//! Everything else asks an [`Rt`], so that virtual time and seeds can replace the real ones. tokio's clock
//! stands behind `now` and `sleep`, so a paused runtime is followed.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use klamm_core::Tick;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::error::ConfigError;

/// Time, chance and tasks of one client. Inside of a simulation ([`klamm_wire::ambient`]) all three are its own.
#[derive(Debug, Clone)]
pub(crate) struct Rt {
    handle: Handle,
    origin: tokio::time::Instant,
    seed: u64,
    /// In a simulation: what the wall clock showed at `origin`.
    simulated_wall_ms: Option<i64>,
}

impl Rt {
    /// The runtime of the calling task.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::NoRuntime`] outside of a tokio runtime.
    pub(crate) fn current() -> Result<Self, ConfigError> {
        let handle = Handle::try_current().map_err(|_| ConfigError::NoRuntime)?;
        let ambient = klamm_wire::ambient::current();
        let seed = match &ambient {
            Some(simulation) => simulation.next_seed(),
            None => std::hash::RandomState::new().build_hasher().finish(),
        };
        let origin = tokio::time::Instant::now();
        let simulated_wall_ms = ambient.map(|simulation| simulation.wall_ms());
        Ok(Self { handle, origin, seed, simulated_wall_ms })
    }

    /// The runtime of the calling task, for whoever needs no chance: in a simulation it leaves those who do with the
    /// seeds they would have without it.
    ///
    /// # Errors
    ///
    /// As [`Self::current`].
    pub(crate) fn without_chance() -> Result<Self, ConfigError> {
        let handle = Handle::try_current().map_err(|_| ConfigError::NoRuntime)?;
        let origin = tokio::time::Instant::now();
        let simulated_wall_ms = klamm_wire::ambient::current().map(|simulation| simulation.wall_ms());
        Ok(Self { handle, origin, seed: 0, simulated_wall_ms })
    }

    /// `true` inside of a simulation.
    pub(crate) fn is_simulated(&self) -> bool {
        self.simulated_wall_ms.is_some()
    }

    /// Time since this `Rt` was made.
    pub(crate) fn now(&self) -> Tick {
        self.origin.elapsed()
    }

    /// Milliseconds since 1970, for record timestamps.
    pub(crate) fn wall_ms(&self) -> i64 {
        if let Some(start) = self.simulated_wall_ms {
            return start + i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX / 2);
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// Waits until a moment; one in the past resolves at once.
    pub(crate) async fn sleep_until(&self, at: Tick) {
        match self.origin.checked_add(at) {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// Waits until a moment, or for ever if there is none.
    pub(crate) async fn sleep_until_some(&self, at: Option<Tick>) {
        match at {
            Some(at) => self.sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Waits for a while.
    pub(crate) async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Runs a future until `at`; `None` if it was not ready by then.
    pub(crate) async fn before<F: Future>(&self, at: Tick, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep_until(at) => None,
        }
    }

    /// Starts a task; it is aborted when the [`Task`] is dropped.
    pub(crate) fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        if self.simulated_wall_ms.is_some() {
            return Task { join: Some(self.handle.spawn(told(future))) };
        }
        Task { join: Some(self.handle.spawn(future)) }
    }

    /// A stream of random numbers of its own for each name.
    pub(crate) fn rng(&self, stream: &str) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed ^ stable_hash(stream))
    }

    /// Runs something that takes long on a worker of its own; `None` if it panicked or the runtime is gone.
    pub(crate) async fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self.is_simulated() {
            // Threads end in an order that no seed knows; virtual time waits for no work anyway.
            return std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok();
        }
        self.handle.spawn_blocking(work).await.ok()
    }
}

/// The task that runs; `None` outside of tasks.
#[inline]
pub(crate) fn current_task() -> Option<tokio::task::Id> {
    tokio::task::try_id()
}

/// FNV-1a: std's hashers promise no stable result, and a seed must replay.
pub(crate) fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A task whose panic the simulation hears of: the runtime would keep it to itself.
async fn told<F: Future>(future: F) -> F::Output {
    match std::panic::AssertUnwindSafe(future).catch_unwind().await {
        Ok(output) => output,
        Err(panic) => {
            klamm_wire::ambient::panicked(panic.as_ref());
            std::panic::resume_unwind(panic)
        }
    }
}

/// A running task. Dropping it ends the task; awaiting it yields `None` if the task was ended or panicked.
#[derive(Debug)]
#[must_use = "the task ends when this is dropped"]
pub(crate) struct Task<T = ()> {
    join: Option<JoinHandle<T>>,
}

impl<T> Task<T> {
    /// Lets the task run on by itself.
    pub(crate) fn detach(mut self) {
        self.join = None;
    }

    /// `true` once the task has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.join.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.join {
            Some(join) => Pin::new(join).poll(cx).map(Result::ok),
            None => Poll::Ready(None),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(join) = &self.join {
            join.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_a_runtime_there_is_an_error_and_no_panic() {
        assert!(matches!(Rt::current(), Err(ConfigError::NoRuntime)));
    }

    #[tokio::test(start_paused = true)]
    async fn time_follows_the_clock_of_the_runtime() {
        let rt = Rt::current().unwrap();
        rt.sleep_until(Duration::from_secs(60)).await;
        assert!(rt.now() >= Duration::from_secs(60));
        rt.sleep_until(Duration::from_secs(1)).await;
        assert!(rt.now() < Duration::from_secs(61), "a moment in the past does not wait");
    }

    #[tokio::test]
    async fn dropping_a_task_ends_it() {
        let rt = Rt::current().unwrap();
        let (tx, rx) = tokio::sync::oneshot::channel::<()>();
        let task = rt.spawn(async move {
            let _held = tx;
            std::future::pending::<()>().await;
        });
        drop(task);
        assert!(rx.await.is_err(), "the task's end drops its sender");
    }

    #[tokio::test]
    async fn named_streams_differ_and_repeat() {
        let rt = Rt::current().unwrap();
        assert_eq!(rt.rng("a").u64(..), rt.rng("a").u64(..));
        assert_ne!(rt.rng("a").u64(..), rt.rng("b").u64(..));
    }
}
