//! Code of the application's that sees every record on its way in, and what was committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use klamm_core::TopicPartition;
use klamm_core::group::{CommittedOffset, Offsets};
use tokio::sync::mpsc;

use super::record::ConsumerRecord;
use crate::producer::guard::guarded;
use crate::rt::{Rt, Task};

/// Sees every record behind the deserializers, and what was committed (`interceptor.classes`, KIP-42).
///
/// Interceptors run in the order they were added. One that panics is reported through `tracing` with its [name](Self::name),
/// and the others go on as if it had not been there: the next one sees the record as the last good one left it.
///
/// Batches that are handed out as they are ([`recv_batch`](crate::Consumer::recv_batch)) pass by the deserializers, and by
/// interceptors, too. So do records that the [`PoisonPolicy`](super::PoisonPolicy) is about.
///
/// ```
/// use std::collections::BTreeMap;
/// use klamm::{CommittedOffset, Consumer, ConsumerInterceptor, ConsumerRecord, TopicPartition};
///
/// struct Audit;
///
/// impl ConsumerInterceptor for Audit {
///     fn on_consume(&self, record: &mut ConsumerRecord) {
///         println!("{}-{} at {}", record.topic, record.partition, record.offset);
///     }
///
///     fn on_commit(&self, offsets: &BTreeMap<TopicPartition, CommittedOffset>) {
///         println!("committed {offsets:?}");
///     }
/// }
/// # let _ = Consumer::builder().interceptor(Audit);
/// ```
pub trait ConsumerInterceptor<K = Bytes, V = Bytes>: Send + Sync + 'static {
    /// Runs in the task that reads, before the record is returned. It may change the record.
    fn on_consume(&self, record: &mut ConsumerRecord<K, V>) {
        let _ = record;
    }

    /// The coordinator has accepted these offsets, by whichever way they were committed. Runs off the consumer's tasks, in the
    /// order of the commits: a slow one delays nothing but the next one's.
    fn on_commit(&self, offsets: &BTreeMap<TopicPartition, CommittedOffset>) {
        let _ = offsets;
    }

    /// What reports call it. Default: the name of its type.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }
}

/// One interceptor, and how to keep a record as it was before it.
struct Member<K, V> {
    interceptor: Arc<dyn ConsumerInterceptor<K, V>>,
    copy: fn(&ConsumerRecord<K, V>) -> ConsumerRecord<K, V>,
}

impl<K, V> Clone for Member<K, V> {
    fn clone(&self) -> Self {
        Self { interceptor: self.interceptor.clone(), copy: self.copy }
    }
}

/// Interceptors in the order in which they see a record.
pub(super) struct Chain<K, V>(Vec<Member<K, V>>);

impl<K, V> Clone for Chain<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for Chain<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: 'static, V: 'static> Chain<K, V> {
    pub(super) fn push(&mut self, interceptor: impl ConsumerInterceptor<K, V>)
    where
        K: Clone,
        V: Clone,
    {
        self.0.push(Member { interceptor: Arc::new(interceptor), copy: ConsumerRecord::clone });
    }

    /// Shows a record to each.
    #[inline]
    pub(super) fn consumed(&self, record: &mut ConsumerRecord<K, V>) {
        for Member { interceptor, copy } in &self.0 {
            let before = copy(record);
            if guarded("on_consume", interceptor.name(), || interceptor.on_consume(record)).is_none() {
                *record = before;
            }
        }
    }
}

/// Hears of commits.
trait Audience: Send + Sync {
    fn committed(&self, offsets: &Offsets);
}

impl<K: 'static, V: 'static> Audience for Chain<K, V> {
    fn committed(&self, offsets: &Offsets) {
        for Member { interceptor, .. } in &self.0 {
            guarded("on_commit", interceptor.name(), || interceptor.on_commit(offsets));
        }
    }
}

/// Tells interceptors of commits, one after the other. Whoever commits waits for each answer, so what is queued stays small.
#[derive(Debug, Default)]
pub(super) struct Teller(Option<mpsc::UnboundedSender<Offsets>>);

impl Teller {
    /// One for these interceptors; its task ends when it was dropped and everything is told.
    pub(super) fn new<K: 'static, V: 'static>(rt: &Rt, chain: &Arc<Chain<K, V>>) -> Self {
        if chain.0.is_empty() {
            return Self(None);
        }
        let (tell, mut told) = mpsc::unbounded_channel();
        let (audience, runtime): (Arc<dyn Audience>, _) = (chain.clone(), rt.clone());
        let telling: Task = rt.spawn(async move {
            while let Some(offsets) = told.recv().await {
                let audience = audience.clone();
                runtime.offload(move || audience.committed(&offsets)).await;
            }
        });
        telling.detach();
        Self(Some(tell))
    }

    /// Whether anybody wants to know.
    pub(super) fn listens(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn committed(&self, offsets: Offsets) {
        if let Some(tell) = &self.0 {
            // It ends only with the runtime.
            let _ = tell.send(offsets);
        }
    }
}
