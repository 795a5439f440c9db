//! Rules over requests: what shall happen to which of them, and at which point of their lives.
//!
//! In: rules in the order they were made, and requests as they arrive. Out: what strikes a request at a stage.
//!
//! Invariant: the first rule that takes a request decides about it, alone and for all its life. No lock of this module
//! is held while code of the rule's maker runs.

mod fault;
mod named;
mod refusal;
mod rule;

use std::cell::OnceCell;
use std::sync::Arc;

use klamm_wire::ErrorCode;
use klamm_wire::codec::CodecError;
use klamm_wire::seam::{BoxFuture, Frame};
use parking_lot::Mutex;
use uuid::Uuid;

pub use fault::{Answers, Call, Edit, Fault, Stage};
pub(crate) use named::{Named, named};
pub(crate) use refusal::{errors_in, refusal};
pub(crate) use rule::{Act, Criteria, Held, RuleState};
pub use rule::{Gate, Rule};

use crate::node::{Node, Party, Reply};

const METADATA: i16 = 3;

/// Every rule in force, in order of creation.
#[derive(Debug, Default)]
pub(crate) struct Rules(Mutex<Vec<Arc<RuleState>>>);

impl Rules {
    /// Changes them; `then` is told under the same lock whether there are any.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Vec<Arc<RuleState>>), then: impl FnOnce(bool)) {
        let mut rules = self.0.lock();
        change(&mut rules);
        then(!rules.is_empty());
    }

    /// The rule that acts on this request, if there is one. `name_of` tells the name of a topic by its id.
    pub(crate) fn choose(
        &self,
        node: &Party,
        from: &Party,
        request: &Frame,
        name_of: impl Fn(Uuid) -> Option<String>,
    ) -> Option<Chosen> {
        let rules = self.0.lock().clone();
        let topics = OnceCell::new();
        let topics = || &**topics.get_or_init(|| named(request, &name_of));
        let rule = rules.into_iter().find(|rule| rule.takes(node, from, request, topics))?;
        Some(Chosen { rule, request: request.clone() })
    }
}

/// A request, and the rule that acts on it.
pub(crate) struct Chosen {
    rule: Arc<RuleState>,
    request: Frame,
}

/// What a rule does to a request at a stage.
pub(crate) enum Strike {
    /// Nothing.
    Pass,
    /// It goes on when this is done.
    Wait(BoxFuture<()>),
    /// This is what it is answered.
    Reply(Reply),
    /// It is never answered.
    Silence,
    /// Its connection is gone.
    Break,
}

impl Chosen {
    /// Nobody misses the answer once the client is gone, however long it would be kept.
    pub(crate) fn may_keep_for_ever(&self) -> bool {
        matches!(self.rule.act, Act::Hold(_) | Act::Fault(Fault::Silence))
    }

    fn stage(&self) -> Stage {
        let needs_answer = match &self.rule.act {
            Act::Fault(Fault::Edit(_)) => true,
            // Without the real brokers in it a client could not even ask again.
            Act::Fault(Fault::Error(_)) => self.request.api_key == METADATA,
            _ => false,
        };
        if needs_answer { self.rule.stage.max(Stage::AfterCommit) } else { self.rule.stage }
    }

    /// Whether this is the stage at which the rule acts.
    pub(crate) fn acts_at(&self, stage: Stage) -> bool {
        self.stage() == stage
    }

    /// What happens at this stage; `reply` is what would be sent, as soon as that is known.
    pub(crate) fn strike(&self, stage: Stage, node: &Node, reply: Option<&Reply>) -> Strike {
        if !self.acts_at(stage) || self.rule.is_gone() {
            return Strike::Pass;
        }
        let strike = match &self.rule.act {
            Act::Hold(held) => Strike::Wait(Box::pin(held.join())),
            Act::Fault(fault) => self.apply(fault, node, reply),
        };
        tracing::debug!(node = node.id, api_key = self.request.api_key, rule = ?self.rule, "rule acts");
        self.rule.has_acted();
        strike
    }

    fn apply(&self, fault: &Fault, node: &Node, reply: Option<&Reply>) -> Strike {
        let real = match reply {
            Some(Reply::Frame(frame)) => Some(frame),
            _ => None,
        };
        match fault {
            Fault::DropConnection => Strike::Break,
            Fault::Silence => Strike::Silence,
            Fault::Delay(time) => {
                let (rt, time) = (node.rt.clone(), *time);
                Strike::Wait(Box::pin(async move { rt.sleep(time).await }))
            }
            Fault::Error(code) => Strike::Reply(self.refuse(*code, real)),
            Fault::Edit(edit) => real.map_or(Strike::Pass, |real| answered(edit.0(real))),
            Fault::Answer(answer) if matches!(reply, Some(Reply::Nothing)) => {
                tracing::debug!(rule = ?answer, "nobody waits for this answer");
                Strike::Pass
            }
            Fault::Answer(answer) => answered(answer.0(&self.request)),
            Fault::Kill | Fault::PowerOff => {
                node.die(matches!(fault, Fault::PowerOff));
                Strike::Break
            }
            Fault::Call(call) => {
                call.0(&self.request);
                if node.life.is_dead() { Strike::Break } else { Strike::Pass }
            }
        }
    }

    fn refuse(&self, code: ErrorCode, real: Option<&Frame>) -> Reply {
        match refusal::refusal(&self.request, code, real) {
            Ok(Some(frame)) => Reply::Frame(frame),
            Ok(None) => Reply::Close,
            Err(error) => {
                tracing::warn!(%error, api_key = self.request.api_key, "a rule cannot answer with its error");
                Reply::Close
            }
        }
    }
}

fn answered(frame: Result<Option<Frame>, CodecError>) -> Strike {
    match frame {
        Ok(Some(frame)) => Strike::Reply(Reply::Frame(frame)),
        Ok(None) => Strike::Pass,
        Err(error) => {
            tracing::warn!(%error, "a rule's answer cannot be expressed, closing the connection");
            Strike::Reply(Reply::Close)
        }
    }
}
