//! What a member of a group does when its coordinator refuses, is silent or is gone, and when its topics are: it tells the
//! application what is wrong, or goes on by the policy that is documented; it never spins, never hangs, and is a member again
//! as soon as it can. In virtual time, so that requests can be counted exactly.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::sync::Arc;
use std::time::Duration;

use broker_lite::Cluster;
use broker_lite::sim::{self, Sim};
use klamm::fault::{DialFault, Fault, FaultHandle, FaultLayer, FaultRule, Layer};
use klamm::{
    ApiKey, AssignmentStrategy, Client, CommitError, Consumer, ConsumerBuilder, ConsumerError, ErrorCode,
    NewPartitions, NewTopic, OffsetReset, Producer, Record,
};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

const S: Duration = Duration::from_secs(1);
const TOPIC: &str = "t";
/// Requests in ten seconds other than Fetch: pauses double up to a second, and an attempt takes three requests.
const FEW: u64 = 80;
/// One long poll of half a second at the only leader.
const FETCHES: u64 = 30;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A cluster, and a client whose requests can go wrong.
struct Rig {
    cluster: Cluster,
    client: Client,
    faults: FaultHandle,
    /// Count every request, and every Fetch.
    counts: [FaultRule; 2],
}

/// A member that reads all the time, and what it was told.
struct Member {
    consumer: Arc<Consumer>,
    read: Arc<Mutex<usize>>,
    told: Arc<Mutex<Vec<ConsumerError>>>,
    reading: JoinHandle<()>,
}

impl Rig {
    async fn new(sim: &Sim) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let cluster = sim.cluster().brokers(1).config("group.initial.rebalance.delay.ms", "0");
        let cluster = cluster.config("auto.create.topics.enable", "false");
        let cluster = cluster.config("offsets.topic.num.partitions", "1").start().await?;
        let layer = FaultLayer::new(1);
        let faults = layer.handle();
        let connector = layer.layer(cluster.handle());
        let client = Client::builder().bootstrap_servers(cluster.bootstrap()).connector(connector).build()?;
        client.admin().create_topics([NewTopic::new(TOPIC).partitions(3).replicas(1)]).await?.all()?;
        let nothing = || Fault::DelayRequest(Duration::ZERO.into());
        let counts = [faults.on_any().then(nothing()), faults.on(ApiKey::Fetch).then(nothing())];
        Ok(Self { cluster, client, faults, counts })
    }

    fn builder(&self) -> ConsumerBuilder {
        let builder = Consumer::builder().client(&self.client).group_id("g");
        builder
            .auto_offset_reset(OffsetReset::Earliest)
            .partition_assignment_strategy([AssignmentStrategy::CooperativeSticky])
    }

    fn member(&self, builder: ConsumerBuilder) -> Result<Member, klamm::ConfigError> {
        let consumer: Arc<Consumer> = Arc::new(builder.build()?);
        consumer.subscribe([TOPIC]);
        let (read, told) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (reader, read_too, told_too) = (consumer.clone(), read.clone(), told.clone());
        let reading = tokio::spawn(async move {
            loop {
                match reader.recv().await {
                    Ok(_) => *read_too.lock() += 1,
                    Err(ConsumerError::Closed) => return,
                    Err(error) => told_too.lock().push(error),
                }
                assert!(told_too.lock().len() < 1_000, "an application that asks again and again spins");
            }
        });
        Ok(Member { consumer, read, told, reading })
    }

    /// Requests in ten seconds: all but Fetch, and Fetch.
    async fn ten_seconds(&self) -> (u64, u64) {
        let count = || self.counts.each_ref().map(FaultRule::hits);
        let before = count();
        tokio::time::sleep(10 * S).await;
        let [all, fetches] = count();
        let fetches = fetches - before[1];
        (all - before[0] - fetches, fetches)
    }

    async fn write(&self, values: usize) -> Outcome {
        let producer: Producer = Producer::builder()
            .bootstrap_servers(self.cluster.bootstrap())
            .connector(self.cluster.handle())
            .build()?;
        for value in 0..values {
            producer.send_and_wait(Record::new(TOPIC).partition((value % 3) as i32).value("v")).await?;
        }
        Ok(())
    }
}

