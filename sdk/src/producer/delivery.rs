//! What became of a record: one cell for each batch, a position in it for each record.
//!
//! In: the outcome of a batch, once, or the news that it was split. Out: [`Delivery`] futures that resolve, and each
//! waiting task woken once for all records it waits for. Neither accepting nor resolving a record allocates.
//!
//! ```text
//!   Delivery ── batch, index ──▶ Fate ── written or failed ──▶ that is what became of the record
//!                                  └──── split ──▶ Fate, Fate, … ──▶ the one that holds the index now
//! ```
//!
//! Invariant: a fate is settled once, and whoever waits looks again under the lock that guards the wakers. So a task
//! either sees the outcome or is woken by it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use klamm_core::TopicPartition;
use klamm_core::producer::Outcome;
use parking_lot::Mutex;

use super::error::SendError;

/// Where a record ended up.
#[derive(Clone)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// Partition index.
    pub partition: i32,
    /// Offset in the partition; unknown with `acks=0`, or when a retry found the record already written.
    pub offset: Option<i64>,
    /// Milliseconds since the Unix epoch, as stored by the broker.
    pub timestamp: i64,
    /// Knows the topic. It is the delivery's own, handed on, because counting another owner of the name would cost
    /// as much as encoding the record.
    batch: Arc<Fate>,
}

impl RecordMetadata {
    /// What a broker would have told, for tests: timestamp 0, and no offset with `None`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32, offset: impl Into<Option<i64>>) -> Self {
        let batch = Arc::new(Fate::new(topic.into(), partition));
        Self { partition, offset: offset.into(), timestamp: 0, batch }
    }

    /// Sets the timestamp.
    #[must_use]
    pub fn timestamp(mut self, ms: i64) -> Self {
        self.timestamp = ms;
        self
    }

    /// Name of the topic.
    pub fn topic(&self) -> &str {
        &self.batch.topic
    }
}

impl PartialEq for RecordMetadata {
    fn eq(&self, other: &Self) -> bool {
        let parts = |metadata: &Self| (metadata.partition, metadata.offset, metadata.timestamp);
        self.topic() == other.topic() && parts(self) == parts(other)
    }
}

impl Eq for RecordMetadata {}

impl fmt::Debug for RecordMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordMetadata")
            .field("topic", &self.topic())
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("timestamp", &self.timestamp)
            .finish()
    }
}

/// The fate of all records of one batch.
#[derive(Debug)]
pub(super) struct Fate {
    topic: Arc<str>,
    partition: i32,
    settled: OnceLock<Settled>,
    waiting: Mutex<Vec<Waker>>,
}

#[derive(Debug)]
enum Settled {
    Written(Written),
    Failed(SendError),
    /// The batches that its records are in now, each with the index of its first record in this one.
    Split(Box<[(u32, Arc<Fate>)]>),
}

/// Either is negative if it is not known.
#[derive(Debug, Clone, Copy)]
struct Written {
    base_offset: i64,
    log_append_time: i64,
}

impl Written {
    fn at(base_offset: Option<i64>) -> Self {
        Self { base_offset: base_offset.unwrap_or(-1), log_append_time: -1 }
    }

    #[inline]
    fn of_record(self, index: u32, timestamp: i64, batch: Arc<Fate>) -> RecordMetadata {
        RecordMetadata {
            partition: batch.partition,
            offset: (self.base_offset >= 0).then(|| self.base_offset + i64::from(index)),
            timestamp: if self.log_append_time >= 0 { self.log_append_time } else { timestamp },
            batch,
        }
    }
}

impl Fate {
    pub(super) fn new(topic: Arc<str>, partition: i32) -> Self {
        Self { topic, partition, settled: OnceLock::new(), waiting: Mutex::new(Vec::new()) }
    }

    /// Wakes everyone who waits for a record of the batch. Only the first outcome counts.
    pub(super) fn resolve(&self, outcome: Outcome) {
        self.settle(match outcome {
            Outcome::Written { base_offset, log_append_time } => Settled::Written(Written {
                log_append_time: log_append_time.unwrap_or(-1),
                ..Written::at(base_offset)
            }),
            Outcome::Failed(failure) => {
                let at = TopicPartition::new(self.topic.clone(), self.partition);
                Settled::Failed(SendError::of(failure, at))
            }
        });
    }

