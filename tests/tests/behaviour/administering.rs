//! Topics come, are described, and go; records are looked for and deleted; the cluster describes itself.

use std::time::Duration;

use klamm::{ErrorCode, FeatureUpdate, Isolation, NewTopic, OffsetSpec, RecordsBefore, TopicPartition};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;
use tokio::time::{Instant, sleep};

use crate::tools::{read, write_numbers};

/// Pause between two looks: in virtual time nothing else would let time pass.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) async fn a_topic_is_created_described_and_deleted(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let name = backend.fresh_topic("short-lived");
    let topic = NewTopic::new(&name).partitions(3).replicas(1).config("retention.ms", "60000");
    let created = admin.create_topics([topic]).await?.all()?.remove(0);
    assert_eq!((created.name.as_str(), created.partitions, created.replicas), (&*name, Some(3), Some(1)));

    // A broker may hear of a topic later than whoever created it.
    let begun = Instant::now();
    let described = loop {
        match admin.describe_topics([&name]).await?.all() {
            Ok(mut told) if told[0].partitions.iter().all(|p| p.leader.is_some()) => break told.remove(0),
            other => assert!(begun.elapsed() < Duration::from_secs(30), "{other:?}"),
        }
        sleep(LOOK).await;
    };
    assert_eq!((described.id, described.partitions.len()), (created.id, 3));
    assert!(described.partitions.iter().all(|p| p.isr.len() == 1 && p.leader_epoch >= 0));

    let missing = backend.fresh_topic("missing");
    let results = admin.delete_topics([&name, &missing]).await?;
    assert!(results.of(&name).is_some_and(Result::is_ok));
    let refused = results.of(&missing).and_then(|result| result.as_ref().err());
    assert_eq!(refused.map(|error| error.code), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    Ok(())
}

pub(crate) async fn the_cluster_describes_itself(backend: &Backend) -> Outcome {
    let cluster = backend.client()?.admin().describe_cluster().await?;
    assert!(!cluster.cluster_id.is_empty());
    let controller = cluster.controller.ok_or("there is a controller")?;
    assert!(cluster.brokers.iter().any(|broker| broker.id == controller), "{cluster:?}");
    Ok(())
}

