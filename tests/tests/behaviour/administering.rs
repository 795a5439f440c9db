//! Topics come, are described, and go; the cluster describes itself.

use std::time::Duration;

use klamm::{ErrorCode, NewTopic};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;
use tokio::time::Instant;

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
