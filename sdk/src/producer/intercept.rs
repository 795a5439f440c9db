//! The chain of interceptors, and the task that tells what became of each record.

use std::cell::Cell;
use std::ptr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::interceptor::{Extensions, Interceptor};
use crate::metrics::BufferMeter;
use crate::record::Record;

use super::attached::{Attachment, Attachments, Audience, Callback, Turn};
use super::delivery::{Fate, RecordMetadata};
use super::error::SendError;
use super::guard::guarded;
use super::slot::Accumulator;

/// One interceptor, and how to keep a record as it was before it.
pub(super) struct Member<K, V> {
    interceptor: Arc<dyn Interceptor<K, V>>,
    copy: fn(&Record<K, V>) -> Record<K, V>,
}

impl<K: Clone, V: Clone> Member<K, V> {
    pub(super) fn new(interceptor: impl Interceptor<K, V>) -> Self {
        Self { interceptor: Arc::new(interceptor), copy: Record::clone }
    }
}

/// Interceptors in the order in which they see a record.
pub(super) struct Chain<K, V>(pub(super) Vec<Member<K, V>>);

impl<K: 'static, V: 'static> Chain<K, V> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells the first `seen` interceptors.
    fn tell(
        &self,
        seen: usize,
        topic: &str,
        partition: i32,
        outcome: Result<&RecordMetadata, &SendError>,
        extensions: &mut Extensions,
    ) {
        for Member { interceptor, .. } in self.0.iter().take(seen) {
            guarded("on_acknowledgement", interceptor.name(), || {
                interceptor.on_acknowledgement(topic, partition, outcome, extensions);
            });
        }
    }
}

impl<K: 'static, V: 'static> Audience for Chain<K, V> {
    fn hear(
        &self,
        topic: &str,
        partition: i32,
        outcome: Result<&RecordMetadata, &SendError>,
        extensions: &mut Extensions,
    ) {
        self.tell(self.0.len(), topic, partition, outcome, extensions);
    }

    fn close(&self) {
        for Member { interceptor, .. } in &self.0 {
            guarded("close", interceptor.name(), || interceptor.close());
        }
    }
}

/// A record on its way into a batch. Whatever stops it there, the interceptors that have seen it are told.
pub(super) struct Underway<'a, K: 'static, V: 'static> {
    chain: &'a Chain<K, V>,
    /// Interceptors that have seen the record.
    seen: usize,
    /// Where the record goes; only if there are interceptors to be told.
    place: Option<(Arc<str>, i32)>,
    /// Goes with the record into the batch; nothing if nothing is to be told.
    pub(super) attachment: Option<Attachment>,
}

impl<'a, K: 'static, V: 'static> Underway<'a, K, V> {
    pub(super) fn new(chain: &'a Chain<K, V>, callback: Option<Callback>) -> Self {
        let wanted = callback.is_some() || !chain.is_empty();
        let attachment = wanted.then(|| Attachment { callback, ..Attachment::default() });
        Self { chain, seen: 0, place: None, attachment }
    }

    /// Shows the record to each interceptor until one refuses it.
    pub(super) fn intercept(&mut self, record: &mut Record<K, V>) -> Result<(), SendError> {
        let Some(Attachment { extensions, .. }) = self.attachment.as_mut().filter(|_| !self.chain.is_empty())
        else {
            return Ok(());
        };
        let mut verdict = Ok(());
        for Member { interceptor, copy } in &self.chain.0 {
            self.seen += 1;
            let before = copy(record);
            match guarded("on_send", interceptor.name(), || interceptor.on_send(record, extensions)) {
                Some(Ok(())) => {}
                Some(Err(refusal)) => {
                    let interceptor = interceptor.name().into();
                    verdict = Err(SendError::Refused { interceptor, source: refusal.into() });
                    break;
                }
                None => *record = before,
            }
        }
        self.place = Some((record.topic.clone(), record.partition.unwrap_or(-1)));
        verdict
    }

    /// Tells of a record that is not accepted; of one that is there is nothing left to tell.
    pub(super) fn end(mut self, error: Option<&SendError>) {
        if let Some(error) = error {
            self.fail(error);
        }
        self.attachment = None;
    }

    fn fail(&mut self, error: &SendError) {
        if let (Some(mut attachment), Some((topic, partition))) = (self.attachment.take(), self.place.take())
        {
            self.chain.tell(self.seen, &topic, partition, Err(error), &mut attachment.extensions);
        }
    }
}

