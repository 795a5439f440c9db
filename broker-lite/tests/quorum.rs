//! The metadata quorum of a running cluster: who may say who leads, and how a voter that is far behind catches up.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_lite::{ApiKey, Cluster, Event, Frame, Side, Stage};
use klamm_wire::framing::length_prefix;
use klamm_wire::messages::delete_topics_request::DeleteTopicState;
use klamm_wire::messages::{
    BeginQuorumEpochRequest, BrokerId, DeleteTopicsRequest, EndQuorumEpochRequest, TopicName, VoteRequest,
    begin_quorum_epoch_request, end_quorum_epoch_request, vote_request,
};
use klamm_wire::{ErrorCode, Request, StrBytes, codec};
use support::{Talk, code, topic_name};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::time::Instant;

/// What a voter answers to somebody who comes by its listener.
async fn ask_voter<R: Request>(cluster: &Cluster, voter: i32, version: i16, request: &R) -> R::Response {
    let (client, server) = duplex(1 << 16);
    let (read, write) = split(server);
    cluster.serve_stream(voter, "stranger", read, write).unwrap();
    let (mut read, mut write) = split(client);
    let head = codec::encode_request_header(R::KEY, version, 7, Some("stranger"));
    let body = codec::encode_request(version, request).unwrap().into_contiguous();
    write.write_all(&length_prefix(head.len() + body.len()).unwrap()).await.unwrap();
    write.write_all(&head).await.unwrap();
    write.write_all(&body).await.unwrap();
    let length = read.read_u32().await.unwrap();
    let mut answer = vec![0; length as usize];
    read.read_exact(&mut answer).await.unwrap();
    let mut answer = answer.into();
    codec::decode_response_header(R::KEY, version, &mut answer).unwrap();
    codec::decode_response::<R>(Frame::new(R::KEY, version, answer)).unwrap()
}

fn log() -> TopicName {
    TopicName(StrBytes::from_static_str("__cluster_metadata"))
}

/// Error, leader and epoch that a voter tells whoever claims that `leader` leads `epoch`.
async fn claim(cluster: &Cluster, voter: i32, leader: i32, epoch: i32) -> (ErrorCode, i32, i32) {
    let partition = begin_quorum_epoch_request::PartitionData::default()
        .with_leader_id(BrokerId(leader))
        .with_leader_epoch(epoch);
    let topic = begin_quorum_epoch_request::TopicData::default().with_topic_name(log());
    let topics = vec![topic.with_partitions(vec![partition])];
    let answer = ask_voter(cluster, voter, 1, &BeginQuorumEpochRequest::default().with_topics(topics)).await;
    let told = &answer.topics[0].partitions[0];
    (code(told.error_code), told.leader_id.0, told.leader_epoch)
}

/// As [`claim`], for who says that the leadership of `leader` ends.
async fn claim_end(cluster: &Cluster, voter: i32, leader: i32, epoch: i32) -> (ErrorCode, i32, i32) {
    let partition = end_quorum_epoch_request::PartitionData::default()
        .with_leader_id(BrokerId(leader))
        .with_leader_epoch(epoch);
    let topic = end_quorum_epoch_request::TopicData::default().with_topic_name(log());
    let topics = vec![topic.with_partitions(vec![partition])];
    let answer = ask_voter(cluster, voter, 1, &EndQuorumEpochRequest::default().with_topics(topics)).await;
    let told = &answer.topics[0].partitions[0];
    (code(told.error_code), told.leader_id.0, told.leader_epoch)
}

