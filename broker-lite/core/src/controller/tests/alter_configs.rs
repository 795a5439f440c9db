//! Settings that change while the cluster runs.

use klamm_wire::messages::alter_configs_request as replacing;
use klamm_wire::messages::{AlterConfigsRequest, CreateTopicsRequest};

use super::*;
use crate::controller::{ResourceChange, check_at_broker};
use crate::metadata::ConfigResource;

const T: (i8, &str) = (2, "t");
const ALL: (i8, &str) = (4, "");

impl World {
    fn setting(&self, (kind, resource): (i8, &str), key: &str) -> Option<&str> {
        let configs = self.reader.configs(&ConfigResource::new(kind, resource));
        configs.get(key).map(String::as_str)
    }
}

#[test]
fn a_setting_is_set_and_deleted_again() {
    let mut world = World::with_brokers(1, &[]);
    world.create_on("t", &[1], &[]);
    assert_eq!(world.configure(T, 0, "retention.ms", Some(" 5 ")), ErrorCode::NONE);
    assert_eq!(world.setting(T, "retention.ms"), Some("5"));
    assert_eq!(world.configure(T, 1, "retention.ms", None), ErrorCode::NONE);
    assert_eq!(world.setting(T, "retention.ms"), None);
}

#[test]
fn a_list_grows_and_shrinks_from_its_default_on() {
    let mut world = World::with_brokers(1, &[]);
    world.create_on("t", &[1], &[]);
    let key = "cleanup.policy";
    assert_eq!(world.configure(T, 2, key, Some("compact")), ErrorCode::NONE);
    assert_eq!(world.setting(T, key), Some("delete,compact"));
    assert_eq!(world.configure(T, 2, key, Some("compact")), ErrorCode::NONE);
    assert_eq!(world.configure(T, 3, key, Some("delete")), ErrorCode::NONE);
    assert_eq!(world.setting(T, key), Some("compact"));
    assert_eq!(world.configure(T, 2, key, Some("shred")), ErrorCode::INVALID_CONFIG);
    assert_eq!(world.configure(T, 2, "retention.ms", Some("1")), ErrorCode::INVALID_CONFIG, "no list");
}

#[test]
fn what_cannot_be_set_is_refused_with_its_code() {
    let mut world = World::with_brokers(1, &[]);
    world.create_on("t", &[1], &[]);
    let long = "x".repeat(40_000);
    for (resource, key, value, code) in [
        (T, "retention.ms", "x", ErrorCode::INVALID_CONFIG),
        (T, "no.such", "x", ErrorCode::INVALID_CONFIG),
        ((2, "u"), "retention.ms", "1", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ((4, "9"), "log.roll.ms", "1", ErrorCode::BROKER_ID_NOT_REGISTERED),
        ((4, "1"), "broker.rack", "r", ErrorCode::INVALID_REQUEST),
        ((4, "x"), "log.roll.ms", "1", ErrorCode::INVALID_REQUEST),
        ((4, "1"), "min.insync.replicas", "2", ErrorCode::INVALID_CONFIG),
        ((4, "1"), "plug.in", &long, ErrorCode::INVALID_CONFIG),
        ((16, "m"), "interval.ms", "1", ErrorCode::INVALID_REQUEST),
    ] {
        assert_eq!(world.configure(resource, 0, key, Some(value)), code, "{resource:?} {key}");
    }
    assert_eq!(world.configure(ALL, 1, "min.insync.replicas", None), ErrorCode::INVALID_CONFIG);
    assert_eq!(world.configure(T, 9, "retention.ms", Some("1")), ErrorCode::INVALID_REQUEST);
}

#[test]
fn a_broker_refuses_what_is_not_its_own_before_the_controller_is_asked() {
    let resource = |kind: i8, resource: &str, configs: &[(&str, i8, Option<&str>)]| {
        let configs = configs.iter().map(|(key, operation, value)| {
            AlterableConfig::default()
                .with_name(text(key))
                .with_config_operation(*operation)
                .with_value(value.map(text))
        });
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(resource))
            .with_configs(configs.collect())
    };
    let roll = ("log.roll.ms", 0, Some("5"));
    for (fits, resource) in [
        (true, resource(4, "1", &[roll])),
        (true, resource(4, "", &[roll])),
        (true, resource(2, "whatever", &[("retention.ms", 1, None)])),
        (false, resource(4, "2", &[roll])),
        (false, resource(4, "one", &[roll])),
        (false, resource(4, "1", &[roll, roll])),
        (false, resource(4, "1", &[("log.roll.ms", 0, None)])),
        (false, resource(4, "1", &[("node.id", 0, Some("7"))])),
        (false, resource(4, "1", &[("log.roll.ms", 0, Some("never"))])),
        (false, resource(4, "1", &[("log.roll.ms", 2, Some("1"))])),
        (false, resource(8, "1", &[])),
    ] {
        let refused = check_at_broker(1, &[ResourceChange::from(&resource)]);
        assert_eq!(refused[0].is_none(), fits, "{resource:?} {refused:?}");
    }
    let twice = resource(2, "t", &[]);
    let refused = check_at_broker(1, &[ResourceChange::from(&twice), ResourceChange::from(&twice)]);
    assert!(refused.iter().all(Option::is_some), "neither of the two is taken");
}

