//! What becomes of commits that overtake each other, of a consumer that is closed while nobody answers, and of one that is not
//! asked for records. In virtual time.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

mod chosen;
mod passing;
mod turns;

use std::time::Duration;

use broker_lite::Cluster;
use broker_lite::sim::{self, Sim};
use futures::FutureExt;
use klamm::fault::{Fault, FaultHandle, FaultLayer, Layer};
use klamm::{
    ApiKey, Client, CommitError, Consumer, ConsumerBuilder, ConsumerError, ConsumerRecord, ErrorCode,
    NewTopic, OffsetReset, Producer, Record, StartOffset, TopicPartition,
};
use tokio::time::{Instant, timeout};

const S: Duration = Duration::from_secs(1);
const TOPIC: &str = "t";

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct Rig {
    cluster: Cluster,
    client: Client,
    faults: FaultHandle,
}

impl Rig {
    /// Two partitions with five records each.
    async fn new(sim: &Sim) -> Outcome<Self> {
        let cluster = sim.cluster().brokers(1).config("group.initial.rebalance.delay.ms", "0");
        let cluster = cluster.config("offsets.topic.num.partitions", "1").start().await?;
        let layer = FaultLayer::new(1);
        let faults = layer.handle();
        let builder = Client::builder().bootstrap_servers(cluster.bootstrap());
        let builder = builder.connector(layer.layer(cluster.handle()));
        let client = builder.request_timeout_ms(2 * S).default_api_timeout_ms(6 * S).build()?;
        client.admin().create_topics([NewTopic::new(TOPIC).partitions(2).replicas(1)]).await?.all()?;
        let producer: Producer = Producer::builder().client(&client).build()?;
        for value in 0..10 {
            producer.send_and_wait(Record::new(TOPIC).partition(value % 2).value("v")).await?;
        }
        Ok(Self { cluster, client, faults })
    }

    async fn write(&self, partition: i32, count: usize) -> Outcome {
        let producer: Producer = Producer::builder().client(&self.client).build()?;
        for _ in 0..count {
            producer.send_and_wait(Record::new(TOPIC).partition(partition).value("v")).await?;
        }
        Ok(())
    }

    fn builder(&self) -> ConsumerBuilder {
        Consumer::builder().client(&self.client).group_id("g").auto_offset_reset(OffsetReset::Earliest)
    }

    /// What the group has committed, asked without faults in between.
    async fn committed(&self, partition: i32) -> Outcome<Option<i64>> {
        let client = Client::builder().bootstrap_servers(self.cluster.bootstrap());
        let client = client.connector(self.cluster.handle()).build()?;
        let consumer: Consumer = Consumer::builder().client(&client).group_id("g").build()?;
        let found = consumer.committed(&[place(partition)]).await?;
        Ok(found.into_values().flatten().map(|at| at.offset).next())
    }
}

fn place(partition: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, partition)
}

async fn read(consumer: &Consumer, count: usize) -> Outcome<Vec<ConsumerRecord>> {
    let mut records = Vec::new();
    while records.len() < count {
        records.push(timeout(30 * S, consumer.recv()).await??);
    }
    Ok(records)
}

