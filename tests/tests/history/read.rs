//! Reads, owners and commits.

use klamm_tests::history::{Log, LogRecord, Promises, Rule, check};

use crate::{Run, assert_breaks};

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
fn a_consumer_reads_only_what_it_owns() {
    let sentence =
        "reader at 0.004000 s read orders-0 offset 0, which was no longer its own since 0.003000 s";
    assert_breaks(Rule::NotOwned, sentence, |mistaken| {
        let mut run = Run::new();
        let (writer, reader) = (run.writer(), run.history.consumer("reader", None));
        let op = run.write(writer);
        let at = run.now();
        run.history.assigned(at, reader, run.orders, Some(0), None);
        run.history.lost(at, reader, run.orders);
        if !mistaken {
            run.history.assigned(at, reader, run.orders, Some(0), None);
        }
        run.read(reader, 0, op);
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
fn a_member_may_be_told_twice_what_it_owns() {
    let mut run = Run::new();
    let one = run.history.consumer("one", Some("workers"));
    for _ in 0..2 {
        let at = run.now();
        run.history.assigned(at, one, run.orders, None, Some(4));
    }
    let strict = Promises { owners_take_turns: true, ..Promises::default() };
    assert!(run.check_with(&strict).is_ok());
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
