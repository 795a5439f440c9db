//! What a subscription by pattern promises.

use std::collections::BTreeSet;
use std::io::Error;
use std::time::Duration;

use klamm::{AssignmentStrategy, Consumer, ConsumerBuilder, OffsetReset};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;

use crate::changing::delete;
use crate::members::{Notes, until, write};
use crate::tools::next;

/// A member whose metadata are never old.
fn builder(backend: &Backend, group: &str) -> Result<ConsumerBuilder, Error> {
    let age = Duration::from_millis(300);
    let client = backend.client_builder().metadata_max_age_ms(age).build().map_err(Error::other)?;
    let builder = Consumer::builder().client(&client).group_id(group);
    let builder = builder.heartbeat_interval_ms(Duration::from_millis(300));
    Ok(builder.auto_offset_reset(OffsetReset::Earliest))
}

fn topics(consumer: &Consumer) -> BTreeSet<String> {
    consumer.assignment().into_iter().map(|name| name.topic.to_string()).collect()
}

/// Reads on until these topics are assigned, and no others.
async fn until_reading(consumer: &Consumer, wanted: &[&str]) -> Outcome {
    let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    while topics(consumer) != wanted {
        let _ = consumer.poll(100, Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn topics_come_and_go(backend: &Backend, strategy: AssignmentStrategy, stem: &str) -> Outcome {
    let group = backend.fresh_topic("group");
    let builder = builder(backend, &group)?.partition_assignment_strategy([strategy]);
    let consumer: Consumer = builder.auto_commit_interval_ms(Duration::from_millis(100)).build()?;
    let notes = Notes::default();
    consumer.subscribe_pattern_with(&format!("{stem}-[0-9]+"), notes.clone())?;
    assert!(consumer.poll(1, Duration::from_millis(700)).await?.is_empty(), "nothing matches yet");

    let first = backend.topic(stem, 2).await?;
    // Not the whole of its name matches.
    let longer = backend.topic(&format!("more-{stem}"), 1).await?;
    write(backend, &longer, 1, 1).await?;
    write(backend, &first, 2, 5).await?;
    assert!(next(&consumer, 10).await?.iter().all(|record| *record.topic == *first));
    // Who asks for more is done with them: they do not come again when the next topic is joined in.
    assert!(consumer.poll(1, Duration::ZERO).await?.is_empty());
    let second = backend.topic(stem, 1).await?;
    write(backend, &second, 1, 5).await?;
    assert!(next(&consumer, 5).await?.iter().all(|record| *record.topic == *second));
    until_reading(&consumer, &[&first, &second]).await?;

    drop(notes.taken());
    delete(backend, &first).await?;
    let begun = tokio::time::Instant::now();
    until_reading(&consumer, &[&second]).await?;
    // The commit of what is gone must not hold up the others for as long as a call may take, which is a minute.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    until("the listener hears why", || notes.taken().iter().any(|told| told.contains("TopicsChanged")))
        .await?;
    write(backend, &second, 1, 5).await?;
    let records = next(&consumer, 5).await?;
    assert!(
        records.iter().map(|record| record.offset).eq(5..10),
        "what was read is not read again: {records:?}"
    );
    consumer.close().await?;
    Ok(())
}

pub(crate) async fn topics_that_match_are_read_as_they_come_and_given_up_as_they_go(
    backend: &Backend,
) -> Outcome {
    topics_come_and_go(backend, AssignmentStrategy::Range, "matched").await
}

pub(crate) async fn cooperatively_topics_that_match_come_and_go_as_well(backend: &Backend) -> Outcome {
    topics_come_and_go(backend, AssignmentStrategy::CooperativeSticky, "cooperating").await
}

pub(crate) async fn members_by_pattern_and_by_name_share_a_group(backend: &Backend) -> Outcome {
    let (one, two) = (backend.topic("either", 2).await?, backend.topic("either", 2).await?);
    let group = backend.fresh_topic("group");
    let by_pattern: Consumer = builder(backend, &group)?.build()?;
    by_pattern.subscribe_pattern(&format!("{one}|{two}"))?;
    until_reading(&by_pattern, &[&one, &two]).await?;
    let by_name: Consumer = builder(backend, &group)?.build()?;
    by_name.subscribe([one.as_str()]);
    while by_pattern.assignment().len() != 3 || by_name.assignment().len() != 1 {
        let _ = by_pattern.poll(1, Duration::from_millis(20)).await?;
        let _ = by_name.poll(1, Duration::from_millis(20)).await?;
    }
    by_name.close().await?;

    // From a pattern to names and to another pattern.
    by_pattern.subscribe([two.as_str()]);
    until_reading(&by_pattern, &[&two]).await?;
    by_pattern.subscribe_pattern(&one)?;
    until_reading(&by_pattern, &[&one]).await?;
    by_pattern.unsubscribe().await;
    assert!(by_pattern.assignment().is_empty());
    by_pattern.close().await?;
    Ok(())
}

pub(crate) async fn kafkas_own_topics_match_only_if_that_is_asked_for(backend: &Backend) -> Outcome {
    let topic = backend.topic("beside", 1).await?;
    let group = backend.fresh_topic("group");
    let pattern = format!("{topic}|__consumer_offsets");
    let consumer: Consumer = builder(backend, &group)?.build()?;
    consumer.subscribe_pattern(&pattern)?;
    until_reading(&consumer, &[&topic]).await?;
    // Whoever is a member has made the brokers create it.
    let end = tokio::time::Instant::now() + Duration::from_secs(1);
    while tokio::time::Instant::now() < end {
        let _ = consumer.poll(1, Duration::from_millis(100)).await?;
        assert_eq!(topics(&consumer).len(), 1);
    }
    consumer.close().await?;
    let consumer: Consumer = builder(backend, &group)?.exclude_internal_topics(false).build()?;
    consumer.subscribe_pattern(&pattern)?;
    until_reading(&consumer, &[&topic, "__consumer_offsets"]).await?;
    consumer.close().await?;
    Ok(())
}

pub(crate) async fn a_pattern_that_is_none_is_refused_and_what_was_subscribed_to_is_read_on(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("kept", 1).await?;
    let group = backend.fresh_topic("group");
    let consumer: Consumer = builder(backend, &group)?.build()?;
    consumer.subscribe([topic.as_str()]);
    until_reading(&consumer, &[&topic]).await?;
    let refused = consumer.subscribe_pattern("kept-(").expect_err("no pattern").to_string();
    assert!(refused.contains("kept-(") && refused.contains("group"), "{refused}");
    write(backend, &topic, 1, 3).await?;
    assert_eq!(next(&consumer, 3).await?.len(), 3);
    consumer.close().await?;
    Ok(())
}
