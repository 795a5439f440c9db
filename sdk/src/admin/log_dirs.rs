//! What brokers have on their disks.

use std::collections::BTreeMap;

use futures::future::join_all;
use klamm_core::TopicPartition;
use klamm_wire::messages::describe_log_dirs_response::DescribeLogDirsResult;
use klamm_wire::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use klamm_wire::{ErrorCode, codec};

use super::Admin;
use super::call::{How, Verdict, verdict};
use super::error::{AdminError, Refused};
use super::results::{BrokerResults, Results};
use crate::client::Target;

/// One log directory of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogDirDescription {
    /// Its path on the broker.
    pub path: String,
    /// Why it cannot be used, usually KAFKA_STORAGE_ERROR; `None` if it can.
    pub error: Option<ErrorCode>,
    /// Size of its file system in bytes, if the broker tells (KIP-827).
    pub total_bytes: Option<i64>,
    /// Free bytes of it, if the broker tells.
    pub usable_bytes: Option<i64>,
    /// The replicas there, in the order of their names.
    pub replicas: Vec<ReplicaOnDisk>,
}

/// One replica's log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaOnDisk {
    /// Whose it is.
    pub partition: TopicPartition,
    /// Bytes of its segments.
    pub size_bytes: i64,
    /// Records that it is behind: its leader's high watermark, or, if `future`, the log that it shall replace.
    pub lag: i64,
    /// `true` if it is being copied here from another directory of the same broker.
    pub future: bool,
}

impl Admin {
    /// Describes the log directories of brokers, all brokers at once.
    ///
    /// DescribeLogDirs, api key 35, to each of the brokers.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if none of them answers in time. One that does not is an error in the results.
    pub async fn describe_log_dirs(
        &self,
        brokers: impl IntoIterator<Item = i32>,
    ) -> Result<BrokerResults<Vec<LogDirDescription>>, AdminError> {
        let brokers: Vec<i32> = brokers.into_iter().collect();
        let request = DescribeLogDirsRequest::default().with_topics(None);
        let encode = |version| codec::encode_request(version, &request);
        let asked = brokers.iter().map(async |broker| {
            let how = How { to: Target::Broker(*broker), ..How::any() };
            (*broker, self.attempts().ask::<DescribeLogDirsRequest>(&how, &encode).await)
        });
        let mut told = BTreeMap::new();
        let mut failed = None;
        for (broker, answer) in join_all(asked).await {
            told.insert(broker, answer.as_ref().map_err(Refused::unanswered).and_then(read));
            failed = answer.err().or(failed);
        }
        match failed {
            Some(error) if told.values().all(Result::is_err) => Err(error),
            _ => Ok(Results::in_order(brokers, &told)),
        }
    }
}

fn read(answer: &DescribeLogDirsResponse) -> Verdict<Vec<LogDirDescription>> {
    verdict(answer.error_code, None)?;
    Ok(answer.results.iter().map(log_dir).collect())
}

fn log_dir(told: &DescribeLogDirsResult) -> LogDirDescription {
    let known = |bytes: i64| Some(bytes).filter(|bytes| *bytes >= 0);
    let replicas = told.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| ReplicaOnDisk {
            partition: TopicPartition::new(topic.name.as_str(), partition.partition_index),
            size_bytes: partition.partition_size,
            lag: partition.offset_lag,
            future: partition.is_future_key,
        })
    });
    let mut replicas: Vec<_> = replicas.collect();
    replicas.sort_by(|a, b| a.partition.cmp(&b.partition));
    LogDirDescription {
        path: told.log_dir.as_str().to_owned(),
        error: ErrorCode(told.error_code).ok().err(),
        total_bytes: known(told.total_bytes),
        usable_bytes: known(told.usable_bytes),
        replicas,
    }
}
