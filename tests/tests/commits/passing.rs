//! Commits that nobody waits for, and records that outlast the time in which their partition was owned.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::future::BoxFuture;
use klamm::{RebalanceContext, RebalanceListener, RebalanceReason};

use super::*;

/// How a consumer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Close,
    Drop,
    Unsubscribe,
}

/// Returns when it has ended.
async fn end(consumer: Consumer, by: End) -> Outcome {
    match by {
        End::Close => consumer.close().await?,
        End::Drop => drop(consumer),
        End::Unsubscribe => {
            consumer.unsubscribe().await;
            consumer.vanish();
        }
    }
    Ok(())
}

/// The coordinator is not known yet, or refuses once: the commit is tried again before everything ends.
#[test]
fn what_is_being_committed_when_a_consumer_ends_is_committed() {
    for by_hand in [true, false] {
        for by in [End::Close, End::Drop, End::Unsubscribe] {
            if by_hand && by == End::Unsubscribe {
                continue;
            }
            let what = format!("by hand {by_hand}, {by:?}");
            sim::run(1, |sim| async move {
                let rig = Rig::new(&sim).await?;
                let consumer: Consumer = rig.builder().enable_auto_commit(false).build()?;
                match by_hand {
                    true => consumer.assign([0, 1].map(|index| (place(index), StartOffset::Beginning))),
                    false => consumer.subscribe([TOPIC]),
                }
                read(&consumer, 10).await?;
                let moved = Fault::Refuse(ErrorCode::NOT_COORDINATOR);
                let refused = rig.faults.on(ApiKey::OffsetCommit).times(1).then(moved);
                drop(consumer.commit_async());
                end(consumer, by).await?;
                let committed = timeout(3 * S, async {
                    while (rig.committed(0).await?, rig.committed(1).await?) != (Some(5), Some(5)) {
                        tokio::time::sleep(S / 100).await;
                    }
                    Outcome::Ok(())
                });
                committed.await??;
                assert_eq!(refused.hits(), 1);
                Outcome::Ok(())
            })
            .expect(&what);
        }
    }
}

#[test]
fn a_commit_that_nobody_answers_takes_half_of_the_time_that_closing_has() {
    for by_hand in [true, false] {
        sim::run(1, |sim| async move {
            let rig = Rig::new(&sim).await?;
            let consumer: Consumer = rig.builder().enable_auto_commit(false).build()?;
            match by_hand {
                true => consumer.assign([(place(0), StartOffset::Beginning)]),
                false => consumer.subscribe([TOPIC]),
            }
            read(&consumer, 3).await?;
            let _silent = rig.faults.on(ApiKey::OffsetCommit).then(Fault::DropRequest);
            let outcome = consumer.commit_async();
            let began = Instant::now();
            consumer.close().await?;
            let took = began.elapsed();
            // LeaveGroup follows on the connection on which the commit was not answered.
            let leaves = if by_hand { S } else { 3 * S };
            assert!((3 * S..3 * S + leaves).contains(&took), "{took:?} of 6 s, by hand {by_hand}");
            assert!(outcome.await.is_err());
            Outcome::Ok(())
        })
        .expect("it runs");
    }
}

/// A task may end long after its record's partition went to others and came back.
#[test]
fn a_record_that_was_read_before_others_went_on_does_not_take_the_group_back() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let join = || -> Outcome<Consumer> {
            let consumer: Consumer = rig.builder().enable_auto_commit(false).build()?;
            consumer.subscribe([TOPIC]);
            Ok(consumer)
        };
        let first = join()?;
        let early = read(&first, 10).await?;
        let second = join()?;
        let taken = async {
            while second.assignment().len() != 1 {
                first.poll(0, S / 100).await?;
                second.poll(0, S / 100).await?;
            }
            Outcome::Ok(())
        };
        timeout(30 * S, taken).await??;
        let went = second.assignment().remove(0);
        read(&second, 5).await?;
        second.commit().await?;
        second.close().await?;
        rig.write(went.partition, 1).await?;
        let late = timeout(30 * S, async {
            loop {
                let record = first.recv().await?;
                if record.topic_partition() == went && record.offset == 5 {
                    return Outcome::Ok(record);
                }
            }
        });
        let late = late.await??;
        let before = early.iter().find(|record| record.topic_partition() == went && record.offset == 1);
        let before = before.ok_or("it has read that")?;
        let told = first.commit_record(before).await;
        assert!(matches!(&told, Err(CommitError::NotOwned { partition }) if *partition == went), "{told:?}");
        assert_eq!(rig.committed(went.partition).await?, Some(5));
        first.commit_record(&late).await?;
        // What the application says in so many words, and what it reads again, counts.
        first.commit_offsets([(went.clone(), 2)]).await?;
        assert_eq!(rig.committed(went.partition).await?, Some(2));
        first.seek(&went, StartOffset::Offset(0))?;
        first.commit_record(before).await?;
        Outcome::Ok(())
    })
    .expect("it runs");
}

