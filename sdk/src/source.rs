//! Where an application gets records from: a [`Consumer`], or whatever stands in for it in a test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use klamm_core::TopicPartition;

use crate::consumer::{Consumer, ConsumerError, ConsumerRecord, StartOffset};

/// What a look-up of offsets gives.
pub type Offsets = BTreeMap<TopicPartition, i64>;

/// Reads records of assigned partitions. [`Consumer`] implements it; so does `MockConsumer` (feature `mock`).
///
/// Code that takes a `RecordSource` is tested without a network. It is made to be kept as a trait object, and every
/// method means what the method of [`Consumer`] of the same name means.
///
/// ```
/// use klamm::{ConsumerError, RecordSource};
///
/// async fn count_until_closed(source: &dyn RecordSource) -> Result<usize, ConsumerError> {
///     let mut count = 0;
///     loop {
///         match source.recv().await {
///             Ok(_) => count += 1,
///             Err(ConsumerError::Closed) => return Ok(count),
///             Err(error) => return Err(error),
///         }
///     }
/// }
/// ```
pub trait RecordSource<K = Bytes, V = Bytes>: Send + Sync {
    /// Reads exactly these partitions from now on, each from the start given.
    fn assign(&self, partitions: Vec<(TopicPartition, StartOffset)>);

    /// The assigned partitions.
    fn assignment(&self) -> Vec<TopicPartition>;

    /// Waits for the next record; within a partition, offsets only grow.
    ///
    /// The position moves behind the record when this returns it. There is no end: when everything is read, this
    /// waits.
    ///
    /// # Errors
    ///
    /// See [`ConsumerError::recovery`]; the next call goes on.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: a record is taken only in the moment it is returned.
    fn recv(&self) -> BoxFuture<'_, Result<ConsumerRecord<K, V>, ConsumerError>>;

    /// Returns up to `max_records` records as soon as there is at least one; none after `wait`.
    ///
    /// # Errors
    ///
    /// As [`Self::recv`]. An error behind records is kept for the next call.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    fn poll(
        &self,
        max_records: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<ConsumerRecord<K, V>>, ConsumerError>>;

    /// Goes on elsewhere in an assigned partition.
    ///
    /// # Errors
    ///
    /// Returns [`ConsumerError::NotAssigned`] if it is not assigned.
    fn seek(&self, partition: &TopicPartition, to: StartOffset) -> Result<(), ConsumerError>;

    /// Offset of the record that is handed out next; waits until it is known.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`], or [`ConsumerError::TimedOut`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    fn position<'a>(&'a self, partition: &'a TopicPartition) -> BoxFuture<'a, Result<i64, ConsumerError>>;

    /// Hands out nothing of these partitions until [`Self::resume`].
    fn pause(&self, partitions: &[TopicPartition]);

    /// Goes on with these partitions.
    fn resume(&self, partitions: &[TopicPartition]);

    /// The first offset there is, for each partition.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NoLeader`], [`ConsumerError::Refused`] or [`ConsumerError::TimedOut`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    fn beginning_offsets<'a>(
        &'a self,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Offsets, ConsumerError>>;

    /// The offset of the next record to be written, for each partition.
    ///
    /// # Errors
    ///
    /// As [`Self::beginning_offsets`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    fn end_offsets<'a>(
        &'a self,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Offsets, ConsumerError>>;

    /// Ends the source: calls that wait, and all later ones, return [`ConsumerError::Closed`].
    ///
    /// # Errors
    ///
    /// None yet; committing positions will have some.
    ///
    /// # Cancel safety
    ///
    /// It may be called again.
    fn close(&self) -> BoxFuture<'_, Result<(), ConsumerError>>;
}

impl<K: Send + 'static, V: Send + 'static> RecordSource<K, V> for Consumer<K, V> {
    fn assign(&self, partitions: Vec<(TopicPartition, StartOffset)>) {
        self.assign(partitions);
    }

    fn assignment(&self) -> Vec<TopicPartition> {
        self.assignment()
    }

    fn recv(&self) -> BoxFuture<'_, Result<ConsumerRecord<K, V>, ConsumerError>> {
        Box::pin(self.recv())
    }

    fn poll(
        &self,
        max_records: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<ConsumerRecord<K, V>>, ConsumerError>> {
        Box::pin(self.poll(max_records, wait))
    }

    fn seek(&self, partition: &TopicPartition, to: StartOffset) -> Result<(), ConsumerError> {
        self.seek(partition, to)
    }

    fn position<'a>(&'a self, partition: &'a TopicPartition) -> BoxFuture<'a, Result<i64, ConsumerError>> {
        Box::pin(self.position(partition))
    }

    fn pause(&self, partitions: &[TopicPartition]) {
        self.pause(partitions);
    }

    fn resume(&self, partitions: &[TopicPartition]) {
        self.resume(partitions);
    }

    fn beginning_offsets<'a>(
        &'a self,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Offsets, ConsumerError>> {
        Box::pin(self.beginning_offsets(partitions))
    }

    fn end_offsets<'a>(
        &'a self,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Offsets, ConsumerError>> {
        Box::pin(self.end_offsets(partitions))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), ConsumerError>> {
        Box::pin(self.close())
    }
}

macro_rules! behind_a_pointer {
    ($($pointer:ty),*) => {$(
        impl<K, V, S: RecordSource<K, V> + ?Sized> RecordSource<K, V> for $pointer {
            fn assign(&self, partitions: Vec<(TopicPartition, StartOffset)>) {
                (**self).assign(partitions);
            }

            fn assignment(&self) -> Vec<TopicPartition> {
                (**self).assignment()
            }

            fn recv(&self) -> BoxFuture<'_, Result<ConsumerRecord<K, V>, ConsumerError>> {
                (**self).recv()
            }

            fn poll(
                &self,
                max_records: usize,
                wait: Duration,
            ) -> BoxFuture<'_, Result<Vec<ConsumerRecord<K, V>>, ConsumerError>> {
                (**self).poll(max_records, wait)
            }

            fn seek(&self, partition: &TopicPartition, to: StartOffset) -> Result<(), ConsumerError> {
                (**self).seek(partition, to)
            }

            fn position<'a>(
                &'a self,
                partition: &'a TopicPartition,
            ) -> BoxFuture<'a, Result<i64, ConsumerError>> {
                (**self).position(partition)
            }

            fn pause(&self, partitions: &[TopicPartition]) {
                (**self).pause(partitions);
            }

            fn resume(&self, partitions: &[TopicPartition]) {
                (**self).resume(partitions);
            }

            fn beginning_offsets<'a>(
                &'a self,
                partitions: &'a [TopicPartition],
            ) -> BoxFuture<'a, Result<Offsets, ConsumerError>> {
                (**self).beginning_offsets(partitions)
            }

            fn end_offsets<'a>(
                &'a self,
                partitions: &'a [TopicPartition],
            ) -> BoxFuture<'a, Result<Offsets, ConsumerError>> {
                (**self).end_offsets(partitions)
            }

            fn close(&self) -> BoxFuture<'_, Result<(), ConsumerError>> {
                (**self).close()
            }
        }
    )*};
}

behind_a_pointer!(Arc<S>, Box<S>);
