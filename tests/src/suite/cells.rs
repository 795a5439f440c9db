//! The verdict of every cell: hears the lanes, and gives up one whose thread is stuck.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::lane::{self, News, What};
use super::report::{Report, Verdict, standard_output};
use super::{Arguments, Suite};
use crate::backend::{System, Unavailable};

/// Longest start of a cluster.
const START_LIMIT: Duration = Duration::from_secs(400);
/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(500);

/// A kind that is being run.
struct Active {
    /// What runs now, if anything does.
    behaviour: Option<usize>,
    quiet_since: Instant,
    systems: Vec<Arc<dyn System>>,
}

struct Cells {
    suite: Suite,
    report: Report,
    /// By kind. What a thread that was given up still says does not count.
    active: BTreeMap<usize, Active>,
}

/// Runs the chosen cells and reports; `true` if nothing failed.
pub fn run(suite: Suite, arguments: &Arguments) -> bool {
    let report = Report::new(suite, arguments, standard_output());
    if arguments.list {
        report.list();
        return true;
    }
    fill_in(report).close()
}

/// Runs what is pending in a report.
pub(super) fn fill_in(report: Report) -> Report {
    let (news, heard) = mpsc::channel();
    let mut cells = Cells { suite: report.suite, report, active: BTreeMap::new() };
    cells.launch(&news);
    cells.listen(&heard);
    cells.report
}

impl Cells {
    /// A thread for each kind: they mostly wait.
    fn launch(&mut self, news: &Sender<News>) {
        for (kind, behaviours) in self.report.columns() {
            let active = Active { behaviour: None, quiet_since: Instant::now(), systems: Vec::new() };
            self.active.insert(kind, active);
            let (suite, news) = (self.suite, news.clone());
            std::thread::spawn(move || lane::run(suite, kind, behaviours, &news));
        }
    }

    fn listen(&mut self, heard: &Receiver<News>) {
        while !self.active.is_empty() {
            match heard.recv_timeout(TICK) {
                Ok(news) => self.hear(news),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.give_up_stuck();
        }
    }

    fn hear(&mut self, news: News) {
        let News { kind, what } = news;
        let Some(active) = self.active.get_mut(&kind) else { return };
        active.quiet_since = Instant::now();
        match what {
            What::Started(system) => active.systems.push(system),
            What::Unavailable(Unavailable::Missing(reason)) => self.report.missing(kind, &reason),
            What::Unavailable(Unavailable::Broken(reason)) => {
                self.report.fail_rest(kind, &format!("there is no cluster: {reason}"));
            }
            What::Begun(behaviour) => active.behaviour = Some(behaviour),
            What::Ended(behaviour, outcome) => {
                active.behaviour = None;
                self.report.end(behaviour, kind, outcome);
            }
            What::Over => drop(self.active.remove(&kind)),
        }
    }

    /// A behaviour that keeps its thread cannot be stopped. It is left to itself, its cluster is ended.
    fn give_up_stuck(&mut self) {
        // Healing has the same limit again.
        let patience = self.suite.limit * 3;
        let stuck = self.active.iter().find(|(_, active)| {
            let limit = if active.systems.is_empty() { START_LIMIT } else { patience };
            active.quiet_since.elapsed() > limit
        });
        let Some(kind) = stuck.map(|(kind, _)| *kind) else { return };
        let Some(active) = self.active.remove(&kind) else { return };
        if let Some(behaviour) = active.behaviour {
            self.report.end(
                behaviour,
                kind,
                Err(format!("it keeps its thread: not over after {patience:?}")),
            );
        }
        self.report.fail_rest(kind, "not run: the thread is stuck");
        active.systems.iter().for_each(|system| system.abandon());
    }
}

impl Report {
    /// What is to be run on each kind, by place.
    fn columns(&self) -> Vec<(usize, Vec<usize>)> {
        let pending = |kind: usize| {
            let rows = self.verdicts.iter().enumerate();
            rows.filter(|(_, row)| row[kind] == Verdict::Pending).map(|(behaviour, _)| behaviour).collect()
        };
        let kinds = (0..self.suite.kinds.len()).map(|kind| (kind, pending(kind)));
        kinds.filter(|(_, rows): &(_, Vec<_>)| !rows.is_empty()).collect()
    }
}
