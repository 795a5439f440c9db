//! Correct histories have no violation; one change in one place, and the rule that it breaks is named.

use std::time::Duration;

use fastrand::Rng;

use super::model::{Size, correct};
use super::{
    Acks, Client, Entry, Event, History, LogRecord, Op, Partition, ProducerSettings, Promises, Rule, check,
};

const SEEDS: u64 = 150;

fn size(random: &mut Rng) -> Size {
    Size {
        steps: random.usize(50..2_500),
        partitions: random.usize(1..4),
        producers: random.usize(1..8),
        consumers: random.usize(0..5),
        members: random.usize(0..4),
    }
}

fn some_history(seed: u64) -> History {
    correct(seed, size(&mut Rng::with_seed(seed)))
}

#[test]
fn a_correct_history_has_no_violation() {
    let (mut events, mut acked, mut duplicates, mut reads, mut commits) = (0, 0, 0, 0, 0);
    for seed in 0..4 * SEEDS {
        let report = check(&some_history(seed), &Promises { owners_take_turns: true, ..Promises::default() });
        assert!(report.is_ok(), "seed {seed}: {report}");
        assert_eq!(report.sent, report.acked + report.failed + report.maybe_written + report.unknown);
        events += report.events;
        acked += report.acked;
        duplicates += report.duplicates;
        reads += report.reads;
        commits += report.commits;
    }
    assert!(events > 100_000 && acked > 10_000 && duplicates > 100 && reads > 10_000 && commits > 1_000);
}

#[test]
fn the_same_seed_gives_the_same_history_and_another_one_another() {
    assert_eq!(some_history(7).digest(), some_history(7).digest());
    assert_ne!(some_history(7).digest(), some_history(8).digest());
    let (one, mut other) = (some_history(7), some_history(7));
    assert_eq!(one.first_difference(&other), None);
    let place = one.entries().len() / 2;
    other.entries[place].at_ns += 1;
    assert_eq!(one.first_difference(&other), Some(place));
    assert_ne!(one.digest(), other.digest());
    assert!(one.event(place).is_some_and(|event| event.contains(" s ")));
    other.entries.truncate(place);
    assert_eq!(one.first_difference(&other), Some(place));
    assert_eq!(other.event(place), None);
}

/// Applies `mutate` to correct histories, as far as it finds a place in them, and expects the rule to be broken.
fn expect(rule: Rule, promises: Promises, mutate: impl Fn(&mut History, &mut Rng) -> Option<()>) {
    let mut applied = 0;
    for seed in 0..SEEDS {
        let mut history = some_history(seed);
        if mutate(&mut history, &mut Rng::with_seed(seed)).is_none() {
            continue;
        }
        applied += 1;
        let report = check(&history, &promises);
        assert!(report.count(rule) > 0, "seed {seed}: no {rule} in {report}");
        let finding = report.findings.iter().find(|finding| finding.violation.rule() == rule);
        assert!(finding.is_some_and(|finding| !finding.violation.to_string().is_empty()));
    }
    assert!(applied >= SEEDS / 4, "{rule} could be provoked in {applied} histories only");
}

fn pick<T>(random: &mut Rng, from: impl IntoIterator<Item = T>) -> Option<T> {
    let mut from: Vec<T> = from.into_iter().collect();
    (!from.is_empty()).then(|| from.swap_remove(random.usize(..from.len())))
}

/// Events that `is` picks, by their place.
fn places(history: &History, is: impl Fn(&Entry) -> bool) -> Vec<usize> {
    (0..history.entries.len()).filter(|at| is(&history.entries[*at])).collect()
}

fn settings(history: &History, client: Client) -> ProducerSettings {
    history.clients[client.0 as usize].producer.expect("a producer")
}

fn is_read(entry: &Entry) -> bool {
    matches!(entry.event, Event::Read { .. })
}

/// An event that the final log still speaks of.
fn is_kept(history: &History, entry: &Entry) -> bool {
    match entry.event {
        Event::Acked { partition, offset: Some(offset), .. } | Event::Read { partition, offset, .. } => {
            offset >= history.logs[&partition].start
        }
        _ => false,
    }
}

/// Acknowledged by all, at an offset that is still kept.
fn kept_acks(history: &History) -> Vec<usize> {
    places(history, |entry| {
        matches!(entry.event, Event::Acked { .. })
            && settings(history, entry.client).acks == Acks::All
            && is_kept(history, entry)
    })
}

