use std::collections::BTreeMap;

use klamm_wire::messages::AllocateProducerIdsRequest;
use klamm_wire::messages::broker_registration_request::Feature;
use klamm_wire::metadata_records::ProducerIdsRecord;
use proptest::prelude::*;

use super::*;

fn code(response: &BrokerRegistrationResponse) -> ErrorCode {
    ErrorCode(response.error_code)
}

#[test]
fn a_new_cluster_begins_with_its_features_and_its_id() {
    let mut world = World::new(&[]);
    let features: Vec<_> =
        world.reader.features().iter().map(|(name, level)| (name.as_str(), *level)).collect();
    assert_eq!(features, [("eligible.leader.replicas.version", 1), ("metadata.version", 30)]);
    assert_eq!(world.reader.cluster_id(), Some("cluster"));
    assert!(world.controller.bootstrap().records.is_empty(), "only once");
}

#[test]
fn a_broker_is_registered_fenced_with_the_offset_of_its_record_as_epoch() {
    let mut world = World::new(&[]);
    let (request, offset) = (world.registration(1), world.end);
    let response = world.register(&request);

    assert_eq!((code(&response), response.broker_epoch), (ErrorCode::NONE, offset));
    let broker = world.reader.broker(1).unwrap();
    assert!(broker.fenced && !broker.is_active());
    assert_eq!(broker.rack.as_deref(), Some("RACK1"));
    assert_eq!(broker.listener("PLAINTEXT").map(|l| (l.host.as_str(), l.port)), Some(("b", 9092)));
    assert_eq!(world.reader.live_brokers().count(), 0);
    assert!(world.delta.brokers.contains(&1));
    assert_eq!(world.controller.session_deadline(), None, "a fenced broker cannot be fenced");
}

#[test]
fn another_cluster_and_senseless_identities_are_refused() {
    let mut world = World::new(&[]);
    let request = world.registration(1);
    let other = request.clone().with_cluster_id(text("other"));
    let response = world.register(&other);
    assert_eq!((code(&response), response.broker_epoch), (ErrorCode::INCONSISTENT_CLUSTER_ID, -1));
    let negative = request.clone().with_broker_id(BrokerId(-2));
    assert_eq!(code(&world.register(&negative)), ErrorCode::INVALID_REGISTRATION);
    let nameless = request.with_incarnation_id(Uuid::nil());
    assert_eq!(code(&world.register(&nameless)), ErrorCode::INVALID_REGISTRATION);
    assert!(world.reader.brokers().is_empty());
}

#[test]
fn a_broker_that_cannot_work_with_the_clusters_features_is_refused() {
    let mut world = World::new(&[]);
    let feature = |name: &str, max| {
        Feature::default().with_name(text(name)).with_min_supported_version(7).with_max_supported_version(max)
    };
    let request = world.registration(1);
    let old = request.clone().with_features(vec![feature("metadata.version", 29)]);
    assert_eq!(code(&world.register(&old)), ErrorCode::UNSUPPORTED_VERSION);
    let new = request.with_features(vec![feature("metadata.version", 30), feature("share.version", 9)]);
    assert_eq!(code(&world.register(&new)), ErrorCode::NONE);
}

#[test]
fn a_second_process_with_the_same_id_is_refused_until_the_first_is_silent_for_a_session() {
    let mut world = World::with_brokers(1, &[]);
    let second = world.registration(1);
    world.now += SESSION - MS;
    assert_eq!(code(&world.register(&second)), ErrorCode::DUPLICATE_BROKER_REGISTRATION);

    world.now += MS;
    let before = world.epoch(1);
    let response = world.register(&second);
    assert_eq!(code(&response), ErrorCode::NONE);
    assert!(response.broker_epoch > before);
    assert!(world.reader.broker(1).unwrap().fenced, "a new process starts fenced");
}

