//! Every api by its key: for fuzzing and property tests.

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;

use super::{CodecError, decode_request, decode_response};
use crate::schema::WalkError;
use crate::seam::Frame;

/// Something to do with the message types of whichever api.
pub(super) trait Visit {
    type Out;
    fn visit<R: Request>(self) -> Self::Out;
}

macro_rules! dispatch {
    ($($request:ident),* $(,)?) => {
        /// Calls the visitor with the message types of an api; `None` if kafka-protocol does not have it.
        pub(super) fn dispatch<V: Visit>(api_key: i16, visitor: V) -> Option<V::Out> {
            match api_key {
                $($request::KEY => Some(visitor.visit::<$request>()),)*
                _ => None,
            }
        }
    };
}

dispatch! { ProduceRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, FindCoordinatorRequest, JoinGroupRequest, HeartbeatRequest, LeaveGroupRequest, SyncGroupRequest, DescribeGroupsRequest, ListGroupsRequest, SaslHandshakeRequest, ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DeleteRecordsRequest, InitProducerIdRequest, OffsetForLeaderEpochRequest, AddPartitionsToTxnRequest, AddOffsetsToTxnRequest, EndTxnRequest, WriteTxnMarkersRequest, TxnOffsetCommitRequest, DescribeAclsRequest, CreateAclsRequest, DeleteAclsRequest, DescribeConfigsRequest, AlterConfigsRequest, AlterReplicaLogDirsRequest, DescribeLogDirsRequest, SaslAuthenticateRequest, CreatePartitionsRequest, CreateDelegationTokenRequest, RenewDelegationTokenRequest, ExpireDelegationTokenRequest, DescribeDelegationTokenRequest, DeleteGroupsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest, AlterPartitionReassignmentsRequest, ListPartitionReassignmentsRequest, OffsetDeleteRequest, DescribeClientQuotasRequest, AlterClientQuotasRequest, DescribeUserScramCredentialsRequest, AlterUserScramCredentialsRequest, VoteRequest, BeginQuorumEpochRequest, EndQuorumEpochRequest, DescribeQuorumRequest, AlterPartitionRequest, UpdateFeaturesRequest, EnvelopeRequest, FetchSnapshotRequest, DescribeClusterRequest, DescribeProducersRequest, BrokerRegistrationRequest, BrokerHeartbeatRequest, UnregisterBrokerRequest, DescribeTransactionsRequest, ListTransactionsRequest, AllocateProducerIdsRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupDescribeRequest, ControllerRegistrationRequest, GetTelemetrySubscriptionsRequest, PushTelemetryRequest, AssignReplicasToDirsRequest, ListConfigResourcesRequest, DescribeTopicPartitionsRequest, ShareGroupHeartbeatRequest, ShareGroupDescribeRequest, ShareFetchRequest, ShareAcknowledgeRequest, AddRaftVoterRequest, RemoveRaftVoterRequest, UpdateRaftVoterRequest, InitializeShareGroupStateRequest, ReadShareGroupStateRequest, WriteShareGroupStateRequest, DeleteShareGroupStateRequest, ReadShareGroupStateSummaryRequest, DescribeShareGroupOffsetsRequest, AlterShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequest }

/// Walks and decodes a request body of any api.
///
/// # Errors
///
/// Returns [`CodecError`] if the api or version is unknown, or the bytes contradict the schema.
pub fn decode_any_request(api_key: i16, version: i16, body: Bytes) -> Result<(), CodecError> {
    struct Decode(Frame);
    impl Visit for Decode {
        type Out = Result<(), CodecError>;
        fn visit<R: Request>(self) -> Self::Out {
            decode_request::<R>(self.0).map(drop)
        }
    }
    dispatch(api_key, Decode(Frame::new(api_key, version, body))).unwrap_or_else(|| Err(unknown(api_key)))
}

/// Walks and decodes a response body of any api.
///
/// # Errors
///
/// Returns [`CodecError`] if the api or version is unknown, or the bytes contradict the schema.
pub fn decode_any_response(api_key: i16, version: i16, body: Bytes) -> Result<(), CodecError> {
    struct Decode(Frame);
    impl Visit for Decode {
        type Out = Result<(), CodecError>;
        fn visit<R: Request>(self) -> Self::Out {
            decode_response::<R>(self.0).map(drop)
        }
    }
    dispatch(api_key, Decode(Frame::new(api_key, version, body))).unwrap_or_else(|| Err(unknown(api_key)))
}

fn unknown(api_key: i16) -> CodecError {
    WalkError::UnknownApi { api_key }.into()
}
