//! Members of groups as an application has them: they read, work and commit; they leave, crash, stall and change their minds.
//!
//! ```text
//! members: read ─▶ work ─▶ done ─▶ commit ─────▶ history
//!    └─▶ what they say to coordinators and hear ────▶ history
//! ```
//!
//! In: plans of groups, and how to reach a cluster, simulated or real. Out: what members saw, in a history; how much of what.

mod holding;
mod member;
mod overheard;
mod pauses;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use klamm::{ClientBuilder, Consumer, RebalanceReason, TopicPartition};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use member::occupy;
pub use overheard::{Ear, Overheard};
pub use pauses::{Pause, Progress, progress};
pub use process::{MEMBER, live_in_this_process, occupy_by_processes};

use self::holding::Holding;
use crate::history::{Client, Clock, Entry, Event, History, Partition};

/// What a member does between two stretches of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// It is closed, and another one comes.
    Leave,
    /// It is dropped without a word, and another one comes.
    Crash,
    /// It asks for no records for longer than `max.poll.interval.ms`.
    Stall,
    /// It subscribes to other topics.
    Change,
    /// It leaves, and subscribes again.
    Unsubscribe,
}

impl Act {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Leave, Self::Crash, Self::Stall, Self::Change, Self::Unsubscribe];
}

/// What a member does that no event of the history says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    Acts(Act),
    /// From here on it only reads, until it is told to close.
    Rests,
    /// It has been told.
    Closes,
    /// It has lived to the end, and is closed.
    Whole,
}

/// Where members stand when a run ends.
#[derive(Debug, Default)]
struct Ending {
    resting: BTreeSet<Client>,
    closing: BTreeSet<Client>,
    /// When they were told to close, if nothing disturbs them then.
    told: Option<Duration>,
}

/// Members at rest hear within that time that they are to close.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// `partition.assignment.strategy`
    pub strategy: String,
    /// Members at a time, about.
    pub members: u32,
    /// Each with a `group.instance.id`.
    pub fixed: bool,
    /// Commits by itself; else after each batch, and when partitions are revoked.
    pub auto_commit: bool,
    /// Without automatic commits: goes on without waiting for its commits, but for those of what is revoked.
    #[serde(default)]
    pub pipelined: bool,
    /// `auto.commit.interval.ms`
    pub commit_ms: u64,
    /// `session.timeout.ms`
    pub session_ms: u64,
    /// `max.poll.interval.ms`
    pub max_poll_ms: u64,
}

/// What members do, and how long they may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Habits {
    /// What they do between two stretches of reading.
    pub acts: Vec<Act>,
    /// Longest time of a member between two acts, in ms.
    pub life_ms: u64,
    /// Most records that they ask for at once.
    pub most: usize,
    /// Longest work on one record, in ms; one in three takes any.
    pub work_ms: u64,
    /// `request.timeout.ms`
    pub request_ms: u64,
    /// `default.api.timeout.ms`
    pub api_ms: u64,
}

impl Habits {
    /// What takes longer hangs: `default.api.timeout.ms`, and what a task needs.
    fn hang(&self) -> Duration {
        Duration::from_millis(self.api_ms) + Duration::from_secs(5)
    }
}

/// How often members did what.
#[derive(Debug, Default)]
pub struct Tally {
    /// Members that came.
    pub joins: AtomicU64,
    /// That were closed, or unsubscribed, while others went on.
    pub leaves: AtomicU64,
    /// That vanished without a word.
    pub crashes: AtomicU64,
    /// That were killed with their processes.
    pub kills: AtomicU64,
    /// That asked for no records for too long.
    pub stalls: AtomicU64,
    /// Records that were read.
    pub reads: AtomicU64,
    /// Partitions that are not committed to the end, for a reason.
    pub uncommitted: AtomicU64,
}

impl Tally {
    fn of(&self, act: Act) -> Option<&AtomicU64> {
        match act {
            Act::Leave | Act::Unsubscribe => Some(&self.leaves),
            Act::Crash => Some(&self.crashes),
            Act::Stall => Some(&self.stalls),
            Act::Change => None,
        }
    }

