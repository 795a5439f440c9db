//! Whom this broker takes for the active controller, and its requests to it.
//!
//! In: leader and epoch in the answers to the broker's metadata fetches, connections that break, refusals. Out: answers.
//!
//! Invariant: what clients ask for is sent again only where the controller was none, is deposed, or the connection to it is
//! gone; it may then have been done once already, as in Kafka. What may be done twice is also sent again when the controller is
//! doubted.

use std::time::Duration;

use klamm_wire::ErrorCode;
use klamm_wire::seam::{Frame, Link, LinkError};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tower_service::Service;

use super::Broker;
use crate::node::Party;
use crate::rules::errors_in;

/// Longest pause before somebody is asked again.
const PAUSE: Duration = Duration::from_millis(10);

/// When a request that is not answered yet is sent again, although its connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// Another way to this controller is broken: what is asked for may be done twice.
    WhenDoubted,
    /// Another controller is known to lead.
    WhenDeposed,
}

/// The controllers of the cluster, as one broker knows them.
#[derive(Debug)]
pub(crate) struct Controllers {
    voters: Vec<i32>,
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    leader: Option<i32>,
    epoch: i32,
}

impl Controllers {
    pub(crate) fn new(voters: Vec<i32>) -> Self {
        Self { voters, known: Mutex::new(Known { leader: None, epoch: -1 }), changed: Notify::new() }
    }

    /// The one to ask.
    pub(crate) fn leader(&self) -> Option<i32> {
        self.known.lock().leader
    }

    /// Latest epoch of the quorum heard of, -1 before.
    pub(crate) fn epoch(&self) -> i32 {
        self.known.lock().epoch
    }

    /// The voter after `id` in turn.
    pub(crate) fn after(&self, id: Option<i32>) -> Option<i32> {
        let next = id.and_then(|id| self.voters.iter().find(|other| **other > id));
        next.or_else(|| self.voters.first()).copied()
    }

    /// Takes what somebody says of the quorum.
    pub(crate) fn learn(&self, leader: Option<i32>, epoch: i32) {
        let mut known = self.known.lock();
        let leader = leader.filter(|leader| self.voters.contains(leader));
        let news =
            epoch > known.epoch || (epoch == known.epoch && known.leader.is_none() && leader.is_some());
        if news && (known.leader, known.epoch) != (leader, epoch) {
            *known = Known { leader, epoch };
            drop(known);
            self.changed.notify_waiters();
        }
    }

    /// Takes that this one does not answer, or leads no more.
    pub(crate) fn suspect(&self, id: i32) {
        let mut known = self.known.lock();
        if known.leader == Some(id) {
            known.leader = None;
            drop(known);
            self.changed.notify_waiters();
        }
    }

    /// Waits until `id` is not to be asked any more.
    async fn until_not(&self, id: i32, given_up: GivenUp) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match (self.leader(), given_up) {
                (Some(leader), _) if leader != id => return,
                (None, GivenUp::WhenDoubted) => return,
                _ => {}
            }
            changed.await;
        }
    }

    /// Waits until there may be somebody to ask.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A connection to the active controller that is kept from request to request.
#[derive(Default)]
pub(crate) struct KeptLink(Option<(i32, Link)>);

impl Broker {
    fn controller_limit(&self) -> Duration {
        self.config.millis("controller.socket.timeout.ms").unwrap_or(Duration::from_secs(30))
    }

    /// One request to the active controller, whichever that is by the time, and its answer.
    ///
    /// # Errors
    ///
    /// [`LinkError::TimedOut`] if there is no answer within `controller.socket.timeout.ms`.
    pub(crate) async fn ask_controller(
        &self,
        name: &str,
        given_up: GivenUp,
        frame: Frame,
    ) -> Result<Frame, LinkError> {
        let asked = async {
            loop {
                match self.ask_once(None, name, given_up, frame.clone()).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        tracing::debug!(broker = self.id(), %error, "the controller is asked again");
                    }
                }
                tokio::select! {
                    biased;
                    () = self.controllers.changed() => {}
                    () = self.rt.sleep(PAUSE) => {}
                }
            }
        };
        self.network.within(self.controller_limit(), asked).await
    }

    /// One request, tried once, over a connection that is kept, or over what the network has for this purpose.
    ///
    /// # Errors
    ///
    /// If no controller is known, its connection breaks, it is [`GivenUp`] meanwhile, or it says that it is none.
    pub(crate) async fn ask_once(
        &self,
        mut kept: Option<&mut KeptLink>,
        name: &str,
        given_up: GivenUp,
        frame: Frame,
    ) -> Result<Frame, LinkError> {
        let leader = self.controllers.leader().ok_or_else(LinkError::closed)?;
        let keeps = kept.is_some();
        let held = kept.as_mut().and_then(|kept| kept.0.take()).filter(|(id, _)| *id == leader);
        let asked = async {
            let (me, to) = (Party::Node(self.id()), Party::Controller(leader));
            if !keeps {
                return Ok((None, self.network.call(&me, &to, name, self.controller_limit(), frame).await?));
            }
            let mut link = match held {
                Some((_, link)) => link,
                None => self.network.dial(&me, &to, name).await?,
            };
            std::future::poll_fn(|cx| link.poll_ready(cx)).await?;
            let answer = link.call(frame).await?;
            Ok((Some(link), answer))
        };
        let asked = tokio::select! {
            biased;
            asked = asked => asked,
            () = self.controllers.until_not(leader, given_up) => Err(LinkError::closed()),
        };
        let (link, answer) = asked.inspect_err(|_| self.controllers.suspect(leader))?;
        let no_controller = [ErrorCode::NOT_CONTROLLER, ErrorCode::NOT_LEADER_OR_FOLLOWER];
        if errors_in(&answer).iter().any(|code| no_controller.contains(code)) {
            self.controllers.suspect(leader);
            return Err(LinkError::closed());
        }
        if let (Some(kept), Some(link)) = (kept, link) {
            kept.0 = Some((leader, link));
        }
        Ok(answer)
    }
}
