//! A broker leaves the cluster for good, and takes nothing along: its replicas move, under load.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Client, NewTopic, Producer, Record};
use std::ops::ControlFlow;
use std::time::Duration;

const LEAVING: i32 = 4;

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
        Ok::<_, klamm::SendError>(())
    };
    let drained = admin.drain(LEAVING).poll_interval(Duration::from_millis(50)).run(|progress| {
        println!("{} partitions have moved, {} are left", progress.moved, progress.left);
        ControlFlow::Continue(()) // `Break` would take back what is under way
    });
    let (loaded, drained) = tokio::join!(load, drained);
    loaded?;
    println!("{} partitions have left broker {LEAVING}", drained?.moved);

    cluster.shutdown_broker(LEAVING).await?;
    admin.unregister_broker(LEAVING).await?;
    println!(
        "the brokers are {:?}",
        admin.describe_cluster().await?.brokers.iter().map(|b| b.id).collect::<Vec<_>>()
    );
    producer.close(Duration::from_secs(30)).await?;
    Ok(())
}
