//! Rules over requests: what shall happen to which of them, and when.

use std::sync::Arc;

use klamm_wire::Request;
use klamm_wire::codec::decode_request;
use klamm_wire::messages::ApiKey;
use klamm_wire::seam::Frame;

use super::Cluster;
use crate::node::{Network, Side};
use crate::rules::{Act, Criteria, Fault, Gate, Held, Rule, RuleState, Stage};

/// Faults of single requests.
impl Cluster {
    /// Begins a rule for the requests of one API, at every node, from everybody: clients, other brokers, forwarded ones.
    ///
    /// A rule is in force until its guard is dropped. Of several, the first that was made and matches a request acts on
    /// it, and no other does. All are drawn up and followed in the same order in process and over sockets.
    ///
    /// ```
    /// # async fn example(cluster: &broker_lite::Cluster) {
    /// use broker_lite::{ApiKey, Fault, Stage};
    ///
    /// // The next Produce of `payments` for orders-0 is appended, and its answer is lost.
    /// let lost = cluster
    ///     .on(ApiKey::Produce)
    ///     .topic("orders", 0)
    ///     .client("payments")
    ///     .times(1)
    ///     .at(Stage::AfterAppend)
    ///     .then(Fault::DropConnection);
    /// // ... send a record
    /// lost.hit().await;
    /// // ... and see that it is in the log once.
    /// # }
    /// ```
    pub fn on(&self, api: ApiKey) -> RuleBuilder {
        let mut rule = self.on_any();
        rule.criteria.api_key = Some(api as i16);
        rule
    }

    /// Begins a rule for the requests of every API.
    pub fn on_any(&self) -> RuleBuilder {
        let network = self.started.network.clone();
        RuleBuilder { network, criteria: Criteria::default(), stage: Stage::default() }
    }
}

/// A rule that is being made: which requests, at which stage. It comes into force by [`Self::then`] or one of its kin.
#[must_use = "a rule that is not given something to do does nothing"]
pub struct RuleBuilder {
    network: Arc<Network>,
    criteria: Criteria,
    stage: Stage,
}

impl std::fmt::Debug for RuleBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleBuilder").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl RuleBuilder {
    /// Only at this node; 0 is whichever controller. A broker keeps its rules over its death.
    pub fn broker(mut self, id: i32) -> Self {
        self.criteria.node = Some(id);
        self
    }

    /// Only from these: `Side::Clients`, `Side::Brokers`, a node by its id…
    pub fn from(mut self, side: impl Into<Side>) -> Self {
        self.criteria.from = Some(side.into());
        self
    }

    /// Only from clients with this `client.id`.
    pub fn client(self, id: &str) -> Self {
        self.from(Side::client(id))
    }

    /// Only if the request names this partition, or with `None` any partition of the topic. Topics that a request
    /// names by id are known by their names. A request that names topics without partitions (Metadata, CreateTopics,
    /// DeleteTopics, DescribeConfigs) matches by the topic; a Metadata request for all topics names each.
    pub fn topic(mut self, topic: impl Into<String>, partition: impl Into<Option<i32>>) -> Self {
        self.criteria.topic = Some((topic.into(), partition.into()));
        self
    }

    /// Only if `wanted` says so. It runs on the broker's own task, when everything else matches: it must not wait.
    pub fn matching(mut self, wanted: impl Fn(&Frame) -> bool + Send + Sync + 'static) -> Self {
        self.criteria.predicates.push(Arc::new(wanted));
        self
    }

    /// Only requests of this type that `wanted` says so of; as [`Self::matching`].
    pub fn matching_request<R: Request>(self, wanted: impl Fn(&R) -> bool + Send + Sync + 'static) -> Self {
        self.matching(move |request| {
            request.api_key == R::KEY
                && decode_request::<R>(request.clone()).is_ok_and(|request| wanted(&request))
        })
    }

    /// Lets the first `requests` that match pass; later rules see them. Default: 0.
    pub fn skip(mut self, requests: usize) -> Self {
        self.criteria.skip = requests;
        self
    }

    /// Acts on so many of those that match, not counting those skipped; later rules see what comes after. Default: all.
    pub fn times(mut self, requests: usize) -> Self {
        self.criteria.times = Some(requests);
        self
    }

    /// When to act. Default: [`Stage::BeforeApply`].
    pub fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// Puts the rule in force.
    pub fn then(self, fault: Fault) -> Rule {
        self.put(Act::Fault(fault))
    }

    /// Puts the rule in force: changes the real answer, as [`Fault::edit`] does.
    pub fn edit<R: Request>(self, edit: impl Fn(&mut R::Response) + Send + Sync + 'static) -> Rule {
        self.then(Fault::edit::<R>(edit))
    }

    /// Puts the rule in force: answers in the broker's place, as [`Fault::answer`] does.
    pub fn answer<R: Request>(self, answer: impl Fn(&R) -> R::Response + Send + Sync + 'static) -> Rule {
        self.then(Fault::answer::<R>(answer))
    }

    /// Puts the rule in force: calls something of your own, as [`Fault::call`] does.
    pub fn call(self, call: impl Fn(&Frame) + Send + Sync + 'static) -> Rule {
        self.then(Fault::call(call))
    }

    /// Puts the rule in force: holds what matches at its stage until the gate lets it go.
    ///
    /// Finds: what only goes wrong in one order of events, because that order can be forced.
    pub fn hold(self) -> Gate {
        let held = Arc::new(Held::default());
        Gate::new(self.put(Act::Hold(held.clone())), held)
    }

    fn put(self, act: Act) -> Rule {
        tracing::info!(stage = ?self.stage, ?act, "rule");
        Rule::new(self.network, RuleState::new(self.criteria, self.stage, act))
    }
}
