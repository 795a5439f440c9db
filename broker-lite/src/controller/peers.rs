//! What a voter sends to the others, over connections that are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_lite_core::quorum::Request;
use klamm_wire::seam::{Frame, Link, LinkError};
use parking_lot::Mutex;
use tower_service::Service;

use super::{Answered, ControllerNode};
use crate::api::quorum;
use crate::node::Party;

/// Open connections, by voter and by whether they carry fetches: those are long polls, which a vote must not wait behind.
#[derive(Default)]
pub(super) struct Links(Mutex<BTreeMap<(i32, bool), Link>>);

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Links")
    }
}

impl ControllerNode {
    /// Sends a request in a task of its own, and tells the voter what came of it, but not before what was asked to be so is
    /// durable.
    pub(super) fn send(self: &Arc<Self>, to: i32, number: u64, request: Request, asked: u64) {
        let me = self.clone();
        self.seat.life.spawn(async move {
            let answer = me.ask(to, &request).await;
            me.durable(asked).await;
            if let Err(error) = &answer {
                tracing::debug!(node = me.id(), to, %error, "no answer from a voter");
            }
            me.step(|voter, store, now, fx| {
                voter.on_response(now, to, number, answer.as_ref().ok(), store, fx)
            });
        });
    }

    async fn ask(&self, to: i32, request: &Request) -> Result<Answered, LinkError> {
        let malformed = |reason: String| LinkError::Malformed { reason };
        let wait = self.limits.quorum.fetch_timeout / 2;
        let frame = quorum::encode_request(&self.seat, request, to, wait);
        let frame = frame.map_err(|error| malformed(error.to_string()))?;
        let key = (to, matches!(request, Request::Fetch(_) | Request::FetchSnapshot { .. }));
        let limit = self.limits.quorum.request_timeout;
        let answer = self.seat.network.within(limit, self.call(key, frame)).await?;
        quorum::decode_response(request, answer).map_err(|error| malformed(error.to_string()))
    }

    async fn call(&self, key: (i32, bool), frame: Frame) -> Result<Frame, LinkError> {
        let kept = self.links.0.lock().remove(&key);
        let mut link = match kept {
            Some(link) => link,
            None => self.seat.network.dial(&self.party(), &Party::Controller(key.0), "voter").await?,
        };
        std::future::poll_fn(|cx| link.poll_ready(cx)).await?;
        let answer = link.call(frame).await?;
        self.links.0.lock().insert(key, link);
        Ok(answer)
    }
}
