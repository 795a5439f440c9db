use klamm_wire::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use klamm_wire::messages::create_topics_response::CreatableTopicResult;
use klamm_wire::messages::delete_topics_request::DeleteTopicState;
use klamm_wire::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};

use super::*;
use crate::metadata::ConfigResource;

fn topic(topic: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

fn assigned(partitions: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |(index, ids): &(i32, &[i32])| {
        CreatableReplicaAssignment::default().with_partition_index(*index).with_broker_ids(brokers(ids))
    };
    topic("t", -1, -1).with_assignments(partitions.iter().map(assignment).collect())
}

fn configured(key: &str, value: Option<&str>) -> CreatableTopic {
    let config = CreatableTopicConfig::default().with_name(text(key)).with_value(value.map(text));
    topic("t", 1, 1).with_configs(vec![config])
}

impl World {
    fn create(&mut self, topic: CreatableTopic) -> CreatableTopicResult {
        self.create_with(topic).topics[0].clone()
    }

    /// Code and message of a topic that must not be created.
    fn refuse(&mut self, topic: CreatableTopic) -> (ErrorCode, String) {
        let before = self.reader.next_offset();
        let result = self.create(topic);
        assert_eq!(self.reader.next_offset(), before, "a refusal writes nothing");
        assert_eq!((result.num_partitions, result.replication_factor), (-1, -1));
        (ErrorCode(result.error_code), result.error_message.unwrap().to_string())
    }

    fn delete(&mut self, request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
        let outcome = self.controller.delete_topics(request);
        self.settle(outcome)
    }

    fn grow_to(&mut self, topic: CreatePartitionsTopic, validate_only: bool) -> CreatePartitionsResponse {
        let request =
            CreatePartitionsRequest::default().with_topics(vec![topic]).with_validate_only(validate_only);
        let outcome = self.controller.create_partitions(&request);
        self.settle(outcome)
    }
}

#[test]
fn a_topic_is_created_with_leaders_spread_over_the_brokers() {
    let mut world = World::with_brokers(3, &[]);
    let result = world.create(topic("files", 6, 3));

    assert_eq!((result.error_code, result.error_message.as_deref()), (0, None));
    assert_eq!((result.num_partitions, result.replication_factor), (6, 3));
    let created = world.reader.topic("files").unwrap();
    assert_eq!(created.id, result.topic_id);
    assert_eq!(created.id.get_version_num(), 4);
    let leaders: Vec<_> = created.partitions.values().filter_map(|p| p.leader).collect();
    for id in 1..=3 {
        assert_eq!(leaders.iter().filter(|leader| **leader == id).count(), 2, "{leaders:?}");
    }
    for p in created.partitions.values() {
        assert_eq!((p.leader, &p.isr), (p.replicas.first().copied(), &p.replicas));
        assert_eq!((p.leader_epoch, p.partition_epoch, p.replicas.len()), (0, 0, 3));
    }
    assert_eq!(world.delta.partitions.len(), 6);
}

#[test]
fn the_log_says_in_which_directory_each_replica_lies() {
    let mut world = World::with_brokers(2, &[]);
    let request = CreateTopicsRequest::default().with_topics(vec![assigned(&[(0, &[2, 1])])]);
    let outcome = world.controller.create_topics(&request);
    assert_eq!(kinds(&outcome.records), ["topic", "partition"]);
    let MetadataRecord::Partition(record) = &outcome.records[1] else { panic!() };
    assert_eq!(record.directories, [Uuid::from_u128(1002), Uuid::from_u128(1001)]);
}

#[test]
fn minus_one_means_the_defaults_of_the_cluster() {
    let mut world = World::with_brokers(3, &[("num.partitions", "4"), ("default.replication.factor", "2")]);
    let result = world.create(topic("t", -1, -1));
    assert_eq!((result.num_partitions, result.replication_factor), (4, 2));
    assert_eq!(world.reader.topic("t").unwrap().partitions.len(), 4);
}

#[test]
fn validate_only_answers_the_same_and_creates_nothing() {
    let mut world = World::with_brokers(3, &[]);
    let before = world.reader.next_offset();
    let request = CreateTopicsRequest::default().with_topics(vec![topic("t", 2, 3)]).with_validate_only(true);
    let outcome = world.controller.create_topics(&request);
    let result = world.settle(outcome).topics[0].clone();
    assert_eq!((result.error_code, result.num_partitions), (0, 2));
    assert!(!result.topic_id.is_nil(), "as Kafka: an id that nobody will have");
    assert_eq!(world.reader.next_offset(), before);
    let bad = CreateTopicsRequest::default().with_topics(vec![topic("t", 2, 4)]).with_validate_only(true);
    let outcome = world.controller.create_topics(&bad);
    let result = world.settle(outcome).topics[0].clone();
    assert_eq!(ErrorCode(result.error_code), ErrorCode::INVALID_REPLICATION_FACTOR);
}

#[test]
fn settings_are_kept_and_shown() {
    let mut world = World::with_brokers(1, &[]);
    let result = world.create(configured("min.insync.replicas", Some(" 2 ")));
    let configs = result.configs.unwrap();
    let shown = configs.iter().find(|c| c.name.as_str() == "min.insync.replicas").unwrap();
    assert_eq!((shown.value.as_deref(), shown.config_source, shown.read_only), (Some("2"), 1, false));
    assert_eq!(configs.len(), 33, "all of them are shown");
    let kept = world.reader.configs(&ConfigResource::Topic("t".into()));
    assert_eq!(kept.get("min.insync.replicas").map(String::as_str), Some("2"));
    let config = world.reader.topic_config("t", world.controller.settings());
    assert_eq!(config.min_insync_replicas(), 2);
}

#[test]
fn wrong_settings_are_refused_with_their_cause() {
    let mut world = World::with_brokers(1, &[]);
    let cases = [
        (
            configured("retention.mss", Some("1")),
            r#"unknown setting "retention.mss"; did you mean "retention.ms"?"#,
        ),
        (
            configured("retention.ms", Some("long")),
            "invalid value \"long\" for retention.ms: must be a whole number from -1 to 9223372036854775807",
        ),
        (configured("remote.storage.enable", Some("true")), "remote.storage.enable is not supported yet"),
        (configured("retention.ms", None), "retention.ms is null"),
    ];
    for (topic, message) in cases {
        assert_eq!(world.refuse(topic), (ErrorCode::INVALID_CONFIG, message.to_owned()));
    }
}

#[test]
fn names_that_cannot_be_are_refused_with_their_cause() {
    let mut world = World::with_brokers(1, &[]);
    world.create(topic("a.b", 1, 1));
    world.create(topic("c_d", 1, 1));
    let long = "x".repeat(250);
    let cases = [
        ("", "the name of a topic must not be empty"),
        (".", "\".\" is not a name for a topic"),
        ("..", "\"..\" is not a name for a topic"),
        (long.as_str(), "the name has 250 characters, at most 249 are allowed"),
        ("a b", "\"a b\" contains ' '; allowed are ASCII letters and digits, '.', '_' and '-'"),
        ("straße", "\"straße\" contains 'ß'; allowed are ASCII letters and digits, '.', '_' and '-'"),
        ("a_b", "a_b collides with a.b: '.' and '_' count as equal"),
        ("c.d", "c.d collides with c_d: '.' and '_' count as equal"),
    ];
    for (bad, message) in cases {
        let refused = world.refuse(topic(bad, 1, 1));
        assert_eq!(refused, (ErrorCode::INVALID_TOPIC_EXCEPTION, message.to_owned()));
    }
    let exists = world.refuse(topic("a.b", 1, 1));
    assert_eq!(exists, (ErrorCode::TOPIC_ALREADY_EXISTS, "topic a.b exists".to_owned()));
    assert_eq!(world.refuse(topic("__cluster_metadata", 1, 1)).0, ErrorCode::INVALID_REQUEST);
    assert_eq!(world.create(topic(&"x".repeat(249), 1, 1)).error_code, 0);
    assert_eq!(world.create(topic("a-b", 1, 1)).error_code, 0);
}

#[test]
fn impossible_numbers_are_refused_with_their_cause() {
    let mut world = World::with_brokers(2, &[]);
    for partitions in [0, -2, i32::MIN] {
        let message = format!("{partitions} partitions; at least 1 is needed");
        assert_eq!(world.refuse(topic("t", partitions, 1)), (ErrorCode::INVALID_PARTITIONS, message));
    }
    for replicas in [0, -2] {
        let message = format!("replication factor {replicas}; at least 1 is needed");
        assert_eq!(world.refuse(topic("t", 1, replicas)), (ErrorCode::INVALID_REPLICATION_FACTOR, message));
    }
    let message = "replication factor 3 is larger than the number of registered brokers, 2".to_owned();
    assert_eq!(world.refuse(topic("t", 1, 3)), (ErrorCode::INVALID_REPLICATION_FACTOR, message));
}

#[test]
fn more_partitions_than_fit_one_batch_are_refused_before_any_memory_is_taken() {
    let mut world = World::with_brokers(1, &[]);
    let (code, message) = world.refuse(topic("t", i32::MAX, 1));
    assert_eq!(code, ErrorCode::POLICY_VIOLATION);
    assert_eq!(message, "one request may create at most 10000 partitions");
    let request = CreateTopicsRequest::default().with_topics(vec![topic("a", 5000, 1), topic("b", 5001, 1)]);
    let outcome = world.controller.create_topics(&request);
    assert!(outcome.records.is_empty(), "both together are too many");
}

#[test]
fn a_topic_needs_a_living_broker() {
    let mut world = World::new(&[]);
    let message = "replication factor 1 is larger than the number of registered brokers, 0".to_owned();
    assert_eq!(world.refuse(topic("t", 1, 1)), (ErrorCode::INVALID_REPLICATION_FACTOR, message));
    let request = world.registration(1);
    world.register(&request);
    let message = "all 1 registered brokers are fenced".to_owned();
    assert_eq!(world.refuse(topic("t", 1, 1)), (ErrorCode::INVALID_REPLICATION_FACTOR, message));
}

#[test]
fn a_replica_on_a_fenced_broker_starts_out_of_sync() {
    let mut world = World::with_brokers(3, &[]);
    world.silence_all_but(&[2, 3]);
    let id = world.create(topic("t", 1, 3)).topic_id;
    let p = world.partition(id);
    assert_eq!(p.replicas.last(), Some(&1));
    assert_eq!(p.isr, p.replicas[..2]);
    assert!(p.leader.is_some_and(|leader| leader != 1));
}

#[test]
fn a_topic_named_twice_is_refused_once() {
    let mut world = World::with_brokers(1, &[]);
    let topics = vec![topic("a", 1, 1), topic("b", 1, 1), topic("a", 2, 1), topic("a", 3, 1)];
    let outcome = world.controller.create_topics(&CreateTopicsRequest::default().with_topics(topics));
    let topics = world.settle(outcome).topics;
    let codes: Vec<_> = topics.iter().map(|t| (t.name.as_str(), ErrorCode(t.error_code))).collect();
    assert_eq!(codes, [("a", ErrorCode::INVALID_REQUEST), ("b", ErrorCode::NONE)]);
    assert_eq!(topics[0].configs, Some(Vec::new()), "a refusal has no settings, and not none");
    assert!(world.reader.topic("a").is_none());
}

#[test]
fn a_request_whose_time_is_up_before_it_begins_creates_nothing() {
    let mut world = World::with_brokers(1, &[]);
    let request = CreateTopicsRequest::default().with_topics(vec![topic("t", 1, 1)]).with_timeout_ms(0);
    let outcome = world.controller.create_topics(&request);
    let code = world.settle(outcome).topics[0].error_code;
    assert_eq!(ErrorCode(code), ErrorCode::REQUEST_TIMED_OUT);
    assert!(world.reader.topic("t").is_none());
}

#[test]
fn a_manual_assignment_is_taken_as_it_is() {
    let mut world = World::with_brokers(3, &[]);
    let result = world.create(assigned(&[(1, &[3, 1]), (0, &[2, 3])]));
    assert_eq!((result.error_code, result.num_partitions, result.replication_factor), (0, 2, 2));
    let created = world.reader.topic("t").unwrap();
    assert_eq!(created.partitions[&0].replicas, [2, 3]);
    assert_eq!(created.partitions[&1].replicas, [3, 1]);
}

#[test]
fn a_manual_assignment_that_cannot_be_is_refused_with_its_cause() {
    type Assignment = &'static [(i32, &'static [i32])];
    let mut world = World::with_brokers(3, &[]);
    world.silence_all_but(&[1, 2]);
    let cases: [(Assignment, &str); 7] = [
        (&[(0, &[1]), (0, &[2])], "partition 0 is assigned twice"),
        (&[(1, &[1])], "partitions must be numbered from 0 on without gaps"),
        (&[(0, &[])], "partition 0: no replicas"),
        (&[(0, &[1]), (1, &[1, 2])], "partition 1: 2 replicas where others have 1"),
        (&[(0, &[1, 9])], "partition 0: no broker 9 is registered"),
        (&[(0, &[1, 1])], "partition 0: broker 1 is named twice"),
        (&[(0, &[3])], "partition 0: all its brokers are fenced or shutting down"),
    ];
    for (partitions, message) in cases {
        let refused = world.refuse(assigned(partitions));
        assert_eq!(refused, (ErrorCode::INVALID_REPLICA_ASSIGNMENT, message.to_owned()));
    }
    for (partitions, replicas) in [(1, -1), (-1, 1)] {
        let both = assigned(&[(0, &[1])]).with_num_partitions(partitions).with_replication_factor(replicas);
        assert_eq!(world.refuse(both).0, ErrorCode::INVALID_REQUEST);
    }
}

