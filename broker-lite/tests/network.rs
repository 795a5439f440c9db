//! Faults of the network, seen from outside: a raw client without retries, so that nothing hides what they do.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::Duration;

use broker_lite::{Cluster, Profile, Side};
use klamm_wire::ErrorCode;
use klamm_wire::seam::Frame;
use support::{Socket, Talk, batch, code, produce, produced, stamped, values};
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(60);

/// A cluster with one topic of one partition on three brokers; returns its leader, too.
async fn cluster(topic: &[(&str, &str)]) -> (Cluster, i32) {
    let cluster = Cluster::builder().seed(7).start().await.unwrap();
    cluster.create_topic("t", 1, 3, topic).await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    (cluster, leader)
}

fn end(cluster: &Cluster, broker: i32) -> i64 {
    cluster.log_end_offset(broker, "t", 0).unwrap()
}

async fn until_end(cluster: &Cluster, broker: i32, wanted: i64) {
    while end(cluster, broker) != wanted {
        sleep(MS).await;
    }
}

/// Everything that comes from the leader, once all brokers are in sync and the cluster's check agrees.
async fn read_all(cluster: &Cluster) -> Vec<String> {
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    let leader = cluster.leader_of("t", 0).unwrap();
    for broker in cluster.broker_ids() {
        until_end(cluster, broker, end(cluster, leader)).await;
    }
    sleep(Duration::from_secs(1)).await;
    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
    let data = Talk::to(cluster, leader).await.fetch("t", 0, 0, 0).await;
    values(&data).into_iter().map(|(_, value)| value).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cut_holds_requests_and_lets_them_arrive_in_order_when_it_heals() {
    let (cluster, leader) = cluster(&[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    let cut = cluster.cut(Side::Clients, leader);
    let mut answers = Vec::new();
    for value in ["a", "b", "c"] {
        answers.push(talk.send(produce("t", 0, -1, 1_000, batch(&[value]))).await.unwrap());
    }
    sleep(LONG).await;
    assert_eq!(end(&cluster, leader), 0, "nothing arrives");
    cut.heal();
    for (offset, answer) in (0..).zip(answers) {
        let answer = produced(answer.await.unwrap());
        assert_eq!((answer.error_code, answer.base_offset), (0, offset));
    }
    assert_eq!(read_all(&cluster).await, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_one_way_cut_lets_the_request_in_and_holds_the_answer() {
    let (cluster, leader) = cluster(&[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    let cut = cluster.cut_one_way(leader, Side::Clients);
    let mut answer = talk.send(produce("t", 0, -1, 1_000, batch(&["a"]))).await.unwrap();
    until_end(&cluster, leader, 1).await;
    assert!(timeout(LONG, &mut answer).await.is_err(), "applied, but the answer does not come");
    assert_eq!(cluster.in_flight_produce(leader), 1, "it has not left for good");
    drop(cut);
    assert_eq!(produced(answer.await.unwrap()).base_offset, 0);
    assert_eq!(cluster.in_flight_produce(leader), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_bounded_by_the_requests_in_flight() {
    let (cluster, leader) = cluster(&[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    let cut = cluster.cut_one_way(leader, Side::Clients);
    let mut answers = Vec::new();
    while let Ok(sent) = timeout(LONG, talk.send(produce("t", 0, 1, 1_000, batch(&["a"])))).await {
        answers.push(sent.unwrap());
    }
    // 64 may be in flight; they fill two lanes, the pipe and the queue of answers.
    assert!((64..=64 * 4 + 4).contains(&answers.len()), "{}", answers.len());
    cut.heal();
    for (offset, answer) in (0..).zip(answers) {
        assert_eq!(produced(answer.await.unwrap()).base_offset, offset);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_across_a_cut_waits_in_either_direction() {
    // Minutes pass, so with time-outs of the test profile most of what happens would be heartbeats.
    let cluster = Cluster::builder().profile(Profile::Kafka).seed(7).start().await.unwrap();
    cluster.create_topic("t", 1, 3, &[]).await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    for there in [true, false] {
        let cut = match there {
            true => cluster.cut_one_way(Side::Clients, leader),
            false => cluster.cut_one_way(leader, Side::Clients),
        };
        assert!(timeout(LONG, Talk::dial(&cluster, leader)).await.is_err());
        let (dialled, ()) = tokio::join!(Talk::dial(&cluster, leader), async {
            sleep(LONG).await;
            cut.heal();
        });
        assert_eq!(dialled.unwrap().produce("t", 0, batch(&["a"])).await.error_code, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_concerns_only_those_it_names() {
    let (cluster, leader) = cluster(&[]).await;
    let mut cut_off = Talk::named(&cluster, leader, "a").await.unwrap();
    let mut other = Talk::named(&cluster, leader, "b").await.unwrap();
    let _cut = cluster.cut(Side::client("a"), Side::Anyone);
    assert!(timeout(LONG, cut_off.produce("t", 0, batch(&["a"]))).await.is_err());
    assert_eq!(other.produce("t", 0, batch(&["b"])).await.base_offset, 0);
}

/// Goal: bytes that TCP had taken arrive although nobody waits for them any more.
#[tokio::test(start_paused = true)]
async fn a_request_of_a_client_that_has_gone_is_still_carried_out() {
    let (cluster, leader) = cluster(&[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    let latency = cluster.latency(Side::Clients, leader, 100 * MS..=100 * MS);
    drop(talk.send(produce("t", 0, 1, 1_000, batch(&["late"]))).await.unwrap());
    drop(talk);
    sleep(90 * MS).await;
    assert_eq!(end(&cluster, leader), 0, "under way");
    sleep(20 * MS).await;
    assert_eq!(end(&cluster, leader), 1, "arrived after its sender had gone");
    drop(latency);
    let mut talk = Talk::to(&cluster, leader).await;
    let cut = cluster.cut(Side::Clients, leader);
    drop(talk.send(produce("t", 0, 1, 1_000, batch(&["later"]))).await.unwrap());
    drop(talk);
    sleep(LONG).await;
    assert_eq!(end(&cluster, leader), 1, "held");
    cut.heal();
    until_end(&cluster, leader, 2).await;
    assert_eq!(read_all(&cluster).await, ["late", "later"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_held_for_a_broker_that_dies_is_lost_with_its_connection() {
    let (cluster, leader) = cluster(&[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    let cut = cluster.cut(Side::Clients, leader);
    let answer = talk.send(produce("t", 0, 1, 1_000, batch(&["lost"]))).await.unwrap();
    sleep(MS).await;
    cluster.kill(leader).unwrap();
    cluster.restart(leader).await.unwrap();
    cut.heal();
    assert!(answer.await.is_err());
    assert!(read_all(&cluster).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn latency_keeps_the_order_and_pipelined_messages_overlap() {
    let (cluster, leader) = cluster(&[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    let _latency = cluster.latency(Side::Clients, leader, 50 * MS..=100 * MS);
    let before = Instant::now();
    let mut answers = Vec::new();
    for number in 0..40 {
        answers.push(talk.send(produce("t", 0, 1, 1_000, batch(&[&number.to_string()]))).await.unwrap());
    }
    let mut came = Vec::new();
    for (offset, answer) in (0..).zip(answers) {
        assert_eq!(produced(answer.await.unwrap()).base_offset, offset, "in order");
        came.push(before.elapsed());
    }
    assert!(came[0] >= 100 * MS, "there and back: {came:?}");
    assert!(came[39] <= 210 * MS, "forty of them take no longer than the slowest: {came:?}");
    assert!(came[0] < came[39], "each draws its own: {came:?}");
    let dialling = Instant::now();
    Talk::to(&cluster, leader).await;
    assert!((100 * MS..=202 * MS).contains(&dialling.elapsed()), "{:?}", dialling.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_breaks_the_connection_for_both_ends() {
    let (cluster, leader) = cluster(&[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    let loss = cluster.loss(Side::Clients, leader, 1.0);
    let first = talk.send(produce("t", 0, 1, 1_000, batch(&["lost"]))).await.unwrap();
    let behind = talk.send(produce("t", 0, 1, 1_000, batch(&["behind it"]))).await.unwrap();
    assert!(first.await.is_err());
    assert!(behind.await.is_err());
    assert!(talk.send(produce("t", 0, 1, 1_000, batch(&["after it"]))).await.is_err(), "the link is over");
    assert_eq!((end(&cluster, leader), cluster.in_flight_produce(leader)), (0, 0));
    assert!(Talk::dial(&cluster, leader).await.is_err(), "a connection that is being opened fails, too");
    drop(loss);
    let mut talk = Talk::to(&cluster, leader).await;
    let _loss = cluster.loss(Side::Clients, leader, 0.5);
    let mut outcomes = [0; 3];
    for _ in 0..40 {
        let before = end(&cluster, leader);
        match talk.send(produce("t", 0, 1, 1_000, batch(&["a"]))).await.unwrap().await {
            Ok(_) => outcomes[0] += 1,
            Err(_) => {
                // Lost on the way in, or on the way out.
                outcomes[if end(&cluster, leader) == before { 1 } else { 2 }] += 1;
                talk = loop {
                    if let Ok(talk) = Talk::dial(&cluster, leader).await {
                        break talk;
                    }
                };
            }
        }
    }
    assert!(outcomes.iter().all(|times| *times > 3), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_from_its_followers_drops_them_before_it_acknowledges() {
    let (cluster, leader) = cluster(&[]).await;
    let mut talk = Talk::to(&cluster, leader).await;
    talk.produce("t", 0, batch(&["before"])).await;
    let cut = cluster.cut(leader, Side::Brokers);
    let waiting = talk.send(produce("t", 0, -1, 60_000, batch(&["alone"]))).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!((end(&cluster, leader), cluster.high_watermark("t", 0)), (2, Some(1)), "held back");
    assert_eq!(produced(waiting.await.unwrap()).error_code, 0);
    assert_eq!(cluster.isr_of("t", 0), [leader], "acknowledged by the whole ISR, which is the leader alone");
    assert_eq!(cluster.leader_of("t", 0), Some(leader), "the controller still hears it");
    assert_eq!(cluster.elections(), 0);
    cut.heal();
    assert_eq!(read_all(&cluster).await, ["before", "alone"]);
}

/// Goal: a leader that the controller has given up goes on serving whoever reaches it, and yet acknowledges to all
/// nothing that its successor does not have.
#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_from_the_controller_acknowledges_nothing_wrongly() {
    let (cluster, old) = cluster(&[("min.insync.replicas", "2")]).await;
    let mut zombie = Talk::to(&cluster, old).await;
    assert_eq!(zombie.produce("t", 0, batch(&["kept"])).await.error_code, 0);
    let cut = cluster.cut(old, Side::Controller);
    sleep(100 * MS).await;
    assert_eq!(zombie.produce("t", 0, batch(&["kept, too"])).await.error_code, 0, "nobody has noticed yet");
    cluster.until_leader("t", 0, |leader| leader.is_some_and(|id| id != old)).await;
    sleep(100 * MS).await;
    let lonely = zombie.send(produce("t", 0, 1, 1_000, batch(&["lost"]))).await.unwrap();
    assert_eq!(produced(lonely.await.unwrap()).error_code, 0, "acks=1 asks the zombie only");
    let lonely = zombie.send(produce("t", 0, -1, 5_000, batch(&["lost, too"]))).await.unwrap();
    let answer = code(produced(lonely.await.unwrap()).error_code);
    assert_eq!(answer, ErrorCode::REQUEST_TIMED_OUT, "nobody follows it any more");
    let mut new = Talk::to(&cluster, cluster.leader_of("t", 0).unwrap()).await;
    assert_eq!(new.produce("t", 0, batch(&["new"])).await.base_offset, 2);
    assert_eq!(end(&cluster, old), 4, "what only the zombie has");
    cut.heal();
    assert_eq!(read_all(&cluster).await, ["kept", "kept, too", "new"]);
}

/// Goal: silence in one direction fences a broker as silence in both does, and it comes back by itself.
#[tokio::test(start_paused = true)]
async fn a_broker_that_hears_no_answer_from_the_controller_is_fenced_and_returns() {
    let (cluster, leader) = cluster(&[]).await;
    let cut = cluster.cut_one_way(Side::Controller, leader);
    cluster.until_leader("t", 0, |now| now.is_some_and(|id| id != leader)).await;
    sleep(LONG).await;
    assert!(!cluster.isr_of("t", 0).contains(&leader));
    cut.heal();
    timeout(LONG, cluster.until_isr("t", 0, |isr| isr.len() == 3)).await.expect("back in sync");
}

/// Goal: a producer whose answers are lost sends again, and the broker knows the retry. (The producer here is the
/// simplest one; the SDK's own is tested with the same faults elsewhere.)
#[tokio::test(start_paused = true)]
async fn a_producer_that_loses_every_other_answer_writes_each_record_once() {
    let (cluster, leader) = cluster(&[]).await;
    let loss = cluster.loss(Side::Clients, leader, 0.3);
    let mut sent = 0;
    for sequence in 0..30 {
        let batch = stamped(&[&sequence.to_string()], 9, 0, sequence);
        loop {
            sent += 1;
            let Ok(mut talk) = Talk::dial(&cluster, leader).await else { continue };
            let answer = talk.send(produce("t", 0, -1, 1_000, batch.clone())).await.unwrap();
            let Ok(answer) = answer.await else { continue };
            assert_eq!(produced(answer).base_offset, i64::from(sequence));
            break;
        }
    }
    assert!(sent > 40, "{sent}");
    drop(loss);
    let expected: Vec<_> = (0..30).map(|number| number.to_string()).collect();
    assert_eq!(read_all(&cluster).await, expected);
}

/// The seam's promises, through whatever is set on `cluster`; returns what was answered.
async fn keep_the_contract(cluster: &Cluster, leader: i32) -> Vec<(i16, i64)> {
    let mut talk = Talk::named(cluster, leader, "contract").await.unwrap();
    let mut seen = Vec::new();
    let mut answers = Vec::new();
    for number in 0..10 {
        let acks = [-1, 1][number % 2];
        let frame = produce("t", 0, acks, 10_000, batch(&[&number.to_string()]));
        answers.push(talk.send(frame).await.unwrap());
    }
    // A dropped response future cancels nothing.
    drop(answers.remove(3));
    let written = talk.send(produce("t", 0, 0, 1_000, batch(&["unanswered"]))).await.unwrap().await.unwrap();
    assert_eq!(written.len_bytes(), 0, "resolves when it is written");
    let fetched = talk.ask(12, &support::fetch("t", 0, 0, 0)).await;
    assert_eq!(fetched.error_code, 0);
    for answer in answers {
        let answer = produced(answer.await.unwrap());
        seen.push((answer.error_code, answer.base_offset));
    }
    // Produce version 2 is refused by closing, behind what is due.
    let due = talk.send(produce("t", 0, 1, 1_000, batch(&["due"]))).await.unwrap();
    let refused = talk.send(Frame::new(0, 2, bytes::Bytes::new())).await.unwrap();
    let due = produced(due.await.unwrap());
    seen.push((due.error_code, due.base_offset));
    assert!(refused.await.is_err());
    assert!(talk.send(produce("t", 0, 1, 1_000, batch(&["too late"]))).await.is_err());
    // An answer still comes if only the link is dropped.
    let mut talk = Talk::to(cluster, leader).await;
    let answer = talk.send(produce("t", 0, -1, 1_000, batch(&["last"]))).await.unwrap();
    drop(talk);
    seen.push((0, produced(answer.await.unwrap()).base_offset));
    seen
}

/// Goal: a fault that concerns somebody else changes nothing, and latency changes nothing but the time.
#[tokio::test(start_paused = true)]
async fn without_faults_with_faults_of_others_and_with_latency_the_contract_is_the_same() {
    let expected: Vec<_> = (0..10).filter(|number| *number != 3).chain([11, 12]).map(|o| (0, o)).collect();
    for case in 0..4 {
        let (cluster, leader) = cluster(&[]).await;
        let before = Instant::now();
        let _nothing = (case == 1).then(|| cluster.cut(Side::client("nobody"), Side::Anyone));
        let _little = (case == 2).then(|| cluster.latency(Side::Anyone, Side::Anyone, MS..=5 * MS));
        let healed = (case == 3).then(|| cluster.cut(Side::Anyone, Side::Anyone));
        drop(healed);
        assert_eq!(keep_the_contract(&cluster, leader).await, expected, "case {case}");
        if case != 2 {
            assert_eq!(before.elapsed(), Duration::ZERO, "case {case}: nothing takes time");
        }
        let read = read_all(&cluster).await;
        assert_eq!(read.len(), 13, "case {case}");
        assert_eq!(read[10], "unanswered");
    }
}

/// Goal: the same over sockets, on a real clock.
#[tokio::test]
async fn over_sockets_cuts_hold_whole_messages_and_loss_closes() {
    let cluster = Cluster::builder().tcp(true).topic("t", Some(1), Some(3)).start().await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    let mut socket = Socket::connect(&cluster, leader).await;
    socket.send(1, produce("t", 0, 1, 1_000, batch(&["a"]))).await;
    assert_eq!(socket.produced(1).await, Some(0));
    let other_client = cluster.cut(Side::client("another"), leader);
    let cut = cluster.cut_one_way(leader, Side::client("socket"));
    for correlation_id in 2..4 {
        socket.send(correlation_id, produce("t", 0, 1, 1_000, batch(&["b"]))).await;
    }
    until_end(&cluster, leader, 3).await;
    assert!(timeout(100 * MS, socket.peek()).await.is_err(), "applied, and no answer");
    let inward = cluster.cut_one_way(Side::client("socket"), leader);
    cut.heal();
    assert_eq!(socket.produced(2).await, Some(1));
    assert_eq!(socket.produced(3).await, Some(2));
    socket.send(4, produce("t", 0, 1, 1_000, batch(&["c"]))).await;
    assert!(timeout(100 * MS, socket.peek()).await.is_err());
    assert_eq!(end(&cluster, leader), 3, "held in front of the broker");
    // What the socket had taken is carried out, although the client is gone.
    drop(socket);
    inward.heal();
    until_end(&cluster, leader, 4).await;
    drop(other_client);
    let mut socket = Socket::connect(&cluster, leader).await;
    let latency = cluster.latency(Side::Clients, leader, 50 * MS..=60 * MS);
    let before = Instant::now();
    for correlation_id in 0..20 {
        socket.send(correlation_id, produce("t", 0, 1, 1_000, batch(&["d"]))).await;
    }
    for correlation_id in 0..20 {
        assert_eq!(socket.produced(correlation_id).await, Some(4 + i64::from(correlation_id)));
    }
    assert!(before.elapsed() >= 100 * MS);
    drop(latency);
    let _loss = cluster.loss(Side::Clients, leader, 1.0);
    socket.send(1, produce("t", 0, 1, 1_000, batch(&["lost"]))).await;
    assert_eq!(socket.produced(1).await, None, "closed");
    assert_eq!(end(&cluster, leader), 24);
}
