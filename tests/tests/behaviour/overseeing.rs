//! What administrators see of groups, and what they do to them.

use std::time::Duration;

use klamm::{
    AdminError, Client, Consumer, ConsumerBuilder, ErrorCode, GroupListing, GroupOffset, GroupState,
    GroupType, Isolation, ListGroups, MembersToRemove, OffsetReset, OffsetsOfGroup, TopicPartition,
};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;
use tokio::time::Instant;

use crate::tools::{SOON, next, number, write_numbers};

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn builder(backend: &Backend, group: &str) -> Result<ConsumerBuilder, Failed> {
    let builder = Consumer::builder().client(&backend.client()?).group_id(group).enable_auto_commit(false);
    Ok(builder.auto_offset_reset(OffsetReset::Earliest))
}

/// A member that has read `count` records of the topic and committed that.
async fn member(builder: ConsumerBuilder, topic: &str, count: usize) -> Result<Consumer, Failed> {
    let consumer: Consumer = builder.build()?;
    consumer.subscribe([topic]);
    if count > 0 {
        next(&consumer, count).await?;
        consumer.commit().await?;
    }
    Ok(consumer)
}

/// Waits until a group is described as wanted.
async fn until_described(
    client: &Client,
    group: &str,
    wanted: impl Fn(Result<&klamm::GroupDescription, ErrorCode>) -> bool,
) -> Outcome {
    let begun = Instant::now();
    loop {
        let described = client.admin().describe_groups([group]).await?.all();
        if wanted(described.as_ref().map(|all| &all[0]).map_err(|error| error.code)) {
            return Ok(());
        }
        if begun.elapsed() > 3 * SOON {
            return Err(format!("not as wanted: {described:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn offset(client: &Client, group: &str, partition: &TopicPartition) -> Result<Option<i64>, Failed> {
    let asked = OffsetsOfGroup::of(group, [partition.clone()]);
    let told = client.admin().list_group_offsets([asked]).await?.all()?.remove(0).all()?;
    Ok(told[0].as_ref().map(|committed| committed.offset))
}

pub(crate) async fn groups_are_listed_described_and_deleted(backend: &Backend) -> Outcome {
    let client = backend.client()?;
    let admin = client.admin();
    let (topic, group) = (backend.topic("overseen", 2).await?, backend.fresh_topic("group"));
    let (idle, nobody) = (backend.fresh_topic("group"), backend.fresh_topic("group"));
    write_numbers(backend, &topic, 10).await?;
    let consumer = member(builder(backend, &group)?.group_instance_id("one"), &topic, 10).await?;
    let partition = TopicPartition::new(topic.as_str(), 0);
    admin.alter_group_offsets(&idle, [(partition.clone(), 4)]).await?.all()?;

    let listed = async |which| -> Result<Vec<GroupListing>, Failed> {
        let ours = [&group, &idle];
        let listed = admin.list_groups(which).await?.all()?;
        let mut listed: Vec<_> = listed.into_iter().filter(|listed| ours.contains(&&listed.id)).collect();
        listed.sort_by_key(|listed| listed.id != group); // they come by name, and 10 is before 9 there
        Ok(listed)
    };
    until_described(&client, &group, |told| told.is_ok_and(|told| told.state == GroupState::Stable)).await?;
    let all = listed(ListGroups::all()).await?;
    let told: Vec<_> = all.iter().map(|told| (told.id.as_str(), told.state.clone())).collect();
    let (stable, empty) = (Some(GroupState::Stable), Some(GroupState::Empty));
    assert_eq!(told, [(group.as_str(), stable), (idle.as_str(), empty)]);
    assert!(all.iter().all(|told| told.group_type == Some(GroupType::Classic)), "{all:?}");
    let filtered = listed(ListGroups::all().in_state(GroupState::Stable)).await?;
    assert_eq!(filtered, all[..1]);
    assert_eq!(listed(ListGroups::all().in_state(GroupState::Dead)).await?, []);
    assert_eq!(listed(ListGroups::all().of_type(GroupType::Consumer)).await?, []);

    let mut described = admin.describe_groups([&idle, &nobody, &group, &idle]).await?.into_iter();
    let mut next_described = || described.next().map(|(_, told)| told).ok_or("one result each");
    let empty = next_described()??;
    assert_eq!((empty.state, empty.members.len()), (GroupState::Empty, 0));
    let error = next_described()?.err().ok_or("there is no such group")?;
    assert_eq!((error.code, error.group.as_str()), (ErrorCode::GROUP_ID_NOT_FOUND, nobody.as_str()));
    let stable = next_described()??;
    assert_eq!((stable.assignor.as_str(), stable.protocol_type.as_str()), ("range", "consumer"));
    assert!((1..=3).contains(&stable.coordinator), "{stable:?}");
    let [member] = &stable.members[..] else { return Err(format!("{stable:?}").into()) };
    assert_eq!((member.instance_id.as_deref(), member.client_id.as_str()), (Some("one"), "behaviour"));
    assert_eq!(member.topics, std::slice::from_ref(&topic));
    let both: Vec<_> = (0..2).map(|index| TopicPartition::new(topic.as_str(), index)).collect();
    assert_eq!(member.assignment.as_deref(), Some(&both[..]));

    let refused = admin.delete_groups([&group, &nobody]).await?;
    let code = |name: &String| refused.of(name).and_then(|told| told.as_ref().err()).map(|e| e.code);
    assert_eq!(code(&group), Some(ErrorCode::NON_EMPTY_GROUP));
    assert_eq!(code(&nobody), Some(ErrorCode::GROUP_ID_NOT_FOUND));
    consumer.close().await?;
    admin.remove_members(&group, MembersToRemove::instances(["one"])).await?.all()?;
    until_described(&client, &group, |told| told.is_ok_and(|told| told.state == GroupState::Empty)).await?;
    admin.delete_groups([&group, &idle]).await?.all()?;
    until_described(&client, &group, |told| told == Err(ErrorCode::GROUP_ID_NOT_FOUND)).await?;
    assert_eq!(offset(&client, &group, &partition).await?, None, "its offsets are gone");
    Ok(())
}

pub(crate) async fn offsets_of_groups_are_listed_altered_and_deleted(backend: &Backend) -> Outcome {
    let client = backend.client()?;
    let admin = client.admin();
    let (topic, group) = (backend.topic("reset", 1).await?, backend.fresh_topic("group"));
    let other = backend.fresh_topic("group");
    write_numbers(backend, &topic, 20).await?;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let consumer = member(builder(backend, &group)?, &topic, 10).await?;
    admin
        .alter_group_offsets(&other, [(partition.clone(), GroupOffset::at(3).metadata("by hand"))])
        .await?
        .all()?;

    let both = admin.list_group_offsets([&group, &other]).await?.all()?;
    let told = |place: usize| both[place].of(&partition).cloned().transpose();
    assert_eq!(told(0)?.flatten().map(|committed| committed.offset), Some(10));
    let by_hand = told(1)?.flatten().ok_or("it has committed")?;
    assert_eq!((by_hand.offset, by_hand.metadata.as_str()), (3, "by hand"));
    let nobody = admin.list_group_offsets([backend.fresh_topic("group")]).await?.all()?;
    assert!(nobody[0].is_empty(), "{nobody:?}");

    let error = admin.alter_group_offsets(&group, [(partition.clone(), 5)]).await.map(drop);
    let Err(AdminError::GroupActive { group: named, members, .. }) = &error else {
        return Err(format!("{error:?}").into());
    };
    assert_eq!((named, members.len(), members[0].0.as_str()), (&group, 1, "behaviour"));
    let refused = admin.delete_group_offsets(&group, [partition.clone()]).await?.all();
    assert_eq!(refused.map_err(|error| error.code), Err(ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC));
    assert_eq!(offset(&client, &group, &partition).await?, Some(10));
    consumer.close().await?;
    until_described(&client, &group, |told| told.is_ok_and(|told| told.members.is_empty())).await?;

    let missing = TopicPartition::new(topic.as_str(), 7);
    let altered = admin.alter_group_offsets(&group, [(missing.clone(), 1), (partition.clone(), 5)]).await?;
    let refused = altered.of(&missing).and_then(|told| told.as_ref().err()).map(|error| error.code);
    assert_eq!(refused, Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert!(altered.of(&partition).is_some_and(Result::is_ok), "{altered:?}");
    let consumer = member(builder(backend, &group)?, &topic, 0).await?;
    assert_eq!(number(&next(&consumer, 1).await?[0])?, 5, "members go on where they were put");
    consumer.close().await?;
    until_described(&client, &group, |told| told.is_ok_and(|told| told.members.is_empty())).await?;

    admin.delete_group_offsets(&group, [partition.clone()]).await?.all()?;
    assert_eq!(offset(&client, &group, &partition).await?, None);
    let error = admin.delete_group_offsets(backend.fresh_topic("group"), [partition.clone()]).await;
    let error = error.err().ok_or("there is no such group")?;
    assert!(matches!(error, AdminError::Refused { code: ErrorCode::GROUP_ID_NOT_FOUND, .. }), "{error}");

    // Offsets of a topic that is gone.
    admin.delete_topics([&topic]).await?.all()?;
    let begun = Instant::now();
    loop {
        let altered = admin.alter_group_offsets(&other, [(partition.clone(), 1)]).await?.all();
        if altered.as_ref().is_err_and(|e| e.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) {
            break;
        }
        assert!(begun.elapsed() < 3 * SOON, "{altered:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lag = admin.group_lag([&other], Isolation::ReadUncommitted).await?.all()?.remove(0);
    // The coordinator may have forgotten them with the topic.
    let ends: Vec<_> = lag.partitions.iter().map(|lag| lag.end.as_ref().err().map(|e| e.code)).collect();
    assert!(ends.iter().all(|code| *code == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)), "{lag:?}");
    assert_eq!(lag.total(), 0);
    Ok(())
}

pub(crate) async fn lag_is_what_is_left_between_commit_and_end(backend: &Backend) -> Outcome {
    let client = backend.client()?;
    let admin = client.admin();
    let (topic, group) = (backend.topic("lagging", 2).await?, backend.fresh_topic("group"));
    write_numbers(backend, &topic, 20).await?; // into partition 0
    let consumer = member(builder(backend, &group)?.enable_auto_commit(true), &topic, 12).await?;
    // Only what has a position is committed.
    consumer.position(&TopicPartition::new(topic.as_str(), 1)).await?;
    consumer.commit().await?;
    until_described(&client, &group, |told| told.is_ok_and(|told| told.state == GroupState::Stable)).await?;
    let lag = admin.group_lag([&group], Isolation::ReadCommitted).await?.all()?.remove(0);
    let told: Vec<_> =
        lag.partitions.iter().map(|lag| (lag.partition.partition, lag.lag(), lag.member)).collect();
    assert_eq!(told, [(0, Some(8), Some(0)), (1, Some(0), Some(0))], "{lag:?}");
    assert_eq!(lag.total(), 8);
    write_numbers(backend, &topic, 5).await?;
    assert_eq!(admin.group_lag([&group], Isolation::ReadUncommitted).await?.all()?[0].total(), 13);
    consumer.close().await?;
    until_described(&client, &group, |told| told.is_ok_and(|told| told.members.is_empty())).await?;
    let lag = admin.group_lag([&group], Isolation::ReadUncommitted).await?.all()?.remove(0);
    assert!(lag.partitions.iter().all(|lag| lag.member.is_none()), "{lag:?}");
    assert_eq!(lag.total(), 13);
    let nobody = backend.fresh_topic("group");
    let error = admin.group_lag([&nobody], Isolation::ReadUncommitted).await?.all().map(drop);
    assert_eq!(error.map_err(|error| error.code), Err(ErrorCode::GROUP_ID_NOT_FOUND));
    Ok(())
}

pub(crate) async fn members_are_removed_by_name_or_all_together(backend: &Backend) -> Outcome {
    let client = backend.client()?;
    let admin = client.admin();
    let (topic, group) = (backend.topic("emptied", 2).await?, backend.fresh_topic("group"));
    write_numbers(backend, &topic, 1).await?;
    let mut consumers = Vec::new();
    for name in ["left", "right"] {
        let consumer: Consumer = builder(backend, &group)?.group_instance_id(name).build()?;
        consumer.subscribe([topic.as_str()]);
        consumers.push(consumer);
    }
    let both = |told: &klamm::GroupDescription| told.state == GroupState::Stable && told.members.len() == 2;
    until_described(&client, &group, |told| told.is_ok_and(both)).await?;
    for consumer in consumers {
        // Static members stay behind.
        consumer.close().await?;
    }
    let removed = admin.remove_members(&group, MembersToRemove::instances(["left", "middle"])).await?;
    assert!(removed.of("left").is_some_and(Result::is_ok), "{removed:?}");
    let unknown = removed.of("middle").and_then(|told| told.as_ref().err()).map(|error| error.code);
    assert_eq!(unknown, Some(ErrorCode::UNKNOWN_MEMBER_ID));
    until_described(&client, &group, |told| told.is_ok_and(|told| told.members.len() == 1)).await?;
    admin.remove_members(&group, MembersToRemove::all().because("over")).await?.all()?;
    until_described(&client, &group, |told| told.is_ok_and(|told| told.members.is_empty())).await?;
    assert!(admin.remove_members(&group, MembersToRemove::all()).await?.is_empty());
    let error = admin.remove_members(backend.fresh_topic("group"), MembersToRemove::all()).await;
    assert!(error.is_err(), "{error:?}");
    Ok(())
}
