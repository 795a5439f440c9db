//! What is promised to whoever keeps offsets in a store of its own.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use klamm::{
    Consumer, ConsumerError, OffsetReset, OffsetStore, OffsetStoreError, StartOffset, StoredOffset,
    StoredOffsets, TopicPartition,
};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;

use crate::changing::{create_again, delete};
use crate::members::write;
use crate::tools::{next, write_numbers};

/// A store in memory.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<String, StoredOffsets>>);

impl OffsetStore for Memory {
    fn load<'a>(
        &'a self,
        group: &'a str,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<StoredOffsets, OffsetStoreError>> {
        let mut found = self.0.lock().expect("no panic").get(group).cloned().unwrap_or_default();
        found.retain(|name, _| partitions.contains(name));
        std::future::ready(Ok(found)).boxed()
    }

    fn save<'a>(
        &'a self,
        group: &'a str,
        offsets: &'a StoredOffsets,
    ) -> BoxFuture<'a, Result<(), OffsetStoreError>> {
        let mut groups = self.0.lock().expect("no panic");
        groups.entry(group.to_owned()).or_default().extend(offsets.clone());
        std::future::ready(Ok(())).boxed()
    }
}

fn consumer(backend: &Backend) -> Result<Consumer, Box<dyn std::error::Error + Send + Sync>> {
    let builder = Consumer::builder().client(&backend.client()?);
    Ok(builder.auto_offset_reset(OffsetReset::Earliest).build()?)
}

pub(crate) async fn a_consumer_goes_on_where_its_own_store_says(backend: &Backend) -> Outcome {
    let topic = backend.topic("stored", 2).await?;
    write_numbers(backend, &topic, 30).await?;
    let [zero, one] = [0, 1].map(|index| TopicPartition::new(topic.as_str(), index));
    let store = Memory::default();
    let first = consumer(backend)?;
    first.assign_stored(&store, "g", [zero.clone(), one.clone()]).await?;
    let records = next(&first, 12).await?;
    let after = first.stored_after(&records[..7]);
    assert_eq!(after[&zero].offset, 7);
    assert_eq!(after[&zero].leader_epoch, Some(records[6].leader_epoch).filter(|epoch| *epoch >= 0));
    store.save("g", &after).await?;
    let all = first.stored_offsets();
    assert_eq!((all[&zero].offset, all[&zero].topic_id), (12, after[&zero].topic_id));
    store.save("other", &all).await?;
    first.close().await?;

    for (group, from) in [("g", 7), ("other", 12), ("nobody", 0)] {
        let again = consumer(backend)?;
        again.assign_stored(&store, group, [zero.clone(), one.clone()]).await?;
        assert_eq!(again.recv().await?.offset, from, "{group}");
        assert_eq!(again.stored_offsets()[&zero].offset, from + 1, "{group}");
        again.close().await?;
    }
    Ok(())
}

pub(crate) async fn an_offset_of_a_topic_that_was_created_anew_is_not_believed(backend: &Backend) -> Outcome {
    let topic = backend.topic("renewed", 1).await?;
    write(backend, &topic, 1, 5).await?;
    let zero = TopicPartition::new(topic.as_str(), 0);
    let store = Memory::default();
    let first = consumer(backend)?;
    first.assign_stored(&store, "g", [zero.clone()]).await?;
    let records = next(&first, 3).await?;
    let old = first.stored_after(&records);
    store.save("g", &old).await?;
    delete(backend, &topic).await?;
    create_again(backend, &topic, 1).await?;
    write(backend, &topic, 1, 9).await?;
    let again = consumer(backend)?;
    again.assign_stored(&store, "g", [zero.clone()]).await?;
    assert_eq!(again.recv().await?.offset, 0, "offset 3 was one of the former topic");
    assert_ne!(again.stored_offsets()[&zero].topic_id, old[&zero].topic_id);
    again.close().await?;

    // Whoever reads on is in the new topic, and records that were handed out before are not.
    let mut newer = first.recv().await?;
    while newer.offset > 0 {
        newer = first.recv().await?;
    }
    let now = first.stored_after([&newer]);
    assert_ne!(now[&zero].topic_id, old[&zero].topic_id);
    assert_eq!(now, first.stored_offsets());
    assert_eq!(first.stored_after(&records), old);
    store.save("g", &now).await?;
    let again = consumer(backend)?;
    again.assign_stored(&store, "g", [zero.clone()]).await?;
    assert_eq!(again.recv().await?.offset, 1);
    again.close().await?;
    first.close().await?;
    Ok(())
}

