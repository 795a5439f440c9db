use super::*;

#[test]
fn the_next_member_of_the_isr_in_replica_order_leads_when_the_leader_dies() {
    let mut world = World::with_brokers(4, &[]);
    let topic = world.create_on("t", &[3, 1, 2], &[]);
    world.set_isr(topic, &[3, 2, 1]);
    world.silence_all_but(&[1, 2, 4]);
    assert_eq!(world.state(topic), (Some(1), vec![2, 1], vec![], 1, 2));
    assert_eq!(world.reader.offline_replicas(world.partition(topic)), [3]);
}

#[test]
fn a_replica_outside_the_isr_is_passed_over() {
    let mut world = World::with_brokers(3, &[]);
    let topic = world.create_on("t", &[1, 2, 3], &[]);
    world.set_isr(topic, &[1, 3]);
    world.silence_all_but(&[2, 3]);
    assert_eq!(world.state(topic), (Some(3), vec![3], vec![], 1, 2));
}

#[test]
fn a_dead_follower_leaves_the_isr_and_the_leader_epoch_stays() {
    let mut world = World::with_brokers(3, &[]);
    let topic = world.create_on("t", &[1, 2, 3], &[]);
    world.silence_all_but(&[1, 3]);
    assert_eq!(world.state(topic), (Some(1), vec![1, 3], vec![], 0, 1));
}

/// Goal: leadership must not hop to a broker whose death is already known.
#[test]
fn brokers_that_die_together_do_not_inherit_from_each_other() {
    let mut world = World::with_brokers(3, &[]);
    let topic = world.create_on("t", &[1, 2, 3], &[]);
    world.silence_all_but(&[3]);
    assert_eq!(world.state(topic), (Some(3), vec![3], vec![], 1, 1), "one election, straight to 3");
}

#[test]
fn the_last_member_of_the_isr_stays_eligible_and_leads_again_when_it_reports_again() {
    let mut world = World::with_brokers(3, &[]);
    let topic = world.create_on("t", &[1, 2], &[]);
    world.set_isr(topic, &[1]);
    world.silence_all_but(&[2, 3]);
    assert_eq!(world.state(topic), (None, vec![], vec![1], 1, 2), "2 may lack committed records");
    world.beat(2);
    assert_eq!(world.state(topic), (None, vec![], vec![1], 1, 2));

    world.beat(1);
    assert_eq!(world.state(topic), (Some(1), vec![1], vec![], 2, 3));
    assert_eq!(world.partition(topic).leader_recovery_state.code(), 0);
}

/// Goal: KIP-966. While the ISR is below min.insync.replicas nothing commits, so who left then may lead.
#[test]
fn replicas_that_left_an_isr_below_the_minimum_may_lead() {
    let mut world = World::with_brokers(4, &[]);
    let topic = world.create_on("t", &[1, 2, 3], &[("min.insync.replicas", "2")]);
    world.silence_all_but(&[1, 2, 4]);
    assert_eq!(world.state(topic), (Some(1), vec![1, 2], vec![], 0, 1), "still at the minimum");
    world.silence_all_but(&[1, 4]);
    assert_eq!(world.state(topic), (Some(1), vec![1], vec![2], 0, 2));
    world.silence_all_but(&[4]);
    assert_eq!(world.state(topic), (None, vec![], vec![1, 2], 1, 3));

    world.beat(3);
    assert_eq!(world.partition(topic).leader, None, "3 left while records were still committed");
    world.beat(2);
    assert_eq!(world.state(topic), (Some(2), vec![2], vec![1], 2, 4));
    world.beat(1);
    world.set_isr(topic, &[2, 1]);
    assert_eq!(world.state(topic), (Some(2), vec![2, 1], vec![], 2, 5), "at the minimum nobody is eligible");
}

#[test]
fn a_minimum_above_the_number_of_replicas_counts_as_that_number() {
    let mut world = World::with_brokers(3, &[("min.insync.replicas", "3")]);
    let topic = world.create_on("t", &[1, 2], &[]);
    assert_eq!(world.state(topic), (Some(1), vec![1, 2], vec![], 0, 0));
    world.silence_all_but(&[1, 3]);
    assert_eq!(world.state(topic), (Some(1), vec![1], vec![2], 0, 1));
    world.beat(2);
    world.set_isr(topic, &[1, 2]);
    assert_eq!(world.partition(topic).elr, [] as [i32; 0]);
}

