//! Sends records.
//!
//! ```text
//! send: interceptors ▸ metadata ▸ serializers ▸ partitioner ▸ room ▸ open batch     (the caller's task)
//!                                                                   │ one note for each batch
//!       Delivery ◀─ resolves ─ sender ◀─────────────────────────────┘               (one task)
//! ```
//!
//! The sender's decisions are `klamm_core::producer`; `driver` carries them out.

mod attached;
mod builder;
mod clock;
mod delivery;
mod driver;
mod error;
mod futures_sink;
pub(crate) mod guard;
mod inbox;
mod intercept;
mod memory;
mod place;
mod slot;
mod split;
mod spread;
#[cfg(test)]
mod tests;
mod topics;

use std::any::type_name;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, Sink};
use klamm_core::Tick;
use klamm_wire::BatchBuilder;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::client::Client;
use crate::error::ConfigError;
use crate::metrics::{BufferMeter, Meter};
use crate::record::Record;
use crate::rt::Task;
use crate::serializer::{SerializeError, Serializer};

use attached::{Attachment, Audience};
use builder::Checked;
use driver::{Counts, Driver, Setup};
use futures_sink::FuturesSink;
use inbox::Note;
use intercept::{Chain, Member, Teller, Underway, is_telling};
use memory::Memory;
use slot::{Accumulator, Appended, Encoded, HEADER_BYTES, Pick};
use spread::Spreader;
use topics::Topic;

pub use attached::Callback;
pub use builder::ProducerBuilder;
pub use delivery::{Delivery, PendingDelivery, RecordMetadata};
pub use error::{SendError, TrySendError};
pub use klamm_core::producer::Acks;

/// Sends records to a Kafka cluster.
///
/// Clones share one sender, one buffer and one set of connections. [`close`](Self::close) before the last clone
/// is dropped: a drop does not wait, and says by a warning how many records it gave up.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use klamm::{Producer, Record};
/// let producer: Producer = Producer::builder().bootstrap_servers("localhost:9092").build()?;
/// let delivery = producer.send(Record::new("greetings").key("en").value("hello")).await?;
/// println!("written at {:?}", delivery.await?.offset);
/// producer.close(std::time::Duration::from_secs(30)).await?;
/// # Ok(())
/// # }
/// ```
pub struct Producer<K = Bytes, V = Bytes> {
    inner: Arc<Inner<K, V>>,
}

struct Inner<K, V> {
    accumulator: Arc<Accumulator>,
    settings: Checked,
    key_serializer: Arc<dyn Serializer<K>>,
    value_serializer: Arc<dyn Serializer<V>>,
    chain: Arc<Chain<K, V>>,
    scratch: Mutex<Vec<Scratch>>,
    uses_scratch: bool,
    closed: AtomicBool,
    counts: Arc<Counts>,
    tasks: Mutex<Tasks>,
}

/// The sender and the teller.
enum Tasks {
    Running(Task, Task),
    /// They belong to the closing.
    Closing(Verdict),
}

/// Whether all records were acknowledged or failed before the time of a closing was over, and were told.
type Verdict = Shared<BoxFuture<'static, bool>>;

/// Where serializers write that cannot hand out what is there already.
#[derive(Debug, Default)]
struct Scratch {
    key: Vec<u8>,
    value: Vec<u8>,
}

/// What callbacks may take beyond the time limit of [`Producer::close`]: they may have heard only then.
const GRACE: Duration = Duration::from_secs(1);
/// Scratches kept for callers that serialize at the same time.
const MOST_SCRATCHES: usize = 64;

/// Why a record was not accepted at once. Boxed where it is returned: it is rare, and what is common stays small.
enum Stuck<'a> {
    Failed(SendError),
    NoRoom {
        /// Bytes for a new batch.
        price: usize,
        pick: Pick,
        encoded: Encoded<'a>,
    },
}

/// The end of the time that `send` may wait, once it has begun to wait.
#[derive(Debug, Default)]
struct Budget {
    began: Option<Tick>,
}

impl Producer {
    /// Starts to describe a producer; the defaults are Kafka's.
    pub fn builder() -> ProducerBuilder {
        ProducerBuilder::new()
    }