fn append(history: &mut History, partition: Partition, op: Op) {
    let log = history.logs.get_mut(&partition).expect("a log");
    let leader_epoch = log.records.last().map_or(0, |record| record.leader_epoch);
    log.records.push(LogRecord { offset: log.end, op, leader_epoch });
    log.end += 1;
}

#[test]
fn a_record_taken_from_the_log_is_lost() {
    expect(Rule::Lost, Promises::default(), |history, random| {
        let at = pick(random, kept_acks(history))?;
        let Event::Acked { op, .. } = history.entries[at].event else { return None };
        for log in history.logs.values_mut() {
            log.records.retain(|record| record.op != op);
        }
        Some(())
    });
}

#[test]
fn an_acknowledgement_moved_by_one_is_a_wrong_offset() {
    expect(Rule::WrongOffset, Promises::default(), |history, random| {
        let at = pick(random, kept_acks(history))?;
        let Event::Acked { op, partition, offset } = history.entries[at].event else { return None };
        let offset = offset.map(|offset| offset + 1);
        // A duplicate may stand right there, or all copies but this may be gone.
        let log = &history.logs[&partition];
        if log.records.iter().filter(|record| record.op == op).count() != 1 {
            return None;
        }
        history.entries[at].event = Event::Acked { op, partition, offset };
        Some(())
    });
}

#[test]
fn a_second_copy_of_an_idempotent_producers_record_is_a_duplicate() {
    expect(Rule::Duplicated, Promises::default(), |history, random| {
        let idempotent = kept_acks(history).into_iter();
        let at =
            pick(random, idempotent.filter(|at| settings(history, history.entries[*at].client).idempotent))?;
        let Event::Acked { op, partition, .. } = history.entries[at].event else { return None };
        append(history, partition, op);
        Some(())
    });
}

#[test]
fn a_record_that_failed_as_not_written_is_a_ghost_in_the_log() {
    expect(Rule::Ghost, Promises::default(), |history, random| {
        let at = pick(
            random,
            places(history, |entry| matches!(entry.event, Event::Failed { maybe_written: false, .. })),
        )?;
        let Event::Failed { op, .. } = history.entries[at].event else { return None };
        let partition = *history.logs.keys().next()?;
        append(history, partition, op);
        Some(())
    });
}

#[test]
fn a_record_that_nobody_sent_is_a_phantom() {
    expect(Rule::Phantom, Promises::default(), |history, random| {
        let partition = pick(random, history.logs.keys().copied())?;
        append(history, partition, Op::ALIEN);
        Some(())
    });
}

#[test]
fn a_record_in_another_partition_is_a_phantom() {
    expect(Rule::Phantom, Promises::default(), |history, random| {
        let at = pick(random, kept_acks(history))?;
        let Event::Acked { op, partition, .. } = history.entries[at].event else { return None };
        let other = pick(random, history.logs.keys().copied().filter(|other| *other != partition))?;
        append(history, other, op);
        Some(())
    });
}

#[test]
fn a_record_read_before_it_was_sent_is_a_phantom() {
    expect(Rule::Phantom, Promises::default(), |history, random| {
        let at = pick(random, places(history, is_read))?;
        let read = history.entries.remove(at);
        let Event::Read { op, .. } = read.event else { return None };
        let sent = history
            .entries
            .iter()
            .position(|e| matches!(e.event, Event::Invoked { op: sent, .. } if sent == op))?;
        history.entries.insert(sent, read);
        Some(())
    });
}

#[test]
fn two_records_that_change_places_are_reordered() {
    expect(Rule::Reordered, Promises::default(), |history, random| {
        let sender = |op: Op| {
            history.entries.iter().find_map(|entry| match entry.event {
                Event::Invoked { op: sent, .. } if sent == op => Some(entry.client),
                _ => None,
            })
        };
        let partition = pick(random, history.logs.keys().copied())?;
        let records = &history.logs[&partition].records;
        let first = random.usize(..records.len().max(1));
        let producer = sender(records.get(first)?.op).filter(|p| settings(history, *p).idempotent)?;
        let second = (first + 1..records.len()).find(|at| sender(records[*at].op) == Some(producer))?;
        let (a, b) = (records[first].op, records[second].op);
        let records = &mut history.logs.get_mut(&partition)?.records;
        (records[first].op, records[second].op) = (b, a);
        Some(())
    });
}

