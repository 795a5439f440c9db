//! Where an application puts records: a [`Producer`], or whatever stands in for it in a test.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::producer::guard::guarded;
use crate::producer::{Callback, Delivery, Producer, RecordMetadata, SendError, TrySendError};
use crate::record::Record;
use crate::rt::Rt;

/// Sends records. [`Producer`] implements it; so does `MockProducer` (feature `mock`).
///
/// Code that takes a `RecordSink` is tested without a network. It is made to be kept as a trait object, and every
/// method means what the method of [`Producer`] of the same name means.
///
/// ```
/// use std::sync::Arc;
/// use klamm::{Record, RecordSink, SendError};
///
/// struct Shop {
///     orders: Arc<dyn RecordSink>,
/// }
///
/// impl Shop {
///     async fn order(&self, customer: &str, what: &str) -> Result<Option<i64>, SendError> {
///         let record = Record::new("orders").key(customer.to_owned()).value(what.to_owned());
///         Ok(self.orders.send_and_wait(record).await?.offset)
///     }
/// }
/// ```
pub trait RecordSink<K = Bytes, V = Bytes>: Send + Sync {
    /// Accepts one record and returns its [`Delivery`], which resolves when the record is acknowledged.
    ///
    /// # Errors
    ///
    /// The record was not accepted and is not sent: [`SendError::recovery`] says what to do.
    ///
    /// # Cancel safety
    ///
    /// Before the record is accepted, dropping the future means that it is never sent.
    fn send(&self, record: Record<K, V>) -> BoxFuture<'_, Result<Delivery, SendError>>;

    /// Accepts one record, and runs the callback once with what becomes of it.
    ///
    /// The default is made of [`send`](Self::send): the callback runs on a task of its own, so callbacks have no order.
    ///
    /// # Errors
    ///
    /// The record was not accepted and is not sent, and the callback was dropped without being called.
    ///
    /// # Cancel safety
    ///
    /// Before the record is accepted, dropping the future means that it is never sent and the callback never called.
    fn send_with_callback(
        &self,
        record: Record<K, V>,
        callback: Callback,
    ) -> BoxFuture<'_, Result<(), SendError>> {
        let accepted = self.send(record);
        Box::pin(async move {
            let delivery = accepted.await?;
            let tell = async move {
                let outcome = delivery.await;
                guarded("callback", "a sink", || callback(outcome));
            };
            match Rt::without_chance() {
                Ok(rt) => rt.spawn(tell).detach(),
                Err(_) => tell.await, // nowhere to do it later
            }
            Ok(())
        })
    }

    /// Accepts one record at once, or gives it back with the reason.
    ///
    /// # Errors
    ///
    /// The record was not accepted.
    fn try_send(&self, record: Record<K, V>) -> Result<Delivery, TrySendError<K, V>>;

    /// Sends one record and waits until it is acknowledged.
    ///
    /// # Errors
    ///
    /// See [`SendError::recovery`] for what to do. Errors where [`SendError::maybe_written`] is `true` can leave a
    /// duplicate if the record is sent again.
    ///
    /// # Cancel safety
    ///
    /// Before the record is accepted, dropping the future means that it is never sent. Afterwards it is sent and
    /// only the answer is lost.
    fn send_and_wait(&self, record: Record<K, V>) -> BoxFuture<'_, Result<RecordMetadata, SendError>>;

    /// Sends everything that was accepted before without lingering, and returns when all of it is acknowledged or
    /// failed; which of the two, deliveries and callbacks tell.
    ///
    /// # Errors
    ///
    /// Returns [`SendError::Closed`] if the sink is closed meanwhile, and [`SendError::InCallback`] from within a callback
    /// that it would wait for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends only the wait.
    fn flush(&self) -> BoxFuture<'_, Result<(), SendError>>;

    /// Accepts nothing more, flushes for at most `timeout`, then fails what is left.
    ///
    /// # Errors
    ///
    /// Returns [`SendError::TimedOut`] if records were left, and [`SendError::InCallback`] from within a callback that it
    /// would wait for; the sink is closed all the same.
    ///
    /// # Cancel safety
    ///
    /// Once it has been polled, dropping the future leaves the sink closed for new records, and sending what it has until
    /// `timeout` is over.
    fn close(&self, timeout: Duration) -> BoxFuture<'_, Result<(), SendError>>;
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> RecordSink<K, V> for Producer<K, V> {
    fn send(&self, record: Record<K, V>) -> BoxFuture<'_, Result<Delivery, SendError>> {
        Box::pin(self.send(record))
    }

    fn send_with_callback(
        &self,
        record: Record<K, V>,
        callback: Callback,
    ) -> BoxFuture<'_, Result<(), SendError>> {
        Box::pin(self.send_with_callback(record, callback))
    }

    fn try_send(&self, record: Record<K, V>) -> Result<Delivery, TrySendError<K, V>> {
        self.try_send(record)
    }

    fn send_and_wait(&self, record: Record<K, V>) -> BoxFuture<'_, Result<RecordMetadata, SendError>> {
        Box::pin(self.send_and_wait(record))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), SendError>> {
        Box::pin(self.flush())
    }

    fn close(&self, timeout: Duration) -> BoxFuture<'_, Result<(), SendError>> {
        Box::pin(self.clone().close(timeout))
    }
}

macro_rules! behind_a_pointer {
    ($($pointer:ty),*) => {$(
        impl<K, V, S: RecordSink<K, V> + ?Sized> RecordSink<K, V> for $pointer {
            fn send(&self, record: Record<K, V>) -> BoxFuture<'_, Result<Delivery, SendError>> {
                (**self).send(record)
            }

            fn send_with_callback(
                &self,
                record: Record<K, V>,
                callback: Callback,
            ) -> BoxFuture<'_, Result<(), SendError>> {
                (**self).send_with_callback(record, callback)
            }

            fn try_send(&self, record: Record<K, V>) -> Result<Delivery, TrySendError<K, V>> {
                (**self).try_send(record)
            }

            fn send_and_wait(
                &self,
                record: Record<K, V>,
            ) -> BoxFuture<'_, Result<RecordMetadata, SendError>> {
                (**self).send_and_wait(record)
            }

            fn flush(&self) -> BoxFuture<'_, Result<(), SendError>> {
                (**self).flush()
            }

            fn close(&self, timeout: Duration) -> BoxFuture<'_, Result<(), SendError>> {
                (**self).close(timeout)
            }
        }
    )*};
}

behind_a_pointer!(Arc<S>, Box<S>);
