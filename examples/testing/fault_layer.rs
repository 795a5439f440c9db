//! Faults around any connector, here TCP: on a Kafka of your own, or, without an argument, on broker-lite.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::fault::{DialFault, Fault, FaultLayer, Layer};
use klamm::{ApiKey, Client, Consumer, ErrorCode, NewTopic, Producer, Record, TcpConnector, TopicPartition};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::builder().tcp(true).start().await?;
    let bootstrap = std::env::args().nth(1).unwrap_or(cluster.bootstrap());
    let layer = FaultLayer::new(7); // the seed of all chances
    let faults = layer.handle();
    let connector = layer.layer(TcpConnector::new());
    let client = Client::builder().bootstrap_servers(&bootstrap).connector(connector).build()?;
    let topic = format!("fault-layer-{}", std::process::id());
    client.admin().create_topics([NewTopic::new(&topic).partitions(1)]).await?.all()?;

    let moved = faults.on(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    let lost = faults.on(ApiKey::Produce).skip(4).times(1).then(Fault::CutAfter); // written, answer lost
    let away = faults.on_dial().times(1).then(DialFault::Refuse);
    let slow = Duration::from_millis(1)..=Duration::from_millis(20);
    faults.on_any().probability(0.3).then(Fault::DelayAnswer(slow.into())).keep();

    let producer: Producer = Producer::builder().client(&client).build()?;
    for number in 0..20 {
        producer.send_and_wait(Record::new(topic.as_str()).value(number.to_string())).await?;
    }
    let consumer: Consumer = Consumer::builder().client(&client).build()?;
    let written = [TopicPartition::new(topic.as_str(), 0)];
    assert_eq!(consumer.end_offsets(&written).await?[&written[0]], 20);
    assert_eq!((moved.hits(), lost.hits(), away.hits()), (1, 1, 1));
    println!("20 records, each once, in spite of {} faults on {bootstrap}", faults.hits());
    Ok(())
}
