//! What the coordinator's answers change.

use std::collections::BTreeMap;

use klamm_wire::ErrorCode;

use super::event::{Chosen, CommitRefusal, CommittedOffset, Effect, Fatal, JoinAnswer, Reason, Refusal};
use super::member::{Coordinator, Membership, Phase, Starting, UnderWay};
use crate::assign::{Assignment, RebalanceProtocol};
use crate::{Tick, TopicPartition};

/// What a refusal asks for.
enum Cure {
    /// Look for the coordinator again.
    Find,
    /// Ask the same coordinator again later.
    Wait,
    /// Join again.
    Rejoin,
    /// The coordinator has given this member up.
    Expelled,
    /// Nothing helps.
    Stop(ErrorCode),
}

/// Attempts to join that came to nothing and are followed by the next one at once: one rebalance overtakes another, or a
/// member id is required. Whatever goes on for longer does not go away by hurrying.
const AT_ONCE: u32 = 3;

/// How often the wait for somebody to give up what is withheld is doubled.
const MOST_DOUBLINGS: u32 = 4;

fn cure(refusal: Refusal) -> Cure {
    let code = match refusal {
        Refusal::NoAnswer => return Cure::Find,
        Refusal::Code(code) => code,
    };
    match code {
        ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_NOT_AVAILABLE => Cure::Find,
        ErrorCode::REBALANCE_IN_PROGRESS => Cure::Rejoin,
        ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION => Cure::Expelled,
        ErrorCode::UNSTABLE_OFFSET_COMMIT => Cure::Wait,
        code if code.is_retriable() => Cure::Wait,
        code => Cure::Stop(code),
    }
}

impl Membership {
    pub(super) fn found(&mut self, now: Tick, answer: Result<i32, Refusal>, out: &mut Vec<Effect>) {
        if self.coordinator != Coordinator::Asked {
            return;
        }
        match answer {
            Ok(id) => {
                self.coordinator = Coordinator::Known(id);
                self.asked_for = false;
                self.next_beat = now;
            }
            Err(refusal) => {
                self.coordinator = Coordinator::Unknown;
                match cure(refusal) {
                    Cure::Stop(code) => self.fail(Fatal::Refused(code), out),
                    _ => self.back_off(now),
                }
            }
        }
    }

