//! Faults on the way between a client and any broker, Apache Kafka included.
//!
//! A [`FaultLayer`] goes around a connector; its [`FaultHandle`] says what goes wrong, while the client runs. Nothing goes
//! wrong by itself. Retries, time limits and order are the client's own: what an application sees through the layer is
//! what it would see of a bad network.
//!
//! ```
//! use klamm::fault::{Fault, FaultLayer, Layer};
//! use klamm::{ApiKey, Client, ErrorCode, TcpConnector};
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let layer = FaultLayer::new(7); // the seed of all chances
//! let faults = layer.handle();
//! let connector = layer.layer(TcpConnector::new());
//! let client = Client::builder().bootstrap_servers("localhost:9092").connector(connector).build().unwrap();
//!
//! // One in ten Produce requests is written, and its answer lost.
//! let lost = faults.on(ApiKey::Produce).probability(0.1).then(Fault::CutAfter);
//! // Everything to this broker takes its time.
//! let slow = Duration::from_millis(5)..=Duration::from_millis(50);
//! let slow = faults.on_any().to("localhost:9093").then(Fault::DelayAnswer(slow.into()));
//! // The second and third Fetch find no leader.
//! let code = ErrorCode::NOT_LEADER_OR_FOLLOWER;
//! faults.on(ApiKey::Fetch).skip(1).times(2).then(Fault::Refuse(code)).keep();
//!
//! drop(slow); // a rule is a guard
//! assert_eq!(lost.hits(), 0);
//! # drop(client);
//! # });
//! ```
//!
//! Chances depend on the seed, the rule, the address, the client id and the number of the request on its connection; so
//! the same seed makes the same decisions about the same requests. A request that is held back holds back those
//! behind it; up to 16 wait in front of a connection beyond what it takes itself.

mod link;
mod rule;
#[cfg(test)]
#[cfg(feature = "mock")]
mod tests;

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use klamm_wire::messages::ApiKey;
use klamm_wire::{Endpoint, Link, LinkError};
use pin_project::pin_project;
use tower::Service;

use self::rule::{Armed, Line, Matcher, Rules, Subject};
use crate::rt::Rt;

pub use rule::{Delay, DialFault, Fault};
pub use tower::Layer;

/// Puts faults between a client and the connector it goes around. Clones have the same rules.
#[derive(Debug, Clone)]
pub struct FaultLayer {
    rules: Arc<Rules>,
}

impl FaultLayer {
    /// A layer without rules; all chances come from the seed.
    pub fn new(seed: u64) -> Self {
        Self { rules: Arc::new(Rules::new(seed)) }
    }

    /// What decides about the faults of this layer.
    pub fn handle(&self) -> FaultHandle {
        FaultHandle { rules: self.rules.clone() }
    }
}

impl<S> Layer<S> for FaultLayer {
    type Service = FaultConnector<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FaultConnector { rules: self.rules.clone(), inner }
    }
}

/// A connector with a [`FaultLayer`] around it.
#[derive(Debug, Clone)]
pub struct FaultConnector<S> {
    rules: Arc<Rules>,
    inner: S,
}

impl<S> Service<Endpoint> for FaultConnector<S>
where
    S: Service<Endpoint, Response = Link, Error = LinkError>,
{
    type Response = Link;
    type Error = LinkError;
    type Future = FaultDial<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let line = self.rules.line(&endpoint);
        let (delay, fault) = self.rules.plan_dial(&line);
        let before: BoxFuture<'static, Result<Rt, LinkError>> = Box::pin({
            let endpoint = Box::new(endpoint.clone());
            async move {
                let rt =
                    Rt::without_chance().map_err(|error| crate::conversation::ended(error.to_string()))?;
                if !delay.is_zero() {
                    rt.sleep(delay).await;
                }
                match fault {
                    Some(DialFault::Refuse) => Err(LinkError::NoBroker { endpoint }),
                    Some(DialFault::Hang) => std::future::pending().await,
                    _ => Ok(rt),
                }
            }
        });
        // Made now, as `poll_ready` was for this call; it does nothing before it is polled.
        let dial = self.inner.call(endpoint);
        FaultDial { before, rt: None, dial, rules: self.rules.clone(), line: Some(line) }
    }
}

/// The making of a connection; resolves to a link with faults in it.
#[pin_project]
pub struct FaultDial<F> {
    before: BoxFuture<'static, Result<Rt, LinkError>>,
    rt: Option<Rt>,
    #[pin]
    dial: F,
    rules: Arc<Rules>,
    line: Option<Line>,
}

impl<F> std::fmt::Debug for FaultDial<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultDial").field("line", &self.line).finish_non_exhaustive()
    }
}

