//! Reads records of partitions that were chosen by hand, or that a consumer group gave.
//!
//! ```text
//! assign, seek ─▶ Fetcher (klamm-core) ◀─ fetch task ◀─ brokers
//!                    │ chunks as they were fetched
//!                    ▼
//! recv, poll ─▶ ChunkReader ─▶ Deserializer ─▶ ConsumerRecord
//! ```
//!
//! Invariant: what decodes, decompresses or runs code of the application runs in the task that reads.

mod budget;
mod builder;
mod decode;
mod drive;
mod error;
mod group;
mod intercept;
mod labels;
mod lock;
mod offsets;
mod record;
mod shared;
mod store;
mod strategy;
mod stream;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, Stream};
use klamm_core::consumer::Event;
use klamm_core::{Tick, TopicPartition};
use tokio::sync::futures::OwnedNotified;

use self::decode::Decoder;
use self::group::{Asking, Caller, Group, Offsets, Waiting};
use self::shared::{Lane, Shared, StreamCaller};
use crate::error::ConfigError;
use crate::rt::Task;

pub use builder::ConsumerBuilder;
pub use decode::PoisonPolicy;
pub use error::{ConsumerError, RecordPart};
pub use group::{CommitError, PatternError, RebalanceContext, RebalanceListener};
pub use intercept::ConsumerInterceptor;
pub use klamm_core::consumer::{ChunkError, Isolation, OffsetReset, StartOffset, Watermarks};
pub use klamm_core::group::{CommittedOffset, Fatal as GroupError, Reason as RebalanceReason};
pub use record::{ConsumerRecord, RecordHeader, TimestampType};
pub use store::{
    FileOffsetStore, FileStoreError, OffsetStore, OffsetStoreError, StoredOffset, StoredOffsets,
};
pub use strategy::{AssignmentStrategy, CustomAssignor};
pub use stream::PartitionStream;
pub use view::{BatchView, RecordView, RecordViews};

/// Reads records of partitions chosen by hand ([`assign`](Self::assign)), or given by its group ([`subscribe`](Self::subscribe)).
///
/// Share it by reference or in an `Arc`: every method takes `&self`, and tasks that read at the same time get
/// different records. With automatic commits each task, and each stream, is done with what it got when it asks for more itself, of
/// this consumer or of one of its partitions;
/// one that takes a record and ends has to say so ([`commit_record`](Self::commit_record)). Fetching goes on in the background, bounded by
/// [`prefetch_max_bytes`](ConsumerBuilder::prefetch_max_bytes), until the consumer is closed or dropped;
/// dropping it never waits.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use klamm::{Consumer, StartOffset};
///
/// let consumer = Consumer::builder().bootstrap_servers("localhost:9092").build()?;
/// consumer.assign([(("files", 0), StartOffset::Beginning), (("files", 1), StartOffset::Beginning)]);
/// loop {
///     let record = consumer.recv().await?;
///     println!("{}-{} {}: {:?}", record.topic, record.partition, record.offset, record.value);
/// }
/// # }
/// ```
pub struct Consumer<K = Bytes, V = Bytes> {
    shared: Arc<Shared>,
    group: Arc<Group>,
    /// Ends with the consumer.
    _task: Task,
    decoder: Arc<Decoder<K, V>>,
}

impl<K: 'static, V: 'static> fmt::Debug for Consumer<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("assignment", &self.assignment()).finish_non_exhaustive()
    }
}

impl Consumer {
    /// Starts to describe a consumer, with Kafka's defaults.
    pub fn builder() -> ConsumerBuilder {
        ConsumerBuilder::new()
    }

    /// A builder filled from Kafka properties, for example `[("bootstrap.servers", "localhost:9092")]`.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] for the first impossible value, and for the first name that is unknown (with the
    /// nearest known one) or not supported yet.
    pub fn from_properties<N: AsRef<str>, T: AsRef<str>>(
        properties: impl IntoIterator<Item = (N, T)>,
    ) -> Result<ConsumerBuilder, ConfigError> {
        ConsumerBuilder::from_properties(properties)
    }
}

