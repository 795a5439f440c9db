//! Whose turn it is: what is done because somebody asked for more, and who keeps a member from polling.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use klamm::{RebalanceContext, RebalanceListener, RebalanceReason};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::*;

/// What was taken from a member, and why.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<(TopicPartition, RebalanceReason)>>>);

impl Taken {
    fn add(&self, partitions: &[TopicPartition], reason: RebalanceReason) -> BoxFuture<'static, ()> {
        self.0.lock().extend(partitions.iter().map(|name| (name.clone(), reason)));
        Box::pin(std::future::ready(()))
    }
}

impl RebalanceListener for Taken {
    fn revoked<'a>(
        &'a self,
        _: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        reason: RebalanceReason,
    ) -> BoxFuture<'a, ()> {
        self.add(partitions, reason)
    }

    fn lost<'a>(
        &'a self,
        _: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        reason: RebalanceReason,
    ) -> BoxFuture<'a, ()> {
        self.add(partitions, reason)
    }
}

/// A member that has both partitions, and stalls after ten seconds.
async fn member(rig: &Rig) -> Outcome<(Arc<Consumer>, Taken)> {
    let builder = rig.builder().auto_commit_interval_ms(S / 10).heartbeat_interval_ms(S);
    let consumer: Consumer = builder.max_poll_interval_ms(10 * S).build()?;
    let taken = Taken::default();
    consumer.subscribe_with([TOPIC], taken.clone());
    while consumer.assignment().len() < 2 {
        sleep(S / 100).await;
    }
    Ok((Arc::new(consumer), taken))
}

#[derive(Debug, Clone, Copy)]
enum By {
    Call,
    Batch,
    Stream,
    Batches,
    PartitionStream,
}

/// Gets the first record of partition 0. A stream is dropped with it.
async fn take_one(consumer: &Consumer, by: By) -> Outcome {
    consumer.pause([&place(1)]);
    let offset = match by {
        By::Call => consumer.recv().await?.offset,
        By::Batch => consumer.recv_batch().await?.first_offset(),
        By::Stream => std::pin::pin!(consumer.stream()).next().await.expect("it goes on")?.offset,
        By::Batches => {
            let batch = std::pin::pin!(consumer.batch_views()).next().await.expect("it goes on")?;
            batch.first_offset()
        }
        By::PartitionStream => consumer.partition_stream(&place(0))?.recv().await?.offset,
    };
    assert_eq!(offset, 0);
    consumer.resume([&place(1)]);
    Ok(())
}

#[test]
fn what_a_task_has_is_done_when_it_asks_for_more_of_another_partition_by_a_stream_of_that() {
    for by in [By::Call, By::Batch, By::Stream, By::Batches, By::PartitionStream] {
        sim::run(1, |sim| async move {
            let rig = Arc::new(Rig::new(&sim).await?);
            let (consumer, taken) = member(&rig).await?;
            let (cluster, reader) = (rig.clone(), consumer.clone());
            let task = async move {
                take_one(&reader, by).await?;
                sleep(S).await;
                assert_eq!(cluster.committed(0).await?.unwrap_or(0), 0, "it is at work on it");
                let mut other = reader.partition_stream(&place(1))?;
                for _ in 0..30 {
                    cluster.write(1, 1).await?;
                    other.next().await.expect("it goes on")?;
                    sleep(S).await;
                }
                Outcome::Ok(())
            };
            tokio::spawn(task).await??;
            assert_eq!(rig.committed(0).await?, Some(1));
            assert_eq!(rig.committed(1).await?, Some(29), "the last one is being worked on");
            assert_eq!(*taken.0.lock(), [], "it polls all the time");
            Outcome::Ok(())
        })
        .unwrap_or_else(|error| panic!("{by:?}: {error}"));
    }
}

