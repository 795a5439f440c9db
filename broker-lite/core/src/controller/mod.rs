//! The controller: decides who is alive, who leads, and what exists.
//!
//! In: requests of brokers and clients, and the clock. Out: [`Outcome`]s, that is records for the metadata
//! log and the answer to give once they are committed. The records are already applied to the controller's
//! own image when it returns them, so the driver must append every outcome's records in the order returned,
//! each outcome's as one batch; if an append fails, this controller is no longer true and must be dropped.
//!
//! ```text
//! requests ─▶ brokers, topics, alter_partition ─▶ election ─▶ records ─▶ image
//! ```
//!
//! Invariant: the image equals what the returned records add up to.

mod alter_partition;
mod brokers;
mod create_topics;
mod delete_topics;
mod election;
mod names;
mod producer_ids;

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_wire::metadata_records::{FeatureLevelRecord, MetadataRecord, NoOpRecord};
use klamm_wire::{ErrorCode, StrBytes};
use uuid::Uuid;

use crate::Tick;
use crate::config::BrokerConfig;
use crate::metadata::{Delta, Image, PartitionRegistration};
use brokers::Session;
use election::Proposal;

/// `metadata.version` of Apache Kafka 4.3.0 (4.3-IV0), whose record formats are written.
const METADATA_VERSION: i16 = 30;

/// Records to append, and the answer to give when they are committed.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Outcome<R> {
    /// Records for the log, as one batch; often none.
    pub records: Vec<MetadataRecord>,
    /// The log's high watermark must reach this before the answer is given.
    ///
    /// Also without records: an answer must not show what could still be lost.
    pub commit_at: i64,
    /// The answer.
    pub response: R,
}

/// Why one item of a request is refused: code, and a text that names the cause.
#[derive(Debug)]
struct Refusal(ErrorCode, String);

impl Refusal {
    fn message(self) -> Option<StrBytes> {
        Some(StrBytes::from_string(self.1))
    }
}

/// The active controller of one cluster.
#[derive(Debug)]
pub struct Controller {
    cluster_id: String,
    settings: BrokerConfig,
    session_timeout: Duration,
    image: Image,
    sessions: BTreeMap<i32, Session>,
    rng: fastrand::Rng,
    records: Vec<MetadataRecord>,
}

impl Controller {
    /// Takes over from a log that adds up to `image` (empty for a new cluster).
    ///
    /// Brokers that are not fenced in it have a whole session timeout from `now` to report.
    pub fn new(
        now: Tick,
        cluster_id: &str,
        settings: BrokerConfig,
        image: Image,
        rng: fastrand::Rng,
    ) -> Self {
        let session_timeout = settings.millis("broker.session.timeout.ms").unwrap_or(Duration::from_secs(9));
        let sessions =
            image.live_brokers().map(|broker| (broker.id, Session::new(now + session_timeout))).collect();
        let cluster_id = cluster_id.to_owned();
        Self { cluster_id, settings, session_timeout, image, sessions, rng, records: Vec::new() }
    }

    /// The state of the cluster including records that are not committed yet.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The settings that defaults for topics come from.
    pub fn settings(&self) -> &BrokerConfig {
        &self.settings
    }

    /// First records of a new cluster: finalized features, and its id. None if the log holds them already.
    pub fn bootstrap(&mut self) -> Outcome<()> {
        if self.image.features().is_empty() {
            let features = [("metadata.version", METADATA_VERSION), ("eligible.leader.replicas.version", 1)];
            for (name, feature_level) in features {
                self.emit(FeatureLevelRecord { name: name.to_owned(), feature_level });
            }
        }
        if self.image.cluster_id().is_none() {
            self.emit(Image::cluster_id_record(&self.cluster_id.clone()));
        }
        self.outcome(())
    }

    /// A record that changes nothing, for `metadata.max.idle.interval.ms`: whoever applies it knows that it is up to date.
    pub fn no_op(&mut self) -> Outcome<()> {
        self.emit(NoOpRecord {});
        self.outcome(())
    }

    /// Applies a record of our own making and keeps it for the outcome.
    fn emit(&mut self, record: impl Into<MetadataRecord>) {
        let record = record.into();
        let applied = self.image.apply(&record, &mut Delta::default());
        debug_assert_eq!(applied, Ok(()), "the controller wrote a record that does not fit: {record:?}");
        if applied.is_ok() {
            self.records.push(record);
        }
    }

    fn outcome<R>(&mut self, response: R) -> Outcome<R> {
        let records = std::mem::take(&mut self.records);
        Outcome { records, commit_at: self.image.next_offset(), response }
    }

    /// Whether a request comes from the broker's living registration.
    fn check_epoch(&self, broker_id: i32, epoch: i64) -> Result<(), ErrorCode> {
        match self.image.broker(broker_id) {
            Some(broker) if broker.epoch == epoch => Ok(()),
            _ => Err(ErrorCode::STALE_BROKER_EPOCH),
        }
    }

    /// Brings one partition to the state that follows from who is alive; `edit` may ask for more.
    fn reconsider(&mut self, topic_id: Uuid, partition_id: i32, edit: impl FnOnce(&mut Proposal<'_>)) {
        let Some(topic) = self.image.topic_by_id(topic_id) else { return };
        let Some(current) = topic.partitions.get(&partition_id) else { return };
        let config = self.image.topic_config(&topic.name, &self.settings);
        let mut proposal = Proposal {
            current,
            isr: current.isr.clone(),
            recovery: current.leader_recovery_state,
            unclean_shutdown: None,
            min_insync: config.min_insync_replicas(),
            unclean_allowed: config.unclean_leader_election(),
            acceptable: &|id| self.image.is_active(id),
        };
        edit(&mut proposal);
        let next = proposal.resolve();
        if let Some(record) = election::change(topic_id, partition_id, current, &next) {
            self.emit(record);
        }
    }

    fn partitions_where(&self, wanted: impl Fn(&PartitionRegistration) -> bool) -> Vec<(Uuid, i32)> {
        let all = self.image.topics().flat_map(|topic| {
            topic.partitions.iter().map(|(number, partition)| ((topic.id, *number), partition))
        });
        all.filter(|(_, partition)| wanted(partition)).map(|(at, _)| at).collect()
    }
}

#[cfg(test)]
mod tests;