    /// Hands the records over to smaller batches; `firsts` are the indices of their first records, growing from 0.
    ///
    /// From now on only the fates returned matter. Who waits is woken, because only the task itself knows which of them
    /// it has to wait for. Returns none if the batch has an outcome already: then there is nothing to hand over.
    pub(super) fn split(&self, firsts: &[u32]) -> Vec<Arc<Fate>> {
        debug_assert!(firsts.first() == Some(&0) && firsts.is_sorted());
        let part = |first: &u32| (*first, Arc::new(Self::new(self.topic.clone(), self.partition)));
        let parts: Box<[_]> = firsts.iter().map(part).collect();
        let fates = parts.iter().map(|(_, fate)| fate.clone()).collect();
        match !firsts.is_empty() && self.settle(Settled::Split(parts)) {
            true => fates,
            false => Vec::new(),
        }
    }

    /// `false` if it was settled before.
    fn settle(&self, settled: Settled) -> bool {
        let first = self.settled.set(settled).is_ok();
        if first {
            // Woken outside of the lock: they look at once.
            let waiting = std::mem::take(&mut *self.waiting.lock());
            waiting.into_iter().for_each(Waker::wake);
        }
        first
    }

    /// What became of one record, if that is known.
    pub(super) fn of_record(
        self: &Arc<Self>,
        index: u32,
        timestamp: i64,
    ) -> Option<Result<RecordMetadata, SendError>> {
        Some(match self.settled.get()? {
            Settled::Written(written) => Ok(written.of_record(index, timestamp, self.clone())),
            Settled::Failed(error) => Err(error.clone()),
            Settled::Split(parts) => {
                let (first, part) = part_of(parts, index);
                return part.of_record(index - first, timestamp);
            }
        })
    }

    /// The fate of every record is known.
    pub(super) fn is_resolved(&self) -> bool {
        match self.settled.get() {
            Some(Settled::Split(parts)) => parts.iter().all(|(_, part)| part.is_resolved()),
            settled => settled.is_some(),
        }
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn partition(&self) -> i32 {
        self.partition
    }

    /// Leaves a waker and returns its place, plus one, unless the fate is settled. `place` is where one was left before.
    fn wait(&self, cx: &Context<'_>, place: u32) -> Option<u32> {
        let mut waiting = self.waiting.lock();
        if self.settled.get().is_some() {
            return None;
        }
        // A task that waits for many records of a batch leaves one waker. Wakers are never replaced, because
        // another delivery may count on the same one.
        let mine = place.checked_sub(1).and_then(|place| waiting.get(place as usize));
        let there = mine.or(waiting.last()).is_some_and(|waker| waker.will_wake(cx.waker()));
        if !there {
            waiting.push(cx.waker().clone());
        }
        Some(if there && place > 0 { place } else { waiting.len() as u32 })
    }
}

/// The part that holds the record with this index in the whole, and the index of the part's first record.
fn part_of(parts: &[(u32, Arc<Fate>)], index: u32) -> (u32, &Arc<Fate>) {
    let behind = parts.partition_point(|(first, _)| *first <= index);
    let (first, part) = &parts[behind.saturating_sub(1)];
    (*first, part)
}

/// The acknowledgement of one accepted record.
///
/// Polled again after it has resolved to metadata, it panics, as most futures do; an error is told again.
///
/// # Cancel safety
///
/// Dropping it loses only the answer; the record is sent all the same. Polling it (by `&mut`) and stopping loses
/// nothing.
#[must_use = "the record is sent, but only this tells whether it was acknowledged"]
pub struct Delivery {
    /// The metadata take it along.
    fate: Option<Arc<Fate>>,
    at: At,
    timestamp: i64,
}

/// The index of the record in its batch, and the place of the delivery's waker among those of the batch, plus one.
///
/// One number, because two halves that were written one by one cannot be copied as a whole at once: the CPU would wait
/// until they have reached its cache.
#[derive(Clone, Copy)]
struct At(u64);

impl At {
    #[inline]
    fn new(index: u32, place: u32) -> Self {
        Self(u64::from(place) << 32 | u64::from(index))
    }

    #[inline]
    fn index(self) -> u32 {
        self.0 as u32
    }

