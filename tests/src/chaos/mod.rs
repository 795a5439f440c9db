//! Minutes of faults under producers: what the programs that break clusters share.
//!
//! ```text
//! producers ──▶ one topic ◀── faults, one after the other, each waited out
//!     │ sent, acknowledged, failed     │ the log of each partition, read by klamm and by kcat
//!     └─────────▶ history ◀────────────┘
//! ```

#![allow(clippy::print_stdout, reason = "programs report so")]

mod faults;
mod logs;
mod producers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use parking_lot::Mutex;

pub use faults::{AT_ONCE, Faults, Role, break_things};
pub use logs::{foreign_reader, read_log, read_logs};
pub use producers::{Style, produce};

use crate::backend::{Can, KINDS, Kind};
use crate::history::{Clock, History, Partition, unix_now};

/// What ends such a run.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A reader that hears nothing for so long gives up.
pub const SILENCE: Duration = Duration::from_secs(60);

/// The kind of cluster of this name, if its nodes can be killed and stopped.
///
/// # Errors
///
/// Which names there are.
pub fn breakable(id: &str) -> Result<&'static Kind, String> {
    let able =
        |kind: &&Kind| !kind.is_virtual() && kind.lacks(&[Can::Kill, Can::Pause, Can::Replicate]).is_none();
    let mut fit = KINDS.iter().filter(able);
    let known: Vec<_> = fit.clone().map(|kind| kind.id).collect();
    fit.find(|kind| kind.id == id).ok_or_else(|| format!("there are: {}", known.join(", ")))
}

/// What producers, faults and readers of a run share.
pub struct Run {
    /// The one topic that is written to.
    pub topic: Arc<str>,
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// Which faults, keys and sizes chance gives.
    pub seed: u64,
    /// Records in one burst of one producer.
    pub burst: u32,
    /// When the run began, since 1970.
    pub began: Duration,
    /// How long ago that is.
    pub clock: Clock,
    /// What everybody saw.
    pub history: Arc<Mutex<History>>,
    /// Producers shall end.
    pub over: AtomicBool,
    /// Batches that were sent again.
    pub retries: AtomicU64,
    /// When something was done to the cluster, or undone.
    faults: Mutex<Vec<Duration>>,
    failures: AtomicU64,
}

impl Run {
    /// A run on a topic of so many partitions, in which all producers together write so many records in a second.
    pub fn new(topic: &str, partitions: i32, seed: u64, rate: u32) -> Self {
        let (mut history, began) = (History::new(), unix_now());
        let partitions = (0..partitions).map(|index| history.partition(topic, index)).collect();
        Self {
            topic: topic.into(),
            partitions,
            seed,
            burst: producers::burst(rate),
            began,
            clock: Clock::since(began),
            history: Arc::new(Mutex::new(history)),
            over: AtomicBool::new(false),
            retries: AtomicU64::new(0),
            faults: Mutex::default(),
            failures: AtomicU64::new(0),
        }
    }

    /// Time since the run began.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// The history's number of a partition.
    pub fn place(&self, partition: i32) -> Partition {
        self.partitions[partition as usize]
    }

    /// Writes a fault, or its end, into the history, and prints it.
    pub fn mark(&self, text: &str) {
        let at = self.now();
        println!("{:7.1} s  {text}", at.as_secs_f64());
        self.faults.lock().push(at);
        self.history.lock().mark(at, text);
    }

    /// When something was marked, in order.
    pub fn faults(&self) -> Vec<Duration> {
        self.faults.lock().clone()
    }
}
