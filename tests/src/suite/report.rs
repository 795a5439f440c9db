//! What is printed: a line for each cell as it ends, the table, what failed, and libtest's closing line, which
//! `tests/run` adds up.

use std::io::{self, Write};
use std::time::Instant;

use super::lane::Took;
use super::{Arguments, Suite};
use crate::backend::Can;

/// What is known of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is to be run.
    Pending,
    Ok,
    Failed(String),
    /// The kind of cluster lacks something that the behaviour needs.
    NotApplicable(Can),
    /// There is no cluster of that kind here.
    Skipped,
    /// Not chosen.
    FilteredOut,
}

pub(super) struct Report {
    pub(super) suite: Suite,
    /// By behaviour, then by kind.
    pub(super) verdicts: Vec<Vec<Verdict>>,
    /// Failures that are no cell's.
    missing: Vec<String>,
    begun: Instant,
    out: Out,
}

/// Where lines go.
pub(super) type Out = Box<dyn Fn(&str)>;

/// To standard output, past the capturing of a test runner.
pub(super) fn standard_output() -> Out {
    // Nothing is left to do if nobody reads any more.
    Box::new(|line| drop(writeln!(io::stdout(), "{line}")))
}

impl Report {
    pub(super) fn new(suite: Suite, arguments: &Arguments, out: Out) -> Self {
        let verdict = |behaviour: usize, kind: usize| {
            if !arguments.choose(&suite.cell(behaviour, kind)) {
                return Verdict::FilteredOut;
            }
            let lacking = suite.kinds[kind].lacks(suite.behaviours[behaviour].needs);
            lacking.map_or(Verdict::Pending, Verdict::NotApplicable)
        };
        let row = |behaviour| (0..suite.kinds.len()).map(|kind| verdict(behaviour, kind)).collect();
        let verdicts = (0..suite.behaviours.len()).map(row).collect();
        Self { suite, verdicts, missing: Vec::new(), begun: Instant::now(), out }
    }

    fn say(&self, line: &str) {
        (self.out)(line);
    }

    /// Prints what would be run, as libtest does.
    pub(super) fn list(&self) {
        let mut count = 0;
        for (behaviour, kind) in self.cells(|verdict| *verdict == Verdict::Pending) {
            self.say(&format!("{}: test", self.suite.cell(behaviour, kind)));
            count += 1;
        }
        self.say(&format!("\n{count} tests, 0 benchmarks"));
    }

    pub(super) fn end(&mut self, behaviour: usize, kind: usize, outcome: Result<Took, String>) {
        let cell = self.suite.cell(behaviour, kind);
        self.verdicts[behaviour][kind] = match outcome {
            Ok(Took { real, simulated }) => {
                let simulated = simulated.map(|time| format!(", {:.1}s virtual", time.as_secs_f64()));
                let simulated = simulated.unwrap_or_default();
                self.say(&format!("test {cell} ... ok <{:.2}s{simulated}>", real.as_secs_f64()));
                Verdict::Ok
            }
            Err(error) => {
                self.say(&format!("test {cell} ... FAILED: {error}"));
                Verdict::Failed(error)
            }
        };
    }

    /// What was to be run on a kind and was not fails.
    pub(super) fn fail_rest(&mut self, kind: usize, reason: &str) {
        for behaviour in 0..self.verdicts.len() {
            if self.verdicts[behaviour][kind] == Verdict::Pending {
                self.end(behaviour, kind, Err(reason.to_owned()));
            }
        }
    }

    /// There is no cluster of that kind here.
    pub(super) fn missing(&mut self, kind: usize, reason: &str) {
        let kind_of = &self.suite.kinds[kind];
        self.say(&format!("SKIPPED {} ({}): {reason}", kind_of.id, kind_of.title));
        for row in &mut self.verdicts {
            if row[kind] == Verdict::Pending {
                row[kind] = Verdict::Skipped;
            }
        }
        if self.suite.require_all {
            self.missing.push(format!("{}: required (REQUIRE=all) but not here: {reason}", kind_of.id));
        }
    }

