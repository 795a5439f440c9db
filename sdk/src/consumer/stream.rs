//! One partition read for itself: by a task of its own, beside the others.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use klamm_core::TopicPartition;

use super::decode::Decoder;
use super::error::ConsumerError;
use super::group::Group;
use super::record::ConsumerRecord;
use super::shared::{Lane, Shared, StreamCaller};
use super::view::BatchView;
use super::{Arrival, Reading};

/// The records of one assigned partition, apart from those of the others ([`Consumer::partition_stream`]).
///
/// It belongs to nobody: give it to a task, and partitions are decoded, deserialized and processed in parallel. One that is
/// slow holds back its own fetches only. It keeps at most its share of `prefetch_max_bytes` queued (at least one answer, at most two, of
/// `max.partition.fetch.bytes`), and no memory of others waits for it.
///
/// Dropping it loses nothing: the partition is read by [`Consumer::recv`] and its like again, from the record behind the last
/// one that this stream gave. To read no more of it, [pause](crate::Consumer::pause) it.
///
/// It ends when the partition is taken away by a rebalance, [`Consumer::assign`], [`Consumer::unassign`] or
/// [`Consumer::unsubscribe`], and when the consumer is closed or dropped. Errors do not end it.
///
/// With automatic commits, a record is done when *this* stream is asked for the next one, and not because others ask. If it is
/// dropped instead, that says nothing about its last record: it is done when the task that dropped the stream asks for more, of this
/// consumer, in whatever way. A task that ends (because the record could not be processed) never does: then the record is not
/// committed, nor what lies behind it, and after `max.poll.interval.ms` the member counts as stalled, so that whoever gets the
/// partition next reads the record again. `commit_record` says that it is done all the same.
///
/// [`Consumer::partition_stream`]: crate::Consumer::partition_stream
/// [`Consumer::recv`]: crate::Consumer::recv
/// [`Consumer::pause`]: crate::Consumer::pause
/// [`Consumer::assign`]: crate::Consumer::assign
/// [`Consumer::unassign`]: crate::Consumer::unassign
/// [`Consumer::unsubscribe`]: crate::Consumer::unsubscribe
#[must_use = "the partition is read together with the others again when this is dropped"]
pub struct PartitionStream<K = Bytes, V = Bytes> {
    shared: Arc<Shared>,
    group: Arc<Group>,
    decoder: Arc<Decoder<K, V>>,
    lane: Arc<Lane>,
    partition: TopicPartition,
    /// Set while the stream is polled and has nothing.
    arrival: Arrival,
    caller: StreamCaller,
}

impl<K, V> fmt::Debug for PartitionStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionStream({})", self.partition)
    }
}

impl<K, V> Drop for PartitionStream<K, V> {
    fn drop(&mut self) {
        self.shared.rejoin(&self.lane);
    }
}

impl<K: 'static, V: 'static> PartitionStream<K, V> {
    pub(super) fn new(
        shared: Arc<Shared>,
        group: Arc<Group>,
        decoder: Arc<Decoder<K, V>>,
        lane: Arc<Lane>,
        partition: TopicPartition,
    ) -> Self {
        let caller = StreamCaller::new(shared.clone());
        Self { shared, group, decoder, lane, partition, arrival: None, caller }
    }

    /// Topic and partition.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// As [`Consumer::recv`](crate::Consumer::recv), for this partition.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`] or [`ConsumerError::Closed`] once the stream has ended; else as
    /// [`Consumer::recv`](crate::Consumer::recv).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: a record is taken only in the moment it is returned.
    pub async fn recv(&self) -> Result<ConsumerRecord<K, V>, ConsumerError> {
        self.reading().recv(|| self.caller.asking()).await
    }

    /// As [`Consumer::recv_batch`](crate::Consumer::recv_batch), for this partition.
    ///
    /// # Errors
    ///
    /// As [`Self::recv`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: a batch is taken only in the moment it is returned.
    pub async fn recv_batch(&self) -> Result<BatchView, ConsumerError> {
        self.reading().recv_batch(|| self.caller.asking()).await
    }

    #[inline]
    fn reading(&self) -> Reading<'_, K, V> {
        let Self { shared, group, lane, decoder, .. } = self;
        Reading { shared, group, lane, decoder }
    }
}

impl<K: 'static, V: 'static> Stream for PartitionStream<K, V> {
    type Item = Result<ConsumerRecord<K, V>, ConsumerError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut arrival = self.arrival.take();
        let item = self.reading().poll_record(&|| self.caller.asking(), &mut arrival, cx);
        self.arrival = arrival;
        item.map(|item| match item {
            Err(ConsumerError::Closed | ConsumerError::NotAssigned { .. }) => None,
            item => Some(item),
        })
    }
}
