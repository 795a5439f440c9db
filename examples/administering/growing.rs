//! A topic gets more partitions while it is in use.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Client, Isolation, NewPartitions, NewTopic, OffsetSpec, Producer, Record};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    let admin = client.admin();
    admin.create_topics([NewTopic::reliable("orders").partitions(2)]).await?.all()?;

    // Asked first, done then.
    let more = NewPartitions::new("orders", 6);
    admin.validate().create_partitions([more.clone()]).await?.all()?;
    admin.create_partitions([more]).await?.all()?;
    // Brokers hear of it a little later.
    while admin.describe_topics(["orders"]).await?.all()?[0].partitions.len() < 6 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let producer: Producer = Producer::builder().client(&client).build()?;
    producer.send_and_wait(Record::new("orders").partition(5).value("3 apples")).await?;
    producer.close(Duration::from_secs(30)).await?;
    let asked = (0..6).map(|partition| (("orders", partition), OffsetSpec::Latest));
    for (partition, listed) in admin.list_offsets(asked, Isolation::ReadUncommitted).await? {
        println!("{partition} ends at {:?}", listed?.offset);
    }
    Ok(())
}