#[test]
fn a_read_of_what_the_log_does_not_hold_is_uncommitted() {
    expect(Rule::ReadUncommitted, Promises::default(), |history, random| {
        let at = pick(random, places(history, |entry| is_read(entry) && is_kept(history, entry)))?;
        if let Event::Read { op, leader_epoch, .. } = &mut history.entries[at].event {
            match random.bool() {
                true => *op = Op(if op.0 == 0 { 1 } else { op.0 - 1 }),
                false => *leader_epoch += 1,
            }
        }
        Some(())
    });
}

#[test]
fn a_read_beyond_the_end_is_uncommitted() {
    expect(Rule::ReadUncommitted, Promises::default(), |history, _| {
        let at = *places(history, is_read).last()?;
        if let Event::Read { offset, partition, .. } = &mut history.entries[at].event {
            *offset = history.logs[partition].end;
        }
        Some(())
    });
}

#[test]
fn a_read_taken_away_is_a_gap() {
    expect(Rule::Skipped, Promises::default(), |history, random| {
        let kept = places(history, |entry| is_read(entry) && is_kept(history, entry));
        let follows = |at: &usize| {
            let entry = history.entries[*at];
            let Event::Read { partition: mine, .. } = entry.event else { return false };
            // Somebody whose position was known before, and who read on.
            let touches = |other: &&Entry| {
                other.client == entry.client
                    && matches!(other.event, Event::Read { partition, .. } | Event::Seek { partition, .. }
                        | Event::Revoked { partition } | Event::Lost { partition } if partition == mine)
            };
            let reads = |other: Option<&Entry>| other.is_some_and(is_read);
            reads(history.entries[at + 1..].iter().find(touches))
                && reads(history.entries[..*at].iter().rev().find(touches))
        };
        let at = pick(random, kept.into_iter().filter(follows))?;
        history.entries.remove(at);
        Some(())
    });
}

#[test]
fn a_record_read_twice_is_a_step_back() {
    expect(Rule::MovedBack, Promises::default(), |history, random| {
        let at = pick(random, places(history, is_read))?;
        history.entries.insert(at + 1, history.entries[at]);
        Some(())
    });
}

#[test]
fn a_read_of_a_partition_that_was_given_back_is_told() {
    expect(Rule::NotOwned, Promises::default(), |history, random| {
        let gone = |e: &Entry| matches!(e.event, Event::Revoked { .. } | Event::Lost { .. });
        let at = pick(random, places(history, gone))?;
        let (Event::Revoked { partition: mine } | Event::Lost { partition: mine }) =
            history.entries[at].event
        else {
            return None;
        };
        let of = |e: &Entry| {
            e.client == history.entries[at].client
                && matches!(e.event, Event::Read { partition, .. } if partition == mine)
        };
        let read = history.entries[..at].iter().rposition(of)?;
        history.entries[read..=at].rotate_left(1);
        Some(())
    });
}

#[test]
fn a_commit_that_goes_back_is_told() {
    expect(Rule::CommitMovedBack, Promises::default(), |history, random| {
        let at = pick(
            random,
            places(history, |e| matches!(e.event, Event::Committed { offset, .. } if offset > 0)),
        )?;
        let mut entry = history.entries[at];
        let Event::Committed { partition, offset, sent } = entry.event else { return None };
        entry.at_ns += 2;
        entry.event = match random.u8(..3) {
            0 => Event::Committed { partition, offset: offset - 1, sent },
            1 => Event::CommitFetched { partition, offset: Some(offset - 1), asked_ns: entry.at_ns - 1 },
            _ => Event::CommitFetched { partition, offset: None, asked_ns: entry.at_ns - 1 },
        };
        history.entries.insert(at + 1, entry);
        Some(())
    });
}