impl<K, V> Drop for Consumer<K, V> {
    fn drop(&mut self) {
        // The task holds the group, which holds the task.
        self.group.abandon();
    }
}

impl<K: 'static, V: 'static> Consumer<K, V> {
    fn start(shared: Arc<Shared>, group: Arc<Group>, task: Task, decoder: Decoder<K, V>) -> Self {
        Self { shared, group, _task: task, decoder: Arc::new(decoder) }
    }

    /// Reads exactly these partitions from now on, each from the start given. Replaces what was assigned
    /// before; what was fetched and not handed out is dropped.
    ///
    /// No group shares the partitions out, but with a `group.id` its offsets can be used: [`StartOffset::Committed`] begins
    /// there, [`Self::commit`] and automatic commits write them. The group must have no members then. Of a consumer that has
    /// subscribed the next call for records says [`ConsumerError::Subscribed`], and the group's assignment stays.
    pub fn assign<P: Into<TopicPartition>>(&self, partitions: impl IntoIterator<Item = (P, StartOffset)>) {
        if self.shared.is_closed() {
            return;
        }
        let partitions: Vec<_> = partitions.into_iter().map(|(name, start)| (name.into(), start)).collect();
        let committed = partitions.iter().filter(|(_, start)| *start == StartOffset::Committed);
        let committed: Vec<_> = committed.map(|(name, _): &(TopicPartition, _)| name.clone()).collect();
        let taken = self.group.take_by_hand().and_then(|()| {
            self.shared.assign(partitions);
            self.group.begin_by_hand(committed)
        });
        if let Err(error) = taken {
            self.shared.stash(error);
            self.shared.common.arrived.notify_waiters();
        }
    }

    /// Reads these topics as a member of the group `group.id`, which shares their partitions among its members; without one,
    /// of the group `default`. Replaces what was subscribed to before, and its listener; the same topics once more replace the
    /// listener only, and disturb nobody: a new listener is not told what is owned already, and hears when that goes.
    ///
    /// Joining goes on in the background: partitions come when the group agrees, and are read from the offsets that the group
    /// committed, else as `auto.offset.reset` says. Topics that do not exist yet are read once they do. If nobody calls
    /// [`Self::recv`], [`Self::poll`] or a stream for `max.poll.interval.ms`, others get the partitions; also if somebody keeps
    /// records for so long without asking for more: a stream, and with automatic commits a task.
    ///
    /// What was assigned by hand is dropped.
    pub fn subscribe<T: Into<Arc<str>>>(&self, topics: impl IntoIterator<Item = T>) {
        self.subscribe_to(topics, None);
    }

    /// As [`Self::subscribe`], with a listener for partitions that come and go.
    pub fn subscribe_with<T: Into<Arc<str>>>(
        &self,
        topics: impl IntoIterator<Item = T>,
        listener: impl RebalanceListener,
    ) {
        self.subscribe_to(topics, Some(Arc::new(listener)));
    }

    /// As [`Self::subscribe`], for all topics whose whole name matches a regular expression (in the syntax of the crate
    /// `regex-lite`: no look-around, no back references; names of topics are ASCII).
    ///
    /// Topics that are created later, or deleted, are noticed with the next refresh of the metadata (`metadata.max.age.ms`), and
    /// the group rebalances. A pattern that matches nothing yet waits. Kafka's own topics match only with
    /// [`exclude_internal_topics(false)`](ConsumerBuilder::exclude_internal_topics). No topic is created, whatever
    /// `allow.auto.create.topics` says. What was subscribed to before is read until the brokers have told their topics.
    ///
    /// # Errors
    ///
    /// [`PatternError`] if the pattern is none; then nothing has changed.
    pub fn subscribe_pattern(&self, pattern: &str) -> Result<(), PatternError> {
        self.subscribe_to_pattern(pattern, None)
    }

    /// As [`Self::subscribe_pattern`], with a listener for partitions that come and go.
    ///
    /// # Errors
    ///
    /// As [`Self::subscribe_pattern`].
    pub fn subscribe_pattern_with(
        &self,
        pattern: &str,
        listener: impl RebalanceListener,
    ) -> Result<(), PatternError> {
        self.subscribe_to_pattern(pattern, Some(Arc::new(listener)))
    }

