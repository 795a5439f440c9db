//! What may differ wherever one asks, and why; and what is missing as a whole.

use super::Allowed;

/// Why APIs are missing.
pub const GROUPS: &str = "groups of KIP-848 are a later step";
#[allow(missing_docs, reason = "as above")]
pub const TRANSACTIONS: &str = "transactions are step 5";
#[allow(missing_docs, reason = "as above")]
pub const SHARE: &str = "share groups are not planned for a test broker yet";
#[allow(missing_docs, reason = "as above")]
pub const STREAMS: &str = "streams groups are not planned for a test broker yet";
#[allow(missing_docs, reason = "as above")]
pub const SECURITY: &str = "there is no authentication and no authorizer yet";
#[allow(missing_docs, reason = "as above")]
pub const QUOTAS: &str = "there are no quotas yet";
#[allow(missing_docs, reason = "as above")]
pub const VOTERS: &str = "voters are fixed when the cluster is made (KIP-853 is not there)";
#[allow(missing_docs, reason = "as above")]
pub const ONE_DIRECTORY: &str = "a broker has one log directory";

/// Features that ApiVersions tells otherwise.
pub const OTHER_FEATURES: &[(&str, &str)] = &[
    ("group.version", GROUPS),
    ("kraft.version", VOTERS),
    ("share.version", SHARE),
    ("streams.version", STREAMS),
    ("transaction.version", TRANSACTIONS),
];

/// A difference in every version.
pub const fn allow(
    case: &'static str,
    path: &'static str,
    kafka: &'static str,
    ours: &'static str,
    reason: &'static str,
) -> Allowed {
    Allowed { case, versions: 0..=i16::MAX, path, kafka, ours, reason }
}

/// A sentence of ours where Kafka has one of its own.
pub const fn own_words(case: &'static str) -> Allowed {
    allow(case, "*ErrorMessage", "\"*\"", "\"*\"", "the code is Kafka's, the sentence is our own")
}

/// A sentence of ours where Kafka has none.
pub const fn says_why(case: &'static str) -> Allowed {
    allow(
        case,
        "*ErrorMessage",
        "null",
        "\"*\"",
        "says why where Kafka is silent; no client acts on the text",
    )
}

/// Null where Kafka has words for no error.
pub const fn no_words(case: &'static str, kafka: &'static str) -> Allowed {
    let reason = "null where there is no error, as in nearly every other answer of Kafka's";
    allow(case, "*ErrorMessage", kafka, "null", reason)
}

/// A length below -1 in damaged bytes.
pub const NEGATIVE: &str = "null is -1, and any other negative length is damage; Kafka takes it for null";

/// What may differ in the answers of brokers and of controllers.
pub fn everywhere() -> Vec<Allowed> {
    vec![
        own_words("CreateTopics/*"),
        own_words("DeleteTopics/*"),
        own_words("DescribeConfigs/*"),
        own_words("AlterConfigs/*"),
        own_words("CreatePartitions/*"),
        says_why("CreatePartitions/*"),
        own_words("ElectLeaders/*"),
        own_words("IncrementalAlterConfigs/*"),
        own_words("AlterPartitionReassignments/*"),
        says_why("AlterPartitionReassignments/*"),
        own_words("DescribeQuorum/*"),
        own_words("UpdateFeatures/*"),
        own_words("DescribeCluster/*"),
        own_words("UnregisterBroker/*"),
        no_words("UpdateFeatures/the level that it has", "\"NONE\""),
        allow("*/damaged bytes", "a negative length in *", "{*", "<closed>", NEGATIVE),
        allow(
            "DescribeConfigs/with documentation",
            "*.Documentation",
            "\"*\"",
            "\"https://kafka.apache.org/documentation/#*\"",
            "Kafka's documentation is not copied: a link leads there",
        ),
    ]
}
