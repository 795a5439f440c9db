//! Of which topic a record is: one that is deleted and created again has its former name, but another id.
//!
//! A record does not carry the id. Its topic's *name* tells it: the fetcher gives it out in an allocation that belongs to one id
//! ([`Chunk::partition`]), so that its address can be looked up here.
//!
//! Invariant: an address is known only as long as the name is held here, so that it is nobody else's.
//!
//! [`Chunk::partition`]: klamm_core::consumer::Chunk::partition

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_core::consumer::Chunk;
use uuid::Uuid;

/// Names are looked through for those that nobody has any more when there are so many.
const FEW: usize = 64;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Labels {
    known: BTreeMap<usize, Label>,
    /// So many are there at most before they are looked through.
    room: usize,
}

#[derive(Debug)]
struct Label {
    name: Arc<str>,
    topic: TopicOf,
}

/// Which topic a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopicOf {
    /// Nil if unknown.
    pub(super) id: Uuid,
    /// A larger one is of a topic that was created later, if the ids are different.
    pub(super) generation: u64,
}

impl Labels {
    /// Records of this chunk are handed out from now on.
    pub(super) fn note(&mut self, chunk: &Chunk) {
        let name = &chunk.partition.topic;
        let address = address(name);
        if self.known.contains_key(&address) {
            return;
        }
        if self.known.len() >= self.room.max(FEW) {
            self.known.retain(|_, label| Arc::strong_count(&label.name) > 1);
            self.room = 2 * self.known.len();
        }
        let topic = TopicOf { id: chunk.topic_id, generation: chunk.generation };
        self.known.insert(address, Label { name: name.clone(), topic });
    }

    /// The topic of a record with this name; `None` if the record was not handed out here.
    pub(super) fn topic(&self, name: &Arc<str>) -> Option<TopicOf> {
        self.known.get(&address(name)).map(|label| label.topic)
    }
}

fn address(name: &Arc<str>) -> usize {
    Arc::as_ptr(name).addr()
}

#[cfg(test)]
mod tests {
    use klamm_core::TopicPartition;

    use super::*;

    fn chunk(topic: &str, id: u128, generation: u64) -> Chunk {
        Chunk {
            partition: TopicPartition::new(topic, 0),
            topic_id: Uuid::from_u128(id),
            generation,
            from: 0,
            epoch: -1,
            next: 1,
            aborted: Vec::new(),
            records: bytes::Bytes::new(),
            shared: false,
        }
    }

    #[test]
    fn a_name_is_of_the_topic_it_came_with_and_an_equal_one_from_elsewhere_of_none() {
        let mut labels = Labels::default();
        let [old, new] = [chunk("t", 1, 3), chunk("t", 2, 8)];
        labels.note(&old);
        labels.note(&new);
        labels.note(&Chunk { generation: 9, ..old.clone() });
        let of = |chunk: &Chunk| labels.topic(&chunk.partition.topic);
        assert_eq!(of(&old), Some(TopicOf { id: Uuid::from_u128(1), generation: 3 }), "as noted first");
        assert_eq!(of(&new), Some(TopicOf { id: Uuid::from_u128(2), generation: 8 }));
        assert_eq!(labels.topic(&Arc::from("t")), None);
    }

    #[test]
    fn names_that_nobody_has_any_more_take_no_memory_without_end() {
        let mut labels = Labels::default();
        let kept = chunk("kept", 7, 1);
        labels.note(&kept);
        for generation in 0..10_000 {
            labels.note(&chunk("t", generation.into(), generation));
        }
        assert!(labels.known.len() <= FEW + 1, "{}", labels.known.len());
        assert_eq!(labels.topic(&kept.partition.topic).map(|topic| topic.id), Some(Uuid::from_u128(7)));
        let many: Vec<_> = (0..1_000).map(|id| chunk("t", id, 1)).collect();
        many.iter().for_each(|chunk| labels.note(chunk));
        assert!(many.iter().all(|chunk| labels.topic(&chunk.partition.topic).is_some()));
    }
}