impl<K: 'static, V: 'static> Drop for Underway<'_, K, V> {
    fn drop(&mut self) {
        self.fail(&SendError::Cancelled);
    }
}

/// What the [`Teller`] hears from the sender.
pub(super) enum Told {
    /// A batch is resolved.
    Resolved(Arc<Fate>, Box<Attachments>),
    /// This much of `buffer.memory` is free once its batch has been told.
    Freed(Arc<Turn>, usize),
    /// Whoever flushes waits for what was told before.
    Flushed(oneshot::Sender<()>),
}

thread_local! {
    /// Whose callbacks run on this thread.
    static TELLING: Cell<*const Accumulator> = const { Cell::new(ptr::null()) };
}

/// Whether this thread runs callbacks of a producer: one that waits here for them waits for ever.
pub(super) fn is_telling(accumulator: &Arc<Accumulator>) -> bool {
    TELLING.get() == Arc::as_ptr(accumulator)
}

/// Marks this thread as one that runs callbacks, until it is dropped.
struct Telling {
    /// Whose callback this runs in, if any.
    outer: *const Accumulator,
}

impl Telling {
    fn of(accumulator: &Arc<Accumulator>) -> Self {
        Self { outer: TELLING.replace(Arc::as_ptr(accumulator)) }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        TELLING.set(self.outer);
    }
}

/// Runs callbacks and `on_acknowledgement`, off the sender and off the runtime's own threads, because nobody knows how
/// long they take.
pub(super) struct Teller {
    accumulator: Arc<Accumulator>,
    audience: Option<Arc<dyn Audience>>,
    news: mpsc::UnboundedReceiver<Told>,
    /// Resolved before another batch of their partition that comes first.
    early: Vec<(Arc<Fate>, Box<Attachments>)>,
    freed: Vec<(Arc<Turn>, usize)>,
    buffer: BufferMeter,
}

impl Teller {
    pub(super) fn new(
        accumulator: Arc<Accumulator>,
        audience: Option<Arc<dyn Audience>>,
        news: mpsc::UnboundedReceiver<Told>,
        buffer: BufferMeter,
    ) -> Self {
        Self { accumulator, audience, news, early: Vec::new(), freed: Vec::new(), buffer }
    }

    /// Tells until nobody can bring more.
    pub(super) async fn run(self) {
        let rt = self.accumulator.client.rt().clone();
        let mut teller = self;
        while let Some(told) = teller.news.recv().await {
            // One hop to another thread for everything that has come until it is done.
            let job = move || {
                let _telling = Telling::of(&teller.accumulator);
                teller.hear(told);
                while let Ok(told) = teller.news.try_recv() {
                    teller.hear(told);
                }
                let memory = &teller.accumulator.memory;
                teller.buffer.see(memory.available(), memory.waiters());
                teller
            };
            match rt.offload(job).await {
                Some(back) => teller = back,
                None => return, // the runtime is ending, and `drop` did the rest
            }
        }
        rt.offload(move || drop(teller)).await;
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::Resolved(fate, attachments) => {
                if !attachments.is_next() {
                    return self.early.push((fate, attachments));
                }
                attachments.tell(&fate);
                self.tell_early();
                // Callbacks that are slow hold back new records, so that what they have not seen is bounded.
                let memory = &self.accumulator.memory;
                self.freed.retain(|(turn, bytes)| {
                    let over = turn.is_over();
                    if over {
                        memory.give_back(*bytes);
                    }
                    !over
                });
            }
            Told::Freed(turn, bytes) if turn.is_over() => self.accumulator.memory.give_back(bytes),
            Told::Freed(turn, bytes) => self.freed.push((turn, bytes)),
            Told::Flushed(done) => drop(done.send(())),
        }
    }

    fn tell_early(&mut self) {
        while let Some(next) = self.early.iter().position(|(_, attachments)| attachments.is_next()) {
            let (fate, attachments) = self.early.remove(next);
            attachments.tell(&fate);
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let _telling = Telling::of(&self.accumulator);
        self.news.close();
        while let Ok(told) = self.news.try_recv() {
            self.hear(told);
        }
        self.tell_early();
        for (fate, attachments) in std::mem::take(&mut self.early) {
            attachments.tell(&fate);
        }
        for (_, bytes) in std::mem::take(&mut self.freed) {
            self.accumulator.memory.give_back(bytes);
        }
        let memory = &self.accumulator.memory;
        self.buffer.see(memory.available(), memory.waiters());
        if let Some(audience) = &self.audience {
            audience.close();
        }
    }
}
