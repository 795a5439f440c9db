//! For each rule of the history checker the smallest history that breaks it, and the same history without the mistake.

use std::time::Duration;

use klamm_tests::history::{
    Acks, Client, FINDINGS_PER_RULE, History, Log, LogRecord, Op, Partition, ProducerSettings, Promises,
    Report, Rule, check,
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
fn an_acknowledged_record_must_be_in_the_log() {
    let sentence = "record 1 of writer (sent at 0.003000 s) was acknowledged in orders-0 at offset 1, at 0.004000 s, \
                    and is not in the log; that offset holds nothing (beyond the end)";
    assert_breaks(Rule::Lost, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        run.write(writer);
        let op = run.send(writer);
        run.ack(writer, op, 1);
        if !mistaken {
            run.hold(op);
        }
        run.check()
    });
}

#[test]
fn a_record_acknowledged_without_an_offset_must_be_in_the_log_somewhere() {
    let sentence = "record 0 of writer (sent at 0.001000 s) was acknowledged in orders-0 at no offset, \
                    at 0.002000 s, and is not in the log";
    assert_breaks(Rule::Lost, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        let op = run.send(writer);
        let at = run.now();
        run.history.acked(at, writer, op, run.orders, None); // as brokers answer an old duplicate
        if !mistaken {
            run.hold(op);
        }
        run.check()
    });
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
fn what_one_acks_promised_is_held_only_where_the_run_promises_it() {
    let lost_with = |acks, kept| {
        let mut run = Run::new();
        let writer = run.plain(ProducerSettings { acks, ..Default::default() });
        let op = run.send(writer);
        run.ack(writer, op, 0);
        let report = run.check_with(&Promises { kept, ..Promises::default() });
        assert_eq!(report.acked, 1);
        report.count(Rule::Lost)
    };
    assert_eq!(lost_with(Acks::All, Some(Acks::All)), 1);
    assert_eq!(lost_with(Acks::Leader, Some(Acks::All)), 0);
    assert_eq!(lost_with(Acks::Leader, Some(Acks::Leader)), 1);
    assert_eq!(lost_with(Acks::None, Some(Acks::Leader)), 0);
    assert_eq!(lost_with(Acks::None, Some(Acks::None)), 1);
    assert_eq!(lost_with(Acks::All, None), 0);
}

#[test]
fn an_acknowledged_record_stands_where_its_producer_was_told() {
    let sentence = "record 0 of writer (sent at 0.001000 s) was acknowledged in orders-0 at offset 1, at 0.002000 s, \
                    but stands at orders-0 offset 0; that offset holds record 1 of epoch 1";
    assert_breaks(Rule::WrongOffset, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        let op = run.send(writer);
        run.hold(op);
        run.ack(writer, op, i64::from(mistaken));
        run.write(writer);
        run.check()
    });
}

#[test]
fn a_record_of_an_idempotent_producer_is_there_once() {
    let sentence = "record 0 of writer (sent at 0.001000 s) is in the log more than once: \
                    at orders-0 offset 0 and at orders-0 offset 1";
    assert_breaks(Rule::Duplicated, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        let op = run.write(writer);
        if mistaken {
            run.hold(op);
        }
        run.check()
    });
}

#[test]
fn only_a_producer_that_retries_may_write_a_record_twice_and_that_is_counted() {
    let twice = |retries| {
        let mut run = Run::new();
        let writer = run.plain(ProducerSettings { retries, ..Default::default() });
        let op = run.write(writer);
        run.hold(op);
        run.check()
    };
    let report = twice(true);
    assert!(report.is_ok(), "{report}");
    assert_eq!(report.duplicates, 1);
    assert_eq!(twice(false).broken(), [Rule::Duplicated]);
}

#[test]
fn what_failed_as_not_written_is_not_in_the_log() {
    let sentence = "record 0 of writer (sent at 0.001000 s) failed at 0.002000 s as not written, but stands at orders-0 offset 0";
    assert_breaks(Rule::Ghost, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        let op = run.send(writer);
        run.fail(writer, op, !mistaken);
        run.hold(op);
        run.check()
    });
}