#[test]
fn a_topic_is_deleted_by_name_with_its_settings() {
    let mut world = World::with_brokers(1, &[]);
    let id = world.create(configured("retention.ms", Some("5"))).topic_id;
    world.delta = Delta::default();
    let response = world.delete(&DeleteTopicsRequest::default().with_topic_names(vec![name("t")]));

    let result = &response.responses[0];
    assert_eq!((result.error_code, result.topic_id, &result.name), (0, id, &Some(name("t"))));
    assert!(world.reader.topic("t").is_none() && world.reader.topic_by_id(id).is_none());
    assert!(world.reader.configs(&ConfigResource::Topic("t".into())).is_empty());
    let removed = &world.delta.removed_topics[0];
    assert_eq!((removed.id, removed.partitions.as_slice()), (id, &[0][..]));
    let again = world.create(topic("t", 1, 1)).topic_id;
    assert_ne!(again, id, "a topic of the same name is another one");
}

#[test]
fn a_topic_that_came_and_went_leaves_nothing_to_do_but_its_removal() {
    let mut world = World::with_brokers(1, &[]);
    world.delta = Delta::default();
    world.create(configured("retention.ms", Some("5")));
    world.delete(&DeleteTopicsRequest::default().with_topic_names(vec![name("t")]));
    assert!(world.delta.partitions.is_empty() && world.delta.configs.is_empty());
    assert_eq!(world.delta.removed_topics.len(), 1);
}

