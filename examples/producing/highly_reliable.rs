//! Records that survive the loss of power of all brokers at once: each is on disks before it is acknowledged.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Client, Consumer, NewTopic, Producer, Record, TopicPartition};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    // As NewTopic::reliable, and flush.messages=1: replicas sync before records count.
    client.admin().create_topics([NewTopic::highly_reliable("payments")]).await?.all()?;

    let producer: Producer = Producer::builder().client(&client).highly_reliable().build()?;
    let record = |number: i64| Record::new("payments").partition(0).value(format!("payment {number}"));
    for number in 0..20 {
        producer.send_and_wait(record(number)).await?;
    }
    cluster.power_off_all(); // what was not synced is gone
    for broker in cluster.broker_ids() {
        cluster.restart(broker).await?;
    }
    producer.send_and_wait(record(20)).await?;
    producer.close(Duration::from_secs(30)).await?;

    let consumer: Consumer = Consumer::builder().client(&client).build()?;
    let partition = [TopicPartition::new("payments", 0)];
    assert_eq!(consumer.end_offsets(&partition).await?[&partition[0]], 21);
    println!("20 records outlived a loss of power, and the 21st is behind them");
    Ok(())
}
