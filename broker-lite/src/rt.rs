//! The drivers' only door to time, chance and tasks.
//!
//! In: nothing. Out: a monotonic [`Tick`], wall-clock milliseconds, sleeping, spawning, seeded
//! random streams. Under a paused tokio clock all of it is virtual and repeatable.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, SystemTimeError, UNIX_EPOCH};

use futures::FutureExt;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Time since the runtime's origin.
pub(crate) type Tick = Duration;

/// 2026-01-01, the date at which a run that can be repeated begins.
#[cfg(feature = "sim")]
pub(crate) const REPEATABLE_WALL_MS: i64 = 1_767_225_600_000;

/// Handle to time, chance and tasks; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Rt {
    origin: Arc<Origin>,
    /// How far this node's wall clock is off, in ms.
    off_ms: Arc<AtomicI64>,
}

#[derive(Debug)]
struct Origin {
    tokio: tokio::runtime::Handle,
    start: Instant,
    /// Since the Unix epoch.
    wall_at_start: Duration,
    /// The system's two clocks at the start, unless the wall clock is a simulation's.
    system: Option<(SystemTime, std::time::Instant)>,
    seed: u64,
}

impl Rt {
    /// The runtime of the calling task, or `None` outside tokio.
    ///
    /// The wall clock is the real one, with or without a seed: clients of other processes have no other. In a simulation it is
    /// the run's.
    pub(crate) fn current(seed: Option<u64>) -> Option<Self> {
        let tokio = tokio::runtime::Handle::try_current().ok()?;
        let ambient = klamm_wire::ambient::current();
        let (start, system) = clocks();
        let wall_at_start = match &ambient {
            Some(simulation) => Duration::from_millis(u64::try_from(simulation.wall_ms()).unwrap_or(0)),
            None => system.0.duration_since(UNIX_EPOCH).unwrap_or_default(),
        };
        let seed = seed.or_else(|| ambient.as_ref().map(|simulation| simulation.next_seed()));
        let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        let system = ambient.is_none().then_some(system);
        let origin = Arc::new(Origin { tokio, start, wall_at_start, system, seed });
        Some(Self { origin, off_ms: Arc::default() })
    }

    /// The same runtime with a wall clock of its own: that of one node.
    pub(crate) fn of_node(&self) -> Self {
        Self { origin: self.origin.clone(), off_ms: Arc::default() }
    }

    /// Sets this node's wall clock so many ms off.
    pub(crate) fn set_wall_off(&self, ms: i64) {
        self.off_ms.store(ms, Ordering::Relaxed);
    }

    /// Monotonic time.
    pub(crate) fn now(&self) -> Tick {
        self.origin.start.elapsed()
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn wall_ms(&self) -> i64 {
        let stepped =
            self.origin.system.map_or(0, |(wall, monotonic)| stepped_ms(wall.elapsed(), monotonic.elapsed()));
        let wall = self.origin.wall_at_start + self.now();
        i64::try_from(wall.as_millis()).unwrap_or(i64::MAX / 4)
            + stepped
            + self.off_ms.load(Ordering::Relaxed)
    }

    /// Waits until `at`.
    pub(crate) async fn sleep_until(&self, at: Tick) {
        tokio::time::sleep_until(self.origin.start + at).await;
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
        if klamm_wire::ambient::current().is_some() {
            return self.origin.tokio.spawn(told(task)).abort_handle();
        }
        self.origin.tokio.spawn(task).abort_handle()
    }

    /// A stream of chance of its own for each purpose.
    pub(crate) fn rng(&self, stream: &str) -> fastrand::Rng {
        let mix = stream.bytes().fold(self.origin.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        fastrand::Rng::with_seed(mix)
    }
}

/// The runtime's clock and the system's two, read in one moment: who is interrupted between them reads again.
fn clocks() -> (Instant, (SystemTime, std::time::Instant)) {
    const MOMENT: Duration = Duration::from_micros(50);
    let mut tries = 0;
    loop {
        let monotonic = std::time::Instant::now();
        let (start, wall) = (Instant::now(), SystemTime::now());
        tries += 1;
        if monotonic.elapsed() < MOMENT || tries == 100 {
            return (start, (wall, monotonic));
        }
    }
}

/// How many ms the system's wall clock has run ahead of its monotonic clock, which knows neither the time that the
/// machine slept nor that somebody has set the clock.
fn stepped_ms(wall: Result<Duration, SystemTimeError>, monotonic: Duration) -> i64 {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4);
    let wall = wall.map_or_else(|set_back| -ms(set_back.duration()), ms);
    // Two clocks are not read at once, and both are rounded.
    let ahead = wall - ms(monotonic);
    if ahead.abs() <= 1 { 0 } else { ahead }
}

/// Lets the other tasks have their turn.
pub(crate) async fn give_way() {
    tokio::task::yield_now().await;
}

/// What a [`Worker`] does.
type Work = Box<dyn FnOnce() + Send>;

/// A thread for what blocks, such as fsync: one piece of work after the other, in order. It ends with its owners.
#[derive(Debug, Clone)]
pub(crate) struct Worker(Option<std::sync::mpsc::Sender<Work>>);

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub(crate) fn start(name: &str) -> std::io::Result<Self> {
        let (sender, receiver) = std::sync::mpsc::channel::<Work>();
        let run = move || receiver.into_iter().for_each(|work| work());
        std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self(Some(sender)))
    }

    /// No thread: for what does not block, and is done at once.
    #[cfg(feature = "sim")]
    pub(crate) fn inline() -> Self {
        Self(None)
    }

    /// Has `work` done there, whenever that is.
    pub(crate) fn post(&self, work: impl FnOnce() + Send + 'static) {
        match &self.0 {
            // Without the thread nothing can be done any more.
            Some(thread) => drop(thread.send(Box::new(work))),
            None => work(),
        }
    }

    /// Has `work` done there; `None` if the thread is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the work is done all the same.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let Some(thread) = &self.0 else { return Some(work()) };
        let (answer, answered) = tokio::sync::oneshot::channel();
        let work = move || drop(answer.send(work()));
        thread.send(Box::new(work)).ok()?;
        answered.await.ok()
    }
}

