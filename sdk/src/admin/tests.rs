//! Attempts, routes, versions and answers that make no sense, against a mock under virtual time.

use std::ops::ControlFlow;
use std::time::Duration;

use klamm_wire::ErrorCode;
use klamm_wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use klamm_wire::messages::create_topics_response::CreatableTopicResult;
use klamm_wire::messages::delete_topics_response::DeletableTopicResult;
use klamm_wire::messages::describe_cluster_response::DescribeClusterBroker;
use klamm_wire::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use klamm_wire::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use klamm_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_wire::messages::*;
use uuid::Uuid;

use super::call::text;
use super::topics::topic_name;
use super::*;
use crate::consumer::Isolation;
use crate::error::Recovery;
use crate::mock::{Action, MockConnector, MockConnectorBuilder};
use crate::{Client, TopicPartition};

pub(super) fn admin(mock: &MockConnector) -> Admin {
    let client =
        Client::builder().bootstrap_servers(mock.bootstrap()).connector(mock.clone()).build().unwrap();
    client.admin()
}

pub(super) fn cluster() -> MockConnectorBuilder {
    MockConnector::builder().brokers(3).topic("orders", 3)
}

fn created(name: &str, code: ErrorCode) -> CreateTopicsResponse {
    let topic = CreatableTopicResult::default().with_name(topic_name(name)).with_error_code(code.0);
    CreateTopicsResponse::default().with_topics(vec![topic])
}

#[tokio::test(start_paused = true)]
async fn what_changes_the_cluster_goes_to_the_controller_and_again_if_that_is_another_one() {
    let mock = cluster().build();
    let order = mock.in_order();
    order.on::<CreateTopicsRequest>().broker(1).topic("t").error(ErrorCode::NOT_CONTROLLER);
    order.on::<CreateTopicsRequest>().broker(1).topic("t").answer(created("t", ErrorCode::NONE));
    let admin = admin(&mock);
    admin.client.ready(Duration::from_secs(5)).await.unwrap();
    let topic = NewTopic::new("t").partitions(1).replicas(1);
    let told = admin.create_topics([topic]).await.unwrap().all().unwrap();
    assert_eq!(told[0].name, "t");
    mock.verify().unwrap();
}

/// Goal: a retry's TOPIC_ALREADY_EXISTS is not sold as somebody else's topic, nor as success.
#[tokio::test(start_paused = true)]
async fn a_topic_that_exists_after_a_lost_answer_may_be_ours_and_the_error_says_so() {
    let mock = cluster().build();
    let order = mock.in_order();
    order.on::<CreateTopicsRequest>().drop_connection();
    order.on::<CreateTopicsRequest>().answer(created("t", ErrorCode::TOPIC_ALREADY_EXISTS));
    order.on::<CreateTopicsRequest>().answer(created("t", ErrorCode::TOPIC_ALREADY_EXISTS));
    let admin = admin(&mock);
    let error = admin.create_topics([NewTopic::new("t")]).await.unwrap().all().unwrap_err();
    assert_eq!((error.code, error.maybe_done), (ErrorCode::TOPIC_ALREADY_EXISTS, true));
    assert!(error.to_string().contains("an earlier attempt"), "{error}");
    let error = admin.create_topics([NewTopic::new("t")]).await.unwrap().all().unwrap_err();
    assert!(!error.maybe_done, "{error}");
    assert_eq!(error.recovery(), Recovery::Fix);
    mock.verify().unwrap();
}

