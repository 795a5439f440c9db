//! Coordinator of the groups of one partition of `__consumer_offsets` (classic protocol), as a pure state machine.
//!
//! In: requests, the clock, how far the log is replicated, and the log itself, to append to. Out: answers, each to the token
//! that its request came with, at once or by a later step. Nothing here waits, locks or reads a clock.
//!
//! ```text
//!            first member          all joined, or time is up       leader's assignment is replicated
//! Empty ───────────────▶ PreparingRebalance ───────────▶ CompletingRebalance ───────────▶ Stable
//!   ▲                        ▲         │                       │                            │
//!   │                        └─────────│── member joins, leaves or falls silent ────────────┘
//!   └────────── nobody joined ─────────┘
//! ```
//!
//! Invariant: what is answered as committed (an offset, an assignment, a deletion) is below the high watermark, so whoever
//! coordinates next knows of it. Membership alone lives in memory until its assignment is written: a generation that is
//! not yet assigned ends with its coordinator.

mod admin;
mod coding;
mod expire;
mod join;
mod liveness;
mod offsets;
mod placing;
mod rebalance;
mod records;
mod settings;
mod state;
mod subscription;
mod sync;
mod timers;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use klamm_wire::messages::delete_groups_response::DeletableGroupResult;
use klamm_wire::messages::describe_groups_response::DescribedGroup;
use klamm_wire::messages::list_groups_response::ListedGroup;
use klamm_wire::messages::offset_fetch_response::OffsetFetchResponseGroup;
use klamm_wire::messages::{
    JoinGroupResponse, LeaveGroupResponse, OffsetCommitResponse, OffsetDeleteResponse, SyncGroupResponse,
};
use klamm_wire::planted::{Bug, planted};
use klamm_wire::{ErrorCode, StrBytes};

pub use coding::Malformed;
pub use join::Caller;
pub use placing::partition_of;
pub use records::{CommittedOffset, GroupMetadata, GroupRecord, MemberMetadata};
pub use settings::GroupSettings;

use crate::Tick;
use rebalance::Assigned;
use state::{Group, Member};
use timers::{Timer, Timers};

/// Where records go.
pub trait GroupLog {
    /// Appends records, all or none; returns the offset behind the last one.
    ///
    /// # Errors
    ///
    /// Kafka's code; nothing was appended.
    fn append(&mut self, records: &[GroupRecord]) -> Result<i64, ErrorCode>;
}

/// What a step is given.
pub struct Turn<'a> {
    /// Monotonic time.
    pub now: Tick,
    /// Time on the wall, ms since 1970.
    pub wall_ms: i64,
    /// The partition.
    pub log: &'a mut dyn GroupLog,
    /// Answers that are due are added here.
    pub answers: &'a mut Vec<Answer>,
}

impl Turn<'_> {
    fn answer(&mut self, to: u64, response: Response) {
        self.answers.push(Answer { to, response });
    }

    fn after(&self, ms: i32) -> Tick {
        self.now.saturating_add(Tick::from_millis(u64::try_from(ms).unwrap_or(0)))
    }
}

impl std::fmt::Debug for Turn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn").field("now", &self.now).finish_non_exhaustive()
    }
}

/// An answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The token that the request came with.
    pub to: u64,
    /// What is answered.
    pub response: Response,
}

/// What can be answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// To JoinGroup.
    Join(JoinGroupResponse),
    /// To SyncGroup.
    Sync(SyncGroupResponse),
    /// To Heartbeat.
    Heartbeat(ErrorCode),
    /// To LeaveGroup.
    Leave(LeaveGroupResponse),
    /// To OffsetCommit.
    Commit(OffsetCommitResponse),
    /// To a group's part of OffsetFetch.
    Fetch(OffsetFetchResponseGroup),
    /// To OffsetDelete.
    DeleteOffsets(OffsetDeleteResponse),
    /// To DescribeGroups.
    Describe(Vec<DescribedGroup>),
    /// To ListGroups.
    List(Vec<ListedGroup>),
    /// To a group's part of DeleteGroups.
    Delete(DeletableGroupResult),
    /// The request failed as a whole; whoever asked knows how its API says so.
    Failed(ErrorCode),
}

