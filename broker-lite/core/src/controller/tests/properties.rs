//! Whatever happens in whatever order, nobody leads who should not.

use std::collections::BTreeMap;

use klamm_wire::messages::create_partitions_request::CreatePartitionsTopic;
use klamm_wire::messages::delete_topics_request::DeleteTopicState;
use klamm_wire::messages::{CreatePartitionsRequest, DeleteTopicsRequest, UnregisterBrokerRequest};
use proptest::prelude::*;

use super::features::{ELR, SAFE};
use super::*;
use crate::metadata::LeaderRecoveryState;

const BROKERS: i32 = 4;

#[derive(Debug, Clone)]
enum Step {
    /// A process starts; `clean` if the one before it had shut down properly.
    Register {
        id: i32,
        clean: bool,
    },
    Beat {
        id: i32,
        want_fence: bool,
        want_shut_down: bool,
        behind: bool,
    },
    Pass {
        ms: u64,
    },
    Create {
        partitions: i32,
        replicas: i16,
        min_insync: i32,
        unclean: bool,
    },
    Delete {
        topic: usize,
    },
    /// Replicas of a partition shall be others; none of them cancels that.
    Reassign {
        topic: usize,
        partition: i32,
        target: Vec<i32>,
    },
    /// An operator asks for the preferred leader, or for any.
    Elect {
        topic: usize,
        partition: i32,
        unclean: bool,
    },
    Unregister {
        id: i32,
    },
    /// A topic's `min.insync.replicas` changes.
    MinInsync {
        topic: usize,
        min: i32,
    },
    Grow {
        topic: usize,
        more: i32,
    },
    /// The leader of a partition asks for an ISR, with old epochs if `stale`.
    Alter {
        topic: usize,
        partition: i32,
        members: [bool; BROKERS as usize],
        stale: bool,
        recovered: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1..=BROKERS;
    let rare = || prop::bool::weighted(0.1);
    prop_oneof![
        3 => (id.clone(), any::<bool>()).prop_map(|(id, clean)| Step::Register { id, clean }),
        12 => (id, rare(), rare(), rare()).prop_map(|(id, want_fence, want_shut_down, behind)| {
            Step::Beat { id, want_fence, want_shut_down, behind }
        }),
        6 => prop_oneof![3 => 0..3000u64, 1 => 8000..10_000u64].prop_map(|ms| Step::Pass { ms }),
        3 => (1..4, 1..=4i16, 1..4, rare()).prop_map(|(partitions, replicas, min_insync, unclean)| {
            Step::Create { partitions, replicas, min_insync, unclean }
        }),
        1 => (0..4usize).prop_map(|topic| Step::Delete { topic }),
        4 => (0..4usize, 0..3, Just((1..=BROKERS).collect::<Vec<_>>()).prop_shuffle(), 0..=BROKERS as usize).prop_map(
            |(topic, partition, order, len)| Step::Reassign { topic, partition, target: order[..len].to_vec() }
        ),
        2 => (0..4usize, 0..3, rare()).prop_map(|(topic, partition, unclean)| Step::Elect { topic, partition, unclean }),
        1 => (1..=BROKERS).prop_map(|id| Step::Unregister { id }),
        1 => (0..4usize, 1..4).prop_map(|(topic, min)| Step::MinInsync { topic, min }),
        1 => (0..4usize, 1..3).prop_map(|(topic, more)| Step::Grow { topic, more }),
        8 => (0..4usize, 0..3, any::<[bool; BROKERS as usize]>(), rare(), any::<bool>()).prop_map(
            |(topic, partition, members, stale, recovered)| Step::Alter { topic, partition, members, stale, recovered }
        ),
    ]
}

/// What the replicas of one partition really hold. A record is committed when the whole ISR has it, and
/// only while the ISR is large enough.
#[derive(Debug, Default)]
struct Data {
    committed: u32,
    held: BTreeMap<i32, u32>,
    leaders: BTreeMap<i32, Option<i32>>,
    last: PartitionRegistration,
}

fn topic_at(world: &World, at: usize) -> Option<TopicName> {
    world.reader.topics().nth(at).map(|topic| name(&topic.name))
}

#[derive(Default)]
struct Model {
    partitions: BTreeMap<(Uuid, i32), Data>,
    topics: u32,
    /// Without eligible leader replicas: a leader that dies alone may lose what is committed, so that nobody does here.
    no_elr: bool,
}

impl Model {
    fn run(&mut self, world: &mut World, step: Step) {
        match step {
            Step::Register { id, clean } => self.start(world, id, clean || self.no_elr),
            Step::Beat { id, want_fence, want_shut_down, behind } => {
                let request =
                    world.heartbeat(id).with_want_fence(want_fence).with_want_shut_down(want_shut_down);
                let offset = request.current_metadata_offset - i64::from(behind) * 1000;
                world.beat_with(&request.with_current_metadata_offset(offset));
            }
            Step::Pass { ms } => {
                world.now += Tick::from_millis(ms);
                let outcome = world.controller.on_deadline(world.now);
                world.settle(outcome);
                assert!(world.controller.deadline().is_none_or(|at| at > world.now));
            }
            Step::Create { partitions, replicas, min_insync, unclean } => {
                self.topics += 1;
                let config = |key: &str, value: String| {
                    CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(&value)))
                };
                world.create_with(
                    CreatableTopic::default()
                        .with_name(name(&format!("t{}", self.topics)))
                        .with_num_partitions(partitions)
                        .with_replication_factor(replicas)
                        .with_configs(vec![
                            config("min.insync.replicas", min_insync.to_string()),
                            config("unclean.leader.election.enable", unclean.to_string()),
                        ]),
                );
            }
            Step::Delete { topic } => {
                let Some(id) = world.reader.topics().nth(topic).map(|topic| topic.id) else { return };
                let state = DeleteTopicState::default().with_name(None).with_topic_id(id);
                let request = DeleteTopicsRequest::default().with_topics(vec![state]);
                let outcome = world.controller.delete_topics(&request);
                world.settle(outcome);
            }
            Step::Reassign { topic, partition, target } => {
                let Some(name) = topic_at(world, topic) else { return };
                let replicas = (!target.is_empty()).then(|| brokers(&target));
                let partition =
                    ReassignablePartition::default().with_partition_index(partition).with_replicas(replicas);
                let topic = ReassignableTopic::default().with_name(name).with_partitions(vec![partition]);
                let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
                let outcome = world.controller.alter_partition_reassignments(&request);
                world.settle(outcome);
            }
            Step::Elect { topic, partition, unclean } => {
                let Some(name) = topic_at(world, topic) else { return };
                let topic = TopicPartitions::default().with_topic(name).with_partitions(vec![partition]);
                let request = ElectLeadersRequest::default()
                    .with_election_type(i8::from(unclean))
                    .with_topic_partitions(Some(vec![topic]));
                let outcome = world.controller.elect_leaders(&request);
                world.settle(outcome);
            }
            Step::Unregister { id } => {
                let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(id));
                let outcome = world.controller.unregister_broker(&request);
                world.settle(outcome);
            }
            Step::MinInsync { topic, min } => {
                let Some(name) = topic_at(world, topic) else { return };
                world.configure((2, name.as_str()), 0, "min.insync.replicas", Some(&min.to_string()));
            }
            Step::Grow { topic, more } => {
                let Some(topic) = world.reader.topics().nth(topic) else { return };
                let count = topic.partitions.len() as i32 + more;
                let asked = CreatePartitionsTopic::default()
                    .with_name(name(&topic.name))
                    .with_count(count)
                    .with_assignments(None);
                let request = CreatePartitionsRequest::default().with_topics(vec![asked]);
                let outcome = world.controller.create_partitions(&request);
                world.settle(outcome);
            }
            Step::Alter { topic, partition, members, stale, recovered } => {
                self.alter(world, (topic, partition), members, stale, recovered);
            }
        }
    }

    fn start(&mut self, world: &mut World, id: i32, clean: bool) {
        let known = world.epoch(id);
        let previous = if clean { known } else { -1 };
        let request = world.registration(id).with_previous_broker_epoch(previous);
        let accepted = world.register(&request).error_code == 0;
        if accepted && !clean {
            self.partitions.values_mut().for_each(|data| _ = data.held.remove(&id));
        }
    }

    fn alter(
        &mut self,
        world: &mut World,
        (topic, partition): (usize, i32),
        members: [bool; BROKERS as usize],
        stale: bool,
        recovered: bool,
    ) {
        let Some(topic) = world.reader.topics().nth(topic) else { return };
        let id = topic.id;
        let Some(current) = topic.partitions.get(&partition) else { return };
        let Some(leader) = current.leader else { return };
        let ids: Vec<i32> = (1..=BROKERS).filter(|id| members[(*id - 1) as usize] || *id == leader).collect();
        let states: Vec<_> = ids.iter().map(|id| (*id, world.epoch(*id))).collect();
        let recovery = if recovered { 0 } else { current.leader_recovery_state.code() };
        let wish = PartitionData::default()
            .with_partition_index(partition)
            .with_leader_epoch(current.leader_epoch)
            .with_partition_epoch(current.partition_epoch - i32::from(stale))
            .with_leader_recovery_state(recovery)
            .with_new_isr_with_epochs(with_epochs(&states));
        let altered = world.alter_as(leader, id, wish);
        assert!(!stale || altered.error_code != 0, "compare-and-set");
        // a new leader means that the change was carried out, and has completed a reassignment
        if matches!(ErrorCode(altered.error_code), ErrorCode::NONE | ErrorCode::NEW_LEADER_ELECTED) {
            // whoever the leader lets in has caught up with it
            let data = self.partitions.entry((id, partition)).or_default();
            let held = data.held.get(&leader).copied().unwrap_or(0);
            ids.iter().for_each(|id| _ = data.held.insert(*id, held));
        }
    }

    fn check(&mut self, world: &World) {
        let image = &world.reader;
        self.partitions.retain(|(topic, partition), _| image.partition(*topic, *partition).is_some());
        for topic in image.topics() {
            let min = image.topic_config(&topic.name, world.controller.settings()).min_insync_replicas();
            for (number, now) in &topic.partitions {
                check_shape(image, now, self.no_elr);
                let data = self.partitions.entry((topic.id, *number)).or_default();
                // what a replica held is deleted when it is no replica any more
                data.held.retain(|id, _| now.replicas.contains(id));
                data.check_epochs(now);
                data.check_leader(image, now);
                data.replicate(now, min);
                data.last = now.clone();
            }
        }
    }
}

