//! The leader's high watermark and ISR (KIP-497, KIP-903, KIP-966).
//!
//! ```text
//! committed ISR {1,2,3} ──3 lags──▶ proposed {1,2}    maximal {1,2,3}: 3 still counts until the controller says so
//! committed ISR {1,2}  ──3 is back─▶ proposed {1,2,3}  maximal {1,2,3}: 3 counts at once
//! ```

use klamm_wire::ErrorCode;
use klamm_wire::planted::{Bug, planted};

use super::leader::Proposal;
use super::{AlterPartition, AlteredPartition, Effect, IsrMember, Replica};
use crate::Tick;
use crate::metadata::LeaderRecoveryState;
use crate::storage::Directory;

impl<D: Directory> Replica<D> {
    /// Moves the leader's high watermark to the least end of the maximal ISR, unless too few replicas are in sync.
    /// A replica that is about to join the ISR is waited for too, or it could never catch up under load.
    pub(super) fn advance_high_watermark(&mut self, now: Tick, fx: &mut Vec<Effect>) {
        let (min_isr, lag_max) = (self.min_isr(), self.settings.replica_lag_time_max);
        let (end, own) = (self.log.end_offset(), self.durable_end());
        let Some(leading) = &mut self.leading else { return };
        leading.watermark_waits_until = None;
        if self.isr.len() < min_isr {
            return;
        }
        let mut least = own;
        let mut waits_until: Option<Tick> = None;
        for (id, follower) in &leading.followers {
            let has = follower.end_offset.unwrap_or(-1);
            if leading.in_maximal_isr(&self.isr, *id) {
                least = least.min(has);
            } else if has < end
                && self.alive.contains_key(id)
                && let Some(at) = follower.lags_at(end, lag_max).filter(|at| now < *at)
            {
                least = least.min(has);
                waits_until = Some(waits_until.map_or(at, |earlier| earlier.min(at)));
            }
        }
        leading.watermark_waits_until = waits_until;
        if planted(Bug::FastestFollowerDecides) {
            least =
                leading.followers.values().filter_map(|follower| follower.end_offset).max().unwrap_or(own);
        }
        if planted(Bug::HighWatermarkOffByOne) {
            least += 1;
        }
        self.raise_high_watermark(now, least, fx);
    }

    /// Proposes to take a follower into the ISR that has everything committed and everything of earlier epochs.
    pub(super) fn maybe_expand_isr(&mut self, now: Tick, id: i32, fx: &mut Vec<Effect>) {
        let Some(leading) = &self.leading else { return };
        let Some(follower) = leading.followers.get(&id) else { return };
        let same_broker = match (follower.broker_epoch, self.alive.get(&id)) {
            (Some(-1), Some(_)) => true,
            (Some(fetched), Some(registered)) => fetched == *registered,
            _ => false,
        };
        let needed = self.high_watermark.max(leading.epoch_start);
        let has_enough = follower.end_offset.is_some_and(|end| end >= needed);
        let busy = leading.proposal.is_some() || now < leading.propose_after;
        if busy || !same_broker || !has_enough || self.isr.contains(&id) {
            return;
        }
        let mut isr = self.isr.clone();
        isr.push(id);
        self.propose(isr, fx);
    }

    fn maybe_shrink_isr(&mut self, now: Tick, fx: &mut Vec<Effect>) {
        let (me, lag_max, end) =
            (self.identity.broker_id, self.settings.replica_lag_time_max, self.log.end_offset());
        let Some(leading) = &self.leading else { return };
        if leading.proposal.is_some() || now < leading.propose_after {
            return;
        }
        let in_sync = |id: &i32| {
            *id == me || leading.followers.get(id).is_some_and(|f| f.is_caught_up(now, end, lag_max))
        };
        let isr: Vec<i32> = self.isr.iter().copied().filter(in_sync).collect();
        if isr.len() < self.isr.len() {
            self.propose(isr, fx);
        }
    }

