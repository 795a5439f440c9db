//! Sending with a callback: no future to keep, and the callback may take its time.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Producer, Record};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).topic("orders", Some(3), Some(3)).start().await?;
    let producer: Producer =
        Producer::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;

    let (written, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for number in 0..1_000 {
        let (written, failed) = (written.clone(), failed.clone());
        let told = move |outcome: Result<_, _>| match outcome {
            Ok(_) => drop(written.fetch_add(1, Ordering::Relaxed)),
            Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)), // called exactly once, also when it fails
        };
        producer.send_with_callback(Record::new("orders").value(format!("order {number}")), told).await?;
    }
    producer.close(Duration::from_secs(30)).await?; // returns when all callbacks have run

    assert_eq!((written.load(Ordering::Relaxed), failed.load(Ordering::Relaxed)), (1_000, 0));
    println!("1000 callbacks, all with good news");
    Ok(())
}
