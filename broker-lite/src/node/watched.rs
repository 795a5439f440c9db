//! A request's way through its node while somebody watches: who listens in, who keeps a journal, who has made rules.
//!
//! ```text
//! arrives ─▶ BeforeApply ─▶ Node::take_in ─▶ AfterAppend ─▶ answer ready ─▶ AfterCommit ─▶ BeforeAnswer ─▶ written
//! ```
//!
//! Invariant: without a rule that matches, what happens is what happens if nobody watches.

use std::future::pending;
use std::sync::Arc;

use klamm_wire::seam::{BoxFuture, Frame};

use super::conversation::{Answer, Peer, Pending, Reply};
use super::tap::Carried;
use super::{Node, Role};
use crate::journal::Noted;
use crate::rules::{Chosen, Stage, Strike};

/// What came of a request.
pub(super) enum TakenIn<T> {
    Pending(Pending<T>),
    /// The connection is gone.
    Broken,
    /// Neither this nor what is behind it is ever answered. Whoever waits goes on waiting while this is kept.
    Deaf(Silenced<T>),
}

/// The same, as the rules have it.
enum Ruled<T> {
    Pending(Pending<T>),
    Silenced(T),
    Broken,
}

/// A request that is never answered.
pub(super) struct Silenced<T> {
    _noted: Option<Noted>,
    _to: T,
}

impl Node {
    /// Takes in one request, as [`Self::take_in`] does.
    pub(super) async fn take_in_watched<T>(self: Arc<Self>, frame: Frame, peer: &Peer, to: T) -> TakenIn<T> {
        let noted = self.network.note(self.network.watched(), self.id, peer.party(), &frame);
        match self.follow_rules(frame, peer, to).await {
            Ruled::Pending(pending) => TakenIn::Pending(Pending { noted, ..pending }),
            Ruled::Silenced(to) => TakenIn::Deaf(Silenced { _noted: noted, _to: to }),
            Ruled::Broken => {
                Noted::broken_by_rule(noted);
                TakenIn::Broken
            }
        }
    }

    async fn follow_rules<T>(self: Arc<Self>, frame: Frame, peer: &Peer, to: T) -> Ruled<T> {
        let network = &self.network;
        let watched = network.watched();
        network.tell(watched, peer.party(), &self.party(), Carried::Request(&frame));
        let Some(chosen) = network.choose_rule(watched, &self.party(), peer.party(), &frame) else {
            return Ruled::Pending(self.take_in(frame, peer, to));
        };
        let mut pending = match chosen.strike(Stage::BeforeApply, &self, None) {
            Strike::Pass => self.take_in(frame, peer, to),
            Strike::Wait(wait) => {
                wait.await;
                self.take_in(frame, peer, to)
            }
            Strike::Reply(reply) => {
                let answer = Answer::Now(reply);
                return Ruled::Pending(Pending { answer, owed: None, abandonable: false, noted: None, to });
            }
            Strike::Silence => return Ruled::Silenced(to),
            Strike::Break => return Ruled::Broken,
        };
        match chosen.strike(Stage::AfterAppend, &self, None) {
            Strike::Pass => {}
            Strike::Wait(wait) => pending.answer = Answer::Later(after(wait, pending.answer)),
            Strike::Reply(reply) => pending.answer = Answer::Now(reply),
            Strike::Silence => pending.answer = Answer::Later(Box::pin(std::future::pending())),
            Strike::Break => return Ruled::Broken,
        }
        pending.abandonable |= chosen.may_keep_for_ever();
        if !chosen.acts_at(Stage::AfterCommit) && !chosen.acts_at(Stage::BeforeAnswer) {
            return Ruled::Pending(pending);
        }
        pending.answer = match pending.answer {
            Answer::Now(reply) if chosen.acts_at(Stage::AfterCommit) => {
                match chosen.strike(Stage::AfterCommit, &self, Some(&reply)) {
                    Strike::Pass => Answer::Now(reply),
                    Strike::Wait(wait) => Answer::Later(after(wait, Answer::Now(reply))),
                    Strike::Reply(other) => Answer::Now(other),
                    Strike::Silence => Answer::Later(Box::pin(std::future::pending())),
                    Strike::Break => return Ruled::Broken,
                }
            }
            answer => Answer::Later(Box::pin(self.finish(chosen, answer))),
        };
        Ruled::Pending(pending)
    }

    /// The last two stages, when it is the answer's turn.
    async fn finish(self: Arc<Self>, chosen: Chosen, answer: Answer) -> Reply {
        let mut reply = match answer {
            Answer::Now(reply) => reply,
            Answer::Later(reply) => reply.await,
        };
        for stage in [Stage::AfterCommit, Stage::BeforeAnswer] {
            match chosen.strike(stage, &self, Some(&reply)) {
                Strike::Pass => {}
                Strike::Wait(wait) => wait.await,
                Strike::Reply(other) => reply = other,
                Strike::Silence => return pending().await,
                Strike::Break => return Reply::Break,
            }
        }
        reply
    }

    /// Ends the process of this node from inside, or its power.
    pub(crate) fn die(&self, power_off: bool) {
        match &self.role {
            Role::Broker(broker) => broker.die(power_off),
            Role::Controller(controller) => controller.die(power_off),
        }
        tracing::info!(node = self.id, power_off, "killed by a rule");
    }
}

/// The answer, and before it a wait.
fn after(wait: BoxFuture<()>, answer: Answer) -> BoxFuture<Reply> {
    Box::pin(async move {
        wait.await;
        match answer {
            Answer::Now(reply) => reply,
            Answer::Later(reply) => reply.await,
        }
    })
}
