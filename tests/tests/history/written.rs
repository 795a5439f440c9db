//! Records, outcomes and logs.

use klamm_tests::history::{Acks, Log, LogRecord, Op, ProducerSettings, Promises, Rule, check};

use crate::{Run, assert_breaks};

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