#[test]
fn nobody_waits_for_sessions_that_were_ended_and_each_replica_in_sync_may_lead() {
    let mut world = World::with_brokers(3, &[]);
    let topic = world.create_on("t", &[1, 2, 3], &[]);
    let before = world.epoch(1);
    let outcome = world.controller.end_sessions();
    world.settle(outcome);
    assert_eq!(world.reader.live_brokers().count(), 0);
    let (_, isr, elr, ..) = world.state(topic);
    assert_eq!([isr, elr].concat(), [1, 2, 3], "each may lead");
    let second = world.registration(1);
    let response = world.register(&second);
    assert_eq!(code(&response), ErrorCode::NONE);
    assert!(response.broker_epoch > before);
}

#[test]
fn the_same_process_may_register_again_and_keeps_its_epoch_and_state() {
    let mut world = World::new(&[]);
    let request = world.registration(1);
    let epoch = world.join_with(&request);
    let response = world.register(&request);
    assert_eq!((code(&response), response.broker_epoch), (ErrorCode::NONE, epoch));
    assert!(!world.reader.broker(1).unwrap().fenced);
}

#[test]
fn a_heartbeat_of_an_unknown_or_former_registration_is_stale() {
    let mut world = World::with_brokers(1, &[]);
    let good = world.heartbeat(1);
    let stranger = good.clone().with_broker_id(BrokerId(2));
    assert_eq!(ErrorCode(world.beat_with(&stranger).error_code), ErrorCode::STALE_BROKER_EPOCH);
    let former = good.with_broker_epoch(world.epoch(1) - 1);
    assert_eq!(ErrorCode(world.beat_with(&former).error_code), ErrorCode::STALE_BROKER_EPOCH);
}

#[test]
fn a_broker_is_unfenced_when_it_has_read_the_log_up_to_its_registration() {
    let mut world = World::new(&[]);
    let request = world.registration(1);
    let epoch = world.register(&request).broker_epoch;

    let behind = world.heartbeat(1).with_current_metadata_offset(epoch - 1);
    let answer = world.beat_with(&behind);
    assert_eq!((answer.is_caught_up, answer.is_fenced), (false, true));

    let wants_fence = world.heartbeat(1).with_want_fence(true);
    let answer = world.beat_with(&wants_fence);
    assert_eq!((answer.is_caught_up, answer.is_fenced), (true, true));

    let caught_up = world.heartbeat(1).with_current_metadata_offset(epoch);
    let outcome = world.controller.heartbeat(world.now, &caught_up);
    assert_eq!(kinds(&outcome.records), ["broker change"]);
    let answer = world.settle(outcome);
    assert_eq!((answer.is_caught_up, answer.is_fenced), (true, false));
    assert_eq!(world.reader.live_epoch(1), Some(epoch));
}

#[test]
fn a_heartbeat_that_changes_nothing_writes_nothing() {
    let mut world = World::with_brokers(1, &[]);
    let beat = world.heartbeat(1);
    assert!(world.controller.heartbeat(world.now, &beat).records.is_empty());
}

#[test]
fn a_broker_is_fenced_when_it_has_been_silent_for_the_session_timeout_and_not_before() {
    let mut world = World::with_brokers(2, &[("broker.session.timeout.ms", "6000")]);
    world.now += 1000 * MS;
    world.beat(2);
    assert_eq!(world.controller.deadline(), Some(6000 * MS));

    let early = world.controller.on_deadline(6000 * MS - MS);
    assert!(early.records.is_empty());
    let outcome = world.controller.on_deadline(6000 * MS);
    assert_eq!(kinds(&outcome.records), ["broker change"]);
    world.settle(outcome);
    assert!(world.reader.broker(1).unwrap().fenced);
    assert_eq!(world.controller.deadline(), Some(7000 * MS), "broker 2 is next");
}

