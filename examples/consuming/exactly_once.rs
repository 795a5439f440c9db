//! Results and offsets in one transaction of SQLite: a process that dies in the middle of one counts nothing twice.
#![allow(clippy::print_stdout, reason = "says what was shown")]

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use broker_lite::Cluster;
use futures::future::{BoxFuture, FutureExt};
use klamm::{Client, Consumer, OffsetReset, OffsetStore, OffsetStoreError, Producer, Record};
use klamm::{StoredOffset, StoredOffsets, TopicPartition, Uuid};
use rusqlite::{Connection, params};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const TABLES: &str = "
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS balances (account TEXT PRIMARY KEY, cents INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS offsets (
        grp TEXT, topic TEXT, part INTEGER, offset INTEGER NOT NULL, epoch INTEGER, topic_id BLOB NOT NULL,
        PRIMARY KEY (grp, topic, part)
    ) STRICT;";

/// Offsets in a table beside the results.
struct Ledger(Mutex<Connection>);

impl Ledger {
    fn open(path: &Path) -> Result<Self, Failure> {
        let connection = Connection::open(path)?;
        connection.execute_batch(TABLES)?;
        Ok(Self(Mutex::new(connection)))
    }
}

fn write_offsets(to: &Connection, group: &str, offsets: &StoredOffsets) -> rusqlite::Result<()> {
    let mut insert = to.prepare_cached("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?, ?, ?)")?;
    for (TopicPartition { topic, partition }, at) in offsets {
        insert.execute(params![
            group,
            &**topic,
            partition,
            at.offset,
            at.leader_epoch,
            at.topic_id.as_bytes()
        ])?;
    }
    Ok(())
}

impl OffsetStore for Ledger {
    fn load<'a>(
        &'a self,
        group: &'a str,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<StoredOffsets, OffsetStoreError>> {
        let load = || -> rusqlite::Result<StoredOffsets> {
            let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut select = connection
                .prepare("SELECT topic, part, offset, epoch, topic_id FROM offsets WHERE grp = ?")?;
            let rows = select.query_map([group], |row| {
                let name = TopicPartition::new(row.get::<_, String>(0)?, row.get(1)?);
                let topic_id = Uuid::from_bytes(row.get(4)?);
                Ok((name, StoredOffset { offset: row.get(2)?, leader_epoch: row.get(3)?, topic_id }))
            })?;
            rows.filter(|row| !matches!(row, Ok((name, _)) if !partitions.contains(name))).collect()
        };
        std::future::ready(load().map_err(OffsetStoreError::from)).boxed()
    }

    fn save<'a>(
        &'a self,
        group: &'a str,
        offsets: &'a StoredOffsets,
    ) -> BoxFuture<'a, Result<(), OffsetStoreError>> {
        let save = || -> rusqlite::Result<()> {
            let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction()?;
            write_offsets(&transaction, group, offsets)?;
            transaction.commit()
        };
        std::future::ready(save().map_err(OffsetStoreError::from)).boxed()
    }
}

/// Books payments until it has booked `count`; with `dies_at`, dies in the middle of that transaction.
async fn book(bootstrap: &str, path: &Path, count: i64, dies_at: Option<usize>) -> Result<(), Failure> {
    let ledger = Ledger::open(path)?;
    let builder = Consumer::builder().bootstrap_servers(bootstrap).auto_offset_reset(OffsetReset::Earliest);
    let consumer: Consumer = builder.build()?;
    consumer.assign_stored(&ledger, "bookkeeper", [("payments", 0), ("payments", 1)]).await?;
    let begins: i64 = consumer.stored_offsets().values().map(|at| at.offset).sum();
    println!("begins behind {begins} payments");
    for transactions in 1.. {
        let payments = consumer.poll(7, Duration::from_secs(10)).await?;
        let mut connection = ledger.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction()?;
        for payment in &payments {
            let account = std::str::from_utf8(payment.key.as_deref().ok_or("a payment has an account")?)?;
            let cents: i64 =
                std::str::from_utf8(payment.value.as_deref().ok_or("and an amount")?)?.parse()?;
            let booked = "INSERT INTO balances VALUES (?1, ?2) ON CONFLICT DO UPDATE SET cents = cents + ?2";
            transaction.execute(booked, params![account, cents])?;
        }
        write_offsets(&transaction, "bookkeeper", &consumer.stored_after(&payments))?;
        if dies_at == Some(transactions) {
            println!("dies with {} payments half booked", payments.len());
            std::process::abort();
        }
        transaction.commit()?;
        let done: i64 = connection.query_row("SELECT SUM(offset) FROM offsets", [], |row| row.get(0))?;
        if done == count {
            break;
        }
    }
    consumer.close().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    const PAYMENTS: i64 = 100;
    // A bookkeeper is a process of its own: only so it can die.
    if let [_, bootstrap, path, rest @ ..] = &std::env::args().collect::<Vec<_>>()[..] {
        let dies_at = rest.first().map(|text| text.parse()).transpose()?;
        return book(bootstrap, path.as_ref(), PAYMENTS, dies_at).await;
    }
    let cluster = Cluster::builder().brokers(3).tcp(true).topic("payments", Some(2), Some(3)).start().await?;
    let client = Client::builder().bootstrap_servers(cluster.bootstrap()).build()?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    for cents in 1..=PAYMENTS {
        let account = ["Ada", "Grace", "Barbara"][cents as usize % 3];
        drop(producer.send(Record::new("payments").key(account).value(cents.to_string())).await?);
    }
    producer.close(Duration::from_secs(30)).await?;

    let home = tempfile::tempdir()?;
    let path = home.path().join("ledger.sqlite");
    let bookkeeper = |arguments: &[&str]| {
        let mut process = tokio::process::Command::new(std::env::current_exe()?);
        process.arg(cluster.bootstrap()).arg(&path).args(arguments).kill_on_drop(true).spawn()
    };
    for dies_at in ["1", "3", "2"] {
        assert!(!bookkeeper(&[dies_at])?.wait().await?.success(), "it dies");
    }
    assert!(bookkeeper(&[])?.wait().await?.success());

    let ledger = Connection::open(&path)?;
    let total: i64 = ledger.query_row("SELECT SUM(cents) FROM balances", [], |row| row.get(0))?;
    assert_eq!(total, PAYMENTS * (PAYMENTS + 1) / 2);
    println!("{PAYMENTS} payments, three deaths: each booked once, {total} cents in all");
    Ok(())
}
