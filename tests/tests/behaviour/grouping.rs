//! What members of a consumer group promise.

use std::io::Error;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use klamm::{
    AssignmentStrategy, Consumer, ConsumerError, ErrorCode, GroupError, NewPartitions, OffsetReset,
    TopicPartition,
};
use klamm_tests::backend::{BROKERS, Backend};
use klamm_tests::suite::Outcome;

use crate::members::{Member, Notes, builder, until, write};
use crate::tools::{SOON, next};

async fn share_and_take_over(backend: &Backend, strategy: AssignmentStrategy) -> Outcome {
    let topic = backend.topic("shared", 4).await?;
    let group = backend.fresh_topic("group");
    write(backend, &topic, 4, 50).await?;
    let member = || -> Result<Member, Error> {
        let builder = builder(backend, &group)?.partition_assignment_strategy([strategy.clone()]);
        Member::start(builder.enable_auto_commit(false), &topic)
    };
    let first = member()?;
    until("one member reads everything", || first.seen().len() == 200).await?;
    first.consumer.commit().await?;

    let second = member()?;
    until("two members share", || {
        let (one, two) = (first.partitions(), second.partitions());
        one.len() == 2 && two.len() == 2 && one.is_disjoint(&two)
    })
    .await?;
    write(backend, &topic, 4, 50).await?;
    until("both together read everything", || first.seen().len() + second.seen().len() == 400).await?;
    assert!(second.seen().keys().all(|(_, offset)| *offset >= 50), "what was committed is not read again");
    let shared: Vec<_> = second.seen().into_keys().filter(|place| first.seen().contains_key(place)).collect();
    assert!(shared.is_empty(), "read twice: {shared:?}");
    first.consumer.commit().await?;
    second.consumer.commit().await?;

    second.consumer.close().await?;
    until("the one that stays takes over", || first.partitions().len() == 4).await?;
    write(backend, &topic, 4, 50).await?;
    let read = second.seen().len();
    until("it reads everything", || first.seen().len() + read == 600).await?;
    assert!(first.seen().values().chain(second.seen().values()).all(|times| *times == 1), "each record once");
    first.consumer.commit().await?;
    let all: Vec<_> = (0..4).map(|index| TopicPartition::new(topic.as_str(), index)).collect();
    let committed = first.consumer.committed(&all).await?;
    assert!(committed.into_values().all(|at| at.is_some_and(|at| at.offset == 150)));
    first.consumer.close().await?;
    Ok(())
}

pub(crate) async fn two_members_share_and_one_takes_over_when_the_other_leaves(backend: &Backend) -> Outcome {
    share_and_take_over(backend, AssignmentStrategy::Range).await
}

pub(crate) async fn cooperative_members_share_and_one_takes_over_when_the_other_leaves(
    backend: &Backend,
) -> Outcome {
    share_and_take_over(backend, AssignmentStrategy::CooperativeSticky).await
}

pub(crate) async fn a_group_outlives_its_coordinator(backend: &Backend) -> Outcome {
    let topic = backend.topic("outlived", 2).await?;
    let group = backend.fresh_topic("group");
    write(backend, &topic, 2, 50).await?;
    let client = backend.impatient_client()?;
    let member = || {
        let builder = Consumer::builder().client(&client).group_id(&group);
        let builder = builder.auto_offset_reset(OffsetReset::Earliest).enable_auto_commit(false);
        let builder = builder.partition_assignment_strategy([AssignmentStrategy::CooperativeSticky]);
        Member::start(builder.heartbeat_interval_ms(Duration::from_millis(300)), &topic)
    };
    let (one, two) = (member()?, member()?);
    let seen = || {
        let mut all = one.seen();
        all.extend(two.seen());
        all.len()
    };
    let share = || one.partitions().len() == 1 && two.partitions().len() == 1;
    until("both share everything", || share() && seen() == 100).await?;
    one.consumer.commit().await?;
    two.consumer.commit().await?;

    let offsets = "__consumer_offsets";
    let partitions = backend.until_described(offsets, |told| Some(told.ok()?.partitions.len())).await?;
    let hash =
        group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let place = (hash & i32::MAX) as usize % partitions;
    backend.until_in_sync(offsets, place, BROKERS).await?;
    for partition in 0..2 {
        backend.until_in_sync(&topic, partition, BROKERS).await?;
    }
    let coordinator = backend.leader_of(offsets, place).await?;
    backend.kill(coordinator).await?;
    backend.until_leader(offsets, place, |leader| leader != coordinator).await?;
    write(backend, &topic, 2, 50).await?;
    until("everything is read, nothing is left without an owner", || share() && seen() == 200).await?;
    one.consumer.commit().await?;
    two.consumer.commit().await?;
    let again =
        one.seen().into_iter().chain(two.seen()).filter(|((_, offset), times)| *offset < 50 && *times > 1);
    assert_eq!(again.count(), 0, "what was committed is not read again");
    two.consumer.close().await?;
    until("the other takes over", || one.partitions().len() == 2).await?;
    one.consumer.close().await?;
    Ok(())
}

