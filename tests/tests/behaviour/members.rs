//! Members of consumer groups, for behaviours of groups.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use klamm::{
    Consumer, ConsumerBuilder, OffsetReset, Producer, RebalanceContext, RebalanceListener, RebalanceReason,
    Record, TopicPartition,
};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::tools::SOON;

/// What a member read, by partition and offset, and how often.
pub(crate) type Seen = Arc<Mutex<BTreeMap<(i32, i64), usize>>>;

/// A member that reads all the time.
pub(crate) struct Member {
    pub(crate) consumer: Arc<Consumer>,
    seen: Seen,
    pub(crate) reading: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

pub(crate) fn builder(backend: &Backend, group: &str) -> Result<ConsumerBuilder, Error> {
    Ok(Consumer::builder()
        .client(&backend.client()?)
        .group_id(group)
        .auto_offset_reset(OffsetReset::Earliest)
        // How soon a member hears of a rebalance.
        .heartbeat_interval_ms(Duration::from_millis(300)))
}

impl Member {
    pub(crate) fn start(builder: ConsumerBuilder, topic: &str) -> Result<Self, Error> {
        let consumer: Arc<Consumer> = Arc::new(builder.build().map_err(Error::other)?);
        consumer.subscribe([topic]);
        let seen = Seen::default();
        let (reader, noted) = (consumer.clone(), seen.clone());
        let reading = tokio::spawn(async move {
            while let Ok(record) = reader.recv().await {
                let place = (record.partition, record.offset);
                *noted.lock().expect("no panic").entry(place).or_default() += 1;
            }
        });
        Ok(Self { consumer, seen, reading })
    }

    pub(crate) fn partitions(&self) -> BTreeSet<i32> {
        self.consumer.assignment().into_iter().map(|name| name.partition).collect()
    }

    pub(crate) fn seen(&self) -> BTreeMap<(i32, i64), usize> {
        self.seen.lock().expect("no panic").clone()
    }
}

/// Waits for something to become true.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) -> Outcome {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > 3 * SOON {
            return Err(format!("not within {:?}: {what}", 3 * SOON).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Writes so many records into each partition.
pub(crate) async fn write(backend: &Backend, topic: &str, partitions: i32, each: i64) -> Outcome {
    let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
    for index in 0..each {
        for partition in 0..partitions {
            drop(producer.send(Record::new(topic).partition(partition).value(index.to_string())).await?);
        }
    }
    producer.flush().await?;
    producer.close(SOON).await?;
    Ok(())
}

/// Notes what it hears, and commits in `revoked`.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, what: String) {
        self.0.lock().expect("no panic").push(what);
    }

    pub(crate) fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().expect("no panic").len()
    }
}

impl RebalanceListener for Notes {
    fn assigned<'a>(
        &'a self,
        _: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        reason: RebalanceReason,
    ) -> BoxFuture<'a, ()> {
        self.add(format!("assigned {}: {reason:?}", partitions.len()));
        std::future::ready(()).boxed()
    }

    fn revoked<'a>(
        &'a self,
        context: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        reason: RebalanceReason,
    ) -> BoxFuture<'a, ()> {
        async move {
            let committed = context.commit().await.is_ok();
            self.add(format!("revoked {}: {reason:?}, committed: {committed}", partitions.len()));
        }
        .boxed()
    }

    fn lost<'a>(
        &'a self,
        context: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        reason: RebalanceReason,
    ) -> BoxFuture<'a, ()> {
        async move {
            let first = partitions[0].clone();
            let committed = context.commit_offsets([(first, 1)]).await.is_ok();
            self.add(format!("lost {}: {reason:?}, committed: {committed}", partitions.len()));
        }
        .boxed()
    }
}
