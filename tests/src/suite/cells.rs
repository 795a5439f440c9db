//! The verdict of every cell: hears the lanes, and gives up one whose thread is stuck.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::lane::{self, Column, News};
use super::report::{Report, Verdict, standard_output};
use super::{Arguments, Suite};
use crate::backend::{System, Unavailable};

/// Kinds whose clusters are other programs run beside the rest.
const OUT_OF_PROCESS: [&str; 1] = ["kafka"];
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
    waiting: Vec<Vec<Column>>,
    active: BTreeMap<usize, Active>,
    /// Kinds whose thread was given up: what it still says does not count.
    given_up: Vec<usize>,
    news: Sender<News>,
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
    let (waiting, active, given_up) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut cells = Cells { suite: report.suite, report, waiting, active, given_up, news };
    cells.run(&heard);
    cells.report
}

impl Cells {
    fn run(&mut self, heard: &Receiver<News>) {
        let columns = self.report.columns();
        let beside = |column: &Column| OUT_OF_PROCESS.contains(&self.suite.kinds[column.0].id);
        let (slow, fast): (Vec<_>, Vec<_>) = columns.into_iter().partition(beside);
        for lane in [slow, fast] {
            self.launch(lane);
        }
        while !(self.active.is_empty() && self.waiting.iter().all(Vec::is_empty)) {
            match heard.recv_timeout(TICK) {
                Ok(news) => self.hear(news),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.give_up_stuck();
        }
    }

    fn launch(&mut self, columns: Vec<Column>) {
        if columns.is_empty() {
            return;
        }
        let (suite, news) = (self.suite, self.news.clone());
        self.waiting.push(columns.clone());
        std::thread::spawn(move || lane::run(suite, columns, &news));
    }

    fn hear(&mut self, news: News) {
        let kind = match &news {
            News::Starting(kind)
            | News::Started(kind, _)
            | News::Unavailable(kind, _)
            | News::Begun(kind, _)
            | News::Ended(kind, ..)
            | News::Over(kind) => *kind,
        };
        if self.given_up.contains(&kind) {
            return;
        }
        if let Some(active) = self.active.get_mut(&kind) {
            active.quiet_since = Instant::now();
        }
        match news {
            News::Starting(kind) => {
                self.waiting.iter_mut().for_each(|lane| lane.retain(|(waiting, _)| *waiting != kind));
                let active = Active { behaviour: None, quiet_since: Instant::now(), systems: Vec::new() };
                self.active.insert(kind, active);
            }
            News::Started(kind, system) => {
                if let Some(active) = self.active.get_mut(&kind) {
                    active.systems.push(system);
                }
            }
            News::Unavailable(kind, Unavailable::Missing(reason)) => self.report.missing(kind, &reason),
            News::Unavailable(kind, Unavailable::Broken(reason)) => {
                self.report.fail_rest(kind, &format!("there is no cluster: {reason}"));
            }
            News::Begun(kind, behaviour) => {
                if let Some(active) = self.active.get_mut(&kind) {
                    active.behaviour = Some(behaviour);
                }
            }
            News::Ended(kind, behaviour, outcome) => {
                if let Some(active) = self.active.get_mut(&kind) {
                    active.behaviour = None;
                }
                self.report.end(behaviour, kind, outcome);
            }
            News::Over(kind) => drop(self.active.remove(&kind)),
        }
    }

    /// A behaviour that keeps its thread cannot be stopped. Its cluster is left to it; other kinds get another thread.
    fn give_up_stuck(&mut self) {
        // Healing has the same limit again.
        let patience = self.suite.limit * 3;
        let stuck = self.active.iter().find(|(_, active)| {
            let limit = if active.systems.is_empty() { START_LIMIT } else { patience };
            active.quiet_since.elapsed() > limit
        });
        let Some(kind) = stuck.map(|(kind, _)| *kind) else { return };
        let Some(active) = self.active.remove(&kind) else { return };
        self.given_up.push(kind);
        if let Some(behaviour) = active.behaviour {
            self.report.end(
                behaviour,
                kind,
                Err(format!("it keeps its thread: not over after {patience:?}")),
            );
        }
        self.report.fail_rest(kind, "not run: the thread is stuck");
        active.systems.iter().for_each(|system| system.abandon());
        let same_lane = |lane: &Vec<Column>| {
            lane.iter().all(|(other, _)| {
                OUT_OF_PROCESS.contains(&self.suite.kinds[*other].id)
                    == OUT_OF_PROCESS.contains(&self.suite.kinds[kind].id)
            })
        };
        let (stuck, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .filter(|lane| !lane.is_empty())
            .partition(same_lane);
        self.waiting = rest;
        stuck.into_iter().for_each(|lane| self.launch(lane));
    }
}

impl Report {
    fn columns(&self) -> Vec<Column> {
        let pending = |kind: usize| {
            let rows = self.verdicts.iter().enumerate();
            rows.filter(|(_, row)| row[kind] == Verdict::Pending).map(|(behaviour, _)| behaviour).collect()
        };
        let kinds = 0..self.suite.kinds.len();
        kinds.map(|kind| (kind, pending(kind))).filter(|(_, rows): &Column| !rows.is_empty()).collect()
    }
}
