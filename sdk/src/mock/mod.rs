//! Stand-ins for tests (feature `mock`): no network, no broker, nothing that a test does not decide.
//!
//! | what is under test | take |
//! |---|---|
//! | code that sends through a [`RecordSink`] | [`MockProducer`] |
//! | code that reads from a [`RecordSource`] | [`MockConsumer`] |
//! | code with a real `Producer`, `Consumer` or `Admin`, and what it does when a broker misbehaves | [`MockConnector`] |
//! | what survives a leader's death, a full disk, a cut network | the crate `broker-lite` |
//!
//! Everything here is deterministic, runs on a current_thread runtime, and follows a paused clock.
//!
//! # A unit test with expectations
//!
//! ```
//! use klamm::mock::{MockProducer, answer};
//! use klamm::{Record, RecordMetadata, RecordSink, SendError};
//!
//! // What is tested.
//! async fn greet(sink: &dyn RecordSink, whom: &str) -> Result<i64, SendError> {
//!     let record = Record::new("greetings").key(whom.to_owned()).value("hello");
//!     Ok(sink.send_and_wait(record).await?.offset.unwrap_or(-1))
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let mut producer = MockProducer::new();
//! producer
//!     .expect_send_and_wait()
//!     .withf(|record: &Record| record.topic() == "greetings" && record.key_ref().unwrap() == "Ada")
//!     .times(1)
//!     .returning(|record| answer(Ok(RecordMetadata::new(record.topic(), 0, 42))));
//!
//! assert_eq!(greet(&producer, "Ada").await.unwrap(), 42);
//! # });
//! ```
//!
//! # A consumer without a broker
//!
//! ```
//! use klamm::mock::MockConnector;
//! use klamm::{Consumer, StartOffset};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let mock = MockConnector::new();
//! mock.records("orders", 0, ["3 apples", "2 pears"]);
//! let consumer = Consumer::builder().bootstrap_servers(mock.bootstrap()).connector(mock.clone()).build().unwrap();
//!
//! consumer.assign([(("orders", 0), StartOffset::Beginning)]);
//! assert_eq!(consumer.recv().await.unwrap().value.unwrap(), "3 apples");
//! assert_eq!(consumer.recv().await.unwrap().offset, 1);
//! # });
//! ```
//!
//! [`RecordSink`]: crate::RecordSink
//! [`RecordSource`]: crate::RecordSource

mod clients;
mod cluster;
mod connector;
mod journal;
mod link;
mod log;
mod responder;
mod script;
#[cfg(test)]
mod tests;

pub use clients::{MockConsumer, MockProducer, MockRecordSink, MockRecordSource, answer, never};
pub use connector::{MockConnector, MockConnectorBuilder};
pub use journal::Entry;
pub use klamm_wire::{Request, StrBytes, messages};
pub use log::MockRecord;
pub use responder::{Action, Head, MockResponder, Responder};
pub use script::{InOrder, NamesTopics, On, Scripted, Times, Unused};

pub use crate::refusal::Refusable;