/// Records that are appended and not known to be replicated yet.
#[derive(Debug)]
struct Write {
    /// Offset behind the last record.
    end: i64,
    /// When whoever waits is told that it takes too long.
    deadline: Tick,
    group: Option<GroupKey>,
    changes: Vec<Change>,
    /// `None` once somebody was told that it takes too long, or where nobody waits.
    then: Option<Then>,
}

/// A group, and not another one of the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GroupKey {
    id: Arc<str>,
    incarnation: u64,
}

/// What becomes true when the records are replicated.
#[derive(Debug)]
enum Change {
    /// The group is gone.
    Gone,
    /// An offset is committed or forgotten.
    Offset { topic: Arc<str>, partition: i32, value: Option<CommittedOffset> },
}

/// What is to be done when the records are replicated, or cannot be.
#[derive(Debug)]
enum Then {
    /// An answer.
    Answer(u64, Response),
    /// The assignment of a generation is handed out.
    Assign(Assigned),
    /// The new life of a static member goes on in the generation of the one before.
    Replaced(join::Replaced),
    /// A look at offsets that waits for those before it.
    Fetch(u64, offsets::Fetch),
    /// The group has come into being for this request.
    Created(u64),
}

/// The coordinator. See the module.
#[derive(Debug)]
pub struct GroupCoordinator {
    settings: GroupSettings,
    rng: fastrand::Rng,
    groups: BTreeMap<Arc<str>, Group>,
    /// Groups whose tombstone is not replicated yet: they are shown until then.
    going: Vec<Group>,
    writes: VecDeque<Write>,
    timers: Timers,
    /// When what has expired is looked for.
    clean_up_at: Tick,
    incarnations: u64,
}

impl GroupCoordinator {
    /// A coordinator that knows of no groups. Tell it the log with [`Self::replay`], then call [`Self::loaded`].
    pub fn new(settings: GroupSettings, rng: fastrand::Rng) -> Self {
        Self {
            settings,
            rng,
            groups: BTreeMap::new(),
            going: Vec::new(),
            writes: VecDeque::new(),
            timers: Timers::default(),
            clean_up_at: Tick::MAX,
            incarnations: 0,
        }
    }

    /// Takes a record that is replicated, in the order of the log.
    pub fn replay(&mut self, record: GroupRecord) {
        match record {
            GroupRecord::Offset { group, topic, partition, value: Some(value) } => {
                let incarnation = self.next_incarnation();
                let known = self.groups.entry(group.clone()).or_insert_with(|| {
                    let mut new = Group::new(group, incarnation, value.commit_timestamp_ms);
                    new.recorded = true;
                    new
                });
                known.set_offset(&topic, partition, Some(value));
            }
            GroupRecord::Offset { group, topic, partition, value: None } => {
                if let Some(known) = self.groups.get_mut(&group) {
                    known.set_offset(&topic, partition, None);
                }
            }
            GroupRecord::Group { .. } if planted(Bug::ForgetGeneration) => {}
            GroupRecord::Group { group, value: Some(value) } => {
                let mut loaded = Group::load(group.clone(), self.next_incarnation(), value);
                if let Some(before) = self.groups.remove(&group) {
                    loaded.offsets = before.offsets;
                }
                self.groups.insert(group, loaded);
            }
            GroupRecord::Group { group, value: None } => {
                self.groups.remove(&group);
            }
        }
    }

    /// Begins to coordinate: everything in the log was told. Members have their whole session time-out from now on.
    pub fn loaded(&mut self, turn: &mut Turn<'_>) {
        self.clean_up_at = turn.now.saturating_add(self.settings.retention_check_interval);
        let mut crowded = Vec::new();
        for group in self.groups.values() {
            for member in group.members.values() {
                let at = turn.after(member.session_timeout_ms);
                self.timers.set(Timer::Session(group.id.clone(), member.id.clone()), at);
            }
            if group.members.len() > self.settings.max_size {
                crowded.push(group.id.clone());
            }
        }
        for id in crowded {
            self.with_group(&id, |cx, group| cx.prepare_rebalance(turn, group));
        }
    }

