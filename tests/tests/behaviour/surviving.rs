//! What holds while brokers die, stop and come back.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, ready};
use std::io::Error;
use std::time::Duration;

use futures::FutureExt;
use klamm::{
    Acks, Consumer, Delivery, ErrorCode, Producer, Record, RecordMetadata, SendError, StartOffset,
    TopicPartition,
};
use klamm_tests::backend::{BROKERS, Backend};
use klamm_tests::suite::Outcome;
use tokio::time::sleep;

use crate::tools::{SOON, next, number, read_all};

/// Deliveries that may be open at once.
const WINDOW: usize = 300;
/// Records that must be acknowledged before and after a fault.
const ENOUGH: i64 = 300;
/// Memory of a writer: all of it must be free in the end.
const BUFFER: usize = 1 << 20;
/// Between twenty records: virtual time passes only while everybody waits.
const BREATH: Duration = Duration::from_millis(4);

/// What a writer has got so far.
#[derive(Default)]
struct Progress {
    acknowledged: Cell<i64>,
    over: Cell<bool>,
}

impl Progress {
    async fn until(&self, acknowledged: i64) {
        while self.acknowledged.get() < acknowledged {
            sleep(BREATH).await;
        }
    }
}

/// Writes 0, 1, 2, … round the partitions, in small batches and five requests at a time, until `progress` is over and
/// enough more are acknowledged. Every record must be acknowledged, at the offset that belongs to it.
async fn write(
    backend: &Backend,
    topic: &str,
    partitions: i64,
    progress: &Progress,
) -> Result<i64, Box<dyn std::error::Error + Send + Sync>> {
    let producer: Producer = Producer::builder()
        .client(&backend.impatient_client()?)
        .batch_size(300)
        .linger_ms(Duration::ZERO)
        .max_in_flight_requests_per_connection(5)
        .buffer_memory(BUFFER)
        .build()?;
    let (mut open, mut sent, mut last) = (VecDeque::new(), 0_i64, i64::MAX);
    while sent < last || !open.is_empty() {
        if sent < last {
            let record = Record::new(topic).partition((sent % partitions) as i32).value(sent.to_string());
            open.push_back((sent, producer.send(record).await?));
            sent += 1;
        }
        if sent >= last || open.len() >= WINDOW {
            let Some((index, delivery)) = open.pop_front() else { break };
            let written = delivery.await.map_err(|error| format!("record {index}: {error}"))?;
            if let Some(offset) = written.offset {
                assert_eq!((i64::from(written.partition), offset), (index % partitions, index / partitions));
            }
            progress.acknowledged.set(index + 1);
        }
        if sent % 20 == 0 {
            sleep(BREATH).await;
        }
        if last == i64::MAX && progress.over.get() {
            last = sent + ENOUGH;
        }
    }
    producer.flush().await?;
    // An answer that is late may hold on to its batch for a while.
    while producer.requests_in_flight() > 0 || producer.buffer_available() < BUFFER {
        sleep(BREATH).await;
    }
    producer.close(SOON).await?;
    Ok(sent)
}

/// Every partition holds its numbers once each, in order, and nothing else.
async fn assert_all_there(backend: &Backend, topic: &str, partitions: i64, sent: i64) -> Outcome {
    for partition in 0..partitions {
        let records = read_all(backend, topic, partition as i32).await?;
        for (expected, record) in (partition..sent).step_by(partitions as usize).zip(&records) {
            assert_eq!((record.offset, number(record)?), (expected / partitions, expected));
        }
        assert_eq!(records.len() as i64, (sent - partition + partitions - 1) / partitions, "of {sent} sent");
    }
    Ok(())
}

/// Writes while `fault` happens, then looks whether all is there.
async fn write_through<F: Future<Output = Result<(), Error>>>(
    backend: &Backend,
    topic: &str,
    partitions: i64,
    fault: F,
) -> Result<i64, Box<dyn std::error::Error + Send + Sync>> {
    let progress = Progress::default();
    let breaking = async {
        progress.until(ENOUGH + backend.chance(100) as i64).await;
        sleep(Duration::from_millis(backend.chance(8))).await;
        fault.await?;
        progress.over.set(true);
        Ok(())
    };
    let (sent, ()) = futures::try_join!(write(backend, topic, partitions, &progress), breaking)?;
    assert_all_there(backend, topic, partitions, sent).await?;
    Ok(sent)
}

