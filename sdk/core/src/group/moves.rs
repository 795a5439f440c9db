//! What the member does next by itself, once nothing stands in the way.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_wire::planted::{Bug, planted};

use super::event::{Call, Effect, Reason};
use super::member::{Coordinator, Membership, Phase};
use crate::assign::{Assignment, RebalanceProtocol};
use crate::{Tick, TopicPartition};

/// The coordinator answers JoinGroup when all members are in, which takes up to `max.poll.interval.ms`, and then some.
const JOIN_SLACK: Tick = Tick::from_secs(5);

impl Membership {
    pub(super) fn proceed(&mut self, now: Tick, out: &mut Vec<Effect>) {
        self.retry_at.take_if(|at| *at <= now);
        self.starting.retry_at.take_if(|at| *at <= now);
        while self.call(now, out) || self.calling.is_none() && self.advance(now, out) {}
        self.recall(out);
        self.find(out);
        self.ask_offsets(out);
        self.beat(now, out);
    }

    /// One move, with no listener call under way or waiting; `false` if there is none to make.
    fn advance(&mut self, now: Tick, out: &mut Vec<Effect>) -> bool {
        match &self.phase {
            Phase::Preparing(reason) => {
                let reason = *reason;
                let unwanted = self.to_give_up();
                let waits = self.revoke(unwanted, reason, out) && !planted(Bug::JoinBeforeRevoked);
                waits || self.join(reason, now, out)
            }
            Phase::Adopting(assignment) => {
                let assignment = assignment.clone();
                self.adopt(&assignment, out)
            }
            Phase::Ending(reason, for_good) => {
                let (reason, for_good) = (*reason, *for_good);
                let all = self.owned.clone();
                if self.revoke(all, reason, out) {
                    return true;
                }
                if self.owes_its_part() && now < self.part_ends() {
                    return false;
                }
                self.aside = None;
                // Else the others would wait for it as long as its session lasts.
                if self.waits_to_leave() && now < self.forgotten_at() {
                    return false;
                }
                match self.leave(reason, out) {
                    Some(ticket) => self.phase = Phase::Leaving(ticket, reason, for_good),
                    None => self.gone(for_good, out),
                }
                true
            }
            Phase::Stable => match self.again.take().or_else(|| self.outdated()) {
                Some(reason) => {
                    self.phase = Phase::Preparing(reason);
                    true
                }
                None => {
                    self.looked_since = false;
                    false
                }
            },
            _ => false,
        }
    }

    /// What has to go before a JoinGroup: everything, or cooperatively what is not subscribed to any more.
    fn to_give_up(&self) -> BTreeSet<TopicPartition> {
        if self.settings.protocol == RebalanceProtocol::Eager {
            return self.owned.clone();
        }
        let wanted = |topic: &Arc<str>| self.topics.as_ref().is_some_and(|topics| topics.contains(topic));
        self.owned.iter().filter(|name| !wanted(&name.topic)).cloned().collect()
    }

    fn revoke(
        &mut self,
        partitions: BTreeSet<TopicPartition>,
        reason: Reason,
        out: &mut Vec<Effect>,
    ) -> bool {
        if partitions.is_empty() {
            return false;
        }
        let names: Vec<_> = partitions.iter().cloned().collect();
        self.going = partitions;
        out.push(Effect::Stop(names.clone()));
        self.calls.push_back(Call::Revoked(names, reason));
        true
    }

    fn join(&mut self, reason: Reason, now: Tick, out: &mut Vec<Effect>) -> bool {
        let Some(coordinator) = self.known() else {
            return false;
        };
        if self.retry_at.is_some() {
            return false;
        }
        self.joins_for.get_or_insert(reason);
        let topics = self.topics.clone().unwrap_or_default();
        self.told_topics = topics.clone();
        self.again = None;
        self.beating = None;
        self.heard = now;
        // Whoever leads the next generation looks at the topics anew.
        self.led = None;
        self.withheld_until = None;
        self.follows = false;
        self.claimed.extend(self.owned.iter().cloned());
        let ticket = self.ticket();
        self.phase = Phase::Joining(ticket);
        out.push(Effect::Join {
            ticket,
            coordinator,
            member_id: self.member_id.clone(),
            topics,
            owned: self.owned.iter().cloned().collect(),
            generation: self.held_since,
            limit: self.settings.max_poll.saturating_add(JOIN_SLACK).max(self.settings.request),
        });
        true
    }

