//! Disks and power: what an acknowledgement is worth when every machine goes dark at once, and when an fsync fails.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Client, Producer, Record};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).start().await?;
    cluster.create_topic("clicks", 1, 3, &[]).await?; // Kafka's default: fsync some time
    cluster.create_topic("orders", 1, 3, &[("flush.messages", "1")]).await?; // fsync, then acknowledge
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    for topic in ["clicks", "orders"] {
        producer.send_and_wait(Record::new(topic).value("acknowledged")).await?;
    }

    for broker in cluster.power_off_all() {
        cluster.restart(broker).await?;
    }
    let lost = cluster.check().violations;
    assert!(!lost.is_empty() && lost.iter().all(|violation| violation.topic == "clicks"));

    // A failed fsync ends a broker; another replica takes over.
    cluster.until_isr("orders", 0, |isr| isr.len() == 3).await;
    let leader = cluster.leader_of("orders", 0).ok_or("no leader")?;
    let failing = cluster.disk(leader)?.fail_sync();
    producer.send_and_wait(Record::new("orders").value("in spite of it")).await?;
    assert_ne!(cluster.leader_of("orders", 0), Some(leader));
    drop(failing); // a new disk
    cluster.restart(leader).await?;
    println!("power went, and with it: {}; orders survived that, and a broken disk", lost[0]);
    Ok(())
}
