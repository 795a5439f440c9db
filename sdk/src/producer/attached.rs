//! What is told of single records when their batch is resolved, beside their deliveries: callbacks and interceptors.
//!
//! ```text
//! append ── for records that ask for it ──▶ Attachments of the open batch ──▶ sender
//!                                                                               │ resolved
//!           interceptors, callback ◀── of each record, in order ── Teller ◀─────┘
//! ```
//!
//! A batch of which nothing is to be told carries none of this.
//!
//! Invariant: every callback runs exactly once. Attachments that are dropped untold tell their records themselves that the
//! producer is gone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::delivery::{Fate, RecordMetadata};
use super::error::SendError;
use super::guard::guarded;
use crate::interceptor::Extensions;

/// Called once with what became of a record.
pub type Callback = Box<dyn FnOnce(Result<RecordMetadata, SendError>) + Send>;

/// Whoever hears of every record of a producer: its interceptors.
pub(super) trait Audience: Send + Sync {
    /// A record is acknowledged or has failed.
    fn hear(
        &self,
        topic: &str,
        partition: i32,
        outcome: Result<&RecordMetadata, &SendError>,
        extensions: &mut Extensions,
    );

    /// Nothing more will be told.
    fn close(&self);
}

/// What is to be told of one record.
#[derive(Default)]
pub(super) struct Attachment {
    pub(super) callback: Option<Callback>,
    pub(super) extensions: Extensions,
}

struct Entry {
    /// Of the record in its batch.
    index: u32,
    timestamp: i64,
    attachment: Attachment,
}

/// What is to be told of the records of one batch.
pub(super) struct Attachments {
    topic: Arc<str>,
    partition: i32,
    audience: Option<Arc<dyn Audience>>,
    /// In the order of their indices; not every record needs to have one.
    entries: Vec<Entry>,
    turn: Arc<Turn>,
    /// Of the last batch of the partition before this one of which something is to be told.
    after: Option<Arc<Turn>>,
}

/// Whether the records of one batch have been told.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicBool);

impl Turn {
    pub(super) fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Attachments {
    /// Attachments of the batch that comes after `last` in a partition, and is the last one from now on.
    pub(super) fn new(
        topic: Arc<str>,
        partition: i32,
        audience: Option<Arc<dyn Audience>>,
        last: &mut Option<Arc<Turn>>,
    ) -> Box<Self> {
        let turn = Arc::<Turn>::default();
        let after = last.replace(turn.clone());
        Box::new(Self { topic, partition, audience, entries: Vec::new(), turn, after })
    }

    /// Attaches to a record that comes after all others.
    pub(super) fn push(&mut self, index: u32, timestamp: i64, attachment: Attachment) {
        self.entries.push(Entry { index, timestamp, attachment });
    }

    /// Keeps the records before `index`; returns those from there on, numbered from 0, as a batch of its own that
    /// comes after this one.
    pub(super) fn split_at(&mut self, index: u32) -> Box<Self> {
        let at = self.entries.partition_point(|entry| entry.index < index);
        let mut entries = self.entries.split_off(at);
        for entry in &mut entries {
            entry.index -= index;
        }
        // Who comes after the whole comes after its last part.
        let between = Arc::<Turn>::default();
        let turn = std::mem::replace(&mut self.turn, between.clone());
        Box::new(Self {
            topic: self.topic.clone(),
            partition: self.partition,
            audience: self.audience.clone(),
            entries,
            turn,
            after: Some(between),
        })
    }

    pub(super) fn turn(&self) -> &Arc<Turn> {
        &self.turn
    }

    /// Everything before in the partition has been told.
    pub(super) fn is_next(&self) -> bool {
        self.after.as_ref().is_none_or(|after| after.is_over())
    }

    /// Tells what became of each record: first its interceptors, then its callback.
    pub(super) fn tell(mut self, fate: &Arc<Fate>) {
        debug_assert_eq!((fate.topic(), fate.partition()), (&*self.topic, self.partition));
        let gone = || Err(SendError::Closed { maybe_written: true });
        self.tell_each(|entry| fate.of_record(entry.index, entry.timestamp).unwrap_or_else(gone));
    }

    fn tell_each(&mut self, outcome: impl Fn(&Entry) -> Result<RecordMetadata, SendError>) {
        for entry in std::mem::take(&mut self.entries) {
            let outcome = outcome(&entry);
            let Attachment { callback, mut extensions } = entry.attachment;
            if let Some(audience) = &self.audience {
                audience.hear(&self.topic, self.partition, outcome.as_ref(), &mut extensions);
            }
            if let Some(callback) = callback {
                guarded("callback", &self.topic, || callback(outcome));
            }
            guarded("drop of what an interceptor keeps with a record", &self.topic, || drop(extensions));
        }
    }
}

impl Drop for Attachments {
    fn drop(&mut self) {
        self.tell_each(|_| Err(SendError::Closed { maybe_written: true }));
        self.turn.0.store(true, Ordering::Release);
    }
}

impl fmt::Debug for Attachments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachments").field("records", &self.entries.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    type Heard = Arc<Mutex<Vec<(u32, Option<i64>, i64)>>>;

