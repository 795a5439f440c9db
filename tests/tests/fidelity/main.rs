//! broker-lite answers as Apache Kafka does: see `klamm_tests::fidelity`. One file of cases per API key.
//!
//! `cargo test -p klamm-tests --test fidelity -- --exact 'Metadata/topics by name' --answers` runs one case and prints what
//! both have answered.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests report by panicking")]

mod allowed;
mod groups;
mod k00_produce;
mod k01_fetch;
mod k02_list_offsets;
mod k03_metadata;
mod k08_offset_commit;
mod k09_offset_fetch;
mod k10_find_coordinator;
mod k11_join_group;
mod k12_and_later_groups;
mod k18_api_versions;
mod k19_create_topics;
mod k20_delete_topics;
mod k21_delete_records;
mod k22_init_producer_id;
mod k23_offset_for_leader_epoch;
mod k32_describe_configs;
mod k33_alter_configs;
mod k35_describe_log_dirs;
mod k37_create_partitions;
mod k43_elect_leaders;
mod k44_incremental_alter_configs;
mod k45_alter_partition_reassignments;
mod k46_list_partition_reassignments;
mod k55_describe_quorum;
mod k57_update_features;
mod k60_describe_cluster;
mod k61_describe_producers;
mod k64_unregister_broker;
mod k74_list_config_resources;
mod k75_describe_topic_partitions;

use std::process::ExitCode;

use klamm_tests::fidelity::allowed::OTHER_FEATURES;
use klamm_tests::fidelity::{self, Case, Side, Suite, case};
use klamm_tests::process::BrokerLite;
use serde_json::json;

const BROKERS: usize = 3;

/// Settings of both clusters.
const SETTINGS: &[&str] = &[
    "auto.create.topics.enable=true",
    "broker.heartbeat.interval.ms=500",
    "group.initial.rebalance.delay.ms=0",
    "log.retention.ms=-1",
    "offsets.topic.num.partitions=1",
];

/// What `kafka-cluster` gives to Kafka, and ours has as its defaults: a setting tells whether it was given.
const GIVEN_TO_KAFKA: &[&str] = &[
    "offsets.topic.replication.factor=3",
    "transaction.state.log.replication.factor=3",
    "transaction.state.log.min.isr=2",
    "share.coordinator.state.topic.replication.factor=3",
    "share.coordinator.state.topic.min.isr=2",
];

/// Topics that the cases find: `orders` with a leader on each broker, `solo` on broker 2 alone, `empty`, and `filled` with
/// four batches of known content.
fn setup() -> Case {
    let batch =
        |records: &[&str], timestamp: i64| json!({ "records": records, "first_timestamp": timestamp });
    let write = |batch: serde_json::Value| {
        let partition = json!({ "Index": 0, "Records": [batch] });
        json!({ "Acks": -1, "TimeoutMs": 10_000, "TopicData": [{ "Name": "filled", "PartitionData": [partition] }] })
    };
    case(18, "set-up")
        .topic("orders", &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]])
        .topic("solo", &[&[2]])
        .topic("empty", &[&[1, 2, 3]])
        .topic("filled", &[&[1, 2, 3]])
        .topic("refusing", &[&[1, 2, 3]])
        // broker 1 coordinates every group
        .topic_with("__consumer_offsets", &[&[1, 2, 3]], &[("cleanup.policy", "compact")])
        .first(1, 0, 9, write(batch(&["a", "b", "c"], 1_600_000_000_000)))
        .first(1, 0, 9, write(batch(&["d"], 1_600_000_010_000)))
        .first(1, 0, 9, write(batch(&["e", "f"], 1_600_000_005_000)))
        .first(1, 0, 9, write(batch(&["g"], 1_600_000_020_000)))
}

fn suite() -> Suite {
    let mut cases = fidelity::framing();
    cases.extend(k00_produce::cases());
    cases.extend(k01_fetch::cases());
    cases.extend(k02_list_offsets::cases());
    cases.extend(k03_metadata::cases());
    cases.extend(k08_offset_commit::cases());
    cases.extend(k09_offset_fetch::cases());
    cases.extend(k10_find_coordinator::cases());
    cases.extend(k11_join_group::cases());
    cases.extend(k12_and_later_groups::cases());
    cases.extend(k18_api_versions::cases());
    cases.extend(k19_create_topics::cases());
    cases.extend(k20_delete_topics::cases());
    cases.extend(k21_delete_records::cases());
    cases.extend(k22_init_producer_id::cases());
    cases.extend(k23_offset_for_leader_epoch::cases());
    cases.extend(k32_describe_configs::cases());
    cases.extend(k33_alter_configs::cases());
    cases.extend(k35_describe_log_dirs::cases());
    cases.extend(k37_create_partitions::cases());
    cases.extend(k43_elect_leaders::cases());
    cases.extend(k44_incremental_alter_configs::cases());
    cases.extend(k45_alter_partition_reassignments::cases());
    cases.extend(k46_list_partition_reassignments::cases());
    cases.extend(k55_describe_quorum::cases());
    cases.extend(k57_update_features::cases());
    cases.extend(k60_describe_cluster::cases());
    cases.extend(k61_describe_producers::cases());
    cases.extend(k64_unregister_broker::cases());
    cases.extend(k74_list_config_resources::cases());
    cases.extend(k75_describe_topic_partitions::cases());
    Suite {
        setup: setup(),
        cases,
        allowed: allowed::allowed(),
        not_advertised: allowed::NOT_ADVERTISED.to_vec(),
        other_features: OTHER_FEATURES.to_vec(),
    }
}

fn main() -> ExitCode {
    let ours = || {
        let settings = SETTINGS.iter().chain(GIVEN_TO_KAFKA);
        BrokerLite::up(&settings.flat_map(|setting| ["--config", setting]).collect::<Vec<_>>())
    };
    fidelity::run_main(suite(), BROKERS, SETTINGS, ours, |kafka, ours| {
        Ok((Side::meet(kafka.bootstrap())?, Side::meet(ours.bootstrap())?))
    })
}
