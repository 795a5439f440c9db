//! Room in the buffer: who gets it, that it comes back, and what is lost with a future that waits for it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use klamm::{Producer, Record, SendError};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;
use tokio::time::sleep;

use crate::tools::{SOON, number, read_all};

const BATCH: usize = 400;

/// A producer that has room for `batches` batches of [`BATCH`] bytes.
fn small(backend: &Backend, batches: usize) -> Result<Producer, Box<dyn std::error::Error + Send + Sync>> {
    let builder = Producer::builder().client(&backend.client()?).batch_size(BATCH);
    let builder = builder.buffer_memory(batches * BATCH).linger_ms(Duration::ZERO);
    // More than one minute of waiting is a failure, and this says which.
    Ok(builder.max_block_ms(3 * SOON).build()?)
}

/// Fills more than half of a batch, so that every record needs one of its own.
fn record(topic: &str, partition: i32, index: i64) -> Record {
    Record::new(topic).partition(partition).value(format!("{index} {}", "x".repeat(BATCH / 2)))
}

/// The memory of a batch comes back right after the news of it.
async fn until_whole(producer: &Producer, batches: usize) {
    while producer.buffer_available() < batches * BATCH {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(producer.buffer_available(), batches * BATCH);
}

/// Looks at a future as often as it asks for, at most `looks` times more than once, then drops it.
async fn glance<F: Future>(future: F, looks: u32) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), looks);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Goal: room is given in the order of asking, so that eight tasks that take all they can get do not shut out a ninth.
pub(crate) async fn no_partition_starves_while_another_one_is_hammered(backend: &Backend) -> Outcome {
    const BATCHES: usize = 4;
    const HAMMERS: u64 = 8;
    let topic = backend.topic("hammered", 3).await?;
    let producer = small(backend, BATCHES)?;
    producer.send_and_wait(record(&topic, 0, 0)).await?;
    let (taken, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let hammers: Vec<_> = (0..HAMMERS)
        .map(|_| {
            let (producer, topic) = (producer.clone(), topic.clone());
            let (taken, over) = (taken.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    drop(producer.send(record(&topic, 0, 0)).await?);
                    taken.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, SendError>(())
            })
        })
        .collect();
    while taken.load(Ordering::Relaxed) < 2 * HAMMERS {
        tokio::task::yield_now().await; // not by a timer: virtual time stands still as long as anybody has work
    }
    let mut waited = 0;
    for index in 0..30_i64 {
        let sent = producer.send(record(&topic, 1 + (index % 2) as i32, index));
        let mut sent = pin!(sent);
        let delivery = match glance(sent.as_mut(), 0).await {
            Some(delivery) => delivery?,
            None => {
                waited += 1;
                let before = taken.load(Ordering::Relaxed);
                let delivery = sent.await?;
                let others = taken.load(Ordering::Relaxed) - before;
                // Each hammer may have asked before. With threads, others may go on while this task is not running, so that
                // only `max.block.ms` tells starvation.
                let fair = !backend.kind().is_virtual() || others <= 2 * HAMMERS;
                assert!(fair, "{others} records were accepted before this one");
                delivery
            }
        };
        delivery.await?;
    }
    over.store(true, Ordering::Relaxed);
    for hammer in hammers {
        hammer.await??;
    }
    assert!(waited > 0, "there was room every time: nobody was hammering");
    producer.flush().await?;
    until_whole(&producer, BATCHES).await;
    producer.close(SOON).await?;
    Ok(())
}

/// Goal: whatever becomes of records, the buffer is whole in the end.
pub(crate) async fn memory_comes_back_in_full(backend: &Backend) -> Outcome {
    const BATCHES: usize = 6;
    let topic = backend.topic("whole", 2).await?;
    let producer = small(backend, BATCHES)?;
    producer.send_and_wait(record(&topic, 0, 0)).await?;
    let mut too_large = 0;
    for round in 0..200_usize {
        // From nothing to more than the whole buffer, which is refused; larger than a batch is a batch of its own.
        let size = round * 37 % (BATCH * (BATCHES + 1));
        let record = Record::new(topic.as_str()).partition((round % 2) as i32).value("x".repeat(size));
        match producer.send(record).await {
            Ok(delivery) if round % 3 == 0 => drop(delivery.await?),
            Ok(delivery) => drop(delivery),
            Err(SendError::TooLarge { .. }) => too_large += 1,
            Err(other) => return Err(other.into()),
        }
    }
    assert!(too_large > 0);
    producer.flush().await?;
    until_whole(&producer, BATCHES).await;
    producer.close(SOON).await?;
    Ok(())
}

/// Goal: a future of the producer's may be dropped at any of its waits, and nobody else loses anything by it.
pub(crate) async fn what_is_dropped_while_it_waits_takes_nothing_along(backend: &Backend) -> Outcome {
    const BATCHES: usize = 2;
    let topic = backend.topic("dropped-waiting", 1).await?;
    let producer = small(backend, BATCHES)?;
    let (mut accepted, mut dropped) = (Vec::new(), 0);
    for index in 0..200_i64 {
        match glance(producer.send(record(&topic, 0, index)), (index % 3) as u32).await {
            Some(delivery) => {
                let mut delivery = delivery?;
                // Looked at and left, looked at and awaited, or not at all.
                match index % 7 {
                    0 | 1 => drop(glance(&mut delivery, (index % 2) as u32).await),
                    2 => {
                        let early = glance(&mut delivery, 0).await;
                        let fate = match early {
                            Some(fate) => fate,
                            None => delivery.await,
                        };
                        fate?;
                    }
                    _ => drop(delivery),
                }
                accepted.push(index);
            }
            None => dropped += 1,
        }
        if index % 10 == 0 {
            drop(glance(producer.flush(), 0).await);
        }
    }
    producer.flush().await?;
    until_whole(&producer, BATCHES).await;
    assert!(dropped > 0 && accepted.len() > 20, "{dropped} dropped, {} accepted", accepted.len());
    let found = read_all(backend, &topic, 0).await?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(found, accepted, "what was accepted is there, in order, and nothing else");
    producer.close(SOON).await?;
    Ok(())
}
