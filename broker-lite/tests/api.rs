//! Every API as a client sees it, in process.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::Duration;

use broker_lite::{Cluster, Frame, LinkError, Profile};
use bytes::Bytes;
use klamm_wire::codec;
use klamm_wire::messages::create_topics_request::CreatableTopic;
use klamm_wire::messages::delete_topics_request::DeleteTopicState;
use klamm_wire::messages::describe_configs_request::DescribeConfigsResource;
use klamm_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_wire::messages::metadata_request::MetadataRequestTopic;
use klamm_wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use klamm_wire::messages::{
    ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest,
};
use klamm_wire::{ErrorCode, StrBytes};
use support::{MADE_MS, Talk, batch, code, fetch, produce, produced, stamped, topic_name, values};

async fn one_broker() -> Cluster {
    let cluster = Cluster::builder().brokers(1).seed(3).start().await.unwrap();
    cluster.create_topic("t", 1, 1, &[]).await.unwrap();
    cluster
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

#[tokio::test(start_paused = true)]
async fn a_started_cluster_shows_every_broker_at_every_broker() {
    let cluster = Cluster::builder().topic("made", Some(5), None).start().await.unwrap();
    for broker in cluster.broker_ids() {
        let metadata = Talk::to(&cluster, broker).await.metadata(None).await;
        let shown: Vec<_> = metadata
            .brokers
            .iter()
            .map(|shown| {
                (shown.node_id.0, &*shown.host, shown.port, shown.rack.as_deref().unwrap().to_owned())
            })
            .collect();
        let expected = [1, 2, 3].map(|id| (id, format!("broker-{id}.lite"), 9092, format!("RACK{id}")));
        assert_eq!(
            shown,
            expected.each_ref().map(|(id, host, port, rack)| (*id, &**host, *port, rack.clone()))
        );
        assert_eq!(metadata.controller_id, BrokerId(1));
        let topic = &metadata.topics[0];
        assert_eq!((&*topic.name.as_ref().unwrap().0, topic.partitions.len()), ("made", 5));
        assert!(topic.partitions.iter().all(|found| found.leader_id.0 > 0 && found.isr_nodes.len() == 3));
    }
}

#[tokio::test(start_paused = true)]
async fn api_versions_advertises_what_is_implemented_and_nothing_else() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    let answer = talk.ask(4, &api_versions()).await;
    let shown: Vec<_> =
        answer.api_keys.iter().map(|key| (key.api_key, key.min_version, key.max_version)).collect();
    let expected = [
        (0, 0, 13),
        (1, 4, 18),
        (2, 1, 11),
        (3, 0, 13),
        (8, 2, 10),
        (9, 1, 10),
        (10, 0, 6),
        (11, 0, 9),
        (12, 0, 4),
        (13, 0, 5),
        (14, 0, 5),
        (15, 0, 6),
        (16, 0, 5),
        (18, 0, 4),
        (19, 2, 7),
        (20, 1, 6),
        (21, 0, 2),
        (22, 0, 5),
        (23, 2, 4),
        (32, 1, 4),
        (33, 0, 2),
        (35, 1, 5),
        (37, 0, 3),
        (42, 0, 2),
        (43, 0, 2),
        (44, 0, 1),
        (45, 0, 1),
        (46, 0, 0),
        (47, 0, 0),
        (55, 0, 2),
        (57, 0, 2),
        (60, 0, 2),
        (61, 0, 0),
        (64, 0, 0),
        (74, 0, 1),
        (75, 0, 0),
    ];
    assert_eq!(shown, expected);
    let unnamed = talk.ask(3, &ApiVersionsRequest::default()).await;
    assert_eq!(code(unnamed.error_code), ErrorCode::INVALID_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    let frame = Frame::new(18, 99, Bytes::from_static(b"whatever version 99 may look like"));
    let answer = talk.send(frame).await.unwrap().await.unwrap();
    assert_eq!(answer.api_version, 0);
    let answer = codec::decode_response::<ApiVersionsRequest>(answer).unwrap();
    assert_eq!(code(answer.error_code), ErrorCode::UNSUPPORTED_VERSION);
    assert_eq!((answer.api_keys[0].api_key, answer.api_keys[0].max_version), (18, 4));
    assert_eq!(talk.ask(4, &api_versions()).await.error_code, 0, "the conversation goes on");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_offered_or_malformed_closes_the_conversation() {
    let cluster = one_broker().await;
    let refused = [(9999, 0), (10, 1), (0, 0), (0, 2), (0, 14), (1, 3), (56, 3), (3, -1)];
    for (api_key, version) in refused {
        let mut talk = Talk::to(&cluster, 1).await;
        let answer = talk.send(Frame::new(api_key, version, Bytes::new())).await.unwrap().await;
        assert!(matches!(answer, Err(LinkError::Closed { .. })), "{api_key} {version}: {answer:?}");
    }
    let mut talk = Talk::to(&cluster, 1).await;
    let garbage = Frame::new(3, 12, Bytes::from_static(b"\xff\xff\xff\xff\xff"));
    assert!(talk.send(garbage).await.unwrap().await.is_err());
    assert_eq!(Talk::to(&cluster, 1).await.ask(4, &api_versions()).await.error_code, 0, "the broker lives");
}

#[tokio::test(start_paused = true)]
async fn every_advertised_version_of_metadata_is_answered() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    for version in 0..=13 {
        let all = (version > 0).then_some(()).map_or(Some(Vec::new()), |()| None);
        let answer = talk.ask(version, &MetadataRequest::default().with_topics(all)).await;
        assert_eq!(answer.topics.len(), 1, "version {version}");
    }
    let none = talk.ask(1, &MetadataRequest::default().with_topics(Some(Vec::new()))).await;
    assert!(none.topics.is_empty());
}

#[tokio::test(start_paused = true)]
async fn asking_for_an_unknown_topic_creates_it_unless_configured_off() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    let unknown = talk.metadata(Some("made")).await;
    let first = code(unknown.topics[0].error_code);
    assert_eq!(first, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "answered at once, created behind it");
    let made = loop {
        let made = talk.metadata(Some("made")).await;
        if made.topics[0].error_code == 0 && made.topics[0].partitions.iter().all(|p| p.error_code == 0) {
            break made;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(made.topics[0].partitions.len(), 4);
    let invalid = talk.metadata(Some("not/valid")).await;
    assert_eq!(code(invalid.topics[0].error_code), ErrorCode::INVALID_TOPIC_EXCEPTION);

    let off = Cluster::builder().config("auto.create.topics.enable", "false").start().await.unwrap();
    let unknown = Talk::to(&off, 1).await.metadata(Some("made")).await;
    assert_eq!(code(unknown.topics[0].error_code), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_waits_for_records_and_no_longer_than_asked() {
    let cluster = one_broker().await;
    let (mut reader, mut writer) = (Talk::to(&cluster, 1).await, Talk::to(&cluster, 1).await);
    let start = tokio::time::Instant::now();
    assert!(values(&reader.fetch("t", 0, 0, 700).await).is_empty());
    assert_eq!(start.elapsed(), Duration::from_millis(700));
    let frame = codec::encode_request(12, &fetch("t", 0, 0, 60_000)).unwrap();
    let waiting = tokio::spawn(reader.send(frame).await.unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    writer.produce("t", 0, batch(&["a"])).await;
    let woken = codec::decode_response::<FetchRequest>(waiting.await.unwrap().unwrap()).unwrap();
    assert_eq!(values(&woken.responses[0].partitions[0]), [(0, "a".to_owned())]);
    assert!(start.elapsed() < Duration::from_secs(1), "woken by the record, not by the clock");
}

#[tokio::test(start_paused = true)]
async fn fetch_keeps_to_its_limits_but_always_makes_progress() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    for value in ["a", "b", "c"] {
        talk.produce("t", 0, batch(&[value])).await;
    }
    let mut request = fetch("t", 0, 0, 0);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    let answer = talk.ask(12, &request).await;
    assert_eq!(values(&answer.responses[0].partitions[0]), [(0, "a".to_owned())], "one batch however large");
    let beyond = talk.fetch("t", 0, 99, 0).await;
    assert_eq!(code(beyond.error_code), ErrorCode::OFFSET_OUT_OF_RANGE);
    let unknown = talk.fetch("no", 0, 0, 0).await;
    assert_eq!(code(unknown.error_code), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    for id in [0, 7] {
        let session = fetch("t", 0, 0, 0).with_session_id(id).with_session_epoch(3);
        let refused = talk.ask(12, &session).await;
        assert_eq!(code(refused.error_code), ErrorCode::FETCH_SESSION_ID_NOT_FOUND, "session {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_processed_and_answered_in_order() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    let mut answers = Vec::new();
    for sequence in 0..20 {
        let value = sequence.to_string();
        let frame = produce("t", 0, -1, 1_000, stamped(&[&value], 5, 0, sequence));
        answers.push(talk.send(frame).await.unwrap());
    }
    for (offset, answer) in (0..).zip(answers) {
        let answer = produced(answer.await.unwrap());
        assert_eq!((answer.error_code, answer.base_offset), (0, offset));
    }
}

#[tokio::test(start_paused = true)]
async fn acks_0_is_not_answered_and_its_failure_closes_the_conversation() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    let frame = produce("t", 0, 0, 1_000, batch(&["a"]));
    assert!(!frame.expects_reply);
    talk.send(frame).await.unwrap().await.unwrap();
    assert_eq!(talk.produce("t", 0, batch(&["b"])).await.base_offset, 1);
    talk.send(produce("no", 0, 0, 1_000, batch(&["a"]))).await.unwrap().await.unwrap();
    assert!(talk.try_ask(4, &api_versions()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_batch_is_refused_and_nothing_is_appended() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    let mut broken = batch(&["a"]).to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let answer = talk.produce("t", 0, broken.into()).await;
    assert_eq!(code(answer.error_code), ErrorCode::CORRUPT_MESSAGE);
    assert_eq!(cluster.log_end_offset(1, "t", 0), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_broker_tells_where_the_leader_is() {
    let cluster = Cluster::builder().seed(1).topic("t", Some(1), Some(1)).start().await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    let other = cluster.broker_ids().into_iter().find(|id| *id != leader).unwrap();
    let mut talk = Talk::to(&cluster, other).await;
    let mut frame = produce("t", 0, -1, 1_000, batch(&["a"]));
    frame.api_version = 10;
    let answer = talk.send(frame).await.unwrap().await.unwrap();
    let answer = codec::decode_response::<klamm_wire::messages::ProduceRequest>(answer).unwrap();
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(code(partition.error_code), ErrorCode::NOT_LEADER_OR_FOLLOWER);
    assert_eq!(partition.current_leader.leader_id, BrokerId(leader));
    assert_eq!(&*answer.node_endpoints[0].host, format!("broker-{leader}.lite"));
}

#[tokio::test(start_paused = true)]
async fn topics_are_created_and_deleted_through_any_broker() {
    let cluster = Cluster::builder().seed(2).start().await.unwrap();
    let mut talk = Talk::to(&cluster, 2).await;
    let topic = CreatableTopic::default()
        .with_name(topic_name("new"))
        .with_num_partitions(3)
        .with_replication_factor(2);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
    let created = talk.ask(7, &request).await;
    assert_eq!((created.topics[0].error_code, created.topics[0].num_partitions), (0, 3));
    assert_eq!(talk.metadata(Some("new")).await.topics[0].partitions.len(), 3);
    let again = talk.ask(7, &request).await;
    assert_eq!(code(again.topics[0].error_code), ErrorCode::TOPIC_ALREADY_EXISTS);
    let gone = DeleteTopicState::default().with_name(Some(topic_name("new")));
    let delete = DeleteTopicsRequest::default().with_topics(vec![gone]).with_timeout_ms(1_000);
    assert_eq!(talk.ask(6, &delete).await.responses[0].error_code, 0);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(talk.metadata(None).await.topics.is_empty());
}

#[tokio::test(start_paused = true)]
async fn offsets_are_found_by_place_and_by_time() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    talk.produce("t", 0, batch(&["a", "b"])).await;
    for (timestamp, offset) in [(-2, 0), (-1, 2), (-3, 0), (*MADE_MS, 0), (*MADE_MS + 1, -1)] {
        let wanted = ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
        let topic = ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        for version in [7, 10, 11] {
            let answer = talk.ask(version, &request).await;
            let found = &answer.topics[0].partitions[0];
            assert_eq!((found.error_code, found.offset), (0, offset), "{timestamp} in version {version}");
        }
    }
    let wanted = OffsetForLeaderPartition::default().with_current_leader_epoch(-1).with_leader_epoch(0);
    let topic = OffsetForLeaderTopic::default().with_topic(topic_name("t")).with_partitions(vec![wanted]);
    let request =
        OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let answer = talk.ask(4, &request).await;
    let end = &answer.topics[0].partitions[0];
    assert_eq!((end.error_code, end.leader_epoch, end.end_offset), (0, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn no_two_producers_get_the_same_id_from_any_broker() {
    let cluster = Cluster::builder().start().await.unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for broker in cluster.broker_ids() {
        let mut talk = Talk::to(&cluster, broker).await;
        for _ in 0..10 {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            let answer = talk.ask(4, &request).await;
            assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
            assert!(ids.insert(answer.producer_id.0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn settings_are_described_with_their_source() {
    let cluster = Cluster::builder().config("num.partitions", "6").start().await.unwrap();
    cluster.create_topic("t", 1, 1, &[("min.insync.replicas", "2")]).await.unwrap();
    let resource = |kind: i8, name: &str, key: &str| {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_string(name.to_owned()))
            .with_configuration_keys(Some(vec![StrBytes::from_string(key.to_owned())]))
    };
    let request = DescribeConfigsRequest::default().with_resources(vec![
        resource(2, "t", "min.insync.replicas"),
        resource(4, "2", "num.partitions"),
        resource(4, "1", "num.partitions"),
        resource(2, "no", "min.insync.replicas"),
    ]);
    let answer = Talk::to(&cluster, 2).await.ask(4, &request).await;
    let shown: Vec<_> = answer
        .results
        .iter()
        .map(|result| {
            let config = result.configs.first();
            let value = config.and_then(|config| config.value.as_deref().map(str::to_owned));
            (code(result.error_code), value, config.map(|config| config.config_source))
        })
        .collect();
    assert_eq!(
        shown,
        [
            (ErrorCode::NONE, Some("2".to_owned()), Some(1)),
            (ErrorCode::NONE, Some("6".to_owned()), Some(4)),
            (ErrorCode::INVALID_REQUEST, None, None),
            (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, None, None),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_broker_disappears_from_the_cluster_and_comes_back() {
    let cluster = Cluster::builder().start().await.unwrap();
    let mut talk = Talk::to(&cluster, 1).await;
    cluster.kill(3).unwrap();
    let request = DescribeClusterRequest::default().with_endpoint_type(1);
    while talk.ask(2, &request).await.brokers.len() == 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let all = talk.ask(2, &request.clone().with_include_fenced_brokers(true)).await;
    let fenced: Vec<_> = all.brokers.iter().map(|shown| (shown.broker_id.0, shown.is_fenced)).collect();
    assert_eq!(fenced, [(1, false), (2, false), (3, true)]);
    cluster.restart(3).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(talk.ask(2, &request).await.brokers.len(), 3);
}

/// Goal: waiting is waiting. A fetch that looked again and again would never let this clock move.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_wants_more_than_is_there_sleeps_until_more_comes_or_its_time_is_over() {
    let cluster = one_broker().await;
    let (mut reader, mut writer) = (Talk::to(&cluster, 1).await, Talk::to(&cluster, 1).await);
    writer.produce("t", 0, batch(&["a"])).await;
    let start = tokio::time::Instant::now();
    let hungry = fetch("t", 0, 0, 700).with_min_bytes(100);
    let answer = reader.ask(12, &hungry).await;
    assert_eq!(start.elapsed(), Duration::from_millis(700));
    assert_eq!(values(&answer.responses[0].partitions[0]).len(), 1, "what there is, at the end");
    let frame = codec::encode_request(12, &hungry.with_max_wait_ms(60_000)).unwrap();
    let waiting = tokio::spawn(reader.send(frame).await.unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    writer.produce("t", 0, batch(&["b"])).await;
    let woken = codec::decode_response::<FetchRequest>(waiting.await.unwrap().unwrap()).unwrap();
    assert_eq!(values(&woken.responses[0].partitions[0]).len(), 2);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_broker_never_sends_more_than_its_own_fetch_max_bytes() {
    let cluster = Cluster::builder().brokers(1).config("fetch.max.bytes", "1024").start().await.unwrap();
    cluster.create_topic("t", 1, 1, &[]).await.unwrap();
    let mut talk = Talk::to(&cluster, 1).await;
    let value = "x".repeat(400);
    for _ in 0..4 {
        talk.produce("t", 0, batch(&[&value])).await;
    }
    assert_eq!(values(&talk.fetch("t", 0, 0, 0).await).len(), 2);
}

/// Goal: each special timestamp is known from the version on in which Kafka introduced it.
#[tokio::test(start_paused = true)]
async fn special_timestamps_of_later_versions_are_refused_as_kafka_does() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    talk.produce("t", 0, batch(&["a"])).await;
    let known_from = [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (-6, 11), (-7, i16::MAX)];
    for (timestamp, first) in known_from {
        let wanted = ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
        let topic = ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        for version in 1..=11 {
            let answer = talk.ask(version, &request).await;
            let found = code(answer.topics[0].partitions[0].error_code);
            let expected = if version < first { ErrorCode::UNSUPPORTED_VERSION } else { ErrorCode::NONE };
            assert_eq!(found, expected, "{timestamp} in version {version}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_by_id_is_invalid_before_the_version_that_has_it() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    let id = talk.metadata(Some("t")).await.topics[0].topic_id;
    for version in [10, 11, 12, 13] {
        let wanted = MetadataRequestTopic::default().with_topic_id(id).with_name(None);
        let answer = talk.ask(version, &MetadataRequest::default().with_topics(Some(vec![wanted]))).await;
        let expected = if version < 12 { ErrorCode::INVALID_REQUEST } else { ErrorCode::NONE };
        assert_eq!(code(answer.topics[0].error_code), expected, "version {version}");
    }
}

/// Goal: nothing grows for ever. A producer that has been silent for long is forgotten, on every replica.
#[tokio::test(start_paused = true)]
async fn producers_that_have_been_silent_too_long_are_forgotten() {
    // A long time: heartbeats and fetches of the quorum in the test profile would be half a million events.
    let builder = Cluster::builder().profile(Profile::Kafka).seed(3);
    let cluster = builder.config("producer.id.expiration.ms", "60000").start().await.unwrap();
    cluster.create_topic("t", 1, 3, &[]).await.unwrap();
    let mut talk = Talk::to(&cluster, cluster.leader_of("t", 0).unwrap()).await;
    talk.produce("t", 0, stamped(&["a"], 5, 0, 0)).await;
    let gap = talk.produce("t", 0, stamped(&["c"], 5, 0, 2)).await;
    assert_eq!(code(gap.error_code), ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    tokio::time::sleep(Duration::from_secs(700)).await;
    assert_eq!(talk.produce("t", 0, stamped(&["c"], 5, 0, 2)).await.base_offset, 1, "it may begin anywhere");
}

#[tokio::test(start_paused = true)]
async fn one_bad_partition_of_a_produce_request_does_not_hold_back_the_others() {
    let cluster = Cluster::builder().brokers(1).topic("t", Some(2), None).start().await.unwrap();
    let mut talk = Talk::to(&cluster, 1).await;
    let mut broken = batch(&["b"]).to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let partitions = [(0, batch(&["a"])), (1, broken.into()), (7, batch(&["c"]))];
    let topic = codec::ProduceTopic {
        name: StrBytes::from_static_str("t"),
        id: Default::default(),
        partitions: partitions
            .map(|(index, records)| codec::ProducePartition { index, records: vec![records] })
            .into(),
    };
    let head = codec::ProduceHead { acks: -1, timeout_ms: 1_000, transactional_id: None };
    let frame = codec::encode_produce(9, &head, &[topic]).unwrap();
    let answer = talk.send(frame).await.unwrap().await.unwrap();
    let answer = codec::decode_response::<klamm_wire::messages::ProduceRequest>(answer).unwrap();
    let codes: Vec<_> = answer.responses[0].partition_responses.iter().map(|p| code(p.error_code)).collect();
    assert_eq!(codes, [ErrorCode::NONE, ErrorCode::CORRUPT_MESSAGE, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION]);
}

/// Goal: transactions are refused, by an error that no client tries again.
#[tokio::test(start_paused = true)]
async fn a_transactional_producer_is_refused_for_good() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    let transactional_id = Some(StrBytes::from_static_str("tx"));
    let init =
        InitProducerIdRequest::default().with_transactional_id(transactional_id.clone().map(Into::into));
    assert_eq!(code(talk.ask(4, &init).await.error_code), ErrorCode::INVALID_REQUEST);
    // attributes are within the checksum
    let mut transactional = stamped(&["a"], 7, 0, 0).to_vec();
    transactional[22] |= 0x10;
    let crc = klamm_wire::crc::crc32c_of_two(&transactional[21..], &[]);
    transactional[17..21].copy_from_slice(&crc.to_be_bytes());
    let refusals = [
        (transactional_id, ErrorCode::INVALID_TXN_STATE),
        (None, ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
    ];
    for (transactional_id, refusal) in refusals {
        let head = codec::ProduceHead { acks: -1, timeout_ms: 1_000, transactional_id };
        let records = vec![transactional.clone().into()];
        let partitions = vec![codec::ProducePartition { index: 0, records }];
        let topic =
            codec::ProduceTopic { name: StrBytes::from_static_str("t"), id: Default::default(), partitions };
        let frame = codec::encode_produce(9, &head, &[topic]).unwrap();
        let answer = produced(talk.send(frame).await.unwrap().await.unwrap());
        assert_eq!(code(answer.error_code), refusal);
    }
    assert_eq!(cluster.log_end_offset(1, "t", 0), Some(0));
}

#[tokio::test]
async fn a_cluster_with_a_seed_takes_records_of_today() {
    let cluster = Cluster::builder().seed(7).topic("t", Some(1), Some(1)).start().await.unwrap();
    let mut talk = Talk::to(&cluster, cluster.leader_of("t", 0).unwrap()).await;
    assert_eq!(talk.produce("t", 0, batch(&["now"])).await.error_code, 0);
}

/// As Kafka does: a leader epoch of -1 is none, any other below the leader's is old.
#[tokio::test(start_paused = true)]
async fn a_leader_epoch_of_minus_two_is_fenced_and_not_taken_for_none() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    for (epoch, expected) in [(-1, ErrorCode::NONE), (-2, ErrorCode::FENCED_LEADER_EPOCH)] {
        let wanted = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(epoch);
        let topic = ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let listed = talk.ask(10, &request).await;
        assert_eq!(code(listed.topics[0].partitions[0].error_code), expected);

        let wanted = OffsetForLeaderPartition::default().with_current_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default().with_topic(topic_name("t")).with_partitions(vec![wanted]);
        let request =
            OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let end = talk.ask(4, &request).await;
        assert_eq!(code(end.topics[0].partitions[0].error_code), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn clients_do_not_write_to_the_topics_of_the_cluster_itself() {
    let cluster = one_broker().await;
    let mut talk = Talk::to(&cluster, 1).await;
    let unknown = talk.produce("__consumer_offsets", 0, batch(&["a"])).await;
    assert_eq!(code(unknown.error_code), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    cluster.create_topic("__consumer_offsets", 1, 1, &[]).await.unwrap();
    let refused = talk.produce("__consumer_offsets", 0, batch(&["a"])).await;
    assert_eq!(code(refused.error_code), ErrorCode::INVALID_TOPIC_EXCEPTION);
    assert_eq!(cluster.log_end_offset(1, "__consumer_offsets", 0), Some(0));
}