    /// The log is replicated up to this offset.
    pub fn replicated(&mut self, turn: &mut Turn<'_>, high_watermark: i64) {
        while self.writes.front().is_some_and(|write| write.end <= high_watermark) {
            let Some(write) = self.writes.pop_front() else { return };
            self.make_true(&write);
            match write.then {
                Some(Then::Answer(to, response)) => turn.answer(to, response),
                Some(Then::Assign(assigned)) => self.assign(turn, &write.group, &assigned, Ok(())),
                Some(Then::Replaced(replaced)) => self.replaced(turn, &write.group, &replaced, Ok(())),
                Some(Then::Fetch(to, fetch)) => turn.answer(to, Response::Fetch(self.look_up(&fetch))),
                Some(Then::Created(_)) | None => {}
            }
        }
    }

    /// Carries out the changes of a write.
    fn make_true(&mut self, write: &Write) {
        let Some(key) = &write.group else { return };
        if write.changes.iter().any(|change| matches!(change, Change::Gone)) {
            return self.going.retain(|group| group.incarnation != key.incarnation);
        }
        let in_place = self.groups.get_mut(&key.id).filter(|group| group.incarnation == key.incarnation);
        let mut going = self.going.iter_mut().filter(|group| group.incarnation == key.incarnation);
        let Some(group) = in_place.or_else(|| going.next()) else { return };
        group.writes = group.writes.saturating_sub(1);
        group.recorded = true;
        for change in &write.changes {
            if let Change::Offset { topic, partition, value } = change {
                group.set_offset(topic, *partition, value.clone());
            }
        }
    }

    /// End of the first write that is not known to be replicated: [`Self::replicated`] wants to hear of it.
    pub fn first_write(&self) -> Option<i64> {
        self.writes.front().map(|write| write.end)
    }

    /// When [`Self::on_deadline`] wants to run.
    pub fn deadline(&self) -> Option<Tick> {
        let write = self.writes.iter().filter(|write| write.then.is_some()).map(|write| write.deadline).min();
        let clean_up = (self.clean_up_at != Tick::MAX).then_some(self.clean_up_at);
        [self.timers.next(), write, clean_up].into_iter().flatten().min()
    }

    /// Does whatever is due.
    pub fn on_deadline(&mut self, turn: &mut Turn<'_>) {
        self.give_up_writes(turn);
        while let Some(timer) = self.timers.pop_due(turn.now) {
            match timer {
                Timer::Join(id) => self.with_group(&id, |cx, group| cx.join_time_is_up(turn, group)),
                Timer::Sync(id) => self.with_group(&id, |cx, group| cx.sync_time_is_up(turn, group)),
                Timer::Session(id, member) => {
                    self.with_group(&id, |cx, group| cx.session_is_over(turn, group, &member));
                }
            }
        }
        if self.clean_up_at <= turn.now {
            self.clean_up_at = turn.now.saturating_add(self.settings.retention_check_interval);
            self.clean_up(turn);
        }
    }

    /// Tells whoever has waited too long; the records may be replicated all the same, later.
    fn give_up_writes(&mut self, turn: &mut Turn<'_>) {
        let mut late = Vec::new();
        for write in self.writes.iter_mut().filter(|write| write.deadline <= turn.now) {
            if let Some(then) = write.then.take() {
                late.push((write.group.clone(), then));
            }
        }
        let code = said_of(ErrorCode::REQUEST_TIMED_OUT);
        for (group, then) in late {
            match then {
                Then::Answer(to, response) => turn.answer(to, failed(response, code)),
                Then::Assign(assigned) => self.assign(turn, &group, &assigned, Err(code)),
                Then::Replaced(replaced) => self.replaced(turn, &group, &replaced, Err(code)),
                // as Kafka does, so that the client looks for another coordinator
                Then::Fetch(to, _) => turn.answer(to, Response::Failed(ErrorCode::NOT_COORDINATOR)),
                Then::Created(to) => self.creation_is_late(turn, &group, to, code),
            }
        }
    }

    /// Ends: another broker coordinates these groups, or nobody. Everybody who waits is told.
    pub fn unload(mut self, answers: &mut Vec<Answer>) {
        let code = ErrorCode::NOT_COORDINATOR;
        let mut tell = |to: u64| answers.push(Answer { to, response: Response::Failed(code) });
        for write in self.writes.drain(..) {
            match write.then {
                Some(Then::Answer(to, _) | Then::Fetch(to, _)) => tell(to),
                // whoever waits for these waits as a member
                Some(Then::Assign(_) | Then::Replaced(_) | Then::Created(_)) | None => {}
            }
        }
        for group in self.groups.values().chain(&self.going) {
            for member in group.members.values() {
                member.joining.into_iter().chain(member.syncing).for_each(&mut tell);
            }
        }
    }

