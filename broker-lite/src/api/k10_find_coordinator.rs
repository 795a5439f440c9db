//! FindCoordinator (10): version 0, and always refused, because there are no coordinators yet.
//!
//! It is offered at all for one reason, the same as Produce 0 to 2: librdkafka compresses with lz4 only for brokers
//! that offer FindCoordinator 0, and sends uncompressed batches without a word otherwise. The refusal is final
//! for clients (not "retry later"), so that a group consumer fails at once instead of asking for ever.

use klamm_wire::ErrorCode;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use klamm_wire::seam::Frame;

use super::{Handled, now};

/// Refuses.
pub(super) fn handle(frame: Frame) -> Handled {
    let version = frame.api_version;
    let request = decode_request::<FindCoordinatorRequest>(frame)?;
    tracing::info!(group = %request.key, "refusing FindCoordinator: broker-lite has no group coordinator yet");
    let refused = FindCoordinatorResponse::default()
        .with_error_code(ErrorCode::UNSUPPORTED_VERSION.0)
        .with_node_id(BrokerId(-1))
        .with_port(-1);
    now::<FindCoordinatorRequest>(version, &refused)
}