#[test]
fn a_topic_is_deleted_by_id() {
    let mut world = World::with_brokers(1, &[]);
    let id = world.create(topic("t", 1, 1)).topic_id;
    let by_id = DeleteTopicState::default().with_name(None).with_topic_id(id);
    let response = world.delete(&DeleteTopicsRequest::default().with_topics(vec![by_id]));
    assert_eq!((response.responses[0].error_code, &response.responses[0].name), (0, &Some(name("t"))));
    assert!(world.reader.topic("t").is_none());
}

#[test]
fn deletions_that_cannot_be_are_refused_one_by_one() {
    let mut world = World::with_brokers(1, &[]);
    let id = world.create(topic("t", 1, 1)).topic_id;
    world.create(topic("u", 1, 1));
    let state =
        |topic: Option<&str>, id| DeleteTopicState::default().with_name(topic.map(name)).with_topic_id(id);
    let asked = vec![
        state(Some("none"), Uuid::nil()),
        state(None, Uuid::from_u128(9)),
        state(None, Uuid::nil()),
        state(Some("t"), id),
        state(None, id),
        state(Some("u"), Uuid::nil()),
    ];
    let response = world.delete(&DeleteTopicsRequest::default().with_topics(asked));
    let codes: Vec<_> = response.responses.iter().map(|r| ErrorCode(r.error_code)).collect();
    assert_eq!(
        codes,
        [
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            ErrorCode::UNKNOWN_TOPIC_ID,
            ErrorCode::INVALID_REQUEST,
            ErrorCode::INVALID_REQUEST,
            ErrorCode::NONE,
            ErrorCode::NONE,
        ]
    );
}

