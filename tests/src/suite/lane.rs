//! One thread with a runtime of its own, on which behaviours run one after the other on one cluster.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use futures::FutureExt;

use super::{Behaviour, Suite};
use crate::backend::{Backend, System, Unavailable};

/// What a lane tells.
pub(super) struct News {
    /// About which kind, by place.
    pub(super) kind: usize,
    pub(super) what: What,
}

pub(super) enum What {
    /// The cluster runs.
    Started(Arc<dyn System>),
    /// There is no cluster.
    Unavailable(Unavailable),
    /// A behaviour begins, by place.
    Begun(usize),
    /// It has ended.
    Ended(usize, Result<Took, String>),
    /// Everything is done.
    Over,
}

/// How long a cell took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Took {
    pub(super) real: Duration,
    /// Where time is not real.
    pub(super) simulated: Option<Duration>,
}

/// In virtual time ten minutes pass within seconds, and a behaviour may wait for Kafka's longest time-outs.
const VIRTUAL_LIMIT: Duration = Duration::from_secs(600);
/// When a simulated run begins: 2026-01-01.
const VIRTUAL_START_MS: i64 = 1_767_225_600_000;

struct Lane<'a> {
    suite: Suite,
    kind: usize,
    news: &'a Sender<News>,
}

/// Runs behaviours on a kind, both by place.
pub(super) fn run(suite: Suite, kind: usize, behaviours: Vec<usize>, news: &Sender<News>) {
    catch_panics();
    let lane = Lane { suite, kind, news };
    let runtime = if suite.kinds[kind].is_virtual() {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
    };
    let done =
        runtime.map_err(Unavailable::broken).and_then(|runtime| runtime.block_on(lane.run(behaviours)));
    if let Err(unavailable) = done {
        lane.tell(What::Unavailable(unavailable));
    }
    lane.tell(What::Over);
}

impl Lane<'_> {
    fn tell(&self, what: What) {
        // Nobody hears it any more if the lane was given up.
        let _ = self.news.send(News { kind: self.kind, what });
    }

    async fn run(&self, behaviours: Vec<usize>) -> Result<(), Unavailable> {
        let kind = &self.suite.kinds[self.kind];
        let origin = tokio::time::Instant::now();
        let wall = move || VIRTUAL_START_MS + i64::try_from(origin.elapsed().as_millis()).unwrap_or_default();
        let _simulation = kind.is_virtual().then(|| klamm_wire::ambient::enter(self.suite.seed, wall));
        let limit = if kind.is_virtual() { VIRTUAL_LIMIT.max(self.suite.limit) } else { self.suite.limit };
        let mut backend = self.start().await?;
        for at in behaviours {
            let behaviour = &self.suite.behaviours[at];
            self.tell(What::Begun(at));
            let (begun, simulated) = (Instant::now(), tokio::time::Instant::now());
            let mut outcome = guarded(behaviour, &backend, limit).await;
            let healed = match outcome.is_err() || behaviour.breaks_something() {
                true => heal(&backend, limit).await,
                false => Ok(()),
            };
            if let Err(sick) = &healed {
                let before = outcome.err().map_or_else(String::new, |error| format!("{error}; "));
                outcome = Err(format!("{before}afterwards: {sick}"));
            }
            let simulated = kind.is_virtual().then(|| simulated.elapsed());
            let took = Took { real: begun.elapsed(), simulated };
            self.tell(What::Ended(at, outcome.map(|()| took)));
            if healed.is_err() {
                backend = self.start().await?; // the others are not to suffer
            }
        }
        Ok(())
    }

    async fn start(&self) -> Result<Backend, Unavailable> {
        let kind = &self.suite.kinds[self.kind];
        let system = (kind.start)().await?;
        self.tell(What::Started(system.clone()));
        Ok(Backend::new(kind, system))
    }
}

async fn heal(backend: &Backend, limit: Duration) -> Result<(), String> {
    let healed = tokio::time::timeout(limit, backend.heal()).await;
    healed.map_err(|_| "the cluster did not heal".to_owned())?.map_err(|error| error.to_string())
}

async fn guarded(behaviour: &Behaviour, backend: &Backend, limit: Duration) -> Result<(), String> {
    CATCHING.set(true);
    CAUGHT.take();
    let run = AssertUnwindSafe(async { (behaviour.run)(backend).await }).catch_unwind();
    let outcome = tokio::time::timeout(limit, run).await;
    CATCHING.set(false);
    let caught = CAUGHT.take();
    match outcome {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(match caught {
            Some(panic) => format!("{error} (and a task {panic})"),
            None => error.to_string(),
        }),
        Ok(Err(_)) => Err(caught.unwrap_or_else(|| "it panicked".to_owned())),
        Err(_) => Err(format!("it hangs: not over after {limit:?}")),
    }
}

std::thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// On a thread that runs a behaviour a panic is kept for the report; elsewhere it is printed as ever.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| match CATCHING.get() {
            true => CAUGHT.set(Some(info.to_string().replace('\n', " "))),
            false => print(info),
        }));
    });
}
