//! Fetch sessions, replicas nearby, and what a batch becomes on its way in, as a client of raw frames sees them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::Duration;

use broker_lite::Cluster;
use bytes::Bytes;
use klamm_wire::codec;
use klamm_wire::framing::length_prefix;
use klamm_wire::messages::describe_producers_request::TopicRequest;
use klamm_wire::messages::fetch_request::ForgottenTopic;
use klamm_wire::messages::{BrokerId, DescribeProducersRequest, FetchRequest, FetchResponse};
use klamm_wire::{Compression, ErrorCode, RawBatch, StrBytes};
use support::{Talk, batch, code, fetch, produce, produced, stamped, topic_name, values};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request of a session; without a topic it names nothing.
fn in_session(id: i32, epoch: i32, named: Option<(&str, i64)>) -> FetchRequest {
    let (topic, offset) = named.unwrap_or(("none", 0));
    let request = fetch(topic, 0, offset, 0).with_session_id(id).with_session_epoch(epoch);
    if named.is_some() { request } else { request.with_topics(Vec::new()) }
}

fn told(answer: &FetchResponse) -> Vec<(String, i16, usize)> {
    let partitions = answer.responses.iter().flat_map(|topic| {
        topic.partitions.iter().map(|data| (topic.topic.to_string(), data.error_code, values(data).len()))
    });
    partitions.collect()
}