#[test]
fn a_topic_that_is_to_be_deleted_twice_is_refused_once_by_what_it_was_asked_by() {
    let mut world = World::with_brokers(1, &[]);
    let ids: Vec<_> = ["t", "u", "v"].map(|name| world.create(topic(name, 1, 1)).topic_id).to_vec();
    let by_name = |topic| DeleteTopicState::default().with_name(Some(name(topic)));
    let by_id = |at: usize| DeleteTopicState::default().with_name(None).with_topic_id(ids[at]);
    let asked = vec![
        by_name("t"),
        by_id(1),
        by_name("t"),
        by_id(1),
        by_id(2),
        by_name("v"),
        by_name("w"),
        by_name("w"),
    ];
    let response = world.delete(&DeleteTopicsRequest::default().with_topics(asked));
    let mut told = response.responses.iter();
    for (topic, id) in
        [(Some("t"), Uuid::nil()), (None, ids[1]), (Some("v"), ids[2]), (Some("w"), Uuid::nil())]
    {
        let one = told.next().unwrap();
        assert_eq!((one.name.as_ref().map(|name| name.as_str()), one.topic_id), (topic, id));
        assert_eq!(ErrorCode(one.error_code), ErrorCode::INVALID_REQUEST);
    }
    assert_eq!(told.next(), None);
    assert_eq!(world.reader.topics().count(), 3, "nothing of it is done");
}

