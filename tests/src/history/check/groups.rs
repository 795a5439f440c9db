//! Who owns a partition, and what a group has committed.

use std::collections::BTreeMap;

use super::super::event::{Client, Event, Group, Partition};
use super::super::{Rule, Violation};
use super::Checker;

/// A partition given to a member.
#[derive(Clone, Copy)]
struct Owned {
    member: Client,
    generation: Option<i32>,
    event: u32,
    given_back: bool,
}

/// A commit that was heard to be taken.
#[derive(Clone, Copy)]
struct Taken {
    at_ns: u64,
    offset: i64,
    event: u32,
    generation: i32,
}

impl Taken {
    /// Whether who is in this generation must know of it. A coordinator that was deposed without hearing of it may still tell
    /// a member of its last generation what was committed then (OffsetFetch asks no replica, here as in Kafka); nothing
    /// that this member does counts.
    fn is_before(&self, generation: Option<i32>) -> bool {
        generation.is_none_or(|generation| self.generation <= generation)
    }
}

/// What is known of one partition in one group.
#[derive(Default)]
struct Shared {
    owners: Vec<Owned>,
    /// Commits since the last that was meant to go back. Those of an earlier generation were taken before those of a later one,
    /// whichever was heard of first.
    commits: Vec<Taken>,
    /// What was committed when a member got the partition, and with which event.
    begun: Vec<(Client, i64, u32)>,
}

impl Checker<'_> {
    /// Follows every group through its partitions.
    pub(super) fn follow_groups(&mut self) {
        let history = self.history;
        let groups: Vec<Option<Group>> = history.clients.iter().map(|client| client.group).collect();
        let mut shared: BTreeMap<(Group, Partition), Shared> = BTreeMap::new();
        // the latest generation that each member has its assignment of
        let mut synced: BTreeMap<Client, i32> = BTreeMap::new();
        for (number, entry) in (0..).zip(&history.entries) {
            if let Event::Synced { generation } = entry.event {
                synced.insert(entry.client, generation);
            }
            let (Event::Assigned { partition, .. }
            | Event::Seek { partition, .. }
            | Event::Read { partition, .. }
            | Event::Revoked { partition }
            | Event::Lost { partition }
            | Event::Committed { partition, .. }
            | Event::CommitReset { partition }
            | Event::CommitFetched { partition, .. }) = entry.event
            else {
                continue;
            };
            self.report.commits += u64::from(matches!(entry.event, Event::Committed { .. }));
            let Some(group) = groups.get(entry.client.0 as usize).copied().flatten() else { continue };
            let state = shared.entry((group, partition)).or_default();
            match entry.event {
                Event::Assigned { generation, .. } => {
                    let owned = Owned { member: entry.client, generation, event: number, given_back: false };
                    self.assign(group, partition, state, owned);
                    state.begun.retain(|begun| begun.0 != entry.client);
                    let last = state.commits.iter().rev().find(|commit| commit.is_before(generation));
                    let committed = last.map(|last| (entry.client, last.offset, last.event));
                    state.begun.extend(committed);
                }
                Event::Revoked { .. } | Event::Lost { .. } => {
                    let mine = state.owners.iter_mut().filter(|owned| owned.member == entry.client);
                    mine.for_each(|owned| owned.given_back = true);
                }
                // Whoever seeks may commit what is further back.
                Event::Seek { .. } | Event::CommitReset { .. } => {
                    state.commits.clear();
                    state.begun.clear();
                }
                Event::Read { offset, .. } => {
                    let begun = state.begun.iter().find(|begun| begun.0 == entry.client);
                    let Some((_, committed, by)) = begun.filter(|begun| offset < begun.1).copied() else {
                        continue;
                    };
                    self.found(Rule::Redelivered, self.at_ns(by), |names| {
                        let (reader, spot) = (names.seen(number), names.spot(partition, offset));
                        Violation::Redelivered { reader, spot, committed, by: names.seen(by) }
                    });
                }
                Event::Committed { offset, sent, .. } => {
                    // What was on its way when another one was heard of may be the earlier one.
                    let sent = sent.map_or(number, |sent| sent.0);
                    let before = state.commits.iter().rev().find(|commit| commit.event < sent).copied();
                    self.commit(group, partition, before, Some(offset), number);
                    let generation = match history.entries.get(sent as usize).map(|entry| entry.event) {
                        Some(Event::CommitSent { generation, .. }) if generation >= 0 => generation,
                        _ => state.commits.last().map_or(-1, |last| last.generation),
                    };
                    let earlier = state.commits.iter().rposition(|commit| commit.generation <= generation);
                    let taken = Taken { at_ns: entry.at_ns, offset, event: number, generation };
                    state.commits.insert(earlier.map_or(0, |earlier| earlier + 1), taken);
                }
                Event::CommitFetched { offset, asked_ns, .. } => {
                    let owned = state.owners.iter().find(|owned| owned.member == entry.client);
                    let taken_over = owned.and_then(|owned| owned.generation);
                    let generation = synced.get(&entry.client).copied().max(taken_over);
                    let known = |commit: &&Taken| commit.at_ns < asked_ns && commit.is_before(generation);
                    let before = state.commits.iter().rev().find(known).copied();
                    self.commit(group, partition, before, offset, number);
                }
                _ => {}
            }
        }
    }

    fn assign(&mut self, group: Group, partition: Partition, state: &mut Shared, new: Owned) {
        let take_turns = self.promises.owners_take_turns;
        let clash = state.owners.iter().filter(|old| old.member != new.member).find_map(|old| {
            let generation = old.generation.filter(|generation| Some(*generation) == new.generation);
            let at_once = take_turns && !old.given_back;
            (generation.is_some() || at_once).then_some((old.event, generation))
        });
        if let Some((event, generation)) = clash {
            self.found(Rule::TwoOwners, self.at_ns(event), |names| Violation::TwoOwners {
                group: names.group(group),
                partition: names.partition(partition),
                first: names.seen(event),
                second: names.seen(new.event),
                generation,
            });
        }
        state.owners.retain(|old| old.member != new.member && !old.given_back);
        state.owners.push(new);
    }

    /// An offset that a group commits or hears, after another was committed.
    fn commit(
        &mut self,
        group: Group,
        partition: Partition,
        before: Option<Taken>,
        then: Option<i64>,
        event: u32,
    ) {
        let Some(Taken { at_ns, offset, event: committed, .. }) = before else { return };
        if then.is_some_and(|then| then >= offset) {
            return;
        }
        let entry = self.history.entries.get(event as usize);
        let fetched = entry.is_some_and(|entry| matches!(entry.event, Event::CommitFetched { .. }));
        self.found(Rule::CommitMovedBack, at_ns, |names| Violation::CommitMovedBack {
            group: names.group(group),
            partition: names.partition(partition),
            before: names.seen(committed),
            offset,
            after: names.seen(event),
            then,
            fetched,
        });
    }
}