impl Member {
    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(120 * S, async {
            while !done(self) {
                tokio::time::sleep(S / 100).await;
            }
        });
        assert!(waited.await.is_ok(), "not within two minutes: {what}; told {:?}", self.told());
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().iter().map(ToString::to_string).collect()
    }

    /// Closing never hangs, and nobody waits for records then.
    async fn close(self, what: &str) -> Outcome {
        let closed = tokio::time::timeout(61 * S, self.consumer.close()).await;
        assert!(closed.is_ok(), "{what}: close hangs");
        tokio::time::timeout(S, self.reading).await??;
        Ok(())
    }
}

/// Each way of the coordinator to say no that may pass: the member goes on trying, tells the application nothing, and is
/// back when it has passed.
#[test]
fn a_coordinator_that_refuses_for_a_while_is_asked_at_a_measured_pace_until_it_does_not() {
    use ApiKey::{FindCoordinator, Heartbeat, JoinGroup, OffsetFetch, SyncGroup};
    let refuse = Fault::Refuse;
    for (what, api, fault) in [
        ("coordinator unavailable", FindCoordinator, refuse(ErrorCode::COORDINATOR_NOT_AVAILABLE)),
        ("no coordinator at all", FindCoordinator, Fault::DropRequest),
        ("coordinator loading", JoinGroup, refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)),
        ("not the coordinator", JoinGroup, refuse(ErrorCode::NOT_COORDINATOR)),
        ("coordinator unreachable", JoinGroup, Fault::CutBefore),
        ("illegal generation at the join", JoinGroup, refuse(ErrorCode::ILLEGAL_GENERATION)),
        ("unknown member at the join", JoinGroup, refuse(ErrorCode::UNKNOWN_MEMBER_ID)),
        ("a rebalance at the join", JoinGroup, refuse(ErrorCode::REBALANCE_IN_PROGRESS)),
        ("illegal generation at the sync", SyncGroup, refuse(ErrorCode::ILLEGAL_GENERATION)),
        ("unknown member at the sync", SyncGroup, refuse(ErrorCode::UNKNOWN_MEMBER_ID)),
        ("a rebalance at the sync", SyncGroup, refuse(ErrorCode::REBALANCE_IN_PROGRESS)),
        ("not the coordinator at the sync", SyncGroup, refuse(ErrorCode::NOT_COORDINATOR)),
        ("illegal generation at the heartbeat", Heartbeat, refuse(ErrorCode::ILLEGAL_GENERATION)),
        ("unknown member at the heartbeat", Heartbeat, refuse(ErrorCode::UNKNOWN_MEMBER_ID)),
        ("not the coordinator at the heartbeat", Heartbeat, refuse(ErrorCode::NOT_COORDINATOR)),
        ("coordinator cut off at the heartbeat", Heartbeat, Fault::CutBefore),
        ("offsets are loading", OffsetFetch, refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)),
        ("offsets of no member", OffsetFetch, refuse(ErrorCode::UNKNOWN_MEMBER_ID)),
        ("offsets are unstable", OffsetFetch, refuse(ErrorCode::UNSTABLE_OFFSET_COMMIT)),
        ("offsets cut off", OffsetFetch, Fault::CutAfter),
    ] {
        let fault = &fault;
        sim::run(1, |sim| async move {
            let rig = Rig::new(&sim).await?;
            let rule = rig.faults.on(api).then(fault.clone());
            let member = rig.member(rig.builder())?;
            tokio::time::sleep(S).await;
            let (requests, fetches) = rig.ten_seconds().await;
            assert!(
                requests <= FEW && fetches <= FETCHES,
                "{what}: {requests} requests, {fetches} fetches in 10 s"
            );
            assert_eq!(member.told(), [""; 0], "{what}");
            drop(rule);
            rig.write(6).await?;
            member
                .until(what, |member| *member.read.lock() == 6 && member.consumer.assignment().len() == 3)
                .await;
            let (requests, fetches) = rig.ten_seconds().await;
            assert!(
                requests <= 20 && fetches <= FETCHES,
                "{what}, healed: {requests} requests, {fetches} fetches"
            );
            let silent = rig.faults.on(ApiKey::LeaveGroup).then(Fault::DropRequest);
            member.close(what).await?;
            drop(silent);
            Outcome::Ok(())
        })
        .expect(what);
    }
}

