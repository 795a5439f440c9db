//! Positions that the application keeps, and the topics that they are positions in.

use futures::future::BoxFuture;

use super::cluster::topic_id;
use super::*;

/// A store that has this, whatever is saved.
struct Holds(StoredOffsets);

impl OffsetStore for Holds {
    fn load<'a>(
        &'a self,
        _: &'a str,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<StoredOffsets, OffsetStoreError>> {
        let mut found = self.0.clone();
        found.retain(|name, _| partitions.contains(name));
        std::future::ready(Ok(found)).boxed()
    }

    fn save<'a>(&'a self, _: &'a str, _: &'a StoredOffsets) -> BoxFuture<'a, Result<(), OffsetStoreError>> {
        std::future::ready(Ok(())).boxed()
    }
}

fn stored(offset: i64, times: u128) -> StoredOffsets {
    [(tp(0), StoredOffset { offset, leader_epoch: Some(0), topic_id: topic_id(times) })].into()
}

/// Goal: nothing is stored as of a topic that had the name before, nor as of one that has it now, of which it is not.
#[tokio::test(start_paused = true)]
async fn what_is_stored_is_of_the_topic_that_was_read_also_if_that_is_created_again_meanwhile() {
    for apart in [false, true] {
        let cluster = Cluster::default();
        cluster.count(0, 0..30);
        let earliest = || builder(&cluster).auto_offset_reset(OffsetReset::Earliest).build().unwrap();
        let consumer = earliest();
        consumer.assign_stored(&Holds(StoredOffsets::new()), "g", [tp(0)]).await.unwrap();
        let stream = apart.then(|| consumer.partition_stream(&tp(0)).unwrap());
        let next = async || match &stream {
            Some(stream) => stream.recv().await.unwrap(),
            None => consumer.recv().await.unwrap(),
        };
        let mut old = Vec::new();
        for _ in 0..12 {
            old.push(next().await);
        }
        assert_eq!(consumer.stored_offsets(), stored(12, 0));
        cluster.create_again();
        cluster.count(0, 100..120);
        assert_eq!(consumer.stored_after(&old), stored(12, 0));
        consumer.shared.client.rt().sleep(5 * S).await; // it hears of the new one
        let new = [next().await, next().await, next().await];
        assert_eq!((new[0].offset, text(&new[0])), (0, "100".to_owned()));
        assert_eq!(consumer.stored_after(&new), stored(3, 1));
        assert_eq!(consumer.stored_offsets(), stored(3, 1));
        assert_eq!(consumer.stored_after(&old), stored(12, 0), "those stay what they are");
        assert_eq!(consumer.stored_after(old.iter().chain(&new)), stored(3, 1), "the later topic counts");
        assert_eq!(consumer.stored_after(new.iter().chain(&old)), stored(3, 1));
        let detached: Vec<_> = old.iter().cloned().map(ConsumerRecord::detach).collect();
        assert_eq!(consumer.stored_after(&detached), stored(12, 0));
        consumer.unassign();
        assert_eq!((consumer.stored_after(&old), consumer.stored_after(&new)), (stored(12, 0), stored(3, 1)));
        // Made by hand, it is of the topic as it is now.
        let made: ConsumerRecord = ConsumerRecord::new("t", 0, 7);
        assert_eq!(consumer.stored_after([&made])[&tp(0)].topic_id, topic_id(1));

        for (holds, from) in [(stored(3, 1), 3), (stored(12, 0), 0)] {
            let again = earliest();
            again.assign_stored(&Holds(holds), "g", [tp(0)]).await.unwrap();
            assert_eq!(again.recv().await.unwrap().offset, from);
        }
    }
}
