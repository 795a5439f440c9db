//! Whatever members do in whatever order, and whenever coordinators change.

use std::collections::BTreeSet;

use klamm_wire::planted::{Bug, plant};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// What a member, time, the log or a coordinator does next.
#[derive(Debug, Clone)]
enum Act {
    Join(usize),
    /// With no id, as after a restart.
    Restart(usize),
    Sync(usize),
    Heartbeat(usize),
    Leave(usize),
    Commit(usize, bool),
    Pass(u64),
    Replicate,
    Refuse(bool),
    FailOver,
    Delete,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..4usize).prop_map(Act::Join),
        1 => (0..4usize).prop_map(Act::Restart),
        6 => (0..4usize).prop_map(Act::Sync),
        2 => (0..4usize).prop_map(Act::Heartbeat),
        1 => (0..4usize).prop_map(Act::Leave),
        3 => (0..4usize, any::<bool>()).prop_map(|(who, old)| Act::Commit(who, old)),
        4 => (0..9_000u64).prop_map(Act::Pass),
        1 => (9_000..120_000u64).prop_map(Act::Pass),
        6 => Just(Act::Replicate),
        1 => any::<bool>().prop_map(Act::Refuse),
        1 => Just(Act::FailOver),
        1 => Just(Act::Delete),
    ]
}

/// What a member knows. The last two have instance ids.
#[derive(Debug, Clone, Default)]
struct Knows {
    id: String,
    generation: i32,
    leads: bool,
    members: Vec<String>,
    join: Option<u64>,
    sync: Option<u64>,
}

struct Run {
    world: World,
    knows: Vec<Knows>,
    /// By generation: who led, who belonged to it, who was assigned what.
    leaders: BTreeMap<i32, String>,
    members: BTreeMap<i32, BTreeSet<String>>,
    /// The part that each instance was handed.
    parts: BTreeMap<(i32, String), String>,
    /// Offset by token, with the generation it was meant for.
    commits: BTreeMap<u64, (i64, bool)>,
    acknowledged: i64,
    next_offset: i64,
    /// A new group of the same name begins again with generation 1.
    incarnation: Option<u64>,
}

fn instance(who: usize) -> Option<&'static str> {
    [None, None, Some("i2"), Some("i3")][who]
}