/// Goal: a topic that somebody has created again since is not deleted.
#[tokio::test(start_paused = true)]
async fn deleting_by_name_is_not_repeated_after_a_lost_answer_and_by_id_it_is() {
    let mock = cluster().build();
    mock.on::<DeleteTopicsRequest>().times(1).drop_connection();
    let admin = admin(&mock);
    let error = admin.delete_topics(["orders"]).await.unwrap_err();
    assert!(error.maybe_written(), "{error}");
    assert_eq!(mock.requests::<DeleteTopicsRequest>().len(), 1);

    let id = Uuid::from_u128(7);
    mock.on::<DeleteTopicsRequest>().times(1).drop_connection();
    let gone = DeletableTopicResult::default()
        .with_name(None)
        .with_topic_id(id)
        .with_error_code(ErrorCode::UNKNOWN_TOPIC_ID.0);
    mock.on::<DeleteTopicsRequest>().answer(DeleteTopicsResponse::default().with_responses(vec![gone]));
    let error = admin.delete_topics_by_id([id]).await.unwrap().all().unwrap_err();
    assert_eq!((error.code, error.maybe_done), (ErrorCode::UNKNOWN_TOPIC_ID, true));
}

#[tokio::test(start_paused = true)]
async fn only_what_was_not_looked_at_is_asked_for_again() {
    let mock = cluster().build();
    mock.on::<CreatePartitionsRequest>().answer_with(|request, _| {
        let first = request.topics.len() == 2;
        let result = |topic: &create_partitions_request::CreatePartitionsTopic| {
            let busy = first && topic.name.as_str() == "b";
            let code = if busy { ErrorCode::THROTTLING_QUOTA_EXCEEDED } else { ErrorCode::NONE };
            create_partitions_response::CreatePartitionsTopicResult::default()
                .with_name(topic.name.clone())
                .with_error_code(code.0)
        };
        CreatePartitionsResponse::default().with_results(request.topics.iter().map(result).collect())
    });
    let wanted = [NewPartitions::new("b", 4), NewPartitions::new("a", 2)];
    let results = admin(&mock).create_partitions(wanted).await.unwrap();
    let names: Vec<_> = results.iter().map(|(name, result)| (name.as_str(), result.is_ok())).collect();
    assert_eq!(names, [("b", true), ("a", true)]);
    let asked: Vec<_> = mock.requests::<CreatePartitionsRequest>().iter().map(|r| r.topics.len()).collect();
    assert_eq!(asked, [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_in_its_time_and_says_what_was_said_last() {
    let mock = cluster().build();
    mock.on::<CreateTopicsRequest>().error(ErrorCode::NOT_CONTROLLER);
    let admin = admin(&mock).within(Duration::from_secs(3));
    let begun = tokio::time::Instant::now();
    let error = admin.create_topics([NewTopic::new("t")]).await.unwrap().all().unwrap_err();
    assert_eq!((error.code, error.recovery()), (ErrorCode::NOT_CONTROLLER, Recovery::Retry));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());

    let mock = cluster().build();
    mock.on::<DescribeQuorumRequest>().silence();
    let error = self::admin(&mock).within(Duration::from_secs(3)).describe_quorum().await.unwrap_err();
    assert_eq!(error.recovery(), Recovery::Retry);
}

#[tokio::test(start_paused = true)]
async fn what_a_broker_is_too_old_for_is_named_with_what_it_offers() {
    let mock = cluster()
        .offer::<DeleteTopicsRequest>(1, 5)
        .offer::<ListOffsetsRequest>(1, 5)
        .offer::<ElectLeadersRequest>(9, 12)
        .offer::<DescribeClusterRequest>(0, 1)
        .build();
    let admin = admin(&mock);
    let error = admin.delete_topics_by_id([Uuid::from_u128(1)]).await.unwrap_err();
    let words = "the broker speaks DeleteTopics up to version 5, but deleting a topic by its id needs 6: \
        upgrade it, or do without";
    assert_eq!((error.to_string().as_str(), error.maybe_written()), (words, false));
    let spec = OffsetSpec::MaxTimestamp;
    let error = admin.list_offsets([(("orders", 0), spec)], Isolation::ReadUncommitted).await.unwrap_err();
    assert!(matches!(error, AdminError::TooOld { offered: 5, needed: 7, .. }), "{error}");
    let error = admin.elect_all_leaders(Election::Preferred).await.unwrap_err();
    assert_eq!(error.to_string(), "the broker speaks ElectLeaders in versions 9-12, this client in 1-2");
    assert_eq!(error.recovery(), Recovery::Fix);
    let error = admin.describe_cluster_with_fenced().await.unwrap_err();
    assert!(matches!(error, AdminError::TooOld { offered: 1, needed: 2, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn every_call_can_be_said_in_the_oldest_version_this_client_speaks() {
    let mut builder = cluster();
    builder = builder
        .offer::<CreateTopicsRequest>(2, 2)
        .offer::<DeleteTopicsRequest>(1, 1)
        .offer::<DeleteRecordsRequest>(0, 0)
        .offer::<DescribeConfigsRequest>(1, 1)
        .offer::<DescribeLogDirsRequest>(1, 1)
        .offer::<CreatePartitionsRequest>(0, 0)
        .offer::<ElectLeadersRequest>(1, 1)
        .offer::<IncrementalAlterConfigsRequest>(0, 0)
        .offer::<AlterPartitionReassignmentsRequest>(0, 0)
        .offer::<DescribeQuorumRequest>(0, 0)
        .offer::<UpdateFeaturesRequest>(0, 0)
        .offer::<DescribeClusterRequest>(0, 0)
        .offer::<ListOffsetsRequest>(1, 1);
    let mock = builder.build();
    // Each is answered by a refusal: what counts is that it was sent.
    let admin = admin(&mock);
    let refused = ErrorCode::INVALID_REQUEST;
    let topic = NewTopic::new("t").partitions(1).replicas(1).config("a", "b");
    let code = |error: Option<ErrorCode>| assert_eq!(error, Some(refused));
    code(admin.create_topics([topic]).await.unwrap().all().err().map(|e| e.code));
    code(admin.delete_topics(["orders"]).await.unwrap().all().err().map(|e| e.code));
    code(admin.delete_records([(("orders", 0), 5.into())]).await.unwrap().all().err().map(|e| e.code));
    let question = DescribeConfigs::of([ConfigResource::topic("t")]).synonyms().keys(["a"]);
    code(admin.describe_configs(question).await.unwrap().all().err().map(|e| e.code));
    let dirs = admin.describe_log_dirs([1]).await.unwrap().all().unwrap();
    assert_eq!(dirs[0][0].error, Some(refused));
    code(admin.create_partitions([NewPartitions::new("t", 3)]).await.unwrap().all().err().map(|e| e.code));
    let elected = admin.elect_leaders(Election::Unclean, [("orders", 0)]).await.unwrap();
    code(elected.all().err().map(|e| e.code));
    let update = ConfigUpdate::topic("t").set("a", "b").reset("c").append("d", "e").subtract("f", "g");
    code(admin.alter_configs([update]).await.unwrap().all().err().map(|e| e.code));
    let moved = admin.reassign_partitions([Reassignment::to(("orders", 0), [1])]).await.unwrap();
    code(moved.all().err().map(|e| e.code));
    let error = admin.describe_quorum().await.unwrap_err();
    assert!(matches!(error, AdminError::Refused { code: ErrorCode::INVALID_REQUEST, .. }), "{error}");
    let error = admin.update_features([FeatureUpdate::downgrade("f", 1)]).await.unwrap_err();
    assert!(matches!(error, AdminError::Refused { .. }), "{error}");
    let error = admin.describe_cluster().await.unwrap_err();
    assert!(matches!(error, AdminError::Refused { .. }), "{error}");
    let asked = [(("orders", 0), OffsetSpec::Latest)];
    let listed = admin.list_offsets(asked, Isolation::ReadUncommitted).await.unwrap();
    code(listed.all().err().map(|e| e.code));
}

#[tokio::test(start_paused = true)]
async fn each_leader_is_asked_for_its_own_partitions_and_the_next_one_when_leadership_has_moved() {
    let mock = cluster().build();
    let moving = mock.clone();
    mock.on::<ListOffsetsRequest>().answer_with(move |request, head| {
        let topic = |topic: &list_offsets_request::ListOffsetsTopic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let leads = moving.leader("orders", index) == Some(head.broker);
                let stale = index == 2 && head.broker == 3;
                if stale {
                    moving.move_leader("orders", 2, 1);
                }
                let code = if leads && !stale { ErrorCode::NONE } else { ErrorCode::NOT_LEADER_OR_FOLLOWER };
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(index)
                    .with_error_code(code.0)
                    .with_offset(10 + i64::from(index))
                    .with_timestamp(-1)
            });
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        };
        ListOffsetsResponse::default().with_topics(request.topics.iter().map(topic).collect())
    });
    let wanted = [2, 0, 1].map(|index| (("orders", index), OffsetSpec::Latest));
    let listed = admin(&mock).list_offsets(wanted, Isolation::ReadUncommitted).await.unwrap();
    let offsets: Vec<_> = listed.all().unwrap().iter().map(|listed| listed.offset).collect();
    assert_eq!(offsets, [Some(12), Some(10), Some(11)]);
    let asked: Vec<_> = (mock.journal().iter())
        .filter(|entry| entry.request::<ListOffsetsRequest>().is_some())
        .map(|entry| entry.head.broker)
        .collect();
    assert_eq!(asked.len(), 4, "three leaders, and the next one of partition 2: {asked:?}");
    assert_eq!(asked.last(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn one_leader_that_does_not_answer_takes_no_other_partition_along() {
    let mock = cluster().build();
    mock.on::<DescribeProducersRequest>().broker(2).drop_connection();
    mock.on::<DescribeProducersRequest>().answer_with(|request, _| {
        let topic = |topic: &describe_producers_request::TopicRequest| {
            let partition = |index: &i32| {
                describe_producers_response::PartitionResponse::default().with_partition_index(*index)
            };
            describe_producers_response::TopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(topic.partition_indexes.iter().map(partition).collect())
        };
        DescribeProducersResponse::default().with_topics(request.topics.iter().map(topic).collect())
    });
    let admin = admin(&mock).within(Duration::from_secs(5));
    let wanted = [("orders", 0), ("orders", 1), ("orders", 2), ("nowhere", 0)];
    let results = admin.describe_producers(wanted).await.unwrap();
    let of = |topic: &str, index| results.of(&TopicPartition::new(topic, index)).unwrap();
    assert!(of("orders", 0).is_ok() && of("orders", 2).is_ok());
    let error = of("orders", 1).as_ref().unwrap_err();
    // The last attempt may have waited for reconnect.backoff.ms to the end.
    let silent = [ErrorCode::NETWORK_EXCEPTION, ErrorCode::REQUEST_TIMED_OUT];
    assert!(silent.contains(&error.code) && error.recovery() == Recovery::Retry, "{error}");
    let error = of("nowhere", 0).as_ref().unwrap_err();
    assert_eq!((error.code, error.recovery()), (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, Recovery::Fix));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_nobody_knows_is_given_up_long_before_the_time_is_over() {
    let mock = cluster().build();
    let begun = tokio::time::Instant::now();
    let error = admin(&mock).describe_log_dirs([77]).await.unwrap_err();
    assert_eq!(error.to_string(), "broker 77 is not known");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// Goal: what was written after the first attempt is not deleted by a second one.
#[tokio::test(start_paused = true)]
async fn deleting_up_to_the_high_watermark_is_not_repeated_after_a_lost_answer() {
    let mock = cluster().build();
    mock.on::<DeleteRecordsRequest>().drop_connection();
    let admin = admin(&mock).within(Duration::from_secs(5));
    let error = admin.delete_records([(("orders", 0), RecordsBefore::HighWatermark)]).await.unwrap_err();
    assert!(error.maybe_written(), "{error}");
    assert_eq!(mock.requests::<DeleteRecordsRequest>().len(), 1);
    let error = admin.delete_records([(("orders", 0), 5.into())]).await.unwrap_err();
    assert!(error.maybe_written(), "{error}");
    assert!(mock.requests::<DeleteRecordsRequest>().len() > 2);
}

fn page(topic: &str, partitions: std::ops::Range<i32>) -> DescribeTopicPartitionsResponseTopic {
    let partition = |index| {
        DescribeTopicPartitionsResponsePartition::default().with_partition_index(index).with_leader_epoch(3)
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(topic)))
        .with_partitions(partitions.map(partition).collect())
}

fn cursor(topic: &str, partition: i32) -> Option<Cursor> {
    Some(Cursor::default().with_topic_name(topic_name(topic)).with_partition_index(partition))
}

#[tokio::test(start_paused = true)]
async fn descriptions_come_page_by_page_and_are_put_together() {
    let mock = cluster().build();
    mock.on::<DescribeTopicPartitionsRequest>().answer_with(|request, _| {
        let at = request.cursor.as_ref().map(|at| (at.topic_name.as_str(), at.partition_index));
        let names: Vec<_> = request.topics.iter().map(|topic| topic.name.as_str()).collect();
        let response = DescribeTopicPartitionsResponse::default();
        match at {
            None => response.with_topics(vec![page("a", 0..2)]).with_next_cursor(cursor("a", 2)),
            Some(("a", 2)) => {
                assert_eq!(names, ["a", "b"]);
                response.with_topics(vec![page("a", 2..3), page("b", 0..1)]).with_next_cursor(cursor("b", 1))
            }
            Some(_) => {
                assert_eq!(names, ["b"]);
                response.with_topics(vec![page("b", 1..2)])
            }
        }
    });
    let described = admin(&mock).describe_topics(["b", "a", "b"]).await.unwrap().all().unwrap();
    let shape: Vec<_> = described.iter().map(|t| (t.name.as_str(), t.partitions.len())).collect();
    assert_eq!(shape, [("b", 2), ("a", 3), ("b", 2)]);
    assert_eq!(mock.requests::<DescribeTopicPartitionsRequest>().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn pages_that_go_round_in_circles_are_an_error_and_not_a_loop() {
    let mock = cluster().build();
    let same = DescribeTopicPartitionsResponse::default().with_next_cursor(cursor("a", 2));
    mock.on::<DescribeTopicPartitionsRequest>().answer(same);
    let error = admin(&mock).describe_topics(["a"]).await.unwrap_err();
    let words =
        "the broker's answer to DescribeTopicPartitions makes no sense: its cursor does not move forward";
    assert_eq!((error.to_string().as_str(), error.recovery()), (words, Recovery::Fix));
}

#[tokio::test(start_paused = true)]
async fn without_that_api_topics_are_described_from_metadata() {
    let mock = cluster().offer::<DescribeTopicPartitionsRequest>(1, 0).build();
    let described = admin(&mock).describe_topics(["orders", "nowhere"]).await.unwrap();
    let orders = described.of("orders").unwrap().as_ref().unwrap();
    assert_eq!((orders.partitions.len(), &orders.partitions[0].elr), (3, &None));
    let error = described.of("nowhere").unwrap().as_ref().unwrap_err();
    assert_eq!(error.code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[tokio::test(start_paused = true)]
async fn without_that_api_the_cluster_is_described_from_metadata_but_not_its_fenced_brokers() {
    let mock = cluster().offer::<DescribeClusterRequest>(1, 0).build();
    let admin = admin(&mock);
    let described = admin.describe_cluster().await.unwrap();
    let brokers: Vec<_> = described.brokers.iter().map(|broker| (broker.id, broker.fenced)).collect();
    assert_eq!(brokers, [(1, false), (2, false), (3, false)]);
    assert_eq!(described.controller, Some(1));
    let error = admin.describe_cluster_with_fenced().await.unwrap_err();
    assert!(error.to_string().contains("DescribeCluster"), "{error}");
    assert_eq!(error.recovery(), Recovery::Fix);
}

/// Goal: the answer to one question is not sold as that to the other.
#[tokio::test(start_paused = true)]
async fn two_different_questions_about_one_partition_are_refused_and_equal_ones_answered_twice() {
    let mock = cluster().build();
    mock.on::<ListOffsetsRequest>().answer_with(|request, _| {
        let topics = request.topics.iter().map(|topic| {
            let offsets = topic.partitions.iter().map(|asked| {
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(asked.partition_index)
                    .with_offset(40 + i64::from(asked.partition_index))
            });
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(offsets.collect())
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    });
    let asked = [
        (("orders", 0), OffsetSpec::Earliest),
        (("orders", 1), OffsetSpec::Latest),
        (("orders", 0), OffsetSpec::Latest),
        (("orders", 1), OffsetSpec::Latest),
    ];
    let told = admin(&mock).list_offsets(asked, Isolation::ReadUncommitted).await.unwrap();
    let told: Vec<_> = told.into_iter().map(|(_, told)| told.map(|told| told.offset)).collect();
    assert_eq!((&told[1], &told[3]), (&Ok(Some(41)), &Ok(Some(41))));
    for refused in [&told[0], &told[2]] {
        let error = refused.as_ref().unwrap_err();
        assert_eq!((error.code, error.recovery()), (ErrorCode::INVALID_REQUEST, Recovery::Fix));
        assert!(error.to_string().contains("ask in two calls"), "{error}");
    }
}

/// Goal: a controller that was slow with an earlier attempt is not taken for one that refuses.
#[tokio::test(start_paused = true)]
async fn a_broker_that_is_gone_after_a_refusal_for_lack_of_time_may_be_gone_by_this_call() {
    let mock = cluster().build();
    let order = mock.in_order();
    order.on::<UnregisterBrokerRequest>().error(ErrorCode::REQUEST_TIMED_OUT);
    order.on::<UnregisterBrokerRequest>().error(ErrorCode::BROKER_ID_NOT_REGISTERED);
    let error = admin(&mock).unregister_broker(3).await.unwrap_err();
    assert!(error.maybe_written() && error.to_string().contains("BROKER_ID_NOT_REGISTERED"), "{error}");
    mock.verify().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_answer_does_not_name_has_failed_and_what_was_not_asked_for_is_left_out() {
    let mock = cluster().build();
    mock.on::<CreateTopicsRequest>().answer(created("other", ErrorCode::NONE));
    let results = admin(&mock).create_topics([NewTopic::new("t")]).await.unwrap();
    assert_eq!(results.len(), 1);
    let error = results.all().unwrap_err();
    assert!(error.to_string().contains("does not name it"), "{error}");
    let mock = cluster().build();
    mock.on::<DescribeQuorumRequest>().answer(DescribeQuorumResponse::default());
    let error = admin(&mock).describe_quorum().await.unwrap_err();
    assert!(matches!(error, AdminError::Senseless { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_brokers_settings_are_asked_of_that_broker() {
    let mock = cluster().build();
    mock.on::<DescribeConfigsRequest>().answer_with(|request, head| {
        let result = |resource: &describe_configs_request::DescribeConfigsResource| {
            let owner = resource.resource_name.as_str().parse().ok();
            assert!(resource.resource_type != 4 || owner.is_none_or(|id: i32| id == head.broker));
            let entry = describe_configs_response::DescribeConfigsResourceResult::default()
                .with_name(text("log.retention.ms"))
                .with_value(None)
                .with_config_source(5)
                .with_config_type(5);
            describe_configs_response::DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
                .with_configs(vec![entry])
        };
        DescribeConfigsResponse::default().with_results(request.resources.iter().map(result).collect())
    });
    let wanted = [
        ConfigResource::Broker(3),
        ConfigResource::ClusterDefault,
        ConfigResource::Broker(2),
        ConfigResource::topic("t"),
    ];
    let results = admin(&mock).describe_configs(DescribeConfigs::of(wanted.clone())).await.unwrap();
    let order: Vec<_> = results.iter().map(|(resource, _)| resource.clone()).collect();
    assert_eq!(order, wanted);
    let entry = &results.all().unwrap()[0][0];
    assert_eq!(
        (entry.source, entry.kind, entry.value.as_deref()),
        (ConfigSource::Default, ConfigKind::Long, None)
    );
}

/// A cluster of three brokers with one partition that can be moved: what the controller knows of it.
struct Movable {
    replicas: Vec<i32>,
    target: Option<Vec<i32>>,
}

fn movable(mock: &MockConnector) -> std::sync::Arc<parking_lot::Mutex<Movable>> {
    let state = std::sync::Arc::new(parking_lot::Mutex::new(Movable { replicas: vec![3, 1], target: None }));
    let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
    let broker = |id| DescribeClusterBroker::default().with_broker_id(BrokerId(id)).with_port(1);
    let brokers = DescribeClusterResponse::default().with_brokers((1..=3).map(broker).collect());
    mock.on::<DescribeClusterRequest>().answer(brokers);
    let (known, asked, listed) = (state.clone(), state.clone(), state.clone());
    mock.on::<DescribeTopicPartitionsRequest>().answer_with(move |_, _| {
        let mut topic = page("orders", 0..1);
        topic.partitions[0].replica_nodes = ids(&known.lock().replicas);
        DescribeTopicPartitionsResponse::default().with_topics(vec![topic])
    });
    mock.on::<ListPartitionReassignmentsRequest>().answer_with(move |_, _| {
        let state = listed.lock();
        let Some(target) = &state.target else { return ListPartitionReassignmentsResponse::default() };
        let adding: Vec<i32> = target.iter().copied().filter(|id| *id == 2).collect();
        let moving = list_partition_reassignments_response::OngoingPartitionReassignment::default()
            .with_replicas(ids(&state.replicas))
            .with_adding_replicas(ids(&adding))
            .with_removing_replicas(ids(&[3]));
        let topic = list_partition_reassignments_response::OngoingTopicReassignment::default()
            .with_name(topic_name("orders"))
            .with_partitions(vec![moving]);
        ListPartitionReassignmentsResponse::default().with_topics(vec![topic])
    });
    mock.on::<AlterPartitionReassignmentsRequest>().answer_with(move |request, _| {
        assert!(request.topics.iter().all(|topic| topic.name.as_str() == "orders"));
        for partition in request.topics.iter().flat_map(|topic| &topic.partitions) {
            asked.lock().target = partition.replicas.as_ref().map(|ids| ids.iter().map(|id| id.0).collect());
        }
        let partition = ReassignablePartitionResponse::default();
        let topic = ReassignableTopicResponse::default()
            .with_name(topic_name("orders"))
            .with_partitions(vec![partition]);
        AlterPartitionReassignmentsResponse::default().with_responses(vec![topic])
    });
    state
}

#[tokio::test(start_paused = true)]
async fn a_drain_moves_waits_and_is_not_misled_by_a_broker_that_lags_behind() {
    let mock = MockConnector::builder().brokers(3).topic("orders", 1).build();
    let state = movable(&mock);
    let mut looks = Vec::new();
    let drained = admin(&mock).drain(3).run(|progress| {
        let mut state = state.lock();
        looks.push((progress.moved, progress.left, progress.under_way.len()));
        match looks.len() {
            2 => state.replicas = vec![2, 1, 3], // being copied
            3 => state.target = None,            // done, says the controller; the broker still tells of three
            4 => state.replicas = vec![1, 2],
            _ => {}
        }
        ControlFlow::Continue(())
    });
    assert_eq!(drained.await.unwrap().moved, 1);
    assert_eq!(looks, [(0, 1, 0), (0, 1, 1), (0, 1, 1), (0, 1, 1), (1, 0, 0)]);
    let asked = mock.requests::<AlterPartitionReassignmentsRequest>();
    assert_eq!(asked.len(), 1, "begun once");
    assert!(!asked[0].allow_replication_factor_change);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_cancelled_takes_back_what_it_has_begun() {
    let mock = MockConnector::builder().brokers(3).topic("orders", 1).build();
    let state = movable(&mock);
    let mut looks = 0;
    let error = admin(&mock).drain(3).run(|_| {
        looks += 1;
        if looks == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let error = error.await.unwrap_err();
    assert!(matches!(error, DrainError::Cancelled { moved: 0, left: 1 }), "{error}");
    assert_eq!(state.lock().target, None);
}

/// Goal: a broker is not called empty because nobody says what is on it.
#[tokio::test(start_paused = true)]
async fn a_drain_that_is_not_told_where_the_replicas_of_a_topic_are_ends_with_the_reason() {
    let mock = cluster().build();
    let hidden = page("orders", 0..0).with_error_code(ErrorCode::TOPIC_AUTHORIZATION_FAILED.0);
    let hidden = DescribeTopicPartitionsResponse::default().with_topics(vec![hidden]);
    mock.on::<DescribeTopicPartitionsRequest>().answer(hidden);
    movable(&mock);
    let error = admin(&mock).drain(3).run(|_| ControlFlow::Continue(())).await.unwrap_err();
    assert!(matches!(&error, DrainError::Topic(error) if error.topic == "orders"), "{error}");
    assert_eq!(error.recovery(), Recovery::Fix);
}

/// Goal: a broker is not called empty because the one that is asked has not heard of a new topic.
#[tokio::test(start_paused = true)]
async fn a_drain_looks_again_for_a_topic_that_one_broker_knows_and_another_does_not() {
    let mock = cluster().build();
    let unknown = page("orders", 0..0).with_error_code(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0);
    let unknown = DescribeTopicPartitionsResponse::default().with_topics(vec![unknown]);
    mock.on::<DescribeTopicPartitionsRequest>().times(2).answer(unknown);
    movable(&mock);
    let mut left = Vec::new();
    let drain = admin(&mock).drain(3).run(|progress| {
        left.push(progress.left);
        if progress.left > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(drain.await, Err(DrainError::Cancelled { left: 1, .. })));
    assert_eq!(left, [0, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_without_room_begins_nothing_and_says_what_would_help() {
    let mock = MockConnector::builder().brokers(3).topic("orders", 1).build();
    movable(&mock).lock().replicas = vec![1, 2, 3];
    let error = admin(&mock).drain(3).run(|_| ControlFlow::Continue(())).await.unwrap_err();
    assert_eq!(error.recovery(), Recovery::Fix);
    let words = "partition orders-0 cannot leave: it has 3 replicas, and only 2 other brokers are in service; \
        add a broker, or give the topic fewer replicas";
    assert_eq!(error.to_string(), words);
    assert!(mock.requests::<AlterPartitionReassignmentsRequest>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_broker_is_asked_when_the_controller_has_moved() {
    let mock = cluster().build();
    mock.on::<UpdateFeaturesRequest>().broker(1).drop_connection();
    let controller = |id: i32| {
        let broker = |id: i32| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(text(&format!("broker-{id}.mock")))
                .with_port(9092)
        };
        MetadataResponse::default()
            .with_brokers((1..=3).map(broker).collect())
            .with_controller_id(BrokerId(id))
            .with_topics(vec![
                MetadataResponseTopic::default().with_partitions(vec![MetadataResponsePartition::default()]),
            ])
    };
    let seen = mock.clone();
    mock.on::<MetadataRequest>().act(move |_, head| {
        let moved = !seen.requests::<UpdateFeaturesRequest>().is_empty();
        Action::answer::<MetadataRequest>(head, &controller(if moved { 2 } else { 1 }))
    });
    mock.on::<UpdateFeaturesRequest>().broker(2).answer(UpdateFeaturesResponse::default());
    let updates = [FeatureUpdate::upgrade("group.version", 1), FeatureUpdate::upgrade("share.version", 1)];
    let results = admin(&mock).update_features(updates).await.unwrap();
    assert_eq!(results.all().unwrap().len(), 2);
}
