//! Settings of the consumer that nobody notices before the cluster is of the right kind. In virtual time.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::time::Duration;

use broker_lite::Cluster;
use broker_lite::sim::{self, Sim};
use klamm::{
    ApiKey, Client, CommitError, Consumer, ConsumerBuilder, NewTopic, OffsetReset, Producer, Record,
    StartOffset, TopicPartition,
};
use tokio::time::{Instant, timeout};

const S: Duration = Duration::from_secs(1);

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn place() -> TopicPartition {
    TopicPartition::new("t", 0)
}

async fn one_broker(sim: &Sim) -> Outcome<Cluster> {
    let builder = sim.cluster().brokers(1).config("group.initial.rebalance.delay.ms", "0");
    Ok(builder.config("offsets.topic.num.partitions", "1").start().await?)
}

async fn write(client: &Client, count: usize) -> Outcome {
    let producer: Producer = Producer::builder().client(client).build()?;
    for _ in 0..count {
        producer.send_and_wait(Record::new("t").partition(0).value("v")).await?;
    }
    Ok(())
}

/// KIP-392: who says where it is reads from the replica there, and nobody else does.
#[test]
fn a_consumer_that_names_its_rack_reads_from_the_replica_there() {
    sim::run(1, |sim| async move {
        let selector = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
        let cluster = sim.cluster().brokers(3).config("replica.selector.class", selector).start().await?;
        let client = Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle());
        let client = client.build()?;
        client.admin().create_topics([NewTopic::new("t").partitions(1).replicas(3)]).await?.all()?;
        write(&client, 10).await?;
        let leader = cluster.leader_of("t", 0).expect("there is one");
        let follower = leader % 3 + 1;
        let racks = [(format!("RACK{follower}"), true), ("RACK9".to_owned(), false), (String::new(), false)];
        for (written, (rack, near)) in (10..).step_by(10).zip(racks) {
            let name = format!("reader in {rack}");
            let asked = |broker| cluster.on(ApiKey::Fetch).broker(broker).client(&name).call(|_| {});
            let (of_leader, of_follower) = (asked(leader), asked(follower));
            let consumer: Consumer =
                Consumer::builder().client(&client).client_id(name.as_str()).client_rack(rack).build()?;
            consumer.assign([(place(), StartOffset::Beginning)]);
            for offset in 0..written {
                assert_eq!(timeout(30 * S, consumer.recv()).await??.offset, offset);
            }
            assert_eq!(of_follower.hits() > 0, near, "{name}");
            // Once it is sent on, it stays there.
            let before = of_leader.hits();
            write(&client, 10).await?;
            for offset in written..written + 10 {
                assert_eq!(timeout(30 * S, consumer.recv()).await??.offset, offset);
            }
            assert_eq!(of_leader.hits() == before, near, "{name}");
            consumer.close().await?;
        }
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// The brokers would create the topic for anybody who may ask for that.
#[test]
fn a_topic_that_is_asked_for_is_created_only_if_that_is_allowed() {
    for allowed in [true, false] {
        for by_hand in [true, false] {
            let what = format!("allowed: {allowed}, by hand: {by_hand}");
            let what = &*what;
            sim::run(1, |sim| async move {
                let cluster = one_broker(&sim).await?;
                let client = Client::builder().bootstrap_servers(cluster.bootstrap());
                let client = client.connector(cluster.handle()).metadata_max_age_ms(S).build()?;
                let consumer: Consumer = Consumer::builder()
                    .client(&client)
                    .group_id("g")
                    .allow_auto_create_topics(allowed)
                    .build()?;
                match by_hand {
                    true => consumer.assign([(place(), StartOffset::Beginning)]),
                    false => consumer.subscribe(["t"]),
                }
                let _ = consumer.poll(1, 20 * S).await;
                let topics = client.admin().list_topics().await?;
                assert_eq!(topics.iter().any(|topic| topic.name == "t"), allowed, "{what}");
                consumer.close().await?;
                Outcome::Ok(())
            })
            .expect(what);
        }
    }
}

/// Calls may have less time than one request, or none: what is done for others has the time of a request all the same.
#[test]
fn who_closes_commits_and_leaves_although_calls_have_no_time() {
    for by_hand in [true, false] {
        sim::run(1, |sim| async move {
            let cluster = one_broker(&sim).await?;
            let client = Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle());
            let client = client.build()?;
            client.admin().create_topics([NewTopic::new("t").partitions(1).replicas(1)]).await?.all()?;
            write(&client, 5).await?;
            let builder = || -> ConsumerBuilder {
                let builder = Consumer::builder().client(&client).group_id("g");
                builder.auto_offset_reset(OffsetReset::Earliest)
            };
            let hasty: Consumer = builder().default_api_timeout_ms(Duration::ZERO).build()?;
            match by_hand {
                true => hasty.assign([(place(), StartOffset::Beginning)]),
                false => hasty.subscribe(["t"]),
            }
            for _ in 0..5 {
                timeout(30 * S, hasty.recv()).await??;
            }
            assert!(matches!(hasty.commit().await, Err(CommitError::TimedOut { .. })));
            // Now it is done with all of them.
            assert!(hasty.poll(1, S / 10).await?.is_empty());
            hasty.close().await?;
            let patient: Consumer = builder().build()?;
            let found = patient.committed(&[place()]).await?;
            let found = found.into_values().flatten().map(|at| at.offset).next();
            assert_eq!(found, Some(5), "by hand: {by_hand}");
            let told = client.admin().describe_groups(["g"]).await?.all()?;
            assert!(told[0].members.is_empty(), "{told:?}");
            Outcome::Ok(())
        })
        .expect("it runs");
    }
}

/// Whoever is named as the coordinator may not be known yet: a new client asks for it and for the cluster at the same time.
#[test]
fn the_first_record_of_a_new_member_waits_for_no_pause() {
    for seed in 0..20 {
        sim::run(seed, |sim| async move {
            let cluster =
                sim.cluster().brokers(3).config("group.initial.rebalance.delay.ms", "0").start().await?;
            let client =
                || Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle());
            let settled = client().build()?;
            settled.admin().create_topics([NewTopic::new("t").partitions(1).replicas(3)]).await?.all()?;
            write(&settled, 1).await?;
            for round in 0..5 {
                let fresh = client().retry_backoff_ms(10 * S).retry_backoff_max_ms(10 * S).build()?;
                let builder = Consumer::builder().client(&fresh).group_id(format!("g-{round}"));
                let consumer: Consumer = builder.auto_offset_reset(OffsetReset::Earliest).build()?;
                let began = Instant::now();
                consumer.subscribe(["t"]);
                timeout(30 * S, consumer.recv()).await??;
                // The first one makes __consumer_offsets.
                assert!(round == 0 || began.elapsed() < 5 * S, "round {round}: {:?}", began.elapsed());
                consumer.close().await?;
            }
            Outcome::Ok(())
        })
        .expect("it runs");
    }
}

/// Nobody is told by accident what the group `default` has committed.
#[test]
fn who_names_no_group_and_is_no_member_is_told_of_none() {
    sim::run(1, |sim| async move {
        let cluster = one_broker(&sim).await?;
        let client = Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle());
        let consumer: Consumer = Consumer::builder().client(&client.build()?).build()?;
        assert_eq!(consumer.committed(&[place()]).await, Err(CommitError::NoGroup));
        consumer.assign([(place(), StartOffset::Beginning)]);
        assert_eq!(consumer.committed(&[place()]).await, Err(CommitError::NoGroup));
        Outcome::Ok(())
    })
    .expect("it runs");
}