    /// Gives up what is not in the assignment, then takes what is new in it.
    fn adopt(&mut self, assignment: &Assignment, out: &mut Vec<Effect>) -> bool {
        let wanted = |name: &&TopicPartition| self.told_topics.contains(&name.topic);
        let target: BTreeSet<_> = assignment.partitions.iter().filter(wanted).cloned().collect();
        let mut lost = &self.owned - &target;
        let gone =
            |name: &TopicPartition| self.shapes.get(&name.topic).is_some_and(|shape| shape.partitions == 0);
        let reason = if lost.iter().all(gone) { Reason::TopicsChanged } else { Reason::GivenAway };
        if planted(Bug::KeepRevoked) && !lost.is_empty() {
            lost.clear();
            self.again.get_or_insert(reason);
        }
        if self.revoke(lost, reason, out) {
            self.again.get_or_insert(reason);
            return true;
        }
        let Some(generation) = self.generation else {
            return false;
        };
        self.held_since = Some(generation);
        let joined_for = self.joins_for.take().unwrap_or(Reason::Rebalance);
        let new: Vec<_> = target.difference(&self.owned).cloned().collect();
        self.owned = target;
        self.tenures.retain(|name, _| self.owned.contains(name));
        let tenure = self.ticket();
        self.tenures.extend(new.iter().map(|name| (name.clone(), tenure)));
        out.push(Effect::Adopt(self.assignor.clone(), assignment.clone(), generation));
        let claimed = std::mem::take(&mut self.claimed);
        let waited_for =
            |name: &TopicPartition| self.told_topics.contains(&name.topic) && !self.owned.contains(name);
        if self.settings.protocol == RebalanceProtocol::Cooperative && claimed.iter().any(waited_for) {
            self.again.get_or_insert(Reason::GivenAway);
        }
        if self.topics.as_ref() != Some(&self.told_topics) {
            self.again.get_or_insert(Reason::SubscriptionChanged);
        }
        self.phase = Phase::Stable;
        if !new.is_empty() {
            out.push(Effect::Add(new.clone()));
            self.calls.push_back(Call::Assigned(new, joined_for));
        }
        true
    }

    fn find(&mut self, out: &mut Vec<Effect>) {
        if self.wants_coordinator() && self.retry_at.is_none() {
            self.coordinator = Coordinator::Asked;
            out.push(Effect::FindCoordinator);
        }
    }

    fn ask_offsets(&mut self, out: &mut Vec<Effect>) {
        let due = self.starting.retry_at.is_none();
        if self.starting.asked.is_some() || self.starting.wanted.is_empty() || !due {
            return;
        }
        if let Some(coordinator) = self.known() {
            let ticket = self.ticket();
            self.starting.asked = Some(ticket);
            self.starting.since.clear();
            let partitions = self.starting.wanted.iter().cloned().collect();
            out.push(Effect::FetchOffsets { ticket, coordinator, partitions });
        }
    }

    fn beat(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let (Some(coordinator), Some(generation)) = (self.known(), self.generation) else {
            return;
        };
        if self.beats() && self.beating.is_none() && self.next_beat <= now {
            let ticket = self.ticket();
            self.beating = Some((ticket, now));
            self.next_beat = now.saturating_add(self.settings.heartbeat);
            out.push(Effect::Heartbeat {
                ticket,
                coordinator,
                member_id: self.member_id.clone(),
                generation,
            });
        }
    }
}