#[test]
fn the_log_holds_nothing_that_nobody_wrote() {
    let sentence = "orders-0 offset 0 holds a record that nobody sent, which nobody has written";
    assert_breaks(Rule::Phantom, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        let op = run.send(writer);
        run.hold(if mistaken { Op::of_value(b"noise") } else { Op::of_value(&op.value()) });
        run.check()
    });
}

#[test]
fn a_record_is_only_in_the_partition_it_was_written_to() {
    let sentence =
        "orders-1 offset 0 holds record 0 of writer (sent at 0.001000 s), which was written to orders-0";
    assert_breaks(Rule::Phantom, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        let op = run.send(writer);
        let other = run.history.partition("orders", 1);
        let log = Log { start: 0, end: 1, records: vec![LogRecord { offset: 0, op, leader_epoch: 1 }] };
        run.history.final_log(if mistaken { other } else { run.orders }, log);
        check(&run.history, &Promises::default())
    });
}

#[test]
fn a_producers_records_stand_in_the_order_in_which_it_accepted_them() {
    let sentence = "record 0 of writer (sent at 0.001000 s) was accepted before record 1 of writer (sent at \
                    0.002000 s), but stands behind it: at orders-0 offset 1, the other at orders-0 offset 0";
    assert_breaks(Rule::Reordered, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        let (first, second) = (run.send(writer), run.send(writer));
        let other = run.writer(); // another one's may stand anywhere
        let third = run.send(other);
        let order = if mistaken { [second, first, third] } else { [third, first, second] };
        for op in order {
            run.hold(op);
        }
        run.check()
    });
}

#[test]
fn an_ordered_producer_without_idempotence_is_held_to_what_was_acknowledged() {
    let swapped = |ordered, acked| {
        let mut run = Run::new();
        let writer = run.plain(ProducerSettings { ordered, ..Default::default() });
        let (first, second) = (run.send(writer), run.send(writer));
        run.hold(second);
        run.hold(first);
        run.ack(writer, second, 0);
        if acked {
            run.ack(writer, first, 1);
        } else {
            run.fail(writer, first, true); // and so its request may come late
        }
        run.check().broken()
    };
    assert_eq!(swapped(true, true), [Rule::Reordered]);
    assert_eq!(swapped(true, false), []);
    assert_eq!(swapped(false, true), []);
}

#[test]
fn a_consumer_reads_what_the_log_holds_at_the_end() {
    let sentence = "reader at 0.004000 s read record 0 of epoch 1 at orders-0 offset 0, where the log holds record 1 of epoch 1";
    assert_breaks(Rule::ReadUncommitted, sentence, |mistaken| {
        let mut run = Run::new();
        let (writer, reader) = (run.writer(), run.reader("reader"));
        let (truncated, kept) = (run.send(writer), run.send(writer));
        run.hold(kept);
        run.read(reader, 0, if mistaken { truncated } else { kept });
        run.check()
    });
}

#[test]
fn a_record_of_a_truncated_epoch_is_uncommitted_even_if_it_comes_again() {
    let sentence = "reader at 0.003000 s read record 0 of epoch 1 at orders-0 offset 0, where the log holds record 0 of epoch 2";
    assert_breaks(Rule::ReadUncommitted, sentence, |mistaken| {
        let mut run = Run::new();
        let (writer, reader) = (run.writer(), run.reader("reader"));
        let op = run.send(writer);
        run.log.push(LogRecord { offset: 0, op, leader_epoch: if mistaken { 2 } else { -1 } });
        run.read(reader, 0, op);
        run.check()
    });
}

#[test]
fn a_consumer_leaves_nothing_out() {
    let sentence = "reader at 0.010000 s went from offset 1 of orders-0 to 3 and missed 2 records, \
                    the first of them record 1 at offset 1";
    assert_breaks(Rule::Skipped, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        let ops: Vec<_> = (0..4).map(|_| run.write(writer)).collect();
        let reader = run.history.consumer("reader", None);
        run.history.assigned(run.now, reader, run.orders, Some(0), None);
        run.read(reader, 0, ops[0]);
        if !mistaken {
            run.history.seek(run.now, reader, run.orders, Some(3));
        }
        run.read(reader, 3, ops[3]);
        run.check()
    });
}

