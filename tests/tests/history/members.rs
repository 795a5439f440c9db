//! Generations of groups, what members may commit, and what they have to be done with.

use std::time::Duration;

use klamm_tests::history::{Client, Rule};

use super::{Run, assert_breaks};

/// Two members of one group.
fn workers(run: &mut Run) -> [Client; 2] {
    ["one", "two"].map(|name| run.history.consumer(name, Some("workers")))
}

impl Run {
    /// Joins now, and is told its assignment.
    fn join(&mut self, member: Client, generation: i32) {
        let asked = self.now();
        let at = self.now();
        self.history.joined(at, member, generation, asked);
        self.history.synced(at, member, generation);
    }

    fn own(&mut self, member: Client, start: i64, generation: i32) {
        let (at, orders) = (self.now(), self.orders);
        self.history.assigned(at, member, orders, Some(start), Some(generation));
    }

    fn commit(&mut self, member: Client, offset: i64, generation: i32) {
        let (at, orders) = (self.now(), self.orders);
        let sent = self.history.commit_sent(at, member, orders, offset, generation);
        self.history.commit_acked(at + Duration::from_micros(1), member, sent);
    }
}

#[test]
fn nobody_commits_what_it_is_not_done_with() {
    let sentence = "one at 0.005000 s committed offset 1 of orders-0, but was done up to offset 0";
    assert_breaks(Rule::CommittedAhead, sentence, |mistaken| {
        let mut run = Run::new();
        let [one, _] = workers(&mut run);
        let writer = run.writer();
        let op = run.write(writer);
        run.own(one, 0, 1);
        run.read(one, 0, op);
        if !mistaken {
            run.history.done(run.now, one, run.orders, 0);
        }
        run.commit(one, 1, 1);
        run.check()
    });
}

#[test]
fn nobody_is_given_again_what_was_committed_before_it_got_the_partition() {
    let sentence = "two at 0.007000 s was given orders-0 offset 0 again, although one at 0.005001 s had committed offset 1";
    assert_breaks(Rule::Redelivered, sentence, |mistaken| {
        let mut run = Run::new();
        let [one, two] = workers(&mut run);
        let writer = run.writer();
        let op = run.write(writer);
        run.own(one, 0, 1);
        run.read(one, 0, op);
        run.history.done(run.now, one, run.orders, 0);
        if mistaken {
            run.commit(one, 1, 1);
        }
        run.history.revoked(run.now, one, run.orders);
        run.own(two, 0, 2);
        run.read(two, 0, op);
        run.check()
    });
}

#[test]
fn whoever_has_lost_a_partition_commits_it_no_more() {
    let sentence = "one at 0.002000 s committed offset 0 of orders-0 after it had lost it";
    assert_breaks(Rule::CommittedAfterLoss, sentence, |mistaken| {
        let mut run = Run::new();
        let [one, _] = workers(&mut run);
        run.own(one, 0, 1);
        if mistaken {
            run.history.lost(run.now, one, run.orders);
        }
        run.commit(one, 0, 1);
        run.check()
    });
}

#[test]
fn a_group_takes_no_commit_of_an_earlier_generation() {
    let sentence = "one at 0.006000 s committed offset 0 of orders-0 in generation 1, although two at 0.005000 s \
                    was in generation 2 already";
    assert_breaks(Rule::CommittedLate, sentence, |mistaken| {
        let mut run = Run::new();
        let [one, two] = workers(&mut run);
        run.join(one, 1);
        run.own(one, 0, 1);
        run.join(two, if mistaken { 2 } else { 1 });
        run.commit(one, 0, 1);
        run.check()
    });
}

#[test]
fn a_groups_generation_does_not_go_back() {
    let sentence = "group workers was in generation 3 by one at 0.002000 s, \
                    but two at 0.004000 s was told its assignment in generation 1";
    assert_breaks(Rule::GenerationMovedBack, sentence, |mistaken| {
        let mut run = Run::new();
        let [one, two] = workers(&mut run);
        run.join(one, 3);
        run.join(two, if mistaken { 1 } else { 3 });
        run.check()
    });
}

