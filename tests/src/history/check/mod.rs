//! The rules, as walks over dense rows.
//!
//! In: a history and what it promises. Out: a report. Each walk takes time linear in events and records; nothing is
//! looked up by hashing or in a tree per event.
//!
//! ```text
//! events ──produced::gather──▶ a row per record ◀──logs::walk── final logs
//!                                    │ produced::settle
//! events ──consumed::follow──▶ a cursor per consumer and partition, held against the logs
//! events ──groups::follow────▶ owners and commits per group and partition
//! events ──members::follow───▶ generations, and what each member may commit
//! ```

mod consumed;
mod groups;
mod held;
mod logs;
mod members;
mod produced;

use std::sync::Arc;
use std::time::Duration;

use super::event::{Client, Event, Group, Op, Partition};
use super::violation::{Seen, Sent, Spot, Where};
use super::{History, ProducerSettings, Promises, Report, Rule, Violation};
use held::Held;
use produced::Row;

/// Judges a history.
pub fn check(history: &History, promises: &Promises) -> Report {
    let mut checker = Checker::new(history, *promises);
    checker.gather();
    checker.walk_logs();
    checker.compare_replicas();
    checker.settle();
    checker.follow_readers();
    checker.follow_groups();
    checker.follow_members();
    checker.look_for_undelivered();
    checker.report
}

struct Checker<'a> {
    history: &'a History,
    promises: Promises,
    report: Report,
    /// Faults by time.
    marks: Vec<(u64, Arc<str>)>,
    /// What is known of each record, by its number.
    rows: Vec<Row>,
    /// The final log of each partition, by its number.
    held: Vec<Option<Held<'a>>>,
    /// Acknowledged records that must stay, and reads, by partition.
    relied_on: Vec<(u64, u64)>,
}

impl<'a> Checker<'a> {
    fn new(history: &'a History, promises: Promises) -> Self {
        let numbers = 0..history.partitions.len();
        let held = numbers.clone().filter_map(|number| u32::try_from(number).ok());
        let held = held.map(|number| history.logs.get(&Partition(number)).map(Held::new)).collect();
        let events = history.entries.iter().filter_map(|entry| match entry.event {
            Event::Mark { text } => Some((entry.at_ns, history.marks.get(text as usize)?.clone())),
            _ => None,
        });
        let mut marks: Vec<_> = events.collect();
        marks.sort_by_key(|(at_ns, _)| *at_ns);
        let report = Report {
            events: history.entries.len() as u64,
            faults: marks.len() as u64,
            sent: u64::from(history.ops),
            ..Report::default()
        };
        let rows = vec![Row::default(); history.ops as usize];
        Self { history, promises, report, marks, rows, held, relied_on: vec![(0, 0); numbers.len()] }
    }

    fn found(&mut self, rule: Rule, began_ns: u64, violation: impl FnOnce(&Names<'a>) -> Violation) {
        let names = Names(self.history);
        let finding = || (violation(&names), began_ns);
        self.report.add(rule, finding, &self.marks);
    }

    fn log(&self, partition: Partition) -> Option<Held<'a>> {
        self.held.get(partition.0 as usize).copied().flatten()
    }

    fn settings(&self, producer: Client) -> ProducerSettings {
        let client = self.history.clients.get(producer.0 as usize);
        client.and_then(|client| client.producer).unwrap_or_default()
    }

    /// When an event was recorded.
    fn at_ns(&self, event: u32) -> u64 {
        self.history.entries.get(event as usize).map_or(0, |entry| entry.at_ns)
    }
}

/// Turns numbers into what people read.
struct Names<'a>(&'a History);

impl Names<'_> {
    fn client(&self, client: Client) -> Arc<str> {
        self.0
            .clients
            .get(client.0 as usize)
            .map_or_else(|| Arc::from("somebody"), |known| known.name.clone())
    }

    fn group(&self, group: Group) -> Arc<str> {
        self.0.groups.get(group.0 as usize).cloned().unwrap_or_else(|| Arc::from("unknown"))
    }

    fn partition(&self, partition: Partition) -> Where {
        let known = self.0.partitions.get(partition.0 as usize).cloned();
        let (topic, partition) = known.unwrap_or_else(|| (Arc::from("unknown"), -1));
        Where { topic, partition }
    }

    fn spot(&self, partition: Partition, offset: i64) -> Spot {
        Spot { partition: self.partition(partition), offset }
    }

    fn sent(&self, op: Op, row: &Row) -> Sent {
        let invoked = self.0.entries.get(row.invoked as usize);
        let at = Duration::from_nanos(invoked.map_or(0, |entry| entry.at_ns));
        Sent { op, producer: self.client(row.producer), at }
    }

    /// Who recorded an event, and when.
    fn seen(&self, event: u32) -> Seen {
        let entry = self.0.entries.get(event as usize);
        let client = entry.map_or_else(|| Arc::from("somebody"), |entry| self.client(entry.client));
        Seen { client, at: Duration::from_nanos(entry.map_or(0, |entry| entry.at_ns)) }
    }
}
