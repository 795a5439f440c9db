//! Rules over single requests. The producer here is the simplest one, a raw client that sends again what was not
//! answered; the SDK's own is tested with the same rules elsewhere.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use broker_lite::messages::delete_topics_request::DeleteTopicState;
use broker_lite::messages::{
    DeleteTopicsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, ProduceResponse,
};
use broker_lite::{ApiKey, Cluster, ErrorCode, Fault, Side, Stage};
use klamm_wire::codec::{ProduceHead, ProducePartition, ProduceTopic, encode_produce, encode_request};
use klamm_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_wire::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use support::{Socket, Talk, batch, code, fetch, produce, produced, stamped, topic_name, values};
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(60);
const STAGES: [Stage; 4] = [Stage::BeforeApply, Stage::AfterAppend, Stage::AfterCommit, Stage::BeforeAnswer];

/// A cluster with topic `t` of two partitions on three brokers; returns the leader of the first.
async fn cluster() -> (Cluster, i32) {
    let cluster = Cluster::builder().seed(7).start().await.unwrap();
    cluster.create_topic("t", 2, 3, &[("min.insync.replicas", "2")]).await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    (cluster, leader)
}

fn end(cluster: &Cluster, broker: i32) -> i64 {
    cluster.log_end_offset(broker, "t", 0).unwrap()
}

async fn checked(cluster: &Cluster) {
    sleep(Duration::from_secs(2)).await;
    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
}

/// Sends a batch until somebody answers, to whoever leads; returns the offset and how often it was sent.
async fn send_until_answered(cluster: &Cluster, batch: bytes::Bytes) -> (i64, usize) {
    for sent in 1.. {
        let talk = Talk::dial(cluster, cluster.leader_of("t", 0).unwrap_or(1)).await;
        if let Ok(mut talk) = talk
            && let Ok(answer) = talk.send(produce("t", 0, -1, 1_000, batch.clone())).await
            && let Ok(Ok(answer)) = timeout(Duration::from_secs(2), answer).await
            && produced(answer.clone()).error_code == 0
        {
            return (produced(answer).base_offset, sent);
        }
        sleep(10 * MS).await;
    }
    unreachable!()
}