/// Closing never waits for a coordinator that is not there.
#[test]
fn a_member_closes_whatever_its_coordinator_does() {
    use ApiKey::{FindCoordinator, Heartbeat, JoinGroup, LeaveGroup, OffsetCommit, OffsetFetch, SyncGroup};
    for api in [FindCoordinator, JoinGroup, SyncGroup, Heartbeat, OffsetFetch, OffsetCommit, LeaveGroup] {
        for fault in [Fault::DropRequest, Fault::CutBefore, Fault::Refuse(ErrorCode::NOT_COORDINATOR)] {
            let fault = &fault;
            let what = format!("{api:?} {fault:?}");
            let what = &*what;
            sim::run(1, |sim| async move {
                let rig = Rig::new(&sim).await?;
                rig.write(3).await?;
                let rule = rig.faults.on(api).then(fault.clone());
                let member = rig.member(rig.builder())?;
                tokio::time::sleep(3 * S).await;
                member.close(what).await?;
                drop(rule);
                Outcome::Ok(())
            })
            .expect(what);
        }
    }
}

/// What does not pass is told once, with its cure; then the member is silent.
#[test]
fn what_nothing_helps_against_is_told_once_with_its_cure_and_the_member_is_silent() {
    for (code, cure) in [
        (ErrorCode::FENCED_INSTANCE_ID, "group.instance.id"),
        (ErrorCode::INCONSISTENT_GROUP_PROTOCOL, "partition.assignment.strategy"),
        (ErrorCode::INVALID_GROUP_ID, "group.id"),
        (ErrorCode::INVALID_SESSION_TIMEOUT, "session.timeout.ms"),
        (ErrorCode::GROUP_MAX_SIZE_REACHED, "group.max.size"),
    ] {
        for api in [ApiKey::JoinGroup, ApiKey::SyncGroup, ApiKey::Heartbeat] {
            sim::run(1, |sim| async move {
                let rig = Rig::new(&sim).await?;
                let rule = rig.faults.on(api).then(Fault::Refuse(code));
                let member = rig.member(rig.builder())?;
                member.until("it is told", |member| !member.told().is_empty()).await;
                let told = member.told();
                let named = ["group g", code.name().unwrap_or_default(), cure];
                assert!(named.iter().all(|part| told[0].contains(part)), "{told:?}");
                let (requests, fetches) = rig.ten_seconds().await;
                assert!(
                    requests <= 2 && fetches == 0,
                    "{api:?} {code}: {requests} requests, {fetches} fetches"
                );
                assert_eq!(member.told().len(), 1, "{:?}", member.told());
                assert!(member.consumer.assignment().is_empty());
                drop(rule);
                member.consumer.subscribe([TOPIC]);
                rig.write(3).await?;
                member.until("a new attempt", |member| *member.read.lock() == 3).await;
                member.close("failed once").await
            })
            .expect(cure);
        }
    }
}

#[test]
fn an_empty_group_id_and_foreign_settings_are_refused_by_the_broker_with_the_cure() {
    let refused = |settings: fn(ConsumerBuilder) -> ConsumerBuilder, named: &'static [&'static str]| {
        sim::run(1, |sim| async move {
            let rig = Rig::new(&sim).await?;
            let told = match rig.member(settings(rig.builder())) {
                Err(error) => vec![error.to_string()],
                Ok(member) => {
                    member.until("it is told", |member| !member.told().is_empty()).await;
                    let told = member.told();
                    member.close("refused").await?;
                    told
                }
            };
            assert!(named.iter().all(|part| told[0].contains(part)), "{told:?}");
            Outcome::Ok(())
        })
        .expect("it runs");
    };
    refused(|builder| builder.group_id(""), &["group.id"]);
    refused(
        |builder| builder.session_timeout_ms(S / 1000 * 500).heartbeat_interval_ms(S / 10),
        &["session.timeout.ms"],
    );
}

#[test]
fn a_refused_commit_names_its_cause_and_the_member_goes_on() {
    for (code, named) in [
        (ErrorCode::OFFSET_METADATA_TOO_LARGE, "OFFSET_METADATA_TOO_LARGE"),
        (ErrorCode::ILLEGAL_GENERATION, "ILLEGAL_GENERATION"),
        (ErrorCode::UNKNOWN_MEMBER_ID, "UNKNOWN_MEMBER_ID"),
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "UNKNOWN_TOPIC_OR_PARTITION"),
        (ErrorCode::COORDINATOR_NOT_AVAILABLE, "COORDINATOR_NOT_AVAILABLE"),
    ] {
        sim::run(1, |sim| async move {
            let rig = Rig::new(&sim).await?;
            rig.write(3).await?;
            let member = rig.member(rig.builder())?;
            member.until("it reads", |member| *member.read.lock() == 3).await;
            let rule = rig.faults.on(ApiKey::OffsetCommit).then(Fault::Refuse(code));
            let (answer, (requests, fetches)) = tokio::join!(member.consumer.commit(), rig.ten_seconds());
            let error = answer.expect_err("refused");
            assert!(error.to_string().contains(named), "{error}");
            let waited = matches!(error, CommitError::TimedOut { .. });
            // What may pass is tried again until default.api.timeout.ms, retry.backoff.ms apart.
            let most = if waited { 250 } else { FEW };
            assert!(
                requests <= most && fetches <= FETCHES,
                "{named}: {requests} requests, {fetches} fetches"
            );
            drop(rule);
            rig.write(3).await?;
            member.until("it reads on", |member| *member.read.lock() >= 6).await;
            assert_eq!(member.told(), [""; 0], "{named}");
            member.consumer.commit().await?;
            member.close(named).await
        })
        .expect(named);
    }
}

