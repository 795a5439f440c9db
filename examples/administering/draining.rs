//! A broker leaves the cluster for good, and takes nothing along: its replicas move, under load.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Client, NewTopic, Producer, Record};
use std::ops::ControlFlow;
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(4).start().await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    let admin = client.admin();
    admin.create_topics([NewTopic::reliable("orders").partitions(12)]).await?.all()?;

    let producer: Producer = Producer::builder().client(&client).reliable().build()?;
    let load = async {
        for number in 0..300 {
            producer.send_and_wait(Record::new("orders").value(format!("order {number}"))).await?;
        }
        producer.close(Duration::from_secs(30)).await?;
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    let drained = admin.drain(4).run(|progress| {
        println!("{} partitions have moved, {} are left", progress.moved, progress.left);
        ControlFlow::Continue(()) // `Break` would take back what is under way
    });
    let (loaded, drained) = tokio::join!(load, drained);
    loaded?;
    println!("{} partitions have left broker 4", drained?.moved);

    cluster.shutdown_broker(4).await?;
    admin.unregister_broker(4).await?;
    println!("{:?}", admin.describe_cluster_with_fenced().await?.brokers);
    Ok(())
}
