//! `MockProducer` and `MockConsumer`, made by mockall.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use klamm_core::TopicPartition;

use crate::consumer::{ConsumerError, ConsumerRecord, StartOffset};
use crate::producer::{Delivery, RecordMetadata, SendError, TrySendError};
use crate::record::Record;
use crate::sink::RecordSink;
use crate::source::{Offsets, RecordSource};

/// A [`RecordSink`] that does what a test expects of it; see the [module](super) for an example.
///
/// Futures are part of an expectation: [`answer`] makes one that is ready, [`never()`] one that is not.
pub type MockProducer<K = Bytes, V = Bytes> = MockRecordSink<K, V>;

/// A [`RecordSource`] that does what a test expects of it.
///
/// ```
/// use klamm::mock::{MockConsumer, answer};
/// use klamm::{ConsumerError, ConsumerRecord, RecordSource};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut consumer: MockConsumer = MockConsumer::new();
/// consumer.expect_recv().times(1).returning(|| answer(Ok(ConsumerRecord::new("orders", 0, 7).value("3 apples"))));
/// consumer.expect_recv().returning(|| answer(Err(ConsumerError::Closed)));
///
/// assert_eq!(consumer.recv().await.unwrap().offset, 7);
/// assert!(consumer.recv().await.is_err());
/// # });
/// ```
pub type MockConsumer<K = Bytes, V = Bytes> = MockRecordSource<K, V>;

/// A future that is ready: what most expectations return.
pub fn answer<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

/// A future that is never ready: a broker that does not answer, a topic with nothing more in it.
pub fn never<T: Send + 'static>() -> BoxFuture<'static, T> {
    Box::pin(std::future::pending())
}

mockall::mock! {
    /// See [`MockProducer`].
    #[derive(Debug)]
    pub RecordSink<K: Send + Sync + 'static, V: Send + Sync + 'static> {}

    impl<K: Send + Sync + 'static, V: Send + Sync + 'static> RecordSink<K, V> for RecordSink<K, V> {
        fn send(&self, record: Record<K, V>) -> BoxFuture<'static, Result<Delivery, SendError>>;
        fn try_send(&self, record: Record<K, V>) -> Result<Delivery, TrySendError<K, V>>;
        fn send_and_wait(
            &self,
            record: Record<K, V>,
        ) -> BoxFuture<'static, Result<RecordMetadata, SendError>>;
        fn flush(&self) -> BoxFuture<'static, Result<(), SendError>>;
        fn close(&self, timeout: Duration) -> BoxFuture<'static, Result<(), SendError>>;
    }
}

mockall::mock! {
    /// See [`MockConsumer`].
    #[derive(Debug)]
    pub RecordSource<K: Send + Sync + 'static, V: Send + Sync + 'static> {}

    impl<K: Send + Sync + 'static, V: Send + Sync + 'static> RecordSource<K, V> for RecordSource<K, V> {
        fn assign(&self, partitions: Vec<(TopicPartition, StartOffset)>);
        fn assignment(&self) -> Vec<TopicPartition>;
        fn recv(&self) -> BoxFuture<'static, Result<ConsumerRecord<K, V>, ConsumerError>>;
        fn poll(
            &self,
            max_records: usize,
            wait: Duration,
        ) -> BoxFuture<'static, Result<Vec<ConsumerRecord<K, V>>, ConsumerError>>;
        fn seek(&self, partition: &TopicPartition, to: StartOffset) -> Result<(), ConsumerError>;
        fn position(&self, partition: &TopicPartition) -> BoxFuture<'static, Result<i64, ConsumerError>>;
        fn pause(&self, partitions: &[TopicPartition]);
        fn resume(&self, partitions: &[TopicPartition]);
        fn beginning_offsets(
            &self,
            partitions: &[TopicPartition],
        ) -> BoxFuture<'static, Result<Offsets, ConsumerError>>;
        fn end_offsets(
            &self,
            partitions: &[TopicPartition],
        ) -> BoxFuture<'static, Result<Offsets, ConsumerError>>;
        fn close(&self) -> BoxFuture<'static, Result<(), ConsumerError>>;
    }
}
