//! A topic gets more partitions and other settings, while it is in use.
//!
//! Runs on broker-lite; with a bootstrap address as the argument, on that cluster.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{
    Client, ConfigResource, ConfigUpdate, DescribeConfigs, Isolation, NewPartitions, NewTopic, OffsetSpec,
    Producer, Record,
};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let client = match std::env::args().nth(1) {
        Some(bootstrap) => Client::builder().bootstrap_servers(bootstrap).build()?,
        None => {
            Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?
        }
    };
    let admin = client.admin();
    let topic = format!("orders-{}", std::process::id());
    let created = admin.create_topics([NewTopic::reliable(&topic).partitions(2)]).await?.all()?;
    println!("{topic} has {:?} partitions", created[0].partitions);

    // Asked first, done then.
    let more = NewPartitions::new(&topic, 6);
    admin.validate().create_partitions([more.clone()]).await?.all()?;
    admin.create_partitions([more]).await?.all()?;
    let update = ConfigUpdate::topic(&topic).set("retention.ms", "86400000");
    admin.alter_configs([update]).await?.all()?;

    // Brokers hear of it a little later.
    let described = loop {
        let described = admin.describe_topics([&topic]).await?.all()?.remove(0);
        let led = described.partitions.iter().filter(|partition| partition.leader.is_some()).count();
        if led == 6 {
            break described;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("{topic} has {} partitions", described.partitions.len());
    let question = DescribeConfigs::of([ConfigResource::topic(&topic)]).keys(["retention.ms"]);
    for entry in admin.describe_configs(question).await?.all()?.concat() {
        println!("{} = {:?}, from {:?}", entry.name, entry.value, entry.source);
    }

    let producer: Producer = Producer::builder().client(&client).build()?;
    producer.send_and_wait(Record::new(&*topic).partition(5).value("3 apples")).await?;
    producer.close(Duration::from_secs(30)).await?;
    let asked = (0..6).map(|partition| ((topic.as_str(), partition), OffsetSpec::Latest));
    for (partition, listed) in admin.list_offsets(asked, Isolation::ReadUncommitted).await? {
        println!("{partition} ends at {:?}", listed?.offset);
    }
    admin.delete_topics([&topic]).await?.all()?;
    Ok(())
}
