//! DeleteRecords (21): versions 0 to 2.

use std::sync::Arc;
use std::time::Duration;

use klamm_wire::ErrorCode;
use klamm_wire::codec::{decode_request, encode_response};
use klamm_wire::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use klamm_wire::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use klamm_wire::seam::Frame;

use super::{Handled, encoded};
use crate::broker::{Broker, Partition, Signal, TopicRef, Until};
use crate::node::Answer;
use crate::rt::Tick;

/// What is answered for a partition that nothing was deleted of.
const NO_WATERMARK: i64 = -1;

/// One partition whose followers may still hold what was deleted.
struct Due {
    topic: usize,
    partition: usize,
    replica: Arc<Partition>,
    start: i64,
}

/// Moves the log's start at once; the answer waits for the followers that live.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<DeleteRecordsRequest>(frame)?;
    let deadline = broker.rt.now() + Duration::from_millis(request.timeout_ms.max(0).unsigned_abs().into());
    let mut response = DeleteRecordsResponse::default();
    let mut due = Vec::new();
    let named = request.topics.into_iter().filter(|topic| !topic.partitions.is_empty());
    for (t, topic) in named.enumerate() {
        let mut results = Vec::with_capacity(topic.partitions.len());
        for (p, wanted) in topic.partitions.iter().enumerate() {
            let index = wanted.partition_index;
            let result = DeleteRecordsPartitionResult::default().with_partition_index(index);
            results.push(match delete(broker, &topic.name, index, wanted.offset) {
                Ok((replica, start)) => {
                    due.push(Due { topic: t, partition: p, replica, start });
                    result.with_low_watermark(start)
                }
                Err(code) => result.with_low_watermark(NO_WATERMARK).with_error_code(code.0),
            });
        }
        let topic = DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(results);
        response.topics.push(topic);
    }
    let broker = broker.clone();
    Ok(Answer::Later(Box::pin(async move {
        until_deleted(&broker, due, deadline, &mut response).await;
        encoded(encode_response::<DeleteRecordsRequest>(version, &response))
    })))
}

fn delete(
    broker: &Arc<Broker>,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<(Arc<Partition>, i64), ErrorCode> {
    let replica = broker.partition(TopicRef::Name(topic), partition)?;
    let start = replica.with(broker, |replica, fx| replica.delete_records(offset, fx));
    let start = start.unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER))?;
    Ok((replica, start))
}

/// Waits for one partition after the other, all of them until the same moment.
async fn until_deleted(broker: &Broker, due: Vec<Due>, deadline: Tick, response: &mut DeleteRecordsResponse) {
    for Due { topic, partition, replica, start } in due {
        let signal = Signal::default();
        let low = loop {
            let low = replica.look(|replica| replica.low_watermark());
            match low.unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)) {
                Ok(low) if low < start && broker.rt.now() >= deadline => {
                    break Err(ErrorCode::REQUEST_TIMED_OUT);
                }
                Ok(low) if low < start => replica.wait(Until::Deleted(start), &signal),
                settled => break settled,
            }
            tokio::select! {
                biased;
                () = signal.notified() => {}
                () = broker.rt.sleep_until(deadline) => {}
            }
        };
        replica.forget(&signal);
        let answer = response.topics.get_mut(topic).and_then(|topic| topic.partitions.get_mut(partition));
        if let Some(answer) = answer {
            (answer.low_watermark, answer.error_code) = match low {
                Ok(low) => (low, 0),
                Err(code) => (NO_WATERMARK, code.0),
            };
        }
    }
}
