//! Reassignments, elections that are asked for, and brokers that leave.

use klamm_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use klamm_wire::messages::{ListPartitionReassignmentsRequest, UnregisterBrokerRequest};

use super::*;

impl World {
    /// (replicas, adding, removing) of partition 0.
    fn replicas(&self, topic: Uuid) -> (Vec<i32>, Vec<i32>, Vec<i32>) {
        let p = self.partition(topic);
        (p.replicas.clone(), p.adding_replicas.clone(), p.removing_replicas.clone())
    }

    fn unregister(&mut self, id: i32) -> ErrorCode {
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(id));
        let outcome = self.controller.unregister_broker(&request);
        ErrorCode(self.settle(outcome).error_code)
    }
}

#[test]
fn a_reassignment_completes_when_all_that_it_adds_is_in_sync() {
    let mut world = World::with_brokers(4, &[]);
    let topic = world.create_on("t", &[1, 2], &[]);

    assert_eq!(world.reassign("t", Some(&[3, 4])), ErrorCode::NONE);
    assert_eq!(world.replicas(topic), (vec![3, 4, 1, 2], vec![3, 4], vec![1, 2]));
    assert_eq!(world.state(topic), (Some(1), vec![1, 2], vec![], 0, 1), "nothing else has changed");
    world.set_isr(topic, &[1, 2, 3]);
    assert_eq!(world.replicas(topic).0, [3, 4, 1, 2], "4 is not in sync yet");

    let wish = world.wish(topic, &[1, 2, 3, 4]);
    let altered = world.alter_as(1, topic, wish);
    assert_eq!(ErrorCode(altered.error_code), ErrorCode::NEW_LEADER_ELECTED, "1 is no replica any more");
    assert_eq!(world.replicas(topic), (vec![3, 4], vec![], vec![]));
    assert_eq!(world.state(topic), (Some(3), vec![3, 4], vec![], 1, 3));
}

#[test]
fn a_leader_that_stays_gets_a_new_epoch_when_another_replica_is_taken_away() {
    let mut world = World::with_brokers(3, &[]);
    let topic = world.create_on("t", &[1, 2], &[]);
    assert_eq!(world.reassign("t", Some(&[1])), ErrorCode::NONE);
    assert_eq!(world.replicas(topic), (vec![1], vec![], vec![]), "nothing to wait for");
    assert_eq!(world.state(topic), (Some(1), vec![1], vec![], 1, 1));
}

#[test]
fn a_reassignment_to_a_fenced_target_waits_for_it() {
    let mut world = World::with_brokers(3, &[]);
    let topic = world.create_on("t", &[1], &[]);
    world.silence_all_but(&[1, 2]);
    assert_eq!(world.reassign("t", Some(&[3])), ErrorCode::NONE);
    world.beat(1);
    assert_eq!(world.replicas(topic), (vec![3, 1], vec![3], vec![1]));
    assert_eq!(world.partition(topic).leader, Some(1));
    world.join(3);
    world.set_isr_of(topic, &[1, 3]);
    assert_eq!(world.replicas(topic), (vec![3], vec![], vec![]));
    assert_eq!(world.partition(topic).leader, Some(3));
}

impl World {
    /// As [`World::set_isr`], where the answer may be that the leader has changed.
    fn set_isr_of(&mut self, topic: Uuid, isr: &[i32]) {
        let leader = self.partition(topic).leader.unwrap();
        let wish = self.wish(topic, isr);
        let code = ErrorCode(self.alter_as(leader, topic, wish).error_code);
        assert!(matches!(code, ErrorCode::NONE | ErrorCode::NEW_LEADER_ELECTED), "{code:?}");
    }
}

/// Goal: 0, 1 and 5 in sync of [0,1,2,3,4] to [2,3,4,5]: the ISR would shrink to 5 alone.
#[test]
fn a_reassignment_that_ends_with_fewer_replicas_waits_for_all_that_stay() {
    let mut world = World::with_brokers(6, &[]);
    let topic = world.create_on("t", &[1, 2, 3, 4, 5], &[]);
    world.set_isr(topic, &[1, 2]);
    world.reassign("t", Some(&[3, 4, 5, 6]));
    world.set_isr(topic, &[1, 2, 6]);
    assert_eq!(world.replicas(topic).1, [6], "still under way");
    world.set_isr(topic, &[1, 2, 6, 3, 4]);
    assert_eq!(world.replicas(topic).1, [6]);
    world.set_isr_of(topic, &[1, 2, 6, 3, 4, 5]);
    assert_eq!(world.replicas(topic), (vec![3, 4, 5, 6], vec![], vec![]));
}