pub(crate) async fn what_is_only_validated_is_not_done(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let name = backend.fresh_topic("imagined");
    let topic = NewTopic::new(&name).partitions(2).replicas(1).config("retention.ms", "60000");
    let validated = admin.validate().create_topics([topic]).await?.all()?.remove(0);
    assert_eq!((validated.partitions, validated.replicas), (Some(2), Some(1)));
    let wrong = NewTopic::new(&name).partitions(2).replicas(1).config("retention.ms", "one week");
    let refused = admin.validate().create_topics([wrong]).await?.all();
    assert_eq!(refused.map_err(|error| error.code), Err(ErrorCode::INVALID_CONFIG));
    let refused = admin.describe_topics([&name]).await?.all();
    assert_eq!(refused.map_err(|error| error.code), Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    Ok(())
}

pub(crate) async fn topics_are_placed_by_hand_listed_and_described_by_id(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let name = backend.fresh_topic("by-hand");
    let created =
        admin.create_topics([NewTopic::new(&name).place(0, [2, 3]).place(1, [3, 1])]).await?.all()?;
    let replicas = backend.until_described(&name, |told| {
        let partitions = &told.ok()?.partitions;
        Some(partitions.iter().map(|p| p.replicas.clone()).collect::<Vec<_>>()).filter(|all| all.len() == 2)
    });
    assert_eq!(replicas.await?, [vec![2, 3], vec![3, 1]]);
    let id = created[0].id;
    // Each of these may be another broker, one that has not heard of the topic yet.
    let begun = Instant::now();
    loop {
        let listed = admin.list_topics().await?.into_iter().find(|topic| topic.name == name);
        let described = admin.describe_topics_by_id([id]).await?.all();
        match (listed, described) {
            (Some(listed), Ok(described)) => {
                assert_eq!((listed.id, listed.internal, described[0].name.as_str()), (id, false, &*name));
                break;
            }
            other => assert!(begun.elapsed() < Duration::from_secs(30), "{other:?}"),
        }
        sleep(LOOK).await;
    }
    Ok(())
}

pub(crate) async fn a_topic_deleted_by_its_id_spares_the_next_one_of_that_name(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let name = backend.fresh_topic("reborn");
    let topic = || NewTopic::new(&name).partitions(1).replicas(3);
    let first = admin.create_topics([topic()]).await?.all()?.remove(0).id;
    admin.delete_topics_by_id([first]).await?.all()?;
    let second = admin.create_topics([topic()]).await?.all()?.remove(0).id;
    let refused = admin.delete_topics_by_id([first]).await?.all();
    assert_eq!(refused.map_err(|error| error.code), Err(ErrorCode::UNKNOWN_TOPIC_ID));
    let found = |told: Result<&klamm::TopicDescription, _>| told.ok().map(|topic| topic.id);
    assert_eq!(backend.until_described(&name, |told| found(told).filter(|id| *id == second)).await?, second);
    Ok(())
}

pub(crate) async fn offsets_are_listed_and_records_deleted(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let name = backend.topic("trimmed", 2).await?;
    write_numbers(backend, &name, 20).await?; // timestamps 1000, 1010, …
    let list = async |partition, spec| -> Result<_, Box<dyn std::error::Error + Send + Sync>> {
        let listed =
            admin.list_offsets([((name.as_str(), partition), spec)], Isolation::ReadUncommitted).await?;
        Ok(listed.all()?.remove(0))
    };
    assert_eq!(list(0, OffsetSpec::Earliest).await?.offset, Some(0));
    assert_eq!(list(0, OffsetSpec::Latest).await?.offset, Some(20));
    assert_eq!(list(1, OffsetSpec::Latest).await?.offset, Some(0));
    let at = list(0, OffsetSpec::Timestamp(1_055)).await?;
    assert_eq!((at.offset, at.timestamp), (Some(6), Some(1_060)));
    assert!(at.leader_epoch.is_some(), "{at:?}");
    assert_eq!(list(0, OffsetSpec::Timestamp(5_000)).await?.offset, None);
    let newest = list(0, OffsetSpec::MaxTimestamp).await?;
    assert_eq!((newest.offset, newest.timestamp), (Some(19), Some(1_190)));
    assert_eq!(list(1, OffsetSpec::MaxTimestamp).await?.offset, None);

    let wanted =
        [((name.as_str(), 0), RecordsBefore::Offset(7)), ((&*name, 1), RecordsBefore::HighWatermark)];
    let results = admin.delete_records(wanted).await?.all()?;
    assert_eq!(results, [7, 0]);
    assert_eq!(list(0, OffsetSpec::Earliest).await?.offset, Some(7));
    let kept = read(backend, &name, 1, 13).await?;
    assert_eq!(kept.iter().map(|record| record.offset).collect::<Vec<_>>(), (7..20).collect::<Vec<_>>());

    let wanted = [((name.as_str(), 0), RecordsBefore::Offset(21)), ((&*name, 9), RecordsBefore::Offset(0))];
    let refused = admin.delete_records(wanted).await?;
    let code = |partition| {
        refused.of(&(&*name, partition).into()).and_then(|told| told.as_ref().err()).map(|e| e.code)
    };
    assert_eq!(code(0), Some(ErrorCode::OFFSET_OUT_OF_RANGE));
    assert_eq!(code(9), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    Ok(())
}

pub(crate) async fn brokers_tell_of_their_disks_and_of_who_produces(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let name = backend.topic("weighed", 1).await?;
    write_numbers(backend, &name, 20).await?;
    backend.until_in_sync(&name, 0, 3).await?;
    let partition = TopicPartition::new(name.as_str(), 0);
    for (broker, dirs) in admin.describe_log_dirs([1, 2, 3]).await? {
        let dirs = dirs?;
        let replicas: Vec<_> = dirs.iter().flat_map(|dir| &dir.replicas).collect();
        let ours = replicas.iter().filter(|replica| replica.partition == partition).collect::<Vec<_>>();
        assert!(ours.len() == 1 && ours[0].size_bytes > 0 && !ours[0].future, "broker {broker}: {ours:?}");
        assert!(dirs.iter().all(|dir| dir.error.is_none() && !dir.path.is_empty()), "{dirs:?}");
    }
    let producers = admin.describe_producers([partition]).await?.all()?.remove(0);
    assert_eq!(producers.len(), 1, "{producers:?}");
    assert_eq!((producers[0].last_sequence, producers[0].transaction_start), (Some(19), None));
    let nobody = admin.describe_log_dirs([77]).await;
    assert!(nobody.is_err(), "{nobody:?}");
    Ok(())
}

pub(crate) async fn the_quorum_and_the_features_describe_themselves(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let quorum = admin.describe_quorum().await?;
    assert!(quorum.voters.iter().any(|voter| voter.id == quorum.leader), "{quorum:?}");
    assert!(quorum.leader_epoch > 0 && quorum.high_watermark > 0, "{quorum:?}");
    let ends = quorum.voters.iter().chain(&quorum.observers).map(|replica| replica.log_end_offset);
    assert!(ends.into_iter().all(|end| end >= 0), "{quorum:?}");

    let features = admin.describe_features().await?;
    let name = "metadata.version";
    let (Some(supported), Some(finalized)) = (features.supported.get(name), features.finalized.get(name))
    else {
        return Err(format!("{features:?}").into());
    };
    assert!((supported.min..=supported.max).contains(&finalized.level), "{features:?}");
    let too_high = FeatureUpdate::upgrade(name, supported.max + 1);
    let refused = admin.validate().update_features([too_high]).await;
    let refused = refused.err().ok_or("a level that nobody supports is refused")?;
    assert_eq!(refused.recovery(), klamm::Recovery::Fix, "{refused}");
    assert_eq!(admin.describe_features().await?.finalized, features.finalized);
    Ok(())
}

pub(crate) async fn a_broker_that_is_gone_is_unregistered_and_comes_back_when_it_starts(
    backend: &Backend,
) -> Outcome {
    let admin = backend.impatient_client()?.admin();
    let refused = admin.unregister_broker(77).await.err().ok_or("there is no broker 77")?;
    assert!(refused.to_string().contains("BROKER_ID_NOT_REGISTERED"), "{refused}");
    let topic = backend.topic("missing-one", 1).await?;
    let victim = backend.follower_of(&topic, 0).await?;
    let fenced = async || -> Result<Option<bool>, klamm::AdminError> {
        let brokers = admin.describe_cluster_with_fenced().await?.brokers;
        Ok(brokers.iter().find(|broker| broker.id == victim).map(|broker| broker.fenced))
    };
    assert_eq!(fenced().await?, Some(false));
    backend.kill(victim).await?;
    let begun = Instant::now();
    while fenced().await? != Some(true) {
        assert!(begun.elapsed() < Duration::from_secs(60), "broker {victim} is not fenced");
        sleep(LOOK).await;
    }
    admin.unregister_broker(victim).await?;
    while fenced().await?.is_some() {
        assert!(begun.elapsed() < Duration::from_secs(60), "broker {victim} is still registered");
        sleep(LOOK).await;
    }
    backend.mend().await?;
    while fenced().await? != Some(false) {
        assert!(begun.elapsed() < Duration::from_secs(90), "broker {victim} has not come back");
        sleep(LOOK).await;
    }
    Ok(())
}