fn check_shape(image: &Image, now: &PartitionRegistration, no_elr: bool) {
    let within = |some: &[i32]| some.iter().all(|id| now.replicas.contains(id));
    let once = |some: &[i32]| some.iter().all(|id| some.iter().filter(|other| *other == id).count() == 1);
    assert!(once(&now.replicas) && once(&now.isr) && once(&now.elr), "{now:?}");
    assert!(within(&now.isr) && within(&now.elr) && within(&now.last_known_elr), "{now:?}");
    assert!(!now.isr.iter().any(|id| now.elr.contains(id)), "{now:?}");
    let remembered = no_elr && now.leader.is_none();
    assert!(remembered || now.isr.iter().all(|id| image.is_active(*id)), "in sync and not active: {now:?}");
    let (adding, removing) = (&now.adding_replicas, &now.removing_replicas);
    assert!(within(adding) && within(removing) && once(adding) && once(removing), "{now:?}");
    assert!(!adding.iter().any(|id| removing.contains(id)), "{now:?}");
    assert!(now.replicas.len() > removing.len(), "nobody would be left: {now:?}");
    match now.leader {
        Some(leader) => assert!(now.isr.contains(&leader), "{now:?}"),
        None if no_elr => {
            assert!(!now.isr.is_empty(), "nobody is left to lead: {now:?}");
            assert!(!now.isr.iter().any(|id| image.is_active(*id)), "{now:?}");
        }
        None => assert!(now.isr.is_empty() && !now.elr.iter().any(|id| image.is_active(*id)), "{now:?}"),
    }
}