/// Goal: cooperative members keep what they own while they join; a partition must be given back before it is given away.
#[test]
fn what_a_member_of_the_same_generation_still_owns_goes_to_nobody_else() {
    let sentence = "orders-0 was assigned in group workers to two at 0.009000 s, but also to one at 0.003000 s, \
                    both in generation 2";
    assert_breaks(Rule::TwoOwners, sentence, |mistaken| {
        let mut run = Run::new();
        let [one, two] = workers(&mut run);
        run.join(one, 1);
        run.own(one, 0, 1);
        let asked = run.now();
        run.history.joined(run.now, one, 2, asked);
        run.join(two, 2);
        if mistaken {
            run.now += Duration::from_millis(2);
            run.own(two, 0, 2);
        }
        // It is in the generation all the same, and hears of it later.
        run.history.synced(run.now, one, 2);
        run.history.revoked(run.now, one, run.orders);
        run.check()
    });
}

/// Goal: a coordinator that forgets a generation that it has told of gives its number, and its partitions, to others.
#[test]
fn a_generation_has_one_assignment_whoever_hears_of_it_first() {
    let sentence = "orders-0 was assigned in group workers to two at 0.002000 s, but also to one at 0.001000 s, \
                    both in generation 2";
    assert_breaks(Rule::TwoOwners, sentence, |mistaken| {
        let mut run = Run::new();
        let [one, two] = workers(&mut run);
        let at = run.now();
        run.history.given(at, one, run.orders, 2);
        let at = run.now();
        run.history.given(at, two, run.orders, if mistaken { 2 } else { 3 });
        run.check()
    });
}

/// Goal: it does not matter in which order two commits are heard of: a coordinator takes those of an earlier generation before
/// those of a later one, or never.
#[test]
fn what_was_committed_in_the_latest_generation_counts() {
    let sentence = "offset 9 of orders-0 was committed in group workers by two at 0.005000 s, \
                    but two at 0.008000 s was told offset 5";
    assert_breaks(Rule::CommitMovedBack, sentence, |mistaken| {
        let mut run = Run::new();
        let [one, two] = workers(&mut run);
        run.own(one, 5, 1);
        let at = run.now();
        let early = run.history.commit_sent(at, one, run.orders, 5, 1);
        run.own(two, 9, 2);
        let at = run.now();
        let late = run.history.commit_sent(at, two, run.orders, 9, 2);
        let at = run.now();
        run.history.commit_acked(at, two, late);
        let at = run.now();
        run.history.commit_acked(at, one, early);
        let asked = run.now();
        let at = run.now();
        run.history.commit_fetched(at, two, run.orders, Some(if mistaken { 5 } else { 9 }), asked);
        run.check()
    });
}

#[test]
fn a_member_reads_from_where_the_group_committed() {
    let sentence = "two read offset 0 of orders-0, although 1 was next";
    assert_breaks(Rule::MovedBack, sentence.replace("two", "one at 0.004000 s").as_str(), |mistaken| {
        let mut run = Run::new();
        let [one, _] = workers(&mut run);
        let writer = run.writer();
        let op = run.write(writer);
        let at = run.now();
        run.history.assigned(at, one, run.orders, None, Some(1));
        run.history.began(at, one, run.orders, i64::from(mistaken));
        run.read(one, 0, op);
        run.check()
    });
}

#[test]
fn a_group_is_done_with_everything_by_the_end() {
    let sentence =
        "group workers was never done with 1 records, the first of them record 0 at orders-0 offset 0";
    assert_breaks(Rule::Undelivered, sentence, |mistaken| {
        let mut run = Run::new();
        let [one, _] = workers(&mut run);
        let writer = run.writer();
        let op = run.write(writer);
        run.history.reads_all("workers", run.orders);
        run.own(one, 0, 1);
        run.read(one, 0, op);
        if !mistaken {
            run.history.done(run.now, one, run.orders, 0);
        }
        run.check()
    });
}
