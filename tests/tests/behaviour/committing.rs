//! What is promised of offsets that a group commits, with and without members.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use klamm::{
    CommitError, CommittedOffset, Consumer, ConsumerError, OffsetReset, StartOffset, TopicPartition,
};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;
use tokio::sync::oneshot;

use crate::members::{Notes, builder, until, write};
use crate::tools::{SOON, next, number, write_numbers};

async fn committed(
    consumer: &Consumer,
    partition: &TopicPartition,
) -> Result<Option<CommittedOffset>, CommitError> {
    let mut found = consumer.committed(std::slice::from_ref(partition)).await?;
    Ok(found.remove(partition).flatten())
}

pub(crate) async fn a_group_goes_on_where_it_committed(backend: &Backend) -> Outcome {
    let topic = backend.topic("resumed", 1).await?;
    let group = backend.fresh_topic("group");
    write_numbers(backend, &topic, 100).await?;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let consumer: Consumer = builder(backend, &group)?.enable_auto_commit(false).build()?;
    assert_eq!(committed(&consumer, &partition).await?, None);
    consumer.subscribe([topic.as_str()]);
    next(&consumer, 40).await?;
    consumer.commit_offsets([(partition.clone(), 30)]).await?;
    let foreign = consumer.commit_offsets([((topic.as_str(), 9), 1)]).await;
    assert!(matches!(foreign, Err(CommitError::NotOwned { .. })), "{foreign:?}");
    consumer.close().await?;
    assert!(matches!(consumer.recv().await, Err(ConsumerError::Closed)));

    let consumer: Consumer = builder(backend, &group)?.build()?;
    consumer.subscribe([topic.as_str()]);
    assert_eq!(number(&consumer.recv().await?)?, 30);
    let records = next(&consumer, 9).await?;
    assert_eq!(number(&records[8])?, 39);
    // Whoever asks for more is done with what came before: ten records, and not the eleventh.
    assert_eq!(number(&consumer.recv().await?)?, 40);
    consumer.close().await?;
    assert_eq!(consumer.committed(std::slice::from_ref(&partition)).await, Err(CommitError::Closed));
    let consumer: Consumer = builder(backend, &group)?.build()?;
    assert_eq!(committed(&consumer, &partition).await?.map(|at| at.offset), Some(40));
    consumer.close().await?;
    Ok(())
}

pub(crate) async fn an_assigned_consumer_commits_for_its_group_and_another_goes_on_there(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("by_hand", 2).await?;
    let group = backend.fresh_topic("group");
    write(backend, &topic, 2, 20).await?;
    let [zero, one] = [0, 1].map(|index| TopicPartition::new(topic.as_str(), index));
    let first: Consumer = builder(backend, &group)?.enable_auto_commit(false).build()?;
    first.assign([(zero.clone(), StartOffset::Committed), (one.clone(), StartOffset::Committed)]);
    let records = next(&first, 40).await?;
    let epoch = records[0].leader_epoch;
    first.commit().await?;
    for partition in [&zero, &one] {
        let expected = CommittedOffset::new(20).leader_epoch(epoch);
        assert_eq!(committed(&first, partition).await?, Some(expected));
    }
    let noted = CommittedOffset::new(7).leader_epoch(epoch).metadata("halfway");
    first.commit_offsets([(zero.clone(), noted.clone())]).await?;
    first.close().await?;

    // With automatic commits what is done is committed, also when closing.
    let second: Consumer = builder(backend, &group)?.build()?;
    assert_eq!(committed(&second, &zero).await?, Some(noted));
    second.assign([(zero.clone(), StartOffset::Committed)]);
    assert_eq!(second.position(&zero).await?, 7);
    assert!(next(&second, 4).await?.iter().map(|record| record.offset).eq(7..11));
    let _more = second.recv().await?;
    second.close().await?;

    let third: Consumer =
        builder(backend, &group)?.auto_commit_interval_ms(Duration::from_millis(100)).build()?;
    assert_eq!(committed(&third, &zero).await?, Some(CommittedOffset::new(11).leader_epoch(epoch)));
    third.assign([(zero.clone(), StartOffset::Offset(2))]);
    let _handed_out = next(&third, 3).await?;
    let _handed_out = third.recv().await?;
    while committed(&third, &zero).await?.map(|at| at.offset) != Some(5) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    third.seek(&zero, StartOffset::Committed)?;
    assert_eq!(third.position(&zero).await?, 5, "a seek goes there, too");
    third.close().await?;
    Ok(())
}