/// Goal: a machine that stood still for a while must not bury its whole cluster when it wakes.
#[test]
fn a_controller_that_was_deaf_gives_every_session_that_time_back_and_no_more() {
    let mut world = World::with_brokers(2, &[]);
    let first = world.controller.deadline().unwrap();
    let deaf = 5 * SESSION;
    world.controller.deaf(deaf);
    assert_eq!(world.controller.deadline(), Some(first + deaf));
    assert!(world.controller.on_deadline(first + deaf - MS).records.is_empty());
    world.now = first + deaf - MS;
    world.beat(2);

    let outcome = world.controller.on_deadline(first + deaf);
    assert_eq!(kinds(&outcome.records), ["broker change"], "broker 1 had its chance");
    world.settle(outcome);
    assert!(world.reader.broker(1).unwrap().fenced);
    assert!(!world.reader.broker(2).unwrap().fenced);
}

#[derive(Debug, Clone, Copy)]
enum Moment {
    Beat(i32),
    /// The controller waits, and acts on its deadlines.
    Wait(u32),
    /// Its process stands still, is told so, and acts on its deadlines.
    Stall(u32),
}

fn moments() -> impl Strategy<Value = Vec<Moment>> {
    let beat = (1..=3).prop_map(Moment::Beat);
    let wait = (1..10_000_u32).prop_map(Moment::Wait);
    let stall = (1..100_000_u32).prop_map(Moment::Stall);
    prop::collection::vec(prop_oneof![4 => beat, 4 => wait, 1 => stall], 1..40)
}

proptest! {
    /// Goal: a machine that stood still must not bury its whole cluster when it wakes: a session is a stretch of time in
    /// which the controller could have heard of the broker.
    #[test]
    fn a_broker_is_fenced_after_a_session_in_which_the_controller_was_awake_and_not_before(
        moments in moments()
    ) {
        let mut world = World::with_brokers(3, &[]);
        let (mut awake, mut heard) = (Tick::ZERO, BTreeMap::from([1, 2, 3].map(|id| (id, Tick::ZERO))));
        for moment in moments {
            match moment {
                Moment::Beat(id) => {
                    world.beat(id);
                    heard.insert(id, awake);
                }
                Moment::Wait(ms) => {
                    world.now += ms * MS;
                    awake += ms * MS;
                }
                Moment::Stall(ms) => {
                    world.now += ms * MS;
                    world.controller.deaf(ms * MS);
                }
            }
            let outcome = world.controller.on_deadline(world.now);
            world.settle(outcome);
            for (id, heard) in &heard {
                prop_assert_eq!(world.reader.broker(*id).unwrap().fenced, awake >= *heard + SESSION, "{}", id);
            }
        }
    }
}

#[test]
fn a_fenced_broker_that_reports_again_is_unfenced_in_the_same_epoch() {
    let mut world = World::with_brokers(2, &[]);
    let epoch = world.epoch(1);
    world.silence_all_but(&[2]);
    assert_eq!(world.reader.live_epoch(1), None);
    assert!(!world.beat(1).is_fenced);
    assert_eq!(world.reader.live_epoch(1), Some(epoch));
}

#[test]
fn a_broker_may_ask_to_be_fenced() {
    let mut world = World::with_brokers(1, &[]);
    let request = world.heartbeat(1).with_want_fence(true);
    let answer = world.beat_with(&request);
    assert!(answer.is_fenced && !answer.should_shut_down);
}

#[test]
fn a_new_controller_gives_every_living_broker_a_whole_session() {
    let mut world = World::with_brokers(2, &[]);
    let late = 100 * SESSION;
    let image = world.reader.clone();
    let rng = fastrand::Rng::with_seed(1);
    world.controller = Controller::new(late, "cluster", BrokerConfig::new(), image, rng);
    assert_eq!(world.controller.deadline(), Some(late + SESSION));
    assert!(world.controller.on_deadline(late).records.is_empty());
}