    /// A builder filled from Kafka properties, for example `[("bootstrap.servers", "localhost:9092")]`.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] for the first impossible value, and for the first name that is unknown (with the
    /// nearest known one) or not supported yet.
    pub fn from_properties<N: AsRef<str>, T: AsRef<str>>(
        properties: impl IntoIterator<Item = (N, T)>,
    ) -> Result<ProducerBuilder, ConfigError> {
        ProducerBuilder::from_properties(properties)
    }
}

impl<K: 'static, V: 'static> Producer<K, V> {
    fn start(
        client: Client,
        settings: Checked,
        key_serializer: Arc<dyn Serializer<K>>,
        value_serializer: Arc<dyn Serializer<V>>,
        interceptors: Vec<Member<K, V>>,
    ) -> Self {
        let rt = client.rt().clone();
        let chain = Arc::new(Chain(interceptors));
        let audience = (!chain.is_empty()).then(|| chain.clone() as Arc<dyn Audience>);
        let memory = Memory::new(settings.buffer_memory, settings.batch_size);
        let spreader = Spreader::new(client.clone(), settings.spreading);
        let (batch_size, packings) = (settings.batch_size, settings.packings.clone());
        let accumulator = Accumulator::new(client, memory, batch_size, packings, spreader, audience.clone());
        let accumulator = Arc::new(accumulator);
        let (told, news) = mpsc::unbounded_channel();
        let client_id = accumulator.client.settings().client_id.as_deref();
        let buffer = BufferMeter::new(client_id, accumulator.memory.total());
        let meter = Meter::new(client_id);
        let teller = Teller::new(accumulator.clone(), audience, news, buffer.clone());
        let counts = Arc::<Counts>::default();
        let setup = Setup {
            settings: settings.core.clone(),
            request_timeout: settings.request_timeout,
            told,
            counts: counts.clone(),
            meter,
            buffer,
        };
        let sender = rt.spawn(Driver::new(accumulator.clone(), setup).run());
        let tasks = Mutex::new(Tasks::Running(sender, rt.spawn(teller.run())));
        let uses_scratch = key_serializer.uses_scratch() || value_serializer.uses_scratch();
        let inner = Inner {
            accumulator,
            settings,
            uses_scratch,
            key_serializer,
            value_serializer,
            chain,
            scratch: Mutex::default(),
            closed: AtomicBool::new(false),
            counts,
            tasks,
        };
        Self { inner: Arc::new(inner) }
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Producer<K, V> {
    /// Accepts one record and returns its [`Delivery`], which resolves when the broker has acknowledged it.
    ///
    /// Waits for the topic's metadata if it is new, and while `buffer.memory` is used up for room, in the order
    /// of asking; both together at most `max.block.ms`. Otherwise it does not wait: a slow cluster shows in the
    /// deliveries, then in the buffer.
    ///
    /// # Errors
    ///
    /// The record was not accepted and is not sent: [`SendError::recovery`] says what to do. Errors after that
    /// come from the delivery.
    ///
    /// # Cancel safety
    ///
    /// Before the record is accepted, dropping the future means that it is never sent.
    // Not `async fn`: that would move the record once more, which costs as much as encoding it.
    #[allow(clippy::manual_async_fn)]
    pub fn send(
        &self,
        mut record: Record<K, V>,
    ) -> impl Future<Output = Result<Delivery, SendError>> + Send + use<'_, K, V> {
        async move {
            let inner = &*self.inner;
            let Some(topic) = inner.at_once(&record) else {
                // Who waits, or shows the record to interceptors, may as well allocate.
                return Box::pin(inner.send(record, None)).await;
            };
            let mut scratch = inner.take_scratch();
            let stuck = match inner.accept(topic, &mut record, &mut None, &mut scratch) {
                Ok(delivery) => {
                    inner.keep_scratch(&mut scratch);
                    return Ok(delivery);
                }
                Err(stuck) => stuck,
            };
            let accepted = Box::pin(inner.accept_later_alone(stuck, topic)).await;
            inner.keep_scratch(&mut scratch);
            accepted
        }
    }

    /// Accepts one record as [`send`](Self::send) does, and runs `callback` with what becomes of it instead of
    /// returning a [`Delivery`].
    ///
    /// Of an accepted record the callback runs exactly once, whatever happens: also when the producer is closed or
    /// dropped, or `delivery.timeout.ms` passes. Callbacks of one partition run in the order of its records. They run on
    /// a thread that may block, never on the sender: a slow one delays no batch, only later callbacks of this producer,
    /// and holds its batch's share of `buffer.memory` until it returns. One that panics is reported through `tracing`,
    /// and the next ones run. A callback that sends uses [`try_send`](Self::try_send): waiting for room that it holds
    /// itself would last until `max.block.ms`. It cannot [`flush`](Self::flush), nor wait for [`close`](Self::close).
    ///
    /// That thread is one of the runtime's pool for blocking work (`tokio::task::spawn_blocking`). If an application fills
    /// that pool with work that itself waits for this producer, callbacks get no thread, and both wait.
    ///
    /// ```no_run
    /// # async fn run(producer: klamm::Producer) -> Result<(), klamm::SendError> {
    /// let record = klamm::Record::new("greetings").value("hello");
    /// producer.send_with_callback(record, |outcome| println!("{outcome:?}")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The record was not accepted and is not sent, and the callback was dropped without being called.
    ///
    /// # Cancel safety
    ///
    /// Before the record is accepted, dropping the future means that it is never sent and the callback never called.
    pub async fn send_with_callback(
        &self,
        record: Record<K, V>,
        callback: impl FnOnce(Result<RecordMetadata, SendError>) + Send + 'static,
    ) -> Result<(), SendError> {
        self.inner.send(record, Some(Box::new(callback))).await.map(drop)
    }

    /// Accepts one record at once, or gives it back with the reason: no room in the buffer, or metadata of the
    /// topic not known yet (then they are asked for).
    ///
    /// # Errors
    ///
    /// The record was not accepted. Interceptors have seen it, and will again when it is tried again.
    pub fn try_send(&self, record: Record<K, V>) -> Result<Delivery, TrySendError<K, V>> {
        self.inner.try_send(record, None)
    }

    /// Accepts one record at once as [`try_send`](Self::try_send) does, and runs `callback` with what becomes of it, as
    /// [`send_with_callback`](Self::send_with_callback) does.
    ///
    /// # Errors
    ///
    /// The record was not accepted, and the callback was dropped without being called.
    pub fn try_send_with_callback(
        &self,
        record: Record<K, V>,
        callback: impl FnOnce(Result<RecordMetadata, SendError>) + Send + 'static,
    ) -> Result<(), TrySendError<K, V>> {
        self.inner.try_send(record, Some(Box::new(callback))).map(drop)
    }

    /// Sends one record and waits for the broker to acknowledge it.
    ///
    /// Returns once the batch that holds the record is durable to the degree set by [`Acks`]. To send many
    /// records at full speed, use [`send`](Self::send) and await the deliveries later.
    ///
    /// # Errors
    ///
    /// See [`SendError::recovery`] for what to do. Errors where [`SendError::maybe_written`] is `true` can leave
    /// a duplicate if the record is sent again.
    ///
    /// # Cancel safety
    ///
    /// Before the record is accepted, dropping the future means that it is never sent. Afterwards it is sent and
    /// only the answer is lost. Use [`send`](Self::send) where the two must be told apart.
    pub async fn send_and_wait(&self, record: Record<K, V>) -> Result<RecordMetadata, SendError> {
        self.send(record).await?.await
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Producer<K, V> {
    /// This producer as a [`futures::Sink`], for code that pours a stream into it.
    ///
    /// `poll_ready` waits until the record before is accepted: for metadata and room, as [`send`](Self::send) does.
    /// `poll_flush` sends without lingering and waits until everything that was put into this sink is acknowledged.
    /// `poll_close` does the same, and then the sink takes nothing more; the producer is closed by
    /// [`close`](Self::close) only. Records are written in the order in which they are put into the sink.
    ///
    /// ```no_run
    /// # async fn run(producer: klamm::Producer) -> Result<(), klamm::SendError> {
    /// use futures::{SinkExt, StreamExt};
    /// let lines = futures::stream::iter(["one", "two"]).map(|line| klamm::Record::new("lines").value(line));
    /// let mut sink = Box::pin(producer.sink());
    /// sink.send_all(&mut lines.map(Ok)).await?; // returns when both are acknowledged
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A record that was not accepted is reported by whichever call comes next; by `poll_flush` and `poll_close` when they
    /// know of all others. So is the first of those that were accepted and failed; others that fail before it is reported
    /// are not reported. The sink goes on after an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping futures of `SinkExt` loses nothing that the sink has taken. Dropping the sink loses the record that was
    /// put into it last, if that was not accepted yet, and news of those that are not acknowledged: they are sent.
    pub fn sink(&self) -> impl Sink<Record<K, V>, Error = SendError> + Send + 'static + use<K, V> {
        let (producer, hurrying) = (self.clone(), self.clone());
        let send = move |record| {
            let producer = producer.clone();
            async move { producer.send(record).await }
        };
        // Whoever waits for room wants no lingering either.
        let hurry = move || {
            hurrying.inner.accumulator.inbox.leave(Note::NoRoom);
        };
        FuturesSink::new(send, hurry)
    }
}

impl<K, V> Producer<K, V> {
    /// Sends everything that was accepted before without lingering, and returns when all of it is acknowledged
    /// or failed, and its callbacks and interceptors have run; which of the two, deliveries and callbacks tell.
    ///
    /// # Errors
    ///
    /// Returns [`SendError::Closed`] if the producer is closed meanwhile, and at once [`SendError::InCallback`] on a
    /// thread that runs a callback or `on_acknowledgement` of this producer (KIP-1118): it would wait for itself. So does
    /// one that waits there for another task that flushes, which nobody notices.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends only the wait.
    pub async fn flush(&self) -> Result<(), SendError> {
        if is_telling(&self.inner.accumulator) {
            return Err(SendError::InCallback);
        }
        let (done, flushed) = oneshot::channel();
        self.inner.accumulator.inbox.leave(Note::Flush(done));
        flushed.await.map_err(|_| SendError::Closed { maybe_written: false })
    }

    /// Accepts nothing more (on any clone), flushes for at most `timeout`, then fails what is left with
    /// [`SendError::Closed`] and ends the sender. Interceptors are closed when all callbacks have run.
    ///
    /// If several clones are closed, all wait for the same, and the one with the least time ends it.
    ///
    /// # Errors
    ///
    /// Returns [`SendError::TimedOut`] if not everything was acknowledged or failed by itself within `timeout`, or if
    /// callbacks took longer: these have a second more, and then run on without being waited for.
    ///
    /// Returns [`SendError::InCallback`] at once where [`flush`](Self::flush) does; the producer is closed all the same, as
    /// if the future had been dropped.
    ///
    /// # Cancel safety
    ///
    /// Once it has been polled, dropping the future ends only the wait, also that of the last clone: the producer is
    /// closed for new records, and sends what it has until `timeout` is over, as long as the runtime lives.
    pub async fn close(self, timeout: Duration) -> Result<(), SendError> {
        let accumulator = &self.inner.accumulator;
        let rt = accumulator.client.rt();
        let until = rt.now().saturating_add(timeout);
        let verdict = self.inner.start_to_close(until);
        if is_telling(accumulator) {
            return Err(SendError::InCallback);
        }
        let mut told = rt.before(until, verdict.clone()).await;
        if told.is_none() {
            accumulator.inbox.leave(Note::End { dropped: false });
            told = rt.before(until.max(rt.now()).saturating_add(GRACE), verdict).await;
        }
        match told {
            Some(true) => Ok(()),
            _ => Err(SendError::TimedOut { at: None, waited: timeout, maybe_written: true, last: None }),
        }
    }

    /// Requests that wait for an answer.
    pub fn requests_in_flight(&self) -> usize {
        self.inner.counts.in_flight.load(Ordering::Relaxed)
    }

    /// How often a batch was sent again since the producer was made.
    pub fn retries(&self) -> u64 {
        self.inner.counts.retries.load(Ordering::Relaxed)
    }

    /// Bytes of `buffer.memory` that are not taken.
    pub fn buffer_available(&self) -> usize {
        self.inner.accumulator.memory.available()
    }
}

impl<K, V> Inner<K, V> {
    /// Accepts nothing more, and closes the producer by a task of its own, unless that is under way. Returns its verdict.
    fn start_to_close(&self, until: Tick) -> Verdict {
        self.closed.store(true, Ordering::SeqCst);
        self.accumulator.memory.close();
        self.accumulator.inbox.close();
        let mut tasks = self.tasks.lock();
        if let Tasks::Closing(verdict) = &*tasks {
            return verdict.clone();
        }
        let (tell, told) = oneshot::channel();
        let verdict = told.map(|told| told.unwrap_or(false)).boxed().shared();
        let before = std::mem::replace(&mut *tasks, Tasks::Closing(verdict.clone()));
        drop(tasks);
        if let Tasks::Running(sender, teller) = before {
            let (done, flushed) = oneshot::channel();
            self.accumulator.inbox.leave(Note::Flush(done));
            let accumulator = self.accumulator.clone();
            let closing = async move {
                let in_time = finish(&accumulator, until, flushed, sender, teller).await;
                let _ = tell.send(in_time);
            };
            self.accumulator.client.rt().spawn(closing).detach();
        }
        verdict
    }
}

/// Ends the tasks of a producer when everything is flushed, or at `until`. Returns whether every record had been
/// acknowledged or had failed by then; not before all of them are told.
async fn finish(
    accumulator: &Accumulator,
    until: Tick,
    mut flushed: oneshot::Receiver<()>,
    sender: Task,
    teller: Task,
) -> bool {
    let in_time = accumulator.client.rt().before(until, &mut flushed).await;
    accumulator.inbox.leave(Note::End { dropped: false });
    sender.await;
    let all_told = teller.await.is_some();
    // Acknowledged in time, it may have waited for callbacks only.
    all_told && in_time.map_or_else(|| flushed.try_recv().is_ok(), |flushed| flushed.is_ok())
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Inner<K, V> {
    async fn send(
        &self,
        mut record: Record<K, V>,
        callback: Option<Callback>,
    ) -> Result<Delivery, SendError> {
        self.check_open()?;
        let mut underway = Underway::new(&self.chain, callback);
        let accepted = match underway.intercept(&mut record) {
            Ok(()) => self.place(&mut record, &mut underway.attachment).await,
            Err(refused) => Err(refused),
        };
        underway.end(accepted.as_ref().err());
        accepted
    }

    fn try_send(
        &self,
        mut record: Record<K, V>,
        callback: Option<Callback>,
    ) -> Result<Delivery, TrySendError<K, V>> {
        let mut underway = Underway::new(&self.chain, callback);
        let accepted = match self.check_open().and_then(|()| underway.intercept(&mut record)) {
            Ok(()) => self.try_accept(&mut record, &mut underway.attachment),
            Err(refused) => Err(refused),
        };
        underway.end(accepted.as_ref().err());
        accepted.map_err(|reason| TrySendError { record: Box::new(record), reason })
    }

    /// Finds out where the record goes, and brings it there.
    async fn place(
        &self,
        record: &mut Record<K, V>,
        attachment: &mut Option<Attachment>,
    ) -> Result<Delivery, SendError> {
        let mut budget = Budget::default();
        let topic = match self.accumulator.topics.get(&record.topic) {
            Some(topic) => topic,
            None => self.learn_topic(&record.topic, &mut budget).await?,
        };
        let topic = match record.partition {
            Some(partition) if !topic.has(partition) => {
                self.learn_partition(topic, partition, &mut budget).await?
            }
            _ => topic,
        };
        let mut scratch = self.take_scratch();
        let accepted = match self.accept(topic, record, attachment, &mut scratch) {
            Ok(delivery) => Ok(delivery),
            Err(stuck) => self.accept_later(stuck, topic, attachment, &mut budget).await,
        };
        self.keep_scratch(&mut scratch);
        accepted
    }

    /// Where a record goes of which nobody wants to know anything and for which nothing has to be waited, unless it is
    /// for room. That is almost every one.
    #[inline]
    fn at_once(&self, record: &Record<K, V>) -> Option<&Topic> {
        let topic = self.accumulator.topics.get(&record.topic)?;
        let known = record.partition.is_none_or(|partition| topic.has(partition));
        (known && self.chain.is_empty() && self.check_open().is_ok()).then_some(topic)
    }

    async fn learn_topic(&self, name: &Arc<str>, budget: &mut Budget) -> Result<&Topic, SendError> {
        self.check_open()?;
        let client = &self.accumulator.client;
        let metadata = client.topic(name, true, budget.deadline(self)).await?;
        Ok(self.accumulator.adopt(&metadata, Some(name)))
    }

    /// Asks for the metadata of a topic until it has the partition that a record names.
    async fn learn_partition(
        &self,
        topic: &Topic,
        partition: i32,
        budget: &mut Budget,
    ) -> Result<&Topic, SendError> {
        let client = &self.accumulator.client;
        let deadline = budget.deadline(self);
        loop {
            self.check_open()?;
            let changed = client.changed();
            client.request_refresh("a record names a partition that is not known");
            let in_time = client.rt().before(deadline, changed).await.is_some();
            let topic = match client.cached_topic(&topic.name) {
                Some(metadata) => self.accumulator.adopt(&metadata, None),
                None => self.learn_topic(&topic.name, budget).await?,
            };
            if topic.has(partition) {
                return Ok(topic);
            }
            if !in_time {
                return Err(topic.lacks(partition));
            }
        }
    }

    /// Serializes a record and appends it, if nothing has to be waited for.
    #[inline(always)]
    fn accept<'a>(
        &self,
        topic: &Topic,
        record: &'a mut Record<K, V>,
        attachment: &mut Option<Attachment>,
        scratch: &'a mut Scratch,
    ) -> Result<Delivery, Box<Stuck<'a>>> {
        let encoded = self.encode(topic, record, scratch);
        let (pick, encoded) = encoded.map_err(|error| Box::new(Stuck::Failed(error)))?;
        match self.accumulator.append(topic, pick, encoded, attachment, &mut None) {
            Appended::Done(delivery) => Ok(delivery),
            Appended::Closed => Err(Box::new(Stuck::Failed(SendError::Closed { maybe_written: false }))),
            Appended::NoRoom(price) => Err(Box::new(Stuck::NoRoom { price, pick, encoded })),
        }
    }

    /// Waits for room in `buffer.memory` until the record is accepted.
    async fn accept_later(
        &self,
        stuck: Box<Stuck<'_>>,
        topic: &Topic,
        attachment: &mut Option<Attachment>,
        budget: &mut Budget,
    ) -> Result<Delivery, SendError> {
        let (mut price, pick, encoded) = match *stuck {
            Stuck::Failed(error) => return Err(error),
            Stuck::NoRoom { price, pick, encoded } => (price, pick, encoded),
        };
        let memory = &self.accumulator.memory;
        let rt = self.accumulator.client.rt();
        loop {
            let deadline = budget.deadline(self);
            self.accumulator.inbox.leave(Note::NoRoom);
            let mut room = match rt.before(deadline, memory.take(price)).await {
                Some(taken) => Some(taken?),
                None => return Err(SendError::BufferFull { waited: budget.waited(rt.now()) }),
            };
            self.check_open()?;
            match self.accumulator.append(topic, pick, encoded, attachment, &mut room) {
                Appended::Done(delivery) => return Ok(delivery),
                Appended::Closed => return Err(SendError::Closed { maybe_written: false }),
                Appended::NoRoom(needed) => price = needed,
            }
        }
    }

    /// The same for a record of which nothing is to be told, and for which nothing was waited before.
    async fn accept_later_alone(&self, stuck: Box<Stuck<'_>>, topic: &Topic) -> Result<Delivery, SendError> {
        self.accept_later(stuck, topic, &mut None, &mut Budget::default()).await
    }

    fn try_accept(
        &self,
        record: &mut Record<K, V>,
        attachment: &mut Option<Attachment>,
    ) -> Result<Delivery, SendError> {
        let topic = match self.accumulator.topics.get(&record.topic) {
            Some(topic) => topic,
            None => match self.accumulator.client.topic_now(&record.topic, true)? {
                Some(metadata) => self.accumulator.adopt(&metadata, Some(&record.topic)),
                None => return Err(SendError::NotReady { topic: record.topic.clone() }),
            },
        };
        if let Some(partition) = record.partition.filter(|partition| !topic.has(*partition)) {
            self.accumulator.client.request_refresh("a record names a partition that is not known");
            return Err(topic.lacks(partition));
        }
        let mut scratch = self.take_scratch();
        let accepted = self.accept(topic, record, attachment, &mut scratch);
        let accepted = accepted.map_err(|stuck| match *stuck {
            Stuck::Failed(error) => error,
            Stuck::NoRoom { .. } => {
                self.accumulator.inbox.leave(Note::NoRoom);
                self.check_open().err().unwrap_or(SendError::BufferFull { waited: Duration::ZERO })
            }
        });
        self.keep_scratch(&mut scratch);
        accepted
    }

    /// Serializes a record and chooses where it goes.
    #[inline(always)]
    fn encode<'a>(
        &self,
        topic: &Topic,
        record: &'a mut Record<K, V>,
        scratch: &'a mut Scratch,
    ) -> Result<(Pick, Encoded<'a>), SendError> {
        let failed = |part, type_name, error: SerializeError| SendError::Serialize {
            topic: topic.name.clone(),
            part,
            type_name,
            source: error.into(),
        };
        let Record { key, value, headers, .. } = record;
        let key = match key {
            Some(key) => self.key_serializer.serialize(&topic.name, headers, key, &mut scratch.key),
            None => Ok(None),
        };
        let key = key.map_err(|error| failed("key", type_name::<K>(), error))?;
        let value = match value {
            Some(value) => self.value_serializer.serialize(&topic.name, headers, value, &mut scratch.value),
            None => Ok(None),
        };
        let value = value.map_err(|error| failed("value", type_name::<V>(), error))?;
        let need = BatchBuilder::upper_bound(key.map(<[u8]>::len), value.map(<[u8]>::len), headers);
        let limit_bytes = self.settings.core.max_request_bytes.min(self.accumulator.memory.total());
        if HEADER_BYTES + need > limit_bytes {
            return Err(SendError::TooLarge { size_bytes: HEADER_BYTES + need, limit_bytes });
        }
        let pick = match record.partition {
            Some(partition) => Pick::Index(partition as usize),
            None => self.settings.placing.pick(&self.accumulator.spreader, topic, key, value)?,
        };
        Ok((pick, Encoded { key, value, headers, timestamp: record.timestamp, need }))
    }

