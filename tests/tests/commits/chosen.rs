//! Partitions that are chosen by hand, and the group whose offsets they use.

use futures::future::BoxFuture;
use klamm::{OffsetStore, OffsetStoreError, StoredOffsets};
use tokio::time::sleep;

use super::*;

/// A store in which nothing is.
struct Empty;

impl OffsetStore for Empty {
    fn load<'a>(
        &'a self,
        _: &'a str,
        _: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<StoredOffsets, OffsetStoreError>> {
        std::future::ready(Ok(StoredOffsets::new())).boxed()
    }

    fn save<'a>(&'a self, _: &'a str, _: &'a StoredOffsets) -> BoxFuture<'a, Result<(), OffsetStoreError>> {
        std::future::ready(Ok(())).boxed()
    }
}

#[test]
fn who_begins_from_a_store_after_unsubscribing_commits_again() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let consumer: Consumer = rig.builder().enable_auto_commit(false).build()?;
        consumer.subscribe([TOPIC]);
        let records = read(&consumer, 10).await?;
        consumer.unsubscribe().await;
        let told = consumer.commit_record(&records[0]).await;
        assert!(matches!(told, Err(CommitError::NotOwned { .. })), "{told:?}");
        consumer.assign_stored(&Empty, "g", [place(0)]).await?;
        read(&consumer, 3).await?;
        consumer.commit().await?;
        assert_eq!(rig.committed(0).await?, Some(3));
        Outcome::Ok(())
    })
    .expect("it runs");
}

#[test]
fn on_subscribing_what_is_done_is_committed_if_commits_are_automatic_and_nothing_else() {
    for automatic in [true, false] {
        sim::run(1, |sim| async move {
            let rig = Rig::new(&sim).await?;
            let builder = rig.builder().auto_commit_interval_ms(600 * S);
            let consumer: Consumer = builder.enable_auto_commit(automatic).build()?;
            consumer.assign([(place(0), StartOffset::Beginning)]);
            // The coordinator is known from here on.
            consumer.commit_offsets([(place(1), 1)]).await?;
            read(&consumer, 3).await?;
            consumer.subscribe([TOPIC]);
            while consumer.assignment().len() < 2 {
                sleep(S / 100).await;
            }
            sleep(S).await;
            let done = if automatic { Some(2) } else { None };
            assert_eq!((rig.committed(0).await?, rig.committed(1).await?), (done, Some(1)), "{automatic}");
            Outcome::Ok(())
        })
        .expect("it runs");
    }
}

/// Goal: the rest of closing has the other half.
#[test]
fn the_last_commit_of_who_assigns_by_hand_takes_half_of_the_time_that_closing_has() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let _silent = rig.faults.on(ApiKey::OffsetCommit).then(Fault::DropRequest);
        let consumer: Consumer = rig.builder().auto_commit_interval_ms(600 * S).build()?;
        consumer.assign([(place(0), StartOffset::Beginning)]);
        read(&consumer, 3).await?;
        let began = Instant::now();
        consumer.close().await?;
        let took = began.elapsed();
        assert!((3 * S..4 * S).contains(&took), "{took:?} of 6 s");
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// Whatever time an unsubscribing had.
#[test]
fn who_assigns_by_hand_after_unsubscribing_has_the_time_to_commit_in_the_end() {
    for pause in [Duration::ZERO, 5 * S, 60 * S] {
        sim::run(1, |sim| async move {
            let rig = Rig::new(&sim).await?;
            let consumer: Consumer = rig.builder().auto_commit_interval_ms(600 * S).build()?;
            consumer.subscribe([TOPIC]);
            read(&consumer, 2).await?;
            consumer.unsubscribe().await;
            tokio::time::sleep(pause).await;
            consumer.assign([(place(0), StartOffset::Beginning)]);
            read(&consumer, 5).await?;
            assert!(consumer.poll(1, S / 10).await?.is_empty());
            let _slow = rig.faults.on(ApiKey::OffsetCommit).then(Fault::DelayRequest(S.into()));
            consumer.close().await?;
            assert_eq!(rig.committed(0).await?, Some(5), "after {pause:?}");
            Outcome::Ok(())
        })
        .expect("it runs");
    }
}
