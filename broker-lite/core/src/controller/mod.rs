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

mod alter_configs;
mod alter_partition;
mod brokers;
mod create_partitions;
mod create_topics;
mod delete_topics;
mod elect_leaders;
mod election;
mod features;
mod names;
mod producer_ids;
mod reassign;
mod rebalance;
mod unregister;

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_wire::metadata_records::{FeatureLevelRecord, MetadataRecord, NoOpRecord};
use klamm_wire::{ErrorCode, StrBytes};
use uuid::Uuid;

use crate::Tick;
use crate::config::BrokerConfig;
use crate::metadata::{ConfigResource, Delta, Image, PartitionRegistration};
pub use alter_configs::{ResourceChange, check_at_broker};
use brokers::Session;
use election::Proposal;
pub use features::SUPPORTED as SUPPORTED_FEATURES;
use rebalance::Rebalance;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub ErrorCode, pub String);

impl Refusal {
    fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self(code, reason.into())
    }

    /// The text, as responses carry it.
    pub fn message(self) -> Option<StrBytes> {
        Some(StrBytes::from_string(self.1))
    }
}

/// The active controller of one cluster.
#[derive(Debug)]
pub struct Controller {
    cluster_id: String,
    given: BrokerConfig,
    /// `given` under what is set for all brokers while running.
    settings: BrokerConfig,
    session_timeout: Duration,
    rebalance: Rebalance,
    image: Image,
    sessions: BTreeMap<i32, Session>,
    rng: fastrand::Rng,
    records: Vec<MetadataRecord>,
}

impl Controller {
    /// Takes over from a log that adds up to `image` (empty for a new cluster).
    ///
    /// Brokers that are not fenced in it have a whole session timeout from `now` to report.
    pub fn new(now: Tick, cluster_id: &str, given: BrokerConfig, image: Image, rng: fastrand::Rng) -> Self {
        let session_timeout = given.millis("broker.session.timeout.ms").unwrap_or(Duration::from_secs(9));
        let sessions =
            image.live_brokers().map(|broker| (broker.id, Session::new(now + session_timeout))).collect();
        let settings = given.under(&BTreeMap::new(), image.configs(&ConfigResource::Broker(None)));
        Self {
            cluster_id: cluster_id.to_owned(),
            rebalance: Rebalance::new(now, &given),
            given,
            settings,
            session_timeout,
            image,
            sessions,
            rng,
            records: Vec::new(),
        }
    }

    /// The state of the cluster including records that are not committed yet.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The settings that defaults for topics come from.
    pub fn settings(&self) -> &BrokerConfig {
        &self.settings
    }

    /// First records of a new cluster: finalized features, what they ask for, and its id. None if the log holds them already.
    pub fn bootstrap(&mut self) -> Outcome<()> {
        if self.image.features().is_empty() {
            for (name, feature_level) in features::FIRST {
                self.emit(FeatureLevelRecord { name: (*name).to_owned(), feature_level: *feature_level });
            }
            self.settle_min_insync();
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
        let (record, mut delta) = (record.into(), Delta::default());
        let applied = self.image.apply(&record, &mut delta);
        debug_assert_eq!(applied, Ok(()), "the controller wrote a record that does not fit: {record:?}");
        if applied.is_ok() {
            self.records.push(record);
        }
        let all_brokers = ConfigResource::Broker(None);
        if delta.configs.contains(&all_brokers) {
            self.settings = self.given.under(&BTreeMap::new(), self.image.configs(&all_brokers));
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

    /// Brings one partition to the state that follows from who is alive; `edit` may ask for more. Returns whether that
    /// is a new state.
    fn reconsider(
        &mut self,
        topic_id: Uuid,
        partition_id: i32,
        edit: impl FnOnce(&mut Proposal<'_>),
    ) -> bool {
        let Some(topic) = self.image.topic_by_id(topic_id) else { return false };
        let Some(current) = topic.partitions.get(&partition_id) else { return false };
        let config = self.image.topic_config(&topic.name, &self.settings);
        let mut proposal = Proposal {
            current,
            isr: current.isr.clone(),
            replicas: current.replicas.clone(),
            adding: current.adding_replicas.clone(),
            removing: current.removing_replicas.clone(),
            recovery: current.leader_recovery_state,
            preferred: false,
            unclean_shutdown: None,
            min_insync: config.min_insync_replicas(),
            unclean_allowed: config.unclean_leader_election(),
            elr_enabled: self.elr_enabled(),
            acceptable: &|id| self.image.is_active(id),
        };
        edit(&mut proposal);
        let next = proposal.resolve();
        let directory = |id| self.log_dir(id);
        let record = election::change(topic_id, partition_id, current, &next, directory);
        record.map(|record| self.emit(record)).is_some()
    }

    /// Whether replicas may be eligible leaders outside the ISR (KIP-966).
    fn elr_enabled(&self) -> bool {
        self.image.features().get(features::ELR).is_some_and(|level| *level >= 1)
    }

    /// Where a broker keeps its replicas: its only log directory, or not known.
    fn log_dir(&self, broker: i32) -> Uuid {
        match self.image.broker(broker).map(|broker| broker.log_dirs.as_slice()) {
            Some([only]) => *only,
            _ => Uuid::nil(),
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
