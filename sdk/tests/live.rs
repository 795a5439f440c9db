//! The client against a running Kafka; without `KLAMM_TEST_BOOTSTRAP` these tests say so and pass.
//!
//! `KLAMM_TEST_BOOTSTRAP=127.0.0.1:9092 cargo test -p klamm --test live`

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use klamm::{Client, ErrorCode, NewTopic};

fn bootstrap() -> Option<String> {
    let servers = std::env::var("KLAMM_TEST_BOOTSTRAP").ok();
    if servers.is_none() {
        println!("skipped: KLAMM_TEST_BOOTSTRAP is not set");
    }
    servers
}

async fn client() -> Option<Client> {
    let client = Client::builder().bootstrap_servers(bootstrap()?).client_id("klamm-live").build().unwrap();
    client.ready(Duration::from_secs(10)).await.unwrap();
    Some(client)
}

fn fresh_name(prefix: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{prefix}-{}-{}", std::process::id(), now.subsec_nanos())
}

#[tokio::test]
async fn a_topic_is_created_described_and_deleted() {
    let Some(client) = client().await else { return };
    let admin = client.admin();
    let name = fresh_name("klamm-live");

    let topic = NewTopic::new(&name).partitions(3).replicas(1).config("retention.ms", "60000");
    let created = admin.create_topics([topic.clone()]).await.unwrap().all().unwrap();
    assert_eq!(
        (created[0].name.as_str(), created[0].partitions, created[0].replicas),
        (&*name, Some(3), Some(1))
    );

    let again = admin.create_topics([topic]).await.unwrap();
    let error = again.of(&name).unwrap().as_ref().unwrap_err();
    assert_eq!(error.code, ErrorCode::TOPIC_ALREADY_EXISTS);

    let described = loop {
        match admin.describe_topics([&name]).await.unwrap().all() {
            Ok(mut described) if described[0].partitions.iter().all(|p| p.leader.is_some()) => {
                break described.remove(0);
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(described.id, created[0].id);
    assert_eq!(described.partitions.len(), 3);
    assert!(described.partitions.iter().all(|p| p.isr.len() == 1 && p.leader_epoch >= 0));

    let results = admin.delete_topics([name.as_str(), "klamm-no-such-topic"]).await.unwrap();
    assert!(results.of(&name).unwrap().is_ok());
    let error = results.of("klamm-no-such-topic").unwrap().as_ref().unwrap_err();
    assert_eq!(error.code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[tokio::test]
async fn impossible_topics_are_refused_one_by_one() {
    let Some(client) = client().await else { return };
    let name = fresh_name("klamm-live");
    let results = client
        .admin()
        .create_topics([
            NewTopic::new("not a topic name").partitions(1),
            NewTopic::new(&name).partitions(1).replicas(99),
        ])
        .await
        .unwrap();
    let code = |topic: &str| results.of(topic).unwrap().as_ref().unwrap_err().code;
    assert_eq!(code("not a topic name"), ErrorCode::INVALID_TOPIC_EXCEPTION);
    assert_eq!(code(&name), ErrorCode::INVALID_REPLICATION_FACTOR);
}

#[tokio::test]
async fn the_cluster_describes_itself() {
    let Some(client) = client().await else { return };
    let cluster = client.admin().describe_cluster().await.unwrap();
    assert!(!cluster.cluster_id.is_empty());
    assert!(!cluster.brokers.is_empty());
    assert!(cluster.controller.is_some());
}
