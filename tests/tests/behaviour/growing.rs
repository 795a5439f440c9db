//! Topics grow and move while they are written to, and lose nothing.

use std::ops::ControlFlow;
use std::time::Duration;

use klamm::{
    Admin, Elected, Election, ErrorCode, NewPartitions, NewTopic, PartitionDescription, Producer,
    Reassignment, Record, TopicPartition,
};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;
use tokio::time::{Instant, sleep};

use crate::tools::{SOON, number, read, write_numbers};

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn placed(backend: &Backend, stem: &str, placed: &[&[i32]]) -> Result<String, Error> {
    let name = backend.fresh_topic(stem);
    let place =
        |topic: NewTopic, (index, brokers): (i32, &&[i32])| topic.place(index, brokers.iter().copied());
    let topic = (0..).zip(placed).fold(NewTopic::new(&name).config("retention.ms", "-1"), place);
    backend.client()?.admin().create_topics([topic]).await?.all()?;
    for index in 0..placed.len() {
        backend.leader_of(&name, index).await?;
    }
    Ok(name)
}

/// Waits until a partition is described as wanted.
async fn until(
    backend: &Backend,
    topic: &str,
    partition: usize,
    wanted: impl Fn(&PartitionDescription) -> bool,
) -> Result<(), Error> {
    let told = |told: &PartitionDescription| wanted(told).then_some(());
    let found = backend.until_described(topic, |topic| told(topic.ok()?.partitions.get(partition)?)).await;
    Ok(found?)
}

async fn until_nothing_moves(admin: &Admin, topic: &str) -> Result<(), Error> {
    let begun = Instant::now();
    let partitions = || (0..9).map(|index| (topic.to_owned(), index));
    loop {
        let moving = admin.list_reassignments_of(partitions()).await?;
        if moving.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(format!("still under way: {moving:?}").into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn a_topic_gets_more_partitions_while_it_is_written_to(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let name = backend.topic("grown", 2).await?;
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    let record = |index: i32, partition| Record::new(&*name).partition(partition).value(index.to_string());
    let mut deliveries = Vec::new();
    for index in 0..50 {
        deliveries.push(producer.send(record(index, index % 2)).await?);
    }
    admin.validate().create_partitions([NewPartitions::new(&name, 5)]).await?.all()?;
    admin.create_partitions([NewPartitions::new(&name, 5)]).await?.all()?;
    for index in 50..100 {
        deliveries.push(producer.send(record(index, index % 2)).await?);
    }
    for index in 0..5 {
        backend.leader_of(&name, index).await?;
    }
    for delivery in deliveries {
        delivery.await?;
    }
    // Producers hear of the new partitions with their next metadata; a new one knows them at once.
    let later: Producer = Producer::builder().client(&backend.client()?).build()?;
    assert_eq!(later.send_and_wait(record(100, 4)).await?.partition, 4);
    for producer in [producer, later] {
        producer.close(SOON).await?;
    }
    let records = read(backend, &name, 5, 101).await?;
    let mut numbers = records.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..101).collect::<Vec<_>>());

    let placed = NewPartitions::new(&name, 6).place([3, 1, 2]);
    admin.create_partitions([placed]).await?.all()?;
    until(backend, &name, 5, |partition| partition.replicas == [3, 1, 2]).await?;
    for count in [6, 3] {
        let refused = admin.create_partitions([NewPartitions::new(&name, count)]).await?.all();
        let error = refused.err().ok_or("a topic cannot shrink, nor grow by nothing")?;
        assert_eq!((error.code, error.maybe_done), (ErrorCode::INVALID_PARTITIONS, false), "{error}");
    }
    Ok(())
}

pub(crate) async fn one_replica_becomes_three_and_the_records_are_kept(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let name = placed(backend, "copied", &[&[1]]).await?;
    write_numbers(backend, &name, 100).await?;
    admin.reassign_partitions([Reassignment::to((name.as_str(), 0), [2, 3, 1])]).await?.all()?;
    until(backend, &name, 0, |partition| partition.isr.len() == 3).await?;
    until_nothing_moves(&admin, &name).await?;
    // From three to one, on a broker that had none in the beginning.
    admin.reassign_partitions([Reassignment::to((name.as_str(), 0), [3])]).await?.all()?;
    until(backend, &name, 0, |partition| partition.replicas == [3] && partition.leader == Some(3)).await?;
    let records = read(backend, &name, 1, 100).await?;
    let numbers = records.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());

    let refused = admin
        .reassign_partitions([
            Reassignment::to((name.as_str(), 0), [1, 1]),
            Reassignment::to((name.as_str(), 7), [1]),
            Reassignment::cancel((name.as_str(), 0)),
        ])
        .await?;
    let codes: Vec<_> = refused.iter().map(|(_, told)| told.as_ref().map_err(|error| error.code)).collect();
    assert_eq!(codes[1], Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), "{refused:?}");
    let refused = admin.reassign_partitions([Reassignment::to((name.as_str(), 0), [1, 1])]).await?.all();
    assert_eq!(refused.map_err(|error| error.code), Err(ErrorCode::INVALID_REPLICA_ASSIGNMENT));
    let refused = admin.reassign_partitions([Reassignment::cancel((name.as_str(), 0))]).await?.all();
    assert_eq!(refused.map_err(|error| error.code), Err(ErrorCode::NO_REASSIGNMENT_IN_PROGRESS));
    Ok(())
}

