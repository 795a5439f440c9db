//! Members of one group share the work: each record goes to one of them, and when one leaves, the other takes over.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::Cluster;
use klamm::{Client, Consumer, OffsetReset, Producer, Record};
use std::collections::BTreeSet;
use std::time::Duration;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

async fn write(client: &Client, numbers: std::ops::Range<i32>) -> Outcome<()> {
    let producer: Producer = Producer::builder().client(client).build()?;
    for number in numbers {
        let record = Record::new("invoices").partition(number % 4).value(number.to_string());
        drop(producer.send(record).await?); // flushed by close
    }
    Ok(producer.close(Duration::from_secs(30)).await?)
}

/// What a member reads until it has nothing to do for a while.
async fn work(member: &Consumer) -> Outcome<BTreeSet<i32>> {
    let mut done = BTreeSet::new();
    loop {
        let records = member.poll(100, Duration::from_secs(1)).await?;
        if records.is_empty() {
            return Ok(done);
        }
        for record in records {
            done.insert(std::str::from_utf8(record.value.as_deref().unwrap_or_default())?.parse()?);
        }
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let cluster = Cluster::builder()
        .brokers(3)
        .topic("invoices", Some(4), Some(3))
        .config("group.initial.rebalance.delay.ms", "0")
        .start()
        .await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    let join = || -> Outcome<Consumer> {
        let builder = Consumer::builder().client(&client).group_id("billing");
        let member: Consumer = builder.auto_offset_reset(OffsetReset::Earliest).build()?;
        member.subscribe(["invoices"]);
        Ok(member)
    };
    let (first, second) = (join()?, join()?);
    // A member takes part in rebalances in the background, as long as it is asked for records now and then: here for none yet.
    while first.assignment().len() != 2 || second.assignment().len() != 2 {
        first.poll(0, Duration::from_millis(20)).await?;
        second.poll(0, Duration::from_millis(20)).await?;
    }
    write(&client, 0..100).await?;
    let (one, other) = tokio::join!(work(&first), work(&second));
    let (one, other) = (one?, other?);
    assert!(one.is_disjoint(&other) && one.len() + other.len() == 100);

    second.close().await?; // commits what was read, and leaves
    while first.assignment().len() != 4 {
        first.poll(0, Duration::from_millis(20)).await?;
    }
    write(&client, 100..200).await?;
    let rest = work(&first).await?;
    assert_eq!(rest, (100..200).collect());
    first.close().await?;
    println!(
        "{} invoices here, {} there; then {} by the one that stayed",
        one.len(),
        other.len(),
        rest.len()
    );
    Ok(())
}
