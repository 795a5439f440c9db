//! Many seeds, and the smallest scenario that still fails.
//!
//! ```text
//! seed ──make──▶ scenario (data) ──body──▶ verdict
//!                    ▲                        │ failed
//!                    └──── smaller ones ◀─────┘ as long as one of them fails too
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{STILL_WAITS, Sim, Verdict, once, repeated, replay_command};
use crate::rt::simulated;

/// Environment variable that holds a scenario to run instead of that of the seed: JSON, or `@` and the path of a file.
pub const SCENARIO_VARIABLE: &str = "KLAMM_SIM_SCENARIO";

/// Runs spent on shrinking one failure; fewer where each of them waits for hours of virtual time.
const MOST_SHRINKING_RUNS: u32 = 200;
const MOST_WAITING_RUNS: u32 = 8;

/// Data of which there are smaller versions.
pub trait Shrink: Sized {
    /// Versions with one thing less, the boldest first. None if it cannot be smaller.
    fn smaller(&self) -> Vec<Self>;
}

/// What came of many seeds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explored<S> {
    /// Runs made, without those that shrink or repeat.
    pub runs: u64,
    /// A hash of each history; there are as many as there were different ones.
    pub histories: BTreeSet<u64>,
    /// Events in all of them.
    pub events: u64,
    /// What failed.
    pub failures: Vec<Failed<S>>,
}

/// One seed that failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failed<S> {
    /// The seed.
    pub seed: u64,
    /// Why.
    pub failure: String,
    /// Whether the same seed gave the same history again, in words.
    pub repeated: String,
    /// The scenario of the seed.
    pub scenario: S,
    /// The smallest scenario found that fails with the same seed.
    pub shrunk: S,
    /// Why that one fails.
    pub shrunk_failure: String,
    /// The command that runs the seed again.
    pub replay: String,
}

impl<S: Serialize> fmt::Display for Failed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = serde_json::to_string(&self.shrunk).unwrap_or_default();
        write!(f, "sim: seed {} failed: {}\n     {}\n", self.seed, self.failure, self.repeated)?;
        write!(f, "     replay: {}\n     shrunk: {}\n", self.replay, self.shrunk_failure)?;
        write!(f, "     {SCENARIO_VARIABLE}='{data}'")
    }
}

impl<S: Serialize> Explored<S> {
    /// Returns itself if nothing failed.
    ///
    /// # Errors
    ///
    /// All failures, with how to replay each.
    pub fn ok(self) -> Result<Self, String> {
        if self.failures.is_empty() {
            return Ok(self);
        }
        Err(self.failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }
}

/// The scenario that `KLAMM_SIM_SCENARIO` holds, if it is set.
///
/// # Errors
///
/// It is set, and cannot be read.
pub(super) fn given<S: DeserializeOwned>() -> Result<Option<S>, String> {
    let Some(text) = simulated::variable(SCENARIO_VARIABLE) else { return Ok(None) };
    let text = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
        None => text,
    };
    serde_json::from_str(&text).map(Some).map_err(|error| format!("{SCENARIO_VARIABLE}: {error}"))
}

/// Runs `body` for each seed with the scenario that `make` draws for it. What fails is run again, to see whether it
/// repeats, and shrunk.
///
/// A scenario in the variable `KLAMM_SIM_SCENARIO` replaces what `make` draws: how to run a shrunk one.
pub fn explore<S, F>(
    seeds: impl IntoIterator<Item = u64>,
    make: impl Fn(u64) -> S,
    body: impl Fn(Sim, S) -> F,
) -> Explored<S>
where
    S: Shrink + Clone + Serialize + DeserializeOwned,
    F: Future,
    F::Output: Verdict,
{
    let mut explored = Explored { runs: 0, histories: BTreeSet::new(), events: 0, failures: Vec::new() };
    let given = given::<S>();
    for seed in seeds {
        let scenario = match &given {
            Ok(Some(given)) => given.clone(),
            _ => make(seed),
        };
        let ended = once(seed, |sim| body(sim, scenario.clone()));
        explored.runs += 1;
        explored.events += ended.trace.events();
        explored.histories.insert(ended.trace.hash());
        let unreadable = given.as_ref().err().cloned();
        let Some(failure) = unreadable.or_else(|| ended.failure()) else { continue };
        let again = once(seed, |sim| body(sim, scenario.clone()));
        let (shrunk, shrunk_failure) = shrink(seed, scenario.clone(), failure.clone(), &body);
        explored.failures.push(Failed {
            seed,
            failure,
            repeated: repeated(&ended.trace, &again.trace),
            scenario,
            shrunk,
            shrunk_failure,
            replay: replay_command(seed),
        });
    }
    explored
}

/// Takes away one thing after the other, as long as what is left fails.
fn shrink<S, F>(seed: u64, scenario: S, failure: String, body: &impl Fn(Sim, S) -> F) -> (S, String)
where
    S: Shrink + Clone,
    F: Future,
    F::Output: Verdict,
{
    let most = if failure.starts_with(STILL_WAITS) { MOST_WAITING_RUNS } else { MOST_SHRINKING_RUNS };
    let (mut best, mut runs) = ((scenario, failure), 0);
    loop {
        let mut fails = best.0.smaller().into_iter().filter_map(|candidate| {
            runs += 1;
            let within = runs <= most;
            let failure =
                within.then(|| once(seed, |sim| body(sim, candidate.clone())).failure()).flatten()?;
            Some((candidate, failure))
        });
        match fails.next() {
            Some(smaller) => best = smaller,
            None => return best,
        }
    }
}
