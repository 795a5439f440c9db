//! Fetch (1) of the metadata log, as the controller answers it to brokers.

use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::metadata::{METADATA_TOPIC, METADATA_TOPIC_ID, MetadataLog, SingleVoter};
use bytes::Bytes;
use klamm_wire::ErrorCode;
use klamm_wire::codec::{decode_request, encode_fetch_response};
use klamm_wire::messages::fetch_response::{FetchableTopicResponse, LeaderIdAndEpoch, PartitionData};
use klamm_wire::messages::{BrokerId, FetchRequest, FetchResponse};
use klamm_wire::seam::Frame;

use super::{Handled, encoded};
use crate::broker::Signal;
use crate::controller::ControllerNode;
use crate::node::{Answer, Reply};

/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;

/// What one broker wants of the log.
struct Wanted {
    version: i16,
    from: i64,
    max_bytes: usize,
}

/// Answers when something is committed from the offset asked for on, or the wait is over.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<FetchRequest>(frame)?;
    let log = request.topics.iter().find(|topic| {
        if version >= TOPIC_IDS {
            topic.topic_id == METADATA_TOPIC_ID
        } else {
            &**topic.topic == METADATA_TOPIC
        }
    });
    let Some(partition) = log.and_then(|topic| topic.partitions.first()).filter(|p| p.partition == 0) else {
        let code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        let refused = FetchResponse::default().with_error_code(code.0);
        return Ok(Answer::Now(encoded(encode_fetch_response(version, &refused, &[]))));
    };
    let wanted = Wanted {
        version,
        from: partition.fetch_offset,
        max_bytes: usize::try_from(request.max_bytes.min(partition.partition_max_bytes)).unwrap_or(0),
    };
    let wait = Duration::from_millis(request.max_wait_ms.max(0).unsigned_abs().into());
    let signal = Signal::default();
    let (ready, reply) = wanted.read(controller, &signal);
    if ready || wait.is_zero() {
        controller.forget(&signal);
        return Ok(Answer::Now(reply));
    }
    let waiting = Waiting { controller: controller.clone(), signal };
    Ok(Answer::Later(Box::pin(async move {
        let controller = &waiting.controller;
        let deadline = controller.rt.now() + wait;
        tokio::select! {
            biased;
            () = waiting.signal.notified() => {}
            () = controller.rt.sleep_until(deadline) => {}
        }
        wanted.read(controller, &waiting.signal).1
    })))
}

/// Leaves no signal behind when the broker goes away.
struct Waiting {
    controller: Arc<ControllerNode>,
    signal: Signal,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.controller.forget(&self.signal);
    }
}

impl Wanted {
    /// The answer as of now, and whether it is worth sending.
    fn read(&self, controller: &ControllerNode, signal: &Signal) -> (bool, Reply) {
        let (data, records) = controller.log(self.from, signal, |log| self.read_log(log));
        let ready = data.error_code != 0 || !records.is_empty();
        let (id, name) = if self.version >= TOPIC_IDS {
            (METADATA_TOPIC_ID, "")
        } else {
            (uuid::Uuid::nil(), METADATA_TOPIC)
        };
        let topic = FetchableTopicResponse::default()
            .with_topic(super::text(name).into())
            .with_topic_id(id)
            .with_partitions(vec![data]);
        let response = FetchResponse::default().with_responses(vec![topic]);
        (ready, encoded(encode_fetch_response(self.version, &response, &[vec![records]])))
    }

    fn read_log(&self, log: &SingleVoter) -> (PartitionData, Vec<Bytes>) {
        let committed = log.high_watermark();
        let (leader, epoch) = log.leader();
        let leader = LeaderIdAndEpoch::default()
            .with_leader_id(BrokerId(leader.unwrap_or(-1)))
            .with_leader_epoch(epoch);
        let data = PartitionData::default()
            .with_high_watermark(committed)
            .with_last_stable_offset(committed)
            .with_log_start_offset(log.start_offset())
            .with_current_leader(leader)
            .with_aborted_transactions(None)
            .with_preferred_read_replica(BrokerId(-1))
            .with_records(Some(Bytes::new()));
        if self.from == committed {
            return (data, Vec::new());
        }
        match log.read(self.from, self.max_bytes) {
            Ok(records) => (data, records),
            Err(error) => {
                tracing::info!(%error, "metadata fetch refused");
                (data.with_error_code(ErrorCode::OFFSET_OUT_OF_RANGE.0), Vec::new())
            }
        }
    }
}