pub(crate) async fn others_take_over_from_a_member_that_vanished(backend: &Backend) -> Outcome {
    let topic = backend.topic("vanished", 2).await?;
    let group = backend.fresh_topic("group");
    write(backend, &topic, 2, 20).await?;
    let member = || -> Result<Member, Error> {
        let session = Duration::from_secs(6);
        Member::start(builder(backend, &group)?.session_timeout_ms(session).enable_auto_commit(false), &topic)
    };
    let (one, two) = (member()?, member()?);
    until("both share", || one.partitions().len() == 1 && two.partitions().len() == 1).await?;
    until("both read", || one.seen().len() + two.seen().len() >= 40).await?;
    one.consumer.commit().await?;
    two.consumer.vanish();
    until("the session is over, and the other takes over", || one.partitions().len() == 2).await?;
    until("it reads what was not committed", || one.seen().len() == 40).await?;
    one.consumer.close().await?;
    Ok(())
}

pub(crate) async fn a_listener_hears_of_every_change_and_commits_while_it_can(backend: &Backend) -> Outcome {
    let topic = backend.topic("heard", 3).await?;
    let group = backend.fresh_topic("group");
    write(backend, &topic, 3, 5).await?;
    let notes = Notes::default();
    let consumer: Consumer = builder(backend, &group)?
        .enable_auto_commit(false)
        .max_poll_interval_ms(Duration::from_secs(4))
        .heartbeat_interval_ms(Duration::from_millis(500))
        .build()?;
    consumer.subscribe_with([topic.as_str()], notes.clone());
    next(&consumer, 15).await?;
    assert_eq!(notes.taken(), ["assigned 3: SubscriptionChanged"]);

    // Nobody polls.
    until("the member is stalled", || notes.len() == 1).await?;
    assert_eq!(notes.taken(), ["lost 3: PollStalled, committed: false"]);
    next(&consumer, 15).await?;
    assert_eq!(
        notes.taken(),
        ["assigned 3: PollStalled"],
        "it is back, and reads again what was not committed"
    );

    // Who asks for more is done with what it has.
    assert!(consumer.poll(1, Duration::from_millis(50)).await?.is_empty());
    consumer.unsubscribe().await;
    assert_eq!(notes.taken(), ["revoked 3: Unsubscribed, committed: true"]);
    assert!(consumer.assignment().is_empty());
    consumer.subscribe_with([topic.as_str()], notes.clone());
    write(backend, &topic, 3, 1).await?;
    let more = next(&consumer, 3).await?;
    assert!(more.iter().all(|record| record.offset == 5), "what was committed is not read again");
    consumer.close().await?;
    assert_eq!(notes.taken(), ["assigned 3: SubscriptionChanged", "revoked 3: Closed, committed: true"]);
    Ok(())
}

pub(crate) async fn a_reader_that_waits_polls_and_one_that_keeps_a_record_too_long_stalls_its_member(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("stalled", 2).await?;
    let group = backend.fresh_topic("group");
    let notes = Notes::default();
    let limit = Duration::from_secs(2);
    let consumer: Consumer = builder(backend, &group)?
        .max_poll_interval_ms(limit)
        .heartbeat_interval_ms(Duration::from_millis(300))
        .build()?;
    consumer.subscribe_with([topic.as_str()], notes.clone());
    let mut streams = {
        let all = std::pin::pin!(consumer.partition_streams());
        tokio::time::timeout(SOON, all.take(2).try_collect::<Vec<_>>()).await??
    };
    // The listener has a task of its own: only records wait for it, not their streams.
    until("it is assigned", || notes.len() == 1).await?;
    assert_eq!(notes.taken(), ["assigned 2: SubscriptionChanged"]);
    let (mut busy, mut stuck) = (streams.remove(1), streams.remove(0));
    let held = stuck.topic_partition().clone();
    let busy = tokio::spawn(async move { while busy.next().await.is_some() {} });
    let stuck = tokio::spawn(async move {
        let first = stuck.next().await;
        // Keeps it, and the stream, for good.
        std::future::pending::<()>().await;
        drop((first, stuck));
    });
    // Nobody else asks: these two have to count, and nothing else tells.
    tokio::time::sleep(3 * limit).await;
    assert_eq!(notes.taken(), Vec::<String>::new(), "both wait for records");

    write(backend, &topic, 2, 1).await?;
    until("who keeps a record too long is noticed, though the other one waits", || notes.len() > 0).await?;
    assert_eq!(notes.taken()[0], "lost 2: PollStalled, committed: false");
    tokio::time::timeout(SOON, busy).await??;
    let again = tokio::time::timeout(SOON, async {
        loop {
            let record = consumer.recv().await?;
            if record.topic_partition() == held {
                return Ok::<_, ConsumerError>(record.offset);
            }
        }
    });
    assert_eq!(again.await??, 0, "it is read again");
    stuck.abort();
    consumer.close().await?;
    Ok(())
}