/// Goal: the leader leaves only when nobody can still be told that it leads.
#[test]
fn a_controlled_shutdown_moves_leaderships_first_and_waits_until_the_others_know() {
    let mut world = World::with_brokers(3, &[]);
    let topic = world.create_on("t", &[1, 2, 3], &[]);
    world.beat(2);
    world.beat(3);
    let wants = world.heartbeat(1).with_want_shut_down(true);

    let answer = world.beat_with(&wants);
    assert!(!answer.should_shut_down && !answer.is_fenced);
    assert_eq!(world.state(topic), (Some(2), vec![2, 3], vec![], 1, 1));
    assert!(!world.reader.is_active(1) && world.reader.live_epoch(1).is_some(), "it still serves fetches");

    assert!(!world.beat_with(&wants).should_shut_down, "2 and 3 have not seen it");
    world.beat(2);
    assert!(!world.beat_with(&wants).should_shut_down, "3 has not seen it");
    world.beat(3);
    let answer = world.beat_with(&wants);
    assert!(answer.should_shut_down && answer.is_fenced);

    let next = world.registration(1);
    assert_eq!(code(&world.register(&next)), ErrorCode::NONE, "nobody waits for the session of one who left");
}

#[test]
fn a_process_that_was_killed_on_its_way_out_need_not_be_waited_for() {
    let mut world = World::with_brokers(2, &[]);
    world.create_on("t", &[1, 2], &[]);
    let wants = world.heartbeat(1).with_want_shut_down(true);
    assert!(!world.beat_with(&wants).should_shut_down);
    let next = world.registration(1);
    assert_eq!(code(&world.register(&next)), ErrorCode::NONE);
}

#[test]
fn a_broker_that_leads_nothing_may_shut_down_at_once() {
    let mut world = World::with_brokers(2, &[]);
    let wants = world.heartbeat(1).with_want_shut_down(true);
    let answer = world.beat_with(&wants);
    assert!(answer.should_shut_down && answer.is_fenced);
    let answer = world.beat_with(&wants);
    assert!(answer.should_shut_down, "also when asked again");
}

#[test]
fn the_last_broker_may_shut_down_and_takes_up_its_partitions_again() {
    let mut world = World::with_brokers(1, &[]);
    let topic = world.create_on("t", &[1], &[]);
    let wants = world.heartbeat(1).with_want_shut_down(true);
    assert!(!world.beat_with(&wants).should_shut_down);
    assert_eq!(world.state(topic), (None, vec![], vec![1], 1, 1));
    assert!(world.beat_with(&wants).should_shut_down);

    let request = world.registration(1).with_previous_broker_epoch(world.epoch(1));
    world.join_with(&request);
    assert_eq!(world.state(topic), (Some(1), vec![1], vec![], 2, 2));
    assert_eq!(world.partition(topic).leader_recovery_state.code(), 0);
}

#[test]
fn producer_ids_come_in_blocks_that_never_overlap() {
    let mut world = World::with_brokers(2, &[]);
    let mut starts = vec![];
    for id in [1, 2, 1] {
        let request = AllocateProducerIdsRequest::default()
            .with_broker_id(BrokerId(id))
            .with_broker_epoch(world.epoch(id));
        let outcome = world.controller.allocate_producer_ids(&request);
        assert_eq!(kinds(&outcome.records), ["producer ids"]);
        let response = world.settle(outcome);
        assert_eq!((response.error_code, response.producer_id_len), (0, 1000));
        starts.push(response.producer_id_start.0);
    }
    assert_eq!(starts, [0, 1000, 2000]);
    assert_eq!(world.reader.next_producer_id(), 3000);
}

#[test]
fn producer_ids_are_refused_to_a_former_registration_and_when_none_is_left() {
    let mut world = World::with_brokers(1, &[]);
    let request = AllocateProducerIdsRequest::default().with_broker_id(BrokerId(1)).with_broker_epoch(0);
    let outcome = world.controller.allocate_producer_ids(&request);
    assert_eq!(ErrorCode(world.settle(outcome).error_code), ErrorCode::STALE_BROKER_EPOCH);

    let last = ProducerIdsRecord { broker_id: 1, broker_epoch: 0, next_producer_id: i64::MAX - 999 };
    world.controller.emit(last);
    let request = request.with_broker_epoch(world.epoch(1));
    let outcome = world.controller.allocate_producer_ids(&request);
    assert_eq!(ErrorCode(world.settle(outcome).error_code), ErrorCode::UNKNOWN_SERVER_ERROR);
}
