//! One rule: which requests it is for, how often it has acted, and the gate behind which it may hold them.

use std::fmt;
use std::sync::Arc;

use klamm_wire::seam::Frame;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::named::Named;
use super::{Fault, Stage};
use crate::broker::CONTROLLER_ID;
use crate::node::{Network, Party, Side};

/// Whether a rule for the node `id` is one for `node`; 0 is every controller, as only the active one decides.
fn is_at(id: i32, node: &Party) -> bool {
    match node {
        Party::Controller(_) if id == CONTROLLER_ID => true,
        node => node.id() == Some(id),
    }
}

/// Looks into a request.
pub(crate) type Predicate = Arc<dyn Fn(&Frame) -> bool + Send + Sync>;

/// Which requests a rule is for.
#[derive(Clone, Default)]
pub(crate) struct Criteria {
    pub(crate) api_key: Option<i16>,
    pub(crate) node: Option<i32>,
    pub(crate) from: Option<Side>,
    pub(crate) topic: Option<(String, Option<i32>)>,
    pub(crate) predicates: Vec<Predicate>,
    pub(crate) skip: usize,
    pub(crate) times: Option<usize>,
}

/// What a rule does.
#[derive(Debug)]
pub(crate) enum Act {
    Fault(Fault),
    Hold(Arc<Held>),
}

/// A rule, shared by its guard and the requests it has chosen.
pub(crate) struct RuleState {
    criteria: Criteria,
    pub(super) stage: Stage,
    pub(super) act: Act,
    counts: Mutex<Counts>,
    hit: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    matched: usize,
    hits: usize,
    gone: bool,
}

impl fmt::Debug for RuleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").field("stage", &self.stage).field("act", &self.act).finish_non_exhaustive()
    }
}

impl RuleState {
    pub(crate) fn new(criteria: Criteria, stage: Stage, act: Act) -> Arc<Self> {
        Arc::new(Self { criteria, stage, act, counts: Mutex::default(), hit: Notify::new() })
    }

    /// Whether this request is the rule's to act on; `named` tells the topics it names.
    pub(super) fn takes<'a>(
        &self,
        node: &Party,
        from: &Party,
        request: &Frame,
        named: impl FnOnce() -> &'a [Named],
    ) -> bool {
        let wanted = &self.criteria;
        let plain = wanted.api_key.is_none_or(|key| key == request.api_key)
            && wanted.node.is_none_or(|id| is_at(id, node))
            && wanted.from.as_ref().is_none_or(|side| side.includes(from));
        let matches = plain
            && wanted.topic.as_ref().is_none_or(|(topic, partition)| {
                named().iter().any(|named| named.includes(topic, *partition))
            })
            && wanted.predicates.iter().all(|predicate| predicate(request));
        if !matches {
            return false;
        }
        let mut counts = self.counts.lock();
        let place = counts.matched;
        counts.matched += 1;
        let acted = place.checked_sub(wanted.skip);
        !counts.gone && acted.is_some_and(|acted| wanted.times.is_none_or(|times| acted < times))
    }

    pub(super) fn is_gone(&self) -> bool {
        self.counts.lock().gone
    }

    /// Counts that the rule has acted.
    pub(super) fn has_acted(&self) {
        self.counts.lock().hits += 1;
        self.hit.notify_waiters();
    }

    fn end(&self) {
        self.counts.lock().gone = true;
    }

    fn hits(&self) -> usize {
        self.counts.lock().hits
    }

    async fn until_hits(&self, wanted: usize) {
        loop {
            let hit = self.hit.notified();
            tokio::pin!(hit);
            hit.as_mut().enable();
            if self.hits() >= wanted {
                return;
            }
            hit.await;
        }
    }
}

/// A rule that is in force until this is dropped. See [`Cluster::on`](crate::Cluster::on).
#[must_use = "the rule is gone when this is dropped"]
pub struct Rule {
    network: Arc<Network>,
    state: Arc<RuleState>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.state).finish()
    }
}

impl Rule {
    pub(crate) fn new(network: Arc<Network>, state: Arc<RuleState>) -> Self {
        network.add_rule(state.clone());
        Self { network, state }
    }

    /// How often the rule has acted.
    pub fn hits(&self) -> usize {
        self.state.hits()
    }

    /// Waits until the rule has acted at least once since it was made.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn hit(&self) {
        self.until_hits(1).await;
    }

    /// Waits until the rule has acted at least `hits` times since it was made.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn until_hits(&self, hits: usize) {
        self.state.until_hits(hits).await;
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        self.state.end();
        self.network.remove_rule(&self.state);
    }
}

/// Requests that are kept from going on.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<oneshot::Sender<()>>,
    open: bool,
}

impl Held {
    /// Joins those who are held.
    pub(super) fn join(&self) -> impl Future<Output = ()> + Send + 'static {
        let (release, released) = oneshot::channel();
        let mut queue = self.0.lock();
        if !queue.open {
            queue.waiting.push(release);
        }
        async move {
            // A gate that is gone lets everything pass.
            let _ = released.await;
        }
    }

    fn count(&self) -> usize {
        let mut queue = self.0.lock();
        queue.waiting.retain(|waiting| !waiting.is_closed());
        queue.waiting.len()
    }

    fn release(&self, for_ever: bool) -> usize {
        let waiting = {
            let mut queue = self.0.lock();
            queue.open |= for_ever;
            std::mem::take(&mut queue.waiting)
        };
        waiting.into_iter().filter_map(|waiting| waiting.send(()).ok()).count()
    }
}

/// Holds requests until they are released; dropped, everything goes on. See
/// [`RuleBuilder::hold`](crate::RuleBuilder::hold).
#[derive(Debug)]
#[must_use = "everything is released when this is dropped"]
pub struct Gate {
    rule: Rule,
    held: Arc<Held>,
}

impl Gate {
    pub(crate) fn new(rule: Rule, held: Arc<Held>) -> Self {
        Self { rule, held }
    }

    /// Waits until at least one request has come to the gate since it was made.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn hit(&self) {
        self.rule.hit().await;
    }

    /// Waits until at least `hits` requests have come to the gate since it was made.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn until_hits(&self, hits: usize) {
        self.rule.until_hits(hits).await;
    }

    /// How many requests have come to the gate since it was made.
    pub fn hits(&self) -> usize {
        self.rule.hits()
    }

    /// How many requests are held now; those whose connection is gone are not counted.
    pub fn held(&self) -> usize {
        self.held.count()
    }

    /// Lets those go on that are held now, in the order they came, and returns how many. What comes later is held again.
    pub fn release(&self) -> usize {
        self.held.release(false)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.held.release(true);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Goal: a request that comes to a gate in the moment it is dropped, on another thread, is not held for ever.
    #[test]
    fn whoever_comes_to_a_gate_that_is_gone_passes() {
        let held = Held::default();
        let before = held.join();
        assert_eq!((held.count(), held.release(true)), (1, 1));
        let after = held.join();
        assert_eq!((before.now_or_never(), after.now_or_never()), (Some(()), Some(())));
    }
}
