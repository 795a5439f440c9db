//! InitProducerId (22): versions 0 to 5, for idempotent producers; transactions are not there yet.
//!
//! Without a transactional id Kafka hands out a new id with epoch 0 whatever id and epoch the
//! producer names (KIP-360 bumps on the broker concern transactional ids only), and so does this.

use std::sync::Arc;

use klamm_wire::ErrorCode;
use klamm_wire::codec::{decode_request, decode_response, encode_request};
use klamm_wire::messages::{
    AllocateProducerIdsRequest, BrokerId, InitProducerIdRequest, InitProducerIdResponse, ProducerId,
};
use klamm_wire::seam::Frame;

use super::{Handled, now, reply};
use crate::broker::{Broker, GivenUp};
use crate::node::Answer;

const ALLOCATE_VERSION: i16 = 0;

/// Answers from this broker's block of ids, after getting a new block if it is used up.
pub(super) fn handle(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<InitProducerIdRequest>(frame)?;
    // id and epoch together or neither
    let halved = (request.producer_id.0 == -1) != (request.producer_epoch == -1);
    if request.transactional_id.is_some() || halved {
        return now::<InitProducerIdRequest>(version, &refused(ErrorCode::INVALID_REQUEST));
    }
    if let Some(id) = broker.producer_ids.lock().next() {
        return now::<InitProducerIdRequest>(version, &granted(id));
    }
    let broker = broker.clone();
    Ok(Answer::Later(Box::pin(async move {
        let response = match allocate(&broker).await {
            Ok(id) => granted(id),
            Err(code) => refused(code),
        };
        reply::<InitProducerIdRequest>(version, &response)
    })))
}

/// Gets a block from the controller and takes the first id. What others have left of an older block
/// is not used any more: ids are plenty.
async fn allocate(broker: &Broker) -> Result<i64, ErrorCode> {
    let request = AllocateProducerIdsRequest::default()
        .with_broker_id(BrokerId(broker.id()))
        .with_broker_epoch(broker.registration().epoch);
    let retry = ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
    let frame = encode_request(ALLOCATE_VERSION, &request).map_err(|_| ErrorCode::UNKNOWN_SERVER_ERROR)?;
    let answer =
        broker.ask_controller("producer ids", GivenUp::WhenDoubted, frame).await.map_err(|_| retry)?;
    let block = decode_response::<AllocateProducerIdsRequest>(answer).map_err(|_| retry)?;
    if block.error_code != 0 {
        tracing::info!(broker = broker.id(), code = %ErrorCode(block.error_code), "no producer ids");
        return Err(retry);
    }
    let first = block.producer_id_start.0;
    let mut ids = broker.producer_ids.lock();
    *ids = first..first + i64::from(block.producer_id_len);
    ids.next().ok_or(retry)
}

fn granted(id: i64) -> InitProducerIdResponse {
    InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0)
}

fn refused(code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(code.0)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}