    fn subscribe_to_pattern(
        &self,
        pattern: &str,
        listener: Option<Arc<dyn RebalanceListener>>,
    ) -> Result<(), PatternError> {
        if self.shared.is_closed() {
            return Ok(());
        }
        self.group.subscribe_pattern(pattern, listener)
    }

    fn subscribe_to<T: Into<Arc<str>>>(
        &self,
        topics: impl IntoIterator<Item = T>,
        listener: Option<Arc<dyn RebalanceListener>>,
    ) {
        if self.shared.is_closed() {
            return;
        }
        let topics: BTreeSet<Arc<str>> = topics.into_iter().map(Into::into).collect();
        self.group.subscribe(topics, listener);
    }

    /// Leaves the group: everything is revoked, with automatic commits what is done is committed, and others take over.
    /// Returns when that is done, at most after `default.api.timeout.ms`, or `request.timeout.ms` if that is longer. From then on
    /// nothing can be committed ([`CommitError::NotOwned`]) until partitions are assigned by hand, or it subscribes again: others may be further.
    ///
    /// # Cancel safety
    ///
    /// It goes on in the background.
    pub async fn unsubscribe(&self) {
        self.group.unsubscribe().await;
    }

    /// Commits the positions of all partitions that are assigned or owned: behind every record that was handed out, with the
    /// leader epoch of the last one (KIP-320). Call it when you are done with what you were given: also with what other tasks and
    /// streams were given, or else use [`Self::commit_records`].
    ///
    /// # Errors
    ///
    /// See [`CommitError::recovery`]. Without membership [`CommitError::NoGroup`] if no `group.id` is set, and
    /// [`CommitError::HasMembers`] if others subscribed under it. After [`CommitError::NotOwned`] and [`CommitError::Expelled`] others read again what was
    /// not committed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up waiting; the offsets may be committed.
    pub async fn commit(&self) -> Result<(), CommitError> {
        self.group.commit_positions().await
    }

    /// For tests: ends without a word to the group, as a process that dies.
    #[doc(hidden)]
    pub fn vanish(&self) {
        self.group.vanish();
    }

    /// Commits these offsets, each of the next record to be read, as numbers or as [`CommittedOffset`]s with leader epoch and
    /// metadata. The partitions have to be this member's; of who has never subscribed, or assigned by hand since, any will do.
    ///
    /// Of several commits of a partition that are under way the one that began last counts: an earlier one that the
    /// coordinator refused for a while is not tried again behind it, and ends as it does.
    ///
    /// # Errors
    ///
    /// As [`Self::commit`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::commit`].
    pub async fn commit_offsets<P: Into<TopicPartition>, O: Into<CommittedOffset>>(
        &self,
        offsets: impl IntoIterator<Item = (P, O)>,
    ) -> Result<(), CommitError> {
        let offsets = offsets.into_iter().map(|(name, at)| (name.into(), at.into())).collect();
        self.group.commit(offsets).await
    }

