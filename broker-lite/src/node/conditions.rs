//! What is wrong with the network: decisions only, no clock and no waiting.
//!
//! In: which conditions hold between whom, and messages as they are sent. Out: how long each is under way, whether it
//! is lost, and whether a direction is cut.
//!
//! Every condition draws from a stream of chance of its own, so that one that is added or taken away does not move
//! what the others do.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Party, Side};

/// Between whom, and in which direction.
#[derive(Debug, Clone)]
pub(crate) struct Between {
    pub(crate) from: Side,
    pub(crate) to: Side,
    /// The way back as well.
    pub(crate) both_ways: bool,
}

impl Between {
    fn concerns(&self, from: &Party, to: &Party) -> bool {
        let there = self.from.includes(from) && self.to.includes(to);
        there || (self.both_ways && self.from.includes(to) && self.to.includes(from))
    }
}

/// What is wrong.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// Nothing passes.
    Cut,
    /// Every message is under way for a time out of this range.
    Latency(RangeInclusive<Duration>),
    /// A message is lost with this probability.
    Loss(f64),
}

#[derive(Debug)]
struct Condition {
    id: u64,
    between: Between,
    trouble: Trouble,
    rng: fastrand::Rng,
}

/// What becomes of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fate {
    pub(crate) under_way: Duration,
    pub(crate) lost: bool,
}

/// Everything that is wrong at the moment.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    all: Vec<Condition>,
    next: u64,
}

impl Conditions {
    /// Adds one; `rng` gives a stream of chance by its name.
    pub(crate) fn add(
        &mut self,
        between: Between,
        trouble: Trouble,
        rng: impl FnOnce(&str) -> fastrand::Rng,
    ) -> u64 {
        let id = self.next;
        self.next += 1;
        let rng = rng(&format!("network condition {id}"));
        self.all.push(Condition { id, between, trouble, rng });
        id
    }

    /// Takes one away.
    pub(crate) fn remove(&mut self, id: u64) {
        self.all.retain(|condition| condition.id != id);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether nothing passes in this direction.
    pub(crate) fn is_cut(&self, from: &Party, to: &Party) -> bool {
        let cut =
            |found: &Condition| matches!(found.trouble, Trouble::Cut) && found.between.concerns(from, to);
        self.all.iter().any(cut)
    }

    /// Decides about one message that is sent now. Latencies add up.
    pub(crate) fn fate(&mut self, from: &Party, to: &Party) -> Fate {
        let mut fate = Fate::default();
        for condition in self.all.iter_mut().filter(|condition| condition.between.concerns(from, to)) {
            match &condition.trouble {
                Trouble::Cut => {}
                Trouble::Latency(range) => fate.under_way += draw(&mut condition.rng, range),
                Trouble::Loss(probability) => fate.lost |= condition.rng.f64() < *probability,
            }
        }
        fate
    }
}

fn draw(rng: &mut fastrand::Rng, range: &RangeInclusive<Duration>) -> Duration {
    let micros = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let (least, most) = (micros(range.start()), micros(range.end()));
    Duration::from_micros(if least < most { rng.u64(least..=most) } else { least })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn rng(_: &str) -> fastrand::Rng {
        fastrand::Rng::with_seed(7)
    }

    fn between(from: Side, to: Side, both_ways: bool) -> Between {
        Between { from, to, both_ways }
    }

    #[test]
    fn a_one_way_cut_stops_one_direction_only() {
        let mut conditions = Conditions::default();
        let id = conditions.add(between(1.into(), Side::Brokers, false), Trouble::Cut, rng);
        assert!(conditions.is_cut(&Party::Node(1), &Party::Node(2)));
        assert!(!conditions.is_cut(&Party::Node(2), &Party::Node(1)));
        assert!(!conditions.is_cut(&Party::Node(1), &Party::Controller(3001)));
        conditions.remove(id);
        assert!(conditions.is_empty());
        assert!(!conditions.is_cut(&Party::Node(1), &Party::Node(2)));
    }

    #[test]
    fn latencies_of_all_conditions_add_up_and_stay_in_their_ranges() {
        let mut conditions = Conditions::default();
        for range in [10 * MS..=20 * MS, 5 * MS..=5 * MS] {
            conditions.add(between(Side::Clients, 1.into(), true), Trouble::Latency(range), rng);
        }
        let (client, node) = (Party::Client(None), Party::Node(1));
        let times: Vec<_> = (0..50).map(|_| conditions.fate(&node, &client).under_way).collect();
        assert!(times.iter().all(|time| (15 * MS..=25 * MS).contains(time)), "{times:?}");
        assert!(times.iter().any(|time| *time != times[0]));
        assert_eq!(conditions.fate(&Party::Node(2), &client), Fate::default());
    }

    #[test]
    fn a_condition_that_is_taken_away_does_not_change_the_chance_of_the_others() {
        let (a, b) = (Party::Node(1), Party::Node(2));
        let streams = |name: &str| fastrand::Rng::with_seed(name.bytes().map(u64::from).sum());
        let run = |with_second: bool| {
            let mut conditions = Conditions::default();
            let range = 1 * MS..=100 * MS;
            conditions.add(between(Side::Anyone, Side::Anyone, true), Trouble::Latency(range), streams);
            let loss = conditions.add(between(1.into(), 2.into(), true), Trouble::Loss(0.0), streams);
            if !with_second {
                conditions.remove(loss);
            }
            (0..20).map(|_| conditions.fate(&a, &b)).collect::<Vec<_>>()
        };
        assert_eq!(run(true), run(false));
    }

    #[test]
    fn loss_strikes_as_often_as_it_was_asked_to() {
        let mut conditions = Conditions::default();
        conditions.add(between(Side::Anyone, Side::Anyone, true), Trouble::Loss(0.25), rng);
        let lost = (0..1_000).filter(|_| conditions.fate(&Party::Node(1), &Party::Node(2)).lost).count();
        assert!((200..300).contains(&lost), "{lost}");
    }
}
