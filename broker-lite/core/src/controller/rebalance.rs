//! What the controller looks after from time to time: leaders that are not the preferred ones
//! (`auto.leader.rebalance.enable`), and partitions without a leader whose topic allows an unclean one.

use std::time::Duration;

use super::Controller;
use crate::Tick;
use crate::config::BrokerConfig;
use crate::metadata::PartitionRegistration;

/// Most elections of one round, as in Kafka; the next round follows at once.
const ELECTIONS: usize = 1000;
/// Between two looks for partitions that may have an unclean leader, as in Kafka.
const UNCLEAN_INTERVAL: Duration = Duration::from_secs(300);

/// When the next looks are due.
#[derive(Debug)]
pub(super) struct Rebalance {
    interval: Option<Duration>,
    preferred_at: Option<Tick>,
    unclean_at: Tick,
}

impl Rebalance {
    pub(super) fn new(now: Tick, settings: &BrokerConfig) -> Self {
        let enabled = settings.boolean("auto.leader.rebalance.enable");
        let seconds = settings.int("leader.imbalance.check.interval.seconds").unwrap_or(300);
        let interval = Duration::from_secs(u64::try_from(seconds).unwrap_or(300).max(1));
        let interval = enabled.then_some(interval);
        Self {
            interval,
            preferred_at: interval.map(|interval| now.saturating_add(interval)),
            unclean_at: now + UNCLEAN_INTERVAL,
        }
    }

    pub(super) fn deadline(&self) -> Tick {
        self.preferred_at.map_or(self.unclean_at, |at| at.min(self.unclean_at))
    }
}

impl Controller {
    /// Does what is due.
    pub(super) fn rebalance(&mut self, now: Tick) {
        if self.rebalance.preferred_at.is_some_and(|at| at <= now) {
            let more = self.elect_preferred();
            let pause = self.rebalance.interval.filter(|_| !more).unwrap_or_default();
            self.rebalance.preferred_at = Some(now.saturating_add(pause.max(Duration::from_millis(1))));
        }
        if self.rebalance.unclean_at <= now {
            self.rebalance.unclean_at = now + UNCLEAN_INTERVAL;
            self.elect_leaderless();
        }
    }

    /// Lets preferred replicas lead that are in sync; returns whether more are left.
    fn elect_preferred(&mut self) -> bool {
        let misplaced = |p: &PartitionRegistration| {
            let first = p.replicas.first().copied();
            p.leader.is_some() && p.leader != first && first.is_some_and(|first| p.isr.contains(&first))
        };
        let all = self.partitions_where(misplaced);
        for (topic, partition) in all.iter().take(ELECTIONS) {
            self.reconsider(*topic, *partition, |proposal| proposal.preferred = true);
        }
        all.len() > ELECTIONS
    }

    /// Looks again at every partition without a leader.
    pub(super) fn elect_leaderless(&mut self) {
        for (topic, partition) in self.partitions_where(|p| p.leader.is_none()) {
            self.reconsider(topic, partition, |_| {});
        }
    }
}
