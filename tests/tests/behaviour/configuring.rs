//! Settings change while everything runs, and tell where they come from.

use std::time::Duration;

use klamm::{
    Admin, ConfigEntry, ConfigKind, ConfigResource, ConfigSource, ConfigUpdate, DescribeConfigs, ErrorCode,
};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;
use tokio::time::{Instant, sleep};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Waits until one setting is as wanted: the broker that is asked may hear of a change later than the controller.
async fn until(
    admin: &Admin,
    resource: &ConfigResource,
    name: &str,
    wanted: impl Fn(&ConfigEntry) -> bool,
) -> Result<ConfigEntry, Error> {
    let begun = Instant::now();
    loop {
        let question = DescribeConfigs::of([resource.clone()]).keys([name]).synonyms();
        let told = match admin.describe_configs(question).await?.all() {
            Ok(told) => told.concat(),
            // Nor may it have heard of the topic yet.
            Err(error) if error.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        match told.into_iter().find(|entry| entry.name == name) {
            Some(entry) if wanted(&entry) => return Ok(entry),
            other if begun.elapsed() > Duration::from_secs(30) => {
                return Err(format!("{name}: {other:?}").into());
            }
            _ => sleep(Duration::from_millis(20)).await,
        }
    }
}

pub(crate) async fn settings_change_and_tell_where_they_come_from(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let name = backend.topic("configured", 1).await?;
    let topic = ConfigResource::topic(&name);
    let before = until(&admin, &topic, "max.message.bytes", |_| true).await?;
    assert_eq!((before.source, before.kind), (ConfigSource::Default, ConfigKind::Int), "{before:?}");
    assert!(!before.read_only && !before.sensitive, "{before:?}");

    let update =
        ConfigUpdate::topic(&name).set("max.message.bytes", "2000000").set("retention.ms", "3600000");
    admin.alter_configs([update]).await?.all()?;
    let set = |entry: &ConfigEntry| entry.value.as_deref() == Some("2000000");
    let entry = until(&admin, &topic, "max.message.bytes", set).await?;
    assert_eq!(entry.source, ConfigSource::Topic, "{entry:?}");
    let synonyms: Vec<_> = entry.synonyms.iter().map(|s| (s.name.as_str(), s.source)).collect();
    assert_eq!(synonyms.first(), Some(&("max.message.bytes", ConfigSource::Topic)), "{entry:?}");
    assert_eq!(synonyms.last(), Some(&("message.max.bytes", ConfigSource::Default)), "{entry:?}");

    admin.alter_configs([ConfigUpdate::topic(&name).reset("max.message.bytes")]).await?.all()?;
    let entry = until(&admin, &topic, "max.message.bytes", |entry| !set(entry)).await?;
    assert_eq!((entry.value, entry.source), (before.value, ConfigSource::Default));
    let kept = until(&admin, &topic, "retention.ms", |_| true).await?;
    assert_eq!(kept.value.as_deref(), Some("3600000"), "what is not named stays");
    Ok(())
}

pub(crate) async fn a_wrong_value_is_refused_and_its_resource_stays_as_it_was(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let (wrong, right) =
        (backend.topic("misconfigured", 1).await?, backend.topic("configured-well", 1).await?);
    let updates = [
        ConfigUpdate::topic(&wrong).set("retention.ms", "1000").set("max.message.bytes", "plenty"),
        ConfigUpdate::topic(&right).set("retention.ms", "1000"),
        ConfigUpdate::topic(backend.fresh_topic("unconfigured")).set("retention.ms", "1000"),
    ];
    let results: Vec<_> = admin.alter_configs(updates).await?.into_iter().map(|(_, result)| result).collect();
    let codes: Vec<_> = results.iter().map(|result| result.as_ref().map_err(|error| error.code)).collect();
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(codes, [Err(ErrorCode::INVALID_CONFIG), Ok(&()), Err(unknown)], "{results:?}");
    let set = |entry: &ConfigEntry| entry.value.as_deref() == Some("1000");
    until(&admin, &ConfigResource::topic(&right), "retention.ms", set).await?;
    let entry = until(&admin, &ConfigResource::topic(&wrong), "retention.ms", |_| true).await?;
    assert!(!set(&entry), "{entry:?}");

    // Validated is not done.
    let update = || ConfigUpdate::topic(&wrong).set("retention.ms", "1000");
    admin.validate().alter_configs([update()]).await?.all()?;
    let entry = until(&admin, &ConfigResource::topic(&wrong), "retention.ms", |_| true).await?;
    assert!(!set(&entry), "{entry:?}");
    Ok(())
}

pub(crate) async fn lists_grow_and_shrink(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let name = backend.topic("listed", 1).await?;
    let topic = ConfigResource::topic(&name);
    let is = |value: &'static str| move |entry: &ConfigEntry| entry.value.as_deref() == Some(value);
    for _ in 0..2 {
        // Twice is as once.
        let append = ConfigUpdate::topic(&name).append("cleanup.policy", "compact");
        admin.alter_configs([append]).await?.all()?;
        until(&admin, &topic, "cleanup.policy", is("delete,compact")).await?;
    }
    admin.alter_configs([ConfigUpdate::topic(&name).subtract("cleanup.policy", "delete")]).await?.all()?;
    let entry = until(&admin, &topic, "cleanup.policy", is("compact")).await?;
    assert_eq!(entry.kind, ConfigKind::List);
    Ok(())
}

pub(crate) async fn settings_of_all_brokers_give_way_to_those_of_one(backend: &Backend) -> Outcome {
    let admin = backend.client()?.admin();
    let (all, one) = (ConfigResource::ClusterDefault, ConfigResource::Broker(2));
    let name = "message.max.bytes";
    let before = until(&admin, &one, name, |_| true).await?;
    let is = |value: &'static str, source| {
        move |entry: &ConfigEntry| entry.value.as_deref() == Some(value) && entry.source == source
    };
    admin.alter_configs([ConfigUpdate::of(all.clone()).set(name, "1500000")]).await?.all()?;
    until(&admin, &one, name, is("1500000", ConfigSource::ClusterDefault)).await?;
    until(&admin, &all, name, is("1500000", ConfigSource::ClusterDefault)).await?;
    admin.alter_configs([ConfigUpdate::broker(2).set(name, "1600000")]).await?.all()?;
    let entry = until(&admin, &one, name, is("1600000", ConfigSource::Broker)).await?;
    let sources: Vec<_> = entry.synonyms.iter().map(|synonym| synonym.source).collect();
    assert_eq!(sources[..2], [ConfigSource::Broker, ConfigSource::ClusterDefault], "{entry:?}");
    until(&admin, &ConfigResource::Broker(3), name, is("1500000", ConfigSource::ClusterDefault)).await?;

    let refused = admin.alter_configs([ConfigUpdate::broker(2).set("node.id", "9")]).await?.all();
    assert!(refused.is_err(), "what is read-only cannot be changed");
    // As it was, for whoever comes next.
    let updates = [ConfigUpdate::broker(2).reset(name), ConfigUpdate::of(all).reset(name)];
    admin.alter_configs(updates).await?.all()?;
    // Kafka takes the source from its metadata, and the value from what runs, which follows a moment later.
    let as_before = |entry: &ConfigEntry| (entry.source, &entry.value) == (before.source, &before.value);
    until(&admin, &one, name, as_before).await?;
    Ok(())
}
