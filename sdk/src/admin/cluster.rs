//! The cluster and its brokers.

use klamm_wire::messages::describe_cluster_response::DescribeClusterBroker;
use klamm_wire::messages::{BrokerId, DescribeClusterRequest, MetadataRequest, UnregisterBrokerRequest};
use klamm_wire::negotiation::NegotiationError;
use klamm_wire::{ErrorCode, StrBytes, codec};

use super::Admin;
use super::call::{Attempts, How, verdict};
use super::error::AdminError;
use crate::error::RequestError;

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterDescription {
    /// Id of the cluster; empty if the broker is too old to tell (before Apache Kafka 0.10.1).
    pub cluster_id: String,
    /// The broker that takes admin requests.
    pub controller: Option<i32>,
    /// All brokers, by id.
    pub brokers: Vec<BrokerDescription>,
}

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerDescription {
    /// Broker id.
    pub id: i32,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
    /// `broker.rack`, if set.
    pub rack: Option<String>,
    /// `true` if it is registered but not in service.
    pub fenced: bool,
}

impl Admin {
    /// Describes the cluster with the brokers that are in service.
    ///
    /// DescribeCluster, api key 60 (KIP-700), where the broker has it; else Metadata, api key 3. To any broker.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time, or the broker refuses.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, AdminError> {
        self.cluster(false).await
    }

    /// Describes the cluster with all brokers that are registered, fenced ones among them (KIP-1073).
    ///
    /// DescribeCluster, api key 60 (version 2, Apache Kafka 4.0), to any broker.
    ///
    /// # Errors
    ///
    /// As [`describe_cluster`](Self::describe_cluster), and [`AdminError::TooOld`].
    pub async fn describe_cluster_with_fenced(&self) -> Result<ClusterDescription, AdminError> {
        self.cluster(true).await
    }

    async fn cluster(&self, fenced: bool) -> Result<ClusterDescription, AdminError> {
        const FENCED: (i16, &str) = (2, "showing fenced brokers");
        let request =
            DescribeClusterRequest::default().with_endpoint_type(1).with_include_fenced_brokers(fenced);
        let encode = |version| codec::encode_request(version, &request);
        let how = How { needs: fenced.then_some(FENCED), again: NOT_NOW, ..How::any() };
        let mut attempts = self.attempts();
        let answer = attempts
            .ask_whole::<DescribeClusterRequest>(&how, &encode, |answer| {
                verdict(answer.error_code, answer.error_message.as_ref())
            })
            .await;
        let answer = match answer {
            Err(AdminError::Request(RequestError::Version(NegotiationError::NotOffered { .. })))
                if !fenced =>
            {
                return from_metadata(&mut attempts).await;
            }
            answer => answer?,
        };
        let broker = |broker: DescribeClusterBroker| {
            let described = described(broker.broker_id, &broker.host, broker.port, broker.rack.as_ref())?;
            Some(BrokerDescription { fenced: broker.is_fenced, ..described })
        };
        let brokers = answer.brokers.into_iter().filter_map(broker).collect();
        Ok(ClusterDescription::new(&answer.cluster_id, answer.controller_id, brokers))
    }

    /// Removes a broker from the cluster for good. [Drain](Self::drain) it and stop it first: one that still runs is
    /// thrown out, and partitions with replicas on it are left with fewer than they should have.
    ///
    /// UnregisterBroker, api key 64, to any broker, which hands it on to the controller.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time. BROKER_ID_NOT_REGISTERED with `maybe_done` means that the
    /// broker is gone, maybe by this call.
    pub async fn unregister_broker(&self, broker: i32) -> Result<(), AdminError> {
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(broker));
        let encode = |version| codec::encode_request(version, &request);
        let how = How { again: NOT_NOW, already: &[ErrorCode::BROKER_ID_NOT_REGISTERED], ..How::any() };
        let mut attempts = self.attempts();
        attempts
            .ask_whole::<UnregisterBrokerRequest>(&how, &encode, |answer| {
                verdict(answer.error_code, answer.error_message.as_ref())
            })
            .await?;
        Ok(())
    }
}

impl ClusterDescription {
    fn new(cluster_id: &str, controller: BrokerId, mut brokers: Vec<BrokerDescription>) -> Self {
        brokers.sort_by_key(|broker| broker.id);
        let controller = Some(controller.0).filter(|id| *id >= 0);
        Self { cluster_id: cluster_id.to_owned(), controller, brokers }
    }
}

fn described(id: BrokerId, host: &str, port: i32, rack: Option<&StrBytes>) -> Option<BrokerDescription> {
    let rack = rack.map(|rack| rack.as_str().to_owned());
    let port = u16::try_from(port).ok()?;
    Some(BrokerDescription { id: id.0, host: host.to_owned(), port, rack, fenced: false })
}

async fn from_metadata(attempts: &mut Attempts<'_>) -> Result<ClusterDescription, AdminError> {
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    let encode = |version| codec::encode_request(version, &request);
    let answer = attempts.ask::<MetadataRequest>(&How::any(), &encode).await?;
    let brokers = answer.brokers.iter();
    let brokers = brokers
        .filter_map(|broker| described(broker.node_id, &broker.host, broker.port, broker.rack.as_ref()));
    let cluster_id = answer.cluster_id.as_ref().map_or("", |id| id.as_str());
    Ok(ClusterDescription::new(cluster_id, answer.controller_id, brokers.collect()))
}

/// Another broker, or the same one a little later, may answer.
pub(super) const NOT_NOW: &[ErrorCode] = &[
    ErrorCode::NOT_CONTROLLER,
    ErrorCode::REQUEST_TIMED_OUT,
    ErrorCode::NOT_LEADER_OR_FOLLOWER,
    ErrorCode::LEADER_NOT_AVAILABLE,
];
