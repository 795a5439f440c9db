//! Administration.
#![allow(dead_code)]

use std::time::Duration;

use klamm_wire::ErrorCode;
use uuid::Uuid;

use crate::client::Client;
use crate::error::{ConfigError, Recovery, RequestError};

/// Creates, describes and deletes topics.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    name: String,
    partitions: Option<i32>,
    replicas: Option<i16>,
    configs: Vec<(String, String)>,
}

impl NewTopic {
    /// A topic with the broker's default number of partitions and replicas.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), partitions: None, replicas: None, configs: Vec::new() }
    }

    /// Number of partitions.
    #[must_use]
    pub fn partitions(mut self, count: i32) -> Self {
        self.partitions = Some(count);
        self
    }

    /// Number of replicas of each partition.
    #[must_use]
    pub fn replicas(mut self, count: i16) -> Self {
        self.replicas = Some(count);
        self
    }

    /// Sets a topic setting, for example `min.insync.replicas`.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.push((name.into(), value.into()));
        self
    }
}

/// A topic as it was created.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedTopic {
    /// Name.
    pub name: String,
    /// Id; nil if the broker is too old to tell.
    pub id: Uuid,
}

/// A topic as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Name.
    pub name: String,
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterDescription {
    /// All brokers.
    pub brokers: Vec<BrokerDescription>,
}

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerDescription {
    /// Broker id.
    pub id: i32,
}

/// One result per topic, in the order asked for.
#[derive(Debug, Clone)]
pub struct TopicResults<T> {
    results: Vec<(String, Result<T, TopicError>)>,
}

impl<T> TopicResults<T> {
    /// All values, or the first error.
    ///
    /// # Errors
    ///
    /// Returns the first [`TopicError`].
    pub fn all(self) -> Result<Vec<T>, TopicError> {
        self.results.into_iter().map(|(_, result)| result).collect()
    }
}

/// Why nothing was done for one topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic {topic:?}: {code}{}", .message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
#[non_exhaustive]
pub struct TopicError {
    /// Name of the topic.
    pub topic: String,
    /// What the broker said.
    pub code: ErrorCode,
    /// The broker's own words.
    pub message: Option<String>,
}

/// Why a whole call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// A setting is impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No answer.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl AdminError {
    /// Returns the one sensible reaction to this error.
    pub fn recovery(&self) -> Recovery {
        unimplemented!()
    }
}

impl Admin {
    /// Creates topics; returns when the controller has created them. Brokers may learn of them a little later.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if no answer came within `default.api.timeout.ms`.
    pub async fn create_topics(
        &self,
        topics: impl IntoIterator<Item = NewTopic>,
    ) -> Result<TopicResults<CreatedTopic>, AdminError> {
        let _ = topics.into_iter();
        unimplemented!()
    }

    /// Describes topics.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if no answer came within `default.api.timeout.ms`.
    pub async fn describe_topics<S: Into<String>>(
        &self,
        names: impl IntoIterator<Item = S>,
    ) -> Result<TopicResults<TopicDescription>, AdminError> {
        let _ = names.into_iter();
        unimplemented!()
    }

    /// Deletes topics.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if no answer came within `default.api.timeout.ms`.
    pub async fn delete_topics<S: Into<String>>(
        &self,
        names: impl IntoIterator<Item = S>,
    ) -> Result<TopicResults<()>, AdminError> {
        let _ = names.into_iter();
        unimplemented!()
    }

    /// Describes the cluster.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if no answer came within `default.api.timeout.ms`.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, AdminError> {
        let _ = Duration::ZERO;
        unimplemented!()
    }
}
