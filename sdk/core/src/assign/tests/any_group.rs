//! What holds for any group.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::TopicPartition;
use crate::assign::*;

#[derive(Debug, Clone)]
struct Group {
    known: Topics,
    members: Vec<Member>,
}

fn group() -> impl Strategy<Value = Group> {
    let racks = prop::collection::btree_set("[uvw]", 0..3);
    let racks = racks.prop_map(|racks| racks.into_iter().map(Arc::from).collect::<BTreeSet<Arc<str>>>());
    let topics = prop::collection::btree_map("[a-e]", prop::collection::vec(racks, 0..9), 1..5);
    let claims = prop::collection::vec(("[a-f]", -1i32..12), 0..12);
    let member = (
        prop::collection::btree_set("[a-f]", 0..5),
        claims,
        prop::option::of(-1i32..4),
        prop::option::of("[uvwz]"),
        prop::option::of("[a-z]{3}"),
    );
    let members = prop::collection::btree_map("[a-z]{1,12}", member, 1..9);
    (topics, members).prop_map(|(topics, members)| {
        let mut known = Topics::default();
        for (topic, racks) in topics {
            known.insert_with_racks(topic, racks);
        }
        let members = members.into_iter().map(|(id, (topics, owned, generation, rack, instance))| Member {
            id: id.into(),
            instance: instance.map(Arc::from),
            subscription: Subscription {
                topics: topics.into_iter().map(Arc::from).collect(),
                user_data: None,
                owned: owned.into_iter().map(TopicPartition::from).collect(),
                generation,
                rack: rack.map(Arc::from),
            },
        });
        Group { known, members: members.collect() }
    })
}

fn each(topic: &Arc<str>, count: usize) -> impl Iterator<Item = TopicPartition> {
    (0..count as i32).map(move |partition| TopicPartition { topic: topic.clone(), partition })
}

/// Each partition's owner. Fails if there are two, or one that does not want it.
fn owners(
    group: &Group,
    given: &GroupAssignment,
) -> Result<BTreeMap<TopicPartition, Arc<str>>, TestCaseError> {
    let mut owners = BTreeMap::new();
    for member in &group.members {
        for partition in given.get(&member.id).into_iter().flat_map(|assignment| &assignment.partitions) {
            prop_assert!(member.subscription.topics.contains(&partition.topic), "{partition} is not wanted");
            prop_assert!(
                owners.insert(partition.clone(), member.id.clone()).is_none(),
                "{partition} has two owners"
            );
        }
    }
    Ok(owners)
}

fn expected(group: &Group) -> BTreeSet<TopicPartition> {
    let wanted: BTreeSet<_> = group.members.iter().flat_map(|member| &member.subscription.topics).collect();
    let topics = group.known.iter().filter(|(topic, _)| wanted.contains(topic));
    topics.flat_map(|(topic, racks)| each(topic, racks.len())).collect()
}

/// Goes from generation to generation until the assignment stays as it is, at most `at_most` generations.
fn settle(
    mut group: Group,
    mut held: BTreeMap<TopicPartition, Arc<str>>,
    at_most: i32,
) -> Result<(), TestCaseError> {
    let assignor = CooperativeStickyAssignor::default();
    for generation in 1..=at_most {
        let given = assignor.assign(&group.known, &group.members).expect("cannot fail");
        let now = owners(&group, &given)?;
        for (partition, owner) in &now {
            let holder = held.get(partition);
            prop_assert!(holder.is_none_or(|holder| holder == owner), "{partition} is still read by another");
        }
        for member in &mut group.members {
            member.subscription.owned = given[&member.id].partitions.clone();
            member.subscription.generation = Some(3 + generation);
        }
        if now.keys().eq(&expected(&group)) {
            // Kafka moves partitions that are far from their owner again in every later rebalance.
            let racks = group.members.iter().any(|member| member.subscription.rack.is_some());
            if at_most == 2 && !racks {
                let again = assignor.assign(&group.known, &group.members).expect("cannot fail");
                prop_assert_eq!(again, given);
            }
            return Ok(());
        }
        held = now;
    }
    Err(TestCaseError::fail(format!("not at rest after {at_most} generations")))
}

fn sizes(given: &GroupAssignment) -> Vec<usize> {
    given.values().map(|assignment| assignment.partitions.len()).collect()
}

proptest! {
    #[test]
    fn every_wanted_partition_has_one_owner_who_wants_it(group in group()) {
        let assignors: [&dyn Assignor; 3] = [&RangeAssignor, &RoundRobinAssignor, &StickyAssignor::default()];
        for assignor in assignors {
            let given = assignor.assign(&group.known, &group.members).expect("cannot fail");
            let owned: BTreeSet<_> = owners(&group, &given)?.into_keys().collect();
            prop_assert_eq!(owned, expected(&group), "{}", assignor.name());
        }
    }

    /// Goal: nobody reads what another still has, and the group comes to rest.
    #[test]
    fn a_cooperative_group_comes_to_rest(mut group in group()) {
        let mut held = BTreeMap::new();
        for member in &mut group.members {
            let own = &mut member.subscription.owned;
            own.sort();
            own.dedup();
            own.retain(|partition| !held.contains_key(partition));
            held.extend(own.iter().map(|partition| (partition.clone(), member.id.clone())));
            member.subscription.generation = Some(3);
        }
        settle(group, held, 6)?;
    }

    /// Goal: where subscriptions are equal, the second generation is the last one.
    #[test]
    fn a_cooperative_group_with_equal_subscriptions_rests_after_two_generations(mut group in group()) {
        let all: Vec<Arc<str>> = group.known.iter().map(|(topic, _)| topic.clone()).collect();
        for member in &mut group.members {
            member.subscription.topics = all.clone();
            member.subscription.owned.clear();
        }
        let before = &group.members[..group.members.len() / 2 + 1];
        let given = StickyAssignor::default().assign(&group.known, before).expect("cannot fail");
        let held = owners(&group, &given)?;
        for member in &mut group.members {
            member.subscription.owned = given.get(&member.id).cloned().unwrap_or_default().partitions;
            member.subscription.generation = given.contains_key(&member.id).then_some(3);
        }
        settle(group, held, 2)?;
    }

    #[test]
    fn equal_subscriptions_get_equal_shares(mut group in group()) {
        let all: Vec<Arc<str>> = group.known.iter().map(|(topic, _)| topic.clone()).collect();
        for member in &mut group.members {
            member.subscription.topics = all.clone();
        }
        for assignor in [&RoundRobinAssignor as &dyn Assignor, &StickyAssignor::default()] {
            let sizes = sizes(&assignor.assign(&group.known, &group.members).expect("cannot fail"));
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{:?}", sizes);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = read_subscription(bytes.clone().into());
        let _ = read_assignment(bytes.into());
    }
}