/// How a task gets its record.
#[derive(Debug, Clone, Copy)]
enum By {
    Recv,
    Stream,
    PartitionStream,
}

/// A task gets the first record, and says so; then it asks for the next one when it is told to, or ends if nobody does.
async fn at_work(
    consumer: Arc<Consumer>,
    by: By,
    got: oneshot::Sender<()>,
    go_on: oneshot::Receiver<()>,
) -> Result<(), ConsumerError> {
    let told = |first: i64| {
        assert_eq!(first, 0);
        let _ = got.send(());
        go_on
    };
    match by {
        By::Recv => {
            if told(consumer.recv().await?.offset).await.is_ok() {
                consumer.recv().await?;
            }
        }
        By::Stream => {
            let mut records = std::pin::pin!(consumer.stream());
            let first = records.next().await.ok_or(ConsumerError::Closed)??;
            if told(first.offset).await.is_ok() {
                records.next().await;
            }
        }
        By::PartitionStream => {
            let partition = consumer.assignment().remove(0);
            let mut records = consumer.partition_stream(&partition)?;
            let first = records.next().await.ok_or(ConsumerError::Closed)??;
            if told(first.offset).await.is_ok() {
                drop(records);
                consumer.recv().await?;
            }
        }
    }
    Ok(())
}

pub(crate) async fn what_a_reader_is_at_work_on_is_not_done_because_others_ask(backend: &Backend) -> Outcome {
    for (by, ends) in
        [(By::Recv, false), (By::Stream, false), (By::PartitionStream, false), (By::PartitionStream, true)]
    {
        let topic = backend.topic("at_work", 1).await?;
        let group = backend.fresh_topic("group");
        write(backend, &topic, 1, 10).await?;
        let partition = TopicPartition::new(topic.as_str(), 0);
        let consumer: Consumer =
            builder(backend, &group)?.auto_commit_interval_ms(Duration::from_millis(50)).build()?;
        let consumer = Arc::new(consumer);
        consumer.subscribe([topic.as_str()]);
        until("it has its partition", || !consumer.assignment().is_empty()).await?;
        let ((got, has), (go, on)) = (oneshot::channel(), oneshot::channel());
        let worker = tokio::spawn(at_work(consumer.clone(), by, got, on));
        tokio::time::timeout(SOON, has).await??;
        if ends {
            drop(go);
            worker.await??;
            next(&consumer, 9).await?;
            assert!(consumer.poll(1, Duration::from_millis(300)).await?.is_empty());
            consumer.close().await?;
            let at = committed(&builder(backend, &group)?.build()?, &partition).await?;
            assert!(at.is_none_or(|at| at.offset == 0), "whoever gets it next reads it again");
            continue;
        }
        if !matches!(by, By::PartitionStream) {
            next(&consumer, 9).await?;
        }
        // Asks for more: what this task had is done.
        assert!(consumer.poll(1, Duration::from_millis(300)).await?.is_empty());
        let at = committed(&consumer, &partition).await?;
        assert!(
            at.as_ref().is_none_or(|at| at.offset == 0),
            "{by:?}: a task is at work on the first: {at:?}"
        );
        let _ = go.send(());
        let done = if matches!(by, By::PartitionStream) { 1 } else { 10 };
        let waiting = async {
            while committed(&consumer, &partition).await?.is_none_or(|at| at.offset != done) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok::<_, CommitError>(())
        };
        tokio::time::timeout(SOON, waiting).await??;
        worker.abort();
        consumer.close().await?;
    }
    Ok(())
}

pub(crate) async fn a_listener_that_commits_leaves_out_what_a_reader_is_at_work_on(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("beside", 1).await?;
    let group = backend.fresh_topic("group");
    write(backend, &topic, 1, 10).await?;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let consumer: Consumer = builder(backend, &group)?.enable_auto_commit(false).build()?;
    consumer.subscribe_with([topic.as_str()], Notes::default());
    for _ in 0..5 {
        consumer.recv().await?;
    }
    // The fifth is being worked on.
    consumer.unsubscribe().await;
    assert_eq!(committed(&consumer, &partition).await?.map(|at| at.offset), Some(4));
    consumer.close().await?;
    Ok(())
}