pub(crate) async fn new_partitions_are_shared_out(backend: &Backend) -> Outcome {
    let topic = backend.topic("grown", 1).await?;
    let group = backend.fresh_topic("group");
    let client = backend.client_builder().metadata_max_age_ms(Duration::from_millis(500)).build()?;
    let builder = Consumer::builder().client(&client).group_id(&group).allow_auto_create_topics(false);
    let consumer: Consumer = builder.auto_offset_reset(OffsetReset::Earliest).build()?;
    consumer.subscribe([topic.as_str()]);
    let poll = || async {
        let _ = consumer.poll(1, Duration::from_millis(50)).await;
        consumer.assignment().len()
    };
    while poll().await != 1 {}
    client.admin().create_partitions([NewPartitions::new(&topic, 3)]).await?.all()?;
    while poll().await != 3 {}
    consumer.close().await?;
    Ok(())
}

pub(crate) async fn whoever_cannot_be_a_member_is_told_why(backend: &Backend) -> Outcome {
    let topic = backend.topic("refused", 2).await?;
    let group = backend.fresh_topic("group");
    write(backend, &topic, 2, 5).await?;
    let fixed = || -> Result<Consumer, Error> {
        let builder = builder(backend, &group)?
            .partition_assignment_strategy([AssignmentStrategy::Range])
            .group_instance_id("one")
            .heartbeat_interval_ms(Duration::from_millis(200));
        let consumer: Consumer = builder.build().map_err(Error::other)?;
        consumer.subscribe([topic.as_str()]);
        Ok(consumer)
    };
    let first = fixed()?;
    next(&first, 10).await?;
    let other: Consumer =
        builder(backend, &group)?.partition_assignment_strategy([AssignmentStrategy::Sticky]).build()?;
    other.subscribe([topic.as_str()]);
    let told = other.recv().await;
    let expected = GroupError::Refused(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    assert!(matches!(&told, Err(ConsumerError::Group { why, .. }) if *why == expected), "{told:?}");

    let second = fixed()?;
    let told = tokio::time::timeout(3 * SOON, first.recv()).await?;
    let expected = GroupError::Refused(ErrorCode::FENCED_INSTANCE_ID);
    assert!(matches!(&told, Err(ConsumerError::Group { why, .. }) if *why == expected), "{told:?}");
    assert!(first.assignment().is_empty());
    while second.assignment().len() < 2 {
        let _ = second.poll(1, Duration::from_millis(50)).await?;
    }
    second.close().await?;
    Ok(())
}

pub(crate) async fn a_member_that_is_dropped_leaves_and_commits_what_is_done(backend: &Backend) -> Outcome {
    let topic = backend.topic("dropped", 2).await?;
    let group = backend.fresh_topic("group");
    write(backend, &topic, 2, 20).await?;
    let other = Member::start(builder(backend, &group)?, &topic)?;
    until("it has everything", || other.seen().len() == 40).await?;
    let consumer: Consumer = builder(backend, &group)?.build()?;
    consumer.subscribe([topic.as_str()]);
    while consumer.assignment().len() != 1 {
        let _ = consumer.poll(1, Duration::from_millis(20)).await?;
    }
    let partition = consumer.assignment().remove(0);
    write(backend, &topic, 2, 5).await?;
    let done = next(&consumer, 4).await?;
    let open = consumer.recv().await?.offset;
    // The session lasts 45 s: nobody waits for that.
    drop(consumer);
    until("the other takes over", || other.partitions().len() == 2).await?;
    until("it reads what was not done", || other.seen().contains_key(&(partition.partition, open))).await?;
    let again = other.seen().contains_key(&(partition.partition, done[3].offset));
    assert!(!again, "what was done is committed");
    other.consumer.close().await?;
    Ok(())
}

pub(crate) async fn a_member_that_subscribes_to_other_topics_gives_up_the_former(
    backend: &Backend,
) -> Outcome {
    let [first, second] = [backend.topic("former", 2).await?, backend.topic("latter", 3).await?];
    let group = backend.fresh_topic("group");
    write(backend, &second, 3, 2).await?;
    let consumer: Consumer = builder(backend, &group)?.build()?;
    let notes = Notes::default();
    consumer.subscribe_with([first.as_str()], notes.clone());
    while consumer.assignment().len() != 2 {
        let _ = consumer.poll(1, Duration::from_millis(20)).await?;
    }
    consumer.subscribe_with([second.as_str()], notes.clone());
    let records = next(&consumer, 6).await?;
    assert!(records.iter().all(|record| *record.topic == *second));
    let told = notes.taken();
    assert_eq!(
        told,
        [
            "assigned 2: SubscriptionChanged",
            "revoked 2: SubscriptionChanged, committed: true",
            "assigned 3: SubscriptionChanged"
        ]
    );
    consumer.close().await?;
    Ok(())
}