    /// Prints everything that is printed at the end; `true` if nothing failed.
    pub(super) fn close(mut self) -> bool {
        for kind in 0..self.suite.kinds.len() {
            self.fail_rest(kind, "not run: its lane has ended");
        }
        self.table();
        let failed: Vec<_> = self.cells(|verdict| matches!(verdict, Verdict::Failed(_))).collect();
        let failures = failed.len() + self.missing.len();
        if failures > 0 {
            self.say("\nfailures:");
            self.missing.iter().for_each(|missing| self.say(&format!("    {missing}")));
        }
        for (behaviour, kind) in failed {
            if let Verdict::Failed(error) = &self.verdicts[behaviour][kind] {
                let sentence = self.suite.behaviours[behaviour].name;
                self.say(&format!("    {}: {error}", self.suite.cell(behaviour, kind)));
                let kind = &self.suite.kinds[kind];
                let seed =
                    if kind.is_virtual() { format!("SEED={} ", self.suite.seed) } else { String::new() };
                self.say(&format!(
                    "        {seed}cargo test -p klamm-tests --test behaviour -- --backend {} {sentence}",
                    kind.id
                ));
            }
        }
        let count = |wanted: fn(&Verdict) -> bool| self.cells(wanted).count();
        self.say(&format!(
            "\ntest result: {}. {} passed; {failures} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
            if failures == 0 { "ok" } else { "FAILED" },
            count(|verdict| *verdict == Verdict::Ok),
            count(|verdict| *verdict == Verdict::Skipped),
            count(|verdict| *verdict == Verdict::FilteredOut),
            self.begun.elapsed().as_secs_f64(),
        ));
        failures == 0
    }

    fn cells(&self, wanted: impl Fn(&Verdict) -> bool) -> impl Iterator<Item = (usize, usize)> {
        let rows = self.verdicts.iter().enumerate();
        let cells = rows.flat_map(|(behaviour, row)| {
            row.iter().enumerate().map(move |(kind, verdict)| (behaviour, kind, verdict))
        });
        cells
            .filter(move |(_, _, verdict)| wanted(verdict))
            .map(|(behaviour, kind, _)| (behaviour, kind))
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn table(&self) {
        let kinds = self.suite.kinds;
        let chosen = |row: &[Verdict]| row.iter().any(|verdict| *verdict != Verdict::FilteredOut);
        let rows = || {
            let named = self.suite.behaviours.iter().zip(&self.verdicts);
            named.filter(|(_, row)| chosen(row)).map(|(behaviour, row)| (behaviour.name, row))
        };
        let Some(width) = rows().map(|(name, _)| name.len()).max() else { return };
        let head: Vec<_> = kinds.iter().map(|kind| format!("{:<7}", kind.id)).collect();
        self.say(&format!("\n{:width$}  {}", "behaviour", head.join("  ").trim_end()));
        for (name, row) in rows() {
            let cells: Vec<_> = row.iter().map(|verdict| format!("{:<7}", word(verdict))).collect();
            self.say(&format!("{name:width$}  {}", cells.join("  ").trim_end()));
        }
        let total = |kind: usize, wanted: fn(&Verdict) -> bool| {
            self.verdicts.iter().filter(|row| wanted(&row[kind])).count()
        };
        for (at, kind) in kinds.iter().enumerate() {
            self.say(&format!(
                "{:>7}: {} ok, {} failed, {} n/a, {} skipped  ({})",
                kind.id,
                total(at, |verdict| *verdict == Verdict::Ok),
                total(at, |verdict| matches!(verdict, Verdict::Failed(_))),
                total(at, |verdict| matches!(verdict, Verdict::NotApplicable(_))),
                total(at, |verdict| *verdict == Verdict::Skipped),
                kind.title,
            ));
        }
    }
}

pub(super) fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Pending => "?",
        Verdict::Ok => "ok",
        Verdict::Failed(_) => "FAILED",
        Verdict::NotApplicable(_) => "n/a",
        Verdict::Skipped => "SKIPPED",
        Verdict::FilteredOut => "-",
    }
}