    fn propose(&mut self, isr: Vec<i32>, fx: &mut Vec<Effect>) {
        let id = self.next_proposal;
        self.next_proposal += 1;
        fx.push(Effect::AlterPartition(self.alter_partition(id, &isr)));
        if let Some(leading) = &mut self.leading {
            leading.proposal = Some(Proposal { id, isr, ask_again_at: None });
        }
    }

    fn alter_partition(&self, proposal: u64, isr: &[i32]) -> AlterPartition {
        let known = |id: &i32| match self.leading.as_ref().and_then(|leading| leading.followers.get(id)) {
            Some(follower) => follower.broker_epoch,
            None => self.alive.get(id).copied(),
        };
        let member = |id: &i32| IsrMember { broker_id: *id, broker_epoch: known(id).unwrap_or(-1) };
        AlterPartition {
            proposal,
            topic_id: self.identity.topic_id,
            partition: self.identity.partition,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            isr: isr.iter().map(member).collect(),
            leader_recovery_state: LeaderRecoveryState::Recovered,
        }
    }

    /// Takes the controller's answer to `proposal`. An answer that got lost is an error too: `REQUEST_TIMED_OUT` or any
    /// other code that does not tell what became of it is asked again.
    pub fn alter_partition_answered(
        &mut self,
        now: Tick,
        proposal: u64,
        answer: Result<AlteredPartition, ErrorCode>,
        fx: &mut Vec<Effect>,
    ) {
        let retry_at = now.saturating_add(self.settings.alter_partition_backoff);
        let (leader_epoch, partition_epoch) = (self.leader_epoch, self.partition_epoch);
        let Some(leading) = &mut self.leading else { return };
        let Some(pending) = leading.proposal.as_mut().filter(|pending| pending.id == proposal) else {
            return;
        };
        match answer {
            Ok(state) if state.leader_epoch != leader_epoch || state.partition_epoch < partition_epoch => {}
            Ok(state) => {
                leading.proposal = None;
                self.partition_epoch = state.partition_epoch;
                self.isr = state.isr;
            }
            // Back to the committed ISR. Another request for the same may be under way, from before a connection broke: the
            // controller has raised the partition epoch, so that one is refused, too.
            Err(ErrorCode::INELIGIBLE_REPLICA) => {
                leading.proposal = None;
                leading.propose_after = retry_at;
            }
            // overtaken: newer metadata is on its way and will clear the proposal
            Err(
                ErrorCode::INVALID_UPDATE_VERSION
                | ErrorCode::FENCED_LEADER_EPOCH
                | ErrorCode::NEW_LEADER_ELECTED
                | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
                | ErrorCode::UNKNOWN_TOPIC_ID
                | ErrorCode::INVALID_REQUEST,
            ) => {}
            Err(_) => pending.ask_again_at = Some(retry_at),
        }
        self.advance_high_watermark(now, fx);
    }

    pub(super) fn leader_deadline(&self) -> Option<Tick> {
        let leading = self.leading.as_ref()?;
        let next = match &leading.proposal {
            Some(pending) => pending.ask_again_at,
            None => {
                let (lag_max, end) = (self.settings.replica_lag_time_max, self.log.end_offset());
                let followers = leading.followers.iter().filter(|(id, _)| self.isr.contains(id));
                let lags = followers.filter_map(|(_, follower)| follower.lags_at(end, lag_max)).min();
                lags.map(|at| at.max(leading.propose_after))
            }
        };
        [next, leading.watermark_waits_until].into_iter().flatten().min()
    }

    pub(super) fn leader_on_deadline(&mut self, now: Tick, fx: &mut Vec<Effect>) {
        let due = |at: Option<Tick>| at.is_some_and(|at| at <= now);
        let Some(leading) = &mut self.leading else { return };
        let again = leading.proposal.as_mut().filter(|pending| due(pending.ask_again_at)).map(|pending| {
            pending.ask_again_at = None;
            pending.clone()
        });
        if let Some(pending) = again {
            fx.push(Effect::AlterPartition(self.alter_partition(pending.id, &pending.isr)));
        }
        self.maybe_shrink_isr(now, fx);
        if self.leading.as_ref().is_some_and(|leading| due(leading.watermark_waits_until)) {
            self.advance_high_watermark(now, fx);
        }
    }
}
