//! Who leads a partition: the next registration after a change of its ISR, or of who is alive.
//!
//! In: the registration, the ISR it shall have, who may lead. Out: the next registration, as a record.
//!
//! ```text
//! leader stays ▸ ISR in replica order ▸ ELR (if the ISR is empty) ▸ last leader, or unclean if allowed ▸ nobody
//! ```
//!
//! A replica that leaves while the ISR is below `min.insync.replicas` holds every committed record, since
//! the high watermark does not move then: it stays eligible (ELR, KIP-966). One that was killed may have
//! lost the end of its log and is taken out of both.
//!
//! Invariant: `leader ∈ isr`, `isr ∩ elr = ∅`, both within the replicas, and every member of the ISR is acceptable.

use klamm_wire::metadata_records::PartitionChangeRecord;
use klamm_wire::planted::{Bug, planted};
use uuid::Uuid;

use crate::metadata::{LEADER_UNCHANGED, LeaderRecoveryState, PartitionRegistration, RECOVERY_UNCHANGED};

/// A change that is asked for, with all that decides on its outcome.
pub(super) struct Proposal<'a> {
    pub(super) current: &'a PartitionRegistration,
    /// ISR to have, as far as its members are acceptable, and if no election changes it.
    pub(super) isr: Vec<i32>,
    /// Recovery state to have, if no election changes it.
    pub(super) recovery: LeaderRecoveryState,
    /// Broker that came back from an unclean death.
    pub(super) unclean_shutdown: Option<i32>,
    /// `min.insync.replicas` of the topic.
    pub(super) min_insync: usize,
    /// `unclean.leader.election.enable` of the topic.
    pub(super) unclean_allowed: bool,
    /// Whether a broker may lead: not fenced, not shutting down.
    pub(super) acceptable: &'a dyn Fn(i32) -> bool,
}

impl Proposal<'_> {
    /// The registration that comes of it; its epochs are those of `current`.
    pub(super) fn resolve(mut self) -> PartitionRegistration {
        self.isr.retain(|id| (self.acceptable)(*id));
        let mut next = self.current.clone();
        next.elr = self.eligible();
        next.isr.clone_from(&self.isr);
        next.leader_recovery_state = self.recovery;
        self.elect(&mut next);
        if next.isr.len() >= self.min_insync.min(next.replicas.len()) {
            next.elr.clear();
        }
        if !next.isr.is_empty() {
            next.last_known_elr.clear();
        } else if let Some(last) = self.current.leader {
            next.last_known_elr = vec![last];
        }
        next
    }

    /// Replicas outside the new ISR that hold every committed record, as long as that ISR commits nothing.
    fn eligible(&self) -> Vec<i32> {
        let was = |id: &i32| self.current.isr.contains(id) || self.current.elr.contains(id);
        let out = |id: &i32| self.isr.contains(id) || self.unclean_shutdown == Some(*id);
        self.current.replicas.iter().copied().filter(|id| was(id) && !out(id)).collect()
    }

    fn elect(&self, next: &mut PartitionRegistration) {
        let may_lead = |id: &i32| (self.acceptable)(*id);
        if next.leader.is_some_and(|id| next.isr.contains(&id) && may_lead(&id)) {
            return;
        }
        let first =
            |among: &[i32]| next.replicas.iter().copied().find(|id| among.contains(id) && may_lead(id));
        if planted(Bug::UncleanElection) {
            next.leader = first(&next.replicas);
            next.isr = next.leader.into_iter().collect();
            return;
        }
        next.leader = first(&next.isr);
        if next.leader.is_some() {
            return; // every member of the ISR may lead, so it is empty below
        }
        if let Some(eligible) = first(&next.elr) {
            next.leader = Some(eligible);
            next.isr = vec![eligible];
            next.elr.retain(|id| *id != eligible);
        } else if let Some(unclean) = self.unclean(next) {
            next.leader = Some(unclean);
            next.isr = vec![unclean];
            next.elr.clear();
            next.leader_recovery_state = LeaderRecoveryState::Recovering;
        }
    }

    /// A leader that may lack committed records: the last one if nobody else is left who has them all
    /// (it has most), or anyone if the topic asks for it.
    fn unclean(&self, next: &PartitionRegistration) -> Option<i32> {
        let may_lead = |id: &i32| (self.acceptable)(*id);
        let last = match (next.elr.as_slice(), next.last_known_elr.as_slice()) {
            ([], [last]) => Some(*last).filter(may_lead),
            _ => None,
        };
        let anyone = || next.replicas.iter().copied().find(may_lead);
        last.or_else(|| if self.unclean_allowed { anyone() } else { None })
    }
}

/// The record that leads from one registration to the next; `None` if they are equal.
///
/// The leader is named only when it changes: naming it raises the leader epoch.
pub(super) fn change(
    topic_id: Uuid,
    partition_id: i32,
    from: &PartitionRegistration,
    to: &PartitionRegistration,
) -> Option<PartitionChangeRecord> {
    if from == to {
        return None;
    }
    let changed = |from: &Vec<i32>, to: &Vec<i32>| (from != to).then(|| to.clone());
    let leader = if from.leader == to.leader { LEADER_UNCHANGED } else { to.leader.unwrap_or(-1) };
    let recovery = if from.leader_recovery_state == to.leader_recovery_state {
        RECOVERY_UNCHANGED
    } else {
        to.leader_recovery_state.code()
    };
    Some(PartitionChangeRecord {
        partition_id,
        topic_id,
        isr: changed(&from.isr, &to.isr),
        leader,
        leader_recovery_state: recovery,
        eligible_leader_replicas: changed(&from.elr, &to.elr),
        last_known_elr: changed(&from.last_known_elr, &to.last_known_elr),
        ..PartitionChangeRecord::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<i32> {
        text.split(',').filter(|id| !id.is_empty()).map(|id| id.parse().unwrap()).collect()
    }

    fn recovery(text: &str) -> LeaderRecoveryState {
        LeaderRecoveryState::from_code(text.parse().unwrap()).unwrap()
    }

    fn registration(text: &str) -> PartitionRegistration {
        let [replicas, isr, elr, last_known_elr, leader, state] = fields(text);
        PartitionRegistration {
            replicas: ids(replicas),
            isr: ids(isr),
            elr: ids(elr),
            last_known_elr: ids(last_known_elr),
            leader: leader.parse().ok().filter(|leader| *leader >= 0),
            leader_recovery_state: recovery(state),
            ..PartitionRegistration::default()
        }
    }

    fn fields(text: &str) -> [&str; 6] {
        text.split(';').collect::<Vec<_>>().try_into().unwrap()
    }

    /// Goal: the rules above are Kafka's, case by case. `tests/tools/Elections.java` recorded them.
    #[test]
    fn every_change_ends_as_in_apache_kafka() {
        let recorded = include_str!("elections.txt");
        assert_eq!(recorded.lines().count(), 1000);
        for line in recorded.lines() {
            let [before, change, after] = line.split('|').collect::<Vec<_>>().try_into().unwrap();
            let [isr, active, unclean, min, allowed, state] = fields(change);
            let (current, active) = (registration(before), ids(active));
            let proposal = Proposal {
                current: &current,
                isr: ids(isr),
                recovery: recovery(state),
                unclean_shutdown: unclean.parse().ok().filter(|id| *id >= 0),
                min_insync: min.parse().unwrap(),
                unclean_allowed: allowed.parse().unwrap(),
                acceptable: &|id| active.contains(&id),
            };
            let mut next = proposal.resolve();
            next.elr.sort_unstable();
            assert_eq!(next, registration(after), "{line}");
        }
    }
}