#[test]
fn a_task_for_each_record_that_commits_it_and_ends_keeps_nobody_from_going_on() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        rig.write(0, 200).await?;
        rig.write(1, 200).await?;
        let (consumer, taken) = member(&rig).await?;
        let mut tasks = Vec::new();
        for _ in 0..300 {
            let consumer = consumer.clone();
            tasks.push(tokio::spawn(async move {
                let record = consumer.recv().await.expect("a record");
                sleep(S).await;
                consumer.commit_record(&record).await
            }));
            // Ten of them are at work at any time.
            sleep(S / 10).await;
        }
        assert_eq!(*taken.0.lock(), []);
        for task in tasks {
            task.await??;
        }
        let done = [rig.committed(0).await?, rig.committed(1).await?];
        assert_eq!(done.iter().flatten().sum::<i64>(), 300);
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// A reader for each connection of a server, say.
#[test]
fn thousands_of_readers_that_come_back_are_told_apart() {
    const READERS: usize = 1_500;
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let producer: Producer = Producer::builder().client(&rig.client).build()?;
        for _ in 0..15 * READERS {
            // The deliveries are waited for by the flush.
            drop(producer.send(Record::new(TOPIC).partition(0).value("v")).await?);
        }
        producer.flush().await?;
        let (consumer, taken) = member(&rig).await?;
        let reading: Vec<_> = (0..READERS)
            .map(|_| {
                let consumer = consumer.clone();
                tokio::spawn(async move {
                    while consumer.recv().await.is_ok() {
                        sleep(S).await;
                    }
                })
            })
            .collect();
        sleep(25 * S).await;
        assert_eq!(*taken.0.lock(), []);
        assert_eq!(rig.committed(0).await?, Some(5 + 15 * READERS as i64));
        reading.iter().for_each(|task| task.abort());
        Outcome::Ok(())
    })
    .expect("it runs");
}

#[test]
fn a_task_that_waits_for_partitions_to_read_is_done_with_what_it_had() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let (consumer, taken) = member(&rig).await?;
        take_one(&consumer, By::Call).await?;
        let others = consumer.clone();
        let (ready, all) = oneshot::channel();
        let reading = tokio::spawn(async move {
            let both = [0, 1].map(|index| others.partition_stream(&place(index)).expect("it has it"));
            ready.send(()).expect("it is waited for");
            futures::stream::iter(both).flatten_unordered(None).for_each(|_| async {}).await;
        });
        all.await?;
        let none = timeout(30 * S, std::pin::pin!(consumer.partition_streams()).next()).await;
        assert!(none.is_err(), "all have streams");
        assert_eq!((rig.committed(0).await?, rig.committed(1).await?), (Some(5), Some(5)));
        assert_eq!(*taken.0.lock(), []);
        reading.abort();
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// While it works on what it has, a stream does not wait, though it did before.
#[test]
fn a_stream_that_waited_once_stalls_its_member_all_the_same() {
    for by in [By::Stream, By::PartitionStream] {
        sim::run(1, |sim| async move {
            let rig = Arc::new(Rig::new(&sim).await?);
            let (consumer, taken) = member(&rig).await?;
            consumer.pause([&place(1)]);
            let reader = consumer.clone();
            let reading = tokio::spawn(async move {
                let mut own = match by {
                    By::PartitionStream => Some(reader.partition_stream(&place(0)).expect("it has it")),
                    _ => None,
                };
                let mut all = std::pin::pin!(reader.stream());
                for _ in 0..6 {
                    match &mut own {
                        Some(own) => own.next().await,
                        None => all.next().await,
                    };
                }
                std::future::pending::<()>().await;
            });
            sleep(5 * S).await; // it waits for the sixth
            rig.write(0, 1).await?;
            sleep(12 * S).await;
            let why: Vec<_> = taken.0.lock().iter().map(|(_, why)| *why).collect();
            assert_eq!(why, [RebalanceReason::PollStalled; 2]);
            for second in 0..40 {
                assert_eq!(consumer.assignment(), [], "back after {second} s, though nobody came back");
                sleep(S).await;
            }
            reading.abort();
            Outcome::Ok(())
        })
        .unwrap_or_else(|error| panic!("{by:?}: {error}"));
    }
}
