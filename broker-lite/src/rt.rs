//! The drivers' only door to time, chance and tasks.
//!
//! In: nothing. Out: a monotonic [`Tick`], wall-clock milliseconds, sleeping, spawning, seeded
//! random streams. Under a paused tokio clock all of it is virtual and repeatable.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Time since the runtime's origin.
pub(crate) type Tick = Duration;

/// 2026-01-01, the date at which a run that can be repeated begins.
pub(crate) const REPEATABLE_WALL_MS: i64 = 1_767_225_600_000;

/// Handle to time, chance and tasks; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Rt(Arc<Origin>);

#[derive(Debug)]
struct Origin {
    tokio: tokio::runtime::Handle,
    start: Instant,
    wall_at_start_ms: i64,
    seed: u64,
}

impl Rt {
    /// The runtime of the calling task, or `None` outside tokio.
    ///
    /// With a seed the wall clock starts at a fixed date, so that a run can be repeated.
    pub(crate) fn current(seed: Option<u64>) -> Option<Self> {
        let tokio = tokio::runtime::Handle::try_current().ok()?;
        let ambient = klamm_wire::ambient::current();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_at_start_ms = match &ambient {
            Some(simulation) => simulation.wall_ms(),
            None if seed.is_some() => REPEATABLE_WALL_MS,
            None => i64::try_from(wall.as_millis()).unwrap_or(0),
        };
        let seed = seed.or_else(|| ambient.map(|simulation| simulation.next_seed()));
        let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        Some(Self(Arc::new(Origin { tokio, start: Instant::now(), wall_at_start_ms, seed })))
    }

    /// Monotonic time.
    pub(crate) fn now(&self) -> Tick {
        self.0.start.elapsed()
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn wall_ms(&self) -> i64 {
        self.0.wall_at_start_ms + i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// Waits until `at`.
    pub(crate) async fn sleep_until(&self, at: Tick) {
        tokio::time::sleep_until(self.0.start + at).await;
    }

    /// Waits until `at`, or for ever if there is nothing to wait for.
    pub(crate) async fn sleep_until_some(&self, at: Option<Tick>) {
        match at {
            Some(at) => self.sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Waits for `time`.
    pub(crate) async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Runs `task` until it ends or is aborted.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.0.tokio.spawn(task).abort_handle()
    }

    /// A stream of chance of its own for each purpose.
    pub(crate) fn rng(&self, stream: &str) -> fastrand::Rng {
        let mix = stream.bytes().fold(self.0.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        fastrand::Rng::with_seed(mix)
    }
}
