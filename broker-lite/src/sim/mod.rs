//! Virtual time: client, cluster and the code that uses them in one thread, on one clock that moves only while
//! everybody waits, with all chance drawn from one seed.
//!
//! ```
//! use broker_lite::sim;
//!
//! for seed in sim::seeds(0..3) {
//!     let done = sim::run(seed, |sim| async move {
//!         let cluster = sim.cluster().brokers(3).topic("orders", Some(1), Some(3)).start().await?;
//!         let leader = cluster.leader_of("orders", 0).ok_or("no leader")?;
//!         cluster.kill(leader)?;
//!         cluster.until_leader("orders", 0, |found| found.is_some_and(|found| found != leader)).await;
//!         Ok::<_, Box<dyn std::error::Error>>(())
//!     });
//!     assert!(done.is_ok());
//! }
//! ```
//!
//! For the code of this workspace the same binary and the same seed give the same history, byte for byte: every message
//! that arrives goes into a [`Trace`]. When a run fails it is run again at once; if the two histories differ, the first
//! difference is named: then something in the run has a chance of its own, such as an unbiased `select!`, iteration
//! over a std `HashMap`, a thread, `spawn_blocking`, the real clock.
//!
//! What may run inside: `tokio::spawn`, `tokio::time`, channels, `JoinSet`, `timeout`, the client `klamm` with
//! [`Cluster::handle`](crate::Cluster::handle) as its connector. What may not: sockets and files (the runtime has no
//! I/O), threads and `spawn_blocking` (virtual time does not wait for them), `block_on`.
//!
//! [`run`] is one history. [`explore`] runs many seeds, each with a [`Schedule`] of faults, and shrinks what fails.

mod explore;
mod play;
mod schedule;
mod trace;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use klamm_wire::ambient::{self, said};

pub use explore::{Explored, Failed, SCENARIO_VARIABLE, Shrink, explore};
pub use play::Played;
pub use schedule::{Chaos, Fault, Isolation, Moment, Schedule, Way, What, Who};
pub use trace::{Difference, Trace};

use crate::cluster::ClusterBuilder;
use crate::rt::simulated;
pub(crate) use trace::Recorder;

/// Environment variable that names the one seed to run.
pub const SEED_VARIABLE: &str = "KLAMM_SIM_SEED";

/// Longest run in virtual time; a run that takes longer waits for something that never comes.
const VIRTUAL_LIMIT: Duration = Duration::from_secs(2 * 3600);
/// How the failure of such a run begins.
pub(crate) const STILL_WAITS: &str = "the run still waits after";

/// The seeds to run: those given, or only the one that `KLAMM_SIM_SEED` names.
///
/// # Panics
///
/// If the variable is set, but is no number: all seeds would run instead of the one that was meant.
pub fn seeds(all: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let Some(named) = simulated::variable(SEED_VARIABLE) else { return all.into_iter().collect() };
    match named.trim().parse() {
        Ok(seed) => vec![seed],
        Err(_) => {
            resume_unwind(Box::new(format!("{SEED_VARIABLE}={named} is not a number from 0 to 2^64 - 1")))
        }
    }
}

/// One run, as its body sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sim {
    seed: u64,
    recorder: Arc<Recorder>,
}

impl Sim {
    /// The run's seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A seed of its own for each purpose, so that what one part draws does not move what another one draws.
    pub fn seed_for(&self, purpose: &str) -> u64 {
        seed_for(self.seed, purpose)
    }

    /// Describes a cluster with simulated network and disks: a message takes 1 to 10 ms, an fsync 1 to 5 ms. A broker waits
    /// one second for the controller (`controller.socket.timeout.ms`, in Kafka 30 s).
    pub fn cluster(&self) -> ClusterBuilder {
        ClusterBuilder::default().seed(self.seed_for("cluster")).simulated(self.recorder.clone())
    }

    /// Virtual time since the run began.
    pub fn now(&self) -> Duration {
        self.recorder.now()
    }

    /// Writes a line of the caller's own into the trace.
    pub fn note(&self, line: impl fmt::Display) {
        self.recorder.note(&line.to_string());
    }

    /// What happened so far.
    pub fn trace(&self) -> Trace {
        self.recorder.trace()
    }
}

/// See [`Sim::seed_for`].
pub(crate) fn seed_for(seed: u64, purpose: &str) -> u64 {
    ambient::mix(seed, purpose.bytes().fold(0_u64, |hash, byte| ambient::mix(hash, u64::from(byte))))
}

