//! What may differ at brokers and why; what is missing as a whole.

use klamm_tests::fidelity::Allowed;
use klamm_tests::fidelity::allowed::{
    GROUPS, NEGATIVE, ONE_DIRECTORY, QUOTAS, SECURITY, SHARE, STREAMS, TRANSACTIONS, VOTERS, allow,
    everywhere, no_words, own_words, says_why,
};

/// APIs, or some of their versions, that Kafka's brokers advertise and broker-lite does not, with the reason. An entry that
/// is no longer true fails.
#[rustfmt::skip]
pub(crate) const NOT_ADVERTISED: &[(i16, &str)] = &[
    (17, SECURITY), (24, TRANSACTIONS), (25, TRANSACTIONS),
    (26, TRANSACTIONS), (27, TRANSACTIONS), (28, TRANSACTIONS), (29, SECURITY), (30, SECURITY),
    (31, SECURITY), (34, ONE_DIRECTORY), (36, SECURITY),
    (38, SECURITY), (39, SECURITY), (40, SECURITY), (41, SECURITY), 
    (48, QUOTAS), (49, QUOTAS),
    (50, SECURITY), (51, SECURITY),
    (65, TRANSACTIONS), (66, TRANSACTIONS), (68, GROUPS), (69, GROUPS),
    (76, SHARE), (77, SHARE), (78, SHARE), (79, SHARE), (80, VOTERS), (81, VOTERS), (83, SHARE),
    (84, SHARE), (85, SHARE), (86, SHARE), (87, SHARE), (88, STREAMS), (89, STREAMS), (90, SHARE),
    (91, SHARE), (92, SHARE),
];

const NO_VOLUME: &str = "what is in memory is on no volume; -1 is not known (KIP-827)";
const OWN_CONTROLLERS: &str =
    "the controllers are nodes of their own, from 3001 on, and brokers observe them";
const UNREADABLE: &str = "Kafka has no code for it and reports a failure of its own";
const WHOLE_BATCHES: &str =
    "Kafka cuts its file at the limit, within a batch, which clients must leave out; ours end with one";

/// Differences that may be.
pub(crate) fn allowed() -> Vec<Allowed> {
    let mut allowed = everywhere();
    allowed.extend([
        own_words("Produce/*"),
        says_why("Produce/*"),
        own_words("FindCoordinator/*"),
        says_why("CreateTopics/time limits"),
        allow(
            "DescribeConfigs/every setting of a broker",
            "*.Value",
            "\"/tmp/*\"",
            "\"/memory/*\"",
            "directories differ",
        ),
        allow(
            "DescribeConfigs/every setting of a broker",
            "*.Value",
            "\"broker,controller\"",
            "\"broker\"",
            "Kafka's brokers are controllers, too; broker-lite's are not",
        ),
        allow(
            "DescribeConfigs/every setting of a broker",
            // `listeners`; what is advertised is the same.
            "*.Value",
            "\"PLAINTEXT://<address of broker 1>,CONTROLLER://127.0.0.1:*\"",
            "\"PLAINTEXT://<address of broker 1>\"",
            "Kafka's brokers are controllers, too; broker-lite's are not",
        ),
        allow(
            "DescribeConfigs/every setting of a broker",
            "*.Value",
            "\"1@127.0.0.1:*,2@127.0.0.1:*,3@127.0.0.1:*\"",
            "\"\"",
            "the voters of one process are reached without ports; `controller_fidelity` compares those of `broker-lite node`",
        ),
        allow(
            "DescribeConfigs/every setting of a broker",
            // `controller.quorum.voters`, no other.
            "DescribeConfigs.Results[0].Configs[35].ConfigSource",
            "4",
            "5",
            "the voters of one process are not given, see the value",
        ),
        allow("DescribeLogDirs/*", "*TotalBytes", "<some size>", "-1", NO_VOLUME),
        allow("DescribeLogDirs/*", "*UsableBytes", "<some size>", "-1", NO_VOLUME),
        allow("DescribeQuorum/*", "*.ReplicaId", "*", "300*", OWN_CONTROLLERS),
        allow("DescribeQuorum/*", "*.NodeId", "*", "300*", OWN_CONTROLLERS),
        allow("DescribeQuorum/*", "*.Observers", "[]", "[{ReplicaId: 1,*", OWN_CONTROLLERS),
        allow(
            "DescribeQuorum/*",
            "*.Listeners",
            "[{Name: \"CONTROLLER\"*",
            "[]",
            "the controllers of one process are reached without a port; `broker-lite node` tells theirs",
        ),
        allow(
            "IncrementalAlterConfigs/an operation that is none",
            "*.ErrorCode",
            "UNKNOWN_SERVER_ERROR",
            "INVALID_REQUEST",
            UNREADABLE,
        ),
        says_why("IncrementalAlterConfigs/an operation that is none"),
        allow(
            "DescribeTopicPartitions/names that cannot be",
            "*.ErrorCode",
            "UNKNOWN_SERVER_ERROR",
            "INVALID_TOPIC_EXCEPTION",
            UNREADABLE,
        ),
        allow(
            "DescribeTopicPartitions/names that cannot be",
            "*.TopicAuthorizedOperations",
            "-2147483648",
            "*",
            "Kafka gives up on the whole request: see the code",
        ),
        allow(
            "Produce/null instead of records",
            "Produce",
            "<silent>",
            "{Responses: *INVALID_RECORD*",
            "Kafka never answers this request; the client is told instead of left waiting",
        ),
        allow(
            "Produce/an unknown compression",
            "*.ErrorCode",
            "UNKNOWN_SERVER_ERROR",
            "UNSUPPORTED_COMPRESSION_TYPE",
            UNREADABLE,
        ),
        allow(
            "Produce/gzip that is none",
            "*.ErrorCode",
            "UNKNOWN_SERVER_ERROR",
            "INVALID_RECORD",
            UNREADABLE,
        ),
        allow(
            "Produce/snappy that is none",
            "*.ErrorCode",
            "UNKNOWN_SERVER_ERROR",
            "INVALID_RECORD",
            UNREADABLE,
        ),
        allow(
            "Produce/lz4 that is none",
            "*.ErrorCode",
            "UNKNOWN_SERVER_ERROR",
            "INVALID_RECORD",
            UNREADABLE,
        ),
        allow(
            "Produce/zstd that is none",
            "*.ErrorCode",
            "UNKNOWN_SERVER_ERROR",
            "INVALID_RECORD",
            UNREADABLE,
        ),
        allow("Fetch/limits in bytes", "Fetch#2.*.Records", "[{*", "[{*", WHOLE_BATCHES),
        allow("Fetch/limits in bytes", "Fetch#6.*.Records", "[{*", "[{*", WHOLE_BATCHES),
        allow(
            "Metadata/the id of zeros",
            "*ErrorCode",
            "UNKNOWN_SERVER_ERROR",
            "INVALID_REQUEST",
            UNREADABLE,
        ),
        own_words("DescribeProducers/*"),
        allow(
            "ApiVersions/frames",
            "a client id of length -2[0]",
            "{correlation id: 1,*",
            "<closed>",
            NEGATIVE,
        ),
        no_words("AlterPartitionReassignments/no topics", "\"\""),
    ]);
    allowed
}
