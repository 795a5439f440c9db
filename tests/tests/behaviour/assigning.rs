//! Who gets which partitions of a group, by which assignor.

use std::collections::BTreeSet;
use std::io::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use klamm::assign::{AssignError, Assignment, Assignor, GroupAssignment, Member as GroupMember, Topics};
use klamm::{AssignmentStrategy, Consumer, NewTopic, OffsetReset, TopicPartition};
use klamm_tests::backend::Backend;
use klamm_tests::suite::Outcome;

use crate::members::{Member, builder, until, write};

/// How much a member was given, each time.
type Given = Arc<Mutex<Vec<usize>>>;

/// Gives everything to the member with the greatest weight.
#[derive(Debug)]
struct Heaviest {
    weight: u8,
    given: Given,
}

impl Assignor for Heaviest {
    fn name(&self) -> &str {
        "heaviest"
    }

    fn user_data(&self, _: &[Arc<str>]) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(&[self.weight]))
    }

    fn assign(&self, topics: &Topics, members: &[GroupMember]) -> Result<GroupAssignment, AssignError> {
        let heaviest = members.iter().max_by_key(|member| member.subscription.user_data.clone());
        let partitions = topics.iter().flat_map(|(topic, partitions)| {
            (0..).zip(partitions).map(|(index, _)| TopicPartition::new(topic.clone(), index))
        });
        let assignment = Assignment { partitions: partitions.collect(), user_data: None };
        Ok(heaviest.map(|member| (member.id.clone(), assignment)).into_iter().collect())
    }

    fn on_assignment(&mut self, assignment: &Assignment, _: i32) {
        self.given.lock().expect("no panic").push(assignment.partitions.len());
    }
}

pub(crate) async fn an_assignor_of_ones_own_shares_out_what_it_likes_and_hears_what_came(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("weighed", 4).await?;
    let group = backend.fresh_topic("group");
    let join = |weight| -> Result<(Member, Given), Error> {
        let given = Given::default();
        let heard = given.clone();
        let strategy = AssignmentStrategy::custom(move || Heaviest { weight, given: heard.clone() });
        let builder = builder(backend, &group)?.partition_assignment_strategy([strategy]);
        Ok((Member::start(builder, &topic)?, given))
    };
    let (light, light_given) = join(1)?;
    until("who is alone has everything", || light.partitions().len() == 4).await?;
    let (heavy, heavy_given) = join(9)?;
    until("the heavier one has everything", || {
        light.partitions().is_empty() && heavy.partitions().len() == 4
    })
    .await?;
    heavy.consumer.close().await?;
    until("the other one has it again", || light.partitions().len() == 4).await?;
    // There may be more rebalances, and nothing at first.
    let changes = |given: &Given| {
        let mut given = given.lock().expect("no panic").clone();
        given.dedup();
        given.into_iter().skip_while(|count| *count == 0).collect::<Vec<_>>()
    };
    assert_eq!(changes(&light_given), [4, 0, 4]);
    assert_eq!(changes(&heavy_given)[..1], [4]);
    light.consumer.close().await?;
    Ok(())
}

/// The way from `range` to `cooperative-sticky`: each member offers both first, one after the other, and then the new one alone.
pub(crate) async fn members_change_over_to_another_assignor_one_by_one(backend: &Backend) -> Outcome {
    use AssignmentStrategy::{CooperativeSticky, Range};
    let topic = backend.topic("changed", 4).await?;
    let group = backend.fresh_topic("group");
    let admin = backend.client()?.admin();
    let is_chosen = async |assignor: &str| -> Outcome {
        let told = admin.describe_groups([group.as_str()]).await?.all()?;
        assert_eq!(told[0].assignor, assignor);
        Ok(())
    };
    let join = |strategies: &[AssignmentStrategy]| {
        let builder = builder(backend, &group)?;
        Member::start(builder.partition_assignment_strategy(strategies.to_vec()), &topic)
    };
    let mut members = [join(&[Range])?, join(&[Range])?];
    let mut written = 0;
    for (strategies, chosen) in [
        (vec![Range], "range"),
        (vec![CooperativeSticky, Range], "cooperative-sticky"),
        (vec![CooperativeSticky], "cooperative-sticky"),
    ] {
        for index in 0..members.len() {
            if strategies.len() > 1 || chosen != "range" {
                members[index].consumer.close().await?;
                members[index] = join(&strategies)?;
            }
            until("both share", || {
                let (one, two) = (members[0].partitions(), members[1].partitions());
                one.len() == 2 && two.len() == 2 && one.is_disjoint(&two)
            })
            .await?;
            write(backend, &topic, 4, 5).await?;
            written += 5;
            let is_read = |partition| {
                let read = |member: &Member| member.seen().contains_key(&(partition, written - 1));
                members.iter().any(read)
            };
            until("all of it is read", || (0..4).all(is_read)).await?;
        }
        is_chosen(chosen).await?;
    }
    for member in members {
        member.consumer.close().await?;
    }
    Ok(())
}

