//! What makes a group rebalance, and what must not.

use std::io::Error;
use std::sync::Arc;
use std::time::Duration;

use klamm::fault::Fault;
use klamm::{
    AssignmentStrategy, Consumer, ConsumerBuilder, Election, OffsetReset, Reassignment, TopicPartition,
};
use klamm_tests::backend::{BROKERS, Backend};
use klamm_tests::suite::Outcome;

use crate::changing::{create_again, delete};
use crate::members::{Member, Notes, builder, until, write};
use crate::tools::next;

/// The partition of `__consumer_offsets` that a group belongs to.
async fn place(backend: &Backend, group: &str) -> Result<usize, Error> {
    let partitions =
        backend.until_described("__consumer_offsets", |told| Some(told.ok()?.partitions.len())).await?;
    let hash =
        group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    Ok((hash & i32::MAX) as usize % partitions)
}

async fn cut_and_heal(backend: &Backend, how: Fault) -> Outcome {
    let topic = backend.topic("torn", 2).await?;
    let group = backend.fresh_topic("group");
    write(backend, &topic, 2, 10).await?;
    let settings = |builder: ConsumerBuilder| {
        let builder = builder.session_timeout_ms(Duration::from_secs(6)).enable_auto_commit(false);
        builder.heartbeat_interval_ms(Duration::from_millis(500))
    };
    let stays = Member::start(settings(builder(backend, &group)?), &topic)?;
    let (client, faults) = backend.faulty_client_builder();
    let client = client.request_timeout_ms(backend.patience()).build()?;
    let torn = Consumer::builder().client(&client).group_id(&group).auto_offset_reset(OffsetReset::Earliest);
    let torn: Arc<Consumer> = Arc::new(settings(torn).build()?);
    let notes = Notes::default();
    torn.subscribe_with([topic.as_str()], notes.clone());
    let reader = torn.clone();
    // It has to wait for records all the time, or it stalls.
    let reading = tokio::spawn(async move { while reader.recv().await.is_ok() {} });
    let share = || stays.partitions().len() == 1 && torn.assignment().len() == 1;
    until("both share", share).await?;
    until("both have read", || torn.lag(&torn.assignment()[0]).is_ok_and(|lag| lag == Some(0))).await?;
    stays.consumer.commit().await?;
    torn.commit().await?;
    drop(notes.taken());

    let cut = faults.on_any().then(how);
    until("the session is over, and the other takes over", || stays.partitions().len() == 2).await?;
    until("who was cut off hears of it", || notes.len() > 0).await?;
    assert_eq!(notes.taken(), ["lost 1: SessionTimedOut, committed: false"]);
    assert!(torn.assignment().is_empty(), "nothing is owned that others read");
    write(backend, &topic, 2, 5).await?;
    until("the other reads on", || stays.seen().keys().filter(|(_, offset)| *offset >= 10).count() == 10)
        .await?;
    stays.consumer.commit().await?;
    drop(cut);
    until("it is a member again", share).await?;
    assert_eq!(notes.taken().last().map(String::as_str), Some("assigned 1: SessionTimedOut"));
    write(backend, &topic, 2, 5).await?;
    until("both read on, what was committed is not read again", || {
        torn.lag(&torn.assignment()[0]).is_ok_and(|lag| lag == Some(0))
            && stays.seen().keys().filter(|(_, offset)| *offset >= 15).count() == 5
    })
    .await?;
    reading.abort();
    torn.close().await?;
    stays.consumer.close().await?;
    Ok(())
}

pub(crate) async fn a_member_whose_network_is_silent_loses_its_partitions_and_is_back_when_it_heals(
    backend: &Backend,
) -> Outcome {
    cut_and_heal(backend, Fault::DropRequest).await
}

pub(crate) async fn a_member_whose_connections_break_loses_its_partitions_and_is_back_when_it_heals(
    backend: &Backend,
) -> Outcome {
    cut_and_heal(backend, Fault::CutBefore).await
}

