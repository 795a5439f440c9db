use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn living(ids: std::ops::RangeInclusive<i32>) -> Vec<Candidate<'static>> {
    ids.map(|id| Candidate { id, rack: None, fenced: false }).collect()
}

fn counts(ids: impl Iterator<Item = i32>) -> BTreeMap<i32, usize> {
    let mut counts = BTreeMap::new();
    ids.for_each(|id| *counts.entry(id).or_default() += 1);
    counts
}

#[test]
fn more_replicas_than_brokers_cannot_be_placed() {
    let error = place(&living(1..=2), 1, 3, &mut fastrand::Rng::with_seed(1)).unwrap_err();
    assert_eq!(error, PlacementError::TooFewBrokers { wanted: 3, have: 2 });
}

#[test]
fn nothing_is_placed_while_all_brokers_are_fenced() {
    let brokers = [Candidate { id: 1, rack: None, fenced: true }];
    let error = place(&brokers, 1, 1, &mut fastrand::Rng::with_seed(1)).unwrap_err();
    assert_eq!(error, PlacementError::AllFenced { have: 1 });
}

#[test]
fn the_same_seed_gives_the_same_places() {
    let placed = |seed| place(&living(1..=5), 7, 3, &mut fastrand::Rng::with_seed(seed)).unwrap();
    assert_eq!(placed(5), placed(5));
    assert!((0..20).any(|seed| placed(seed) != placed(5)), "but seeds differ");
}

/// Goal: killing the broker that leads most must not double the load of a single other one.
#[test]
fn a_dead_leaders_partitions_fall_to_all_the_others() {
    let placed = place(&living(1..=3), 6, 3, &mut fastrand::Rng::with_seed(3)).unwrap();
    for dead in 1..=3 {
        let heirs = placed.iter().filter(|replicas| replicas[0] == dead).map(|replicas| replicas[1]);
        assert_eq!(counts(heirs).len(), 2, "{placed:?}");
    }
}

const RACKS: [Option<&str>; 4] = [None, Some("a"), Some("b"), Some("c")];

fn broker() -> impl Strategy<Value = (usize, bool)> {
    (0..RACKS.len(), prop::bool::weighted(0.25))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// No broker twice, the living before the fenced, as many racks as there are, leaders spread evenly.
    #[test]
    fn replicas_are_spread_over_brokers_and_racks(
        brokers in prop::collection::vec(broker(), 1..9),
        partitions in 1usize..30,
        replicas in 1usize..6,
        seed in any::<u64>(),
    ) {
        let candidates: Vec<_> = brokers.iter().zip(1..).map(|((rack, fenced), id)| {
            Candidate { id, rack: RACKS[*rack], fenced: *fenced }
        }).collect();
        let live: Vec<_> = candidates.iter().filter(|broker| !broker.fenced).collect();
        prop_assume!(replicas <= candidates.len() && !live.is_empty());
        let placed = place(&candidates, partitions, replicas, &mut fastrand::Rng::with_seed(seed)).unwrap();

        prop_assert_eq!(placed.len(), partitions);
        let racks_alive = live.iter().map(|broker| broker.rack).collect::<BTreeSet<_>>().len();
        for one in &placed {
            let of = |id: &i32| &candidates[(*id - 1) as usize];
            prop_assert_eq!(one.iter().collect::<BTreeSet<_>>().len(), replicas);
            prop_assert!(!of(&one[0]).fenced);
            let fenced = one.iter().filter(|id| of(id).fenced).count();
            prop_assert_eq!(fenced, replicas.saturating_sub(live.len()), "fenced only as a last resort");
            let racks = one.iter().map(|id| of(id).rack).collect::<BTreeSet<_>>().len();
            prop_assert!(racks >= replicas.min(racks_alive));
        }
        let leaders = counts(placed.iter().map(|one| one[0]));
        let most = leaders.values().max().copied().unwrap_or(0);
        prop_assert!(most <= partitions.div_ceil(live.len()), "{:?}", leaders);
    }
}