/// The first commit is refused for a moment, and the second one is taken meanwhile.
#[test]
fn a_commit_that_is_tried_again_does_not_go_back_behind_a_later_one() {
    for by_hand in [true, false] {
        sim::run(1, |sim| async move {
            let rig = Rig::new(&sim).await?;
            let consumer: Consumer = rig.builder().enable_auto_commit(false).build()?;
            match by_hand {
                true => consumer.assign([0, 1].map(|index| (place(index), StartOffset::Committed))),
                false => consumer.subscribe([TOPIC]),
            }
            read(&consumer, 10).await?;
            // The coordinator is known from here on.
            consumer.commit_offsets([(place(1), 1)]).await?;
            let refused = rig
                .faults
                .on(ApiKey::OffsetCommit)
                .times(1)
                .then(Fault::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
            let earlier = consumer.commit_async();
            let later = async {
                tokio::time::sleep(S / 100).await;
                consumer.commit_offsets([(place(0), 3)]).await
            };
            let (earlier, later) = tokio::join!(earlier, later);
            assert_eq!((earlier, later, refused.hits()), (Ok(()), Ok(()), 1));
            assert_eq!(rig.committed(0).await?, Some(3), "the later one counts, even if it goes back itself");
            assert_eq!(
                rig.committed(1).await?,
                Some(5),
                "of the earlier one what the later one does not say"
            );
            Outcome::Ok(())
        })
        .expect("it runs");
    }
}

/// What an automatic commit said before does not count any more.
#[test]
fn what_the_application_commits_backwards_is_committed_again_once_it_is_done_again() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let consumer: Consumer = rig.builder().auto_commit_interval_ms(S / 10).build()?;
        consumer.assign([(place(0), StartOffset::Committed)]);
        read(&consumer, 5).await?;
        let more = timeout(S, consumer.recv()).await;
        assert!(more.is_err(), "there is no more: {more:?}");
        assert_eq!(rig.committed(0).await?, Some(5), "done, as more was asked for");
        consumer.commit_offsets([(place(0), 2)]).await?;
        consumer.seek(&place(0), StartOffset::Committed)?;
        let again = read(&consumer, 3).await?;
        assert_eq!(again[0].offset, 2);
        let more = timeout(S, consumer.recv()).await;
        assert!(more.is_err(), "{more:?}");
        assert_eq!(rig.committed(0).await?, Some(5));
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// Every way of closing, whatever is not answered, ends within the one limit.
#[test]
fn closing_takes_no_longer_than_its_limit_whatever_is_not_answered() {
    use ApiKey::{FindCoordinator, LeaveGroup, OffsetCommit};
    for silent in [FindCoordinator, OffsetCommit, LeaveGroup] {
        for by_hand in [true, false] {
            let what = format!("{silent:?}, by hand {by_hand}");
            let what = &*what;
            sim::run(1, |sim| async move {
                let rig = Rig::new(&sim).await?;
                let _silent = (by_hand || silent != FindCoordinator)
                    .then(|| rig.faults.on(silent).then(Fault::DropRequest));
                let consumer: Consumer = rig.builder().build()?;
                match by_hand {
                    true => consumer.assign([(place(0), StartOffset::Beginning)]),
                    false => consumer.subscribe([TOPIC]),
                }
                read(&consumer, 3).await?;
                let began = Instant::now();
                timeout(60 * S, consumer.close()).await.expect(what)?;
                assert!(began.elapsed() <= 6 * S, "{what}: {:?}", began.elapsed());
                assert!(matches!(consumer.recv().await, Err(ConsumerError::Closed)), "{what}");
                Outcome::Ok(())
            })
            .expect(what);
        }
    }
}

/// A member whose commits are not answered still has the time to leave.
#[test]
fn a_member_that_cannot_commit_leaves_all_the_same() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let consumer: Consumer = rig.builder().build()?;
        consumer.subscribe([TOPIC]);
        read(&consumer, 3).await?;
        let _silent = rig.faults.on(ApiKey::OffsetCommit).then(Fault::DropRequest);
        let left = rig.faults.on(ApiKey::LeaveGroup).then(Fault::DelayRequest(Duration::ZERO.into()));
        consumer.close().await?;
        assert!(left.hits() >= 1, "and again, where the commit has held it up");
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// Else the others would wait until its session is over.
#[test]
fn a_member_that_closes_while_nobody_knows_its_coordinator_finds_it_and_leaves() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let consumer: Consumer = rig.builder().enable_auto_commit(false).build()?;
        consumer.subscribe([TOPIC]);
        read(&consumer, 10).await?;
        let refuse = |api, times, code| rig.faults.on(api).times(times).then(Fault::Refuse(code));
        let moved = refuse(ApiKey::Heartbeat, 1, ErrorCode::NOT_COORDINATOR);
        let nobody = refuse(ApiKey::FindCoordinator, 2, ErrorCode::COORDINATOR_NOT_AVAILABLE);
        while moved.hits() == 0 {
            tokio::time::sleep(S / 100).await;
        }
        let began = Instant::now();
        consumer.close().await?;
        assert!(began.elapsed() < 2 * S, "{:?}", began.elapsed());
        assert_eq!(nobody.hits(), 2);
        let next: Consumer = rig.builder().build()?;
        next.subscribe([TOPIC]);
        assert!(timeout(5 * S, read(&next, 10)).await.is_ok(), "the next one waits for the former's session");
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// Whoever had the records before the last call is done with them.
#[test]
fn a_member_whose_application_has_no_records_is_judged_by_the_last_call_for_some() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let limit = 10 * S;
        let consumer: Consumer = rig.builder().max_poll_interval_ms(limit).build()?;
        consumer.subscribe([TOPIC]);
        read(&consumer, 10).await?;
        tokio::time::sleep(limit * 8 / 10).await;
        assert!(consumer.poll(1, Duration::ZERO).await?.is_empty());
        tokio::time::sleep(limit * 8 / 10).await;
        assert_eq!(consumer.assignment().len(), 2, "the last call is not that long ago");
        tokio::time::sleep(limit / 2).await;
        assert!(consumer.assignment().is_empty(), "it is by now");
        Outcome::Ok(())
    })
    .expect("it runs");
}