pub(crate) async fn a_coordinator_that_moves_while_it_is_alive_changes_nothing(backend: &Backend) -> Outcome {
    let topic = backend.topic("carried", 2).await?;
    let group = backend.fresh_topic("group");
    write(backend, &topic, 2, 10).await?;
    let builder = builder(backend, &group)?.enable_auto_commit(false);
    let consumer: Consumer = builder.heartbeat_interval_ms(Duration::from_millis(300)).build()?;
    let notes = Notes::default();
    consumer.subscribe_with([topic.as_str()], notes.clone());
    next(&consumer, 20).await?;
    consumer.commit().await?;
    assert_eq!(notes.taken(), ["assigned 2: SubscriptionChanged"]);
    let members = async || {
        let described = backend.client()?.admin().describe_groups([group.as_str()]).await?.all()?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(described[0].members.clone())
    };
    let before = members().await?;

    let offsets = "__consumer_offsets";
    let index = place(backend, &group).await?;
    backend.until_in_sync(offsets, index, BROKERS).await?;
    let coordinator = backend.leader_of(offsets, index).await?;
    // Another one is preferred, and then elected.
    let replicas = backend
        .until_described(offsets, |told| Some(told.ok()?.partitions.get(index)?.replicas.clone()))
        .await?;
    let mut turned = replicas.clone();
    let at = turned.iter().position(|broker| *broker == coordinator).ok_or("a leader is a replica")?;
    turned.rotate_left((at + 1) % BROKERS);
    let partition = (offsets, i32::try_from(index)?);
    let admin = backend.client()?.admin();
    admin.reassign_partitions([Reassignment::to(partition, turned.clone())]).await?.all()?;
    let preferred = |told: &klamm::PartitionDescription| {
        (told.replicas == turned && told.isr.len() == BROKERS).then_some(())
    };
    backend.until_described(offsets, |told| preferred(told.ok()?.partitions.get(index)?)).await?;
    admin.elect_leaders(Election::Preferred, [partition]).await?.all()?;
    backend.until_leader(offsets, index, |leader| leader != coordinator).await?;

    write(backend, &topic, 2, 10).await?;
    assert!(next(&consumer, 20).await?.iter().all(|record| record.offset >= 10));
    consumer.commit().await?;
    // Several heartbeats later.
    assert!(consumer.poll(1, Duration::from_millis(1500)).await?.is_empty());
    assert_eq!(notes.taken(), [""; 0], "no rebalance: the same generation");
    assert_eq!(members().await?, before, "and the same member");
    let all: Vec<_> = (0..2).map(|index| TopicPartition::new(topic.as_str(), index)).collect();
    let committed = consumer.committed(&all).await?;
    assert!(committed.into_values().all(|at| at.is_some_and(|at| at.offset == 20)));
    consumer.close().await?;
    Ok(())
}

async fn deleted(backend: &Backend, strategy: AssignmentStrategy) -> Outcome {
    let (kept, gone) = (backend.topic("staying", 2).await?, backend.topic("going", 2).await?);
    let group = backend.fresh_topic("group");
    write(backend, &gone, 2, 5).await?;
    let age = Duration::from_millis(300);
    let client = backend.client_builder().metadata_max_age_ms(age).build()?;
    let member = |notes: &Notes| -> Result<Arc<Consumer>, Error> {
        let builder = Consumer::builder().client(&client).group_id(&group);
        let builder = builder.auto_offset_reset(OffsetReset::Earliest).allow_auto_create_topics(false);
        let builder = builder.heartbeat_interval_ms(Duration::from_millis(300));
        let builder = builder.partition_assignment_strategy([strategy.clone()]);
        let consumer: Arc<Consumer> = Arc::new(builder.build().map_err(Error::other)?);
        consumer.subscribe_with([kept.as_str(), gone.as_str()], notes.clone());
        Ok(consumer)
    };
    let notes = [Notes::default(), Notes::default()];
    let members = [member(&notes[0])?, member(&notes[1])?];
    let readers: Vec<_> = members
        .iter()
        .map(|member| {
            let member = member.clone();
            tokio::spawn(async move {
                loop {
                    // That its topic is gone is told to who reads it, until it is not any more.
                    if let Err(klamm::ConsumerError::Closed) = member.recv().await {
                        return;
                    }
                }
            })
        })
        .collect();
    let owned = |topic: &str| {
        let of =
            |member: &Arc<Consumer>| member.assignment().iter().filter(|name| *name.topic == *topic).count();
        members.iter().map(of).sum::<usize>()
    };
    let all = || members.iter().all(|member| member.assignment().len() == 2);
    until("both share both topics", all).await?;
    notes.iter().for_each(|notes| drop(notes.taken()));

    delete(backend, &gone).await?;
    until("the group goes on without it", || owned(&gone) == 0 && owned(&kept) == 2).await?;
    until("a listener hears why", || {
        notes.iter().flat_map(Notes::taken).any(|told| told.contains("TopicsChanged"))
    })
    .await?;
    write(backend, &kept, 2, 5).await?;
    let read = || {
        let names: Vec<_> = members.iter().flat_map(|member| Some((member, member.assignment()))).collect();
        let lag = |(member, names): &(&Arc<Consumer>, Vec<TopicPartition>)| {
            let lags = names.iter().map(|name| member.lag(name).ok().flatten());
            lags.map(|lag| lag.unwrap_or(1)).sum::<i64>()
        };
        names.iter().map(lag).sum::<i64>() == 0
    };
    until("what is left is read on", read).await?;
    // Nobody spins, nobody joins again. A listener may be late: it commits until its member knows that the topic is gone.
    let mut heard = tokio::time::Instant::now();
    until("the group is at rest", || {
        if notes.iter().any(|notes| !notes.taken().is_empty()) {
            heard = tokio::time::Instant::now();
        }
        heard.elapsed() >= Duration::from_secs(2)
    })
    .await?;

    create_again(backend, &gone, 2).await?;
    until("it is joined in again", || owned(&gone) == 2 && owned(&kept) == 2).await?;
    for member in &members {
        member.close().await?;
    }
    for reader in readers {
        reader.await?;
    }
    Ok(())
}

pub(crate) async fn a_deleted_topic_is_given_up_and_joined_in_again_when_it_is_back(
    backend: &Backend,
) -> Outcome {
    deleted(backend, AssignmentStrategy::Range).await
}

pub(crate) async fn cooperatively_a_deleted_topic_is_given_up_and_joined_in_again(
    backend: &Backend,
) -> Outcome {
    deleted(backend, AssignmentStrategy::CooperativeSticky).await
}