pub(crate) async fn records_survive_the_kill_of_their_leader_once_each_and_in_order(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("killed", 1).await?;
    let leader = backend.leader_of(&topic, 0).await?;
    backend.until_in_sync(&topic, 0, BROKERS).await?;
    let kill = async {
        backend.kill_amid_writes(leader).await?;
        backend.until_leader(&topic, 0, |other| other != leader).await.map(drop)
    };
    write_through(backend, &topic, 1, kill).await?;
    Ok(())
}

pub(crate) async fn what_was_acknowledged_is_there_after_every_broker_was_killed_in_turn(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("in-turn", 1).await?;
    let kills = async {
        for broker in 1..=BROKERS as i32 {
            backend.until_in_sync(&topic, 0, BROKERS).await?;
            backend.kill(broker).await?;
            backend.until_leader(&topic, 0, |leader| leader != broker).await?;
            backend.restart(broker).await?;
        }
        backend.until_in_sync(&topic, 0, BROKERS).await
    };
    write_through(backend, &topic, 1, kills).await?;
    Ok(())
}

pub(crate) async fn what_was_acknowledged_is_there_after_all_brokers_were_dead_at_once(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("all-dead", 2).await?;
    let kills = async {
        for round in 0..BROKERS as i32 {
            for partition in 0..2 {
                backend.until_in_sync(&topic, partition, BROKERS).await?;
            }
            // Another one first and last in each round.
            let order = (0..BROKERS as i32).map(|place| (place + round) % BROKERS as i32 + 1);
            for broker in order.clone() {
                backend.kill(broker).await?;
            }
            futures::future::try_join_all(order.map(|broker| backend.restart(broker))).await?;
        }
        backend.until_in_sync(&topic, 0, BROKERS).await
    };
    write_through(backend, &topic, 2, kills).await?;
    Ok(())
}

pub(crate) async fn what_a_leader_without_its_cluster_takes_is_acknowledged_by_its_successor(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("split-brain", 1).await?;
    backend.until_in_sync(&topic, 0, BROKERS).await?;
    let producer = hasty_producer(backend, &topic).await?;
    let leader = backend.leader_of(&topic, 0).await?;
    backend.cut_off(leader).await?;
    // It does not know yet, takes them, and must give them up when it is back.
    let mut written = Vec::new();
    for delivery in send_ten(&producer, &topic).await? {
        written.push(ready(delivery.await));
    }
    backend.mend().await?;
    assert_ten_once(backend, &topic, written).await
}

pub(crate) async fn what_was_synced_before_its_acknowledgement_survives_a_loss_of_power_of_all(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic_with("dark", 2, &[("flush.messages", "1")]).await?;
    let outages = async {
        for _ in 0..3 {
            for partition in 0..2 {
                backend.until_in_sync(&topic, partition, BROKERS).await?;
            }
            backend.power_off_all().await?;
            backend.mend().await?;
        }
        backend.until_in_sync(&topic, 0, BROKERS).await
    };
    write_through(backend, &topic, 2, outages).await?;
    Ok(())
}

/// How long a client waits for an answer that gives up before the cluster gives up on a silent follower.
fn haste(backend: &Backend) -> Duration {
    backend.patience() / 5
}

/// A producer with its first record, `0`, acknowledged; every record is a batch of its own.
async fn hasty_producer(
    backend: &Backend,
    topic: &str,
) -> Result<Producer, Box<dyn std::error::Error + Send + Sync>> {
    let client = backend.client_builder().request_timeout_ms(haste(backend)).build()?;
    let producer: Producer =
        Producer::builder().client(&client).batch_size(0).linger_ms(Duration::ZERO).build()?;
    producer.send_and_wait(Record::new(topic).value("0")).await?;
    Ok(producer)
}

async fn send_ten(producer: &Producer, topic: &str) -> Result<Vec<Delivery>, SendError> {
    let mut deliveries = Vec::new();
    for index in 1..=10 {
        deliveries.push(producer.send(Record::new(topic).value(index.to_string())).await?);
    }
    Ok(deliveries)
}

/// All ten are acknowledged, and eleven lie in the log, once each and in order.
async fn assert_ten_once(
    backend: &Backend,
    topic: &str,
    deliveries: Vec<impl Future<Output = Result<RecordMetadata, SendError>>>,
) -> Outcome {
    for (index, delivery) in (1..).zip(deliveries) {
        let written = delivery.await?;
        assert!(written.offset.is_none_or(|offset| offset == index), "record {index}: {written:?}");
    }
    // Not up to the end that a broker tells: one that has just been deposed may not have heard of it.
    let consumer: Consumer = Consumer::builder().client(&backend.impatient_client()?).build()?;
    consumer.assign([(TopicPartition::new(topic, 0), StartOffset::Beginning)]);
    let found = next(&consumer, 11).await?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(found, (0..=10).collect::<Vec<_>>());
    let more = consumer.poll(1, Duration::from_millis(300)).await?;
    assert!(more.is_empty(), "{more:?} behind the last record");
    Ok(())
}

