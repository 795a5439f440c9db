//! What time it is in a run.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since a run began, for everybody who writes into its history.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// One that somebody else keeps, such as a simulation.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The machine's, for a run that began so long after 1970. All processes of a machine agree on it.
    pub fn since(began: Duration) -> Self {
        let (then, started) = (unix_now().saturating_sub(began), Instant::now());
        Self::new(move || then + started.elapsed())
    }

    /// Time since the run began.
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

/// Time since 1970.
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({:?})", self.now())
    }
}
