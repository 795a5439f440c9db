//! What a producer measures, through the facade of the crate `metrics` (feature `metrics`).
//!
//! Install a recorder before the producer is built: it keeps its handles from then on. Nothing is measured for each
//! record: numbers change once for each batch, request or answer.
//!
//! | name | kind, unit | labels | what |
//! |---|---|---|---|
//! | `klamm_producer_batch_queue_seconds` | histogram, seconds | topic | from the opening of a batch to its first request |
//! | `klamm_producer_batch_bytes` | histogram, bytes | topic | a batch in its first request, compressed, header included |
//! | `klamm_producer_batch_records` | histogram, records | topic | records of a batch in its first request; the parts of a batch that is split do not count again |
//! | `klamm_producer_compression_ratio` | histogram, 0 to 1 | topic | bytes of a batch's records by those before compression |
//! | `klamm_producer_acknowledged_records_total` | counter, records | topic | records of batches that were acknowledged |
//! | `klamm_producer_failed_records_total` | counter, records | topic | records of batches that were accepted and given up |
//! | `klamm_producer_retries_total` | counter, batches | | batches sent again |
//! | `klamm_producer_errors_total` | counter, batches | code | what went wrong with a batch in a request: the broker's error code by name, or `NO_ANSWER` |
//! | `klamm_producer_request_seconds` | histogram, seconds | broker | from handing a request to its connection to the answer |
//! | `klamm_producer_request_bytes` | histogram, bytes | broker | body of a request |
//! | `klamm_producer_requests_in_flight` | gauge, requests | | requests that wait for an answer |
//! | `klamm_producer_throttle_seconds` | histogram, seconds | broker | how long a broker asks not to be sent anything, if it does (`throttle_time_ms`) |
//! | `klamm_producer_buffer_total_bytes` | gauge, bytes | | `buffer.memory` |
//! | `klamm_producer_buffer_available_bytes` | gauge, bytes | | the part of it that nobody has taken |
//! | `klamm_producer_buffer_waiters` | gauge, callers | | calls of `send` that wait for room |
//!
//! All have the label `client_id`, empty without `client.id`: give producers of one process different ones. A topic has
//! series of its own from the first batch that is sent to it, so label by topic costs what topics there are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, Label, Unit};
use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use klamm_wire::SealedBatch;

const QUEUE: &str = "klamm_producer_batch_queue_seconds";
const BYTES: &str = "klamm_producer_batch_bytes";
const RECORDS: &str = "klamm_producer_batch_records";
const RATIO: &str = "klamm_producer_compression_ratio";
const ACKNOWLEDGED: &str = "klamm_producer_acknowledged_records_total";
const FAILED: &str = "klamm_producer_failed_records_total";
const RETRIES: &str = "klamm_producer_retries_total";
const ERRORS: &str = "klamm_producer_errors_total";
const REQUEST: &str = "klamm_producer_request_seconds";
const REQUEST_BYTES: &str = "klamm_producer_request_bytes";
const IN_FLIGHT: &str = "klamm_producer_requests_in_flight";
const THROTTLE: &str = "klamm_producer_throttle_seconds";
const BUFFER_TOTAL: &str = "klamm_producer_buffer_total_bytes";
const BUFFER_AVAILABLE: &str = "klamm_producer_buffer_available_bytes";
const BUFFER_WAITERS: &str = "klamm_producer_buffer_waiters";

fn describe() {
    describe_histogram!(QUEUE, Unit::Seconds, "From the opening of a batch to its first request");
    describe_histogram!(BYTES, Unit::Bytes, "Size of a batch in its first request");
    describe_histogram!(RECORDS, Unit::Count, "Records of a batch in its first request");
    describe_histogram!(RATIO, "Bytes of a batch's records by those before compression");
    describe_counter!(ACKNOWLEDGED, Unit::Count, "Records of batches that were acknowledged");
    describe_counter!(FAILED, Unit::Count, "Records of batches that were accepted and given up");
    describe_counter!(RETRIES, Unit::Count, "Batches sent again");
    describe_counter!(ERRORS, Unit::Count, "What went wrong with a batch in a request");
    describe_histogram!(REQUEST, Unit::Seconds, "From a request to its answer");
    describe_histogram!(REQUEST_BYTES, Unit::Bytes, "Body of a request");
    describe_gauge!(IN_FLIGHT, Unit::Count, "Requests that wait for an answer");
    describe_histogram!(THROTTLE, Unit::Seconds, "How long a broker asks not to be sent anything");
    describe_gauge!(BUFFER_TOTAL, Unit::Bytes, "buffer.memory");
    describe_gauge!(BUFFER_AVAILABLE, Unit::Bytes, "The part of buffer.memory that nobody has taken");
    describe_gauge!(BUFFER_WAITERS, Unit::Count, "Calls of send that wait for room");
}

