//! Which voters are alike, for models that try every order of events.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use super::{Ballot, Outbound, Role, Voter};

impl Voter {
    /// Hashes what decides how this voter goes on where every time limit is zero, so that chance and elapsed time decide
    /// nothing, and with every voter's id replaced by `name`. Two voters of equal hash go on alike, up to the names.
    ///
    /// Left out are numbers of requests, how often the log was cut, when somebody was heard, and what is only told.
    pub fn hash_as<H: Hasher>(&self, name: &dyn Fn(i32) -> i32, state: &mut H) {
        let named = |ids: &BTreeSet<i32>| ids.iter().map(|id| name(*id)).collect::<BTreeSet<_>>();
        let of = |ballot: &Ballot| (named(&ballot.granted), named(&ballot.refused));
        (name(self.id), named(&self.voters), self.epoch).hash(state);
        (self.leader.map(name), self.voted.map(name), self.high_watermark, self.durable_end).hash(state);
        let kept = self.persisted;
        (kept.epoch, kept.leader.map(name), kept.voted.map(name)).hash(state);
        std::mem::discriminant(&self.role).hash(state);
        match &self.role {
            Role::Unattached { .. } => {}
            Role::Prospective { ballot, .. } | Role::Candidate { ballot, .. } => of(ballot).hash(state),
            Role::Follower { fetched, download, .. } => (fetched, download).hash(state),
            Role::Leader(leader) => {
                let ends: BTreeSet<_> =
                    leader.voters.iter().map(|(id, progress)| (name(*id), progress.end)).collect();
                (leader.epoch_start, ends, named(&leader.told)).hash(state);
            }
            Role::Resigned { told, .. } => named(told).hash(state),
        }
        let asked = self.outbound.iter().filter(|(_, outbound)| matches!(outbound, Outbound::InFlight(_)));
        asked.map(|(to, _)| name(*to)).collect::<BTreeSet<_>>().hash(state);
    }
}
