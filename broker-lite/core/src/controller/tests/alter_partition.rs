use super::*;

fn refused(world: &mut World, broker: i32, topic: Uuid, wish: PartitionData) -> ErrorCode {
    let before = world.reader.next_offset();
    let altered = world.alter_as(broker, topic, wish);
    assert_eq!(world.reader.next_offset(), before, "a refusal writes nothing");
    ErrorCode(altered.error_code)
}

/// Refused, and no other request of the same kind is carried out either.
fn refused_for_good(world: &mut World, broker: i32, topic: Uuid, wish: PartitionData) -> ErrorCode {
    let before = world.partition(topic).clone();
    let altered = world.alter_as(broker, topic, wish);
    let touched = PartitionRegistration { partition_epoch: before.partition_epoch + 1, ..before };
    assert_eq!(*world.partition(topic), touched, "nothing else changes");
    ErrorCode(altered.error_code)
}

fn three() -> (World, Uuid) {
    let mut world = World::with_brokers(4, &[]);
    let topic = world.create_on("t", &[1, 2, 3], &[]);
    (world, topic)
}

#[test]
fn a_leader_shrinks_and_grows_its_isr() {
    let (mut world, topic) = three();
    let wish = world.wish(topic, &[1, 3]);
    let altered = world.alter_as(1, topic, wish);
    assert_eq!((altered.error_code, altered.leader_id.0, altered.leader_epoch), (0, 1, 0));
    assert_eq!(
        (altered.isr, altered.partition_epoch, altered.leader_recovery_state),
        (brokers(&[1, 3]), 1, 0)
    );
    assert_eq!(world.state(topic), (Some(1), vec![1, 3], vec![], 0, 1));

    world.set_isr(topic, &[1, 2, 3]);
    assert_eq!(world.state(topic), (Some(1), vec![1, 2, 3], vec![], 0, 2), "the leader epoch stays");
    assert!(world.delta.partitions.contains(&(topic, 0)));
}

#[test]
fn version_2_tells_no_broker_epochs() {
    let (mut world, topic) = three();
    let wish = world.wish(topic, &[]).with_new_isr(brokers(&[1, 2]));
    assert_eq!(world.alter_as(1, topic, wish).isr, brokers(&[1, 2]));
}

#[test]
fn asking_for_what_is_there_is_answered_without_a_record() {
    let (mut world, topic) = three();
    let before = world.reader.next_offset();
    let wish = world.wish(topic, &[1, 2, 3]);
    let altered = world.alter_as(1, topic, wish);
    assert_eq!((altered.error_code, altered.partition_epoch), (0, 0));
    assert_eq!(world.reader.next_offset(), before);
}

#[test]
fn a_former_registration_is_stale_and_nothing_is_answered_per_partition() {
    let (mut world, topic) = three();
    let topics = vec![TopicData::default().with_topic_id(topic)];
    let request =
        AlterPartitionRequest::default().with_broker_id(BrokerId(1)).with_broker_epoch(0).with_topics(topics);
    let outcome = world.controller.alter_partition(&request);
    let response = world.settle(outcome);
    assert_eq!(ErrorCode(response.error_code), ErrorCode::STALE_BROKER_EPOCH);
    assert!(response.topics.is_empty());
}