    fn back_off(&mut self, now: Tick) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now.saturating_add(self.settings.backoff.delay(self.failures, &mut self.rng)));
    }

    /// An attempt to join came to nothing, and nothing speaks against the next one but that it may be as vain.
    fn in_vain(&mut self, now: Tick) {
        self.vain = self.vain.saturating_add(1);
        if let Some(failures) = self.vain.checked_sub(AT_ONCE).filter(|failures| *failures > 0) {
            let pause = self.settings.backoff.delay(failures, &mut self.rng);
            self.retry_at = Some(now.saturating_add(pause)).max(self.retry_at);
        }
    }

    /// Whether a refusal means no more than that the generation that was joined last is not known any more: its coordinator has
    /// moved before it was written down. Then the one before goes on, in which the member owns what it owns. If that is not known
    /// either, the next refusal says so.
    fn goes_back(&mut self, sent_in: Option<i32>, refusal: Refusal) -> bool {
        let unknown = refusal == Refusal::Code(ErrorCode::ILLEGAL_GENERATION);
        // Who syncs or adopts has an assignment of that generation, or is about to.
        let between = matches!(
            self.phase,
            Phase::Preparing(_) | Phase::Joining(_) | Phase::Leading(_) | Phase::Ending(..)
        );
        let unassigned = self.held_since.is_some() && self.held_since != self.generation;
        let goes_back = unknown && between && unassigned && sent_in == self.generation;
        if goes_back {
            self.generation = self.held_since;
            self.beating = None;
            if matches!(self.phase, Phase::Leading(_)) {
                self.prepare(Reason::Rebalance);
            }
        }
        goes_back
    }

    /// Applies what a refusal of a join, sync or heartbeat asks for.
    fn refused(&mut self, now: Tick, refusal: Refusal, out: &mut Vec<Effect>) {
        match cure(refusal) {
            Cure::Find => {
                self.coordinator = Coordinator::Unknown;
                self.back_off(now);
            }
            Cure::Wait => self.back_off(now),
            Cure::Rejoin => {}
            Cure::Expelled => self.expelled(refusal, out),
            Cure::Stop(code) => self.fail(Fatal::Refused(code), out),
        }
    }

    fn expelled(&mut self, refusal: Refusal, out: &mut Vec<Effect>) {
        if refusal == Refusal::Code(ErrorCode::UNKNOWN_MEMBER_ID) {
            self.member_id = "".into();
        }
        self.lose(Reason::Expelled, out);
        self.prepare(Reason::Expelled);
    }

    pub(super) fn join_answered(
        &mut self,
        now: Tick,
        ticket: u64,
        answer: JoinAnswer,
        out: &mut Vec<Effect>,
    ) {
        let aside = self.ends_aside(ticket);
        if self.phase != Phase::Joining(ticket) && !aside {
            return;
        }
        self.heard = now;
        let joined = match answer {
            JoinAnswer::Joined(joined) => joined,
            _ if aside => return,
            JoinAnswer::MemberIdRequired(id) => {
                self.member_id = id;
                self.prepare(Reason::Rebalance);
                return self.in_vain(now);
            }
            JoinAnswer::Refused(refusal) => {
                self.prepare(Reason::Rebalance);
                if matches!(cure(refusal), Cure::Rejoin) {
                    self.back_off(now);
                }
                self.in_vain(now);
                return self.refused(now, refusal, out);
            }
        };
        self.generation = Some(joined.generation);
        self.member_id = joined.member_id;
        self.assignor = joined.assignor;
        self.alive = now;
        self.next_beat = now.saturating_add(self.settings.heartbeat);
        self.led = None;
        match joined.members {
            Some(members) => {
                let ticket = self.ticket();
                self.go_on(Phase::Leading(ticket), ticket);
                let stands = joined.stands;
                self.looked_since = false;
                out.push(Effect::Lead { ticket, assignor: self.assignor.clone(), members, stands });
            }
            None => {
                self.follows = true;
                self.sync(Vec::new(), out);
            }
        }
    }

    /// Whether this is the answer to what goes on beside the end of the member.
    fn ends_aside(&mut self, ticket: u64) -> bool {
        self.aside.take_if(|aside| *aside == ticket).is_some()
    }

    /// The next request of a changeover, in the open or beside the end of the member.
    fn go_on(&mut self, phase: Phase, ticket: u64) {
        match self.phase {
            Phase::Ending(..) => self.aside = Some(ticket),
            _ => self.phase = phase,
        }
    }

    pub(super) fn led(
        &mut self,
        now: Tick,
        ticket: u64,
        chosen: Result<Chosen, String>,
        out: &mut Vec<Effect>,
    ) {
        let aside = self.ends_aside(ticket);
        if self.phase != Phase::Leading(ticket) && !aside {
            return;
        }
        match chosen {
            Err(_) if aside => {}
            // The generation to lead is known to nobody any more.
            Ok(_) if aside && self.generation == self.held_since => {}
            Ok(Chosen { assignments, shapes, withheld }) => {
                self.led = Some(shapes);
                // What stands was assigned by somebody else, who had looked at the topics before.
                self.looked_since |= assignments.is_empty();
                self.wait_for_withheld(now, withheld);
                self.sync(assignments, out);
            }
            Err(reason) => {
                // Another member may lead with more luck.
                self.leave(Reason::Failed, out);
                self.fail(Fatal::Assignor(reason), out);
            }
        }
    }

    /// Whoever gives up what is withheld joins again; if nobody does, this leader does after a session. One that stays silent is
    /// waited for at each rebalance, so that there are ever fewer of those.
    fn wait_for_withheld(&mut self, now: Tick, withheld: bool) {
        self.withheld_until = None;
        if !withheld || self.settings.protocol != RebalanceProtocol::Cooperative {
            self.withheld = 0;
            return;
        }
        let pause = self.settings.session.saturating_mul(1 << self.withheld.min(MOST_DOUBLINGS));
        self.withheld = self.withheld.saturating_add(1);
        self.withheld_until = Some(now.saturating_add(pause));
    }

    fn sync(&mut self, assignments: Vec<(std::sync::Arc<str>, bytes::Bytes)>, out: &mut Vec<Effect>) {
        let (Some(coordinator), Some(generation)) = (self.known(), self.generation) else {
            return self.prepare(Reason::Rebalance);
        };
        let ticket = self.ticket();
        self.go_on(Phase::Syncing(ticket), ticket);
        let (member_id, assignor) = (self.member_id.clone(), self.assignor.clone());
        out.push(Effect::Sync { ticket, coordinator, member_id, generation, assignor, assignments });
    }

    pub(super) fn sync_answered(
        &mut self,
        now: Tick,
        ticket: u64,
        answer: Result<Result<Assignment, String>, Refusal>,
        out: &mut Vec<Effect>,
    ) {
        if self.ends_aside(ticket) || self.phase != Phase::Syncing(ticket) {
            return;
        }
        match answer {
            Ok(Ok(assignment)) => {
                self.failures = 0;
                self.vain = 0;
                self.phase = Phase::Adopting(assignment);
            }
            Ok(Err(reason)) => {
                self.leave(Reason::Failed, out);
                self.fail(Fatal::Assignment(reason), out);
            }
            Err(refusal) => {
                self.prepare(Reason::Rebalance);
                self.in_vain(now);
                if !self.goes_back(self.generation, refusal) {
                    self.refused(now, refusal, out);
                }
            }
        }
    }

    pub(super) fn beaten(
        &mut self,
        now: Tick,
        ticket: u64,
        answer: Result<(), Refusal>,
        out: &mut Vec<Effect>,
    ) {
        let Some((_, sent)) = self.beating.take_if(|(beat, _)| *beat == ticket) else {
            return;
        };
        match answer {
            Ok(()) => {
                self.alive = self.alive.max(sent);
                self.failures = 0;
            }
            Err(refusal) if self.goes_back(self.generation, refusal) => {}
            Err(refusal) => match cure(refusal) {
                Cure::Rejoin => {
                    self.alive = self.alive.max(sent);
                    // Before the sync is answered this is no news: the answer will say so.
                    if self.phase == Phase::Stable || matches!(self.phase, Phase::Adopting(_)) {
                        self.rejoin(Reason::Rebalance);
                    }
                }
                Cure::Wait => {}
                _ => self.refused(now, refusal, out),
            },
        }
    }

    /// Out, or once more: where the coordinator has moved, or cannot answer yet, the member lives on.
    pub(super) fn left(
        &mut self,
        now: Tick,
        ticket: u64,
        answer: Result<(), Refusal>,
        out: &mut Vec<Effect>,
    ) {
        let Phase::Leaving(current, reason, for_good) = self.phase else { return };
        if current != ticket {
            return;
        }
        let again = answer.err().map(cure).filter(|_| now < self.forgotten_at());
        match again {
            Some(Cure::Find) => self.coordinator = Coordinator::Unknown,
            Some(Cure::Wait) => {}
            _ => return self.gone(for_good, out),
        }
        self.back_off(now);
        self.phase = Phase::Ending(reason, for_good);
    }

    pub(super) fn committed(
        &mut self,
        now: Tick,
        id: u64,
        answer: Result<(), Refusal>,
        out: &mut Vec<Effect>,
    ) {
        let Some(UnderWay { generation: sent_in, synced, .. }) = self.commits.remove(&id) else {
            return;
        };
        let refusal = match answer {
            Ok(()) => return out.push(Effect::CommitDone(id, Ok(()))),
            Err(refusal) => refusal,
        };
        let current = sent_in == self.generation && self.generation.is_some();
        let why = match (cure(refusal), refusal) {
            (Cure::Find, _) => {
                if self.known().is_some() {
                    self.coordinator = Coordinator::Unknown;
                    self.back_off(now);
                }
                CommitRefusal::Later(refusal)
            }
            (Cure::Wait, _) => CommitRefusal::Later(refusal),
            (Cure::Rejoin, _) => {
                // Sent before the sync was answered, it met the rebalance that is over by now, or soon will be.
                if current && synced {
                    self.rejoin(Reason::Rebalance);
                }
                CommitRefusal::Later(refusal)
            }
            (Cure::Expelled, Refusal::Code(code)) if sent_in.is_none() => CommitRefusal::HasMembers(code),
            (Cure::Expelled, _) if self.goes_back(sent_in, refusal) => CommitRefusal::Later(refusal),
            // The next generation may be on its way to us already.
            (Cure::Expelled, _) if self.is_joining() => CommitRefusal::Later(refusal),
            // Refused in a generation that this member has left since, and it owns what it commits: in the present one, then.
            (Cure::Expelled, Refusal::Code(ErrorCode::ILLEGAL_GENERATION))
                if !current && self.generation.is_some() =>
            {
                CommitRefusal::Later(refusal)
            }
            (Cure::Expelled, Refusal::Code(code)) => {
                if current {
                    self.expelled(refusal, out);
                }
                CommitRefusal::Expelled(code)
            }
            (Cure::Stop(ErrorCode::FENCED_INSTANCE_ID), _) => {
                if current {
                    self.fail(Fatal::Refused(ErrorCode::FENCED_INSTANCE_ID), out);
                }
                CommitRefusal::Expelled(ErrorCode::FENCED_INSTANCE_ID)
            }
            (Cure::Stop(code), _) => CommitRefusal::Refused(code),
            (Cure::Expelled, Refusal::NoAnswer) => CommitRefusal::Later(refusal),
        };
        out.push(Effect::CommitDone(id, Err(why)));
    }

    fn ask_offsets_later(&mut self, now: Tick) {
        self.starting.failures = self.starting.failures.saturating_add(1);
        let pause = self.settings.backoff.delay(self.starting.failures, &mut self.rng);
        self.starting.retry_at = Some(now.saturating_add(pause));
    }

    pub(super) fn offsets(
        &mut self,
        now: Tick,
        ticket: u64,
        answer: Result<BTreeMap<TopicPartition, Option<CommittedOffset>>, Refusal>,
        out: &mut Vec<Effect>,
    ) {
        if self.starting.asked != Some(ticket) {
            return;
        }
        self.starting.asked = None;
        match answer {
            // It left out what it was asked for.
            Ok(found) if found.is_empty() => self.ask_offsets_later(now),
            Ok(mut found) => {
                self.starting.failures = 0;
                let Starting { wanted, since, .. } = &mut self.starting;
                found.retain(|name, _| {
                    !since.contains(name) && wanted.remove(name) && !self.going.contains(name)
                });
                if !found.is_empty() {
                    out.push(Effect::Start(found));
                }
            }
            Err(refusal) => {
                self.ask_offsets_later(now);
                match cure(refusal) {
                    Cure::Find if self.known().is_some() => {
                        self.coordinator = Coordinator::Unknown;
                        self.back_off(now);
                    }
                    Cure::Stop(code) => self.fail(Fatal::Refused(code), out),
                    _ => {}
                }
            }
        }
    }
}
