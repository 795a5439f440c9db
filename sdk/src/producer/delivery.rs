//! What became of a record: one cell for each batch, a position in it for each record.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use klamm_core::producer::Outcome;
use parking_lot::Mutex;

use super::error::SendError;

/// Where a record ended up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Partition index.
    pub partition: i32,
    /// Offset in the partition; unknown with `acks=0`, or when a retry found the record already written.
    pub offset: Option<i64>,
    /// Milliseconds since the Unix epoch, as stored by the broker.
    pub timestamp: i64,
}

impl RecordMetadata {
    /// What a broker would have told, for tests: timestamp 0, and no offset with `None`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32, offset: impl Into<Option<i64>>) -> Self {
        Self { topic: topic.into(), partition, offset: offset.into(), timestamp: 0 }
    }

    /// Sets the timestamp.
    #[must_use]
    pub fn timestamp(mut self, ms: i64) -> Self {
        self.timestamp = ms;
        self
    }
}

/// The fate of all records of one batch.
#[derive(Debug)]
pub(super) struct Fate {
    topic: Arc<str>,
    partition: i32,
    outcome: OnceLock<Result<Written, SendError>>,
    waiting: Mutex<Vec<Waker>>,
}

#[derive(Debug, Clone, Copy)]
struct Written {
    base_offset: Option<i64>,
    log_append_time: Option<i64>,
}

impl Fate {
    pub(super) fn new(topic: Arc<str>, partition: i32) -> Self {
        Self { topic, partition, outcome: OnceLock::new(), waiting: Mutex::new(Vec::new()) }
    }