impl<F: Future<Output = Result<Link, LinkError>>> Future for FaultDial<F> {
    type Output = Result<Link, LinkError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let rt = match this.rt {
            Some(rt) => rt,
            None => match std::task::ready!(this.before.as_mut().poll(cx)) {
                Ok(rt) => this.rt.insert(rt),
                Err(error) => return Poll::Ready(Err(error)),
            },
        };
        let link = std::task::ready!(this.dial.poll(cx))?;
        let Some(line) = this.line.take() else { return Poll::Ready(Err(LinkError::closed())) };
        Poll::Ready(Ok(link::open(rt, this.rules.clone(), line, link)))
    }
}

/// Says what goes wrong, and counts it. Clones are the same one.
#[derive(Debug, Clone)]
pub struct FaultHandle {
    rules: Arc<Rules>,
}

impl FaultHandle {
    /// Begins a rule about requests of one api.
    pub fn on(&self, api: ApiKey) -> FaultOn<Fault> {
        FaultOn::new(&self.rules, Some(api as i16))
    }

    /// Begins a rule about all requests.
    pub fn on_any(&self) -> FaultOn<Fault> {
        FaultOn::new(&self.rules, None)
    }

    /// Begins a rule about the making of connections.
    pub fn on_dial(&self) -> FaultOn<DialFault> {
        FaultOn::new(&self.rules, None)
    }

    /// Stops all faults of this layer; requests that are held back already still are.
    pub fn disable(&self) {
        self.rules.switch(false);
    }

    /// Lets faults happen again. They may from the start.
    pub fn enable(&self) {
        self.rules.switch(true);
    }

    /// Faults that have happened so far, of all rules.
    pub fn hits(&self) -> u64 {
        self.rules.hits()
    }
}

/// A rule under construction; does nothing before it says what happens.
#[derive(Debug)]
#[must_use = "a rule does nothing until `then` is called"]
pub struct FaultOn<F> {
    rules: Arc<Rules>,
    api_key: Option<i16>,
    matcher: Matcher,
    fault: PhantomData<fn(F)>,
}

impl<F> FaultOn<F> {
    fn new(rules: &Arc<Rules>, api_key: Option<i16>) -> Self {
        Self { rules: rules.clone(), api_key, matcher: Matcher::default(), fault: PhantomData }
    }

    /// Only at this address, as `host:port`.
    pub fn to(mut self, address: impl Into<String>) -> Self {
        self.matcher.to = Some(address.into());
        self
    }

    /// Only of the client with this `client.id`.
    pub fn client(mut self, id: impl Into<String>) -> Self {
        self.matcher.client = Some(id.into());
        self
    }

    /// Not always, but with this chance, from 0 to 1.
    pub fn probability(mut self, chance: f64) -> Self {
        self.matcher.probability = chance;
        self
    }

    /// Not the first ones.
    pub fn skip(mut self, count: u64) -> Self {
        self.matcher.skip = count;
        self
    }

    /// Not more often than this.
    pub fn times(mut self, count: u64) -> Self {
        self.matcher.times = Some(count);
        self
    }

    fn arm(self, subject: Subject) -> FaultRule {
        FaultRule { armed: self.rules.arm(self.matcher, subject), rules: Some(self.rules) }
    }
}

impl FaultOn<Fault> {
    /// Puts the rule into force, behind those that are: delays add up, and the first fault that decides about a request
    /// is the only one that does.
    pub fn then(self, fault: Fault) -> FaultRule {
        let api_key = self.api_key;
        self.arm(Subject::Request(api_key, fault))
    }
}

impl FaultOn<DialFault> {
    /// Puts the rule into force, behind those that are.
    pub fn then(self, fault: DialFault) -> FaultRule {
        self.arm(Subject::Dial(fault))
    }
}

/// A rule in force: dropped, it is gone.
#[derive(Debug)]
#[must_use = "a rule is gone when it is dropped; `keep` leaves it in force"]
pub struct FaultRule {
    armed: Arc<Armed>,
    rules: Option<Arc<Rules>>,
}

impl FaultRule {
    /// How often the fault has happened.
    pub fn hits(&self) -> u64 {
        self.armed.hits()
    }

    /// Waits until the fault has happened `count` times.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn until_hits(&self, count: u64) {
        self.armed.until_hits(count).await;
    }

    /// Leaves the rule in force as long as the layer is there.
    pub fn keep(mut self) {
        self.rules = None;
    }
}

impl Drop for FaultRule {
    fn drop(&mut self) {
        if let Some(rules) = self.rules.take() {
            rules.disarm(&self.armed);
        }
    }
}