pub(crate) async fn a_reassignment_to_a_silent_broker_waits_and_can_be_cancelled(
    backend: &Backend,
) -> Outcome {
    let admin = backend.impatient_client()?.admin();
    // Three replicas, so that there is a follower that is not the controller; then two, without it.
    let name = backend.topic("stuck", 1).await?;
    let silent = backend.follower_of(&name, 0).await?;
    let others: Vec<i32> = (1..=3).filter(|id| *id != silent).collect();
    admin.reassign_partitions([Reassignment::to((name.as_str(), 0), others.clone())]).await?.all()?;
    until(backend, &name, 0, |partition| partition.replicas == others).await?;
    until_nothing_moves(&admin, &name).await?;
    write_numbers(backend, &name, 10).await?;

    backend.pause(silent).await?;
    let to = [silent, others[0]];
    admin.reassign_partitions([Reassignment::to((name.as_str(), 0), to)]).await?.all()?;
    let moving = admin.list_reassignments_of([(name.as_str(), 0)]).await?;
    assert_eq!(moving.len(), 1);
    assert_eq!((&moving[0].adding, &moving[0].removing), (&vec![silent], &vec![others[1]]), "{moving:?}");
    assert!(admin.list_reassignments().await?.contains(&moving[0]));
    // Written by the replicas that were there before, while the new one is silent.
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    producer.send_and_wait(Record::new(&*name).partition(0).value("10")).await?;
    producer.close(SOON).await?;
    assert_eq!(admin.list_reassignments_of([(name.as_str(), 0)]).await?.len(), 1, "it cannot be over");

    admin.reassign_partitions([Reassignment::cancel((name.as_str(), 0))]).await?.all()?;
    assert_eq!(admin.list_reassignments_of([(name.as_str(), 0)]).await?, []);
    until(backend, &name, 0, |partition| partition.replicas == others).await?;
    backend.resume(silent).await?;
    assert_eq!(read(backend, &name, 1, 11).await?.len(), 11);
    Ok(())
}