    fn count(&self, act: Act) {
        if let Some(count) = self.of(act) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What all members of a run share.
#[derive(Debug)]
pub struct World {
    /// Whose times the history has.
    pub clock: Clock,
    /// What everybody saw.
    pub history: Arc<Mutex<History>>,
    /// Topics that members subscribe to, with their partitions.
    pub topics: Vec<(Arc<str>, Arc<[Partition]>)>,
    /// The groups.
    pub groups: Vec<GroupPlan>,
    /// What their members do.
    pub habits: Habits,
    /// Nobody does anything but read.
    pub calm: AtomicBool,
    /// Members shall close.
    pub over: AtomicBool,
    /// How often who did what.
    pub tally: Tally,
    /// What each group is done with, by group and partition.
    done: Mutex<BTreeMap<(usize, Partition), BTreeSet<i64>>>,
    generations: Mutex<BTreeSet<(usize, i32)>>,
    holding: Arc<Holding>,
    ending: Mutex<Ending>,
    /// When a member of which group fell silent.
    silences: Mutex<Vec<(Duration, usize)>>,
    /// Who is told each step of a member, beside this.
    told: Option<fn(Step)>,
}

impl World {
    /// Members of these groups read these topics.
    pub fn new(
        clock: Clock,
        history: Arc<Mutex<History>>,
        topics: Vec<(Arc<str>, Arc<[Partition]>)>,
        groups: Vec<GroupPlan>,
        habits: Habits,
    ) -> Self {
        Self {
            clock,
            history,
            topics,
            groups,
            habits,
            calm: AtomicBool::new(false),
            over: AtomicBool::new(false),
            tally: Tally::default(),
            done: Mutex::default(),
            generations: Mutex::default(),
            holding: Arc::default(),
            ending: Mutex::default(),
            silences: Mutex::default(),
            told: None,
        }
    }

    /// The name of a group.
    pub fn group_id(group: usize) -> String {
        format!("group-{group}")
    }

    /// A member's name in the history.
    pub fn register(&self, group: usize, name: &str) -> Client {
        let id = Self::group_id(group);
        self.history.lock().consumer(&format!("{id}.{name}"), Some(&id))
    }

    /// Who listens to what a member says.
    pub fn ear(&self, me: Client) -> Arc<Ear> {
        Arc::new(Ear {
            clock: self.clock.clone(),
            history: self.history.clone(),
            me,
            topics: self.topics.clone(),
            generation: AtomicI32::new(-1),
            contact: Mutex::default(),
            holding: self.holding.clone(),
        })
    }

    /// Takes over what a member has recorded in a process of its own.
    fn take_over(&self, group: usize, me: Client, entry: Entry, numbers: &mut Vec<u32>) {
        self.history.lock().take_over(me, entry, numbers);
        match entry.event {
            Event::Read { partition, offset, .. } => {
                self.tally.reads.fetch_add(1, Ordering::Relaxed);
                self.holding.read(group, me, partition, offset);
            }
            Event::Done { partition, offset } => self.done(group, me, partition, offset),
            Event::Assigned { partition, generation, .. } => self.assigned(group, me, partition, generation),
            Event::Revoked { partition } => drop(self.revoked(group, me, partition, None)),
            Event::Lost { partition } => self.lost(group, me, partition),
            Event::Began { partition, offset } => self.holding.began(me, partition, offset),
            _ => {}
        }
    }

    /// A group is done with a record.
    fn done(&self, group: usize, me: Client, place: Partition, offset: i64) {
        self.done.lock().entry((group, place)).or_default().insert(offset);
        self.holding.done(group, me, place, offset);
    }

    fn assigned(&self, group: usize, me: Client, place: Partition, generation: Option<i32>) {
        self.generations.lock().extend(generation.map(|generation| (group, generation)));
        self.holding.assigned(group, me, place);
    }

    /// A member has lost it, or is gone without a word.
    fn lost(&self, group: usize, me: Client, place: Partition) {
        self.holding.gone(group, me, place, self.is_late(me));
    }

    /// A member gives it up. An automatic commit leaves out the last turn if that was not over when it was sent, and amid faults it
    /// may be in vain: others work on the records again. `automatic`: why it is given up, if commits are automatic and seen here.
    /// Returns the offset behind what it has read since it had it.
    fn revoked(&self, group: usize, me: Client, place: Partition, automatic: Option<RebalanceReason>) -> i64 {
        let committed = |reason| {
            let closing = reason == RebalanceReason::Closed;
            self.holding.has_committed_what_is_over(group, me, place, closing)
        };
        let again = automatic.is_some_and(committed);
        self.holding.gone(group, me, place, again && self.is_late(me))
    }

    /// What a member has given up that had read to there, it cannot commit: its session is over.
    fn cut_off(&self, group: usize, me: Client, place: Partition, read: i64) {
        if self.is_late(me) {
            self.holding.lost_late(group, place, read);
        }
    }

    /// Whether nobody may be there to work on something again.
    fn is_late(&self, me: Client) -> bool {
        self.over.load(Ordering::SeqCst) && self.may_lose(me)
    }

    /// Whether a member may lose, without having committed, what it has when the run is over: until it has heard of that; to the
    /// end where faults may last so long.
    fn may_lose(&self, me: Client) -> bool {
        let ending = self.ending.lock();
        ending.told.is_none_or(|at| {
            !ending.closing.contains(&me) && self.clock.now().saturating_sub(at) <= HEARD_WITHIN
        })
    }

    /// Nothing disturbs members any more, all of which rest: they shall close, and lose nothing while they do.
    pub fn close_at_rest(&self) {
        self.ending.lock().told = Some(self.clock.now());
        self.over.store(true, Ordering::SeqCst);
    }

    /// How many members only read from now on.
    pub fn resting(&self) -> usize {
        self.ending.lock().resting.len()
    }

    /// Partitions, with their groups, that were lost before their members heard that they were to close.
    pub fn excused(&self) -> usize {
        self.holding.excused()
    }

    /// When members of a group fell silent, without having left.
    pub fn silences(&self, group: usize) -> Vec<Duration> {
        let silences = self.silences.lock();
        silences.iter().filter(|(_, of)| *of == group).map(|(at, _)| *at).collect()
    }

    fn silent(&self, group: usize) {
        self.silences.lock().push((self.clock.now(), group));
    }

    /// A member does something.
    fn step(&self, group: usize, me: Client, step: Step) {
        match step {
            Step::Acts(act) => {
                self.tally.count(act);
                if matches!(act, Act::Crash | Act::Stall) {
                    self.silent(group);
                }
            }
            Step::Rests => {
                self.ending.lock().resting.insert(me);
            }
            Step::Closes => {
                self.ending.lock().closing.insert(me);
            }
            Step::Whole => {}
        }
        if let Some(told) = self.told {
            told(step);
        }
    }

    /// A member is gone before the end: whoever comes after it under its name is another one.
    fn over_for(&self, me: Client) {
        let ending = &mut *self.ending.lock();
        ending.resting.remove(&me);
        ending.closing.remove(&me);
    }

    /// How many records all groups are done with.
    pub fn progress(&self) -> usize {
        self.done.lock().values().map(BTreeSet::len).sum()
    }

    /// Whether every group is done with as many records as each topic's partitions have, and whoever has a partition is done
    /// with all that was not committed before.
    pub fn is_done(&self, ends: &[Vec<i64>]) -> bool {
        let done = self.done.lock();
        (0..self.groups.len()).all(|group| {
            self.topics.iter().zip(ends).flat_map(|((_, places), ends)| places.iter().zip(ends)).all(
                |(place, end)| {
                    let count = done.get(&(group, *place)).map_or(0, BTreeSet::len);
                    i64::try_from(count).unwrap_or_default() >= *end
                        && self.holding.reached(group, *place, *end)
                },
            )
        })
    }

    /// A client of one of the members.
    ///
    /// # Errors
    ///
    /// A setting is impossible.
    pub fn client(&self, builder: ClientBuilder, name: &str) -> Result<klamm::Client, String> {
        let builder = builder.client_id(name);
        builder
            .request_timeout_ms(Duration::from_millis(self.habits.request_ms))
            .default_api_timeout_ms(Duration::from_millis(self.habits.api_ms))
            .metadata_max_age_ms(Duration::from_secs(2))
            .build()
            .map_err(|error| error.to_string())
    }

    /// The history has to say that every group was done with everything.
    pub fn must_read_all(&self) {
        let mut history = self.history.lock();
        for group in 0..self.groups.len() {
            let places = self.topics.iter().flat_map(|(_, places)| places.iter());
            places.for_each(|place| history.reads_all(&Self::group_id(group), *place));
        }
    }

    /// Partitions of which a group has not committed as many records as there are: none, once all members are closed in order.
    ///
    /// # Errors
    ///
    /// A group does not say what it has committed.
    pub async fn uncommitted(
        &self,
        ends: &[Vec<i64>],
        connect: impl Fn(Arc<Ear>) -> ClientBuilder,
    ) -> Result<Vec<String>, String> {
        let mut behind = Vec::new();
        for group in 0..self.groups.len() {
            let (id, ear) = (Self::group_id(group), self.ear(self.register(group, "judge")));
            let client = self.client(connect(ear), "judge")?;
            let builder = Consumer::builder().client(&client).group_id(&id);
            let consumer: Consumer = builder.build().map_err(|error| error.to_string())?;
            for ((topic, known), ends) in self.topics.iter().zip(ends) {
                let places: Vec<_> =
                    (0..).zip(ends).map(|(index, _)| TopicPartition::new(topic.clone(), index)).collect();
                let committed = consumer.committed(&places).await.map_err(|error| error.to_string())?;
                for ((place, end), known) in places.iter().zip(ends).zip(known.iter()) {
                    let offset = committed.get(place).and_then(Option::as_ref).map_or(0, |at| at.offset);
                    match offset == *end {
                        true => {}
                        false if self.holding.is_excused(group, *known) => {
                            self.tally.uncommitted.fetch_add(1, Ordering::Relaxed);
                        }
                        false => behind.push(format!("{id}: {place} at {offset} of {end}")),
                    }
                }
            }
        }
        Ok(behind)
    }

    /// How many records of each partition each group is done with.
    pub fn counts(&self) -> String {
        let done = self.done.lock();
        let counts = done.iter().map(|(place, done)| format!("{place:?}: {}", done.len()));
        counts.collect::<Vec<_>>().join(", ")
    }

    /// Generations in which members were assigned something.
    pub fn rebalances(&self) -> u64 {
        self.generations.lock().len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (World, Arc<AtomicU64>, Partition, [Client; 2]) {
        let seconds = Arc::new(AtomicU64::new(0));
        let now = seconds.clone();
        let clock = Clock::new(move || Duration::from_secs(now.load(Ordering::SeqCst)));
        let mut history = History::new();
        let place = history.partition("t", 0);
        let topics = vec![(Arc::from("t"), Arc::from([place]))];
        let plan = GroupPlan {
            strategy: "range".to_owned(),
            members: 2,
            fixed: false,
            auto_commit: true,
            pipelined: false,
            commit_ms: 500,
            session_ms: 8_000,
            max_poll_ms: 8_000,
        };
        let habits = Habits { acts: Vec::new(), life_ms: 1, most: 1, work_ms: 1, request_ms: 1, api_ms: 1 };
        let world = World::new(clock, Arc::new(Mutex::new(history)), topics, vec![plan], habits);
        let members = [world.register(0, "a"), world.register(0, "b")];
        (world, seconds, place, members)
    }

    #[test]
    fn who_has_heard_that_it_is_to_close_loses_nothing_that_is_excused() {
        let (world, seconds, place, [me, other]) = world();
        world.assigned(0, me, place, Some(1));
        world.lost(0, me, place);
        assert_eq!(world.excused(), 0, "others work on it again");
        world.step(0, me, Step::Rests);
        world.step(0, other, Step::Rests);
        assert_eq!(world.resting(), 2);
        world.close_at_rest();
        world.step(0, me, Step::Closes);
        world.lost(0, me, place);
        assert_eq!(world.excused(), 0);
        seconds.store(6, Ordering::SeqCst);
        world.lost(0, other, place);
        assert_eq!(world.excused(), 0, "it should have heard of that by now");
        seconds.store(5, Ordering::SeqCst);
        world.lost(0, other, place);
        assert_eq!(world.excused(), 1);
    }

    #[test]
    fn who_comes_after_a_member_is_not_at_rest_yet() {
        let (world, _, _, [me, _]) = world();
        world.step(0, me, Step::Rests);
        world.over_for(me);
        assert_eq!(world.resting(), 0);
    }
}
