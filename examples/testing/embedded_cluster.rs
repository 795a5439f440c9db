//! A cluster in the test's process: a leader dies, nothing is lost, and the logs are held against each other.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Client, Consumer, Producer, Record, StartOffset};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).topic("orders", Some(1), Some(3)).start().await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    let consumer: Consumer = Consumer::builder().client(&client).build()?;
    consumer.assign([(("orders", 0), StartOffset::Beginning)]);

    producer.send_and_wait(Record::new("orders").value("before")).await?;
    let leader = cluster.leader_of("orders", 0).ok_or("no leader")?;
    cluster.kill(leader)?; // process death; nobody is told
    producer.send_and_wait(Record::new("orders").value("after")).await?;

    for expected in ["before", "after"] {
        assert_eq!(consumer.recv().await?.value.as_deref(), Some(expected.as_bytes()));
    }
    cluster.restart(leader).await?; // on the bytes that the old process left
    cluster.until_isr("orders", 0, |isr| isr.len() == 3).await; // waits, never sleeps

    let report = cluster.check();
    assert!(report.is_ok(), "{report}");
    assert!(cluster.elections() >= 1);
    println!("broker {leader} died and came back: {report}");
    Ok(())
}
