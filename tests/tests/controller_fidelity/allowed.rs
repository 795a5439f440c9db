//! What may differ at the controller's listener, and why; what is missing as a whole.

use klamm_tests::fidelity::Allowed;
use klamm_tests::fidelity::allowed::{ONE_DIRECTORY, QUOTAS, SECURITY, VOTERS, allow, everywhere, no_words};

/// APIs that Kafka's controllers advertise and ours do not, with the reason.
#[rustfmt::skip]
pub(crate) const NOT_ADVERTISED: &[(i16, &str)] = &[
    (17, SECURITY), (29, SECURITY), (30, SECURITY), (31, SECURITY),
    (36, SECURITY), (38, SECURITY), (39, SECURITY), (40, SECURITY), (41, SECURITY), (49, QUOTAS),
    (50, SECURITY), (51, SECURITY),
    (58, "brokers pass requests on as they are: there is no principal to wrap"),
    (70, VOTERS), (73, ONE_DIRECTORY), (80, VOTERS), (81, VOTERS), (82, VOTERS),
];

/// Differences that may be.
pub(crate) fn allowed() -> Vec<Allowed> {
    let mut allowed = everywhere();
    allowed.extend([
        allow(
            "Fetch/damaged bytes",
            "an unknown tag",
            "{*",
            "<closed>",
            "the bytes fall into a tagged field that is longer then than its size says; Kafka does not look at sizes",
        ),
        allow(
            "DescribeConfigs/every setting of a broker",
            "*.Value",
            "\"/tmp/*\"",
            "\"/tmp/*\"",
            "directories differ",
        ),
        no_words("UnregisterBroker/a broker that is registered", "\"\""),
        allow(
            "DescribeQuorum/the quorum",
            "*.Observers",
            "[]",
            "[{ReplicaId: 1,*",
            "our brokers observe the log even in a process that is a voter, too",
        ),
    ]);
    let reason = "our brokers keep no log of the metadata, and may ask for it before they know an epoch";
    for (path, kafka, ours) in [
        ("*.ErrorCode", "INVALID_REQUEST", "NONE"),
        ("*.HighWatermark", "-1", "<some offset>"),
        ("*.Records", "[]", "[{*"),
    ] {
        allowed.push(allow("Fetch/an epoch that is not known", path, kafka, ours, reason));
    }
    let reason = "Kafka's partition with an error has null records, which its own encoder cannot write (a \
                  NullPointerException in FetchSnapshotResponseData): every such answer becomes this one";
    for (case, ours) in [
        ("FetchSnapshot/a snapshot that is not there", "[{*ErrorCode: SNAPSHOT_NOT_FOUND, *"),
        ("FetchSnapshot/positions that cannot be", "[{*ErrorCode: SNAPSHOT_NOT_FOUND, *"),
        ("FetchSnapshot/another topic", "[{*ErrorCode: UNKNOWN_TOPIC_OR_PARTITION, *"),
        ("FetchSnapshot/another partition", "[{*ErrorCode: UNKNOWN_TOPIC_OR_PARTITION, *"),
        ("FetchSnapshot/an epoch of the past", "[{*ErrorCode: FENCED_LEADER_EPOCH, *"),
        ("FetchSnapshot/an epoch to come", "[{*ErrorCode: UNKNOWN_LEADER_EPOCH, *"),
    ] {
        allowed.push(allow(case, "FetchSnapshot*.ErrorCode", "UNKNOWN_SERVER_ERROR", "NONE", reason));
        allowed.push(allow(case, "FetchSnapshot*.Topics", "[]", ours, reason));
        let leader = "[{NodeId: 1, Host: \"127.0.0.1\", Port: <some port>}]";
        allowed.push(allow(case, "FetchSnapshot*.NodeEndpoints", "absent", leader, reason));
    }
    let reason =
        "voters are fixed when the cluster is made: who is none is told so, and by Kafka only denied";
    allowed.push(allow("Vote/*", "Vote*", "NONE", "INCONSISTENT_VOTER_SET", reason));
    allowed
}