    fn check_open(&self) -> Result<(), SendError> {
        match self.closed.load(Ordering::Relaxed) {
            true => Err(SendError::Closed { maybe_written: false }),
            false => Ok(()),
        }
    }

    #[inline]
    fn take_scratch(&self) -> Scratch {
        match self.uses_scratch {
            true => self.scratch.lock().pop().unwrap_or_default(),
            false => Scratch::default(),
        }
    }

    #[inline]
    fn keep_scratch(&self, scratch: &mut Scratch) {
        if self.uses_scratch {
            self.keep_used_scratch(std::mem::take(scratch));
        }
    }

    fn keep_used_scratch(&self, mut scratch: Scratch) {
        scratch.key.clear();
        scratch.value.clear();
        let mut kept = self.scratch.lock();
        if kept.len() < MOST_SCRATCHES {
            kept.push(scratch);
        }
    }
}

impl Budget {
    /// When the waiting of one `send` ends; the time runs from the first wait.
    fn deadline<K, V>(&mut self, inner: &Inner<K, V>) -> Tick {
        let now = || inner.accumulator.client.rt().now();
        self.began.get_or_insert_with(now).saturating_add(inner.settings.max_block)
    }

    fn waited(&self, now: Tick) -> Duration {
        self.began.map_or(Duration::ZERO, |began| now.saturating_sub(began))
    }
}

impl Topic {
    fn has(&self, partition: i32) -> bool {
        usize::try_from(partition).is_ok_and(|partition| partition < self.count)
    }

    fn lacks(&self, partition: i32) -> SendError {
        SendError::NoSuchPartition { topic: self.name.clone(), partition, count: self.count }
    }
}

impl<K, V> Drop for Inner<K, V> {
    fn drop(&mut self) {
        // Either way the tasks end by themselves, and say what is lost.
        let closing = Tasks::Closing(std::future::ready(false).boxed().shared());
        if let Tasks::Running(sender, teller) = std::mem::replace(self.tasks.get_mut(), closing) {
            self.accumulator.inbox.leave(Note::End { dropped: true });
            sender.detach();
            teller.detach();
        }
    }
}

impl<K, V> Clone for Producer<K, V> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K, V> fmt::Debug for Producer<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}
