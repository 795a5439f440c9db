//! What became of each record that was sent.

use std::time::Duration;

use super::super::event::{Client, Event, Op, Partition};
use super::super::{Rule, Violation};
use super::Checker;

/// No event.
pub(super) const NONE: u32 = u32::MAX;

/// What is known of one record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) producer: Client,
    /// Where it was sent to, as far as is known.
    pub(super) partition: Option<Partition>,
    /// Events: sent, taken by the producer, and its outcome.
    pub(super) invoked: u32,
    pub(super) accepted: u32,
    pub(super) outcome: u32,
    /// Copies in the final logs, and where the first of them is.
    pub(super) copies: u32,
    pub(super) found: (Partition, i64),
}

impl Default for Row {
    fn default() -> Self {
        let (producer, found) = (Client(NONE), (Partition(NONE), -1));
        Self { producer, partition: None, invoked: NONE, accepted: NONE, outcome: NONE, copies: 0, found }
    }
}

impl Checker<'_> {
    /// One row per record, from what producers said.
    pub(super) fn gather(&mut self) {
        let history = self.history;
        for (number, entry) in (0..).zip(&history.entries) {
            match entry.event {
                Event::Invoked { op, partition } => {
                    let Some(row) = self.rows.get_mut(op.index()) else { continue };
                    (row.producer, row.partition, row.invoked) = (entry.client, partition, number);
                }
                Event::Accepted { op, partition } => {
                    let Some(row) = self.rows.get_mut(op.index()) else { continue };
                    (row.partition, row.accepted) = (Some(partition), number);
                }
                Event::Acked { op, .. } | Event::Failed { op, .. } => {
                    let Some(row) = self.rows.get_mut(op.index()) else { continue };
                    if row.outcome == NONE {
                        row.outcome = number;
                        continue;
                    }
                    let row = *row;
                    self.found(Rule::TwoOutcomes, entry.at_ns, |names| Violation::TwoOutcomes {
                        record: names.sent(op, &row),
                        first_at: names.seen(row.outcome).at,
                        second_at: names.seen(number).at,
                    });
                }
                _ => {}
            }
        }
    }

    /// Holds outcomes against what the logs hold.
    pub(super) fn settle(&mut self) {
        for number in 0..self.history.ops {
            let op = Op(number);
            let Some(row) = self.rows.get(op.index()).copied() else { continue };
            let Some(outcome) = self.history.entries.get(row.outcome as usize) else {
                self.report.unknown += 1;
                continue;
            };
            match outcome.event {
                Event::Acked { partition, offset, .. } => {
                    self.report.acked += 1;
                    if self.promises.kept.is_some_and(|kept| self.settings(row.producer).acks >= kept) {
                        self.settle_acked(op, &row, partition, offset);
                    }
                }
                Event::Failed { maybe_written: true, .. } => self.report.maybe_written += 1,
                Event::Failed { .. } => {
                    self.report.failed += 1;
                    if row.copies > 0 {
                        self.found(Rule::Ghost, outcome.at_ns, |names| Violation::Ghost {
                            record: names.sent(op, &row),
                            failed_at: Duration::from_nanos(outcome.at_ns),
                            spot: names.spot(row.found.0, row.found.1),
                        });
                    }
                }
                _ => {}
            }
        }
    }

    /// A record that must be where its producer was told it is.
    fn settle_acked(&mut self, op: Op, row: &Row, partition: Partition, offset: Option<i64>) {
        let Some(held) = self.log(partition) else {
            if let Some((acked, _)) = self.relied_on.get_mut(partition.0 as usize) {
                *acked += 1;
            }
            return;
        };
        let there = match offset {
            // Nothing is known any more of what was below.
            Some(offset) if offset < held.log.start => return,
            Some(offset) => held.find(offset).is_some_and(|record| record.op == op),
            None if row.copies == 0 && held.log.start > 0 => return,
            None => row.copies > 0 && (row.found.0 == partition || row.copies > 1),
        };
        if there {
            return;
        }
        let holds = offset.map(|offset| held.holds(offset));
        let (sent_ns, acked_ns) = (self.at_ns(row.invoked), self.at_ns(row.outcome));
        let acked_at = Duration::from_nanos(acked_ns);
        if row.copies == 0 {
            self.found(Rule::Lost, sent_ns, |names| {
                let (record, partition) = (names.sent(op, row), names.partition(partition));
                Violation::Lost { record, partition, offset, acked_at, holds }
            });
        } else {
            self.found(Rule::WrongOffset, sent_ns, |names| {
                let (record, partition) = (names.sent(op, row), names.partition(partition));
                let found = names.spot(row.found.0, row.found.1);
                Violation::WrongOffset { record, partition, offset, acked_at, holds, found }
            });
        }
    }

    /// Whether this record must stand in its producer's order: all of an idempotent producer's, and what an ordered
    /// one had acknowledged. (What an ordered one gave up on may come late.)
    pub(super) fn in_order(&self, row: &Row) -> bool {
        let settings = self.settings(row.producer);
        let acked = || {
            let outcome = self.history.entries.get(row.outcome as usize);
            outcome.is_some_and(|entry| matches!(entry.event, Event::Acked { .. }))
        };
        row.accepted != NONE && (settings.idempotent || (settings.ordered && acked()))
    }

    /// Whether this record may be written only once.
    pub(super) fn at_most_once(&self, row: &Row) -> bool {
        let settings = self.settings(row.producer);
        settings.idempotent || !settings.retries
    }
}
