//! Goal: a drained broker is empty in the end, and nobody else is worse off than need be.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn brokers(racks: &[(i32, &str)]) -> BTreeMap<i32, Option<String>> {
    racks.iter().map(|(id, rack)| (*id, Some((*rack).to_owned()).filter(|rack| !rack.is_empty()))).collect()
}

fn placed(index: i32, target: &[i32]) -> Placed {
    let partition = TopicPartition::new("t", index);
    Placed { partition, target: target.to_vec(), adding: vec![], removing: vec![] }
}

fn moves(step: &Step) -> Vec<(i32, Vec<i32>)> {
    step.moves.iter().map(|m| (m.partition.partition, m.to.clone())).collect()
}

#[test]
fn a_replica_goes_to_the_rack_that_has_none_and_there_to_the_broker_with_the_least() {
    let brokers = brokers(&[(1, "a"), (2, "b"), (3, "c"), (4, "c"), (5, "b"), (6, "a")]);
    let partitions = [placed(0, &[1, 2, 3]), placed(1, &[4, 1, 2])];
    let step = evacuate(3, &brokers, &partitions, &[], 10).unwrap();
    assert_eq!(moves(&step), [(0, vec![1, 2, 4])]);
    let fixed: Vec<_> = (2..5).map(|index| placed(index, &[6])).collect();
    let step = evacuate(1, &brokers, &partitions, &fixed, 10).unwrap();
    // The rack counts more than the load; whoever leads least is to lead.
    assert_eq!(moves(&step), [(0, vec![2, 6, 3]), (1, vec![4, 6, 2])]);
}

#[test]
fn what_has_nowhere_to_go_is_named_and_nothing_is_begun() {
    let brokers = brokers(&[(1, ""), (2, ""), (3, "")]);
    let error = evacuate(3, &brokers, &[placed(0, &[1, 3]), placed(1, &[1, 2, 3])], &[], 10).unwrap_err();
    assert_eq!((error.partition.partition, error.replicas, error.others), (1, 3, 2));
    assert!(error.to_string().contains("add a broker"), "{error}");
}

#[test]
fn what_is_under_way_is_waited_for_unless_its_target_is_dead() {
    let brokers = brokers(&[(1, ""), (2, ""), (3, ""), (4, "")]);
    let moving = Placed { adding: vec![4], removing: vec![3], ..placed(0, &[1, 4]) };
    let step = evacuate(3, &brokers, std::slice::from_ref(&moving), &[], 10).unwrap();
    assert_eq!((step.left().count(), step.moves.len(), step.under_way.len()), (1, 0, 1));
    let lost = Placed { adding: vec![9], removing: vec![3], ..placed(0, &[1, 9]) };
    let step = evacuate(3, &brokers, &[lost], &[], 10).unwrap();
    assert_eq!(moves(&step), [(0, vec![1, 2])]);
    // A move that is not ours takes the broker in, not out.
    let inward = Placed { adding: vec![3], ..placed(0, &[1, 3]) };
    assert_eq!(moves(&evacuate(3, &brokers, &[inward], &[], 10).unwrap()), [(0, vec![1, 2])]);
}

#[test]
fn no_more_move_at_once_than_may() {
    let brokers = brokers(&[(1, ""), (2, ""), (3, "")]);
    let mut partitions: Vec<_> = (0..5).map(|index| placed(index, &[3])).collect();
    partitions.push(Placed { adding: vec![1], removing: vec![3], ..placed(5, &[1]) });
    let step = evacuate(3, &brokers, &partitions, &[], 3).unwrap();
    assert_eq!((step.moves.len(), step.under_way.len(), step.waiting.len()), (2, 1, 3));
}

proptest! {
    /// Whatever the cluster looks like: step after step, the broker becomes empty, and the load even.
    #[test]
    fn the_broker_is_empty_in_the_end(
        count in 2i32..8,
        racks in 0i32..4,
        seeds in prop::collection::vec((any::<u32>(), 1usize..4), 0..40),
        at_once in 1usize..9,
    ) {
        let rack = |id: i32| (racks > 0).then(|| format!("r{}", id % racks));
        let brokers: BTreeMap<_, _> = (1..=count).map(|id| (id, rack(id))).collect();
        let mut partitions: Vec<_> = (0..).zip(&seeds).map(|(index, (seed, replicas))| {
            let start = (*seed % count as u32) as i32;
            let replicas = (*replicas).min(count as usize - 1) as i32;
            let target: Vec<_> = (0..replicas).map(|place| (start + place) % count + 1).collect();
            placed(index, &target)
        }).collect();
        let before: Vec<_> = partitions.iter().map(|placed| placed.target.len()).collect();
        for _ in 0..=partitions.len() {
            let step = evacuate(1, &brokers, &partitions, &[], at_once).unwrap();
            prop_assert!(step.moves.len() <= at_once);
            for Move { partition, to } in step.moves {
                let distinct: BTreeSet<_> = to.iter().collect();
                prop_assert_eq!(distinct.len(), to.len());
                prop_assert!(to.iter().all(|id| *id != 1 && brokers.contains_key(id)));
                partitions[partition.partition as usize].target = to;
            }
        }
        prop_assert!(partitions.iter().all(|placed| !placed.target.contains(&1)));
        let after: Vec<_> = partitions.iter().map(|placed| placed.target.len()).collect();
        prop_assert_eq!(before, after);
    }
}
