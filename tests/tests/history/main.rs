//! For each rule of the history checker the smallest history that breaks it, and the same history without the mistake.

mod members;
mod read;
mod written;

use std::time::Duration;

use klamm_tests::history::{
    Client, FINDINGS_PER_RULE, History, Log, LogRecord, Op, Partition, ProducerSettings, Promises, Report,
    Rule, check,
};

/// A history with one partition, in which a millisecond passes with each event.
struct Run {
    history: History,
    orders: Partition,
    now: Duration,
    log: Vec<LogRecord>,
}

impl Run {
    fn new() -> Self {
        let mut history = History::new();
        let orders = history.partition("orders", 0);
        Self { history, orders, now: Duration::ZERO, log: Vec::new() }
    }

    fn now(&mut self) -> Duration {
        self.now += Duration::from_millis(1);
        self.now
    }

    fn writer(&mut self) -> Client {
        self.history.producer("writer", ProducerSettings::default())
    }

    fn plain(&mut self, settings: ProducerSettings) -> Client {
        self.history.producer("plain", ProducerSettings { idempotent: false, ..settings })
    }

    /// Sent and taken by the producer.
    fn send(&mut self, writer: Client) -> Op {
        let (at, orders) = (self.now(), self.orders);
        let op = self.history.invoke(at, writer, None);
        self.history.accepted(at, writer, op, orders);
        op
    }

    fn ack(&mut self, writer: Client, op: Op, offset: i64) {
        let (at, orders) = (self.now(), self.orders);
        self.history.acked(at, writer, op, orders, Some(offset));
    }

    fn fail(&mut self, writer: Client, op: Op, maybe_written: bool) {
        let at = self.now();
        self.history.failed(at, writer, op, maybe_written);
    }

    /// Sent, acknowledged and in the log.
    fn write(&mut self, writer: Client) -> Op {
        let op = self.send(writer);
        let offset = self.hold(op);
        self.ack(writer, op, offset);
        op
    }

    /// In the log.
    fn hold(&mut self, op: Op) -> i64 {
        let offset = self.log.last().map_or(0, |record| record.offset + 1);
        self.log.push(LogRecord { offset, op, leader_epoch: 1 });
        offset
    }

    fn reader(&mut self, name: &str) -> Client {
        let reader = self.history.consumer(name, None);
        let (at, orders) = (self.now(), self.orders);
        self.history.assigned(at, reader, orders, Some(0), None);
        reader
    }

    fn read(&mut self, reader: Client, offset: i64, op: Op) {
        let (at, orders) = (self.now(), self.orders);
        self.history.read(at, reader, orders, offset, op, 1);
    }

    fn log(&self) -> Log {
        let end = self.log.last().map_or(0, |record| record.offset + 1);
        Log { start: 0, end, records: self.log.clone() }
    }

    fn check(self) -> Report {
        self.check_with(&Promises::default())
    }

    fn check_with(mut self, promises: &Promises) -> Report {
        let log = self.log();
        self.history.final_log(self.orders, log);
        check(&self.history, promises)
    }
}

/// The mistake breaks this rule and no other, and says so in this sentence; without it all is well.
fn assert_breaks(rule: Rule, sentence: &str, run: impl Fn(bool) -> Report) {
    let report = run(true);
    assert_eq!(report.broken(), [rule], "{report}");
    assert_eq!(report.findings[0].violation.to_string(), sentence);
    let report = run(false);
    assert!(report.is_ok(), "{report}");
}

#[test]
fn nothing_is_known_of_what_a_log_no_longer_keeps() {
    let mut run = Run::new();
    let (writer, reader) = (run.writer(), run.reader("reader"));
    let op = run.send(writer);
    run.ack(writer, op, 4);
    run.read(reader, 4, op);
    let unplaced = run.send(writer);
    let at = run.now();
    run.history.acked(at, writer, unplaced, run.orders, None);
    run.history.final_log(run.orders, Log { start: 5, end: 5, records: Vec::new() });
    let report = check(&run.history, &Promises::default());
    assert!(report.is_ok(), "{report}");
}

#[test]
fn a_run_must_hand_in_the_logs_it_is_judged_by() {
    let sentence = "orders-0 cannot be judged, as its final log is missing: 1 acknowledged records, 1 reads";
    assert_breaks(Rule::NoLog, sentence, |mistaken| {
        let mut run = Run::new();
        let (writer, reader) = (run.writer(), run.reader("reader"));
        let op = run.write(writer);
        run.read(reader, 0, op);
        if mistaken { check(&run.history, &Promises::default()) } else { run.check() }
    });
}

#[test]
fn an_unclean_election_excuses_what_it_takes_and_nothing_else() {
    let mut run = Run::new();
    let (writer, reader) = (run.writer(), run.reader("reader"));
    let lost = run.send(writer);
    run.ack(writer, lost, 0);
    run.read(reader, 0, lost);
    let kept = run.send(writer);
    run.hold(kept);
    run.ack(writer, kept, 0);
    run.read(reader, 0, kept);
    let ghost = run.send(writer);
    run.fail(writer, ghost, false);
    run.hold(ghost);
    assert_eq!(run.check_with(&Promises::unclean()).broken(), [Rule::Ghost]);
}

#[test]
fn a_report_counts_what_happened_and_shows_the_faults_around_a_finding() {
    let mut run = Run::new();
    let writer = run.writer();
    let at = run.now();
    run.history.mark(at, "cut broker 1");
    let op = run.send(writer);
    run.ack(writer, op, 0);
    let at = run.now();
    run.history.mark(at, "kill broker 2");
    let unknown = run.send(writer);
    run.hold(unknown);
    let failed = run.send(writer);
    run.fail(writer, failed, false);
    let failed = run.send(writer);
    run.fail(writer, failed, true);
    let report = run.check();
    let counts =
        [report.sent, report.acked, report.failed, report.maybe_written, report.unknown, report.faults];
    assert_eq!(counts, [4, 1, 1, 1, 1, 2]);
    let text = report.to_string();
    assert!(text.contains("2 faults: 1 x Lost\n  Lost: record 0 of writer"), "{text}");
    assert!(text.ends_with("\n      0.001000 s cut broker 1\n      0.004000 s kill broker 2"), "{text}");
}

#[test]
fn a_finding_shows_three_faults_before_it_and_five_after() {
    let mut run = Run::new();
    let writer = run.writer();
    let mark = |run: &mut Run, number: i32| {
        let at = run.now();
        run.history.mark(at, &format!("fault {number}"));
    };
    (0..10).for_each(|number| mark(&mut run, number));
    let op = run.send(writer);
    (10..20).for_each(|number| mark(&mut run, number));
    run.ack(writer, op, 0);
    let report = run.check();
    let shown: Vec<_> = report.findings[0].faults.iter().map(|(_, text)| &**text).collect();
    let expected = (7..15).map(|number| format!("fault {number}"));
    assert_eq!(shown, expected.collect::<Vec<_>>());
}

#[test]
fn a_thousand_violations_are_counted_and_a_few_are_told() {
    let mut run = Run::new();
    let writer = run.writer();
    for offset in 0..1_000 {
        let op = run.send(writer);
        run.ack(writer, op, offset);
    }
    let report = run.check();
    assert_eq!((report.count(Rule::Lost), report.findings.len()), (1_000, FINDINGS_PER_RULE));
}