    /// Wakes everyone who waits for a record of the batch. Only the first outcome counts.
    pub(super) fn resolve(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Written { base_offset, log_append_time } => Ok(Written { base_offset, log_append_time }),
            Outcome::Failed(failure) => Err(failure.into()),
        };
        self.settle(outcome);
    }

    fn settle(&self, outcome: Result<Written, SendError>) {
        if self.outcome.set(outcome).is_ok() {
            // Woken outside of the lock: they look at once.
            let waiting = std::mem::take(&mut *self.waiting.lock());
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// What became of one record, if that is known.
    pub(super) fn of_record(&self, index: u32, timestamp: i64) -> Option<Result<RecordMetadata, SendError>> {
        Some(match self.outcome.get()? {
            Ok(written) => Ok(RecordMetadata {
                topic: self.topic.clone(),
                partition: self.partition,
                offset: written.base_offset.map(|base| base + i64::from(index)),
                timestamp: written.log_append_time.unwrap_or(timestamp),
            }),
            Err(error) => Err(error.clone()),
        })
    }

    pub(super) fn is_resolved(&self) -> bool {
        self.outcome.get().is_some()
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn partition(&self) -> i32 {
        self.partition
    }
}

/// The acknowledgement of one accepted record.
///
/// # Cancel safety
///
/// Dropping it loses only the answer; the record is sent all the same.
#[derive(Debug)]
#[must_use = "the record is sent, but only this tells whether it was acknowledged"]
pub struct Delivery {
    fate: Arc<Fate>,
    index: u32,
    /// Place of this delivery's waker among those of the batch, plus one.
    place: u32,
    timestamp: i64,
}

impl Delivery {
    pub(super) fn new(fate: Arc<Fate>, index: u32, timestamp: i64) -> Self {
        Self { fate, index, place: 0, timestamp }
    }

    /// A delivery that is acknowledged already, for whoever stands in for a producer in a test.
    pub fn acknowledged(metadata: RecordMetadata) -> Self {
        let RecordMetadata { topic, partition, offset, timestamp } = metadata;
        let delivery = Self::new(Arc::new(Fate::new(topic, partition)), 0, timestamp);
        delivery.fate.settle(Ok(Written { base_offset: offset, log_append_time: None }));
        delivery
    }

    /// A delivery that has failed already, for whoever stands in for a producer in a test.
    pub fn failed(topic: impl Into<Arc<str>>, partition: i32, error: SendError) -> Self {
        let delivery = Self::new(Arc::new(Fate::new(topic.into(), partition)), 0, 0);
        delivery.fate.settle(Err(error));
        delivery
    }

    /// A delivery that resolves when the [`PendingDelivery`] says so, for whoever stands in for a producer in a
    /// test.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let (delivery, pending) = klamm::Delivery::pending("orders", 0);
    /// pending.acknowledge(42);
    /// assert_eq!(delivery.await.unwrap().offset, Some(42));
    /// # });
    /// ```
    pub fn pending(topic: impl Into<Arc<str>>, partition: i32) -> (Self, PendingDelivery) {
        let fate = Arc::new(Fate::new(topic.into(), partition));
        (Self::new(fate.clone(), 0, 0), PendingDelivery { fate })
    }

    /// The topic the record goes to.
    pub fn topic(&self) -> &str {
        &self.fate.topic
    }

    /// The partition the record goes to.
    pub fn partition(&self) -> i32 {
        self.fate.partition
    }
}

/// Decides about a [`Delivery`] that was made by [`Delivery::pending`].
///
/// Dropped without a decision, it fails the delivery with [`SendError::Closed`], as a dropped producer does.
#[derive(Debug)]
#[must_use = "dropping it fails the delivery"]
pub struct PendingDelivery {
    fate: Arc<Fate>,
}

impl PendingDelivery {
    /// The record is written at this offset; `None` if that is unknown.
    pub fn acknowledge(self, offset: impl Into<Option<i64>>) {
        self.fate.settle(Ok(Written { base_offset: offset.into(), log_append_time: None }));
    }

    /// The record is not acknowledged.
    pub fn fail(self, error: SendError) {
        self.fate.settle(Err(error));
    }
}

impl Drop for PendingDelivery {
    fn drop(&mut self) {
        self.fate.settle(Err(SendError::Closed { maybe_written: true }));
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(outcome) = this.fate.of_record(this.index, this.timestamp) {
            return Poll::Ready(outcome);
        }
        let mut waiting = this.fate.waiting.lock();
        if let Some(outcome) = this.fate.of_record(this.index, this.timestamp) {
            return Poll::Ready(outcome);
        }
        // A task that waits for many records of a batch leaves one waker. Wakers are never replaced, because
        // another delivery may count on the same one.
        let mine = this.place.checked_sub(1).and_then(|place| waiting.get(place as usize));
        if !mine.or(waiting.last()).is_some_and(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
            this.place = waiting.len() as u32;
        } else if this.place == 0 {
            this.place = waiting.len() as u32;
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn written(base_offset: i64) -> Outcome {
        Outcome::Written { base_offset: Some(base_offset), log_append_time: None }
    }

    #[test]
    fn every_task_is_woken_once_however_many_records_it_waits_for() {
        let fate = Arc::new(Fate::new("t".into(), 3));
        let counts: Vec<Arc<Count>> = (0..3).map(|_| Arc::default()).collect();
        let mut deliveries: Vec<_> = (0..9).map(|i| Delivery::new(fate.clone(), i, 40)).collect();
        for _ in 0..4 {
            for (i, delivery) in deliveries.iter_mut().enumerate() {
                let waker = Waker::from(counts[i / 3].clone());
                assert!(Pin::new(delivery).poll(&mut Context::from_waker(&waker)).is_pending());
            }
        }
        assert_eq!(fate.waiting.lock().len(), 3);
        fate.resolve(written(100));
        fate.resolve(Outcome::Failed(klamm_core::producer::Failure::Unsealable));
        assert!(counts.iter().all(|count| count.0.load(Ordering::SeqCst) == 1));
        for (i, delivery) in deliveries.iter_mut().enumerate() {
            let waker = Waker::noop();
            let Poll::Ready(Ok(metadata)) = Pin::new(delivery).poll(&mut Context::from_waker(waker)) else {
                panic!("not resolved");
            };
            assert_eq!((metadata.partition, metadata.offset), (3, Some(100 + i as i64)));
            assert_eq!(metadata.timestamp, 40);
        }
    }

    #[test]
    fn deliveries_made_for_tests_resolve_as_they_were_told() {
        let look =
            |mut delivery: Delivery| Pin::new(&mut delivery).poll(&mut Context::from_waker(Waker::noop()));
        let metadata = RecordMetadata::new("t", 2, 7).timestamp(99);
        assert!(
            matches!(look(Delivery::acknowledged(metadata.clone())), Poll::Ready(Ok(told)) if told == metadata)
        );
        let unknown = RecordMetadata::new("t", 2, None);
        assert!(
            matches!(look(Delivery::acknowledged(unknown)), Poll::Ready(Ok(told)) if told.offset.is_none())
        );
        let failed = Delivery::failed("t", 2, SendError::Compression);
        assert_eq!((failed.topic(), failed.partition()), ("t", 2));
        assert!(matches!(look(failed), Poll::Ready(Err(SendError::Compression))));
        let (delivery, pending) = Delivery::pending("t", 0);
        pending.fail(SendError::Compression);
        assert!(matches!(look(delivery), Poll::Ready(Err(SendError::Compression))));
        let (mut delivery, pending) = Delivery::pending("t", 0);
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut delivery).poll(&mut context).is_pending());
        drop(pending);
        assert!(matches!(look(delivery), Poll::Ready(Err(SendError::Closed { maybe_written: true }))));
    }

    #[test]
    fn a_delivery_that_moves_to_another_task_wakes_that_task() {
        let fate = Arc::new(Fate::new("t".into(), 0));
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let mut delivery = Delivery::new(fate.clone(), 0, 0);
        for count in [&first, &second] {
            let waker = Waker::from(count.clone());
            assert!(Pin::new(&mut delivery).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        fate.resolve(written(0));
        assert_eq!(second.0.load(Ordering::SeqCst), 1);
    }
}
