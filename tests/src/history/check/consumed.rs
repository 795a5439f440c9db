//! What consumers read, held against the logs and against each other.

use super::super::event::{Event, Op, Partition};
use super::super::violation::{Holds, NotFrom};
use super::super::{Entry, Rule, Violation};
use super::Checker;

/// Where a consumer stands in a partition.
#[derive(Clone, Copy)]
struct Cursor {
    partition: Partition,
    /// Offset that comes next, unless the broker decides.
    next: Option<i64>,
    /// Event with which it was given back or lost.
    gone: Option<u32>,
    /// Whether it has not read anything yet.
    fresh: bool,
}

/// A read that is not what the final log says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Odd {
    partition: Partition,
    offset: i64,
    event: u32,
}

impl Checker<'_> {
    /// Follows every consumer through its partitions.
    pub(super) fn follow_readers(&mut self) {
        let history = self.history;
        let mut cursors: Vec<Vec<Cursor>> = vec![Vec::new(); history.clients.len()];
        let (mut sent, mut odd) = (0, Vec::new());
        for (number, entry) in (0..).zip(&history.entries) {
            let Some(mine) = cursors.get_mut(entry.client.0 as usize) else { continue };
            match entry.event {
                Event::Invoked { .. } => sent += 1,
                Event::Assigned { partition, start, .. } => {
                    *cursor(mine, partition) = Cursor { partition, next: start, gone: None, fresh: true };
                }
                Event::Began { partition, offset } => {
                    let cursor = cursor(mine, partition);
                    if cursor.fresh && cursor.gone.is_none() {
                        cursor.next = Some(offset);
                    }
                }
                Event::Seek { partition, to } => cursor(mine, partition).next = to,
                Event::Revoked { partition } | Event::Lost { partition } => {
                    cursor(mine, partition).gone = Some(number);
                }
                Event::Read { partition, offset, op, .. } => {
                    self.report.reads += 1;
                    let cursor = cursor(mine, partition);
                    cursor.fresh = false;
                    let (expected, gone) = (cursor.next.replace(offset + 1), cursor.gone);
                    if let Some(gone) = gone {
                        self.found(Rule::NotOwned, self.at_ns(gone), |names| {
                            let (reader, spot) = (names.seen(number), names.spot(partition, offset));
                            Violation::NotOwned { reader, spot, gone_at: names.seen(gone).at }
                        });
                    }
                    if op.number() >= sent {
                        self.found(Rule::Phantom, entry.at_ns, |names| {
                            let (spot, not_from) =
                                (names.spot(partition, offset), NotFrom::Before(names.seen(number)));
                            Violation::Phantom { op, spot, not_from }
                        });
                    }
                    if self.promises.reads_stay {
                        if expected != Some(offset) {
                            self.step(number, entry, partition, expected, offset);
                        }
                        if !self.agrees(number, entry) {
                            odd.push(Odd { partition, offset, event: number });
                        }
                    }
                }
                _ => {}
            }
        }
        self.look_for_disagreement(odd);
        self.look_for_missing_logs();
    }

    /// A step of a consumer that is not the next offset.
    fn step(&mut self, number: u32, entry: &Entry, partition: Partition, expected: Option<i64>, read: i64) {
        let Some(expected) = expected else { return };
        if read < expected {
            self.found(Rule::MovedBack, entry.at_ns, |names| {
                let (reader, partition) = (names.seen(number), names.partition(partition));
                Violation::MovedBack { reader, partition, expected, read }
            });
            return;
        }
        let Some(held) = self.log(partition) else { return };
        let (missed, first) = held.between(expected, read);
        if let Some(first_missed) = first.map(|record| (record.offset, record.op)) {
            self.found(Rule::Skipped, entry.at_ns, |names| {
                let (reader, partition) = (names.seen(number), names.partition(partition));
                Violation::Skipped { reader, partition, expected, read, missed, first_missed }
            });
        }
    }

    /// Whether the final log holds what was read, or says nothing about it any more.
    fn agrees(&mut self, number: u32, entry: &Entry) -> bool {
        let Event::Read { partition, offset, op, leader_epoch } = entry.event else { return true };
        let Some(held) = self.log(partition) else {
            if let Some((_, reads)) = self.relied_on.get_mut(partition.0 as usize) {
                *reads += 1;
            }
            return false;
        };
        if offset < held.log.start {
            return false;
        }
        let holds = held.holds(offset);
        let agrees = matches!(holds, Holds::Record(held, epoch)
            if held == op && (epoch == leader_epoch || epoch < 0 || leader_epoch < 0));
        if !agrees {
            self.found(Rule::ReadUncommitted, entry.at_ns, |names| Violation::ReadUncommitted {
                reader: names.seen(number),
                spot: names.spot(partition, offset),
                read: Holds::Record(op, leader_epoch),
                holds,
            });
        }
        agrees
    }

    /// Two reads that differ: at least one of them is odd, so that only the offsets of odd ones are looked at.
    fn look_for_disagreement(&mut self, mut odd: Vec<Odd>) {
        if odd.is_empty() {
            return;
        }
        odd.sort_unstable();
        let history = self.history;
        let mut reads = Vec::with_capacity(odd.len());
        for (number, entry) in (0..).zip(&history.entries) {
            if let Event::Read { partition, offset, op, .. } = entry.event {
                let same = |other: &Odd| (other.partition, other.offset).cmp(&(partition, offset));
                if odd.binary_search_by(same).is_ok() {
                    reads.push((partition, offset, number, op));
                }
            }
        }
        reads.sort_unstable();
        let mut rest = &reads[..];
        while let Some(&(partition, offset, first, op)) = rest.first() {
            let same = rest.iter().take_while(|read| (read.0, read.1) == (partition, offset)).count();
            let (here, behind) = rest.split_at(same);
            rest = behind;
            let Some(&(_, _, second, other)) = here.iter().find(|read| read.3 != op) else { continue };
            let (first_read, second_read) = (self.read(first, op), self.read(second, other));
            self.found(Rule::DifferentReads, self.at_ns(first), |names| {
                let (spot, first, second) =
                    (names.spot(partition, offset), names.seen(first), names.seen(second));
                Violation::DifferentReads { spot, first, first_read, second, second_read }
            });
        }
    }

    fn read(&self, event: u32, op: Op) -> Holds {
        match self.history.entries.get(event as usize).map(|entry| entry.event) {
            Some(Event::Read { leader_epoch, .. }) => Holds::Record(op, leader_epoch),
            _ => Holds::Record(op, -1),
        }
    }

    /// What is relied on and cannot be judged.
    fn look_for_missing_logs(&mut self) {
        for (number, (acked, reads)) in (0..).zip(std::mem::take(&mut self.relied_on)) {
            if acked + reads > 0 {
                self.found(Rule::NoLog, u64::MAX, |names| Violation::NoLog {
                    partition: names.partition(Partition(number)),
                    acked,
                    reads,
                });
            }
        }
    }
}

/// A consumer's cursor in a partition; a new one if it has none.
fn cursor(mine: &mut Vec<Cursor>, partition: Partition) -> &mut Cursor {
    let at = match mine.binary_search_by_key(&partition, |cursor| cursor.partition) {
        Ok(at) => at,
        Err(at) => {
            mine.insert(at, Cursor { partition, next: None, gone: None, fresh: false });
            at
        }
    };
    &mut mine[at]
}
