//! Chaos: faults drawn from a seed, an invariant of your own, and what a failing seed says.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::sim::{self, Chaos, Schedule, Sim};
use klamm::{Client, Producer, Record};
use std::time::Duration;

type Error = Box<dyn std::error::Error>;

/// A hundred orders while the faults play. The invariant: each of them is in the log once, in order.
async fn shop(sim: Sim, schedule: Schedule, idempotent: bool) -> Result<(), Error> {
    let cluster = sim.cluster().brokers(3).topic("orders", Some(1), Some(3)).start().await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    let producer: Producer = Producer::builder().client(&client).enable_idempotence(idempotent).build()?;
    let sent: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    let work = async {
        for order in &sent {
            producer.send_and_wait(Record::new("orders").value(order.clone())).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok::<_, Error>(())
    };
    tokio::join!(schedule.play(&cluster), work).1?;
    cluster.until_isr("orders", 0, |isr| isr.len() == 3).await;
    let log = cluster.log(1, "orders", 0).ok_or("no log")?;
    let kept = log.iter().filter_map(|record| record.value.as_deref());
    let as_sent = kept.eq(sent.iter().map(String::as_bytes));
    as_sent.then_some(()).ok_or(format!("100 orders sent, log has {}, or another order", log.len()).into())
}

fn main() -> Result<(), Error> {
    let draw = |seed| Chaos::default().draw(seed);
    let held = sim::explore(sim::seeds(0..10), draw, |sim, faults| shop(sim, faults, true)).ok()?;
    let broken = |seed| sim::explore([seed], draw, |sim, faults| shop(sim, faults, false)).failures.pop();
    let failed = sim::seeds(0..10).into_iter().find_map(broken).ok_or("nobody missed idempotence")?;
    println!("{failed}\n{} runs held; without idempotence seed {} did not", held.runs, failed.seed);
    Ok(())
}