    /// Begins to commit the positions as [`Self::commit`] does, at once and without waiting; the future tells what became of it. Where
    /// the partitions are given up meanwhile, by a rebalance or because the consumer is closed or dropped, that waits for the commit:
    /// at most half of the time that there is.
    ///
    /// # Errors
    ///
    /// As [`Self::commit`].
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped: the commit goes on, and only its outcome is lost.
    pub fn commit_async(&self) -> impl Future<Output = Result<(), CommitError>> + Send + 'static + use<K, V> {
        self.group.commit_in_passing()
    }

    /// Commits that this record is done, and everything before it in its partition.
    ///
    /// # Errors
    ///
    /// As [`Self::commit`]. [`CommitError::NotOwned`] also if it was read before others had the partition, who have committed more:
    /// the group is not taken back.
    ///
    /// # Cancel safety
    ///
    /// As [`Self::commit`].
    pub async fn commit_record<T, U>(&self, record: &ConsumerRecord<T, U>) -> Result<(), CommitError> {
        self.group.commit_read(done([record])).await
    }

    /// Commits that these records are done, and everything before the last of them in each partition.
    ///
    /// # Errors
    ///
    /// As [`Self::commit_record`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::commit`].
    pub async fn commit_records<'a, T: 'a, U: 'a>(
        &self,
        records: impl IntoIterator<Item = &'a ConsumerRecord<T, U>>,
    ) -> Result<(), CommitError> {
        self.group.commit_read(done(records)).await
    }

    /// What the group has committed, also of partitions that other members have; `None` where there is nothing.
    ///
    /// # Errors
    ///
    /// [`CommitError::NoGroup`] without subscription and `group.id`, [`CommitError::Refused`], or
    /// [`CommitError::TimedOut`] after `default.api.timeout.ms`.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Option<CommittedOffset>>, CommitError> {
        self.group.committed(partitions).await
    }

    /// Stops reading. [`Self::recv`] then waits until something is assigned again.
    pub fn unassign(&self) {
        self.assign(Vec::<(TopicPartition, StartOffset)>::new());
    }

    /// The assigned partitions.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.machine().fetcher.assignment().cloned().collect()
    }

    /// Goes on elsewhere in an assigned partition.
    ///
    /// # Errors
    ///
    /// Returns [`ConsumerError::NotAssigned`] if it is not assigned, and [`ConsumerError::NoGroup`] for
    /// [`StartOffset::Committed`] without `group.id`.
    pub fn seek(&self, partition: &TopicPartition, to: StartOffset) -> Result<(), ConsumerError> {
        self.group.seek(partition, to)
    }

    /// Offset of the record that is handed out next. Waits until it is known, at most
    /// `default.api.timeout.ms`: the start of an assignment may have to be looked up.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`], or [`ConsumerError::TimedOut`].
    pub async fn position(&self, partition: &TopicPartition) -> Result<i64, ConsumerError> {
        let rt = self.shared.client.rt();
        let waited = self.shared.client.settings().api_timeout();
        let deadline = rt.now().saturating_add(waited);
        loop {
            let arrived = self.shared.common.arrived.notified();
            match self.shared.position(partition) {
                None => return Err(ConsumerError::NotAssigned { partition: partition.clone() }),
                Some(Some(offset)) => return Ok(offset),
                Some(None) => {}
            }
            if rt.before(deadline, arrived).await.is_none() {
                let partition = partition.clone();
                return Err(ConsumerError::TimedOut { partition, waited, last: None });
            }
        }
    }

    /// How far the log of an assigned partition reaches, as the broker told with the last fetch: nobody is asked, and before the
    /// first answer there is `None`. While a partition is paused or has much fetched ahead this grows old;
    /// [`Self::beginning_offsets`] and [`Self::end_offsets`] ask.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`].
    pub fn watermarks(&self, partition: &TopicPartition) -> Result<Option<Watermarks>, ConsumerError> {
        self.outlook(partition).map(|(_, watermarks)| watermarks)
    }

    /// How many offsets of an assigned partition are left to be handed out, as far as the last fetch tells: up to the high
    /// watermark, or with `read_committed` up to the first offset of the oldest open transaction. `None` before the first answer.
    /// Nobody is asked: see [`Self::watermarks`]. What a whole group has left, as it is committed, is told by
    /// [`Admin::group_lag`](crate::Admin::group_lag).
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`].
    pub fn lag(&self, partition: &TopicPartition) -> Result<Option<i64>, ConsumerError> {
        let (position, watermarks) = self.outlook(partition)?;
        let end = watermarks.and_then(|told| match self.shared.settings.isolation {
            Isolation::ReadUncommitted => Some(told.high),
            Isolation::ReadCommitted => told.last_stable,
        });
        Ok(position.zip(end).map(|(position, end)| end.saturating_sub(position).max(0)))
    }

    fn outlook(
        &self,
        partition: &TopicPartition,
    ) -> Result<(Option<i64>, Option<Watermarks>), ConsumerError> {
        let unassigned = || ConsumerError::NotAssigned { partition: partition.clone() };
        self.shared.outlook(partition).ok_or_else(unassigned)
    }

    /// Hands out nothing of these partitions until [`Self::resume`]. Others go on; what was fetched is kept.
    pub fn pause<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        self.shared.pause(partitions.into_iter().cloned().collect());
    }

    /// Goes on with these partitions.
    pub fn resume<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        self.shared.step(Event::Resume(partitions.into_iter().cloned().collect()));
    }

    /// The first offset there is, for each partition; they need not be assigned.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NoLeader`], [`ConsumerError::Refused`] or, after `default.api.timeout.ms`,
    /// [`ConsumerError::TimedOut`].
    pub async fn beginning_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, i64>, ConsumerError> {
        self.bounds(partitions, -2).await
    }

    /// The offset of the next record to be written, for each partition; they need not be assigned. With
    /// `read_committed`, the first offset of the oldest open transaction if there is one.
    ///
    /// # Errors
    ///
    /// As [`Self::beginning_offsets`].
    pub async fn end_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, i64>, ConsumerError> {
        self.bounds(partitions, -1).await
    }

    async fn bounds(
        &self,
        partitions: &[TopicPartition],
        code: i64,
    ) -> Result<BTreeMap<TopicPartition, i64>, ConsumerError> {
        let wanted = partitions.iter().map(|name| (name.clone(), code)).collect();
        let found = offsets::look_up(&self.shared, wanted).await?;
        Ok(found.into_iter().map(|(name, listed)| (name, listed.offset)).collect())
    }

    /// The first record, for each partition, whose timestamp (milliseconds since the Unix epoch) is not
    /// earlier: its offset and its timestamp; `None` if there is no such record.
    ///
    /// # Errors
    ///
    /// As [`Self::beginning_offsets`].
    pub async fn offsets_for_times(
        &self,
        times: impl IntoIterator<Item = (TopicPartition, i64)>,
    ) -> Result<BTreeMap<TopicPartition, Option<(i64, i64)>>, ConsumerError> {
        let wanted = times.into_iter().map(|(name, ms)| (name, ms.max(0))).collect();
        let found = offsets::look_up(&self.shared, wanted).await?;
        let offset = |listed: klamm_core::consumer::ListedOffset| {
            (listed.offset >= 0).then_some((listed.offset, listed.timestamp_ms))
        };
        Ok(found.into_iter().map(|(name, listed)| (name, offset(listed))).collect())
    }

    /// Waits for the next record. Partitions take turns, chunk by chunk; within one, offsets only grow.
    ///
    /// The position moves behind the record when this returns it. There is no end: without an assignment, or
    /// when everything is read, this waits. Decompresses in the calling task.
    ///
    /// # Errors
    ///
    /// See [`ConsumerError::recovery`]; the next call goes on. Transient troubles are no errors: the consumer
    /// retries by itself.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: a record is taken only in the moment it is returned.
    pub async fn recv(&self) -> Result<ConsumerRecord<K, V>, ConsumerError> {
        self.recv_as(by_task).await
    }

    #[inline]
    fn recv_as(
        &self,
        asking: impl Fn() -> Asking,
    ) -> impl Future<Output = Result<ConsumerRecord<K, V>, ConsumerError>> {
        self.reading().recv(asking)
    }

    /// All partitions that have no reader of their own.
    #[inline]
    fn reading(&self) -> Reading<'_, K, V> {
        let Self { shared, group, decoder, .. } = self;
        Reading { shared, group, lane: &shared.common, decoder }
    }

    /// Waits for the next batch as its producer wrote it, or for what is left of it: the cheapest way to read. Its records are
    /// decoded when they are looked at, and neither deserialized nor shown to interceptors.
    ///
    /// The position moves behind the whole batch when this returns it. May be mixed with [`Self::recv`].
    ///
    /// # Errors
    ///
    /// As [`Self::recv`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: a batch is taken only in the moment it is returned.
    pub async fn recv_batch(&self) -> Result<BatchView, ConsumerError> {
        self.reading().recv_batch(by_task).await
    }

    /// Returns up to `max_records` records as soon as there is at least one; none after `wait`. For none at all this waits as long: the
    /// caller is done with what it had, and takes part in its group.
    ///
    /// # Errors
    ///
    /// As [`Self::recv`]. An error behind records is kept for the next call.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn poll(
        &self,
        max_records: usize,
        wait: Duration,
    ) -> Result<Vec<ConsumerRecord<K, V>>, ConsumerError> {
        self.poll_as(by_task, max_records, wait).await
    }

    async fn poll_as(
        &self,
        asking: impl Fn() -> Asking,
        max_records: usize,
        wait: Duration,
    ) -> Result<Vec<ConsumerRecord<K, V>>, ConsumerError> {
        let rt = self.shared.client.rt();
        let deadline = rt.now().saturating_add(wait);
        let mut records = Vec::new();
        if max_records == 0 {
            return self.attend(asking(), deadline).await.map(|()| records);
        }
        match rt.before(deadline, std::pin::pin!(self.recv_as(&asking))).await {
            None => return Ok(records),
            Some(first) => records.push(first?),
        }
        let common = &self.shared.common;
        let mut raw = None;
        while records.len() < max_records {
            let next = match self.shared.next_record(common, asking(), false, &mut raw) {
                Ok(true) if self.decoder.passes() => Ok(self.decoder.pass(&mut raw)),
                Ok(true) => match raw.take() {
                    Some(raw) => self.decoder.decode(&self.shared, common, raw),
                    None => Ok(None),
                },
                Ok(false) => break,
                Err(error) => Err(error),
            };
            match next {
                Ok(record) => records.extend(record),
                Err(error) => {
                    self.shared.stash(error);
                    break;
                }
            }
        }
        Ok(records)
    }

    /// Asks for records without taking any.
    async fn attend(&self, asking: Asking, deadline: Tick) -> Result<(), ConsumerError> {
        let shared = &self.shared;
        shared.asks(asking);
        self.group.came_back();
        let _waiting = self.group.wait(None);
        loop {
            let mut arrived = std::pin::pin!(shared.common.arrived.notified());
            arrived.as_mut().enable();
            if shared.is_closed() {
                return Err(ConsumerError::Closed);
            }
            if let Some(error) = shared.unstash(|_| true) {
                return Err(error);
            }
            if shared.client.rt().before(deadline, arrived).await.is_none() {
                return Ok(());
            }
        }
    }

    /// All records as a stream, which ends when the consumer is closed. Dropping it loses nothing: what it gave last is done when the
    /// task that dropped it asks for more, of this consumer, in whatever way.
    pub fn stream(&self) -> impl Stream<Item = Result<ConsumerRecord<K, V>, ConsumerError>> + Send + '_
    where
        K: Send,
        V: Send,
    {
        let (caller, mut arrival) = (self.caller(), None);
        futures::stream::poll_fn(move |cx| {
            let item = self.reading().poll_record(&|| caller.asking(), &mut arrival, cx);
            item.map(|item| Some(item).filter(|item| !matches!(item, Err(ConsumerError::Closed))))
        })
    }

    /// All records as a stream of what is there at once, at least one and at most
    /// [`max_poll_records`](ConsumerBuilder::max_poll_records) of them.
    pub fn batches(&self) -> impl Stream<Item = Result<Vec<ConsumerRecord<K, V>>, ConsumerError>> + Send + '_
    where
        K: Send,
        V: Send,
    {
        futures::stream::unfold((self, self.caller()), |(consumer, caller)| async move {
            let most = consumer.shared.settings.max_poll_records;
            match consumer.poll_as(|| caller.asking(), most, Duration::MAX).await {
                Err(ConsumerError::Closed) => None,
                item => Some((item, (consumer, caller))),
            }
        })
    }

    /// For a stream of all partitions.
    fn caller(&self) -> StreamCaller {
        StreamCaller::new(self.shared.clone())
    }

    /// Stops fetching and drops what was not handed out. Calls that wait, and all later ones, return
    /// [`ConsumerError::Closed`]; records already handed out stay valid.
    ///
    /// A member of a group gives up its partitions and leaves the group first, so that others take over at once (a static one
    /// does not leave). What [`Self::commit_async`] began is waited for. With automatic commits, what is done is committed: not the records of the last call, because nobody
    /// knows whether they were processed; [`Self::commit`] says so. This takes at most `default.api.timeout.ms`, or `request.timeout.ms` if that is
    /// longer, in which a commit gets half of what is left. For a consumer that is dropped a task does the same, within `request.timeout.ms`; where
    /// the runtime ends as well, others get the partitions after `session.timeout.ms`.
    ///
    /// # Errors
    ///
    /// None yet.
    ///
    /// # Cancel safety
    ///
    /// Once it has been polled, dropping the future ends only the wait: the consumer is closed all the same, as long as the
    /// runtime lives. Whoever calls this again waits for the same.
    pub async fn close(&self) -> Result<(), ConsumerError> {
        self.group.close().await;
        Ok(())
    }

    /// The records of one assigned partition, apart from the others: what is read together leaves it out as long as the stream
    /// lives. The stream is a task's own, so that partitions are processed in parallel.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`]; [`ConsumerError::ReadApart`] if it has a stream already.
    pub fn partition_stream(
        &self,
        partition: &TopicPartition,
    ) -> Result<PartitionStream<K, V>, ConsumerError> {
        let partition = partition.clone();
        match self.shared.set_apart(&partition) {
            None => Err(ConsumerError::NotAssigned { partition }),
            Some(None) => Err(ConsumerError::ReadApart { partition }),
            Some(Some(lane)) => {
                let (shared, group) = (self.shared.clone(), self.group.clone());
                Ok(PartitionStream::new(shared, group, self.decoder.clone(), lane, partition))
            }
        }
    }

    /// A stream for each assigned partition that has none, now and whenever one is assigned. It ends when the consumer is closed; an
    /// error says why the membership failed ([`ConsumerError::Group`]).
    ///
    /// A partition whose stream is dropped is offered again, so that nothing is left unread; whoever gives one up for good
    /// [pauses](Self::pause) it and leaves the stream alive.
    ///
    /// ```no_run
    /// # async fn run(consumer: klamm::Consumer) -> Result<(), klamm::ConsumerError> {
    /// use futures::StreamExt;
    ///
    /// let mut partitions = std::pin::pin!(consumer.partition_streams());
    /// while let Some(partition) = partitions.next().await {
    ///     let mut records = partition?;
    ///     tokio::spawn(async move {
    ///         while let Some(record) = records.next().await {
    ///             println!("{record:?}");
    ///         }
    ///     });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn partition_streams(
        &self,
    ) -> impl Stream<Item = Result<PartitionStream<K, V>, ConsumerError>> + Send + '_ {
        futures::stream::unfold(self, |consumer| async move {
            let shared = &consumer.shared;
            shared.asks_elsewhere(Caller::task());
            loop {
                let mut arrived = std::pin::pin!(shared.common.arrived.notified());
                arrived.as_mut().enable();
                if shared.is_closed() {
                    return None;
                }
                if let Some(error) = shared.unstash(|error| matches!(error, ConsumerError::Group { .. })) {
                    return Some((Err(error), consumer));
                }
                match shared.undivided().map(|partition| consumer.partition_stream(&partition)) {
                    Some(Ok(stream)) => return Some((Ok(stream), consumer)),
                    Some(Err(_)) => {} // it went meanwhile
                    None => {
                        let _waiting = consumer.group.wait(None);
                        arrived.await;
                    }
                }
            }
        })
    }

    /// Whole batches as a stream, which ends when the consumer is closed: see [`Self::recv_batch`].
    pub fn batch_views(&self) -> impl Stream<Item = Result<BatchView, ConsumerError>> + Send + '_ {
        futures::stream::unfold((self, self.caller()), |(consumer, caller)| async move {
            match consumer.reading().recv_batch(|| caller.asking()).await {
                Err(ConsumerError::Closed) => None,
                item => Some((item, (consumer, caller))),
            }
        })
    }
}