/// Goal: a coordinator that was deposed without hearing of it tells its last generation what was committed then; one in
/// office does not.
#[test]
fn a_member_is_told_what_was_committed_up_to_its_generation() {
    for (told_in, wrong) in [(1, false), (2, true), (3, true)] {
        let mut history = History::new();
        let place = history.partition("t", 0);
        let [late, other] = ["late", "other"].map(|name| history.consumer(name, Some("g")));
        let at = Duration::from_millis;
        history.assigned(at(1), other, place, None, Some(2));
        let sent = history.commit_sent(at(2), other, place, 7, 2);
        history.commit_acked(at(3), other, sent);
        history.revoked(at(4), other, place);
        history.assigned(at(5), late, place, None, Some(told_in));
        history.commit_fetched(at(7), late, place, Some(4), at(6));
        let told = check(&history, &Promises::default());
        assert_eq!(told.broken().contains(&Rule::CommitMovedBack), wrong, "generation {told_in}: {told}");
    }
    // What it has kept since an earlier generation it has in the later one.
    let mut history = History::new();
    let place = history.partition("t", 0);
    let member = history.consumer("member", Some("g"));
    let at = Duration::from_millis;
    history.assigned(at(1), member, place, None, Some(1));
    history.synced(at(2), member, 5);
    let sent = history.commit_sent(at(3), member, place, 7, 5);
    history.commit_acked(at(4), member, sent);
    history.commit_fetched(at(7), member, place, Some(4), at(6));
    let told = check(&history, &Promises::default());
    assert!(told.broken().contains(&Rule::CommitMovedBack), "{told}");
}

#[test]
fn a_partition_given_to_a_second_member_has_two_owners() {
    let strict = Promises { owners_take_turns: true, ..Promises::default() };
    for promises in [Promises::default(), strict] {
        expect(Rule::TwoOwners, promises, |history, random| {
            let assigned = |e: &Entry| matches!(e.event, Event::Assigned { generation: Some(_), .. });
            let at = pick(random, places(history, assigned))?;
            let mut entry = history.entries[at];
            let members = (0..).zip(&history.clients).filter(|(_, client)| client.group.is_some());
            let others = members.map(|(number, _)| Client(number)).filter(|other| *other != entry.client);
            entry.client = pick(random, others)?;
            if let Event::Assigned { generation: Some(generation), .. } = &mut entry.event {
                *generation += i32::from(promises.owners_take_turns);
            }
            history.entries.insert(at + 1, entry);
            Some(())
        });
    }
}

#[test]
fn a_replica_that_holds_something_else_differs() {
    expect(Rule::LogsDiffer, Promises::default(), |history, random| {
        let place = pick(random, history.replicas.keys().copied())?;
        let start = history.logs[&place.0].start;
        let records = &mut history.replicas.get_mut(&place)?.records;
        let at = pick(random, (0..records.len()).filter(|at| records[*at].offset >= start))?;
        match random.u8(..3) {
            0 => records[at].op = Op::ALIEN,
            1 => records[at].leader_epoch += 1,
            _ => drop(records.remove(at)),
        }
        Some(())
    });
}

#[test]
fn a_log_whose_offsets_or_epochs_fall_is_broken() {
    expect(Rule::LogBroken, Promises::default(), |history, random| {
        let partition = pick(random, history.logs.keys().copied())?;
        let log = history.logs.get_mut(&partition)?;
        let at = random.usize(1..log.records.len().max(2));
        if log.records.len() < 2 {
            return None;
        }
        match random.u8(..3) {
            0 => log.records.swap(at, at - 1),
            1 => log.records[at - 1].leader_epoch = i32::MAX,
            _ => log.end = log.records.last()?.offset,
        }
        Some(())
    });
}

#[test]
fn two_readers_of_one_offset_must_see_the_same() {
    expect(Rule::DifferentReads, Promises::default(), |history, random| {
        let spot = |at: &usize| match history.entries[*at].event {
            Event::Read { partition, offset, .. } => (partition, offset),
            _ => unreachable!("a read"),
        };
        let mut reads = places(history, is_read);
        reads.sort_by_key(spot);
        let pairs = reads.windows(2).filter(|pair| spot(&pair[0]) == spot(&pair[1]));
        let pair = pick(random, pairs)?;
        let at = pick(random, pair.iter().copied())?;
        if let Event::Read { op, .. } = &mut history.entries[at].event {
            *op = Op(if op.0 == 0 { 1 } else { op.0 - 1 });
        }
        Some(())
    });
}

#[test]
fn an_outcome_reported_twice_is_told() {
    expect(Rule::TwoOutcomes, Promises::default(), |history, random| {
        let outcome = |e: &Entry| matches!(e.event, Event::Acked { .. } | Event::Failed { .. });
        let at = pick(random, places(history, outcome))?;
        history.entries.push(history.entries[at]);
        Some(())
    });
}

#[test]
fn a_partition_without_a_log_does_not_pass() {
    expect(Rule::NoLog, Promises::default(), |history, random| {
        let at = pick(random, places(history, is_read))?;
        let Event::Read { partition, .. } = history.entries[at].event else { return None };
        history.logs.remove(&partition);
        Some(())
    });
}