#[test]
fn who_asks_for_no_records_is_done_with_what_it_had_and_stays_a_member() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let consumer: Consumer = rig.builder().max_poll_interval_ms(5 * S).build()?;
        consumer.subscribe([TOPIC]);
        read(&consumer, 4).await?;
        for _ in 0..20 {
            let began = Instant::now();
            assert!(consumer.poll(0, S).await?.is_empty());
            assert_eq!(began.elapsed(), S);
        }
        assert_eq!(consumer.assignment().len(), 2);
        let committed = (rig.committed(0).await?, rig.committed(1).await?);
        assert_eq!(committed.0.unwrap_or(0) + committed.1.unwrap_or(0), 4, "{committed:?}");
        let all = read(&consumer, 6).await?;
        assert_eq!(all.len(), 6, "none was taken");
        Outcome::Ok(())
    })
    .expect("it runs");
}

#[test]
fn who_waits_for_streams_of_partitions_is_told_why_there_are_none() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let consumer: Consumer = rig.builder().build()?;
        let _refused =
            rig.faults.on(ApiKey::JoinGroup).then(Fault::Refuse(ErrorCode::GROUP_MAX_SIZE_REACHED));
        consumer.subscribe([TOPIC]);
        let told = timeout(30 * S, std::pin::pin!(consumer.partition_streams()).next()).await?;
        let told = told.map(|told| told.map(|stream| stream.topic_partition().clone()));
        assert!(matches!(told, Some(Err(ConsumerError::Group { .. }))), "{told:?}");
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// The group had committed more of the topic that had the name before.
#[test]
fn records_of_a_topic_that_was_created_again_are_committed_from_its_beginning() {
    sim::run(1, |sim| async move {
        let rig = Rig::new(&sim).await?;
        let first: Consumer = rig.builder().build()?;
        first.subscribe([TOPIC]);
        read(&first, 10).await?;
        first.commit().await?;
        first.close().await?;
        let consumer: Consumer = rig.builder().enable_auto_commit(false).build()?;
        consumer.subscribe([TOPIC]);
        rig.write(0, 1).await?;
        let record = read(&consumer, 1).await?.remove(0);
        assert_eq!(record.offset, 5);
        consumer.commit_record(&record).await?;
        let admin = rig.client.admin();
        admin.delete_topics([TOPIC]).await?.all()?;
        admin.create_topics([NewTopic::new(TOPIC).partitions(2).replicas(1)]).await?.all()?;
        rig.write(0, 2).await?;
        let record = read(&consumer, 1).await?.remove(0);
        assert_eq!(record.offset, 0);
        consumer.commit_record(&record).await?;
        assert_eq!(rig.committed(0).await?, Some(1));
        Outcome::Ok(())
    })
    .expect("it runs");
}

/// Goal: a listener is told while it can still do something, and nobody waits longer than is said.
#[test]
fn commits_that_nobody_answers_leave_the_listener_its_half_and_keep_nobody() {
    for by in [End::Close, End::Drop, End::Unsubscribe] {
        let what = format!("{by:?}");
        sim::run(1, |sim| async move {
            let rig = Rig::new(&sim).await?;
            let told = Told::default();
            let consumer: Consumer = rig.builder().auto_commit_interval_ms(600 * S).build()?;
            consumer.subscribe_with([TOPIC], told.clone());
            read(&consumer, 3).await?;
            let _silent = rig.faults.on(ApiKey::OffsetCommit).then(Fault::DropRequest);
            drop(consumer.commit_async());
            let began = Instant::now();
            end(consumer, by).await?;
            // Who is dropped has `request.timeout.ms`, 2 s; the others 6 s.
            let (half, all) = if by == End::Drop { (S, 2 * S) } else { (3 * S, 6 * S) };
            while told.0.lock().expect("no panic").is_none() {
                assert!(began.elapsed() <= all, "the listener is not told");
                tokio::time::sleep(S / 100).await;
            }
            let heard = told.0.lock().expect("no panic").map(|at| at - began).unwrap_or_default();
            assert!(heard <= half + S / 10, "told after {heard:?}");
            Outcome::Ok(())
        })
        .expect(&what);
    }
}

/// When it was told that something is revoked.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<Instant>>>);

impl RebalanceListener for Told {
    fn revoked<'a>(
        &'a self,
        _: &'a RebalanceContext,
        _: &'a [TopicPartition],
        _: RebalanceReason,
    ) -> BoxFuture<'a, ()> {
        *self.0.lock().expect("no panic") = Some(Instant::now());
        std::future::ready(()).boxed()
    }
}
