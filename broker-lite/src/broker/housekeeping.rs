//! What a broker does about its logs from time to time: retention, compaction, flushing, checkpoints.
//!
//! Invariant: one partition at a time is locked, and nothing is locked across an await.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;

/// How long the cleaner rests after it found nothing worth it, as Kafka's `log.cleaner.backoff.ms`.
const CLEANER_REST: Duration = Duration::from_secs(15);

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
        for partition in broker.partitions() {
            let wall_ms = broker.rt.wall_ms();
            match partition.with(&broker, |replica, fx| replica.compact(wall_ms, fx)) {
                Some(Ok(Some(done))) => {
                    let (replica, before, after) = (&partition.identity, done.before, done.after);
                    tracing::info!(%replica, before, after, "compacted");
                }
                Some(Err(code)) => tracing::warn!(replica = %partition.identity, %code, "cannot compact"),
                Some(Ok(None)) | None => {}
            }
        }
    }
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