#[test]
fn unknown_topics_and_partitions_are_told_apart() {
    let (mut world, topic) = three();
    let wish = world.wish(topic, &[1]);
    let nobody = Uuid::from_u128(99);
    assert_eq!(refused(&mut world, 1, nobody, wish.clone()), ErrorCode::UNKNOWN_TOPIC_ID);
    let wish = wish.with_partition_index(5);
    assert_eq!(refused(&mut world, 1, topic, wish), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[test]
fn compare_and_set_fails_on_any_other_epoch() {
    let (mut world, topic) = three();
    world.set_isr(topic, &[1, 2]);
    let wish = world.wish(topic, &[1]);
    let cases = [
        (wish.clone().with_partition_epoch(0), ErrorCode::INVALID_UPDATE_VERSION),
        (wish.clone().with_partition_epoch(2), ErrorCode::NOT_CONTROLLER),
        (wish.clone().with_leader_epoch(1), ErrorCode::NOT_CONTROLLER),
        (wish.clone().with_leader_epoch(-1), ErrorCode::FENCED_LEADER_EPOCH),
    ];
    for (wish, code) in cases {
        assert_eq!(refused(&mut world, 1, topic, wish), code);
    }
    assert_eq!(refused(&mut world, 2, topic, wish), ErrorCode::INVALID_REQUEST, "2 does not lead");
}

#[test]
fn a_deposed_leader_is_fenced() {
    let (mut world, topic) = three();
    let wish = world.wish(topic, &[1]);
    world.silence_all_but(&[2, 3, 4]);
    world.beat(1);
    assert_eq!(refused(&mut world, 1, topic, wish), ErrorCode::FENCED_LEADER_EPOCH);
}

#[test]
fn an_isr_that_is_none_is_refused() {
    let (mut world, topic) = three();
    for isr in [&[][..], &[2, 3], &[1, 1], &[1, 4]] {
        let wish = world.wish(topic, isr);
        assert_eq!(refused(&mut world, 1, topic, wish), ErrorCode::INVALID_REQUEST, "{isr:?}");
    }
    for state in [1, 2] {
        let wish = world.wish(topic, &[1]).with_leader_recovery_state(state);
        assert_eq!(refused(&mut world, 1, topic, wish), ErrorCode::INVALID_REQUEST, "state {state}");
    }
}

#[test]
fn a_fenced_replica_cannot_be_in_sync() {
    let (mut world, topic) = three();
    world.silence_all_but(&[1, 2, 4]);
    let wish = world.wish(topic, &[1, 2, 3]);
    assert_eq!(refused_for_good(&mut world, 1, topic, wish.clone()), ErrorCode::INELIGIBLE_REPLICA);
    world.join(3);
    assert_eq!(refused(&mut world, 1, topic, wish), ErrorCode::INVALID_UPDATE_VERSION, "another copy of it");
    world.set_isr(topic, &[1, 2, 3]);
}

#[test]
fn a_replica_that_is_shutting_down_cannot_be_in_sync() {
    let (mut world, topic) = three();
    world.create_on("led-by-3", &[3, 1], &[]);
    let request = world.heartbeat(3).with_want_shut_down(true);
    world.beat_with(&request);
    assert_eq!(world.partition(topic).isr, [1, 2]);
    let wish = world.wish(topic, &[1, 2, 3]);
    assert_eq!(refused_for_good(&mut world, 1, topic, wish), ErrorCode::INELIGIBLE_REPLICA);
}

/// Goal: KIP-903. The leader saw broker 3 catch up, then 3 restarted and may have lost what it had.
#[test]
fn a_replica_that_has_restarted_since_it_caught_up_cannot_be_in_sync() {
    let (mut world, topic) = three();
    let caught_up = world.epoch(3);
    world.silence_all_but(&[1, 2, 4]);
    world.join(3);
    let members = with_epochs(&[(1, world.epoch(1)), (2, world.epoch(2)), (3, caught_up)]);
    let wish = world.wish(topic, &[]).with_new_isr_with_epochs(members);
    assert_eq!(refused_for_good(&mut world, 1, topic, wish), ErrorCode::INELIGIBLE_REPLICA);
    world.set_isr(topic, &[1, 2, 3]);
}

#[test]
fn partitions_of_one_request_stand_alone() {
    let (mut world, topic) = three();
    let good = world.wish(topic, &[1]);
    let bad = good.clone().with_partition_index(7);
    let topics = vec![TopicData::default().with_topic_id(topic).with_partitions(vec![bad, good])];
    let request = AlterPartitionRequest::default()
        .with_broker_id(BrokerId(1))
        .with_broker_epoch(world.epoch(1))
        .with_topics(topics);
    let outcome = world.controller.alter_partition(&request);
    let response = world.settle(outcome);
    let codes: Vec<_> = response.topics[0].partitions.iter().map(|p| ErrorCode(p.error_code)).collect();
    assert_eq!(codes, [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::NONE]);
    assert_eq!(world.partition(topic).isr, [1]);
}

#[test]
fn a_recovering_leader_is_alone_until_it_says_that_it_has_recovered() {
    let mut world = World::with_brokers(3, &[]);
    let topic = world.create_on("t", &[1, 2], &[("unclean.leader.election.enable", "true")]);
    world.set_isr(topic, &[1]);
    world.silence_all_but(&[2, 3]);
    assert_eq!(world.partition(topic).leader, Some(2));
    assert_eq!(world.partition(topic).leader_recovery_state.code(), 1);
    world.beat(1);

    let both = world.wish(topic, &[1, 2]).with_leader_recovery_state(1);
    assert_eq!(refused(&mut world, 2, topic, both), ErrorCode::INVALID_REQUEST);
    let recovered = world.wish(topic, &[2]);
    assert_eq!(world.alter_as(2, topic, recovered).leader_recovery_state, 0);
    assert_eq!(world.state(topic), (Some(2), vec![2], vec![], 1, 3));
    world.set_isr(topic, &[1, 2]);
}
