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

    /// The topic the record goes to.
    pub fn topic(&self) -> &str {
        &self.fate.topic
    }

    /// The partition the record goes to.
    pub fn partition(&self) -> i32 {
        self.fate.partition
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