/// What a body may return: whether it failed, and how.
pub trait Verdict {
    /// Why the run failed, if it did.
    fn failure(&self) -> Option<String>;
}

impl Verdict for () {
    fn failure(&self) -> Option<String> {
        None
    }
}

impl<T, E: fmt::Display> Verdict for Result<T, E> {
    fn failure(&self) -> Option<String> {
        self.as_ref().err().map(ToString::to_string)
    }
}

/// How one run ended.
pub(crate) struct Ended<T> {
    pub(crate) outcome: Result<T, Box<dyn Any + Send>>,
    pub(crate) trace: Trace,
}

impl<T: Verdict> Ended<T> {
    /// Why it failed, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        match &self.outcome {
            Ok(value) => value.failure(),
            Err(panic) => Some(said(panic.as_ref())),
        }
    }
}

/// Runs `body` to its end in virtual time, on a runtime of its own, and returns what it returned.
///
/// A run in which a task of broker or client panics, or that takes more than two hours of virtual time, has failed.
///
/// A body that panics, or returns an error, is run once more with the same seed. What that shows, and how to repeat it,
/// is written to standard error; then the panic goes on, or the error is returned.
///
/// # Panics
///
/// Where the body does, and where the run has failed otherwise; also inside of another runtime, where no second one can be
/// driven.
pub fn run<F>(seed: u64, body: impl Fn(Sim) -> F) -> F::Output
where
    F: Future,
    F::Output: Verdict,
{
    let first = once(seed, &body);
    if let Some(failure) = first.failure() {
        let again = once(seed, &body);
        let (repeated, replay) = (repeated(&first.trace, &again.trace), replay_command(seed));
        simulated::tell(&format!(
            "sim: seed {seed} failed: {failure}\n     {repeated}\n     replay: {replay}"
        ));
    }
    first.outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// One run, and everything that happened in it: to compare runs, or to judge them by other means than [`run`], which
/// says more where something fails.
///
/// # Errors
///
/// What a panic of the body said.
pub fn traced<F: Future>(seed: u64, body: impl FnOnce(Sim) -> F) -> (Result<F::Output, String>, Trace) {
    let Ended { outcome, trace } = once(seed, body);
    (outcome.map_err(|panic| said(panic.as_ref())), trace)
}

/// Whether two runs of one seed were the same, in words.
pub(crate) fn repeated(first: &Trace, again: &Trace) -> String {
    match first.difference(again) {
        None => format!("the same seed gave the same history again: {first}"),
        Some(difference) => format!("not repeatable: {difference}"),
    }
}

/// The command that runs this seed again.
pub(crate) fn replay_command(seed: u64) -> String {
    let thread = std::thread::current();
    // The test runner names a thread after its test.
    match thread.name().filter(|name| *name != "main") {
        Some(test) => format!("{SEED_VARIABLE}={seed} cargo test {test}"),
        None => format!("{SEED_VARIABLE}={seed} and the same command"),
    }
}

/// One run on a runtime of its own. The trace is taken before the runtime and its tasks are dropped.
pub(crate) fn once<F: Future>(seed: u64, body: impl FnOnce(Sim) -> F) -> Ended<F::Output> {
    let recorder = Arc::new(Recorder::default());
    let sim = Sim { seed, recorder: recorder.clone() };
    let run = AssertUnwindSafe(|| {
        simulated::run(seed, |clock| async move {
            recorder.begin(clock.clone());
            let ended = clock.within(VIRTUAL_LIMIT, AssertUnwindSafe(body(sim)).catch_unwind()).await;
            let mut outcome = ended.unwrap_or_else(|| {
                let waits: Box<dyn Any + Send> =
                    Box::new(format!("{STILL_WAITS} {VIRTUAL_LIMIT:?} of virtual time"));
                Err(waits)
            });
            if let Some(panic) = ambient::current().and_then(|run| run.first_panic()) {
                let told: Box<dyn Any + Send> = Box::new(format!("a task panicked: {panic}"));
                outcome = outcome.and(Err(told));
            }
            Ended { outcome, trace: recorder.trace() }
        })
    });
    catch_unwind(run).unwrap_or_else(|panic| Ended { outcome: Err(panic), trace: Trace::default() })
}

#[cfg(test)]
mod tests;
