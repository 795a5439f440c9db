//! What the logs hold, by themselves and against each other.

use super::super::event::{Op, Partition};
use super::super::violation::{Holds, LogOf, NotFrom};
use super::super::{Log, LogRecord, Rule, Violation};
use super::Checker;
use super::held::Held;
use super::produced::{NONE, Row};

/// The record of a producer that was accepted last, of those that stand in one log so far.
#[derive(Clone, Copy)]
struct Latest {
    partition: Partition,
    accepted: u32,
    op: Op,
    offset: i64,
}

const NOBODY: Latest = Latest { partition: Partition(NONE), accepted: 0, op: Op::ALIEN, offset: -1 };

impl Checker<'_> {
    /// Walks every final log once: phantoms, copies, order.
    pub(super) fn walk_logs(&mut self) {
        let mut latest = vec![NOBODY; self.history.clients.len()];
        for (partition, log) in &self.history.logs {
            self.report.in_log += log.records.len() as u64;
            self.look_for_breaks(*partition, LogOf::Final, log);
            for record in &log.records {
                self.place(*partition, record, &mut latest);
            }
        }
    }

    fn place(&mut self, partition: Partition, record: &LogRecord, latest: &mut [Latest]) {
        let (op, offset) = (record.op, record.offset);
        let Some(row) = self.rows.get_mut(op.index()) else {
            self.found(Rule::Phantom, u64::MAX, |names| Violation::Phantom {
                op,
                spot: names.spot(partition, offset),
                not_from: NotFrom::Anybody,
            });
            return;
        };
        row.copies += 1;
        if row.copies == 1 {
            row.found = (partition, offset);
        }
        let row = *row;
        if let Some(to) = row.partition.filter(|to| *to != partition) {
            self.found(Rule::Phantom, self.at_ns(row.invoked), |names| {
                let not_from = NotFrom::Here(names.sent(op, &row), names.partition(to));
                Violation::Phantom { op, spot: names.spot(partition, offset), not_from }
            });
        }
        if row.copies == 1 {
            self.look_at_order(partition, record, &row, latest);
        } else if !self.at_most_once(&row) {
            self.report.duplicates += 1;
        } else if row.copies == 2 {
            self.found(Rule::Duplicated, self.at_ns(row.invoked), |names| Violation::Duplicated {
                record: names.sent(op, &row),
                first: names.spot(row.found.0, row.found.1),
                second: names.spot(partition, offset),
            });
        }
    }

    fn look_at_order(&mut self, partition: Partition, record: &LogRecord, row: &Row, latest: &mut [Latest]) {
        if !self.in_order(row) {
            return;
        }
        let Some(before) = latest.get_mut(row.producer.0 as usize) else { return };
        if before.partition != partition || before.accepted <= row.accepted {
            *before = Latest { partition, accepted: row.accepted, op: record.op, offset: record.offset };
            return;
        }
        let (before, later) = (*before, self.rows.get(before.op.index()).copied().unwrap_or_default());
        self.found(Rule::Reordered, self.at_ns(row.invoked), |names| Violation::Reordered {
            earlier: names.sent(record.op, row),
            earlier_spot: names.spot(partition, record.offset),
            later: names.sent(before.op, &later),
            later_spot: names.spot(partition, before.offset),
        });
    }

    /// Offsets grow, epochs do not fall, and all is within the log's bounds.
    fn look_for_breaks(&mut self, partition: Partition, of: LogOf, log: &Log) {
        let mut before: Option<(i64, i32)> = None;
        for record in &log.records {
            let (offset, epoch) = (record.offset, record.leader_epoch);
            let outside = offset < log.start || offset >= log.end;
            let back = before.is_some_and(|(last, known)| offset <= last || (epoch >= 0 && epoch < known));
            if outside || back {
                self.found(Rule::LogBroken, u64::MAX, |names| Violation::LogBroken {
                    log: of,
                    spot: names.spot(partition, offset),
                    after: before,
                    epoch,
                    bounds: (log.start, log.end),
                });
            }
            before = Some((offset, epoch));
        }
    }

    /// Holds all logs of a partition against each other, where both have something to say.
    pub(super) fn compare_replicas(&mut self) {
        let history = self.history;
        let mut replicas = history.replicas.iter().peekable();
        while let Some(((partition, _), _)) = replicas.peek().copied() {
            let last = history.logs.get(partition).map(|log| (LogOf::Final, log));
            let mut logs: Vec<(LogOf, &Log)> = last.into_iter().collect();
            while let Some(((_, broker), log)) = replicas.next_if(|((of, _), _)| of == partition) {
                self.look_for_breaks(*partition, LogOf::Broker(*broker), log);
                logs.push((LogOf::Broker(*broker), log));
            }
            for (at, one) in logs.iter().enumerate() {
                for other in logs.get(at + 1..).unwrap_or_default() {
                    self.compare(*partition, *one, *other);
                }
            }
        }
    }

    /// Names the first difference.
    fn compare(&mut self, partition: Partition, one: (LogOf, &Log), other: (LogOf, &Log)) {
        let (from, to) = (one.1.start.max(other.1.start), one.1.end.min(other.1.end));
        let (held, other_held) = (Held::new(one.1), Held::new(other.1));
        let part = |held: &Held<'_>, log: &Log| held.index(from)..held.index(to).min(log.records.len());
        let ours = one.1.records.get(part(&held, one.1)).unwrap_or_default();
        let theirs = other.1.records.get(part(&other_held, other.1)).unwrap_or_default();
        let equal = ours.iter().zip(theirs).take_while(|(a, b)| same(a, b)).count();
        let Some(offset) = [ours.get(equal), theirs.get(equal)].into_iter().flatten().map(|r| r.offset).min()
        else {
            return;
        };
        let holds = |record: Option<&LogRecord>| match record {
            Some(record) if record.offset == offset => Holds::Record(record.op, record.leader_epoch),
            _ => Holds::Nothing,
        };
        let (one_holds, other_holds) = (holds(ours.get(equal)), holds(theirs.get(equal)));
        self.found(Rule::LogsDiffer, u64::MAX, |names| {
            let spot = names.spot(partition, offset);
            Violation::LogsDiffer { one: one.0, other: other.0, spot, one_holds, other_holds }
        });
    }
}

/// Equal as far as is known of both.
fn same(a: &LogRecord, b: &LogRecord) -> bool {
    let epochs_agree = a.leader_epoch == b.leader_epoch || a.leader_epoch < 0 || b.leader_epoch < 0;
    a.offset == b.offset && a.op == b.op && epochs_agree
}