impl Run {
    fn new() -> Self {
        let mut world = World::new(settings());
        world.replicates = false;
        Self {
            world,
            knows: vec![Knows::default(); 4],
            leaders: BTreeMap::new(),
            members: BTreeMap::new(),
            parts: BTreeMap::new(),
            commits: BTreeMap::new(),
            acknowledged: -1,
            next_offset: 0,
            incarnation: None,
        }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Join(who) => {
                if self.knows[who].join.is_none() {
                    let id = self.knows[who].id.clone();
                    self.knows[who].join = Some(self.world.join(&join(&id, instance(who), &["range"]), 9));
                }
            }
            Act::Restart(who) => self.knows[who] = Knows::default(),
            Act::Sync(who) => {
                let known = self.knows[who].clone();
                if known.sync.is_none() && known.generation > 0 {
                    let parts: Vec<_> = known.members.iter().map(|id| (id.as_str(), "p")).collect();
                    let parts = if known.leads { parts } else { Vec::new() };
                    self.knows[who].sync = Some(self.world.sync(&known.id, known.generation, &parts));
                }
            }
            Act::Heartbeat(who) => {
                let known = &self.knows[who];
                let (id, generation) = (known.id.clone(), known.generation);
                self.world.heartbeat_as(&id, instance(who), generation);
            }
            Act::Leave(who) => {
                let id = std::mem::take(&mut self.knows[who]).id;
                self.world.leave(&[(&id, instance(who))]);
            }
            Act::Commit(who, old) => {
                let generation = self.knows[who].generation - i32::from(old);
                if generation > 0 {
                    self.next_offset += 1;
                    let id = self.knows[who].id.clone();
                    let request = World::commit_request(&id, generation, self.next_offset)
                        .with_group_instance_id(instance(who).map(text));
                    let current = self.world.coordinator.groups.get(GROUP).map(|group| group.generation);
                    let token =
                        self.world.step(|coordinator, turn, to| coordinator.commit(turn, to, &request, 9));
                    self.commits.insert(token, (self.next_offset, current == Some(generation)));
                }
            }
            Act::Pass(ms) => self.world.pass(Duration::from_millis(ms)),
            Act::Replicate => self.world.replicate(),
            Act::Refuse(refuses) => {
                self.world.log.refuses = refuses.then_some(ErrorCode::NOT_ENOUGH_REPLICAS);
            }
            Act::FailOver => self.fail_over(),
            Act::Delete => {
                self.world.step(|coordinator, turn, to| coordinator.delete(turn, to, &GroupId(text(GROUP))));
            }
        }
        let incarnation = self.world.coordinator.groups.get(GROUP).map(|group| group.incarnation);
        if incarnation != self.incarnation {
            self.incarnation = incarnation;
            if !matches!(act, Act::FailOver) {
                self.begin_anew();
            }
        }
        self.hear();
        self.check();
    }

    /// What was not replicated may be lost with its coordinator: here it always is.
    fn fail_over(&mut self) {
        let replicated = self.world.replicated;
        self.world.log.records.truncate(replicated);
        let before = self.world.coordinator.groups.get(GROUP).map(|group| group.generation);
        self.world.fail_over();
        let after = self.world.coordinator.groups.get(GROUP).map(|group| group.generation);
        let told = self.parts.keys().map(|(generation, _)| *generation).max();
        assert!(
            after >= told,
            "in generation {told:?} somebody was told its assignment, and now is {after:?}"
        );
        // a generation that nobody was assigned anything in may be numbered again
        if after.unwrap_or(0) < before.unwrap_or(0) {
            let after = after.unwrap_or(0);
            self.leaders.retain(|generation, _| *generation <= after);
            self.members.retain(|generation, _| *generation <= after);
            self.parts.retain(|(generation, _), _| *generation <= after);
        }
    }

    fn begin_anew(&mut self) {
        self.leaders.clear();
        self.members.clear();
        self.parts.clear();
        self.acknowledged = -1;
        self.commits.values_mut().for_each(|commit| commit.0 = -1);
    }

    fn hear(&mut self) {
        for who in 0..self.knows.len() {
            if let Some(token) = self.knows[who].join
                && let Some(answer) = self.world.answers.get(&token).cloned()
            {
                self.knows[who].join = None;
                self.joined(who, answer);
            }
            if let Some(token) = self.knows[who].sync
                && let Some(answer) = self.world.answers.get(&token).cloned()
            {
                self.knows[who].sync = None;
                if let Response::Sync(answer) = answer
                    && answer.error_code == 0
                {
                    let known = &self.knows[who];
                    let key = (known.generation, known.id.clone());
                    let part = String::from_utf8(answer.assignment.to_vec()).unwrap();
                    let before = self.parts.entry(key).or_insert_with(|| part.clone());
                    assert_eq!(*before, part, "one assignment a generation");
                }
            }
        }
        let answered: Vec<_> =
            self.commits.keys().copied().filter(|token| self.world.answers.contains_key(token)).collect();
        for token in answered {
            let Some((offset, current)) = self.commits.remove(&token) else { continue };
            if self.world.committed(token) == ErrorCode::NONE {
                assert!(current, "an old generation has committed");
                self.acknowledged = self.acknowledged.max(offset);
            }
        }
    }

    fn joined(&mut self, who: usize, answer: Response) {
        let Response::Join(answer) = answer else {
            self.knows[who].generation = 0;
            return;
        };
        let code = ErrorCode(answer.error_code);
        if code == ErrorCode::MEMBER_ID_REQUIRED {
            self.knows[who].id = answer.member_id.to_string();
            return;
        }
        if code == ErrorCode::UNKNOWN_MEMBER_ID || code == ErrorCode::FENCED_INSTANCE_ID {
            self.knows[who] = Knows::default();
            return;
        }
        if !code.is_ok() {
            return;
        }
        let (generation, id) = (answer.generation_id, answer.member_id.to_string());
        let leads = answer.leader == answer.member_id && !answer.skip_assignment;
        if leads {
            let members: BTreeSet<_> = answer.members.iter().map(|m| m.member_id.to_string()).collect();
            let before = self.leaders.insert(generation, id.clone());
            // the same one may ask again
            assert!(before.is_none_or(|before| before == id), "two leaders of generation {generation}");
            assert!(members.contains(&id));
            let before = self.members.insert(generation, members.clone());
            assert!(before.is_none_or(|before| before == members), "the members of a generation stay");
        }
        let members = answer.members.iter().map(|member| member.member_id.to_string()).collect();
        self.knows[who] = Knows { id, generation, leads, members, join: None, sync: self.knows[who].sync };
    }

    fn check(&self) {
        let Some(group) = self.world.coordinator.groups.get(GROUP) else { return };
        assert_eq!(group.joining(), group.members.values().filter(|m| m.joining.is_some()).count());
        assert_eq!(group.leader.is_some(), !group.members.is_empty());
        if let Some(leader) = &group.leader {
            assert!(group.members.contains_key(leader), "the leader is a member");
        }
        for member in group.members.values() {
            if let Some(instance) = &member.instance_id {
                assert_eq!(group.static_member(instance), Some(&member.id), "an instance is one member");
            }
        }
        assert_eq!(group.state == State::Empty, group.members.is_empty() && group.state == State::Empty);
        assert!(group.unsynced.iter().all(|id| group.members.contains_key(id)));
        if group.state == State::Empty {
            assert!(group.members.is_empty());
        }
        if group.state != State::PreparingRebalance {
            let joining = group.members.values().filter(|member| member.joining.is_some());
            // but for static members whose new life is being written down
            assert!(joining.clone().all(|member| member.instance_id.is_some()), "{group:?}");
        }
    }
}

