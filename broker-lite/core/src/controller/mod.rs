//! The controller: decides who is alive, who leads, and what exists.
//!
//! In: requests of brokers and clients, and the clock. Out: [`Outcome`]s, that is records for the metadata
//! log and the answer to give once they are committed. The records are already applied to the controller's
//! own image when it returns them, so the driver must append every outcome's records in the order returned;
//! if an append fails, this controller is no longer true and must be dropped.

use klamm_wire::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest, AlterPartitionResponse,
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse,
};

use crate::Tick;
use crate::config::BrokerConfig;
use crate::metadata::{Image, MetadataRecord};

/// Records to append, and the answer to give when they are committed.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Outcome<R> {
    /// Records for the log, as one batch; often none.
    pub records: Vec<MetadataRecord>,
    /// The log's high watermark must reach this before the answer is given.
    pub commit_at: i64,
    /// The answer.
    pub response: R,
}

/// The active controller of one cluster.
#[derive(Debug)]
pub struct Controller {
    image: Image,
}

impl Controller {
    /// Takes over from a log that adds up to `image` (empty for a new cluster).
    ///
    /// Brokers that are not fenced in it have a whole session timeout from `now` to report.
    pub fn new(
        _now: Tick,
        _cluster_id: &str,
        _settings: BrokerConfig,
        _image: Image,
        _rng: fastrand::Rng,
    ) -> Self {
        unimplemented!()
    }

    /// The state of the cluster including records that are not committed yet.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// First records of a new cluster (finalized features); none if the log holds some already.
    pub fn bootstrap(&mut self) -> Outcome<()> {
        unimplemented!()
    }

    /// BrokerRegistration (62).
    pub fn register_broker(
        &mut self,
        _now: Tick,
        _request: &BrokerRegistrationRequest,
    ) -> Outcome<BrokerRegistrationResponse> {
        unimplemented!()
    }

    /// BrokerHeartbeat (63).
    pub fn heartbeat(
        &mut self,
        _now: Tick,
        _request: &BrokerHeartbeatRequest,
    ) -> Outcome<BrokerHeartbeatResponse> {
        unimplemented!()
    }

    /// AlterPartition (56).
    pub fn alter_partition(&mut self, _request: &AlterPartitionRequest) -> Outcome<AlterPartitionResponse> {
        unimplemented!()
    }

    /// AllocateProducerIds (67).
    pub fn allocate_producer_ids(
        &mut self,
        _request: &AllocateProducerIdsRequest,
    ) -> Outcome<AllocateProducerIdsResponse> {
        unimplemented!()
    }

    /// CreateTopics (19).
    pub fn create_topics(&mut self, _request: &CreateTopicsRequest) -> Outcome<CreateTopicsResponse> {
        unimplemented!()
    }

    /// CreatePartitions (37).
    pub fn create_partitions(
        &mut self,
        _request: &CreatePartitionsRequest,
    ) -> Outcome<CreatePartitionsResponse> {
        unimplemented!()
    }

    /// DeleteTopics (20).
    pub fn delete_topics(&mut self, _request: &DeleteTopicsRequest) -> Outcome<DeleteTopicsResponse> {
        unimplemented!()
    }

    /// Returns when [`Self::on_deadline`] wants to run.
    pub fn deadline(&self) -> Option<Tick> {
        unimplemented!()
    }

    /// Fences brokers that have been silent for `broker.session.timeout.ms`.
    pub fn on_deadline(&mut self, _now: Tick) -> Outcome<()> {
        unimplemented!()
    }
}