/// Whoever may not read one of its topics is a member all the same, and asks for it now and then.
#[test]
fn a_topic_that_is_refused_is_asked_for_at_a_measured_pace_until_it_is_not() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        rig.client.admin().create_topics([NewTopic::new("secret").partitions(1).replicas(1)]).await?.all()?;
        let member = rig.member(rig.builder())?;
        member.until("it has its partitions", |member| member.consumer.assignment().len() == 3).await;
        let refused = Fault::Refuse(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
        let rule = rig.faults.on(ApiKey::Metadata).then(refused);
        member.consumer.subscribe([TOPIC, "secret"]);
        tokio::time::sleep(S).await;
        let (requests, fetches) = rig.ten_seconds().await;
        assert!(requests <= 20 && fetches <= FETCHES, "{requests} requests, {fetches} fetches in 10 s");
        assert!(rule.hits() > 1, "it is asked for");
        drop(rule);
        member.until("it may read it", |member| member.consumer.assignment().len() == 4).await;
        member.close("refused").await
    })
    .expect("it runs");
}

/// Two of three brokers have not heard of the topic, for minutes, and metadata are asked of any.
#[test]
fn brokers_that_lag_behind_take_no_partition_from_anybody() {
    for by_pattern in [false, true] {
        sim::run(1, |sim| async move {
            let cluster = sim.cluster().brokers(3).config("group.initial.rebalance.delay.ms", "0");
            let cluster = cluster.config("offsets.topic.num.partitions", "1").start().await?;
            let layer = FaultLayer::new(1);
            let faults = layer.handle();
            let admin = Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle());
            let admin = admin.build()?.admin();
            admin.create_topics([NewTopic::new(TOPIC).partitions(3).replicas(3)]).await?.all()?;
            let builder = Client::builder().bootstrap_servers(cluster.bootstrap());
            let client = builder.connector(layer.layer(cluster.handle())).metadata_max_age_ms(S).build()?;
            let addresses = cluster.bootstrap();
            let others = || addresses.split(',').skip(1);
            let away = others().map(|address| faults.on_dial().to(address).then(DialFault::Refuse));
            let away: Vec<_> = away.collect();
            let builder = Consumer::builder().client(&client).group_id("g").allow_auto_create_topics(false);
            let strategy = AssignmentStrategy::CooperativeSticky;
            let consumer: Consumer = builder.partition_assignment_strategy([strategy]).build()?;
            match by_pattern {
                true => consumer.subscribe_pattern(TOPIC)?,
                false => consumer.subscribe([TOPIC]),
            }
            // The first one tells of the topic.
            tokio::time::sleep(5 * S).await;
            let lag = |address: &str| {
                let unknown = Fault::Refuse(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
                faults.on(ApiKey::Metadata).to(address).then(unknown)
            };
            let lagging: Vec<_> = others().map(lag).collect();
            drop(away);
            let until = async |count| {
                let assigned = tokio::time::timeout(120 * S, async {
                    while consumer.assignment().len() != count {
                        let _ = consumer.poll(1, S / 10).await;
                    }
                });
                assert!(assigned.await.is_ok(), "{:?} instead of {count}", consumer.assignment());
            };
            until(3).await;
            for _ in 0..120 {
                let _ = consumer.poll(1, S).await;
                assert_eq!(
                    consumer.assignment().len(),
                    3,
                    "given up because a broker has not heard of the topic"
                );
            }
            assert!(lagging.iter().all(|rule| rule.hits() > 10), "they are asked");
            drop(lagging);
            admin.delete_topics([TOPIC]).await?.all()?;
            until(0).await;
            consumer.close().await?;
            Outcome::Ok(())
        })
        .expect("it runs");
    }
}