    fn next_incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    /// Runs `work` on a group, if it is there, beside the rest of the coordinator.
    fn with_group<R: Default>(&mut self, id: &str, work: impl FnOnce(&mut Cx<'_>, &mut Group) -> R) -> R {
        let Self { settings, rng, groups, writes, timers, .. } = self;
        let mut cx = Cx { settings, rng, writes, timers };
        groups.get_mut(id).map(|group| work(&mut cx, group)).unwrap_or_default()
    }

    /// The group as it is shown: what is not replicated yet does not count.
    fn shown(&self, id: &str) -> Option<&Group> {
        let going = self.going.iter().find(|group| &*group.id == id && group.recorded);
        going.or_else(|| self.groups.get(id).filter(|group| group.recorded))
    }

    fn shown_groups(&self) -> impl Iterator<Item = &Group> {
        let going = |id: &Arc<str>| self.going.iter().any(|group| group.id == *id && group.recorded);
        let there = self.groups.values().filter(move |group| group.recorded && !going(&group.id));
        there.chain(self.going.iter().filter(|group| group.recorded))
    }
}

/// The coordinator without its groups.
struct Cx<'a> {
    settings: &'a GroupSettings,
    rng: &'a mut fastrand::Rng,
    writes: &'a mut VecDeque<Write>,
    timers: &'a mut Timers,
}

impl Cx<'_> {
    /// Appends records that concern a group; on an error, in the words of a coordinator, nothing has happened.
    fn write(
        &mut self,
        turn: &mut Turn<'_>,
        group: &mut Group,
        records: &[GroupRecord],
        changes: Vec<Change>,
        then: Option<Then>,
    ) -> Result<(), ErrorCode> {
        let end = turn.log.append(records).map_err(said_of)?;
        self.appended(turn, group, end, changes, then);
        Ok(())
    }

    /// Notes what becomes true, and who is told, when the log is replicated up to `end`.
    fn appended(
        &mut self,
        turn: &Turn<'_>,
        group: &mut Group,
        end: i64,
        changes: Vec<Change>,
        then: Option<Then>,
    ) {
        group.writes += 1;
        let deadline = turn.now.saturating_add(self.settings.commit_timeout);
        let group = Some(GroupKey { id: group.id.clone(), incarnation: group.incarnation });
        self.writes.push_back(Write { end, deadline, group, changes, then });
    }

    /// Gives a member its session time-out anew.
    fn heard_of(&mut self, turn: &Turn<'_>, group: &Group, member: &str) {
        if let Some(member) = group.members.get(member) {
            let at = turn.after(member.session_timeout_ms);
            self.timers.set(Timer::Session(group.id.clone(), member.id.clone()), at);
        }
    }

    fn forget_session(&mut self, group: &Group, member: &Arc<str>) {
        self.timers.cancel(&Timer::Session(group.id.clone(), member.clone()));
    }

    /// Removes a member and tells it, if it waits.
    fn remove(&mut self, turn: &mut Turn<'_>, group: &mut Group, member: &str) -> Option<Member> {
        let removed = group.remove(member)?;
        self.forget_session(group, &removed.id);
        let code = ErrorCode::UNKNOWN_MEMBER_ID;
        if let Some(to) = removed.joining {
            turn.answer(to, Response::Join(join::refused("", code)));
        }
        if let Some(to) = removed.syncing {
            turn.answer(to, Response::Sync(sync::refused(code)));
        }
        Some(removed)
    }
}

/// What a coordinator says when its log says this.
fn said_of(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::NOT_ENOUGH_REPLICAS
        | ErrorCode::REQUEST_TIMED_OUT => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::KAFKA_STORAGE_ERROR => ErrorCode::NOT_COORDINATOR,
        ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => ErrorCode::UNKNOWN_SERVER_ERROR,
        code => code,
    }
}

/// The answer in place of a good one.
fn failed(response: Response, code: ErrorCode) -> Response {
    match response {
        Response::Delete(result) => Response::Delete(result.with_error_code(code.0)),
        _ => Response::Failed(code),
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
