//! A subscriber for tests of what is told through `tracing`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, Subscriber, set_default};
use tracing::{Dispatch, Event, Level, Metadata};
use tracing_core::span::Current;

/// Keeps the fields of this crate's spans and errors. Made for one thread.
#[derive(Clone, Default)]
pub(crate) struct Listener {
    /// In the order in which they were made.
    pub(crate) spans: Arc<Mutex<BTreeMap<u64, Seen>>>,
    pub(crate) errors: Arc<Mutex<Vec<Seen>>>,
    entered: Arc<Mutex<Vec<Id>>>,
    known: Arc<Mutex<BTreeMap<u64, &'static Metadata<'static>>>>,
    next: Arc<AtomicU64>,
}

impl Listener {
    /// Listens to this thread until the guard is dropped.
    pub(crate) fn start() -> (Self, DefaultGuard) {
        // While there is only one subscriber, tracing asks that of whichever thread comes first to a span or event whether
        // anybody wants it, and on the threads of other tests nobody does. So there are always two.
        static ANOTHER: OnceLock<Dispatch> = OnceLock::new();
        ANOTHER.get_or_init(|| Dispatch::new(Self::default()));
        let listener = Self::default();
        let guard = set_default(listener.clone());
        (listener, guard)
    }
}

/// Fields by name, as `Debug` has them; a span's own name is `name`.
pub(crate) type Seen = BTreeMap<&'static str, String>;

struct Into<'a>(&'a mut Seen);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("klamm")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut seen = Seen::from([("name", span.metadata().name().to_owned())]);
        span.record(&mut Into(&mut seen));
        self.spans.lock().insert(id, seen);
        self.known.lock().insert(id, span.metadata());
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        if let Some(seen) = self.spans.lock().get_mut(&span.into_u64()) {
            values.record(&mut Into(seen));
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if *event.metadata().level() == Level::ERROR {
            let mut seen = Seen::new();
            event.record(&mut Into(&mut seen));
            self.errors.lock().push(seen);
        }
    }

    fn enter(&self, span: &Id) {
        self.entered.lock().push(span.clone());
    }

    fn exit(&self, _: &Id) {
        self.entered.lock().pop();
    }

    fn current_span(&self) -> Current {
        let entered = self.entered.lock();
        let Some(id) = entered.last() else { return Current::none() };
        self.known
            .lock()
            .get(&id.into_u64())
            .map_or_else(Current::none, |known| Current::new(id.clone(), known))
    }
}
