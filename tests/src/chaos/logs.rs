//! What the log holds in the end, read twice.

use std::process::Command;

use klamm::{Client, Consumer, StartOffset, TopicPartition};
use tokio::time::timeout;

use super::{Error, Run, SILENCE};
use crate::backend::{Backend, Can};
use crate::history::{Log, LogRecord, Op};
use crate::process::find_program;

/// Reads every partition to its end by klamm, and by kcat where there are sockets and kcat; tells what kcat saw.
///
/// # Errors
///
/// A partition cannot be read, or the two read different records.
pub async fn read_logs(run: &Run, backend: &Backend) -> Result<String, Error> {
    let brokers = backend.client()?.admin().describe_cluster().await?.brokers;
    let bootstrap = brokers.first().map(|broker| format!("{}:{}", broker.host, broker.port));
    let mut compared = 0;
    for (partition, place) in (0..).zip(run.partitions.iter().copied()) {
        let log = read_log(&backend.client()?, &run.topic, partition).await?;
        if let Some(bootstrap) = bootstrap.clone().filter(|_| backend.can(Can::RealSockets)) {
            let topic = run.topic.clone();
            let other = tokio::task::spawn_blocking(move || read_by_kcat(&bootstrap, &topic, partition));
            let other = other.await??;
            if !log.records.iter().map(|record| (record.offset, record.op)).eq(other.iter().copied()) {
                let differ =
                    log.records.iter().zip(&other).find(|(one, other)| (one.offset, one.op) != **other);
                let (one, other) = (log.records.len(), other.len());
                return Err(format!(
                    "partition {partition}: klamm read {one} records, kcat {other}; {differ:?}"
                )
                .into());
            }
            compared += log.records.len();
        }
        run.history.lock().final_log(place, log);
    }
    Ok(match compared {
        0 => "kcat cannot read this kind of cluster".to_owned(),
        records => format!("kcat read the same {records} records"),
    })
}

/// Reads a partition to the end that it has now.
///
/// # Errors
///
/// It cannot be read, or falls silent for [`SILENCE`].
pub async fn read_log(client: &Client, topic: &str, partition: i32) -> Result<Log, Error> {
    let consumer: Consumer = Consumer::builder().client(client).build()?;
    let place = TopicPartition::new(topic, partition);
    let end =
        consumer.end_offsets(std::slice::from_ref(&place)).await?.get(&place).copied().ok_or("no end")?;
    consumer.assign([(place, StartOffset::Beginning)]);
    let mut records = Vec::new();
    while records.last().map_or(0, |record: &LogRecord| record.offset + 1) < end {
        let read = timeout(SILENCE, consumer.recv()).await;
        let read = read.map_err(|_| format!("partition {partition} falls silent before offset {end}"))??;
        let op = read.value.as_deref().map_or(Op::ALIEN, Op::of_value);
        records.push(LogRecord { offset: read.offset, op, leader_epoch: read.leader_epoch });
    }
    consumer.close().await?;
    Ok(Log { start: 0, end, records })
}

/// A foreign reader takes part in the verdict: without it there is no use in beginning.
///
/// # Errors
///
/// It is not installed.
pub fn foreign_reader() -> Result<(), Error> {
    find_program("kcat").ok_or("kcat is not installed (Debian: apt-get install kcat)")?;
    Ok(())
}

fn read_by_kcat(bootstrap: &str, topic: &str, partition: i32) -> Result<Vec<(i64, Op)>, Error> {
    foreign_reader()?;
    let partition = partition.to_string();
    let output = Command::new("kcat")
        .args(["-C", "-b", bootstrap, "-t", topic, "-p", &partition, "-o", "beginning", "-e", "-q"])
        .args(["-X", "check.crcs=true", "-f", "%o %S %s"])
        .output()?;
    if !output.status.success() {
        return Err(format!("kcat: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let (mut records, mut rest) = (Vec::new(), &*output.stdout);
    while !rest.is_empty() {
        let offset = number_before_space(&mut rest)?;
        let length = usize::try_from(number_before_space(&mut rest)?)?;
        let value = rest.split_off(..length).ok_or("kcat's output ends in the middle of a record")?;
        records.push((offset, Op::of_value(value)));
    }
    Ok(records)
}

fn number_before_space(rest: &mut &[u8]) -> Result<i64, Error> {
    let space =
        rest.iter().position(|byte| *byte == b' ').ok_or("kcat's output has no number where one is due")?;
    let digits = rest.split_off(..space).unwrap_or_default();
    *rest = &rest[1..];
    Ok(std::str::from_utf8(digits)?.parse()?)
}