pub(crate) async fn a_stored_leader_epoch_tells_that_the_log_was_truncated(backend: &Backend) -> Outcome {
    let topic = backend.topic("cut", 1).await?;
    write(backend, &topic, 1, 10).await?;
    let zero = TopicPartition::new(topic.as_str(), 0);
    let store = Memory::default();
    let first = consumer(backend)?;
    first.assign_stored(&store, "g", [zero.clone()]).await?;
    let records = next(&first, 10).await?;
    // As if it had read 40 records more, which no replica has kept.
    let mut offsets = first.stored_after(&records);
    offsets.entry(zero.clone()).and_modify(|at| at.offset = 50);
    store.save("g", &offsets).await?;
    let strict = Consumer::builder().client(&backend.client()?).auto_offset_reset(OffsetReset::None);
    let strict: Consumer = strict.build()?;
    strict.assign_stored(&store, "g", [zero.clone()]).await?;
    let told = strict.recv().await;
    assert!(matches!(&told, Err(ConsumerError::Truncated { diverges: Some(10), .. })), "{told:?}");
    // Where nothing is stored there is no policy either.
    strict.assign_stored(&store, "nobody", [zero.clone()]).await?;
    let told = strict.recv().await;
    assert!(matches!(&told, Err(ConsumerError::NoOffset { .. })), "{told:?}");
    strict.close().await?;
    Ok(())
}

/// A store that is out of order.
struct Broken;

impl OffsetStore for Broken {
    fn load<'a>(
        &'a self,
        _: &'a str,
        _: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<StoredOffsets, OffsetStoreError>> {
        std::future::ready(Err("the database is away".into())).boxed()
    }

    fn save<'a>(&'a self, _: &'a str, _: &'a StoredOffsets) -> BoxFuture<'a, Result<(), OffsetStoreError>> {
        std::future::ready(Err("the database is away".into())).boxed()
    }
}

pub(crate) async fn a_store_that_cannot_load_leaves_the_assignment_as_it_was(backend: &Backend) -> Outcome {
    let topic = backend.topic("broken", 2).await?;
    write_numbers(backend, &topic, 5).await?;
    let [zero, one] = [0, 1].map(|index| TopicPartition::new(topic.as_str(), index));
    let consumer = consumer(backend)?;
    consumer.assign([(zero.clone(), StartOffset::Beginning)]);
    assert_eq!(next(&consumer, 2).await?[1].offset, 1);
    let told = consumer.assign_stored(&Broken, "g", [one]).await.expect_err("refused").to_string();
    assert!(told.contains("the database is away"), "{told}");
    assert_eq!(consumer.assignment(), std::slice::from_ref(&zero));
    assert_eq!(consumer.recv().await?.offset, 2);

    // What a store made up is out of range, and begins as auto.offset.reset says.
    let store = Memory::default();
    let foreign = StoredOffset { offset: 1_000, leader_epoch: None, topic_id: Default::default() };
    store.save("g", &[(zero.clone(), foreign)].into()).await?;
    consumer.assign_stored(&store, "g", [zero]).await?;
    assert_eq!(consumer.recv().await?.offset, 0);
    assert!(consumer.poll(10, Duration::from_secs(1)).await?.iter().map(|record| record.offset).eq(1..5));
    consumer.close().await?;
    Ok(())
}