/// Does work that blocks for each of the items, each in a thread of its own, and waits for all.
///
/// # Errors
///
/// If the system gives no thread; what has begun is done all the same.
pub(crate) fn side_by_side<T: Send, R: Send>(
    items: impl Iterator<Item = T>,
    work: impl Fn(T) -> R + Sync,
) -> std::io::Result<Vec<R>> {
    let work = &work;
    std::thread::scope(|scope| {
        let start = |item| std::thread::Builder::new().spawn_scoped(scope, move || work(item));
        let started: Vec<_> = items.map(start).collect();
        let ended = started.into_iter().map(|started| {
            started.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        ended.collect()
    })
}

/// A task whose panic the simulation hears of: the runtime would keep it to itself.
async fn told(task: impl Future<Output = ()>) {
    if let Err(panic) = std::panic::AssertUnwindSafe(task).catch_unwind().await {
        klamm_wire::ambient::panicked(panic.as_ref());
        std::panic::resume_unwind(panic);
    }
}

/// The runtime of a simulated run, and what a run has to do with the real world.
#[cfg(feature = "sim")]
pub(crate) mod simulated {
    use std::future::Future;
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::REPEATABLE_WALL_MS;

    /// Real time without any progress of virtual time after which a word of warning is said.
    const STANDSTILL: Duration = Duration::from_secs(30);

    /// The clock of one run; it moves only while everybody waits.
    #[derive(Debug, Clone)]
    pub(crate) struct Clock(Instant);

    impl Clock {
        /// Virtual time since the run began.
        pub(crate) fn elapsed(&self) -> Duration {
            self.0.elapsed()
        }

        /// The output of `future`, or `None` if it takes longer.
        pub(crate) async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
            tokio::time::timeout(limit, future).await.ok()
        }
    }

    /// Runs `body` on a new runtime with one thread, virtual time, and no I/O: real time must not be waited for.
    pub(crate) fn run<F: Future>(seed: u64, body: impl FnOnce(Clock) -> F) -> F::Output {
        let parks = Arc::new(AtomicU64::new(0));
        let parked = parks.clone();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true);
        builder.on_thread_park(move || {
            parked.fetch_add(1, Ordering::Relaxed);
        });
        // Where tokio's unstable interface is there, its own chance (`select!` without `biased`) repeats too.
        #[cfg(tokio_unstable)]
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()));
        let runtime = match builder.build() {
            Ok(runtime) => runtime,
            Err(error) => {
                std::panic::resume_unwind(Box::new(format!("no runtime for a simulation: {error}")))
            }
        };
        let entered = runtime.enter();
        let clock = Clock(Instant::now());
        let wall = clock.clone();
        let _ambient = klamm_wire::ambient::enter(seed, move || {
            REPEATABLE_WALL_MS + i64::try_from(wall.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
        });
        drop(entered);
        let _watched = watch(seed, parks);
        let output = runtime.block_on(async move { body(clock).await });
        drop(runtime);
        output
    }

    /// Says so when virtual time stands still for long: a task that never waits holds it.
    fn watch(seed: u64, parks: Arc<AtomicU64>) -> mpsc::Sender<()> {
        let (end, ended) = mpsc::channel::<()>();
        let watch = move || {
            let mut before = 0;
            while ended.recv_timeout(STANDSTILL) == Err(mpsc::RecvTimeoutError::Timeout) {
                let now = parks.load(Ordering::Relaxed);
                if now == before {
                    tell(&format!(
                        "sim: virtual time of seed {seed} has not moved for {STANDSTILL:?}: a task computes for long, \
                         or is always ready (a loop around `yield_now` or `sleep(ZERO)`)"
                    ));
                }
                before = now;
            }
        };
        // Without the thread there is no warning, which is all that is lost.
        drop(std::thread::Builder::new().name("sim-watch".into()).spawn(watch));
        end
    }

    /// An environment variable.
    pub(crate) fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    /// Writes a line to standard error: what a failed run has to say is for whoever runs it.
    pub(crate) fn tell(text: &str) {
        // Not `eprintln!`, which the lints of this workspace keep for tests; a closed standard error is no failure.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_wall_clock_counts_the_hours_that_the_machine_slept() {
        let night = HOUR * 8;
        assert_eq!(stepped_ms(Ok(HOUR + night), HOUR), 28_800_000);
        assert_eq!(stepped_ms(Ok(HOUR), HOUR), 0);
        assert_eq!(stepped_ms(Ok(HOUR + Duration::from_micros(900)), HOUR), 0, "read a moment later");
    }

    #[test]
    fn the_wall_clock_follows_one_that_was_set_back() {
        let behind = SystemTime::now() + HOUR;
        let stepped = stepped_ms(behind.elapsed(), HOUR);
        assert!((-7_200_000..=-7_190_000).contains(&stepped), "{stepped}");
    }
}
