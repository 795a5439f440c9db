//! Records whose order matters: those of one key stay in order, even if some have to be sent again.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::fault::{Fault, FaultLayer, Layer};
use klamm::{ApiKey, Client, ErrorCode, NewTopic, Producer, Record};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let (layer, bootstrap) = (FaultLayer::new(7), cluster.bootstrap());
    let (faults, connector) = (layer.handle(), layer.layer(cluster.handle()));
    let client = Client::builder().bootstrap_servers(bootstrap).connector(connector).build()?;
    client.admin().create_topics([NewTopic::reliable("account")]).await?.all()?;

    // Kept by one request in flight; with idempotence, the default, five in flight would do, too.
    let builder = Producer::builder().client(&client).reliable().ordered().enable_idempotence(false);
    let producer: Producer = builder.batch_size(0).build()?;
    let moved = Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    let refused = faults.on(ApiKey::Produce).probability(0.2).then(moved);

    let mut deliveries = Vec::new();
    for step in 0..50 {
        let record = Record::new("account").key("account 7").value(format!("step {step}"));
        deliveries.push(producer.send(record).await?);
    }
    for (step, delivery) in (0..).zip(deliveries) {
        assert_eq!(delivery.await?.offset, Some(step)); // the log has them in the order they were sent
    }
    producer.close(Duration::from_secs(30)).await?;
    println!("50 records in order, although {} requests had to be repeated", refused.hits());
    Ok(())
}
