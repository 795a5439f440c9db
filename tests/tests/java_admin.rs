//! Kafka's own Java tools change a running `broker-lite up`: partitions, reassignments, elections, settings, features.
//!
//! The lines looked for are those that the same tool prints for Apache Kafka 4.3.0.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use klamm_tests::java::{self, expect};
use klamm_tests::nodes::{Nodes, Plan};
use klamm_tests::process::{ApacheKafka, BrokerLite, kafka_tool};
use klamm_tests::skipped;

/// Goal: `--bootstrap-controller` shows and changes the settings of a node that is a controller.
#[test]
fn javas_tool_describes_and_changes_a_controllers_settings() {
    if let Some(reason) = ApacheKafka::missing() {
        return skipped("Kafka's Java tools", &reason);
    }
    let nodes = Nodes::start(Plan::voters(1, &["num.partitions=7"])).expect("a node starts");
    let controller = format!("127.0.0.1:{}", nodes.ports(1).controller);
    let run = |more: &[&str]| {
        let node = ["--bootstrap-controller", &controller, "--entity-type", "brokers", "--entity-name", "1"];
        let output = kafka_tool(CONFIGS, &[&node[..], more].concat()).expect("java runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let all = run(&["--describe", "--all"]);
    expect(
        &all,
        &[
            "All configs for broker 1 are:",
            "num.partitions=7 sensitive=false",
            "process.roles=broker,controller ",
        ],
    );
    expect(
        &run(&["--alter", "--add-config", "log.cleaner.threads=2"]),
        &["Completed updating config for broker 1."],
    );
    let own = run(&["--describe"]);
    expect(&own, &["Dynamic configs for broker 1 are:", "log.cleaner.threads=2 sensitive=false"]);
}

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
const ELECT: &str = "org.apache.kafka.tools.LeaderElectionCommand";

/// What a tool prints, whether it succeeds or not.
fn tool(cluster: &BrokerLite, class: &str, arguments: &[&str]) -> String {
    java::tool(cluster, class, arguments).expect("java runs")
}

fn cluster() -> Option<BrokerLite> {
    java::cluster(&[]).expect("broker-lite starts")
}

#[test]
fn javas_tools_add_partitions_move_them_and_choose_leaders() {
    let Some(cluster) = cluster() else { return };
    let run = |class: &str, arguments: &[&str]| tool(&cluster, class, arguments);
    expect(
        &run(TOPICS, &["--create", "--topic", "a", "--replica-assignment", "1:2,2:3"]),
        &["Created topic a."],
    );
    run(TOPICS, &["--alter", "--topic", "a", "--partitions", "4"]);
    let fewer = run(TOPICS, &["--alter", "--topic", "a", "--partitions", "3"]);
    expect(&fewer, &["Error while executing topic command"]);
    expect(
        &run(TOPICS, &["--describe", "--topic", "a"]),
        &["PartitionCount: 4", "Replicas: 1,2\tIsr: 1,2\tElr: "],
    );

    let plan = tempfile::NamedTempFile::new().expect("a file");
    let target = r#"{"version":1,"partitions":[
        {"topic":"a","partition":0,"replicas":[2,3]},{"topic":"a","partition":1,"replicas":[3,1,2]}]}"#;
    std::fs::write(plan.path(), target).expect("written");
    let path = plan.path().to_string_lossy().into_owned();
    let plan = ["--reassignment-json-file", &path];
    let executed = run(REASSIGN, &[&plan[..], &["--execute", "--throttle", "10000000"]].concat());
    expect(&executed, &["The inter-broker throttle limit was set to 10000000 B/s"]);
    expect(&executed, &["Successfully started partition reassignments for a-0,a-1"]);
    let throttled = run(CONFIGS, &["--entity-type", "brokers", "--entity-name", "2", "--describe"]);
    expect(
        &throttled,
        &["leader.replication.throttled.rate=10000000", "follower.replication.throttled.rate=10000000"],
    );
    let verified = loop {
        let verified = run(REASSIGN, &[&plan[..], &["--verify"]].concat());
        if !verified.contains("is still in progress") {
            break verified;
        }
    };
    expect(
        &verified,
        &["Reassignment of partition a-0 is completed.", "Clearing broker-level throttles on brokers 1,2,3"],
    );
    let cleared = run(CONFIGS, &["--entity-type", "brokers", "--entity-name", "2", "--describe"]);
    assert!(!cleared.contains("throttled.rate"), "{cleared}");
    expect(&run(REASSIGN, &["--list"]), &["No partition reassignments found."]);
    expect(
        &run(TOPICS, &["--describe", "--topic", "a"]),
        &["Leader: 2\tReplicas: 2,3", "Leader: 2\tReplicas: 3,1,2"],
    );
    let cancelled = run(REASSIGN, &[&plan[..], &["--cancel"]].concat());
    expect(&cancelled, &["None of the specified partition reassignments are active."]);

    let elected = run(ELECT, &["--election-type", "preferred", "--all-topic-partitions"]);
    expect(&elected, &["Successfully completed leader election (PREFERRED) for partitions a-1"]);
    let again = run(ELECT, &["--election-type", "unclean", "--topic", "a", "--partition", "0"]);
    expect(&again, &["Valid replica already elected for partitions a-0"]);
}