#[test]
fn a_closing_that_is_dropped_goes_on_and_who_closes_again_waits_for_the_same() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let consumer: Consumer = rig.builder().build()?;
        consumer.subscribe([TOPIC]);
        read(&consumer, 4).await?;
        let left = rig.faults.on(ApiKey::LeaveGroup).then(Fault::DelayRequest((S / 2).into()));
        assert!(consumer.close().now_or_never().is_none(), "it takes a moment");
        let began = Instant::now();
        consumer.close().await?;
        assert!(began.elapsed() >= S / 2, "not before the first one is done");
        assert_eq!(left.hits(), 1, "it leaves once");
        assert!(matches!(consumer.recv().await, Err(ConsumerError::Closed)));
        assert_eq!(consumer.commit().await, Err(CommitError::Closed));

        let consumer: Consumer = rig.builder().build()?;
        consumer.subscribe([TOPIC]);
        read(&consumer, 4).await?;
        assert!(consumer.close().now_or_never().is_none());
        let ended = timeout(6 * S, async {
            while !matches!(timeout(S / 10, consumer.recv()).await, Ok(Err(ConsumerError::Closed))) {}
        });
        assert!(ended.await.is_ok(), "nobody waits for it, and it is closed all the same");
        assert_eq!(left.hits(), 2);
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// Another member was further when the group became empty, and nobody refuses who is none.
#[test]
fn who_has_unsubscribed_does_not_take_its_group_back() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let first: Consumer = rig.builder().enable_auto_commit(false).build()?;
        first.subscribe([TOPIC]);
        let records = read(&first, 10).await?;
        first.unsubscribe().await;
        let second: Consumer = rig.builder().enable_auto_commit(false).build()?;
        second.subscribe([TOPIC]);
        read(&second, 10).await?;
        second.commit().await?;
        second.close().await?;
        assert_eq!(rig.committed(0).await?, Some(5));
        let told = first.commit_record(&records[0]).await;
        assert!(matches!(told, Err(CommitError::NotOwned { .. })), "{told:?}");
        assert_eq!(rig.committed(0).await?, Some(5));
        // Who chooses by hand takes it upon itself.
        first.assign([(place(0), StartOffset::Beginning)]);
        first.commit_record(&records[0]).await?;
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// The answer takes its time, and partitions are chosen one by one meanwhile.
#[test]
fn partitions_that_are_sought_one_by_one_all_begin_where_the_group_committed() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let consumer: Consumer = rig.builder().enable_auto_commit(false).build()?;
        consumer.commit_offsets([(place(0), 2), (place(1), 3)]).await?;
        let _slow = rig.faults.on(ApiKey::OffsetFetch).then(Fault::DelayAnswer((S / 2).into()));
        consumer.assign([0, 1].map(|index| (place(index), StartOffset::End)));
        consumer.seek(&place(0), StartOffset::Committed)?;
        tokio::time::sleep(S / 10).await;
        consumer.seek(&place(1), StartOffset::Committed)?;
        assert_eq!(consumer.position(&place(0)).await?, 2);
        assert_eq!(consumer.position(&place(1)).await?, 3);
        Outcome::Ok(())
    })
    .expect("it runs");
}