pub(crate) async fn each_strategy_shares_out_evenly_and_the_sticky_ones_move_only_what_they_must(
    backend: &Backend,
) -> Outcome {
    use AssignmentStrategy::{CooperativeSticky, Range, RoundRobin, Sticky};
    let topic = backend.topic("dealt", 7).await?;
    let admin = backend.client()?.admin();
    for (strategy, name, sticks) in [
        (Range, "range", false),
        (RoundRobin, "roundrobin", false),
        (Sticky, "sticky", true),
        (CooperativeSticky, "cooperative-sticky", true),
    ] {
        let group = backend.fresh_topic(name);
        let join = || {
            let builder = builder(backend, &group)?;
            Member::start(builder.partition_assignment_strategy([strategy.clone()]), &topic)
        };
        let mut members = vec![join()?, join()?, join()?];
        let shared_out = |members: &[Member], counts: &[usize]| {
            let owned: Vec<_> = members.iter().map(Member::partitions).collect();
            let mut found: Vec<_> = owned.iter().map(BTreeSet::len).collect();
            found.sort_unstable();
            found == counts && owned.into_iter().flatten().collect::<BTreeSet<_>>().len() == 7
        };
        until("three share", || shared_out(&members, &[2, 2, 3])).await?;
        let told = admin.describe_groups([group.as_str()]).await?.all()?;
        assert_eq!(told[0].assignor, name);
        let before: Vec<_> = members[..2].iter().map(Member::partitions).collect();
        members.pop().expect("three").consumer.close().await?;
        until("two share", || shared_out(&members, &[3, 4])).await?;
        let kept =
            members.iter().zip(&before).all(|(member, before)| member.partitions().is_superset(before));
        assert!(kept || !sticks, "{name}: {before:?}");
        for member in members {
            member.consumer.close().await?;
        }
    }
    Ok(())
}

/// KIP-881, by `range`.
pub(crate) async fn members_are_given_the_partitions_of_their_racks(backend: &Backend) -> Outcome {
    let topic = backend.fresh_topic("placed");
    let client = backend.client()?;
    client.admin().create_topics([NewTopic::new(&topic).partitions(3).replicas(1)]).await?.all()?;
    let group = backend.fresh_topic("group");
    let mut homes = Vec::new();
    for partition in 0..3 {
        homes.push(backend.leader_of(&topic, partition).await?);
    }
    assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), 3, "one on each broker: {homes:?}");
    // The other way round than by their ids, which are in the order of their names.
    let join = |(index, home): (usize, &i32)| {
        let name = format!("member-{}", 3 - index);
        let builder = builder(backend, &group)?.client_id(name).client_rack(format!("RACK{home}"));
        Member::start(builder.partition_assignment_strategy([AssignmentStrategy::Range]), &topic)
    };
    let members = homes.iter().enumerate().map(join).collect::<Result<Vec<_>, _>>()?;
    until("each has what is in its rack", || {
        (0..).zip(&members).all(|(partition, member)| member.partitions() == BTreeSet::from([partition]))
    })
    .await?;
    for member in members {
        member.consumer.close().await?;
    }
    Ok(())
}

pub(crate) async fn others_take_over_from_who_unsubscribes(backend: &Backend) -> Outcome {
    let topic = backend.topic("returned", 2).await?;
    let group = backend.fresh_topic("group");
    let member = || Member::start(builder(backend, &group)?, &topic);
    let (stays, goes) = (member()?, member()?);
    until("both share", || stays.partitions().len() == 1 && goes.partitions().len() == 1).await?;
    goes.consumer.unsubscribe().await;
    assert!(goes.partitions().is_empty());
    until("the other one has both", || stays.partitions().len() == 2).await?;
    write(backend, &topic, 2, 5).await?;
    until("it reads both", || stays.seen().len() == 10).await?;
    goes.consumer.subscribe([topic.as_str()]);
    until("they share again", || stays.partitions().len() == 1 && goes.partitions().len() == 1).await?;
    for member in [stays, goes] {
        member.consumer.close().await?;
    }
    Ok(())
}

pub(crate) async fn a_member_too_many_gets_nothing_stays_and_takes_over(backend: &Backend) -> Outcome {
    let topic = backend.topic("crowded", 2).await?;
    let group = backend.fresh_topic("group");
    let session = Duration::from_secs(6);
    let join = || {
        let builder = builder(backend, &group)?.session_timeout_ms(session);
        Member::start(builder.heartbeat_interval_ms(session / 6), &topic)
    };
    let mut members = vec![join()?, join()?, join()?];
    let owned = |members: &[Member]| -> Vec<usize> {
        let mut counts: Vec<_> = members.iter().map(|member| member.partitions().len()).collect();
        counts.sort_unstable();
        counts
    };
    until("one has nothing", || owned(&members) == [0, 1, 1]).await?;
    let idle = members.iter().position(|member| member.partitions().is_empty()).ok_or("nobody")?;
    write(backend, &topic, 2, 5).await?;
    let idle = members.swap_remove(idle);
    members[0].consumer.vanish();
    // That takes a session, in which it stays, too.
    until("it takes over from the one that vanished", || idle.partitions().len() == 1).await?;
    members[1].consumer.close().await?;
    until("and from the one that left", || idle.partitions().len() == 2).await?;
    write(backend, &topic, 2, 5).await?;
    let last = BTreeSet::from([(0, 9), (1, 9)]);
    until("it reads", || last.iter().all(|place| idle.seen().contains_key(place))).await?;
    idle.consumer.close().await?;
    Ok(())
}

pub(crate) async fn who_names_no_group_is_a_member_of_the_group_default(backend: &Backend) -> Outcome {
    let topic = backend.topic("unnamed", 2).await?;
    write(backend, &topic, 2, 1).await?;
    let named = Member::start(builder(backend, "default")?, &topic)?;
    until("it has everything", || named.partitions().len() == 2).await?;
    let unnamed = Consumer::builder().client(&backend.client()?).auto_offset_reset(OffsetReset::Earliest);
    let unnamed = Member::start(unnamed, &topic)?;
    until("they share", || named.partitions().len() == 1 && unnamed.partitions().len() == 1).await?;
    unnamed.consumer.close().await?;
    until("it has left", || named.partitions().len() == 2).await?;
    named.consumer.close().await?;
    Ok(())
}