pub(crate) async fn without_a_group_nothing_is_committed_and_beside_members_it_is_refused(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("apart", 1).await?;
    let group = backend.fresh_topic("group");
    write(backend, &topic, 1, 5).await?;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let nobody: Consumer = Consumer::builder().client(&backend.client()?).build()?;
    nobody.assign([(partition.clone(), StartOffset::Committed)]);
    let told = nobody.recv().await;
    assert!(matches!(&told, Err(ConsumerError::NoGroup { .. })), "{told:?}");
    assert_eq!(nobody.commit_offsets([(partition.clone(), 1)]).await, Err(CommitError::NoGroup));

    let member: Consumer = builder(backend, &group)?.enable_auto_commit(false).build()?;
    member.subscribe([topic.as_str()]);
    next(&member, 5).await?;
    let apart: Consumer = builder(backend, &group)?.build()?;
    let told = apart.commit_offsets([(partition.clone(), 3)]).await;
    assert!(matches!(told, Err(CommitError::HasMembers { .. })), "{told:?}");

    member.assign([(partition.clone(), StartOffset::Beginning)]);
    let told = member.recv().await;
    assert!(matches!(told, Err(ConsumerError::Subscribed)), "{told:?}");
    assert_eq!(member.assignment(), std::slice::from_ref(&partition), "its group assigns");
    member.unsubscribe().await;
    member.assign([(partition.clone(), StartOffset::Beginning)]);
    assert_eq!(next(&member, 5).await?[0].offset, 0, "now it may");
    member.commit_async().await?;
    assert_eq!(committed(&apart, &partition).await?.map(|at| at.offset), Some(5));
    member.seek(&partition, StartOffset::Beginning)?;
    let records = next(&member, 3).await?;
    member.commit_record(&records[0]).await?;
    let expected = CommittedOffset::new(1).leader_epoch(records[0].leader_epoch);
    assert_eq!(committed(&apart, &partition).await?, Some(expected));
    member.commit_records(&records).await?;
    assert_eq!(committed(&apart, &partition).await?.map(|at| at.offset), Some(3));
    drop(member.commit_async());

    let long = CommittedOffset::new(1).metadata("x".repeat(5_000));
    let told = apart.commit_offsets([(partition, long)]).await.expect_err("more than 4,096 B").to_string();
    assert!(
        told.contains("OFFSET_METADATA_TOO_LARGE") && told.contains("offset.metadata.max.bytes"),
        "{told}"
    );
    Ok(())
}

pub(crate) async fn a_committed_leader_epoch_tells_that_the_log_was_truncated(backend: &Backend) -> Outcome {
    let topic = backend.topic("parted", 1).await?;
    let group = backend.fresh_topic("group");
    write(backend, &topic, 1, 10).await?;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let first: Consumer = builder(backend, &group)?.enable_auto_commit(false).build()?;
    first.assign([(partition.clone(), StartOffset::Beginning)]);
    let epoch = next(&first, 10).await?[9].leader_epoch;
    // As if it had read 40 records more, which no replica has kept.
    first.commit_offsets([(partition.clone(), CommittedOffset::new(50).leader_epoch(epoch))]).await?;

    let start = || [(partition.clone(), StartOffset::Committed)];
    first.assign(start());
    let mut at = first.position(&partition).await?;
    while at != 10 {
        assert_eq!(at, 50, "it goes on where the logs part, not at the beginning");
        let _ = first.poll(1, Duration::from_millis(20)).await?;
        at = first.position(&partition).await?;
    }
    write(backend, &topic, 1, 1).await?;
    assert_eq!(first.recv().await?.offset, 10);

    let strict: Consumer = builder(backend, &group)?.auto_offset_reset(OffsetReset::None).build()?;
    strict.assign(start());
    let told = strict.recv().await;
    let expected = matches!(&told, Err(ConsumerError::Truncated { offset: 50, diverges: Some(11), .. }));
    assert!(expected, "{told:?}");
    Ok(())
}