/// Goal: what Apache Kafka 4.3.0 answers to the same requests.
#[tokio::test(start_paused = true)]
async fn a_session_tells_what_is_new_and_refuses_what_is_out_of_turn() {
    let cluster = Cluster::builder().brokers(1).seed(3).topic("t", Some(1), Some(1)).start().await.unwrap();
    let mut talk = Talk::to(&cluster, 1).await;
    let whole = talk.ask(12, &in_session(0, 0, Some(("t", 0)))).await;
    let id = whole.session_id;
    assert!(id > 0);
    assert_eq!(told(&whole), [("t".to_owned(), 0, 0)]);

    assert_eq!(told(&talk.ask(12, &in_session(id, 1, None)).await), []);
    talk.produce("t", 0, batch(&["a", "b"])).await;
    let news = talk.ask(12, &in_session(id, 2, None)).await;
    assert_eq!((news.session_id, told(&news)), (id, vec![("t".to_owned(), 0, 2)]));
    let again = talk.ask(12, &in_session(id, 3, None)).await;
    assert_eq!(told(&again), [("t".to_owned(), 0, 2)], "nobody has moved on");
    assert_eq!(told(&talk.ask(12, &in_session(id, 4, Some(("t", 2)))).await), []);
    let unknown = [("nope".to_owned(), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0, 0)];
    assert_eq!(told(&talk.ask(12, &in_session(id, 5, Some(("nope", 0)))).await), unknown);
    assert_eq!(told(&talk.ask(12, &in_session(id, 6, None)).await), unknown, "as long as it is so");

    let refused = |answer: FetchResponse| (code(answer.error_code), answer.session_id);
    let wrong_epoch = talk.ask(12, &in_session(id, 99, None)).await;
    assert_eq!(refused(wrong_epoch), (ErrorCode::INVALID_FETCH_SESSION_EPOCH, 0));
    let wrong_id = talk.ask(12, &in_session(id + 1, 1, None)).await;
    assert_eq!(refused(wrong_id), (ErrorCode::FETCH_SESSION_ID_NOT_FOUND, 0));
    let by_id = talk.ask(13, &in_session(id, 7, None)).await;
    assert_eq!(refused(by_id), (ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR, 0));

    let forget = |topic| ForgottenTopic::default().with_topic(topic_name(topic)).with_partitions(vec![0]);
    let last = in_session(id, 7, None).with_forgotten_topics_data(vec![forget("t"), forget("nope")]);
    assert_eq!(refused(talk.ask(12, &last).await), (ErrorCode::NONE, 0), "an empty session is over");
    let gone = talk.ask(12, &in_session(id, 8, None)).await;
    assert_eq!(refused(gone), (ErrorCode::FETCH_SESSION_ID_NOT_FOUND, 0));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_of_a_session_hears_of_records_and_ends_when_a_later_one_comes() {
    let cluster = Cluster::builder().brokers(1).seed(3).topic("t", Some(1), Some(1)).start().await.unwrap();
    let mut talk = Talk::to(&cluster, 1).await;
    let id = talk.ask(12, &in_session(0, 0, Some(("t", 0)))).await.session_id;
    let mut waiting = Talk::to(&cluster, 1).await;
    let begun = tokio::time::Instant::now();
    let long = in_session(id, 1, None).with_max_wait_ms(60_000);
    let (news, _) = tokio::join!(waiting.ask(12, &long), talk.produce("t", 0, batch(&["a"])));
    assert_eq!(told(&news), [("t".to_owned(), 0, 1)]);

    let long = in_session(id, 2, Some(("t", 1))).with_max_wait_ms(60_000);
    let later = in_session(id, 3, None);
    let (over, next) = tokio::join!(waiting.ask(12, &long), talk.ask(12, &later));
    assert_eq!(code(over.error_code), ErrorCode::INVALID_FETCH_SESSION_EPOCH);
    assert_eq!((code(next.error_code), told(&next)), (ErrorCode::NONE, vec![]));
    assert!(begun.elapsed().as_secs() < 60);
}

#[tokio::test(start_paused = true)]
async fn without_slots_every_fetch_is_a_whole_one_and_followers_still_follow() {
    let cluster = Cluster::builder()
        .config("max.incremental.fetch.session.cache.slots", "0")
        .topic("t", Some(1), Some(3))
        .seed(3)
        .start()
        .await
        .unwrap();
    let leader = Talk::to(&cluster, 1).await.metadata(Some("t")).await.topics[0].partitions[0].leader_id.0;
    let mut talk = Talk::to(&cluster, leader).await;
    assert_eq!(talk.produce("t", 0, batch(&["a"])).await.error_code, 0, "acks=all");
    assert_eq!(talk.ask(12, &in_session(0, 0, Some(("t", 0)))).await.session_id, 0);
}

/// Goal: KIP-392. The leader names the follower in the consumer's rack, and that one serves what is committed.
#[tokio::test(start_paused = true)]
async fn a_consumer_is_sent_to_a_replica_in_its_rack() {
    let selector = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
    let cluster = Cluster::builder()
        .config("replica.selector.class", selector)
        .topic("t", Some(1), Some(3))
        .seed(3)
        .start()
        .await
        .unwrap();
    let leader = Talk::to(&cluster, 1).await.metadata(Some("t")).await.topics[0].partitions[0].leader_id.0;
    let other = cluster.broker_ids().into_iter().find(|id| *id != leader).unwrap();
    let mut talk = Talk::to(&cluster, leader).await;
    talk.produce("t", 0, batch(&["a"])).await;
    let from = |rack: &str| fetch("t", 0, 0, 0).with_rack_id(StrBytes::from_string(rack.to_owned()));
    let sent = |answer: &FetchResponse| {
        let data = &answer.responses[0].partitions[0];
        (data.preferred_read_replica, values(data).len(), data.high_watermark)
    };
    let nearby = talk.ask(12, &from(&format!("RACK{other}"))).await;
    assert_eq!(sent(&nearby), (BrokerId(other), 0, 1));
    for rack in [format!("RACK{leader}"), "RACK9".to_owned(), String::new()] {
        assert_eq!(sent(&talk.ask(12, &from(&rack)).await), (BrokerId(-1), 1, 1), "{rack}");
    }
    assert_eq!(sent(&talk.ask(10, &from(&format!("RACK{other}"))).await).0, BrokerId(-1), "before Fetch 11");
    let mut there = Talk::to(&cluster, other).await;
    loop {
        let answer = there.ask(12, &from("").with_max_wait_ms(100)).await;
        match sent(&answer) {
            (BrokerId(-1), 1, 1) => break,
            (_, none, mark) => assert_eq!((none, mark), (0, 0), "not before it knows that it is committed"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn batches_get_the_codec_of_the_topic() {
    let cluster = Cluster::builder().brokers(1).seed(3).start().await.unwrap();
    let mut talk = Talk::to(&cluster, 1).await;
    for (topic, codec) in
        [("gzip", Compression::Gzip), ("uncompressed", Compression::None), ("lz4", Compression::Lz4)]
    {
        cluster.create_topic(topic, 1, 1, &[("compression.type", topic)]).await.unwrap();
        assert_eq!(talk.produce(topic, 0, batch(&["a", "b"])).await.error_code, 0);
        let data = talk.fetch(topic, 0, 0, 1_000).await;
        assert_eq!(values(&data), [(0, "a".to_owned()), (1, "b".to_owned())]);
        let stored = RawBatch::split(&mut data.records.clone().unwrap()).unwrap().unwrap();
        assert_eq!(stored.header().compression(), Ok(codec));
    }
}

#[tokio::test(start_paused = true)]
async fn odd_batches_are_taken_and_refused_as_by_kafka() {
    let cluster = Cluster::builder().brokers(1).seed(3).start().await.unwrap();
    let mut talk = Talk::to(&cluster, 1).await;
    cluster.create_topic("t", 1, 1, &[]).await.unwrap();
    cluster.create_topic("log", 1, 1, &[("message.timestamp.type", "LogAppendTime")]).await.unwrap();
    let good = batch(&["a", "b"]);
    let and_a_bit = Bytes::from([&good[..], &good[..20]].concat());
    assert_eq!(talk.produce("t", 0, and_a_bit).await.error_code, 0, "the piece is left out");
    let data = talk.fetch("t", 0, 0, 1_000).await;
    assert_eq!(data.records.as_ref().map(Bytes::len), Some(good.len()));

    // attributes are within the checksum
    let mut claims = good.to_vec();
    claims[22] |= 8;
    let crc = klamm_wire::crc::crc32c_of_two(&claims[21..], &[]);
    claims[17..21].copy_from_slice(&crc.to_be_bytes());
    let claims = Bytes::from(claims);
    assert_eq!(talk.produce("t", 0, claims.clone()).await.error_code, 0, "the claim is taken back");
    let mut rest = talk.fetch("t", 0, 2, 1_000).await.records.unwrap();
    let stored = RawBatch::split(&mut rest).unwrap().unwrap();
    assert_eq!(stored.header().attributes & 8, 0);
    stored.verify_crc().unwrap();
    let refused = talk.produce("log", 0, claims).await;
    assert_eq!(code(refused.error_code), ErrorCode::INVALID_TIMESTAMP);
    assert_eq!((refused.record_errors.len(), refused.log_start_offset), (2, 0));

    let gap = talk.produce("t", 0, stamped(&["a"], 9, 0, 0)).await;
    assert_eq!(gap.error_code, 0);
    let gap = talk.produce("t", 0, stamped(&["b"], 9, 0, 7)).await;
    assert_eq!((code(gap.error_code), gap.log_start_offset), (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, 0));
    let acks = talk.send(produce("nope", 0, 2, 1_000, batch(&["a"]))).await.unwrap().await.unwrap();
    assert_eq!(code(produced(acks).error_code), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "before invalid acks");

    let topic = TopicRequest::default().with_name(topic_name("t")).with_partition_indexes(vec![0, 5]);
    let answer = talk.ask(0, &DescribeProducersRequest::default().with_topics(vec![topic])).await;
    let [known, unknown] = &answer.topics[0].partitions[..] else { panic!("{answer:?}") };
    let told = known.active_producers.iter().map(|p| (p.producer_id.0, p.producer_epoch, p.last_sequence));
    assert_eq!(told.collect::<Vec<_>>(), [(9, 0, 0)]);
    assert_eq!(code(unknown.error_code), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

/// Goal: a client that asks and does not read costs one answer and a bit, not one for each request that it may have
/// under way.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_not_listened_to() {
    const ASKED: i32 = 64;
    let cluster = Cluster::builder().brokers(1).seed(3).topic("t", Some(1), Some(1)).start().await.unwrap();
    let value = "x".repeat(900_000);
    Talk::to(&cluster, 1).await.produce("t", 0, batch(&[&value])).await;

    let (client, server) = tokio::io::duplex(1024);
    let (read, write) = tokio::io::split(server);
    cluster.serve_stream(1, "deaf", read, write).unwrap();
    let (mut read, mut write) = tokio::io::split(client);
    // Too long for many of them to fit into a buffer on the way.
    let name = "n".repeat(16_000);
    let request = codec::encode_request(12, &fetch("t", 0, 0, 0)).unwrap().into_contiguous();
    let frame = |id| {
        let head = codec::encode_request_header(1, 12, id, Some(&name));
        [&length_prefix(head.len() + request.len()).unwrap()[..], &head, &request].concat()
    };
    let mut taken = 0;
    let ask = async {
        while taken < ASKED {
            write.write_all(&frame(taken)).await.unwrap();
            taken += 1;
        }
    };
    let all = tokio::time::timeout(Duration::from_secs(60), ask).await;
    assert!(all.is_err() && taken < 8, "{taken} requests were taken in");

    // One was written in part, and the rest of it is not known any more; those before it are answered.
    for id in 0..taken {
        let mut length = [0; 4];
        read.read_exact(&mut length).await.unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        read.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..4], id.to_be_bytes());
        assert!(answer.len() > value.len());
    }
}