#[test]
fn offsets_that_no_record_has_are_no_gap() {
    let mut run = Run::new();
    let (writer, reader) = (run.writer(), run.reader("reader"));
    let ops: Vec<_> = (0..2).map(|_| run.send(writer)).collect();
    run.log.extend([(4, ops[0]), (9, ops[1])].map(|(offset, op)| LogRecord { offset, op, leader_epoch: 1 }));
    run.read(reader, 4, ops[0]);
    run.read(reader, 9, ops[1]);
    assert!(run.check().is_ok());
}

#[test]
fn a_consumer_does_not_go_back_by_itself() {
    let sentence = "reader at 0.007000 s read offset 0 of orders-0, although 2 was next";
    assert_breaks(Rule::MovedBack, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        let ops: Vec<_> = (0..2).map(|_| run.write(writer)).collect();
        let reader = run.history.consumer("reader", None);
        run.history.assigned(run.now, reader, run.orders, None, None);
        run.read(reader, 0, ops[0]);
        run.read(reader, 1, ops[1]);
        if !mistaken {
            run.history.revoked(run.now, reader, run.orders);
            run.history.assigned(run.now, reader, run.orders, None, None);
        }
        run.read(reader, 0, ops[0]);
        run.check()
    });
}

#[test]
fn what_a_group_committed_does_not_go_back_by_itself() {
    let sentence = "offset 7 of orders-0 was committed in group workers by one at 0.001000 s, \
                    but two at 0.002000 s committed offset 5";
    assert_breaks(Rule::CommitMovedBack, sentence, |mistaken| {
        let mut run = Run::new();
        let (one, two) =
            (run.history.consumer("one", Some("workers")), run.history.consumer("two", Some("workers")));
        let at = run.now();
        run.history.committed(at, one, run.orders, 7);
        if !mistaken {
            run.history.commit_reset(at, two, run.orders);
        }
        let at = run.now();
        run.history.committed(at, two, run.orders, 5);
        run.check()
    });
}

#[test]
fn a_member_hears_at_least_what_was_committed_when_it_asked() {
    let sentence = "offset 7 of orders-0 was committed in group workers by one at 0.001000 s, \
                    but two at 0.003000 s was told no offset";
    assert_breaks(Rule::CommitMovedBack, sentence, |mistaken| {
        let mut run = Run::new();
        let (one, two) =
            (run.history.consumer("one", Some("workers")), run.history.consumer("two", Some("workers")));
        let before = run.now();
        run.history.committed(before, one, run.orders, 7);
        let after = run.now();
        let heard = run.now();
        run.history.commit_fetched(heard, two, run.orders, None, if mistaken { after } else { before });
        run.check()
    });
}

#[test]
fn a_partition_has_one_owner_in_a_generation() {
    let sentence = "orders-0 was assigned in group workers to two at 0.002000 s, but also to one at 0.001000 s, \
                    both in generation 4";
    assert_breaks(Rule::TwoOwners, sentence, |mistaken| {
        let mut run = Run::new();
        let (one, two) =
            (run.history.consumer("one", Some("workers")), run.history.consumer("two", Some("workers")));
        let at = run.now();
        run.history.assigned(at, one, run.orders, None, Some(4));
        run.history.lost(at, one, run.orders);
        let at = run.now();
        run.history.assigned(at, two, run.orders, None, Some(if mistaken { 4 } else { 5 }));
        run.check()
    });
}

#[test]
fn owners_take_turns_where_the_run_promises_it() {
    let sentence = "orders-0 was assigned in group workers to two at 0.002000 s, but also to one at 0.001000 s, \
                    which had not given it back";
    assert_breaks(Rule::TwoOwners, sentence, |mistaken| {
        let mut run = Run::new();
        let (one, two) =
            (run.history.consumer("one", Some("workers")), run.history.consumer("two", Some("workers")));
        let at = run.now();
        run.history.assigned(at, one, run.orders, None, Some(4));
        let at = run.now();
        run.history.assigned(at, two, run.orders, None, Some(5));
        run.check_with(&Promises { owners_take_turns: mistaken, ..Promises::default() })
    });
}

