//! Generations of groups, what each member may commit, and whether everything was worked on.

use std::collections::BTreeMap;

use super::super::event::{Client, CommitSent, Event, Group, Partition};
use super::super::{Entry, Rule, Violation};
use super::Checker;

/// A partition as its member knows it.
#[derive(Debug, Clone, Copy, Default)]
struct Hold {
    /// Offset behind what it is done with, once it knows where it begins.
    done: Option<i64>,
    fresh: bool,
    /// When it was assigned, while it is owned.
    assigned: Option<u32>,
    lost: bool,
}

/// A commit on its way: whether its partition was lost by then, and in which generation it was sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    lost: bool,
    generation: i32,
    /// A later generation that somebody had heard of, and the event with which.
    then: Option<(i32, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Suspect {
    member: Client,
    generation: i32,
    partition: Partition,
    first: u32,
    second: u32,
}

#[derive(Default)]
struct Walk {
    holds: BTreeMap<(Client, Partition), Hold>,
    /// Generation that each member has joined last, and when it asked to.
    joined: BTreeMap<Client, (i32, u64)>,
    /// Generation of each member's last assignment.
    assigned_in: BTreeMap<Client, i32>,
    /// Members of whom it remains to be seen whether they are in the generation in which somebody else got what they own:
    /// a coordinator that is deposed and does not know lets members join, but cannot tell them an assignment.
    suspects: Vec<Suspect>,
    /// Whose the assignments of each generation say a partition is, and with which event.
    given: BTreeMap<(Group, i32, Partition), (Client, u32)>,
    /// The highest generation of each group that a member has synced in, as it grew.
    synced: BTreeMap<Group, Vec<(i32, u32)>>,
    sent: BTreeMap<CommitSent, Sent>,
}

impl Checker<'_> {
    /// Follows every member of a group.
    pub(super) fn follow_members(&mut self) {
        let history = self.history;
        let groups: Vec<Option<Group>> = history.clients.iter().map(|client| client.group).collect();
        let group_of = |client: Client| groups.get(client.0 as usize).copied().flatten();
        let mut walk = Walk::default();
        for (number, entry) in (0..).zip(&history.entries) {
            let Some(group) = group_of(entry.client) else { continue };
            match entry.event {
                Event::Joined { generation, asked_ns } => {
                    walk.joined.insert(entry.client, (generation, asked_ns));
                }
                Event::Synced { generation } => {
                    self.sync(&walk, group, number, entry.client, generation);
                    walk.assigned_in.insert(entry.client, generation);
                    let proven = |suspect: &mut Suspect| {
                        suspect.member == entry.client && suspect.generation == generation
                    };
                    for suspect in walk.suspects.extract_if(.., proven).collect::<Vec<_>>() {
                        self.two_owners(group, &suspect);
                    }
                    let known = walk.synced.entry(group).or_default();
                    if known.last().is_none_or(|last| last.0 < generation) {
                        known.push((generation, number));
                    }
                }
                // A generation has one assignment. Where its coordinator forgets it, the number is used for another one.
                Event::Given { partition, generation } => {
                    let new = (entry.client, number);
                    let known = walk.given.entry((group, generation, partition)).or_insert(new);
                    let (member, first) = std::mem::replace(known, new);
                    if member != entry.client {
                        self.two_owners(
                            group,
                            &Suspect { member, generation, partition, first, second: number },
                        );
                    }
                }
                Event::Assigned { partition, start, generation } => {
                    let others = walk.holds.iter().filter(|((client, place), _)| {
                        *place == partition && *client != entry.client && group_of(*client) == Some(group)
                    });
                    // Whoever is in the same generation has given it back, or was never asked to.
                    let clash = others.filter_map(|((member, _), hold)| {
                        let generation = generation?;
                        let (joined, _) = *walk.joined.get(member)?;
                        let (member, first) = (*member, hold.assigned.filter(|_| joined == generation)?);
                        Some(Suspect { member, generation, partition, first, second: number })
                    });
                    for suspect in clash.collect::<Vec<_>>() {
                        match walk.assigned_in.get(&suspect.member) == Some(&suspect.generation) {
                            true => self.two_owners(group, &suspect),
                            false => walk.suspects.push(suspect),
                        }
                    }
                    let hold = Hold { done: start, fresh: true, assigned: Some(number), lost: false };
                    walk.holds.insert((entry.client, partition), hold);
                }
                event => self.hold(&mut walk, group, number, entry, event),
            }
        }
    }

    fn hold(&mut self, walk: &mut Walk, group: Group, number: u32, entry: &Entry, event: Event) {
        let Walk { holds, synced, sent: on_their_way, .. } = walk;
        let (Event::Began { partition, .. }
        | Event::Read { partition, .. }
        | Event::Done { partition, .. }
        | Event::Seek { partition, .. }
        | Event::Revoked { partition }
        | Event::Lost { partition }
        | Event::CommitSent { partition, .. }
        | Event::Committed { partition, .. }) = event
        else {
            return;
        };
        let hold = holds.entry((entry.client, partition)).or_default();
        match event {
            Event::Began { offset, .. } if hold.fresh && hold.assigned.is_some() => hold.done = Some(offset),
            Event::Began { .. } => {}
            Event::Read { .. } => hold.fresh = false,
            // What it still works on may be from before it lost the partition and had it again, further on.
            Event::Done { offset, .. } => hold.done = hold.done.max(Some(offset + 1)),
            Event::Seek { to, .. } => hold.done = to,
            Event::Revoked { .. } => hold.assigned = None,
            Event::Lost { .. } => (hold.assigned, hold.lost) = (None, true),
            Event::CommitSent { offset, generation, .. } => {
                let Hold { done, lost, .. } = *hold;
                let then = synced.get(&group).and_then(|known| known.last()).copied();
                let then = then.filter(|(then, _)| generation >= 0 && *then > generation);
                on_their_way.insert(CommitSent(number), Sent { lost, generation, then });
                if done.is_none_or(|done| done < offset) {
                    self.found(Rule::CommittedAhead, entry.at_ns, |names| Violation::CommittedAhead {
                        member: names.seen(number),
                        partition: names.partition(partition),
                        offset,
                        done,
                    });
                }
            }
            Event::Committed { offset, sent: Some(sent), .. } => {
                let Some(Sent { lost, generation, then }) = on_their_way.remove(&sent) else { return };
                if lost {
                    self.found(Rule::CommittedAfterLoss, entry.at_ns, |names| {
                        let (member, partition) = (names.seen(sent.0), names.partition(partition));
                        Violation::CommittedAfterLoss { member, partition, offset }
                    });
                }
                if let Some((then, since)) = then {
                    self.found(Rule::CommittedLate, entry.at_ns, |names| Violation::CommittedLate {
                        member: names.seen(sent.0),
                        partition: names.partition(partition),
                        offset,
                        generation,
                        then,
                        since: names.seen(since),
                    });
                }
            }
            _ => {}
        }
    }

    fn two_owners(&mut self, group: Group, suspect: &Suspect) {
        let Suspect { generation, partition, first, second, .. } = *suspect;
        self.found(Rule::TwoOwners, self.at_ns(second), |names| Violation::TwoOwners {
            group: names.group(group),
            partition: names.partition(partition),
            first: names.seen(first),
            second: names.seen(second),
            generation: Some(generation),
        });
    }

    /// An assignment is not of an earlier generation than any in which somebody was told one before the member asked to join.
    fn sync(&mut self, walk: &Walk, group: Group, number: u32, member: Client, to: i32) {
        let Some((_, asked_ns)) = walk.joined.get(&member).copied() else { return };
        let known = walk.synced.get(&group).map(Vec::as_slice).unwrap_or_default();
        let before = known.iter().rev().find(|(_, event)| self.at_ns(*event) < asked_ns).copied();
        if let Some((from, event)) = before.filter(|(from, _)| *from > to) {
            self.found(Rule::GenerationMovedBack, self.at_ns(number), |names| {
                Violation::GenerationMovedBack {
                    group: names.group(group),
                    before: names.seen(event),
                    from,
                    after: names.seen(number),
                    to,
                }
            });
        }
    }

    /// Looks for records that no member of a group was done with.
    pub(super) fn look_for_undelivered(&mut self) {
        let history = self.history;
        let mut done: BTreeMap<(Group, Partition), Vec<i64>> =
            history.must_read.iter().map(|place| (*place, Vec::new())).collect();
        for entry in &history.entries {
            let Event::Done { partition, offset } = entry.event else { continue };
            let group = history.clients.get(entry.client.0 as usize).and_then(|client| client.group);
            if let Some(done) = group.and_then(|group| done.get_mut(&(group, partition))) {
                done.push(offset);
            }
        }
        for ((group, partition), mut done) in done {
            done.sort_unstable();
            let Some(held) = self.log(partition) else { continue };
            let mut missed = held.log.records.iter().filter(|held| done.binary_search(&held.offset).is_err());
            let Some(first) = missed.next() else { continue };
            let missed = 1 + missed.count();
            self.found(Rule::Undelivered, u64::MAX, |names| Violation::Undelivered {
                group: names.group(group),
                spot: names.spot(partition, first.offset),
                missed,
                op: first.op,
            });
        }
    }
}