#[test]
fn a_deleted_topic_is_looked_for_at_a_measured_pace_and_read_again_when_it_is_back() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        rig.write(30).await?;
        let member = rig.member(rig.builder().enable_auto_commit(false))?;
        member.until("it reads", |member| *member.read.lock() == 30).await;
        rig.client.admin().delete_topics([TOPIC]).await?.all()?;
        tokio::time::sleep(S).await;
        let (requests, fetches) = rig.ten_seconds().await;
        assert!(requests <= FEW && fetches <= FETCHES, "deleted: {requests} requests, {fetches} fetches");
        tokio::time::sleep(120 * S).await;
        let told = member.told();
        assert!(told.iter().all(|told| told.contains("t-") || told.contains("topic")), "{told:?}");
        assert!(told.len() <= 12, "told at a measured pace: {}", told.len());
        rig.client.admin().create_topics([NewTopic::new(TOPIC).partitions(3).replicas(1)]).await?.all()?;
        rig.write(6).await?;
        // Its positions are beyond the end of the new one: auto.offset.reset.
        member.until("it reads the new one", |member| *member.read.lock() == 36).await;
        member.close("deleted").await
    })
    .expect("it runs");
}

#[test]
fn a_topic_that_is_not_there_is_waited_for() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let consumer: Consumer = rig.builder().allow_auto_create_topics(false).build()?;
        consumer.subscribe(["later"]);
        tokio::time::sleep(S).await;
        let (requests, fetches) = rig.ten_seconds().await;
        assert!(requests <= FEW && fetches <= FETCHES, "absent: {requests} requests, {fetches} fetches");
        rig.client.admin().create_topics([NewTopic::new("later").partitions(3).replicas(1)]).await?.all()?;
        let assigned = tokio::time::timeout(120 * S, async {
            while consumer.assignment().len() < 3 {
                let _ = consumer.poll(1, S / 10).await;
            }
        });
        assert!(assigned.await.is_ok(), "it does not find the topic");
        consumer.close().await?;
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// Back within its session, a static leader is not to assign (KIP-814), but there may be partitions that nobody has.
#[test]
fn a_static_leader_that_is_not_told_what_stands_assigns_anew() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let fixed = || {
            let builder = rig.builder().group_instance_id("one");
            rig.member(builder.partition_assignment_strategy([AssignmentStrategy::Range]))
        };
        let member = fixed()?;
        member.until("it has its partitions", |member| member.consumer.assignment().len() == 3).await;
        member.consumer.vanish();
        rig.client.admin().create_partitions([NewPartitions::new(TOPIC, 4)]).await?.all()?;
        let untold = rig.faults.on(ApiKey::DescribeGroups).then(Fault::Refuse(ErrorCode::NOT_COORDINATOR));
        let member = fixed()?;
        member.until("it has the new one", |member| member.consumer.assignment().len() == 4).await;
        assert_eq!(untold.hits(), 1, "the second time it assigns, and asks nobody");
        member.close("told nothing").await?;
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// The consumer may create topics, and the brokers would.
#[test]
fn a_topic_that_is_deleted_is_not_created_again_by_who_reads_it_by_pattern() {
    sim::run(1, |sim| async move {
        let cluster = sim.cluster().brokers(1).config("group.initial.rebalance.delay.ms", "0");
        let cluster = cluster.config("offsets.topic.num.partitions", "1").start().await?;
        let client = Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle());
        let client = client.metadata_max_age_ms(S).build()?;
        let admin = client.admin();
        admin
            .create_topics([
                NewTopic::new("t1").partitions(1).replicas(1),
                NewTopic::new("t2").partitions(1).replicas(1),
            ])
            .await?
            .all()?;
        let consumer: Consumer = Consumer::builder().client(&client).group_id("g").build()?;
        consumer.subscribe_pattern("t[0-9]")?;
        let until = async |count| {
            let assigned = tokio::time::timeout(60 * S, async {
                while consumer.assignment().len() != count {
                    let _ = consumer.poll(1, S / 10).await;
                }
            });
            assert!(assigned.await.is_ok(), "{:?} instead of {count}", consumer.assignment());
        };
        until(2).await;
        admin.delete_topics(["t1"]).await?.all()?;
        until(1).await;
        let _ = consumer.poll(1, 20 * S).await;
        let names: Vec<_> = admin.list_topics().await?.into_iter().map(|topic| topic.name).collect();
        assert!(!names.iter().any(|name| name == "t1"), "{names:?}");
        consumer.close().await?;
        Outcome::Ok(())
    })
    .expect("it runs");
}