/// Goal: a process that was killed may have lost the end of its log; it must catch up before it counts.
#[test]
fn a_broker_that_comes_back_from_an_unclean_death_is_out_of_isr_and_elr() {
    let mut world = World::with_brokers(4, &[]);
    let topic = world.create_on("t", &[1, 2], &[("min.insync.replicas", "2")]);
    world.silence_all_but(&[1, 3, 4]);
    assert_eq!(world.state(topic), (Some(1), vec![1], vec![2], 0, 1));
    world.join(2);
    assert_eq!(world.state(topic), (Some(1), vec![1], vec![], 0, 2));
    world.silence_all_but(&[2, 3, 4]);
    assert_eq!(world.state(topic), (None, vec![], vec![1], 1, 3), "2 must not lead");
}

#[test]
fn a_broker_that_shut_down_cleanly_stays_eligible() {
    let mut world = World::with_brokers(4, &[]);
    let topic = world.create_on("t", &[1, 2], &[("min.insync.replicas", "2")]);
    let request = world.heartbeat(2).with_want_shut_down(true);
    assert!(world.beat_with(&request).should_shut_down);
    assert_eq!(world.state(topic), (Some(1), vec![1], vec![2], 0, 1));
    let back = world.registration(2).with_previous_broker_epoch(world.epoch(2));
    world.join_with(&back);
    assert_eq!(world.state(topic), (Some(1), vec![1], vec![2], 0, 1));
}

#[test]
fn a_broker_that_claims_another_epoch_than_its_last_has_died_uncleanly() {
    let mut world = World::with_brokers(4, &[]);
    let topic = world.create_on("t", &[1, 2], &[("min.insync.replicas", "2")]);
    world.silence_all_but(&[1, 3, 4]);
    let back = world.registration(2).with_previous_broker_epoch(world.epoch(2) - 1);
    world.join_with(&back);
    assert_eq!(world.partition(topic).elr, [] as [i32; 0]);
}

/// Nobody is left who surely has every committed record: the last leader has most of them, and says
/// that it is recovering.
#[test]
fn the_last_leader_is_elected_when_nobody_eligible_is_left() {
    let mut world = World::with_brokers(3, &[]);
    let topic = world.create_on("t", &[1], &[]);
    world.silence_all_but(&[2, 3]);
    assert_eq!(world.state(topic), (None, vec![], vec![1], 1, 1));
    assert_eq!(world.partition(topic).last_known_elr, [1]);

    world.join(1);
    let p = world.partition(topic);
    assert_eq!((p.leader, p.isr.as_slice(), p.leader_epoch), (Some(1), &[1][..], 2));
    assert_eq!((p.leader_recovery_state.code(), p.last_known_elr.as_slice()), (1, &[][..]));
}

/// Goal: the last leader may lack what an eligible replica has; it must wait for that one, however long.
#[test]
fn the_last_leader_waits_while_somebody_eligible_may_come_back() {
    let mut world = World::with_brokers(3, &[]);
    let topic = world.create_on("t", &[1, 2], &[("min.insync.replicas", "2")]);
    world.silence_all_but(&[1, 3]);
    world.silence_all_but(&[3]);
    assert_eq!(world.state(topic), (None, vec![], vec![1, 2], 1, 2));
    world.join(1);
    assert_eq!(world.state(topic), (None, vec![], vec![2], 1, 3), "2 has everything, 1 perhaps not");

    world.join(2);
    let p = world.partition(topic);
    assert_eq!((p.leader, p.leader_recovery_state.code()), (Some(1), 1), "now nobody surely has everything");
}

#[test]
fn another_replica_than_the_last_leader_is_elected_only_if_the_topic_allows_it() {
    for (allowed, leader) in [("false", None), ("true", Some(2))] {
        let mut world = World::with_brokers(3, &[]);
        let topic = world.create_on("t", &[1, 2], &[("unclean.leader.election.enable", allowed)]);
        world.set_isr(topic, &[1]);
        world.silence_all_but(&[2, 3]);
        assert_eq!(world.partition(topic).leader, leader, "{allowed}");
        assert_eq!(world.partition(topic).leader_recovery_state.code(), i8::from(leader.is_some()));
    }
}

#[test]
fn partitions_of_other_brokers_are_left_alone() {
    let mut world = World::with_brokers(4, &[]);
    let other = world.create_on("other", &[2, 3], &[]);
    world.delta = Delta::default();
    world.silence_all_but(&[2, 3, 4]);
    assert_eq!(world.state(other).4, 0);
    assert_eq!(world.delta.partitions.len(), 0);
    assert_eq!(world.delta.brokers.iter().copied().collect::<Vec<_>>(), [1]);
}
