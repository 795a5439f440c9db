//! Settings that belong together, by one call.
//!
//! A preset sets what its documentation names, as if its methods were called one after the other.

use std::time::Duration;

use super::{Acks, ProducerBuilder};

/// Kafka's default: time bounds the attempts, not their number.
const WITHOUT_END: u32 = i32::MAX as u32;

impl<K, V> ProducerBuilder<K, V> {
    /// Preset for records that may be lost: telemetry, logs, clicks. Goes with the topic
    /// [`NewTopic::high_throughput`](crate::NewTopic::high_throughput).
    ///
    /// | setting | value | what it means |
    /// |---|---|---|
    /// | `acks` | as given, 0 or 1 | 0: not even errors are heard of. 1: the leader has it; what its followers have not copied is lost if it dies |
    /// | `enable.idempotence` | false | a retry may write a record twice, and after others that were sent later |
    /// | `linger.ms` | 0 | nothing waits for a batch to fill; under load batches fill while requests are in flight |
    /// | `retries` | 2147483647 | see [`reliable`](Self::reliable); with `acks=0` only what could not be sent is tried again |
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) refuses [`Acks::All`] given here, unless a later call sets other acks.
    pub fn high_throughput(self, acks: Acks) -> Self {
        let mut preset =
            self.acks(acks).enable_idempotence(false).linger_ms(Duration::ZERO).retries(WITHOUT_END);
        preset.options.misfit = acks == Acks::All;
        preset
    }

    /// Preset for records that must survive the loss of a broker. Goes with the topic
    /// [`NewTopic::reliable`](crate::NewTopic::reliable), of whose three replicas two must have a record before it is
    /// acknowledged: one broker can be lost without losing records and without a pause in taking them.
    ///
    /// | setting | value | what it means |
    /// |---|---|---|
    /// | `acks` | all | acknowledged when all replicas in sync have it, and at least `min.insync.replicas` are |
    /// | `enable.idempotence` | as by default: on | retries leave one copy, in order |
    /// | `linger.ms` | 0 | a record is sent at once, as it is waited for |
    /// | `retries` | 2147483647 | attempts go on for `delivery.timeout.ms`, two minutes by default |
    ///
    /// The classic advice is `retries=3`. It comes from a time when retries had no other bound: three attempts, 100 ms
    /// apart, do not outlast an election. Since `delivery.timeout.ms` bounds the whole (KIP-91), set that to how long an
    /// answer is worth waiting for, and leave `retries` alone.
    pub fn reliable(self) -> Self {
        let mut preset = self.acks(Acks::All).linger_ms(Duration::ZERO).retries(WITHOUT_END);
        preset.options.idempotence = None;
        preset
    }

    /// Preset for records that must survive the loss of power of all brokers at once. Sets what
    /// [`reliable`](Self::reliable) sets; what makes the difference is the topic,
    /// [`NewTopic::highly_reliable`](crate::NewTopic::highly_reliable): by `flush.messages=1` each replica syncs records
    /// to its disk before they count as written, where by default they are only in memory of several machines. Each
    /// acknowledgement then waits for disks, and throughput depends on how many records share a sync.
    pub fn highly_reliable(self) -> Self {
        self.reliable()
    }

    /// Preset for records whose order matters, also when some have to be sent again. Order is kept within a partition:
    /// give records that belong together the same key, or name their partition.
    ///
    /// | setting | value | what it means |
    /// |---|---|---|
    /// | `max.in.flight.requests.per.connection` | 1 | nothing is sent behind a request that may have to be sent again |
    /// | `partitioner.ignore.keys` | false | equal keys go to one partition |
    /// | `linger.ms` | 0 | a record is sent at once |
    /// | `retries` | 2147483647 | see [`reliable`](Self::reliable) |
    ///
    /// Idempotence is the cheap way to the same end, and it is on by default: batches carry sequence numbers, a broker
    /// takes them in order only, and five requests may be in flight. So what this preset adds is order where idempotence
    /// is off ([`Acks::Leader`], an old broker), and for that it pays with a round trip between requests. Without
    /// idempotence a record may come twice; its copies stand one behind the other.
    ///
    /// The other classic way is `retries(0)`: what fails is not sent again, so it cannot come late. Records behind a
    /// failed one are written, and the gap is yours to fill.
    pub fn ordered(self) -> Self {
        let preset = self.max_in_flight_requests_per_connection(1).partitioner_ignore_keys(false);
        preset.linger_ms(Duration::ZERO).retries(WITHOUT_END)
    }
}