pub(crate) async fn a_record_is_written_once_although_its_answers_come_too_late(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("late-answers", 1).await?;
    backend.until_in_sync(&topic, 0, BROKERS).await?;
    let producer = hasty_producer(backend, &topic).await?;
    let follower = backend.follower_of(&topic, 0).await?;
    backend.pause(follower).await?;
    // The leader appends and waits for the follower; the client does not wait so long, and asks again.
    let deliveries = send_ten(&producer, &topic).await?;
    backend.until_in_sync(&topic, 0, BROKERS - 1).await?;
    backend.resume(follower).await?;
    assert_ten_once(backend, &topic, deliveries).await
}

pub(crate) async fn a_retry_is_recognized_by_the_leader_that_has_the_record_from_the_one_before(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("recognized", 1).await?;
    backend.until_in_sync(&topic, 0, BROKERS).await?;
    let producer = hasty_producer(backend, &topic).await?;
    let (leader, silent) = (backend.leader_of(&topic, 0).await?, backend.follower_of(&topic, 0).await?);
    backend.pause(silent).await?;
    // One follower has them, the other has not, so nothing is acknowledged.
    let deliveries = send_ten(&producer, &topic).await?;
    sleep(haste(backend)).await;
    backend.kill(leader).await?;
    backend.until_leader(&topic, 0, |other| other != leader && other != silent).await?;
    backend.resume(silent).await?;
    assert_ten_once(backend, &topic, deliveries).await
}

pub(crate) async fn nothing_is_acknowledged_or_shown_that_only_the_leader_has(backend: &Backend) -> Outcome {
    let topic = backend.topic("leader-only", 1).await?;
    backend.until_in_sync(&topic, 0, BROKERS).await?;
    let producer = hasty_producer(backend, &topic).await?;
    let consumer: Consumer = Consumer::builder().client(&backend.impatient_client()?).build()?;
    consumer.assign([(TopicPartition::new(topic.as_str(), 0), StartOffset::Beginning)]);
    assert_eq!(number(&next(&consumer, 1).await?[0])?, 0);
    let leader = backend.leader_of(&topic, 0).await?;
    let followers: Vec<_> = (1..=BROKERS as i32).filter(|broker| *broker != leader).collect();
    for follower in &followers {
        backend.pause(*follower).await?;
    }
    let mut deliveries = send_ten(&producer, &topic).await?;
    let shown = consumer.poll(1, haste(backend) * 2).await?;
    assert!(shown.is_empty(), "{shown:?} is on one replica only");
    let early = (&mut deliveries[0]).now_or_never();
    assert!(early.is_none(), "{early:?}");
    // Now the only one that has them dies, and they are written again.
    backend.kill(leader).await?;
    for follower in followers {
        backend.resume(follower).await?;
    }
    assert_ten_once(backend, &topic, deliveries).await
}

pub(crate) async fn without_idempotence_nothing_is_lost_although_it_may_come_twice(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("twice-maybe", 1).await?;
    backend.until_in_sync(&topic, 0, BROKERS).await?;
    let leader = backend.leader_of(&topic, 0).await?;
    let producer: Producer = Producer::builder()
        .client(&backend.impatient_client()?)
        .enable_idempotence(false)
        .max_in_flight_requests_per_connection(1)
        .batch_size(300)
        .linger_ms(Duration::ZERO)
        .build()?;
    let over = Cell::new(false);
    let write = async {
        let (mut written, mut left) = (0, ENOUGH);
        while left > 0 {
            let mut deliveries = Vec::new();
            for index in written..written + 20 {
                let record = Record::new(topic.as_str()).value(index.to_string());
                deliveries.push(producer.send(record).await?);
            }
            for delivery in deliveries {
                delivery.await?;
            }
            written += 20;
            left -= if over.get() { 20 } else { 0 };
            sleep(BREATH).await;
        }
        Ok::<i64, Box<dyn std::error::Error + Send + Sync>>(written)
    };
    let depose = async {
        sleep(Duration::from_millis(50 + backend.chance(50))).await;
        backend.pause(leader).await?;
        backend.until_leader(&topic, 0, |other| other != leader).await?;
        backend.resume(leader).await?;
        over.set(true);
        Ok(())
    };
    let (written, ()) = futures::try_join!(write, depose)?;
    let mut next = 0;
    for record in read_all(backend, &topic, 0).await? {
        // A repetition begins somewhere behind; what is new is the next one.
        let found = number(&record)?;
        assert!(found <= next, "{found} where {next} was due: one is missing, or in front of its turn");
        next = next.max(found + 1);
    }
    assert_eq!(next, written);
    Ok(())
}

