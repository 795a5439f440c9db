//! Brokers that are shut down in order, and a controller that dies and comes back.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::Duration;

use broker_lite::{Cluster, ClusterError, Event, Profile};
use klamm_wire::messages::delete_topics_request::DeleteTopicState;
use klamm_wire::messages::{DeleteTopicsRequest, InitProducerIdRequest, TopicName};
use support::{Talk, batch, stamped};

const MS: Duration = Duration::from_millis(1);

async fn cluster(topic: &[(&str, &str)]) -> (Cluster, i32) {
    let cluster = Cluster::builder().seed(7).start().await.unwrap();
    cluster.create_topic("t", 1, 3, topic).await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    (cluster, leader)
}

/// As [`cluster`], with a single controller, so that there is none when that is away.
async fn cluster_with_one_controller() -> (Cluster, i32) {
    let cluster = Cluster::builder().controllers(1).seed(7).start().await.unwrap();
    cluster.create_topic("t", 1, 3, &[]).await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    (cluster, leader)
}

fn others(cluster: &Cluster, broker: i32) -> Vec<i32> {
    cluster.broker_ids().into_iter().filter(|id| *id != broker).collect()
}

async fn produce_to_leader(cluster: &Cluster, value: &str) {
    loop {
        if let Some(leader) = cluster.leader_of("t", 0)
            && let Ok(mut talk) = Talk::dial(cluster, leader).await
            && talk.produce("t", 0, batch(&[value])).await.error_code == 0
        {
            return;
        }
        tokio::time::sleep(5 * MS).await;
    }
}

/// An id for an idempotent producer, from this broker's block.
async fn producer_id(cluster: &Cluster, broker: i32) -> i64 {
    let mut talk = Talk::to(cluster, broker).await;
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let granted = talk.ask(4, &request).await;
    assert_eq!(granted.error_code, 0);
    granted.producer_id.0
}

/// Whether something does not happen within a time.
async fn nothing_for(time: Duration, event: impl Future<Output = ()>) -> bool {
    tokio::time::timeout(time, event).await.is_err()
}

fn committed(cluster: &Cluster, broker: i32) -> Vec<bool> {
    cluster.log(broker, "t", 0).unwrap().into_iter().map(|record| record.committed).collect()
}