#[test]
fn javas_tools_change_settings_and_features() {
    let Some(cluster) = cluster() else { return };
    let run = |class: &str, arguments: &[&str]| tool(&cluster, class, arguments);
    run(TOPICS, &["--create", "--topic", "t", "--partitions", "1"]);
    let topic =
        |more: &[&str]| run(CONFIGS, &[&["--entity-type", "topics", "--entity-name", "t"], more].concat());
    expect(
        &topic(&["--alter", "--add-config", "retention.ms=77,cleanup.policy=compact"]),
        &["Completed updating config for topic t."],
    );
    expect(
        &topic(&["--describe"]),
        &[
            "cleanup.policy=compact sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact, DEFAULT_CONFIG:log.cleanup.policy=delete}",
            "retention.ms=77 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=77}",
        ],
    );
    topic(&["--alter", "--delete-config", "retention.ms"]);
    let all = topic(&["--describe", "--all"]);
    expect(
        &all,
        &[
            "retention.ms=604800000 sensitive=false synonyms={}",
            "flush.ms=9223372036854775807 sensitive=false synonyms={}",
        ],
    );
    expect(&topic(&["--alter", "--add-config", "retention.ms=x"]), &["InvalidConfigurationException"]);

    let brokers = |more: &[&str]| run(CONFIGS, &[&["--entity-type", "brokers"], more].concat());
    brokers(&["--entity-default", "--alter", "--add-config", "log.retention.ms=5000"]);
    expect(
        &brokers(&["--entity-default", "--describe"]),
        &[
            "log.retention.ms=5000 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=5000}",
        ],
    );
    expect(
        &topic(&["--describe", "--all"]),
        &[
            "retention.ms=5000 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=5000, DEFAULT_CONFIG:log.retention.hours=168}",
        ],
    );
    expect(
        &brokers(&["--entity-name", "1", "--alter", "--add-config", "broker.rack=x"]),
        &["InvalidRequestException"],
    );

    let features = "org.apache.kafka.tools.FeatureCommand";
    let lowered = run(features, &["downgrade", "--feature", "eligible.leader.replicas.version=0"]);
    expect(&lowered, &["eligible.leader.replicas.version was downgraded to 0."]);
    let endpoints = ["list-endpoints", "--bootstrap-server", cluster.bootstrap()];
    let listed = kafka_tool("org.apache.kafka.tools.ClusterTool", &endpoints).expect("java runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(listed.matches("broker").count(), 3, "{listed}");
    let described = run("org.apache.kafka.tools.LogDirsCommand", &["--describe"]);
    expect(&described, &["\"partition\":\"t-0\""]);
}