#[test]
fn a_reassignment_is_cancelled_without_a_trace() {
    let mut world = World::with_brokers(4, &[]);
    let topic = world.create_on("t", &[1, 2], &[]);
    assert_eq!(world.reassign("t", None), ErrorCode::NO_REASSIGNMENT_IN_PROGRESS);
    world.reassign("t", Some(&[1, 2, 3, 4]));
    world.set_isr(topic, &[1, 2, 3]);
    assert_eq!(world.reassign("t", None), ErrorCode::NONE);
    assert_eq!(world.replicas(topic), (vec![1, 2], vec![], vec![]));
    assert_eq!(world.partition(topic).isr, [1, 2], "3 leaves although it is in sync");
    assert_eq!(world.partition(topic).leader_epoch, 1, "replicas were taken away");
}

/// Goal: with one replacing another, nobody stays behind who was added by the first.
#[test]
fn a_new_target_replaces_the_one_under_way() {
    let mut world = World::with_brokers(5, &[]);
    let topic = world.create_on("t", &[1, 2], &[]);
    world.reassign("t", Some(&[3, 4]));
    world.reassign("t", Some(&[4, 5]));
    assert_eq!(world.replicas(topic), (vec![4, 5, 1, 2], vec![4, 5], vec![1, 2]));
    world.reassign("t", Some(&[1, 2]));
    assert_eq!(world.replicas(topic), (vec![1, 2], vec![], vec![]), "back to where it was");
    world.reassign("t", Some(&[3, 4]));
    world.reassign("t", Some(&[2, 3]));
    assert_eq!(world.replicas(topic), (vec![2, 3, 1], vec![3], vec![1]));
    assert_eq!(world.reassign("t", None), ErrorCode::NONE);
    assert_eq!(world.replicas(topic).0, [2, 1]);
}

#[test]
fn nothing_is_cancelled_that_would_leave_nobody_in_sync() {
    for unclean in ["false", "true"] {
        let mut world = World::with_brokers(3, &[]);
        let topic = world.create_on("t", &[1], &[("unclean.leader.election.enable", unclean)]);
        world.reassign("t", Some(&[2, 3]));
        world.set_isr(topic, &[1, 2]);
        world.silence_all_but(&[2, 3]);
        assert_eq!(world.state(topic), (Some(2), vec![2], vec![], 1, 3), "only 2 has everything");
        let allowed = unclean == "true";
        let code = if allowed { ErrorCode::NONE } else { ErrorCode::INVALID_REPLICA_ASSIGNMENT };
        assert_eq!(world.reassign("t", None), code);
        assert_eq!(world.partition(topic).leader, if allowed { None } else { Some(2) });
        if allowed {
            world.join(1);
            assert_eq!(world.state(topic).1, [1]);
            let recovery = world.partition(topic).leader_recovery_state;
            assert_eq!(recovery, crate::metadata::LeaderRecoveryState::Recovering);
        }
    }
}