fn live(acts: &[Act]) {
    let mut run = Run::new();
    for act in acts {
        run.act(act);
    }
    // what was acknowledged is there, also for the next coordinator
    run.world.log.refuses = None;
    run.world.replicate();
    run.hear();
    if run.world.coordinator.groups.contains_key(GROUP) || run.acknowledged >= 0 {
        assert!(run.world.offset() >= run.acknowledged);
        run.world.fail_over();
        assert!(run.world.offset() >= run.acknowledged);
    }
}

/// Goal: the property can fail.
#[test]
fn coordinators_that_answer_too_early_forget_or_take_what_is_old_are_found() {
    for bug in [Bug::TakeOldGeneration, Bug::AssignedEarly, Bug::CommitAnsweredEarly, Bug::ForgetGeneration] {
        let config = ProptestConfig {
            cases: 2_000,
            max_shrink_iters: 0,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let rng = TestRunner::deterministic().rng().clone();
        plant(Some(bug));
        let found =
            TestRunner::new_with_rng(config, rng).run(&proptest::collection::vec(act(), 1..120), |acts| {
                live(&acts);
                Ok(())
            });
        plant(None);
        assert!(found.is_err(), "nothing is found with {bug:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn one_leader_a_generation_one_assignment_each_and_no_commit_of_an_old_one(
        acts in proptest::collection::vec(act(), 1..120),
    ) {
        live(&acts);
    }

    #[test]
    fn the_next_coordinator_knows_what_this_one_had_written(
        acts in proptest::collection::vec(act(), 1..80),
    ) {
        let mut run = Run::new();
        run.world.replicates = true;
        for act in acts.iter().filter(|act| !matches!(act, Act::FailOver)) {
            run.act(act);
        }
        run.world.replicate();
        let before = run.world.coordinator.groups.get(GROUP).cloned();
        run.world.fail_over();
        let after = run.world.coordinator.groups.get(GROUP);
        match before {
            Some(before) => {
                let after = after.expect("a group that was written");
                prop_assert_eq!(&before.offsets, &after.offsets);
                if before.state == State::Stable {
                    prop_assert_eq!(before.generation, after.generation);
                    prop_assert_eq!(&before.leader, &after.leader);
                    let parts = |group: &Group| {
                        let part = |m: &Member| (m.id.clone(), m.assignment.clone(), m.session_timeout_ms);
                        group.members.values().map(part).collect::<Vec<_>>()
                    };
                    prop_assert_eq!(parts(&before), parts(after));
                }
            }
            None => prop_assert!(after.is_none()),
        }
    }
}
