//! What a run promises, and what the checker says about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::violation::At;
use super::{Acks, Rule, Violation};

/// Findings of one rule that are kept with all their evidence; more are only counted.
pub const FINDINGS_PER_RULE: usize = 8;
/// Faults named before and after the time of a finding.
const FAULTS_BEFORE: usize = 3;
const FAULTS_AFTER: usize = 5;

/// What holds in a run, given its faults and settings.
///
/// Not everything is a matter of promises: no run may show ghosts, phantoms, two outcomes, duplicates of an idempotent
/// producer, or the records of an ordered one out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promises {
    /// The weakest acks with which an acknowledged record stays; `None` if nothing is sure to stay, as after an
    /// unclean election.
    pub kept: Option<Acks>,
    /// What was readable once stays readable where it was, so that reads are held against the final log and against
    /// each other, and gaps and steps back are violations. Not so after an unclean election.
    pub reads_stay: bool,
    /// A partition goes to its next owner only after the one before has given it back. Not so where a member can be
    /// cut off or stopped, and go on to believe that it owns something. Two owners in one generation are wrong anyway.
    pub owners_take_turns: bool,
}

impl Default for Promises {
    /// Replication without power loss or unclean elections; members of groups may be cut off.
    fn default() -> Self {
        Self { kept: Some(Acks::All), reads_stay: true, owners_take_turns: false }
    }
}

impl Promises {
    /// A run in which committed records can go: unclean elections, power loss without fsync.
    pub fn unclean() -> Self {
        Self { kept: None, reads_stay: false, owners_take_turns: false }
    }
}

/// A violation, and what was done to the cluster around that time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub violation: Violation,
    /// The last faults before it began and the first ones after.
    pub faults: Vec<(Duration, Arc<str>)>,
}

/// What the checker says about a history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Events walked.
    pub events: u64,
    /// Records that were to be sent.
    pub sent: u64,
    /// Of these, acknowledged.
    pub acked: u64,
    /// Failed, and surely not written.
    pub failed: u64,
    /// Failed, and maybe written.
    pub maybe_written: u64,
    /// Without an outcome.
    pub unknown: u64,
    /// Records in all final logs.
    pub in_log: u64,
    /// Second and further copies of records whose producers may write them more than once.
    pub duplicates: u64,
    /// Records read.
    pub reads: u64,
    /// Commits of groups.
    pub commits: u64,
    /// Marks of faults.
    pub faults: u64,
    /// What is wrong, at most [`FINDINGS_PER_RULE`] of a rule.
    pub findings: Vec<Finding>,
    /// How often each rule is broken, in the order of [`Rule::ALL`].
    pub(super) counts: [u64; Rule::ALL.len()],
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// How often a rule is broken.
    pub fn count(&self, rule: Rule) -> u64 {
        self.counts.get(rule as usize).copied().unwrap_or(0)
    }

    /// The rules that are broken.
    pub fn broken(&self) -> Vec<Rule> {
        Rule::ALL.into_iter().filter(|rule| self.count(*rule) > 0).collect()
    }

    /// What clients did: records sent, records read, commits.
    pub fn operations(&self) -> u64 {
        self.sent + self.reads + self.commits
    }

    /// Counts a violation; `finding` makes it if there is room for its evidence, with the time at which it began.
    pub(super) fn add(
        &mut self,
        rule: Rule,
        finding: impl FnOnce() -> (Violation, u64),
        marks: &[(u64, Arc<str>)],
    ) {
        let Some(count) = self.counts.get_mut(rule as usize) else { return };
        *count += 1;
        if *count <= FINDINGS_PER_RULE as u64 {
            let (violation, began_ns) = finding();
            let next = marks.partition_point(|(at_ns, _)| *at_ns <= began_ns);
            let around = next.saturating_sub(FAULTS_BEFORE)..marks.len().min(next + FAULTS_AFTER);
            let faults = marks.get(around).unwrap_or_default();
            let faults = faults.iter().map(|(at_ns, text)| (Duration::from_nanos(*at_ns), text.clone()));
            self.findings.push(Finding { violation, faults: faults.collect() });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, sent, acked, failed, maybe_written, unknown, in_log, duplicates, .. } = self;
        write!(f, "{events} events: {sent} records sent, {acked} acknowledged, {failed} not written, ")?;
        write!(f, "{maybe_written} maybe written, {unknown} of unknown outcome; {in_log} in the logs, ")?;
        write!(
            f,
            "{duplicates} of them allowed duplicates; {} reads, {} commits, ",
            self.reads, self.commits
        )?;
        write!(f, "{} faults: ", self.faults)?;
        if self.is_ok() {
            return f.write_str("no violation");
        }
        for (at, rule) in self.broken().into_iter().enumerate() {
            write!(f, "{}{} x {rule}", if at == 0 { "" } else { ", " }, self.count(rule))?;
        }
        for Finding { violation, faults } in &self.findings {
            write!(f, "\n  {}: {violation}", violation.rule())?;
            for (at, text) in faults {
                write!(f, "\n      {} {text}", At(*at))?;
            }
        }
        Ok(())
    }
}
