//! A follower whose end lies outside of its leader's log.

use std::sync::Arc;

use broker_lite_core::replica::FetchPosition;
use klamm_wire::codec::{decode_response, encode_request};
use klamm_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_wire::messages::{BrokerId, ListOffsetsRequest, ListOffsetsResponse, TopicName};
use klamm_wire::seam::LinkError;
use klamm_wire::{ErrorCode, StrBytes};
use tower_service::Service;

use super::conversation::{Conversation, malformed, socket_timeout};
use crate::broker::Partition;

/// Version of the ListOffsets requests between brokers.
const LIST_OFFSETS_VERSION: i16 = 9;
/// `timestamp` that asks for the first and for the last offset.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

impl Conversation<'_> {
    /// Asks the leader for its range of offsets and moves the follower into it.
    pub(super) async fn move_into_range(
        &mut self,
        partition: &Arc<Partition>,
        position: &FetchPosition,
    ) -> Result<ErrorCode, LinkError> {
        let broker = self.broker;
        let mut range = [0; 2];
        for (timestamp, found) in [EARLIEST, LATEST].into_iter().zip(&mut range) {
            let wanted = ListOffsetsPartition::default()
                .with_partition_index(partition.identity.partition)
                .with_current_leader_epoch(position.current_leader_epoch)
                .with_timestamp(timestamp);
            let topic = ListOffsetsTopic::default()
                .with_name(TopicName(StrBytes::from_string(partition.identity.topic.to_string())))
                .with_partitions(vec![wanted]);
            let request =
                ListOffsetsRequest::default().with_replica_id(BrokerId(broker.id())).with_topics(vec![topic]);
            let frame = encode_request(LIST_OFFSETS_VERSION, &request).map_err(malformed)?;
            std::future::poll_fn(|cx| self.link.poll_ready(cx)).await?;
            let answer = broker.network.within(socket_timeout(broker), self.link.call(frame)).await?;
            let response = decode_response::<ListOffsetsRequest>(answer).map_err(malformed)?;
            match single_offset(&response) {
                Ok(offset) => *found = offset,
                Err(code) => return Ok(code),
            }
        }
        let (now, epoch) = (broker.rt.now(), position.current_leader_epoch);
        let moved =
            partition.with(broker, |replica, fx| replica.out_of_range(now, epoch, range[0], range[1], fx));
        Ok(moved.map_or(ErrorCode::NONE, |result| result.err().unwrap_or(ErrorCode::NONE)))
    }
}

fn single_offset(response: &ListOffsetsResponse) -> Result<i64, ErrorCode> {
    let found = response.topics.first().and_then(|topic| topic.partitions.first());
    let found = found.ok_or(ErrorCode::UNKNOWN_SERVER_ERROR)?;
    if found.error_code == 0 { Ok(found.offset) } else { Err(ErrorCode(found.error_code)) }
}
