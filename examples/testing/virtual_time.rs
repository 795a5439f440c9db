//! Virtual time: your own async code, client and cluster on one clock and one seed. `KLAMM_SIM_SEED=3` runs one seed.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use broker_lite::sim::{self, Sim};
use klamm::{Client, Producer, Record};
use std::time::Duration;
type Error = Box<dyn std::error::Error + Send + Sync>;

/// A sensor reports every ten seconds for ten minutes; in the middle its leader is down for one of them.
async fn ten_minutes(sim: Sim) -> Result<(Duration, u64), Error> {
    let cluster = sim.cluster().brokers(3).topic("heat", Some(1), Some(3)).start().await?;
    let client =
        Client::builder().bootstrap_servers(cluster.bootstrap()).connector(cluster.handle()).build()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    let sensor = tokio::spawn(async move {
        for number in 0..60 {
            producer.send_and_wait(Record::new("heat").value(number.to_string())).await?;
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        Ok::<_, Error>(())
    });
    tokio::time::sleep(Duration::from_secs(300)).await;
    let leader = cluster.leader_of("heat", 0).ok_or("no leader")?;
    cluster.kill(leader)?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    cluster.restart(leader).await?;
    sensor.await??;
    assert_eq!(cluster.high_watermark("heat", 0), Some(60));
    Ok((sim.now(), sim.trace().hash()))
}

fn main() -> Result<(), Error> {
    for seed in sim::seeds(0..3) {
        let (time, hash) = sim::run(seed, ten_minutes)?;
        assert_eq!((time, hash), sim::run(seed, ten_minutes)?);
        println!("seed {seed}: {time:?} of virtual time, twice the same history: {hash:016x}");
    }
    Ok(())
}