#[test]
fn the_older_request_deletes_what_it_does_not_name() {
    let mut world = World::with_brokers(1, &[]);
    world.create_on("t", &[1], &[("retention.ms", "1"), ("segment.ms", "2")]);
    let config =
        replacing::AlterableConfig::default().with_name(text("segment.ms")).with_value(Some(text("3")));
    let resource = replacing::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configs(vec![config]);
    for validate_only in [true, false] {
        let request = AlterConfigsRequest::default()
            .with_resources(vec![resource.clone()])
            .with_validate_only(validate_only);
        let outcome = world.controller.alter_configs(&request);
        assert_eq!(world.settle(outcome).responses[0].error_code, 0);
        let kept = validate_only.then_some("1");
        assert_eq!(world.setting(T, "retention.ms"), kept);
    }
    assert_eq!(world.setting(T, "segment.ms"), Some("3"));
}

#[test]
fn what_is_set_for_all_brokers_is_what_new_topics_inherit() {
    let mut world = World::with_brokers(2, &[]);
    assert_eq!(world.setting(ALL, "min.insync.replicas"), Some("1"), "eligible leaders rely on it");
    assert_eq!(world.configure(ALL, 0, "min.insync.replicas", Some("2")), ErrorCode::NONE);
    let topic =
        CreatableTopic::default().with_name(name("t")).with_num_partitions(1).with_replication_factor(2);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    let outcome = world.controller.create_topics(&request);
    let created = world.settle(outcome).topics[0].clone();
    let configs = created.configs.unwrap();
    let min = configs.iter().find(|config| &*config.name == "min.insync.replicas").unwrap();
    assert_eq!((min.value.as_deref(), min.config_source), (Some("2"), 3));
    world.set_isr(created.topic_id, &[world.partition(created.topic_id).leader.unwrap()]);
    assert_eq!(world.partition(created.topic_id).elr.len(), 1, "the other one stays eligible below two");
}

/// Goal: with the smaller minimum, the leader commits what the eligible one does not have.
#[test]
fn nobody_stays_eligible_when_a_smaller_isr_is_enough() {
    let mut world = World::with_brokers(2, &[]);
    let topic = world.create_on("t", &[1, 2], &[("min.insync.replicas", "2")]);
    world.set_isr(topic, &[1]);
    assert_eq!(world.partition(topic).elr, [2]);
    assert_eq!(world.configure(T, 0, "min.insync.replicas", Some("1")), ErrorCode::NONE);
    assert_eq!(world.partition(topic).elr, [] as [i32; 0]);
}

#[test]
fn a_topic_that_begins_to_allow_an_unclean_leader_gets_one_at_once() {
    let mut world = World::with_brokers(2, &[]);
    let topic = world.create_on("t", &[1, 2], &[]);
    world.set_isr(topic, &[1]);
    world.silence_all_but(&[2]);
    assert_eq!(world.partition(topic).leader, None);
    assert_eq!(world.configure(T, 0, "unclean.leader.election.enable", Some("true")), ErrorCode::NONE);
    assert_eq!(world.partition(topic).leader, Some(2));
}