/// Goal: "applied, then the answer was lost" can be asked for, and a retry is known.
#[tokio::test(start_paused = true)]
async fn what_was_appended_before_the_answer_was_lost_is_not_appended_again() {
    for stage in [Stage::AfterAppend, Stage::AfterCommit, Stage::BeforeAnswer] {
        let (cluster, leader) = cluster().await;
        let lost = cluster.on(ApiKey::Produce).times(1).at(stage).then(Fault::DropConnection);
        let mut talk = Talk::to(&cluster, leader).await;
        let answer = talk.send(produce("t", 0, -1, 1_000, stamped(&["a"], 9, 0, 0))).await.unwrap();
        assert!(answer.await.is_err(), "{stage:?}");
        assert_eq!((lost.hits(), end(&cluster, leader)), (1, 1), "{stage:?}: it was applied");
        assert_eq!(send_until_answered(&cluster, stamped(&["a"], 9, 0, 0)).await, (0, 1), "{stage:?}");
        assert_eq!(end(&cluster, leader), 1, "{stage:?}: once");
        assert_eq!(lost.hits(), 1);
        assert_eq!(cluster.in_flight_produce(leader), 0);
        checked(&cluster).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_dropped_before_the_append_takes_in_nothing_behind_it_either() {
    let (cluster, leader) = cluster().await;
    let dropped = cluster.on(ApiKey::Produce).skip(1).times(1).then(Fault::DropConnection);
    let mut talk = Talk::to(&cluster, leader).await;
    let mut answers = Vec::new();
    for value in ["a", "b", "c"] {
        answers.push(talk.send(produce("t", 0, 1, 1_000, batch(&[value]))).await.unwrap());
    }
    dropped.hit().await;
    sleep(MS).await;
    assert_eq!(end(&cluster, leader), 1);
    for answer in answers.split_off(1) {
        assert!(answer.await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn silence_after_the_append_keeps_back_the_answers_behind_it_on_its_connection_only() {
    let (cluster, leader) = cluster().await;
    let silence = cluster.on(ApiKey::Produce).times(1).at(Stage::AfterAppend).then(Fault::Silence);
    let mut talk = Talk::to(&cluster, leader).await;
    let mut answers = Vec::new();
    for value in ["a", "b"] {
        answers.push(talk.send(produce("t", 0, 1, 1_000, batch(&[value]))).await.unwrap());
    }
    for answer in &mut answers {
        assert!(timeout(LONG, answer).await.is_err());
    }
    assert_eq!(Talk::to(&cluster, leader).await.produce("t", 0, batch(&["c"])).await.base_offset, 2);
    assert_eq!(silence.hits(), 1);
    drop((talk, answers));
    sleep(MS).await;
    assert_eq!(cluster.in_flight_produce(leader), 0, "ends with the connection");
}

#[tokio::test(start_paused = true)]
async fn silence_before_the_append_keeps_everything_behind_it_from_being_carried_out() {
    let (cluster, leader) = cluster().await;
    let silence = cluster.on(ApiKey::Produce).skip(1).times(1).then(Fault::Silence);
    let mut talk = Talk::to(&cluster, leader).await;
    let mut answers = Vec::new();
    for value in ["a", "b", "c"] {
        answers.push(talk.send(produce("t", 0, 1, 1_000, batch(&[value]))).await.unwrap());
    }
    assert_eq!(produced(answers.remove(0).await.unwrap()).base_offset, 0);
    for answer in &mut answers {
        assert!(timeout(LONG, answer).await.is_err());
    }
    drop(silence);
    assert!(timeout(LONG, &mut answers[0]).await.is_err(), "silent for good");
    assert_eq!(end(&cluster, leader), 1);
}

#[tokio::test(start_paused = true)]
async fn a_delay_takes_its_time_and_keeps_the_order() {
    for stage in STAGES {
        let (cluster, leader) = cluster().await;
        let _slow = cluster.on(ApiKey::Produce).times(1).at(stage).then(Fault::Delay(300 * MS));
        let mut talk = Talk::to(&cluster, leader).await;
        let before = Instant::now();
        let mut answers = Vec::new();
        for value in ["a", "b"] {
            answers.push(talk.send(produce("t", 0, 1, 1_000, batch(&[value]))).await.unwrap());
        }
        sleep(100 * MS).await;
        let appended = if stage == Stage::BeforeApply { 0 } else { 2 };
        assert_eq!(end(&cluster, leader), appended, "{stage:?}");
        for (offset, answer) in (0..).zip(answers) {
            assert_eq!(produced(answer.await.unwrap()).base_offset, offset, "{stage:?}");
            assert_eq!(before.elapsed(), 300 * MS, "{stage:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_a_refusal_before_the_append_and_a_lie_after_it() {
    for stage in STAGES {
        let (cluster, leader) = cluster().await;
        let refused = ErrorCode::NOT_ENOUGH_REPLICAS;
        let _rule = cluster.on(ApiKey::Produce).times(1).at(stage).then(Fault::Error(refused));
        let mut talk = Talk::to(&cluster, leader).await;
        let answer = talk.produce("t", 0, batch(&["a"])).await;
        assert_eq!((code(answer.error_code), answer.base_offset), (refused, -1), "{stage:?}");
        assert_eq!(end(&cluster, leader), i64::from(stage != Stage::BeforeApply), "{stage:?}");
        assert_eq!(talk.produce("t", 0, batch(&["b"])).await.error_code, 0, "the connection is fine");
        // Without an answer there is only one way to tell an error.
        let _rule = cluster.on(ApiKey::Produce).at(stage).then(Fault::Error(refused));
        talk.send(produce("t", 0, 0, 1_000, batch(&["c"]))).await.unwrap().await.unwrap();
        assert!(talk.try_ask(12, &MetadataRequest::default()).await.is_err(), "{stage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_in_metadata_leaves_the_brokers_known() {
    let (cluster, leader) = cluster().await;
    let _rule =
        cluster.on(ApiKey::Metadata).topic("t", None).then(Fault::Error(ErrorCode::LEADER_NOT_AVAILABLE));
    let response = Talk::to(&cluster, leader).await.metadata(Some("t")).await;
    assert_eq!(response.brokers.len(), 3);
    assert_eq!(code(response.topics[0].error_code), ErrorCode::LEADER_NOT_AVAILABLE);
    let other = Talk::to(&cluster, leader).await.metadata(Some("other")).await;
    assert_ne!(code(other.topics[0].error_code), ErrorCode::LEADER_NOT_AVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn an_edit_changes_what_the_client_sees_and_not_the_log() {
    let (cluster, leader) = cluster().await;
    let mut talk = Talk::to(&cluster, leader).await;
    let edits = cluster.on(ApiKey::Produce).edit::<ProduceRequest>(|response| {
        response.responses[0].partition_responses[0].base_offset += 100;
    });
    assert_eq!(talk.produce("t", 0, batch(&["a"])).await.base_offset, 100);
    assert_eq!(talk.produce("t", 0, batch(&["b"])).await.base_offset, 101);
    assert_eq!(edits.hits(), 2);
    drop(edits);
    let _edit = cluster.on(ApiKey::Fetch).from(Side::Clients).edit::<FetchRequest>(|response| {
        response.responses[0].partitions[0].high_watermark = 77;
    });
    let data = talk.fetch("t", 0, 0, 0).await;
    assert_eq!(data.high_watermark, 77);
    assert_eq!(values(&data), [(0, "a".to_owned()), (1, "b".to_owned())], "its records are untouched");
    assert_eq!((end(&cluster, leader), cluster.high_watermark("t", 0)), (2, Some(2)));
    checked(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_given_in_the_brokers_place() {
    let (cluster, leader) = cluster().await;
    let _rule = cluster.on(ApiKey::Produce).times(1).answer::<ProduceRequest>(|request| {
        let index = request.topic_data[0].partition_data[0].index;
        let partition = PartitionProduceResponse::default().with_index(index).with_base_offset(4_711);
        let topic = TopicProduceResponse::default()
            .with_name(request.topic_data[0].name.clone())
            .with_partition_responses(vec![partition]);
        ProduceResponse::default().with_responses(vec![topic])
    });
    let mut talk = Talk::to(&cluster, leader).await;
    assert_eq!(talk.produce("t", 0, batch(&["a"])).await.base_offset, 4_711);
    assert_eq!(end(&cluster, leader), 0);
    assert_eq!(talk.produce("t", 0, batch(&["b"])).await.base_offset, 0);
}

/// Goal: a rule kills from within the victim's own task, before any answer leaves, and no acknowledged record is lost.
#[tokio::test(start_paused = true)]
async fn a_kill_at_any_stage_falls_before_the_answer_and_the_retry_is_written_once() {
    for stage in STAGES {
        let (cluster, leader) = cluster().await;
        let mut talk = Talk::to(&cluster, leader).await;
        assert_eq!(talk.produce("t", 0, stamped(&["a"], 9, 0, 0)).await.error_code, 0);
        let mut bystander = Talk::to(&cluster, leader).await;
        let other = bystander.send(produce("t", 0, -1, 1_000, batch(&["x"])));
        let kill = cluster.on(ApiKey::Produce).skip(1).broker(leader).at(stage).then(Fault::Kill);
        let (_other, killed) = tokio::join!(other, async {
            talk.send(produce("t", 0, -1, 1_000, stamped(&["b"], 9, 0, 1))).await.unwrap().await
        });
        assert!(killed.is_err(), "{stage:?}");
        assert_eq!(kill.hits(), 1, "{stage:?}");
        assert!(Talk::dial(&cluster, leader).await.is_err(), "{stage:?}: dead");
        cluster.until_leader("t", 0, |now| now.is_some_and(|id| id != leader)).await;
        send_until_answered(&cluster, stamped(&["b"], 9, 0, 1)).await;
        drop(kill);
        cluster.restart(leader).await.unwrap();
        cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
        checked(&cluster).await;
        let data = Talk::to(&cluster, cluster.leader_of("t", 0).unwrap()).await.fetch("t", 0, 0, 0).await;
        let mut read: Vec<_> = values(&data).into_iter().map(|(_, value)| value).collect();
        read.retain(|value| value != "x");
        assert_eq!(read, ["a", "b"], "{stage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_may_call_anything_even_kill_the_broker_it_runs_on() {
    let (cluster, leader) = cluster().await;
    let place: Arc<OnceLock<Weak<Cluster>>> = Arc::default();
    let cluster = Arc::new(cluster);
    place.set(Arc::downgrade(&cluster)).unwrap();
    let rule = cluster.on(ApiKey::Produce).at(Stage::AfterAppend).call(move |request| {
        assert_eq!(request.api_key, 0);
        let cluster = place.get().and_then(Weak::upgrade).unwrap();
        let _also = cluster.on(ApiKey::Produce).then(Fault::DropConnection);
        cluster.kill(leader).unwrap();
    });
    let mut talk = Talk::to(&cluster, leader).await;
    let answer = talk.send(produce("t", 0, 1, 1_000, batch(&["a"]))).await.unwrap();
    assert!(answer.await.is_err());
    rule.hit().await;
    assert!(cluster.kill(leader).is_err(), "dead already");
    assert_eq!(cluster.check().batches, 1, "appended before");
}

#[tokio::test(start_paused = true)]
async fn a_gate_holds_until_it_is_released_and_releases_everything_when_it_is_dropped() {
    for stage in STAGES {
        let (cluster, leader) = cluster().await;
        let gate = cluster.on(ApiKey::Produce).at(stage).hold();
        let mut talks = Vec::new();
        let mut answers = Vec::new();
        for number in 0..3 {
            let mut talk = Talk::to(&cluster, leader).await;
            answers.push(talk.send(produce("t", 0, -1, 600_000, batch(&["a"]))).await.unwrap());
            talks.push(talk);
            gate.until_hits(number + 1).await;
        }
        sleep(LONG).await;
        assert_eq!((gate.held(), gate.hits()), (3, 3), "{stage:?}");
        assert_eq!(end(&cluster, leader), if stage == Stage::BeforeApply { 0 } else { 3 }, "{stage:?}");
        assert_eq!(gate.release(), 3);
        for answer in answers {
            assert_eq!(produced(answer.await.unwrap()).error_code, 0, "{stage:?}");
        }
        // What comes later is held again.
        let mut answer = talks[0].send(produce("t", 0, -1, 600_000, batch(&["b"]))).await.unwrap();
        assert!(timeout(LONG, &mut answer).await.is_err());
        assert_eq!(gate.held(), 1, "{stage:?}");
        drop(gate);
        assert_eq!(produced(answer.await.unwrap()).error_code, 0, "{stage:?}");
        assert_eq!(talks[0].produce("t", 0, batch(&["c"])).await.error_code, 0, "nothing is left of it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_client_is_gone_is_not_held_any_more() {
    let (cluster, leader) = cluster().await;
    let gate = cluster.on(ApiKey::Produce).at(Stage::AfterAppend).hold();
    let mut talk = Talk::to(&cluster, leader).await;
    let answer = talk.send(produce("t", 0, 1, 1_000, batch(&["a"]))).await.unwrap();
    gate.hit().await;
    assert_eq!(gate.held(), 1);
    drop((talk, answer));
    sleep(MS).await;
    assert_eq!((gate.held(), gate.release()), (0, 0));
    assert_eq!(end(&cluster, leader), 1);
}

#[tokio::test(start_paused = true)]
async fn skip_and_times_choose_by_order_and_a_dropped_rule_is_gone() {
    let (cluster, leader) = cluster().await;
    let refused = ErrorCode::NOT_ENOUGH_REPLICAS;
    let rule = cluster.on(ApiKey::Produce).skip(2).times(3).then(Fault::Error(refused));
    let mut talk = Talk::to(&cluster, leader).await;
    let mut codes = Vec::new();
    for _ in 0..7 {
        codes.push(talk.produce("t", 0, batch(&["a"])).await.error_code);
    }
    assert_eq!(codes, [0, 0, refused.0, refused.0, refused.0, 0, 0]);
    assert_eq!(rule.hits(), 3);
    drop(rule);
    let rule = cluster.on(ApiKey::Produce).then(Fault::Error(refused));
    assert_eq!(code(talk.produce("t", 0, batch(&["a"])).await.error_code), refused);
    drop(rule);
    assert_eq!(talk.produce("t", 0, batch(&["a"])).await.error_code, 0);
    // Also for a request that it has chosen already.
    let late = cluster.on(ApiKey::Produce).at(Stage::AfterCommit).then(Fault::Error(refused));
    let followers: Vec<_> = cluster.broker_ids().into_iter().filter(|id| *id != leader).collect();
    let cut = cluster.cut(leader, Side::Brokers);
    let answer = talk.send(produce("t", 0, -1, 60_000, batch(&["a"]))).await.unwrap();
    sleep(10 * MS).await;
    drop(late);
    cut.heal();
    assert_eq!(produced(answer.await.unwrap()).error_code, 0, "{followers:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_rule_that_matches_acts_and_the_others_see_what_it_leaves() {
    let (cluster, leader) = cluster().await;
    let (a, b) = (ErrorCode::NOT_ENOUGH_REPLICAS, ErrorCode::REQUEST_TIMED_OUT);
    let first = cluster.on(ApiKey::Produce).times(1).then(Fault::Error(a));
    let second = cluster.on_any().topic("t", 0).from(Side::Clients).then(Fault::Error(b));
    let mut talk = Talk::to(&cluster, leader).await;
    let mut codes = Vec::new();
    for _ in 0..2 {
        codes.push(code(talk.produce("t", 0, batch(&["a"])).await.error_code));
    }
    assert_eq!(codes, [a, b]);
    assert_eq!((first.hits(), second.hits()), (1, 1));
}

fn produce_by_id(id: uuid::Uuid, partition: i32) -> broker_lite::Frame {
    let head = ProduceHead { acks: 1, timeout_ms: 1_000, transactional_id: None };
    let partitions = vec![ProducePartition { index: partition, records: vec![batch(&["a"])] }];
    encode_produce(13, &head, &[ProduceTopic { name: Default::default(), id, partitions }]).unwrap()
}

/// Goal: a rule for a partition finds it however the request names it, and no other.
#[tokio::test(start_paused = true)]
async fn a_rule_for_a_partition_finds_it_by_name_and_by_id_in_every_api() {
    let (cluster, _) = cluster().await;
    let leaders = [0, 1].map(|partition| cluster.leader_of("t", partition).unwrap());
    cluster.create_topic("other", 1, 3, &[]).await.unwrap();
    let at_second =
        cluster.on(ApiKey::Produce).topic("t", 1).then(Fault::Error(ErrorCode::UNKNOWN_SERVER_ERROR));
    for (partition, leader) in (0..).zip(leaders) {
        let answer = Talk::to(&cluster, leader).await.produce("t", partition, batch(&["a"])).await;
        assert_eq!(answer.error_code != 0, partition == 1);
    }
    let id = cluster.leader_changes().iter().find(|change| change.topic == "t").unwrap().topic_id;
    for (partition, leader) in (0..).zip(leaders) {
        let mut talk = Talk::to(&cluster, leader).await;
        let answer = talk.send(produce_by_id(id, partition)).await.unwrap().await.unwrap();
        assert_eq!(produced(answer).error_code != 0, partition == 1, "by id");
    }
    assert_eq!(at_second.hits(), 2);
    // Followers fetch by id, from other brokers.
    let followers = cluster.on(ApiKey::Fetch).topic("t", 0).from(Side::Brokers).then(Fault::Delay(MS));
    Talk::to(&cluster, leaders[0]).await.produce("t", 0, batch(&["b"])).await;
    followers.hit().await;
    let any = cluster.on(ApiKey::ListOffsets).topic("t", None).then(Fault::Delay(MS));
    let wanted = ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(-1);
    for (topic, hits) in [("t", 1), ("other", 1), ("t", 2)] {
        let topic =
            ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![wanted.clone()]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        Talk::to(&cluster, leaders[0]).await.ask(9, &request).await;
        assert_eq!(any.hits(), hits);
    }
    let metadata = cluster.on(ApiKey::Metadata).topic("other", 0).then(Fault::Delay(MS));
    let mut talk = Talk::to(&cluster, leaders[0]).await;
    for (topic, hits) in [(Some("t"), 0), (Some("other"), 1), (None, 2)] {
        talk.metadata(topic).await;
        assert_eq!(metadata.hits(), hits, "{topic:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_can_be_for_one_client_one_broker_or_what_a_predicate_wants() {
    let (cluster, leader) = cluster().await;
    let refused = Fault::Error(ErrorCode::UNKNOWN_SERVER_ERROR);
    let of_client = cluster.on(ApiKey::Produce).client("svc").then(refused.clone());
    for (name, fails) in [("svc", true), ("other", false)] {
        let mut talk = Talk::named(&cluster, leader, name).await.unwrap();
        assert_eq!(talk.produce("t", 0, batch(&["a"])).await.error_code != 0, fails, "{name}");
    }
    drop(of_client);
    let elsewhere = cluster.on(ApiKey::Produce).broker(leader % 3 + 1).then(refused.clone());
    let mut talk = Talk::to(&cluster, leader).await;
    assert_eq!(talk.produce("t", 0, batch(&["a"])).await.error_code, 0);
    assert_eq!(elsewhere.hits(), 0);
    let big = cluster.on_any().matching(|request| request.len_bytes() > 1_000).then(refused.clone());
    assert_eq!(talk.produce("t", 0, batch(&["a"])).await.error_code, 0);
    assert_ne!(talk.produce("t", 0, batch(&[&"x".repeat(1_000)])).await.error_code, 0);
    drop(big);
    let typed =
        cluster.on_any().matching_request::<ProduceRequest>(|request| request.acks == 1).then(refused);
    assert_eq!(talk.produce("t", 0, batch(&["a"])).await.error_code, 0, "acks=-1");
    let answer = talk.send(produce("t", 0, 1, 1_000, batch(&["a"]))).await.unwrap().await.unwrap();
    assert_ne!(produced(answer).error_code, 0);
    assert_eq!(typed.hits(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_between_nodes_can_be_held_as_those_of_clients() {
    // Heartbeats do not matter here: the leader itself has to notice, and to tell the controller.
    let builder = Cluster::builder().seed(7).config("broker.session.timeout.ms", "600000");
    let cluster = builder.topic("t", Some(1), Some(3)).start().await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    let gate = cluster.on(ApiKey::AlterPartition).broker(0).topic("t", 0).hold();
    let follower = leader % 3 + 1;
    cluster.pause(follower).unwrap();
    let mut talk = Talk::to(&cluster, leader).await;
    let waiting = talk.send(produce("t", 0, -1, 20_000, batch(&["a"]))).await.unwrap();
    gate.hit().await;
    sleep(100 * MS).await;
    assert_eq!(cluster.high_watermark("t", 0), Some(0), "the controller has not heard of the smaller ISR");
    gate.release();
    assert_eq!(produced(waiting.await.unwrap()).error_code, 0);
    assert!(!cluster.isr_of("t", 0).contains(&follower));
}

/// Goal: a heartbeat that is never answered must not be the broker's last.
#[tokio::test(start_paused = true)]
async fn a_broker_whose_heartbeats_were_not_answered_comes_back_by_itself() {
    let (cluster, leader) = cluster().await;
    let before = cluster.event_count();
    let silence = cluster.on(ApiKey::BrokerHeartbeat).from(leader).then(Fault::Silence);
    let fenced = |event: &broker_lite::Event| matches!(event, broker_lite::Event::Fenced { broker, .. } if *broker == leader);
    cluster.until_event_since(before, fenced).await;
    assert!(silence.hits() > 0);
    drop(silence);
    timeout(LONG, cluster.until_isr("t", 0, |isr| isr.len() == 3)).await.expect("back in sync");
}

/// Goal: the same for a follower's fetches, and for the metadata.
#[tokio::test(start_paused = true)]
async fn brokers_whose_fetches_were_not_answered_come_back_by_themselves() {
    let (cluster, leader) = cluster().await;
    for (node, fetchers) in [(leader, 2), (0, 3)] {
        let silence = cluster.on(ApiKey::Fetch).broker(node).from(Side::Brokers).then(Fault::Silence);
        silence.until_hits(fetchers).await;
    }
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    let answer =
        Talk::to(&cluster, leader).await.send(produce("t", 0, -1, 60_000, batch(&["a"]))).await.unwrap();
    assert_eq!(produced(answer.await.unwrap()).error_code, 0);
    timeout(LONG, cluster.create_topic("new", 1, 3, &[])).await.expect("metadata flows").unwrap();
}

/// Goal: the same over sockets, on a real clock.
#[tokio::test]
async fn rules_act_over_sockets_as_they_do_in_process() {
    let cluster = Cluster::builder().tcp(true).topic("t", Some(1), Some(3)).start().await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    let lost = cluster
        .on(ApiKey::Produce)
        .client("socket")
        .topic("t", 0)
        .times(1)
        .at(Stage::AfterAppend)
        .then(Fault::DropConnection);
    let mut socket = Socket::connect(&cluster, leader).await;
    socket.send(1, produce("t", 0, -1, 1_000, stamped(&["a"], 9, 0, 0))).await;
    assert_eq!(socket.produced(1).await, None, "closed");
    assert_eq!((lost.hits(), end(&cluster, leader)), (1, 1));
    let mut socket = Socket::connect(&cluster, leader).await;
    socket.send(2, produce("t", 0, -1, 1_000, stamped(&["a"], 9, 0, 0))).await;
    assert_eq!(socket.produced(2).await, Some(0));
    assert_eq!(end(&cluster, leader), 1, "once");
    let edit = cluster.on(ApiKey::Produce).client("socket").edit::<ProduceRequest>(|response| {
        response.responses[0].partition_responses[0].base_offset += 100;
    });
    socket.send(3, produce("t", 0, -1, 1_000, stamped(&["b"], 9, 0, 1))).await;
    assert_eq!(socket.produced(3).await, Some(101));
    drop(edit);
    let gate = cluster.on(ApiKey::Produce).client("socket").hold();
    socket.send(4, produce("t", 0, -1, 1_000, stamped(&["c"], 9, 0, 2))).await;
    gate.hit().await;
    assert_eq!(end(&cluster, leader), 2);
    drop(gate);
    assert_eq!(socket.produced(4).await, Some(2));
    let silence = cluster.on(ApiKey::Produce).then(Fault::Silence);
    socket.send(5, produce("t", 0, -1, 1_000, stamped(&["d"], 9, 0, 3))).await;
    silence.hit().await;
    drop(socket);
    drop(silence);
    let kill = cluster.on(ApiKey::Produce).broker(leader).at(Stage::AfterAppend).then(Fault::Kill);
    let mut socket = Socket::connect(&cluster, leader).await;
    socket.send(6, produce("t", 0, -1, 1_000, stamped(&["d"], 9, 0, 3))).await;
    assert_eq!(socket.produced(6).await, None);
    kill.hit().await;
    drop(kill);
    cluster.until_leader("t", 0, |now| now.is_some_and(|id| id != leader)).await;
    let fetched = encode_request(12, &fetch("t", 0, 0, 0)).unwrap();
    assert_eq!(fetched.api_key, 1);
}

/// Goal: a broker whose own metadata fetch breaks doubts its controller, and what it has passed on is carried out once, and answered.
#[tokio::test(start_paused = true)]
async fn what_a_broker_has_passed_on_is_not_sent_again_because_its_metadata_fetch_broke() {
    let (cluster, _) = cluster().await;
    let mut talk = Talk::to(&cluster, 1).await;
    let held = cluster.on(ApiKey::DeleteTopics).broker(Cluster::CONTROLLER).times(1);
    let gate = held.at(Stage::BeforeAnswer).hold();
    let topic = DeleteTopicState::default().with_name(Some(topic_name("t")));
    let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(60_000);
    let asking = async move { talk.ask(6, &request).await };
    let doubting = async {
        gate.hit().await;
        let fetches = cluster.on(ApiKey::Fetch).broker(Cluster::CONTROLLER).from(1).times(1);
        let broken = fetches.then(Fault::DropConnection);
        while broken.hits() == 0 {
            sleep(10 * MS).await;
        }
        sleep(Duration::from_secs(1)).await;
        gate.release();
    };
    let (answer, ()) = tokio::join!(asking, doubting);
    assert_eq!(answer.responses[0].error_code, 0);
}
