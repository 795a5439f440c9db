//! Rules for single requests: one is carried out and its answer lost, one is held while its leader dies.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::{ApiKey, Cluster, Fault, Stage};
use klamm::{Client, Producer, Record};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).topic("orders", Some(1), Some(3)).start().await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    let leader = cluster.leader_of("orders", 0).ok_or("no leader")?;

    // Applied, then the answer was lost.
    let produce = || cluster.on(ApiKey::Produce).topic("orders", 0);
    let lost = produce().times(1).at(Stage::AfterAppend).then(Fault::DropConnection);
    producer.send_and_wait(Record::new("orders").value("first")).await?;
    lost.hit().await;
    assert_eq!(cluster.log_end_offset(leader, "orders", 0), Some(1)); // sent again, written once

    // Held in the one moment that matters: committed, and nobody has been told.
    let gate = produce().times(1).at(Stage::AfterCommit).hold();
    let delivery = producer.send(Record::new("orders").value("second")).await?;
    gate.hit().await;
    cluster.kill(leader)?;
    drop(gate); // what comes now is not held
    delivery.await?;
    let successor = cluster.leader_of("orders", 0).ok_or("no leader")?;
    assert_eq!(cluster.log_end_offset(successor, "orders", 0), Some(2)); // the successor knew it
    assert!(cluster.check().is_ok() && successor != leader);
    println!(
        "an answer lost, a leader dead before its answer: {} retries, each record once",
        producer.retries()
    );
    Ok(())
}