#[test]
fn replicas_are_equal_as_far_as_both_go() {
    let sentence = "the log of broker 1 holds record 1 of epoch 1 at orders-0 offset 1, \
                    the log of broker 2 holds record 1 of epoch 2";
    assert_breaks(Rule::LogsDiffer, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        for _ in 0..4 {
            run.write(writer);
        }
        let (one, mut other) = (run.log(), run.log());
        if mistaken {
            other.records[1].leader_epoch = 2;
        }
        other.records[2].leader_epoch = 2;
        other.records[3].leader_epoch = 2;
        other.end = 2;
        other.records.truncate(2);
        run.history.replica_log(run.orders, 1, one);
        run.history.replica_log(run.orders, 2, other);
        let mut report = run.check();
        // Broker 2 differs from the final log, too.
        report.findings.retain(|finding| finding.violation.to_string().starts_with("the log of broker 1"));
        report
    });
}

#[test]
fn the_offsets_of_a_log_grow() {
    let sentence = "the final log is broken at orders-0 offset 0, epoch 1: it goes from 0 to 1 \
                    and the record before has offset 0 and epoch 1";
    assert_breaks(Rule::LogBroken, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        run.write(writer);
        let second = run.send(writer);
        if mistaken {
            run.log.push(LogRecord { offset: 0, op: second, leader_epoch: 1 });
        }
        run.check()
    });
}

#[test]
fn a_log_keeps_within_its_bounds_and_its_epochs_do_not_fall() {
    let with = |start, end, epochs: [i32; 2]| {
        let mut run = Run::new();
        let writer = run.writer();
        let records = (1..).zip(epochs).map(|(offset, leader_epoch)| {
            let op = run.send(writer);
            LogRecord { offset, op, leader_epoch }
        });
        let records = records.collect();
        run.history.final_log(run.orders, Log { start, end, records });
        check(&run.history, &Promises::default()).broken()
    };
    assert_eq!(with(1, 3, [1, 1]), []);
    assert_eq!(with(1, 3, [1, 2]), []);
    assert_eq!(with(1, 3, [1, -1]), [], "unknown");
    assert_eq!(with(1, 3, [2, 1]), [Rule::LogBroken]);
    assert_eq!(with(2, 3, [1, 1]), [Rule::LogBroken]);
    assert_eq!(with(1, 2, [1, 1]), [Rule::LogBroken]);
}

#[test]
fn an_offset_between_records_holds_nothing() {
    let sentence =
        "reader at 0.003000 s read record 0 of epoch 1 at orders-0 offset 1, where the log holds nothing";
    assert_breaks(Rule::ReadUncommitted, sentence, |mistaken| {
        let mut run = Run::new();
        let (writer, reader) = (run.writer(), run.reader("reader"));
        let op = run.send(writer);
        run.log.push(LogRecord { offset: 2, op, leader_epoch: 1 });
        run.read(reader, if mistaken { 1 } else { 2 }, op);
        run.check()
    });
}

#[test]
fn two_readers_of_a_record_that_the_log_has_dropped_must_still_agree() {
    let sentence = "one at 0.005000 s read record 0 of epoch 1 at orders-0 offset 0, \
                    two at 0.006000 s read record 1 of epoch 1 there";
    assert_breaks(Rule::DifferentReads, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        let (first, second) = (run.send(writer), run.send(writer));
        let (one, two) = (run.reader("one"), run.reader("two"));
        run.read(one, 0, first);
        run.read(two, 0, if mistaken { second } else { first });
        run.history.final_log(run.orders, Log { start: 9, end: 9, records: Vec::new() });
        check(&run.history, &Promises::default())
    });
}

#[test]
fn a_record_has_one_outcome() {
    let sentence =
        "record 0 of writer (sent at 0.001000 s) has two outcomes, at 0.002000 s and at 0.003000 s";
    assert_breaks(Rule::TwoOutcomes, sentence, |mistaken| {
        let mut run = Run::new();
        let writer = run.writer();
        let op = run.write(writer);
        if mistaken {
            run.fail(writer, op, true);
        }
        run.check()
    });
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
