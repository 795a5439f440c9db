//! Code of yours that sees every record on its way out, and what became of it.
//!
//! ```text
//! send ─▶ on_send of each interceptor ─▶ serializers, partitioner, batch ─▶ broker
//!           │ may change, refuse, remember                                    │
//!           └─ Extensions of the record ─────────▶ on_acknowledgement ◀───────┘
//! ```
//!
//! ```
//! use std::time::Instant;
//! use klamm::interceptor::{Extensions, Interceptor, Refusal};
//! use klamm::{Record, RecordMetadata, SendError};
//!
//! /// Tells how long each record took.
//! struct Stopwatch;
//!
//! struct Began(Instant);
//!
//! impl Interceptor for Stopwatch {
//!     fn on_send(&self, _record: &mut Record, extensions: &mut Extensions) -> Result<(), Refusal> {
//!         extensions.insert(Began(Instant::now()));
//!         Ok(())
//!     }
//!
//!     fn on_acknowledgement(
//!         &self,
//!         topic: &str,
//!         partition: i32,
//!         outcome: Result<&RecordMetadata, &SendError>,
//!         extensions: &mut Extensions,
//!     ) {
//!         if let Some(Began(at)) = extensions.get() {
//!             println!("{topic}-{partition}: {:?} after {:?}", outcome.is_ok(), at.elapsed());
//!         }
//!     }
//! }
//! # let _ = klamm::Producer::builder().interceptor(Stopwatch);
//! ```

use std::any::{Any, TypeId};
use std::error::Error;
use std::fmt;

use bytes::Bytes;

use crate::producer::{RecordMetadata, SendError};
use crate::record::Record;

/// Why an [`Interceptor`] refuses a record.
pub type Refusal = Box<dyn Error + Send + Sync>;

/// Sees every record before serializers and partitioner, and what became of it (`interceptor.classes`, KIP-42).
///
/// Interceptors run in the order they were added. One that panics is reported through `tracing` with its [name](Self::name),
/// and the others go on as if it had not been there: the next one sees the record as the last good one left it.
///
/// For every record that an interceptor sees in `on_send`, its `on_acknowledgement` runs exactly once.
pub trait Interceptor<K = Bytes, V = Bytes>: Send + Sync + 'static {
    /// Runs in the task that calls `send`. It may change the record, also its topic and partition, and remember things
    /// about it in `extensions`.
    ///
    /// # Errors
    ///
    /// An error refuses the record: `send` fails with [`SendError::Refused`] and no later interceptor sees it.
    fn on_send(&self, record: &mut Record<K, V>, extensions: &mut Extensions) -> Result<(), Refusal> {
        let _ = (record, extensions);
        Ok(())
    }

    /// What became of a record; with an error also of one that was refused, or never accepted for another reason.
    ///
    /// `partition` is -1 if none was chosen. Of an accepted record this runs off the sender, in the order of each
    /// partition, before the record's callback: a slow one delays neither sending nor deliveries, but holds the batch's
    /// share of `buffer.memory` until it returns. Of another one it runs in the task that calls `send`, which then
    /// fails.
    fn on_acknowledgement(
        &self,
        topic: &str,
        partition: i32,
        outcome: Result<&RecordMetadata, &SendError>,
        extensions: &mut Extensions,
    ) {
        let _ = (topic, partition, outcome, extensions);
    }

    /// Runs once, when the producer was closed or dropped and every accepted record has been told. Only a `send` that
    /// was still under way then may be told after it.
    fn close(&self) {}

    /// What reports and errors call it. Default: the name of its type.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }
}

/// What interceptors remember about one record, by type: at most one value of each.
///
/// All interceptors of a producer share it, so keep a value in a type of your own. Empty, it takes one word and no
/// allocation.
#[derive(Default)]
pub struct Extensions(Option<Box<Values>>);

#[derive(Default)]
struct Values(Vec<(TypeId, Box<dyn Any + Send>)>);

impl Extensions {
    /// Remembers a value, and returns the one of its type from before.
    pub fn insert<T: Send + 'static>(&mut self, value: T) -> Option<T> {
        let before = self.remove::<T>();
        self.0.get_or_insert_default().0.push((TypeId::of::<T>(), Box::new(value)));
        before
    }

    /// The value of a type.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        let (_, value) = self.0.as_ref()?.0.iter().find(|(id, _)| *id == TypeId::of::<T>())?;
        value.downcast_ref()
    }

    /// The value of a type, to change.
    pub fn get_mut<T: 'static>(&mut self) -> Option<&mut T> {
        let (_, value) = self.0.as_mut()?.0.iter_mut().find(|(id, _)| *id == TypeId::of::<T>())?;
        value.downcast_mut()
    }

    /// Takes the value of a type out.
    pub fn remove<T: 'static>(&mut self) -> Option<T> {
        let values = &mut self.0.as_mut()?.0;
        let at = values.iter().position(|(id, _)| *id == TypeId::of::<T>())?;
        values.swap_remove(at).1.downcast().ok().map(|value| *value)
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extensions({} values)", self.0.as_ref().map_or(0, |values| values.0.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_type_and_only_the_last_one_is_kept() {
        let mut extensions = Extensions::default();
        assert_eq!(size_of_val(&extensions), size_of::<usize>());
        assert_eq!(extensions.get::<u32>(), None);
        assert_eq!(extensions.insert(7_u32), None);
        assert_eq!(extensions.insert("seven"), None);
        assert_eq!(extensions.insert(8_u32), Some(7));
        *extensions.get_mut::<u32>().unwrap() += 1;
        assert_eq!((extensions.get::<u32>(), extensions.get::<&str>()), (Some(&9), Some(&"seven")));
        assert_eq!((extensions.remove::<u32>(), extensions.remove::<u32>()), (Some(9), None));
        assert_eq!(extensions.remove::<&str>(), Some("seven"));
    }
}