/// The task that runs asks.
fn by_task() -> Asking {
    [Caller::task(); 2]
}

/// A lane, and what is needed to read it.
struct Reading<'a, K, V> {
    shared: &'a Shared,
    group: &'a Arc<Group>,
    lane: &'a Arc<Lane>,
    decoder: &'a Decoder<K, V>,
}

/// What a call for records waits with, once it has found none.
type Arrival = Option<(Pin<Box<OwnedNotified>>, Waiting)>;

impl<'a, K: 'static, V: 'static> Reading<'a, K, V> {
    /// Waits for the next record. One future, polled by one function: a record is moved as seldom as possible.
    #[inline]
    fn recv(
        self,
        asking: impl Fn() -> Asking,
    ) -> impl Future<Output = Result<ConsumerRecord<K, V>, ConsumerError>> {
        let mut arrival = None;
        std::future::poll_fn(move |cx| self.poll_record(&asking, &mut arrival, cx))
    }

    /// Waits for the next batch.
    fn recv_batch(
        self,
        asking: impl Fn() -> Asking,
    ) -> impl Future<Output = Result<BatchView, ConsumerError>> {
        let mut arrival = None;
        std::future::poll_fn(move |cx| {
            let mut found = None;
            loop {
                let next = || self.shared.next_batch(self.lane, asking(), &mut found);
                std::task::ready!(self.poll(&mut arrival, cx, next))?;
                if let Some(batch) = found {
                    return Poll::Ready(Ok(batch));
                }
            }
        })
    }

