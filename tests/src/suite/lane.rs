//! One thread that takes clusters one after the other, and runs behaviours on each.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use futures::FutureExt;

use super::{Behaviour, Suite};
use crate::backend::{Backend, Kind, System, Unavailable};

/// What a lane tells: always about one kind, by its place in [`Suite::kinds`].
pub(super) enum News {
    /// Its cluster is being started.
    Starting(usize),
    /// The cluster runs.
    Started(usize, Arc<dyn System>),
    /// There is no cluster.
    Unavailable(usize, Unavailable),
    /// A behaviour begins.
    Begun(usize, usize),
    /// It has ended.
    Ended(usize, usize, Result<Took, String>),
    /// Everything is done.
    Over(usize),
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
const VIRTUAL_SEED: u64 = 4;

/// A kind and the behaviours to run on it, both by place.
pub(super) type Column = (usize, Vec<usize>);

/// Takes one kind after the other. News that nobody hears any more are lost: the lane was given up.
pub(super) fn run(suite: Suite, columns: Vec<Column>, news: &Sender<News>) {
    catch_panics();
    for (kind, behaviours) in columns {
        let _ = news.send(News::Starting(kind));
        let runtime = if suite.kinds[kind].is_virtual() {
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()
        } else {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
        };
        match runtime {
            Ok(runtime) => runtime.block_on(column(suite, kind, behaviours, news)),
            Err(error) => drop(news.send(News::Unavailable(kind, Unavailable::broken(error)))),
        }
        let _ = news.send(News::Over(kind));
    }
}

async fn column(suite: Suite, place: usize, behaviours: Vec<usize>, news: &Sender<News>) {
    let kind = &suite.kinds[place];
    let origin = tokio::time::Instant::now();
    let wall = move || VIRTUAL_START_MS + i64::try_from(origin.elapsed().as_millis()).unwrap_or_default();
    let _simulation = kind.is_virtual().then(|| klamm_wire::ambient::enter(VIRTUAL_SEED, wall));
    let mut backend = match start(kind, place, news).await {
        Ok(backend) => backend,
        Err(unavailable) => return drop(news.send(News::Unavailable(place, unavailable))),
    };
    let limit = if kind.is_virtual() { VIRTUAL_LIMIT.max(suite.limit) } else { suite.limit };
    for at in behaviours {
        let behaviour = &suite.behaviours[at];
        let _ = news.send(News::Begun(place, at));
        let (begun, simulated) = (Instant::now(), tokio::time::Instant::now());
        let mut outcome = guarded(behaviour, &backend, limit).await;
        if outcome.is_err() || behaviour.breaks_something() {
            let healed = tokio::time::timeout(limit, backend.heal()).await;
            let healed = healed.map_err(|_| "the cluster did not heal".to_owned());
            if let Err(sick) = healed.and_then(|healed| healed.map_err(|error| error.to_string())) {
                outcome = Err(match outcome {
                    Ok(()) => format!("afterwards: {sick}"),
                    Err(error) => format!("{error}; afterwards: {sick}"),
                });
                // The others are not to suffer.
                match start(kind, place, news).await {
                    Ok(fresh) => backend = fresh,
                    Err(unavailable) => {
                        let _ = news.send(News::Ended(place, at, Err(outcome.err().unwrap_or_default())));
                        return drop(news.send(News::Unavailable(place, unavailable)));
                    }
                }
            }
        }
        let simulated = kind.is_virtual().then(|| simulated.elapsed());
        let took = Took { real: begun.elapsed(), simulated };
        let _ = news.send(News::Ended(place, at, outcome.map(|()| took)));
    }
}

async fn start(kind: &'static Kind, place: usize, news: &Sender<News>) -> Result<Backend, Unavailable> {
    let system = (kind.start)().await?;
    let _ = news.send(News::Started(place, system.clone()));
    Ok(Backend::new(kind, system))
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
