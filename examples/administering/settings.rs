//! Settings of topics and brokers change while everything runs, and tell where they come from.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Client, ConfigResource, ConfigUpdate, DescribeConfigs, NewTopic};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    let admin = client.admin();
    admin.create_topics([NewTopic::reliable("orders")]).await?.all()?;

    let orders = ConfigUpdate::topic("orders").set("retention.ms", "86400000");
    let brokers = ConfigUpdate::of(ConfigResource::ClusterDefault).set("message.max.bytes", "2000000");
    admin.alter_configs([orders, brokers]).await?.all()?;

    let wrong = ConfigUpdate::topic("orders").set("retention.ms", "one week");
    if let Err(refused) = admin.validate().alter_configs([wrong]).await?.all() {
        println!("{refused}");
    }
    let question = DescribeConfigs::of([ConfigResource::topic("orders"), ConfigResource::Broker(2)]);
    let question = question.keys(["retention.ms", "message.max.bytes"]).synonyms();
    for (resource, entries) in admin.describe_configs(question).await? {
        for entry in entries? {
            println!("{resource}: {} = {:?}, from {:?}", entry.name, entry.value, entry.source);
        }
    }
    Ok(())
}
