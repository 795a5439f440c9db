//! Faults of the network: latency, answers that do not arrive, a leader that is cut off and goes on.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::{ApiKey, Cluster, Side, Stage};
use klamm::{Client, Producer, Record};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).topic("orders", Some(1), Some(3)).start().await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    let _slow = cluster.latency(Side::Anyone, Side::Anyone, ..Duration::from_millis(10));
    producer.send_and_wait(Record::new("orders").value("before")).await?;
    let leader = cluster.leader_of("orders", 0).ok_or("no leader")?;

    // One way: what the leader says does not reach clients. It is done, and nobody knows.
    let committed = cluster.on(ApiKey::Produce).times(1).at(Stage::AfterCommit).call(|_| {});
    let mute = cluster.cut_one_way(leader, Side::Clients);
    let mut delivery = producer.send(Record::new("orders").value("acknowledged late")).await?;
    committed.hit().await;
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut delivery).await.is_err());
    mute.heal();
    delivery.await?;

    // Cut off from the cluster, but not from clients: it takes a record that it can never commit.
    let cuts = [cluster.cut(leader, Side::Brokers), cluster.cut(leader, Side::Controller)];
    let appended = cluster.on(ApiKey::Produce).broker(leader).at(Stage::AfterAppend).call(|_| {});
    let delivery = producer.send(Record::new("orders").value("sent to the wrong leader")).await?;
    appended.hit().await;
    cluster.until_leader("orders", 0, |now| now.is_some_and(|now| now != leader)).await;
    drop(cuts);
    delivery.await?;
    cluster.until_isr("orders", 0, |isr| isr.len() == 3).await;
    assert_eq!((cluster.high_watermark("orders", 0), cluster.check().is_ok()), (Some(3), true));
    println!("three records, each once: one answered late, one given to a leader that was none any more");
    Ok(())
}