    fn attached(heard: &Heard, indices: impl IntoIterator<Item = u32>) -> Box<Attachments> {
        let mut attachments = Attachments::new("t".into(), 0, None, &mut None);
        for index in indices {
            let heard = heard.clone();
            let callback: Callback = Box::new(move |outcome| {
                let (offset, timestamp) = outcome.map_or((None, -1), |told| (told.offset, told.timestamp));
                heard.lock().push((index, offset, timestamp));
            });
            let attachment = Attachment { callback: Some(callback), ..Attachment::default() };
            attachments.push(index, 100 + i64::from(index), attachment);
        }
        attachments
    }

    fn written(base_offset: i64) -> Arc<Fate> {
        let fate = Arc::new(Fate::new("t".into(), 0));
        fate.resolve(klamm_core::producer::Outcome::Written {
            base_offset: Some(base_offset),
            log_append_time: None,
        });
        fate
    }

    /// Goal: a batch may be divided anywhere, also between records of which nothing is told.
    #[test]
    fn parts_of_a_split_batch_tell_their_own_records() {
        for index in 0..7 {
            let heard = Heard::default();
            let mut first = attached(&heard, [0, 2, 3, 5]);
            let second = first.split_at(index);
            second.tell(&written(1000));
            first.tell(&written(10));
            let mut heard = std::mem::take(&mut *heard.lock());
            heard.sort_unstable();
            let expected = [0, 2, 3, 5].map(|i| {
                let offset = if i < index { 10 + i } else { 1000 + i - index };
                (i, Some(i64::from(offset)), 100 + i64::from(i))
            });
            assert_eq!(heard, expected, "split at {index}");
        }
    }

    #[test]
    fn turns_come_in_the_order_of_batches_also_of_split_ones() {
        let mut last = None;
        let mut batch = || Attachments::new("t".into(), 0, None, &mut last);
        let (mut first, third) = (batch(), batch());
        let second = first.split_at(1);
        assert_eq!([&first, &second, &third].map(|batch| batch.is_next()), [true, false, false]);
        drop(first);
        assert_eq!([&second, &third].map(|batch| batch.is_next()), [true, false]);
        second.tell(&written(0));
        assert!(third.is_next());
    }

    #[test]
    fn what_nobody_tells_hears_that_the_producer_is_gone() {
        let heard = Heard::default();
        drop(attached(&heard, [0, 1]));
        assert_eq!(*heard.lock(), [(0, None, -1), (1, None, -1)]);
    }

    /// Goal: what an interceptor or a callback keeps with a record may panic wherever it is dropped.
    #[test]
    fn after_a_value_that_panics_when_dropped_the_next_records_are_told() {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
        }
        let heard = Heard::default();
        let mut attachments = attached(&heard, [0, 1, 2]);
        attachments.entries[0].attachment.extensions.insert(Panics);
        let captured = Panics;
        attachments.entries[1].attachment.callback = Some(Box::new(move |_| drop(captured)));
        let turn = attachments.turn().clone();
        attachments.tell(&written(10));
        assert_eq!(*heard.lock(), [(0, Some(10), 100), (2, Some(12), 102)]);
        assert!(turn.is_over());

        heard.lock().clear();
        let mut attachments = attached(&heard, [0, 1]);
        attachments.entries[0].attachment.extensions.insert(Panics);
        drop(attachments);
        assert_eq!(*heard.lock(), [(0, None, -1), (1, None, -1)]);
    }
}