/// The controller may know later than others that a replica is back.
async fn until_elected(admin: &Admin, partition: TopicPartition) -> Outcome {
    let begun = Instant::now();
    loop {
        match admin.elect_leaders(Election::Preferred, [partition.clone()]).await?.all() {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > Duration::from_secs(60) => return Err(error.into()),
            Err(error) => assert_eq!(error.code, ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn the_preferred_leader_leads_again_when_it_is_asked_for(backend: &Backend) -> Outcome {
    let admin = backend.impatient_client()?.admin();
    let name = backend.topic("elected", 1).await?;
    let first = backend.follower_of(&name, 0).await?;
    // It shall be preferred, without leading: the order of replicas changes, and nobody moves.
    let order: Vec<i32> = std::iter::once(first).chain((1..=3).filter(|id| *id != first)).collect();
    admin.reassign_partitions([Reassignment::to((name.as_str(), 0), order.clone())]).await?.all()?;
    until(backend, &name, 0, |partition| partition.replicas == order && partition.isr.len() == 3).await?;
    let partition = || TopicPartition::new(name.as_str(), 0);
    until_elected(&admin, partition()).await?;
    backend.until_leader(&name, 0, |leader| leader == first).await?;
    let told = admin.elect_leaders(Election::Preferred, [partition()]).await?.all()?;
    assert_eq!(told, [Elected::NotNeeded]);

    backend.pause(first).await?;
    backend.until_leader(&name, 0, |leader| leader != first).await?;
    let refused = admin.elect_leaders(Election::Preferred, [partition()]).await?.all();
    assert_eq!(refused.map_err(|error| error.code), Err(ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE));
    backend.resume(first).await?;
    backend.until_in_sync(&name, 0, 3).await?;
    until_elected(&admin, partition()).await?;
    backend.until_leader(&name, 0, |leader| leader == first).await?;
    let unclean = admin.elect_leaders(Election::Unclean, [partition()]).await?.all()?;
    assert_eq!(unclean, [Elected::NotNeeded]);
    let unknown = TopicPartition::new(name.as_str(), 9);
    let refused = admin.elect_leaders(Election::Preferred, [unknown]).await?.all();
    assert_eq!(refused.map_err(|error| error.code), Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    // Of all partitions, those of other behaviours too, whose preferred leaders may be paused.
    for (of, told) in admin.elect_all_leaders(Election::Preferred).await? {
        let passing = told.as_ref().is_err_and(|e| e.code == ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE);
        assert!(told.is_ok() || (passing && *of.topic != *name), "{of}: {told:?}");
    }
    Ok(())
}

pub(crate) async fn a_broker_is_drained_of_a_topic_under_load(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let name = placed(backend, "drained", &[&[3, 1], &[1, 3], &[2, 1], &[3, 2], &[2, 3], &[1, 2]]).await?;
    let alone = placed(backend, "drained-alone", &[&[3]]).await?;
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    let sent = async {
        let mut deliveries = Vec::new();
        for index in 0..300 {
            let record = Record::new(&*name).partition(index % 6).value(index.to_string());
            deliveries.push(producer.send(record).await?);
            sleep(Duration::from_millis(2)).await;
        }
        for delivery in deliveries {
            delivery.await?;
        }
        Ok::<_, Error>(())
    };
    let drain = admin.drain(3).topics([&name, &alone]).at_once(2).poll_interval(Duration::from_millis(50));
    let planned = drain.plan().await?;
    assert_eq!(planned.len(), 2, "{planned:?}");
    let mut looks = Vec::new();
    let drained = drain.run(|progress| {
        looks.push(progress.clone());
        ControlFlow::Continue(())
    });
    let (sent, drained) = tokio::join!(sent, drained);
    sent?;
    assert_eq!(drained?.moved, 5);
    assert!(looks.iter().all(|look| look.under_way.len() <= 2), "{looks:?}");
    assert_eq!((looks[0].left, looks.last().map(|look| look.left)), (5, Some(0)));
    producer.close(SOON).await?;

    let without_3 = |partition: &PartitionDescription, replicas: usize| {
        let count = (partition.replicas.len(), partition.isr.len());
        count == (replicas, replicas) && !partition.replicas.contains(&3)
    };
    for index in 0..6 {
        until(backend, &name, index, |partition| without_3(partition, 2)).await?;
    }
    until(backend, &alone, 0, |partition| without_3(partition, 1)).await?;
    let records = read(backend, &name, 6, 300).await?;
    let mut numbers = records.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());

    let full = placed(backend, "everywhere", &[&[1, 2, 3]]).await?;
    let error = admin.drain(3).topics([&full]).run(|_| ControlFlow::Continue(())).await;
    let error = error.err().ok_or("three replicas have no room on two brokers")?;
    assert!(matches!(error, klamm::DrainError::NoRoom { replicas: 3, others: 2, .. }), "{error}");
    Ok(())
}
