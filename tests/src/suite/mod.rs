//! Runs behaviours over kinds of clusters, one cell for each pair.
//!
//! ```text
//! behaviours × kinds ─▶ a lane for each kind ─▶ cells ─▶ lines as they end, a table, and libtest's closing line
//! ```
//!
//! In: what there is to run, and a command line in libtest's manner. Out: an exit status.
//!
//! Invariant: every chosen cell gets exactly one verdict, whatever a behaviour does: it fails, panics, waits for ever or
//! keeps its thread. Nothing is run a second time.

mod arguments;
mod cells;
mod lane;
mod report;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::backend::{Backend, Can, Kind};

pub use arguments::Arguments;
pub use cells::run;

/// What a behaviour comes to.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// The code of a behaviour.
pub type Run = for<'a> fn(&'a Backend) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// A sentence and the code that proves it.
pub struct Behaviour {
    /// The sentence, behind the module it stands in.
    pub name: &'static str,
    /// What a cluster must be able to do for it.
    pub needs: &'static [Can],
    /// The code.
    pub run: Run,
}

impl Behaviour {
    /// Whether the cluster must be healed afterwards.
    fn breaks_something(&self) -> bool {
        let breaking = [Can::Kill, Can::RestartQuickly, Can::Pause, Can::Freeze, Can::Cut, Can::PowerOff];
        self.needs.iter().any(|need| breaking.contains(need))
    }
}

/// All there is to run.
#[derive(Clone, Copy)]
pub struct Suite {
    /// The rows of the table.
    pub behaviours: &'static [Behaviour],
    /// Its columns.
    pub kinds: &'static [Kind],
    /// Longest time of one behaviour; only turns a hang into a failure.
    pub limit: Duration,
    /// Whether a missing backend is a failure.
    pub require_all: bool,
    /// What chance comes from where time is virtual.
    pub seed: u64,
}

impl Suite {
    fn cell(&self, behaviour: usize, kind: usize) -> String {
        format!("{}::{}", self.kinds[kind].id, self.behaviours[behaviour].name)
    }
}