impl Data {
    fn check_epochs(&mut self, now: &PartitionRegistration) {
        assert!(now.leader_epoch >= self.last.leader_epoch, "{now:?}");
        assert!(now.partition_epoch >= self.last.partition_epoch, "{now:?}");
        if self.leaders.is_empty() {
            return;
        }
        if *now != self.last {
            assert!(now.partition_epoch > self.last.partition_epoch, "changed in silence: {now:?}");
        }
        let taken_away = self.last.replicas.iter().any(|id| !now.replicas.contains(id));
        let bumped = now.leader_epoch > self.last.leader_epoch;
        assert_eq!(now.leader != self.last.leader || taken_away, bumped, "{now:?}");
    }

    fn check_leader(&mut self, image: &Image, now: &PartitionRegistration) {
        let known = self.leaders.entry(now.leader_epoch).or_insert(now.leader);
        assert_eq!(*known, now.leader, "two leaders in epoch {}", now.leader_epoch);
        let recovering = now.leader_recovery_state == LeaderRecoveryState::Recovering;
        match now.leader {
            Some(leader) if recovering => {
                self.committed = self.held.get(&leader).copied().unwrap_or(0);
            }
            Some(leader) => {
                let held = self.held.get(&leader).copied().unwrap_or(0);
                assert!(held >= self.committed, "{leader} leads without {} records: {now:?}", self.committed);
            }
            None if now.elr.is_empty() => {
                assert!(!now.last_known_elr.iter().any(|id| image.is_active(*id)), "{now:?}");
            }
            None => {}
        }
    }

    fn replicate(&mut self, now: &PartitionRegistration, min: usize) {
        if now.leader.is_some() && now.isr.len() >= min.min(now.replicas.len()) {
            self.committed += 1;
            now.isr.iter().for_each(|id| _ = self.held.insert(*id, self.committed));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// One leader per epoch, alive and within the ISR when elected, holding all that is committed unless it
    /// says otherwise; epochs only rise; and a reader of the log knows what the controller knows.
    #[test]
    fn nobody_leads_who_lacks_a_committed_record(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::with_brokers(3, &[]);
        let mut model = Model::default();
        for step in steps {
            model.run(&mut world, step);
            model.check(&world);
        }
    }

    #[test]
    fn without_eligible_replicas_the_last_isr_is_never_forgotten(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::with_brokers(3, &[]);
        prop_assert_eq!(world.update(&[(ELR, 0, SAFE)], false), ErrorCode::NONE);
        let mut model = Model { no_elr: true, ..Model::default() };
        for step in steps {
            model.run(&mut world, step);
            model.check(&world);
        }
    }
}
