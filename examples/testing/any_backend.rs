//! One test, every backend: scripted, in process, over TCP, and, with its address as the argument, Apache Kafka.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::mock::MockConnector;
use klamm::{BoxConnector, Client, Connector, Consumer, Producer, Record, StartOffset, TcpConnector};

type Error = Box<dyn std::error::Error>;

/// The test. It does not know what it runs on.
async fn what_is_sent_arrives(client: &Client, topic: &str) -> Result<(), Error> {
    let producer: Producer = Producer::builder().client(client).build()?;
    let consumer: Consumer = Consumer::builder().client(client).build()?;
    consumer.assign([((topic, 0), StartOffset::Beginning)]);
    producer.send_and_wait(Record::new(topic).partition(0).value("3 apples")).await?;
    assert_eq!(consumer.recv().await?.value.as_deref(), Some(&b"3 apples"[..]));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let topic = format!("any-backend-{}", std::process::id());
    let mock = MockConnector::builder().topic(&topic, 1).build();
    mock.accept_produce();
    let inside = Cluster::builder().topic(&topic, Some(1), Some(3)).start().await?;
    let sockets = Cluster::builder().tcp(true).topic(&topic, Some(1), Some(3)).start().await?;
    let mut backends: Vec<(String, BoxConnector)> = vec![
        (mock.bootstrap(), mock.erase()),
        (inside.bootstrap(), inside.handle().erase()),
        (sockets.bootstrap(), TcpConnector::new().erase()),
    ];
    backends.extend(std::env::args().nth(1).map(|kafka| (kafka, TcpConnector::new().erase())));
    for (bootstrap, connector) in backends {
        let client = Client::builder().bootstrap_servers(&bootstrap).connector(connector).build()?;
        what_is_sent_arrives(&client, &topic).await?;
        println!("the same test passed on {bootstrap}");
    }
    Ok(())
}