    fn place(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl Delivery {
    #[inline]
    pub(super) fn new(fate: Arc<Fate>, index: u32, timestamp: i64) -> Self {
        Self { fate: Some(fate), at: At::new(index, 0), timestamp }
    }

    fn settled(topic: Arc<str>, partition: i32, timestamp: i64, settled: Settled) -> Self {
        let fate = Arc::new(Fate::new(topic, partition));
        fate.settle(settled);
        Self::new(fate, 0, timestamp)
    }

    /// A delivery that is acknowledged already, for whoever stands in for a producer in a test.
    pub fn acknowledged(metadata: RecordMetadata) -> Self {
        let RecordMetadata { partition, offset, timestamp, batch } = metadata;
        Self::settled(batch.topic.clone(), partition, timestamp, Settled::Written(Written::at(offset)))
    }

    /// A delivery that has failed already, for whoever stands in for a producer in a test.
    pub fn failed(topic: impl Into<Arc<str>>, partition: i32, error: SendError) -> Self {
        Self::settled(topic.into(), partition, 0, Settled::Failed(error))
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

    /// Looks at everything but the common case; the error is boxed to keep what is returned small.
    #[cold]
    fn look(
        &mut self,
        mut fate: Arc<Fate>,
        cx: &Context<'_>,
    ) -> Poll<Result<RecordMetadata, Box<SendError>>> {
        loop {
            match fate.settled.get() {
                Some(Settled::Written(written)) => {
                    let written = *written;
                    return Poll::Ready(Ok(written.of_record(self.at.index(), self.timestamp, fate)));
                }
                Some(Settled::Failed(error)) => {
                    let error = Box::new(error.clone());
                    self.fate = Some(fate);
                    return Poll::Ready(Err(error));
                }
                Some(Settled::Split(parts)) => {
                    let (first, part) = part_of(parts, self.at.index());
                    self.at = At::new(self.at.index() - first, 0);
                    fate = part.clone();
                }
                None => {
                    if let Some(place) = fate.wait(cx, self.at.place()) {
                        self.at = At::new(self.at.index(), place);
                        self.fate = Some(fate);
                        return Poll::Pending;
                    }
                    // Settled while this asked for the lock.
                }
            }
        }
    }

    /// The topic the record goes to; empty once this has resolved to metadata, which tell it from then on.
    pub fn topic(&self) -> &str {
        self.fate.as_ref().map_or("", |fate| fate.topic())
    }

    /// The partition the record goes to; -1 once this has resolved to metadata, which tell it from then on.
    pub fn partition(&self) -> i32 {
        self.fate.as_ref().map_or(-1, |fate| fate.partition())
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
        self.fate.settle(Settled::Written(Written::at(offset.into())));
    }

    /// The record is not acknowledged.
    pub fn fail(self, error: SendError) {
        self.fate.settle(Settled::Failed(error));
    }
}

impl Drop for PendingDelivery {
    fn drop(&mut self) {
        self.fate.settle(Settled::Failed(SendError::Closed { maybe_written: true }));
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, SendError>;

    #[inline]
    #[allow(clippy::panic, reason = "as every future of std and tokio that is polled after it has resolved")]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(fate) = this.fate.take() else { panic!("delivery polled after it resolved") };
        match fate.settled.get() {
            Some(Settled::Written(written)) => {
                let written = *written;
                Poll::Ready(Ok(written.of_record(this.at.index(), this.timestamp, fate)))
            }
            _ => this.look(fate, cx).map_err(|error| *error),
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Delivery");
        debug.field("topic", &self.topic()).field("partition", &self.partition());
        debug.field("index", &self.at.index()).finish_non_exhaustive()
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
        fate.resolve(Outcome::Failed(klamm_core::producer::Failure::Unsealable { maybe_written: false }));
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

    fn look(delivery: &mut Delivery, count: &Arc<Count>) -> Poll<Result<RecordMetadata, SendError>> {
        let waker = Waker::from(count.clone());
        Pin::new(delivery).poll(&mut Context::from_waker(&waker))
    }

    fn offset(delivery: &mut Delivery) -> Option<i64> {
        match look(delivery, &Arc::default()) {
            Poll::Ready(Ok(metadata)) => metadata.offset,
            other => panic!("{other:?}"),
        }
    }

    /// Goal: a record is found in whichever batch it ends up in, also when that one was too large again.
    #[test]
    fn records_of_a_split_batch_share_the_fate_of_the_part_they_are_in() {
        let fate = Arc::new(Fate::new("t".into(), 3));
        let task = Arc::<Count>::default();
        let mut deliveries: Vec<_> = (0..9).map(|i| Delivery::new(fate.clone(), i, 40)).collect();
        assert!(deliveries.iter_mut().all(|delivery| look(delivery, &task).is_pending()));
        let parts = fate.split(&[0, 2, 5]);
        assert_eq!((parts.len(), task.0.load(Ordering::SeqCst)), (3, 1), "woken once, to look where to wait");
        assert!(fate.split(&[0, 1]).is_empty(), "split already");
        assert_eq!(fate.wait(&Context::from_waker(Waker::noop()), 0), None, "too late to wait here");
        fate.resolve(written(7_000));
        assert!(deliveries.iter_mut().all(|delivery| look(delivery, &task).is_pending()));
        assert!(parts.iter().all(|part| part.waiting.lock().len() == 1));

        let again = parts[1].split(&[0, 1]);
        parts[0].resolve(written(100));
        parts[2].resolve(Outcome::Failed(klamm_core::producer::Failure::Unsealable { maybe_written: false }));
        again[1].resolve(written(300));
        assert!(!fate.is_resolved());
        assert!(fate.of_record(2, 0).is_none());
        assert_eq!(fate.of_record(4, 0).unwrap().unwrap().offset, Some(301));
        again[0].resolve(written(200));
        assert!(fate.is_resolved());
        assert_eq!(task.0.load(Ordering::SeqCst), 4, "two splits, two outcomes");
        let offsets: Vec<_> = deliveries[..5].iter_mut().map(offset).collect();
        assert_eq!(offsets, [100, 101, 200, 300, 301].map(Some));
        for delivery in &mut deliveries[5..] {
            assert!(matches!(look(delivery, &task), Poll::Ready(Err(SendError::Compression { .. }))));
            assert_eq!((delivery.topic(), delivery.partition()), ("t", 3));
        }
    }

    /// Goal: however looking, splitting and resolving interleave, no task sleeps for ever.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "real threads, for the moments that no seed chooses")]
    fn nobody_is_forgotten_who_looks_while_a_batch_is_split_and_resolved() {
        const RECORDS: u32 = 6;
        for round in 0..2_000 {
            let fate = Arc::new(Fate::new("t".into(), 0));
            let (told, news) = std::sync::mpsc::channel();
            let ready = Arc::new(std::sync::Barrier::new(3));
            for first in [0, RECORDS / 2] {
                let deliveries = (first..RECORDS).step_by(2).map(|i| Delivery::new(fate.clone(), i, 0));
                let deliveries: Vec<_> = deliveries.collect();
                let (told, ready) = (told.clone(), ready.clone());
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    ready.wait();
                    let all = runtime.block_on(futures::future::join_all(deliveries));
                    let offset = |written: Result<RecordMetadata, _>| written.unwrap().offset.unwrap();
                    told.send((first, all.into_iter().map(offset).collect::<Vec<_>>())).unwrap();
                });
            }
            ready.wait();
            for _ in 0..round {
                std::hint::spin_loop();
            }
            let parts = fate.split(&[0, 1, 4]);
            parts[2].resolve(written(4));
            let again = parts[1].split(&[0, 2]);
            again[0].resolve(written(1));
            again[1].resolve(written(3));
            parts[0].resolve(written(0));
            for _ in 0..2 {
                let (first, offsets) = news.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
                assert_eq!(offsets, (i64::from(first)..i64::from(RECORDS)).step_by(2).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    #[should_panic = "delivery polled after it resolved"]
    fn a_delivery_resolves_once() {
        let mut delivery = Delivery::acknowledged(RecordMetadata::new("t", 0, 7));
        assert_eq!(offset(&mut delivery), Some(7));
        let _ = look(&mut delivery, &Arc::default());
    }

    #[test]
    fn an_error_is_told_again() {
        let mut delivery = Delivery::failed("t", 0, SendError::Compression { maybe_written: false });
        for _ in 0..2 {
            let told = look(&mut delivery, &Arc::default());
            assert!(matches!(told, Poll::Ready(Err(SendError::Compression { .. }))));
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
        let failed = Delivery::failed("t", 2, SendError::Compression { maybe_written: false });
        assert_eq!((failed.topic(), failed.partition()), ("t", 2));
        assert!(matches!(look(failed), Poll::Ready(Err(SendError::Compression { .. }))));
        let (delivery, pending) = Delivery::pending("t", 0);
        pending.fail(SendError::Compression { maybe_written: false });
        assert!(matches!(look(delivery), Poll::Ready(Err(SendError::Compression { .. }))));
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
