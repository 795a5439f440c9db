//! Clients whose deliveries are futures: a window of them, awaited in order.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::{Error, Job, Pace, Stopwatch, Tally, WARM_UP};

/// An async producer.
pub trait Producer {
    /// What a send gives for later.
    type Delivery: Send + 'static;

    /// Sends record `i`.
    fn send(&self, i: usize) -> impl Future<Output = Result<Self::Delivery, Error>>;

    /// Waits until the record is acknowledged.
    fn settle(delivery: Self::Delivery) -> impl Future<Output = Result<(), String>> + Send;
}

/// The runtime of every client: its workers are for the client's tasks, the main thread sends.
///
/// # Errors
///
/// The system gives no threads.
pub fn runtime(job: &Job) -> Result<Runtime, Error> {
    Ok(Builder::new_multi_thread().worker_threads(job.workers).enable_all().build()?)
}

/// Warms up, does the job and reports.
///
/// # Errors
///
/// A record of the warm-up fails, or one is refused at once.
pub fn run<P: Producer>(job: &Job, version: String, runtime: &Runtime, producer: &P) -> Result<(), Error> {
    let warm = runtime.block_on(flood(job, producer, WARM_UP))?;
    if let Some(failure) = warm.failure {
        return Err(failure.into());
    }
    let watch = Stopwatch::start(version)?;
    let tally = match job.rate {
        None => runtime.block_on(flood(job, producer, job.records))?,
        Some(rate) => pace(job, runtime, producer, rate)?,
    };
    watch.finish(job.records, tally)
}

async fn flood<P: Producer>(job: &Job, producer: &P, records: usize) -> Result<Tally, Error> {
    let mut tally = Tally::default();
    let mut window = VecDeque::with_capacity(job.window);
    for i in 0..records {
        if window.len() == job.window
            && let Some(oldest) = window.pop_front()
        {
            tally.count(P::settle(oldest).await);
        }
        window.push_back(producer.send(i).await?);
    }
    for delivery in window {
        tally.count(P::settle(delivery).await);
    }
    Ok(tally)
}

/// This thread sends, a task awaits in order.
fn pace<P: Producer>(job: &Job, runtime: &Runtime, producer: &P, rate: usize) -> Result<Tally, Error> {
    let (sent, mut deliveries) = mpsc::unbounded_channel::<(Instant, P::Delivery)>();
    let awaiting = runtime.spawn(async move {
        let mut tally = Tally::default();
        while let Some((since, delivery)) = deliveries.recv().await {
            let outcome = P::settle(delivery).await;
            tally.count_since(since, outcome);
        }
        tally
    });
    let mut pace = Pace::new(rate);
    for i in 0..job.records {
        pace.wait();
        let since = Instant::now();
        let delivery = runtime.block_on(producer.send(i))?;
        sent.send((since, delivery)).map_err(|_| "nobody awaits")?;
    }
    drop(sent);
    Ok(runtime.block_on(awaiting)?)
}