pub(crate) async fn a_producer_goes_on_when_its_leader_pauses_and_comes_back(backend: &Backend) -> Outcome {
    let topic = backend.topic("pausing", 1).await?;
    let leader = backend.leader_of(&topic, 0).await?;
    let pause = async {
        backend.pause(leader).await?;
        // Too short for an election, too long for any answer to be on time by chance.
        sleep(Duration::from_millis(250)).await;
        backend.resume(leader).await
    };
    write_through(backend, &topic, 1, pause).await?;
    Ok(())
}

pub(crate) async fn five_requests_in_flight_keep_their_order_while_leadership_moves(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("moving", 3).await?;
    for partition in 0..3 {
        backend.until_in_sync(&topic, partition, BROKERS).await?;
    }
    let leader = backend.leader_of(&topic, 0).await?;
    let depose = async {
        backend.pause(leader).await?;
        backend.until_leader(&topic, 0, |other| other != leader).await?;
        // It wakes up as a leader that no longer is one, with requests in its hands.
        backend.resume(leader).await?;
        backend.until_in_sync(&topic, 0, BROKERS).await
    };
    write_through(backend, &topic, 3, depose).await?;
    Ok(())
}

pub(crate) async fn a_consumer_reads_on_across_a_leader_change_without_gap_or_repetition(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("followed", 1).await?;
    backend.until_in_sync(&topic, 0, BROKERS).await?;
    let leader = backend.leader_of(&topic, 0).await?;
    let consumer: Consumer = Consumer::builder().client(&backend.impatient_client()?).build()?;
    consumer.assign([(TopicPartition::new(topic.as_str(), 0), StartOffset::Beginning)]);
    let total = Cell::new(None);
    let seen = RefCell::new(0_i64);
    let read = async {
        // To the end, once that is known; the last record is a mark.
        while total.get() != Some(*seen.borrow()) {
            for record in consumer.poll(100, Duration::from_millis(50)).await? {
                let expected = *seen.borrow();
                assert_eq!((record.offset, number(&record)?), (expected, expected));
                *seen.borrow_mut() += 1;
            }
        }
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    };
    let write = async {
        let depose = async {
            while *seen.borrow() < ENOUGH / 2 {
                sleep(BREATH).await;
            }
            backend.pause(leader).await?;
            backend.until_leader(&topic, 0, |other| other != leader).await?;
            let before = *seen.borrow();
            while *seen.borrow() < before + ENOUGH / 2 {
                sleep(BREATH).await; // from the new leader, while the old one is silent
            }
            backend.resume(leader).await
        };
        total.set(Some(write_through(backend, &topic, 1, depose).await?));
        Ok(())
    };
    futures::try_join!(read, write)?;
    let more = consumer.poll(1, Duration::from_millis(300)).await?;
    assert!(more.is_empty(), "{more:?} behind the last record");
    Ok(())
}

