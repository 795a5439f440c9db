//! What may differ at the controller's listener, and why; what still differs; what is missing.

use klamm_tests::fidelity::{Allowed, Open};

/// APIs that Kafka's controllers advertise and ours do not, with the reason.
#[rustfmt::skip]
pub(crate) const NOT_ADVERTISED: &[(i16, &str)] = &[
    (17, SECURITY), (29, SECURITY), (30, SECURITY), (31, SECURITY),
    (32, "settings are described by brokers; those of a controller are not shown yet"),
    (36, SECURITY), (38, SECURITY), (39, SECURITY), (40, SECURITY), (41, SECURITY), (49, "there are no quotas yet"),
    (50, SECURITY), (51, SECURITY),
    (58, "brokers pass requests on as they are: there is no principal to wrap"),
    (70, VOTERS), (73, "a broker has one log directory"), (80, VOTERS), (81, VOTERS), (82, VOTERS),
];

const SECURITY: &str = "there is no authentication and no authorizer yet";
const VOTERS: &str = "voters are fixed when the cluster is made (KIP-853 is not there)";
const GROUPS: &str = "groups and their coordinator are step 5";

/// Features that ApiVersions tells otherwise.
pub(crate) const OTHER_FEATURES: &[(&str, &str)] = &[
    ("group.version", GROUPS),
    ("kraft.version", VOTERS),
    ("share.version", "share groups are not planned for a test broker yet"),
    ("streams.version", "streams groups are not planned for a test broker yet"),
    ("transaction.version", "transactions are step 5"),
];

const fn allow(
    case: &'static str,
    path: &'static str,
    kafka: &'static str,
    ours: &'static str,
    reason: &'static str,
) -> Allowed {
    Allowed { case, versions: 0..=i16::MAX, path, kafka, ours, reason }
}

const NEGATIVE: &str = "null is -1, and any other negative length is damage; Kafka takes it for null";

/// Differences that may be.
pub(crate) fn allowed() -> Vec<Allowed> {
    let mut allowed = vec![
        allow(
            "UnregisterBroker/a broker that is registered",
            "*ErrorMessage",
            "\"\"",
            "null",
            "null where there is no error, as in every other answer of Kafka's",
        ),
        allow(
            "UpdateFeatures/the level that it has",
            "*.ErrorMessage",
            "\"NONE\"",
            "null",
            "the name of no error is no message",
        ),
        allow(
            "Fetch/damaged bytes",
            "an unknown tag",
            "{*",
            "<closed>",
            "the bytes fall into a tagged field that is longer then than its size says; Kafka does not look at sizes",
        ),
        allow(
            "ApiVersions/who the node is",
            "*.Value",
            "\"PLAINTEXT://127.0.0.1:*\"",
            "\"PLAINTEXT://127.0.0.1:*\"",
            "ports differ",
        ),
        allow(
            "ApiVersions/who the node is",
            "*.Value",
            "\"1@127.0.0.1:*\"",
            "\"1@127.0.0.1:*\"",
            "ports differ",
        ),
        allow("*/damaged bytes", "a negative length in *", "{*", "<closed>", NEGATIVE),
        allow(
            "DescribeQuorum/the quorum",
            "*.Observers",
            "[]",
            "[{ReplicaId: 1,*",
            "our brokers observe the log even in a process that is a voter, too",
        ),
    ];
    for api in [
        "CreateTopics/*",
        "DeleteTopics/*",
        "CreatePartitions/*",
        "AlterConfigs/*",
        "IncrementalAlterConfigs/*",
        "ElectLeaders/*",
        "AlterPartitionReassignments/*",
        "UpdateFeatures/*",
        "DescribeCluster/*",
        "DescribeQuorum/*",
        "UnregisterBroker/*",
    ] {
        let own_words = "the code is Kafka's, the sentence is our own";
        allowed.push(allow(api, "*ErrorMessage", "\"*\"", "\"*\"", own_words));
    }
    for api in ["CreatePartitions/*", "AlterPartitionReassignments/*"] {
        let says_why = "says why where Kafka is silent; no client acts on the text";
        allowed.push(allow(api, "*ErrorMessage", "null", "\"*\"", says_why));
    }
    let reason = "our brokers keep no log of the metadata, and may ask for it before they know an epoch";
    for (path, kafka, ours) in [
        ("*.ErrorCode", "INVALID_REQUEST", "NONE"),
        ("*.HighWatermark", "-1", "<some offset>"),
        ("*.Records", "[]", "[{*"),
    ] {
        allowed.push(allow("Fetch/an epoch that is not known", path, kafka, ours, reason));
    }
    let reason =
        "voters are fixed when the cluster is made: who is none is told so, and by Kafka only denied";
    allowed.push(allow("Vote/*", "Vote*", "NONE", "INCONSISTENT_VOTER_SET", reason));
    allowed
}

/// Defects that are known and not mended yet.
pub(crate) fn open() -> Vec<Open> {
    vec![Open {
        case: "FetchSnapshot/*",
        path: "*",
        to_do: "see why Kafka answers UNKNOWN_SERVER_ERROR to all but another cluster's id, and compare the rest",
    }]
}
