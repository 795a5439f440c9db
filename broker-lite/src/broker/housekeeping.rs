//! What a broker does about its logs from time to time: retention, compaction, flushing, checkpoints.
//!
//! Invariant: one partition at a time is locked, and nothing is locked across an await.

use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::log::{Compacted, NextInCleaning};
use klamm_wire::ErrorCode;

use super::{Broker, Partition};

/// How long the cleaner rests after it found nothing worth it, as Kafka's `log.cleaner.backoff.ms`.
const CLEANER_REST: Duration = Duration::from_secs(15);
/// Memory for keys, as Kafka's `log.cleaner.dedupe.buffer.size`.
const KEY_MEMORY_BYTES: usize = 128 << 20;
/// What is read at a time before others have their turn.
const STEP_BYTES: u64 = 1 << 20;

/// Deletes what retention does not keep, every `log.retention.check.interval.ms`, and files whose time is over.
pub(super) async fn retain(broker: Arc<Broker>) {
    let interval =
        broker.config.millis("log.retention.check.interval.ms").unwrap_or(Duration::from_secs(300));
    loop {
        broker.rt.sleep(interval).await;
        let (now, wall_ms) = (broker.rt.now(), broker.rt.wall_ms());
        for partition in broker.partitions() {
            let retained = partition.with(&broker, |replica, fx| {
                replica.retain(now, wall_ms, fx).map(|gone| gone.then(|| replica.log_start_offset()))
            });
            match retained {
                Some(Ok(Some(start))) => {
                    tracing::info!(replica = %partition.identity, start, "old segments were deleted");
                }
                Some(Err(code)) => {
                    tracing::warn!(replica = %partition.identity, %code, "cannot delete old segments");
                }
                Some(Ok(None)) | None => {}
            }
        }
    }
}

/// Compacts what is worth it, while `log.cleaner.enable` says so.
pub(super) async fn compact(broker: Arc<Broker>) {
    let rest = broker.config.millis("log.cleaner.backoff.ms").unwrap_or(CLEANER_REST);
    while broker.config.boolean("log.cleaner.enable") {
        broker.rt.sleep(rest).await;
        loop {
            let mut is_all = true;
            for partition in broker.partitions() {
                match clean(&broker, &partition).await {
                    Ok(None) => {}
                    Ok(Some(done)) => {
                        let (replica, Compacted { before, after, until, .. }) = (&partition.identity, done);
                        tracing::info!(%replica, before, after, until, "compacted");
                        // There may be more of it than its keys have room for.
                        is_all = false;
                    }
                    Err(cause) => tracing::warn!(replica = %partition.identity, cause, "cannot compact"),
                }
            }
            if is_all {
                break;
            }
        }
    }
}

/// Compacts one log as far as memory reaches, if it is worth it; `None` if not, or if the log has become another one
/// meanwhile. The partition is locked only to begin, and to put each segment in its place.
async fn clean(broker: &Arc<Broker>, partition: &Arc<Partition>) -> Result<Option<Compacted>, String> {
    let wall_ms = broker.rt.wall_ms();
    let keys = broker.image(|image| broker.settings(image).int("log.cleaner.dedupe.buffer.size"));
    let keys = keys.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(KEY_MEMORY_BYTES);
    let begun = partition.with(broker, |replica, fx| replica.begin_cleaning(wall_ms, keys, fx));
    let Some(mut cleaning) = begun.transpose().map_err(said)?.flatten() else { return Ok(None) };
    if let Err(error) = broker.disk.write_checkpoints().await {
        broker.go_offline(&error.to_string());
        return Ok(None);
    }
    loop {
        let step = move || {
            let more = cleaning.step(STEP_BYTES);
            (cleaning, more)
        };
        let Some((back, more)) = broker.disk.chore(step).await else { return Ok(None) };
        cleaning = back;
        match more {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                let same = partition.with(broker, |replica, fx| replica.give_up_cleaning(&mut cleaning, fx));
                return if same == Some(Ok(true)) { Err(error.to_string()) } else { Ok(None) };
            }
        }
        if cleaning.has_synced() && !end_fsync(broker, partition).await {
            return Ok(None);
        }
        let next = partition.with(broker, |replica, fx| replica.go_on_cleaning(&mut cleaning, fx));
        match next.transpose().map_err(said)? {
            Some(NextInCleaning::Step) => {}
            Some(NextInCleaning::Done(done)) => {
                return Ok(sync_names(broker, partition).await?.map(|()| done));
            }
            Some(NextInCleaning::GivenUp) | None => return Ok(None),
        }
    }
}

/// Makes the names durable that a compaction has changed.
async fn sync_names(broker: &Arc<Broker>, partition: &Arc<Partition>) -> Result<Option<()>, String> {
    let begun = partition.with(broker, |replica, _| {
        let unsynced = replica.begin_cleaned_sync();
        let job = replica.log().directory().job(&unsynced);
        (unsynced, job)
    });
    let Some((unsynced, job)) = begun else { return Ok(None) };
    if let Some(job) = job
        && let Err(error) = broker.disk.carry_out(&broker.rt, job, Duration::ZERO).await
    {
        partition.with(broker, |replica, fx| replica.sync_failed(&error, fx));
        return Ok(None);
    }
    if !end_fsync(broker, partition).await {
        return Ok(None);
    }
    let ended = partition.with(broker, |replica, fx| replica.end_cleaning(&unsynced, fx));
    ended.transpose().map_err(said)
}

/// What a slow or failing disk adds to an fsync; whether it has succeeded.
async fn end_fsync(broker: &Arc<Broker>, partition: &Arc<Partition>) -> bool {
    let latency = broker.disk.sync_latency();
    if !latency.is_zero() {
        broker.rt.sleep(latency).await;
    }
    let done = broker.disk.sync();
    if let Err(error) = &done {
        partition.with(broker, |replica, fx| replica.sync_failed(error, fx));
    }
    done.is_ok()
}

fn said(code: ErrorCode) -> String {
    code.to_string()
}

/// Writes down how far the replicas are, as often as `replica.high.watermark.checkpoint.interval.ms` says.
pub(super) async fn write_checkpoints(broker: Arc<Broker>) {
    let interval = broker.config.millis("replica.high.watermark.checkpoint.interval.ms");
    loop {
        broker.rt.sleep(interval.unwrap_or(Duration::from_secs(5))).await;
        if let Err(error) = broker.disk.write_checkpoints().await {
            return broker.go_offline(&error.to_string());
        }
    }
}
