//! The chain of interceptors, and the task that tells them what became of each record.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::interceptor::Interceptor;
use crate::record::Record;

use super::delivery::RecordMetadata;
use super::driver::Told;
use super::error::SendError;
use super::slot::Accumulator;

/// Interceptors in the order in which they see a record.
pub(super) struct Chain<K, V>(pub(super) Arc<[Arc<dyn Interceptor<K, V>>]>);

impl<K: 'static, V: 'static> Chain<K, V> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Shows the record to each interceptor until one refuses it.
    pub(super) fn on_send(&self, record: &mut Record<K, V>) -> Result<(), SendError> {
        for interceptor in self.0.iter() {
            if let Some(Err(refusal)) = guarded("on_send", || interceptor.on_send(record)) {
                return Err(SendError::Refused { source: refusal.into() });
            }
        }
        Ok(())
    }

    fn on_acknowledgement(&self, topic: &str, partition: i32, outcome: Result<&RecordMetadata, &SendError>) {
        for interceptor in self.0.iter() {
            guarded("on_acknowledgement", || interceptor.on_acknowledgement(topic, partition, outcome));
        }
    }

    /// Tells what became of records until nobody can bring more, then what is held in `buffer.memory` is free.
    pub(super) async fn tell(self, mut told: mpsc::UnboundedReceiver<Told>, accumulator: Arc<Accumulator>) {
        while let Some(news) = told.recv().await {
            match news {
                Told::Resolved(fate, timestamps) => {
                    for (index, timestamp) in (0_u32..).zip(timestamps) {
                        let Some(outcome) = fate.of_record(index, timestamp) else { break };
                        self.on_acknowledgement(fate.topic(), fate.partition(), outcome.as_ref());
                    }
                    // User code may be slow: let others run between batches.
                    tokio::task::yield_now().await;
                }
                Told::Freed(bytes) => accumulator.memory.give_back(bytes),
            }
        }
    }
}

impl<K, V> Clone for Chain<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Runs code of the user's; `None` if it panicked, which is reported.
fn guarded<T>(what: &'static str, call: impl FnOnce() -> T) -> Option<T> {
    let outcome = catch_unwind(AssertUnwindSafe(call));
    if outcome.is_err() {
        tracing::error!(what, "interceptor panicked; going on without it for this record");
    }
    outcome.ok()
}
