//! Who leads a partition: the next registration after a change of its ISR, of its replicas, or of who is alive.
//!
//! In: the registration, the ISR and the replicas it shall have, who may lead. Out: the next registration, as a record.
//!
//! ```text
//! leader stays ▸ ISR in replica order ▸ ELR (if the ISR is empty) ▸ last leader, or unclean if allowed ▸ nobody
//! ```
//!
//! A reassignment (KIP-455) adds its targets to the replicas first; whatever change brings all of them into the ISR
//! completes it, and takes the others away.
//!
//! A replica that leaves while the ISR is below `min.insync.replicas` holds every committed record, since
//! the high watermark does not move then: it stays eligible (ELR, KIP-966). One that was killed may have
//! lost the end of its log and is taken out of both.
//!
//! Without that feature the last ISR stays on record when none of its members is left, and the first of them to come
//! back leads.
//!
//! Invariant: `leader ∈ isr`, `isr ∩ elr = ∅`, both within the replicas, and every member of the ISR is acceptable, but
//! for one that has no leader and no ELR.

use klamm_wire::metadata_records::PartitionChangeRecord;
use klamm_wire::planted::{Bug, planted};
use uuid::Uuid;

use crate::metadata::{LEADER_UNCHANGED, LeaderRecoveryState, PartitionRegistration, RECOVERY_UNCHANGED};

/// A change that is asked for, with all that decides on its outcome.
pub(super) struct Proposal<'a> {
    pub(super) current: &'a PartitionRegistration,
    /// ISR to have, as far as its members are acceptable, and if no election changes it.
    pub(super) isr: Vec<i32>,
    /// Replicas to have, with those that a reassignment adds and removes.
    pub(super) replicas: Vec<i32>,
    pub(super) adding: Vec<i32>,
    pub(super) removing: Vec<i32>,
    /// Recovery state to have, if no election changes it.
    pub(super) recovery: LeaderRecoveryState,
    /// Whether the first replica shall lead although another one does.
    pub(super) preferred: bool,
    /// Broker that came back from an unclean death.
    pub(super) unclean_shutdown: Option<i32>,
    /// `min.insync.replicas` of the topic.
    pub(super) min_insync: usize,
    /// `unclean.leader.election.enable` of the topic, or an unclean election was asked for.
    pub(super) unclean_allowed: bool,
    /// `eligible.leader.replicas.version` is at least 1.
    pub(super) elr_enabled: bool,
    /// Whether a broker may lead: not fenced, not shutting down.
    pub(super) acceptable: &'a dyn Fn(i32) -> bool,
}

impl Proposal<'_> {
    /// The registration that comes of it; its epochs are those of `current`.
    pub(super) fn resolve(mut self) -> PartitionRegistration {
        self.isr.retain(|id| (self.acceptable)(*id));
        self.complete_reassignment();
        let mut next = self.current.clone();
        next.elr = self.eligible();
        next.isr.clone_from(&self.isr);
        next.replicas.clone_from(&self.replicas);
        next.adding_replicas.clone_from(&self.adding);
        next.removing_replicas.clone_from(&self.removing);
        next.last_known_elr.retain(|id| self.replicas.contains(id));
        next.leader_recovery_state = self.recovery;
        self.elect(&mut next);
        if next.isr.len() >= self.min_insync.min(next.replicas.len()) {
            next.elr.clear();
        }
        if !next.isr.is_empty() || !self.elr_enabled {
            next.last_known_elr.clear();
        } else if let Some(last) = self.current.leader.filter(|last| next.replicas.contains(last)) {
            next.last_known_elr = vec![last];
        }
        if !self.elr_enabled && next.isr.is_empty() {
            // Nothing else remembers who has the records.
            next.isr.clone_from(&self.current.isr);
            next.isr.retain(|id| next.replicas.contains(id));
        }
        next
    }

    /// Takes away what a reassignment removes, once all that it adds is in sync; if it ends with fewer replicas than it
    /// began with, all that stay must be, or a smaller ISR would be the price.
    fn complete_reassignment(&mut self) {
        let Self { isr, replicas, adding, removing, .. } = &*self;
        if adding.is_empty() && removing.is_empty() {
            return;
        }
        let staying =
            |ids: &[i32]| ids.iter().copied().filter(|id| !removing.contains(id)).collect::<Vec<_>>();
        let (isr, replicas) = (staying(isr), staying(replicas));
        let in_sync = |ids: &[i32]| ids.iter().all(|id| isr.contains(id));
        let shrinks = adding.len() < removing.len();
        if isr.is_empty() || !in_sync(adding) || (shrinks && !in_sync(&replicas)) {
            return;
        }
        (self.isr, self.replicas) = (isr, replicas);
        self.adding.clear();
        self.removing.clear();
    }

    /// Replicas outside the new ISR that hold every committed record, as long as that ISR commits nothing.
    fn eligible(&self) -> Vec<i32> {
        if !self.elr_enabled {
            return Vec::new();
        }
        let was = |id: &i32| self.current.isr.contains(id) || self.current.elr.contains(id);
        let out = |id: &i32| self.isr.contains(id) || self.unclean_shutdown == Some(*id);
        self.replicas.iter().copied().filter(|id| was(id) && !out(id)).collect()
    }

    fn elect(&self, next: &mut PartitionRegistration) {
        let may_lead = |id: &i32| (self.acceptable)(*id);
        let valid = |id: &i32| next.isr.contains(id) && may_lead(id);
        if let Some(first) = next.replicas.first().filter(|first| self.preferred && valid(first)) {
            next.leader = Some(*first);
            return;
        }
        if next.leader.is_some_and(|id| valid(&id)) {
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
/// The leader is named only when it changes, or a replica is taken away: naming it raises the leader epoch.
pub(super) fn change(
    topic_id: Uuid,
    partition_id: i32,
    from: &PartitionRegistration,
    to: &PartitionRegistration,
    directory: impl Fn(i32) -> Uuid,
) -> Option<PartitionChangeRecord> {
    if from == to {
        return None;
    }
    let changed = |from: &Vec<i32>, to: &Vec<i32>| (from != to).then(|| to.clone());
    let taken_away = from.replicas.iter().any(|id| !to.replicas.contains(id));
    let leader =
        if from.leader == to.leader && !taken_away { LEADER_UNCHANGED } else { to.leader.unwrap_or(-1) };
    let replicas = changed(&from.replicas, &to.replicas);
    let recovery = if from.leader_recovery_state == to.leader_recovery_state {
        RECOVERY_UNCHANGED
    } else {
        to.leader_recovery_state.code()
    };
    Some(PartitionChangeRecord {
        partition_id,
        topic_id,
        isr: changed(&from.isr, &to.isr),
        directories: replicas.as_ref().map(|ids| ids.iter().map(|id| directory(*id)).collect()),
        replicas,
        adding_replicas: changed(&from.adding_replicas, &to.adding_replicas),
        removing_replicas: changed(&from.removing_replicas, &to.removing_replicas),
        leader,
        leader_recovery_state: recovery,
        eligible_leader_replicas: changed(&from.elr, &to.elr),
        last_known_elr: changed(&from.last_known_elr, &to.last_known_elr),
    })
}

/// The record that changes nothing but the partition epoch: whatever was asked for before fails the compare-and-set.
pub(super) fn touch(topic_id: Uuid, partition_id: i32) -> PartitionChangeRecord {
    PartitionChangeRecord { topic_id, partition_id, ..PartitionChangeRecord::default() }
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
                replicas: current.replicas.clone(),
                adding: Vec::new(),
                removing: Vec::new(),
                preferred: false,
                elr_enabled: true,
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