/// Apache Kafka's controller ends its process when it is told so.
#[tokio::test(start_paused = true)]
async fn whoever_claims_that_another_leads_this_epoch_deposes_nobody() {
    let cluster = Cluster::builder().seed(7).start().await.unwrap();
    let leader = cluster.controller().unwrap();
    let (error, told, epoch) = claim(&cluster, leader, cluster.voters()[0], 0).await;
    assert!(told == leader && error != ErrorCode::NONE, "{error:?} {told}");
    let strangers = [9, 1, -1, i32::MAX];
    for voter in cluster.voters() {
        let others = cluster.voters().into_iter().filter(|other| *other != leader);
        for claimed in others.chain(strangers) {
            for (error, told, at) in [
                claim(&cluster, voter, claimed, epoch).await,
                claim_end(&cluster, voter, claimed, epoch).await,
            ] {
                assert_ne!(error, ErrorCode::NONE, "{voter} believes that {claimed} leads");
                assert_eq!((told, at), (leader, epoch), "{voter} was told of {claimed}");
            }
        }
        // An epoch to come, of somebody who cannot lead it.
        for claimed in strangers.into_iter().chain([voter]) {
            let (error, told, at) = claim(&cluster, voter, claimed, epoch + 5).await;
            assert_ne!(error, ErrorCode::NONE, "{voter} believes that {claimed} leads");
            assert_eq!((told, at), (leader, epoch), "{voter} was told of {claimed}");
        }
    }
    // Long enough for any election.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.controller(), Some(leader));
    let (_, told, now) = claim(&cluster, cluster.voters()[1], cluster.voters()[0], 0).await;
    assert_eq!((told, now), (leader, epoch), "there was an election");
    cluster.create_topic("t", 1, 3, &[]).await.unwrap();
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_is_far_behind_catches_up_by_a_snapshot_and_can_lead() {
    let cluster = Cluster::builder()
        .seed(7)
        .config("metadata.log.max.record.bytes.between.snapshots", "2000")
        .start()
        .await
        .unwrap();
    let leader = cluster.controller().unwrap();
    let behind = cluster.voters().into_iter().find(|voter| *voter != leader).unwrap();
    cluster.kill(behind).unwrap();
    let names: Vec<_> = (0..40).map(|number| format!("t{number}")).collect();
    for name in &names {
        cluster.create_topic(name, 3, 3, &[]).await.unwrap();
    }
    let fetched = Arc::new(AtomicUsize::new(0));
    let counted = fetched.clone();
    let _rule = cluster.on(ApiKey::FetchSnapshot).from(Side::Node(behind)).call(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    cluster.restart(behind).await.unwrap();
    // Until it leads, whoever else does dies: it must have all that was committed.
    for _ in 0..40 {
        let Some(active) = cluster.controller() else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if active == behind {
            break;
        }
        // It has caught up when it answers for a majority without the third.
        let third = cluster.voters().into_iter().find(|voter| ![active, behind].contains(voter)).unwrap();
        cluster.kill(third).unwrap();
        cluster.create_topic(&format!("more-{third}-{}", cluster.elections()), 1, 3, &[]).await.ok();
        cluster.restart(third).await.unwrap();
        cluster.until_controller().await;
        cluster.kill(active).unwrap();
        cluster.until_controller().await;
        cluster.restart(active).await.unwrap();
    }
    assert_eq!(cluster.controller(), Some(behind));
    assert!(fetched.load(Ordering::SeqCst) > 0, "it has never asked for a snapshot");
    for name in &names {
        let again = cluster.create_topic(name, 3, 3, &[]).await.unwrap_err();
        assert!(again.to_string().contains("TOPIC_ALREADY_EXISTS"), "{again}");
    }
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

/// Whether `voter` grants `candidate` its vote for `epoch`.
async fn ask_for_vote(cluster: &Cluster, voter: i32, candidate: i32, epoch: i32) -> bool {
    let partition = vote_request::PartitionData::default()
        .with_replica_epoch(epoch)
        .with_replica_id(BrokerId(candidate))
        .with_last_offset_epoch(epoch - 1)
        .with_last_offset(i64::MAX / 2);
    let topic = vote_request::TopicData::default().with_topic_name(log()).with_partitions(vec![partition]);
    let request = VoteRequest::default().with_voter_id(BrokerId(voter)).with_topics(vec![topic]);
    ask_voter(cluster, voter, 2, &request).await.topics[0].partitions[0].vote_granted
}

/// Goal: what a voter has promised it cannot forget, so it says so only when that is durable.
#[tokio::test(start_paused = true)]
async fn a_vote_is_told_when_it_is_durable_and_not_before() {
    const SLOW: Duration = Duration::from_millis(700);
    let cluster = Cluster::builder().seed(7).start().await.unwrap();
    let leader = cluster.controller().unwrap();
    let (_, _, epoch) = claim(&cluster, leader, leader, 0).await;
    let mut others = cluster.voters().into_iter().filter(|voter| *voter != leader);
    let (voter, candidate) = (others.next().unwrap(), others.next().unwrap());
    let slow = cluster.disk(voter).unwrap().slow(SLOW);
    let asked = tokio::time::Instant::now();
    assert!(ask_for_vote(&cluster, voter, candidate, epoch + 40).await);
    assert!(asked.elapsed() >= SLOW, "told after {:?}", asked.elapsed());
    drop(slow);

    // Once more, and the power goes before the disk is done: it has promised nothing.
    let _slow = cluster.disk(voter).unwrap().slow(SLOW);
    let promise = tokio::time::timeout(SLOW / 2, ask_for_vote(&cluster, voter, candidate, epoch + 80)).await;
    assert!(promise.is_err(), "it was told at once");
    cluster.power_off(voter).unwrap();
    cluster.restart(voter).await.unwrap();
    assert!(ask_for_vote(&cluster, voter, leader, epoch + 80).await, "nobody knows of another vote");
}

/// Goal: who leads is told before its first record is committed. A broker that waited for the record registered one fsync
/// after the others at a first start, and whoever waits for all of them waited for two more.
#[tokio::test(start_paused = true)]
async fn brokers_hear_of_a_leader_before_it_has_committed_anything() {
    const SLOW: Duration = Duration::from_millis(30);
    for seed in 0..8 {
        let cluster = Cluster::builder().seed(seed).start().await.unwrap();
        let old = cluster.controller().unwrap();
        let _slow: Vec<_> = cluster.voters().iter().map(|id| cluster.disk(*id).unwrap().slow(SLOW)).collect();
        let seen = |api| {
            let times = Arc::new(Mutex::new(Vec::new()));
            let seen = times.clone();
            (cluster.on(api), move || times.lock().unwrap().push(Instant::now()), seen)
        };
        let (rule, note, elected) = seen(ApiKey::BeginQuorumEpoch);
        let _rule = rule.call(move |_| note());
        let mut beats = Vec::new();
        let _rules: Vec<_> = (cluster.broker_ids().into_iter())
            .map(|id| {
                let (rule, note, heard) = seen(ApiKey::BrokerHeartbeat);
                beats.push(heard);
                rule.from(Side::Node(id)).call(move |_| note())
            })
            .collect();
        cluster.kill(old).unwrap();
        cluster.until_controller().await;
        let elected = *elected.lock().unwrap().last().unwrap();
        for beats in beats {
            let beats: Vec<_> =
                beats.lock().unwrap().iter().map(|at| at.saturating_duration_since(elected)).collect();
            assert!(beats.iter().any(|at| !at.is_zero() && *at < SLOW), "seed {seed}: {beats:?}");
        }
    }
}

async fn delete(cluster: &Cluster, topic: &str) -> ErrorCode {
    let topic = DeleteTopicState::default().with_name(Some(topic_name(topic)));
    let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(60_000);
    code(Talk::to(cluster, 1).await.ask(6, &request).await.responses[0].error_code)
}

fn deleted(cluster: &Cluster) -> usize {
    cluster.events().iter().filter(|event| matches!(event, Event::TopicDeleted { .. })).count()
}

/// Goal: a deletion that is committed, and whose answer goes with the controller, is asked for again, and then there is no
/// such topic: the client is told so, as by Apache Kafka.
#[tokio::test(start_paused = true)]
async fn a_deletion_whose_answer_is_lost_with_the_controller_is_asked_for_again_and_finds_no_topic() {
    let cluster = Cluster::builder().seed(7).topic("t", Some(1), Some(3)).start().await.unwrap();
    let deposed = cluster.controller().unwrap();
    let gate = cluster.on(ApiKey::DeleteTopics).broker(0).at(Stage::BeforeAnswer).times(1).hold();
    let (answer, ()) = tokio::join!(delete(&cluster, "t"), async {
        gate.hit().await;
        assert_eq!(deleted(&cluster), 1);
        cluster.kill(deposed).unwrap();
    });
    assert_eq!((answer, deleted(&cluster)), (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, 1));
}

/// Goal: what a controller has written, and cannot commit because the disks stand still, its successor commits: the deletion
/// is answered, as one that is asked for again.
#[tokio::test(start_paused = true)]
async fn a_deletion_is_answered_although_the_disks_of_all_controllers_stand_still_meanwhile() {
    let cluster = Cluster::builder().seed(7).topic("t", Some(1), Some(3)).start().await.unwrap();
    let slow: Vec<_> = (cluster.voters().into_iter())
        .map(|id| cluster.disk(id).unwrap().slow(Duration::from_secs(3)))
        .collect();
    let (answer, ()) = tokio::join!(delete(&cluster, "t"), async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(slow);
    });
    assert_eq!((answer, deleted(&cluster)), (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, 1));
    let elected = |event: &&Event| matches!(event, Event::ControllerElected { .. });
    assert!(cluster.events().iter().filter(elected).count() > 1);
}