// ---- controlled shutdown -------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_shut_down_hands_over_first_and_leaves_its_log_in_order() {
    let (cluster, leader) = cluster(&[("min.insync.replicas", "2")]).await;
    for value in ["a", "b"] {
        produce_to_leader(&cluster, value).await;
    }
    let before = tokio::time::Instant::now();
    let mut moved_after = None;
    {
        let shutdown = cluster.shutdown_broker(leader);
        let moved = cluster.until_leader("t", 0, |now| now.is_some_and(|now| now != leader));
        tokio::pin!(shutdown, moved);
        tokio::select! {
            biased;
            () = &mut moved => moved_after = Some(before.elapsed()),
            _ = &mut shutdown => {}
        }
        assert!(Talk::dial(&cluster, leader).await.is_ok(), "it runs until the others lead");
        shutdown.await.unwrap();
    }
    assert!(
        moved_after.unwrap() < 100 * MS && before.elapsed() < 300 * MS,
        "nobody waited for a session to end"
    );
    assert!(Talk::dial(&cluster, leader).await.is_err());
    assert_eq!(committed(&cluster, leader), [true, true], "the high watermark is remembered");
    assert!(matches!(cluster.shutdown_broker(leader).await, Err(ClusterError::Broker { state: "down", .. })));
    assert!(matches!(cluster.shutdown_broker(9).await, Err(ClusterError::NoSuchBroker(9))));
    produce_to_leader(&cluster, "c").await;
    // Its log was made durable: what it has left outlives a loss of power.
    cluster.power_off_all();
    assert_eq!(cluster.log(leader, "t", 0).unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_was_shut_down_starts_again_at_once() {
    let (cluster, leader) = cluster(&[]).await;
    produce_to_leader(&cluster, "a").await;
    cluster.shutdown_broker(leader).await.unwrap();
    let before = tokio::time::Instant::now();
    cluster.restart(leader).await.unwrap();
    assert!(before.elapsed() < 300 * MS, "{:?}", before.elapsed());
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    produce_to_leader(&cluster, "b").await;
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

/// Goal: a kill leaves the high watermark of its last checkpoint, which the shutdown above is compared with.
#[tokio::test(start_paused = true)]
async fn a_killed_broker_remembers_an_older_high_watermark() {
    let (cluster, leader) = cluster(&[]).await;
    produce_to_leader(&cluster, "a").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(committed(&cluster, leader), [true]);
    cluster.kill(leader).unwrap();
    assert_eq!(committed(&cluster, leader), [false]);
}

/// Goal: who has closed its logs in order may lead again without the one that led last (KIP-966); a killed one may not.
#[tokio::test(start_paused = true)]
async fn only_a_broker_that_was_shut_down_stays_eligible() {
    for clean in [true, false] {
        let (cluster, leader) = cluster(&[("min.insync.replicas", "2")]).await;
        produce_to_leader(&cluster, "a").await;
        let [first, second] = others(&cluster, leader)[..] else { panic!() };
        let end = async |broker: i32| {
            if clean {
                cluster.shutdown_broker(broker).await.unwrap();
            } else {
                cluster.kill(broker).unwrap();
                cluster.until_isr("t", 0, |isr| !isr.contains(&broker)).await;
            }
        };
        end(first).await;
        end(second).await;
        end(leader).await;
        cluster.until_leader("t", 0, |now| now.is_none()).await;
        cluster.restart(second).await.unwrap();
        let leads = !nothing_for(5_000 * MS, cluster.until_leader("t", 0, |now| now == Some(second))).await;
        assert_eq!(leads, clean, "clean: {clean}");
        cluster.restart(leader).await.unwrap();
        cluster.restart(first).await.unwrap();
        cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
        produce_to_leader(&cluster, "b").await;
        assert!(cluster.check().is_ok(), "{}", cluster.check());
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_replica_takes_its_partition_with_it_and_brings_it_back() {
    let cluster = Cluster::builder().seed(7).brokers(2).start().await.unwrap();
    cluster.create_topic("t", 1, 1, &[]).await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    produce_to_leader(&cluster, "a").await;
    cluster.shutdown_broker(leader).await.unwrap();
    assert_eq!(cluster.leader_of("t", 0), None);
    cluster.restart(leader).await.unwrap();
    cluster.until_leader("t", 0, |now| now == Some(leader)).await;
    produce_to_leader(&cluster, "b").await;
    assert_eq!(cluster.log(leader, "t", 0).unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_controller_a_shutdown_waits_its_time_and_stops_all_the_same() {
    let (cluster, leader) = cluster_with_one_controller().await;
    cluster.kill(Cluster::CONTROLLER).unwrap();
    let before = tokio::time::Instant::now();
    cluster.shutdown_broker(leader).await.unwrap();
    assert_eq!(before.elapsed(), Duration::from_secs(10));
    cluster.restart(Cluster::CONTROLLER).await.unwrap();
    cluster.restart(leader).await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    produce_to_leader(&cluster, "a").await;
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_a_slow_disk() {
    let (cluster, leader) = cluster(&[]).await;
    let _slow = cluster.disk(leader).unwrap().slow(3_000 * MS);
    let before = tokio::time::Instant::now();
    cluster.shutdown_broker(leader).await.unwrap();
    assert!((3_000 * MS..3_300 * MS).contains(&before.elapsed()), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_on_a_failing_disk_stops_without_what_was_not_synced() {
    let (cluster, leader) = cluster(&[]).await;
    produce_to_leader(&cluster, "a").await;
    let failing = cluster.disk(leader).unwrap().fail_sync();
    cluster.shutdown_broker(leader).await.unwrap();
    assert_eq!(cluster.log(leader, "t", 0).unwrap(), []);
    drop(failing);
    cluster.restart(leader).await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

// ---- controller ----------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn without_a_controller_brokers_serve_and_nobody_is_elected() {
    let (cluster, leader) = cluster_with_one_controller().await;
    cluster.kill(Cluster::CONTROLLER).unwrap();
    let again = cluster.kill(Cluster::CONTROLLER);
    assert!(matches!(again, Err(ClusterError::Broker { broker: Cluster::CONTROLLER, state: "down" })));
    produce_to_leader(&cluster, "a").await;
    assert!(matches!(cluster.create_topic("u", 1, 3, &[]).await, Err(ClusterError::Topic { .. })));
    cluster.kill(leader).unwrap();
    assert!(nothing_for(5_000 * MS, cluster.until_leader("t", 0, |now| now != Some(leader))).await);
    cluster.restart(Cluster::CONTROLLER).await.unwrap();
    let again = cluster.restart(Cluster::CONTROLLER).await;
    assert!(matches!(again, Err(ClusterError::Broker { state: "running", .. })));
    cluster.until_leader("t", 0, |now| now.is_some_and(|now| now != leader)).await;
    produce_to_leader(&cluster, "b").await;
    cluster.restart(leader).await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

/// Goal: chance goes on too, or a topic that is created again would be taken for the old one.
#[tokio::test(start_paused = true)]
async fn a_controller_does_not_draw_the_ids_of_its_predecessor() {
    let (cluster, _) = cluster(&[]).await;
    let topic = DeleteTopicState::default().with_name(Some(TopicName("t".into())));
    let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
    let deleted = Talk::to(&cluster, 1).await.ask(6, &request).await;
    assert_eq!(deleted.responses[0].error_code, 0);
    cluster.kill(Cluster::CONTROLLER).unwrap();
    cluster.restart(Cluster::CONTROLLER).await.unwrap();
    cluster.create_topic("t", 1, 3, &[]).await.unwrap();
    let events = cluster.leader_changes();
    assert_ne!(events.first().unwrap().topic_id, events.last().unwrap().topic_id);
}

/// Goal: what it had decided it still knows.
#[tokio::test(start_paused = true)]
async fn a_controller_that_lost_power_goes_on_where_it_was() {
    let (cluster, _) = cluster(&[]).await;
    cluster.power_off(Cluster::CONTROLLER).unwrap();
    cluster.restart(Cluster::CONTROLLER).await.unwrap();
    assert_eq!(cluster.isr_of("t", 0).len(), 3);
    assert!(
        matches!(cluster.create_topic("t", 1, 3, &[]).await, Err(ClusterError::Topic { .. })),
        "it exists"
    );
    cluster.create_topic("u", 4, 3, &[]).await.unwrap();
    let mut ids: Vec<_> = cluster.leader_changes().into_iter().map(|event| event.topic_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 2, "two topics, two ids");
    produce_to_leader(&cluster, "a").await;
    // Ids of idempotent producers come in blocks that the controller hands out.
    let first = producer_id(&cluster, 1).await;
    cluster.kill(Cluster::CONTROLLER).unwrap();
    cluster.restart(Cluster::CONTROLLER).await.unwrap();
    cluster.until_controller().await;
    let second = producer_id(&cluster, 2).await;
    assert_ne!(first, second);
}

/// Goal: a controller that was away for longer than a session does not take everybody for dead.
#[tokio::test(start_paused = true)]
async fn brokers_have_a_whole_session_to_report_to_a_new_controller() {
    let (cluster, _) = cluster(&[]).await;
    let elections = cluster.elections();
    cluster.kill(Cluster::CONTROLLER).unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.restart(Cluster::CONTROLLER).await.unwrap();
    assert!(nothing_for(5_000 * MS, cluster.until_isr("t", 0, |isr| isr.len() < 3)).await);
    assert_eq!(cluster.elections(), elections);
}

#[tokio::test(start_paused = true)]
async fn until_controller_waits_for_the_controller_and_for_every_running_broker() {
    let (cluster, _) = cluster_with_one_controller().await;
    cluster.until_controller().await;
    cluster.kill(Cluster::CONTROLLER).unwrap();
    assert!(nothing_for(5_000 * MS, cluster.until_controller()).await, "there is none");
    // Heartbeats come every 50 ms, and not while a controller is away.
    cluster.pause(1).unwrap();
    tokio::time::sleep(100 * MS).await;
    cluster.restart(Cluster::CONTROLLER).await.unwrap();
    cluster.resume(1).unwrap();
    cluster.pause(2).unwrap();
    cluster.until_controller().await;
    cluster.resume(2).unwrap();
    cluster.pause(Cluster::CONTROLLER).unwrap();
    assert!(nothing_for(5_000 * MS, cluster.until_controller()).await, "it is paused");
    let (resumed, ()) = tokio::join!(
        async {
            tokio::time::sleep(MS).await;
            cluster.resume(Cluster::CONTROLLER)
        },
        cluster.until_controller()
    );
    resumed.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_paused_controller_elects_when_it_goes_on() {
    let (cluster, leader) = cluster_with_one_controller().await;
    cluster.pause(Cluster::CONTROLLER).unwrap();
    cluster.kill(leader).unwrap();
    assert!(nothing_for(5_000 * MS, cluster.until_leader("t", 0, |now| now != Some(leader))).await);
    cluster.resume(Cluster::CONTROLLER).unwrap();
    cluster.until_leader("t", 0, |now| now.is_some_and(|now| now != leader)).await;
    assert!(
        nothing_for(2_000 * MS, cluster.until_isr("t", 0, |isr| isr.len() < 2)).await,
        "the others are not fenced"
    );
}

/// Goal: a controller that dies is replaced by another voter in a later epoch, which everybody learns of; the cluster goes
/// on as if nothing had happened, and the old one follows when it is back.
#[tokio::test(start_paused = true)]
async fn a_killed_controller_is_replaced_by_another_voter_in_a_later_epoch() {
    let (cluster, leader) = cluster(&[]).await;
    assert_eq!(cluster.voters(), [3001, 3002, 3003]);
    let first = cluster.controller().unwrap();
    let (before, fenced) = (cluster.event_count(), |event: &Event| matches!(event, Event::Fenced { .. }));
    cluster.kill(Cluster::CONTROLLER).unwrap();
    let elected = |event: &Event| matches!(event, Event::ControllerElected { .. });
    let Event::ControllerElected { controller, epoch, .. } = cluster.until_event_since(before, elected).await
    else {
        panic!()
    };
    assert!(controller != first && epoch > 1, "{controller} in epoch {epoch}");
    assert_eq!(cluster.controller(), Some(controller));
    cluster.create_topic("u", 3, 3, &[]).await.unwrap();
    let anybody_fenced = async { drop(cluster.until_event_since(before, fenced).await) };
    assert!(nothing_for(2_000 * MS, anybody_fenced).await, "all brokers are alive");
    cluster.kill(leader).unwrap();
    cluster.until_leader("t", 0, |now| now.is_some_and(|now| now != leader)).await;
    cluster.restart(leader).await.unwrap();
    cluster.restart(first).await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    let epochs: Vec<i32> = cluster
        .events()
        .iter()
        .filter_map(|event| match event {
            Event::ControllerElected { epoch, .. } => Some(*epoch),
            _ => None,
        })
        .collect();
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

/// Goal: without a majority nobody decides, and with one again somebody does.
#[tokio::test(start_paused = true)]
async fn a_minority_of_the_controllers_decides_nothing() {
    let (cluster, leader) = cluster(&[]).await;
    let voters = cluster.voters();
    cluster.kill(voters[0]).unwrap();
    cluster.kill(voters[1]).unwrap();
    cluster.kill(leader).unwrap();
    assert!(nothing_for(5_000 * MS, cluster.until_leader("t", 0, |now| now != Some(leader))).await);
    assert_eq!(cluster.controller(), None);
    cluster.restart(voters[0]).await.unwrap();
    cluster.until_leader("t", 0, |now| now.is_some_and(|now| now != leader)).await;
    assert!(cluster.controller().is_some_and(|id| id != voters[1]));
}

/// Goal: a paused controller is replaced, and takes no part in anything when it goes on before it has heard of that.
#[tokio::test(start_paused = true)]
async fn a_paused_controller_is_replaced_and_follows_when_it_goes_on() {
    let (cluster, leader) = cluster(&[]).await;
    let first = cluster.controller().unwrap();
    cluster.pause(first).unwrap();
    cluster.kill(leader).unwrap();
    cluster.until_leader("t", 0, |now| now.is_some_and(|now| now != leader)).await;
    cluster.resume(first).unwrap();
    tokio::time::sleep(1_000 * MS).await;
    assert!(cluster.controller().is_some_and(|id| id != first));
    cluster.create_topic("u", 1, 2, &[]).await.unwrap();
}

/// Goal: whenever the controller dies between a leader's death and the new leader's first append, there is one leader
/// an epoch, and nothing acknowledged is lost.
#[tokio::test(start_paused = true)]
async fn a_controller_may_die_at_any_moment_of_an_election() {
    for after in (0..800).step_by(50) {
        let (cluster, leader) = cluster(&[("min.insync.replicas", "2")]).await;
        produce_to_leader(&cluster, "a").await;
        cluster.kill(leader).unwrap();
        tokio::time::sleep(MS * after).await;
        cluster.kill(Cluster::CONTROLLER).unwrap();
        tokio::time::sleep(300 * MS).await;
        cluster.restart(Cluster::CONTROLLER).await.unwrap();
        cluster.until_leader("t", 0, |now| now.is_some_and(|now| now != leader)).await;
        produce_to_leader(&cluster, "b").await;
        cluster.restart(leader).await.unwrap();
        cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
        produce_to_leader(&cluster, "c").await;
        let report = cluster.check();
        assert!(report.is_ok(), "{after} ms: {report}");
        for broker in cluster.broker_ids() {
            assert_eq!(cluster.log(broker, "t", 0).unwrap().len(), 3, "{after} ms, broker {broker}");
        }
    }
}

/// Goal: an AlterPartition whose answer died with the controller is asked again.
#[tokio::test(start_paused = true)]
async fn a_follower_joins_the_isr_although_the_controller_was_away_when_it_caught_up() {
    let (cluster, leader) = cluster(&[]).await;
    let follower = others(&cluster, leader)[0];
    cluster.kill(follower).unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 2).await;
    produce_to_leader(&cluster, "a").await;
    let (restarted, ()) = tokio::join!(cluster.restart(follower), async {
        cluster.until_controller().await;
        cluster.kill(Cluster::CONTROLLER).unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.restart(Cluster::CONTROLLER).await.unwrap();
    });
    restarted.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    assert!(cluster.check().is_ok(), "{}", cluster.check());
}

// ---- reading logs --------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_replicas_log_tells_each_record_with_its_producer_and_whether_it_is_committed() {
    let (cluster, leader) = cluster(&[]).await;
    let follower = others(&cluster, leader)[0];
    let mut talk = Talk::to(&cluster, leader).await;
    assert_eq!(talk.produce("t", 0, stamped(&["a", "b"], 5, 2, 0)).await.error_code, 0);
    for broker in others(&cluster, leader) {
        cluster.pause(broker).unwrap();
    }
    let answer = talk.send(support::produce("t", 0, 1, 1_000, batch(&["c"]))).await.unwrap();
    assert_eq!(support::produced(answer.await.unwrap()).error_code, 0);
    let log = cluster.log(leader, "t", 0).unwrap();
    let seen = log.iter().map(|record| {
        let value = record.value.as_deref().unwrap_or_default();
        let producer = (record.producer_id, record.producer_epoch, record.sequence);
        (record.offset, record.leader_epoch, producer, value, record.committed)
    });
    let expected = [
        (0, 0, (5, 2, 0), &b"a"[..], true),
        (1, 0, (5, 2, 1), &b"b"[..], true),
        (2, 0, (-1, -1, -1), &b"c"[..], false),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    assert_eq!(cluster.committed_offset("t", 0), Some(2));
    assert_eq!(cluster.log(follower, "t", 0).unwrap().len(), 2);
    assert_eq!(cluster.log(leader, "u", 0), None);
    assert_eq!(cluster.log(leader, "t", 1), None);
    assert_eq!(cluster.log(9, "t", 0), None);
    assert_eq!(cluster.committed_offset("u", 0), None);
}

/// Goal: what is decided is committed as soon as a majority has it; nobody waits for a poll to end.
#[tokio::test(start_paused = true)]
async fn while_nothing_is_wrong_a_change_of_the_metadata_takes_no_time() {
    let cluster = Cluster::builder().profile(Profile::Kafka).seed(7).start().await.unwrap();
    // Whoever polls does so at rest.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for topic in ["a", "b", "c"] {
        let before = tokio::time::Instant::now();
        cluster.create_topic(topic, 3, 3, &[]).await.unwrap();
        assert!(before.elapsed() < 20 * MS, "{topic} took {:?} of virtual time", before.elapsed());
        tokio::time::sleep(700 * MS).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_with_kafkas_time_outs_starts_without_waiting_for_any_of_them() {
    let limit = Duration::from_millis(500);
    let begun = tokio::time::Instant::now();
    let cluster =
        Cluster::builder().profile(Profile::Kafka).topic("t", Some(1), Some(3)).start().await.unwrap();
    assert!(begun.elapsed() < limit, "the start took {:?}", begun.elapsed());

    let voters = cluster.voters();
    voters.iter().for_each(|id| cluster.kill(*id).unwrap());
    let begun = tokio::time::Instant::now();
    for id in &voters {
        cluster.restart(*id).await.unwrap();
    }
    cluster.until_controller().await;
    assert!(begun.elapsed() < limit, "the election among voters that start took {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_starts_leaves_a_living_leader_alone() {
    let cluster = Cluster::builder().profile(Profile::Kafka).start().await.unwrap();
    let leader = cluster.controller().unwrap();
    for id in cluster.voters().into_iter().filter(|id| *id != leader) {
        cluster.kill(id).unwrap();
        cluster.restart(id).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(cluster.controller(), Some(leader));
    }
}
