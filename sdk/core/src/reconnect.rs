//! Which broker to dial, and when.
//!
//! In: what became of connections. Out: when a peer may be dialled again, and which of several peers to ask
//! something that any of them can answer.
//!
//! Invariant: a peer that failed is not dialled again before its back-off is over.

use std::collections::BTreeMap;
use std::fmt;

use crate::Tick;
use crate::backoff::Backoff;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// An entry of `bootstrap.servers`, by its place in the list; whose broker it is is not known.
    Bootstrap(usize),
    /// A broker by its id, at the address that the metadata tells.
    Broker(i32),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bootstrap(place) => write!(f, "bootstrap server {}", place + 1),
            Self::Broker(id) => write!(f, "broker {id}"),
        }
    }
}

/// A peer that could be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub peer: Peer,
    /// Requests in flight on its open connection; `None` without a connection.
    pub in_flight: Option<usize>,
}

/// Whom to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Peer(Peer),
    /// All of them failed a moment ago; the first back-off is over then.
    AllFailed {
        /// When to choose again.
        until: Tick,
    },
    /// There is nobody.
    Nobody,
}

/// Back-off of every peer that failed since it last answered.
#[derive(Debug)]
pub struct Reconnect {
    backoff: Backoff,
    rng: fastrand::Rng,
    failed: BTreeMap<Peer, Failed>,
}

#[derive(Debug)]
struct Failed {
    times: u32,
    not_before: Tick,
}

impl Reconnect {
    /// `backoff` paces dialling one peer (`reconnect.backoff.ms`, `reconnect.backoff.max.ms`).
    pub fn new(backoff: Backoff, rng: fastrand::Rng) -> Self {
        Self { backoff, rng, failed: BTreeMap::new() }
    }

    /// When this peer may be dialled; a moment in the past means now.
    pub fn not_before(&self, peer: Peer) -> Tick {
        self.failed.get(&peer).map_or(Tick::ZERO, |failed| failed.not_before)
    }

    /// A connection could not be made, or broke.
    pub fn lost(&mut self, now: Tick, peer: Peer) {
        let failed = self.failed.entry(peer).or_insert(Failed { times: 0, not_before: Tick::ZERO });
        // Two connections to one dead broker are one failure.
        if failed.times > 0 && now < failed.not_before {
            return;
        }
        failed.times = failed.times.saturating_add(1);
        failed.not_before = now + self.backoff.delay(failed.times, &mut self.rng);
    }

    /// The peer has told its versions: the next failure is a first one again.
    pub fn established(&mut self, peer: Peer) {
        self.failed.remove(&peer);
    }

    /// Forgets all failures, for a fresh start from the bootstrap list.
    pub fn forget(&mut self) {
        self.failed.clear();
    }

    /// Chooses whom to ask: the connected peer with the fewest requests in flight, else a random one that
    /// may be dialled now.
    pub fn choose(&mut self, now: Tick, candidates: &[Candidate]) -> Choice {
        let idlest = candidates.iter().filter_map(|candidate| candidate.in_flight).min();
        let fit: Vec<Peer> = candidates
            .iter()
            .filter(|candidate| match idlest {
                Some(_) => candidate.in_flight == idlest,
                None => self.not_before(candidate.peer) <= now,
            })
            .map(|candidate| candidate.peer)
            .collect();
        if let Some(&peer) = self.rng.choice(&fit) {
            return Choice::Peer(peer);
        }
        match candidates.iter().map(|candidate| self.not_before(candidate.peer)).min() {
            Some(until) => Choice::AllFailed { until },
            None => Choice::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn machine() -> Reconnect {
        let backoff = Backoff::new(50 * MS, 1000 * MS);
        Reconnect::new(backoff, fastrand::Rng::with_seed(3))
    }

    fn free(peer: Peer) -> Candidate {
        Candidate { peer, in_flight: None }
    }

    #[test]
    fn a_peer_that_keeps_failing_is_dialled_less_and_less_often() {
        let (mut machine, peer) = (machine(), Peer::Broker(1));
        let mut now = 1000 * MS;
        let mut waits = vec![];
        for _ in 0..7 {
            machine.lost(now, peer);
            waits.push(machine.not_before(peer) - now);
            now = machine.not_before(peer);
        }
        assert!(waits[0] >= 40 * MS && waits[0] <= 60 * MS, "{waits:?}");
        assert!(waits[3] >= 320 * MS, "{waits:?}");
        assert!(waits[6] >= 800 * MS && waits[6] <= 1000 * MS, "{waits:?}");

        machine.established(peer);
        assert_eq!(machine.not_before(peer), Tick::ZERO);
        machine.lost(now, peer);
        assert!(machine.not_before(peer) - now <= 60 * MS, "a first failure again");
    }

    #[test]
    fn two_connections_lost_at_once_count_once() {
        let (mut machine, peer) = (machine(), Peer::Broker(1));
        machine.lost(1000 * MS, peer);
        let first = machine.not_before(peer);
        machine.lost(1001 * MS, peer);
        assert_eq!(machine.not_before(peer), first);
    }

    #[test]
    fn connected_peers_are_asked_before_others_and_idle_ones_before_busy_ones() {
        let mut machine = machine();
        let candidates = [
            free(Peer::Broker(1)),
            Candidate { peer: Peer::Broker(2), in_flight: Some(4) },
            Candidate { peer: Peer::Broker(3), in_flight: Some(1) },
        ];
        for _ in 0..50 {
            assert_eq!(machine.choose(MS, &candidates), Choice::Peer(Peer::Broker(3)));
        }
    }

    #[test]
    fn every_peer_that_may_be_dialled_gets_its_turn_and_failed_ones_do_not() {
        let mut machine = machine();
        machine.lost(1000 * MS, Peer::Bootstrap(0));
        let candidates = [0, 1, 2].map(|place| free(Peer::Bootstrap(place)));
        let mut seen = [0; 3];
        for _ in 0..100 {
            match machine.choose(1000 * MS, &candidates) {
                Choice::Peer(Peer::Bootstrap(place)) => seen[place] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(seen[0] == 0 && seen[1] > 10 && seen[2] > 10, "{seen:?}");
    }

    #[test]
    fn when_all_have_failed_the_first_back_off_to_end_is_told() {
        let mut machine = machine();
        machine.lost(1000 * MS, Peer::Broker(2));
        machine.lost(1010 * MS, Peer::Broker(1));
        let until = machine.not_before(Peer::Broker(2)).min(machine.not_before(Peer::Broker(1)));
        let candidates = [free(Peer::Broker(1)), free(Peer::Broker(2))];
        assert_eq!(machine.choose(1010 * MS, &candidates), Choice::AllFailed { until });
        assert!(matches!(machine.choose(until, &candidates), Choice::Peer(_)));
        assert_eq!(machine.choose(until, &[]), Choice::Nobody);
    }
}