    #[inline]
    fn poll_record(
        &self,
        asking: &impl Fn() -> Asking,
        arrival: &mut Arrival,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ConsumerRecord<K, V>, ConsumerError>> {
        let Self { shared, lane, decoder, .. } = self;
        let (mut raw, mut made) = (None, None);
        loop {
            let next = || {
                if !shared.next_record(lane, asking(), true, &mut raw)? {
                    return Ok(false);
                }
                if !decoder.passes()
                    && let Some(raw) = raw.take()
                {
                    // One that is left out is followed by another, when others have had their turn.
                    made = decoder.decode(shared, lane, raw)?;
                }
                Ok(true)
            };
            std::task::ready!(self.poll(arrival, cx, next))?;
            if let Some(record) = made.take().or_else(|| decoder.pass(&mut raw)) {
                return Poll::Ready(Ok(record));
            }
        }
    }

    /// Ready when `find` says that it has found something; else the task is woken when there may be something to find.
    #[inline]
    fn poll(
        &self,
        arrival: &mut Arrival,
        cx: &mut Context<'_>,
        mut find: impl FnMut() -> Result<bool, ConsumerError>,
    ) -> Poll<Result<(), ConsumerError>> {
        // A reader that always finds records must leave room for the fetch task on the same thread.
        let budget = std::task::ready!(tokio::task::coop::poll_proceed(cx));
        loop {
            let found = find();
            self.group.came_back();
            if !matches!(found, Ok(false)) {
                budget.made_progress();
                // Whoever works on what it has does not wait, though its stream lives on.
                *arrival = None;
                return Poll::Ready(found.map(drop));
            }
            std::task::ready!(self.poll_arrival(arrival, cx));
        }
    }

    /// Ready when somebody has to look again: when something arrived, and once when the call begins to wait.
    #[cold]
    fn poll_arrival(&self, arrival: &mut Arrival, cx: &mut Context<'_>) -> Poll<()> {
        let waits = arrival.is_some();
        let (arrived, _) = arrival.get_or_insert_with(|| {
            (Box::pin(self.lane.arrived.clone().notified_owned()), self.group.wait(Some(self.lane)))
        });
        match arrived.poll_unpin(cx) {
            // What comes from now on wakes the task; what came before that must be looked for.
            Poll::Pending if waits => Poll::Pending,
            Poll::Pending => Poll::Ready(()),
            Poll::Ready(()) => {
                *arrival = None;
                Poll::Ready(())
            }
        }
    }
}

/// Behind these records, by partition.
fn done<'a, K: 'a, V: 'a>(records: impl IntoIterator<Item = &'a ConsumerRecord<K, V>>) -> Offsets {
    let mut offsets = Offsets::new();
    for record in records {
        let at = CommittedOffset::new(record.offset + 1).leader_epoch(record.leader_epoch);
        let known = offsets.entry(record.topic_partition()).or_default();
        if at.offset > known.offset {
            *known = at;
        }
    }
    offsets
}