#[test]
fn deletion_can_be_switched_off() {
    let mut world = World::with_brokers(1, &[("delete.topic.enable", "false")]);
    world.create(topic("t", 1, 1));
    let response = world.delete(&DeleteTopicsRequest::default().with_topic_names(vec![name("t")]));
    assert_eq!(ErrorCode(response.responses[0].error_code), ErrorCode::TOPIC_DELETION_DISABLED);
    assert!(world.reader.topic("t").is_some());
}

#[test]
fn a_topic_grows_and_keeps_its_replication_factor() {
    let mut world = World::with_brokers(3, &[]);
    world.create(topic("t", 2, 2));
    let wish = CreatePartitionsTopic::default().with_name(name("t")).with_count(5).with_assignments(None);
    assert_eq!(world.grow_to(wish.clone(), true).results[0].error_code, 0);
    assert_eq!(world.reader.topic("t").unwrap().partitions.len(), 2, "validate only");
    assert_eq!(world.grow_to(wish, false).results[0].error_code, 0);
    let grown = world.reader.topic("t").unwrap();
    assert!(grown.partitions.keys().copied().eq(0..5));
    assert!(grown.partitions.values().all(|p| p.replicas.len() == 2 && p.leader.is_some()));
}

#[test]
fn growth_that_cannot_be_is_refused() {
    let mut world = World::with_brokers(3, &[]);
    world.create(topic("t", 2, 2));
    let wish = |topic: &str, count| {
        CreatePartitionsTopic::default().with_name(name(topic)).with_count(count).with_assignments(None)
    };
    let given = |ids: &[i32]| {
        wish("t", 3)
            .with_assignments(Some(vec![CreatePartitionsAssignment::default().with_broker_ids(brokers(ids))]))
    };
    let cases = [
        (wish("none", 3), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        (wish("t", 2), ErrorCode::INVALID_PARTITIONS),
        (wish("t", 1), ErrorCode::INVALID_PARTITIONS),
        (wish("t", i32::MAX), ErrorCode::POLICY_VIOLATION),
        (wish("t", 4).with_assignments(Some(vec![])), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
        (given(&[1]), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
        (given(&[1, 9]), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
        (given(&[1, 2]), ErrorCode::NONE),
    ];
    for (wish, code) in cases {
        let response = world.grow_to(wish.clone(), false);
        assert_eq!(ErrorCode(response.results[0].error_code), code, "{wish:?}");
    }
    assert_eq!(world.reader.topic("t").unwrap().partitions[&2].replicas, [1, 2]);
}