pub(crate) async fn below_min_insync_replicas_acks_all_is_refused_and_nothing_is_shown(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic_with("short", 1, &[("min.insync.replicas", "3")]).await?;
    backend.until_in_sync(&topic, 0, BROKERS).await?;
    let follower = backend.follower_of(&topic, 0).await?;
    backend.pause(follower).await?;
    backend.until_in_sync(&topic, 0, BROKERS - 1).await?;

    let client = backend.impatient_client()?;
    let impatient: Producer =
        Producer::builder().client(&client).delivery_timeout_ms(backend.patience() * 3 / 2).build()?;
    // What was not answered may have come before the leader itself knew that a follower was missing.
    let mut maybe = BTreeSet::new();
    for attempt in 1.. {
        let value = format!("attempt {attempt}");
        match impatient.send_and_wait(Record::new(topic.as_str()).value(value.clone())).await {
            // Refused before it was appended, each time.
            Err(SendError::TimedOut {
                last: Some(ErrorCode::NOT_ENOUGH_REPLICAS),
                maybe_written: false,
                ..
            }) => break,
            // Busy: no answer in time, or none to the last attempt.
            Err(SendError::TimedOut {
                last: None | Some(ErrorCode::NOT_ENOUGH_REPLICAS),
                maybe_written,
                ..
            }) if attempt < 20 => {
                if maybe_written {
                    maybe.insert(value);
                }
            }
            other => return Err(format!("two of three replicas are not enough: {other:?}").into()),
        }
    }
    let one: Producer =
        Producer::builder().client(&client).acks(Acks::Leader).enable_idempotence(false).build()?;
    one.send_and_wait(Record::new(topic.as_str()).value("by the leader alone")).await?;

    let consumer: Consumer = Consumer::builder().client(&client).build()?;
    consumer.assign([(TopicPartition::new(topic.as_str(), 0), StartOffset::Beginning)]);
    let early = consumer.poll(1, Duration::from_secs(1)).await?;
    assert!(early.is_empty(), "{early:?} is not on enough replicas to be shown");

    backend.resume(follower).await?;
    let all: Producer = Producer::builder().client(&client).build()?;
    let last = all.send_and_wait(Record::new(topic.as_str()).value("by all")).await?.offset;
    let mut shown = Vec::new();
    for record in next(&consumer, last.ok_or("no offset")? as usize + 1).await? {
        shown.push(String::from_utf8(record.value.ok_or("no value")?.to_vec())?);
    }
    assert_eq!(shown.pop().as_deref(), Some("by all"));
    // Not idempotent: it may have been sent again.
    let refused: Vec<_> = shown.iter().filter(|value| *value != "by the leader alone").collect();
    assert!(refused.len() < shown.len(), "what the leader acknowledged is there");
    assert!(
        refused.iter().all(|value| maybe.contains(*value)),
        "{refused:?} were refused, and are in the log"
    );
    Ok(())
}

pub(crate) async fn close_with_a_time_limit_tells_what_is_lost_when_the_cluster_is_silent(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("silent", 1).await?;
    let producer: Producer =
        Producer::builder().client(&backend.client()?).batch_size(0).linger_ms(Duration::ZERO).build()?;
    producer.send_and_wait(Record::new(topic.as_str()).value("0")).await?;
    backend.freeze().await?;
    let mut deliveries = Vec::new();
    for index in 1..=20 {
        deliveries.push((index, producer.send(Record::new(topic.as_str()).value(index.to_string())).await?));
    }
    let limit = Duration::from_millis(500);
    let closed = producer.close(limit).await;
    assert!(matches!(closed, Err(SendError::TimedOut { waited, .. }) if waited == limit), "{closed:?}");
    let (mut lost, mut unsure) = (Vec::new(), 0);
    for (index, delivery) in deliveries {
        match delivery.await {
            Err(SendError::Closed { maybe_written: false }) => lost.push(index),
            Err(SendError::Closed { maybe_written: true }) => unsure += 1,
            other => return Err(format!("record {index} of a silent cluster: {other:?}").into()),
        }
    }
    assert!(unsure > 0, "what is on its way may have arrived");
    assert!(!lost.is_empty(), "five requests hold five of the twenty batches");
    backend.thaw().await?;
    backend.until_in_sync(&topic, 0, BROKERS).await?;
    for record in read_all(backend, &topic, 0).await? {
        let found = number(&record)?;
        assert!(!lost.contains(&found), "{found} was called lost, and is there");
    }
    Ok(())
}

pub(crate) async fn a_silent_cluster_is_heard_again_without_a_new_client(backend: &Backend) -> Outcome {
    let topic = backend.topic("heard-again", 1).await?;
    let producer: Producer = Producer::builder().client(&backend.impatient_client()?).build()?;
    producer.send_and_wait(Record::new(topic.as_str()).value("0")).await?;
    let consumer: Consumer = Consumer::builder().client(&backend.impatient_client()?).build()?;
    consumer.assign([(TopicPartition::new(topic.as_str(), 0), StartOffset::Beginning)]);
    assert_eq!(number(&next(&consumer, 1).await?[0])?, 0);
    backend.freeze().await?;
    let delivery = producer.send(Record::new(topic.as_str()).value("1")).await?;
    // Beyond the time-out of a request.
    sleep(backend.patience() * 3 / 2).await;
    backend.thaw().await?;
    delivery.await?;
    let records = next(&consumer, 1).await?;
    assert_eq!((records[0].offset, number(&records[0])?), (1, 1));
    Ok(())
}

/// The last sentence of all: nothing that happened before has left traces.
pub(crate) async fn all_logs_agree_in_the_end(backend: &Backend) -> Outcome {
    Ok(backend.heal().await?)
}