#[test]
fn a_target_that_cannot_be_is_refused() {
    let mut world = World::with_brokers(2, &[]);
    world.create_on("t", &[1, 2], &[]);
    for target in [&[][..], &[1, 1], &[1, 9]] {
        assert_eq!(world.reassign("t", Some(target)), ErrorCode::INVALID_REPLICA_ASSIGNMENT, "{target:?}");
    }
    assert_eq!(world.reassign("u", Some(&[1])), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let partition = ReassignablePartition::default().with_replicas(Some(brokers(&[1])));
    let topic = ReassignableTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    let request = AlterPartitionReassignmentsRequest::default()
        .with_allow_replication_factor_change(false)
        .with_topics(vec![topic]);
    let outcome = world.controller.alter_partition_reassignments(&request);
    let response = world.settle(outcome);
    let code = ErrorCode(response.responses[0].partitions[0].error_code);
    assert_eq!(code, ErrorCode::INVALID_REPLICATION_FACTOR);
}

#[test]
fn what_is_under_way_is_listed() {
    let mut world = World::with_brokers(3, &[]);
    world.create_on("t", &[1], &[]);
    world.create_on("u", &[1], &[]);
    world.reassign("u", Some(&[2]));
    let list = |world: &mut World, topics: Option<&[&str]>| {
        let topic = |topic: &&str| {
            ListPartitionReassignmentsTopics::default()
                .with_name(name(topic))
                .with_partition_indexes(vec![0, 7])
        };
        let request = ListPartitionReassignmentsRequest::default()
            .with_topics(topics.map(|topics| topics.iter().map(topic).collect()));
        let outcome = world.controller.list_partition_reassignments(&request);
        let topics = world.settle(outcome).topics;
        let one = |topic: &klamm_wire::messages::list_partition_reassignments_response::OngoingTopicReassignment| {
            let p = &topic.partitions[0];
            (topic.name.to_string(), p.replicas.clone(), p.adding_replicas.clone(), p.removing_replicas.clone())
        };
        topics.iter().map(one).collect::<Vec<_>>()
    };
    let expected = vec![("u".to_owned(), brokers(&[2, 1]), brokers(&[2]), brokers(&[1]))];
    assert_eq!(list(&mut world, None), expected);
    assert_eq!(list(&mut world, Some(&["u", "t", "none"])), expected);
    assert_eq!(list(&mut world, Some(&["t"])), []);
}

#[test]
fn the_preferred_replica_leads_when_asked_for_and_in_sync() {
    let mut world = World::with_brokers(2, &[]);
    let topic = world.create_on("t", &[1, 2], &[]);
    assert_eq!(world.elect("t", 0), ErrorCode::ELECTION_NOT_NEEDED);
    world.silence_all_but(&[2]);
    assert_eq!(world.partition(topic).leader, Some(2));
    assert_eq!(world.elect("t", 0), ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE);
    world.beat(1);
    assert_eq!(world.elect("t", 0), ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE, "alive, but not in sync");
    world.set_isr(topic, &[2, 1]);
    assert_eq!(world.elect("t", 0), ErrorCode::NONE);
    assert_eq!(world.partition(topic).leader, Some(1));
    assert_eq!(world.elect("u", 0), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[test]
fn an_unclean_leader_is_elected_only_when_asked_for() {
    let mut world = World::with_brokers(2, &[]);
    let topic = world.create_on("t", &[1, 2], &[]);
    assert_eq!(world.elect("t", 1), ErrorCode::ELECTION_NOT_NEEDED);
    world.set_isr(topic, &[1]);
    world.silence_all_but(&[2]);
    assert_eq!(world.partition(topic).leader, None, "1 alone has everything");
    assert_eq!(world.elect("t", 0), ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE);
    assert_eq!(world.elect("t", 1), ErrorCode::NONE);
    assert_eq!(world.state(topic), (Some(2), vec![2], vec![], 2, 3));
    let recovery = world.partition(topic).leader_recovery_state;
    assert_eq!(recovery, crate::metadata::LeaderRecoveryState::Recovering);
}

#[test]
fn an_election_type_that_is_not_known_is_refused() {
    let mut world = World::with_brokers(1, &[]);
    world.create_on("t", &[1], &[]);
    assert_eq!(world.elect("t", 2), ErrorCode::INVALID_REQUEST);
}

#[test]
fn an_election_of_everything_names_only_what_it_did() {
    let mut world = World::with_brokers(2, &[]);
    world.create_on("led", &[1], &[]);
    let topic = world.create_on("t", &[1, 2], &[]);
    world.silence_all_but(&[2]);
    world.beat(1);
    world.set_isr(topic, &[2, 1]);
    let request = ElectLeadersRequest::default().with_topic_partitions(None);
    let outcome = world.controller.elect_leaders(&request);
    let results = world.settle(outcome).replica_election_results;
    let shown: Vec<_> =
        results.iter().map(|topic| (topic.topic.to_string(), topic.partition_result.len())).collect();
    assert_eq!(shown, [("led".to_owned(), 0), ("t".to_owned(), 1)]);
    assert_eq!(world.partition(topic).leader, Some(1));
}

#[test]
fn leaders_go_back_to_the_preferred_replicas_by_themselves() {
    let interval = ("leader.imbalance.check.interval.seconds", "20");
    for enabled in [true, false] {
        let setting = ("auto.leader.rebalance.enable", if enabled { "true" } else { "false" });
        let mut world = World::with_brokers(2, &[interval, setting]);
        let topic = world.create_on("t", &[1, 2], &[]);
        world.silence_all_but(&[2]);
        world.beat(1);
        world.set_isr(topic, &[2, 1]);
        world.now += Tick::from_secs(8);
        world.beat(1);
        world.beat(2);
        let outcome = world.controller.on_deadline(world.now);
        world.settle(outcome);
        assert_eq!(world.partition(topic).leader, Some(2), "not yet");
        world.now = Tick::from_secs(20);
        world.beat(1);
        world.beat(2);
        let outcome = world.controller.on_deadline(world.now);
        world.settle(outcome);
        assert_eq!(world.partition(topic).leader, Some(if enabled { 1 } else { 2 }));
    }
}

#[test]
fn a_broker_that_is_unregistered_leads_nothing_and_is_gone() {
    let mut world = World::with_brokers(3, &[]);
    let topic = world.create_on("t", &[1, 2], &[]);
    assert_eq!(world.unregister(9), ErrorCode::BROKER_ID_NOT_REGISTERED);
    let request = world.heartbeat(1);
    assert_eq!(world.unregister(1), ErrorCode::NONE);
    assert!(world.reader.broker(1).is_none());
    assert_eq!(world.state(topic).1, [2]);
    assert_eq!(world.partition(topic).replicas, [1, 2], "drained by whoever unregisters it, not by this");
    let answer = world.beat_with(&request);
    assert_eq!(ErrorCode(answer.error_code), ErrorCode::STALE_BROKER_EPOCH);
    world.join(1);
    world.set_isr(topic, &[2, 1]);
}