/// The numbers of one producer's sender.
pub(crate) struct Meter {
    client: Label,
    topics: BTreeMap<Arc<str>, TopicMeter>,
    brokers: BTreeMap<i32, BrokerMeter>,
    in_flight: Gauge,
    retries: Counter,
    /// Retries that were told already.
    retried: u64,
}

struct TopicMeter {
    queue: Histogram,
    bytes: Histogram,
    records: Histogram,
    ratio: Histogram,
    acknowledged: Counter,
    failed: Counter,
}

struct BrokerMeter {
    request: Histogram,
    request_bytes: Histogram,
    throttle: Histogram,
}

/// How full `buffer.memory` is.
#[derive(Clone)]
pub(crate) struct BufferMeter {
    available: Gauge,
    waiters: Gauge,
}

impl BufferMeter {
    pub(crate) fn new(client_id: Option<&str>, total: usize) -> Self {
        let labels = || vec![client(client_id)];
        gauge!(BUFFER_TOTAL, labels()).set(total as f64);
        let available = gauge!(BUFFER_AVAILABLE, labels());
        available.set(total as f64);
        Self { available, waiters: gauge!(BUFFER_WAITERS, labels()) }
    }

    pub(crate) fn see(&self, available: usize, waiters: usize) {
        self.available.set(available as f64);
        self.waiters.set(waiters as f64);
    }
}

fn client(client_id: Option<&str>) -> Label {
    Label::new("client_id", client_id.unwrap_or_default().to_owned())
}

impl Meter {
    /// Whether anything is measured.
    pub(crate) const ON: bool = true;

    pub(crate) fn new(client_id: Option<&str>) -> Self {
        describe();
        let client = client(client_id);
        let labels = || vec![client.clone()];
        let (in_flight, retries) = (gauge!(IN_FLIGHT, labels()), counter!(RETRIES, labels()));
        Self { client, topics: BTreeMap::new(), brokers: BTreeMap::new(), in_flight, retries, retried: 0 }
    }

    fn topic(&mut self, topic: &Arc<str>) -> &TopicMeter {
        if !self.topics.contains_key(topic) {
            let labels = || vec![self.client.clone(), Label::new("topic", topic.to_string())];
            let meter = TopicMeter {
                queue: histogram!(QUEUE, labels()),
                bytes: histogram!(BYTES, labels()),
                records: histogram!(RECORDS, labels()),
                ratio: histogram!(RATIO, labels()),
                acknowledged: counter!(ACKNOWLEDGED, labels()),
                failed: counter!(FAILED, labels()),
            };
            self.topics.insert(topic.clone(), meter);
        }
        &self.topics[topic]
    }

    fn broker(&mut self, broker: i32) -> &BrokerMeter {
        let client = &self.client;
        self.brokers.entry(broker).or_insert_with(|| {
            let labels = || vec![client.clone(), Label::new("broker", broker.to_string())];
            BrokerMeter {
                request: histogram!(REQUEST, labels()),
                request_bytes: histogram!(REQUEST_BYTES, labels()),
                throttle: histogram!(THROTTLE, labels()),
            }
        })
    }

    /// A batch goes into a request for the first time.
    pub(crate) fn batch_sent(&mut self, topic: &Arc<str>, queued: Duration, batch: &SealedBatch) {
        let meter = self.topic(topic);
        meter.queue.record(queued);
        meter.bytes.record(batch.len_bytes() as f64);
        meter.records.record(f64::from(batch.count()));
        meter.ratio.record(batch.records().len() as f64 / batch.uncompressed_bytes().max(1) as f64);
    }

    /// It is known what became of the records of a batch.
    pub(crate) fn resolved(&mut self, topic: &Arc<str>, records: u32, acknowledged: bool) {
        let meter = self.topic(topic);
        let counter = if acknowledged { &meter.acknowledged } else { &meter.failed };
        counter.increment(u64::from(records));
    }

    pub(crate) fn request_sent(&mut self, broker: i32, bytes: usize) {
        self.broker(broker).request_bytes.record(bytes as f64);
    }

    pub(crate) fn answered(&mut self, broker: i32, took: Duration) {
        self.broker(broker).request.record(took);
    }

    pub(crate) fn throttled(&mut self, broker: i32, pause: Duration) {
        if !pause.is_zero() {
            self.broker(broker).throttle.record(pause);
        }
    }

    /// So many batches of a request failed in this way.
    pub(crate) fn failed(&mut self, code: &'static str, batches: usize) {
        counter!(ERRORS, vec![self.client.clone(), Label::from_static_parts("code", code)])
            .increment(batches as u64);
    }

    pub(crate) fn see(&mut self, in_flight: usize, retries: u64) {
        self.in_flight.set(in_flight as f64);
        self.retries.increment(retries - self.retried);
        self.retried = retries;
    }
}
