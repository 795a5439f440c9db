//! How late this process is served by its machine: what no program can be faster than.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the watchdog sleeps.
const NAP: Duration = Duration::from_millis(1);

/// By how much somebody who slept a millisecond was late, at the most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stalls {
    /// A thread that does nothing else: the machine's scheduler.
    pub thread: Duration,
    /// A task of the runtime: its scheduler and timer on top of that.
    pub task: Duration,
}

impl Stalls {
    /// The worse of both, each on its own.
    pub fn max(self, other: Self) -> Self {
        Self { thread: self.thread.max(other.thread), task: self.task.max(other.task) }
    }
}

impl fmt::Display for Stalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(f, "thread {:.1} ms, task {:.1} ms", ms(self.thread), ms(self.task))
    }
}

/// Measures the longest stalls while it lives.
#[derive(Debug)]
pub struct Watchdog {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    over: AtomicBool,
    thread_ns: AtomicU64,
    task_ns: AtomicU64,
}

impl Watchdog {
    /// Starts a thread and a task.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    pub fn start() -> Self {
        let seen = Arc::new(Seen::default());
        let watching = seen.clone();
        let thread = std::thread::spawn(move || {
            while !watching.over.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(NAP);
                note(&watching.thread_ns, began);
            }
        });
        let watching = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let began = Instant::now();
                tokio::time::sleep(NAP).await;
                note(&watching.task_ns, began);
            }
        });
        Self { seen, thread: Some(thread), task }
    }

    /// The longest stalls since the last call; a stall that goes on is seen when it is over.
    pub fn take(&self) -> Stalls {
        let take = |ns: &AtomicU64| Duration::from_nanos(ns.swap(0, Ordering::Relaxed));
        Stalls { thread: take(&self.seen.thread_ns), task: take(&self.seen.task_ns) }
    }
}

fn note(longest_ns: &AtomicU64, began: Instant) {
    let late = began.elapsed().saturating_sub(NAP).as_nanos();
    longest_ns.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.task.abort();
        self.seen.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_of_the_runtime_that_is_held_up_is_seen_by_the_task() {
        let watchdog = Watchdog::start();
        tokio::time::sleep(5 * NAP).await;
        let before = watchdog.take();
        std::thread::sleep(Duration::from_millis(50)); // the stall
        while watchdog.take().task < Duration::from_millis(45) {
            tokio::time::sleep(NAP).await;
        }
        assert!(before.task < Duration::from_secs(60), "the first nap was measured from its own beginning");
    }
}
