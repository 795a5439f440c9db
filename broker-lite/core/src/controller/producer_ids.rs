//! AllocateProducerIds (67): blocks of producer ids, each handed out once in the life of a cluster.

use klamm_wire::ErrorCode;
use klamm_wire::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse, ProducerId};
use klamm_wire::metadata_records::ProducerIdsRecord;

use super::{Controller, Outcome};

/// Ids in a block; brokers hand them out one by one.
const BLOCK: i32 = 1000;

impl Controller {
    /// AllocateProducerIds (67).
    pub fn allocate_producer_ids(
        &mut self,
        request: &AllocateProducerIdsRequest,
    ) -> Outcome<AllocateProducerIdsResponse> {
        let response = AllocateProducerIdsResponse::default();
        let response = match self.allocate(request) {
            Ok(start) => response.with_producer_id_start(ProducerId(start)).with_producer_id_len(BLOCK),
            Err(code) => response.with_error_code(code.0),
        };
        self.outcome(response)
    }

    fn allocate(&mut self, request: &AllocateProducerIdsRequest) -> Result<i64, ErrorCode> {
        let (broker_id, broker_epoch) = (request.broker_id.0, request.broker_epoch);
        self.check_epoch(broker_id, broker_epoch)?;
        let start = self.image.next_producer_id();
        let next = start.checked_add(i64::from(BLOCK)).ok_or(ErrorCode::UNKNOWN_SERVER_ERROR)?;
        self.emit(ProducerIdsRecord { broker_id, broker_epoch, next_producer_id: next });
        Ok(start)
    }
}
