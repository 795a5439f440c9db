//! What AlterConfigs and IncrementalAlterConfigs have in common: the broker asked refuses what it knows to be wrong, and
//! passes the rest on.

use std::sync::Arc;

use broker_lite_core::controller::{Refusal, ResourceChange, check_at_broker};
use klamm_wire::{ErrorCode, Request, StrBytes};

use super::{Handled, forward_rest, now};
use crate::broker::Broker;

/// The parts of one of the two APIs: `Q` is a resource in a request, `A` in an answer.
pub(super) struct Alteration<R: Request, Q, A> {
    /// The same request for some of its resources only.
    pub(super) narrowed: fn(R, Vec<Q>) -> R,
    /// What is told of one resource.
    pub(super) told: fn(Q, ErrorCode, Option<StrBytes>) -> A,
    pub(super) answers: fn(R::Response) -> Vec<A>,
    pub(super) response: fn(Vec<A>) -> R::Response,
}

impl<R, Q, A> Alteration<R, Q, A>
where
    R: Request + Send + 'static,
    R::Response: Default + Send,
    Q: Clone + Send + 'static,
    A: 'static,
    for<'a> ResourceChange<'a>: From<&'a Q>,
{
    /// At a broker.
    pub(super) fn forward(
        self,
        broker: &Arc<Broker>,
        version: i16,
        request: R,
        resources: Vec<Q>,
    ) -> Handled {
        let changes: Vec<ResourceChange<'_>> = resources.iter().map(ResourceChange::from).collect();
        let refused = check_at_broker(broker.id(), &changes);
        let rest = resources.iter().zip(&refused).filter(|(_, refused)| refused.is_none());
        let rest: Vec<Q> = rest.map(|(resource, _)| resource.clone()).collect();
        let Self { narrowed, told, answers, response } = self;
        let merge = move |answer| {
            let mut answered = answers(answer).into_iter();
            let all = resources.into_iter().zip(refused).map(|(resource, refused)| match refused {
                Some(Refusal(code, reason)) => told(resource, code, Some(reason.into())),
                None => {
                    answered.next().unwrap_or_else(|| told(resource, ErrorCode::UNKNOWN_SERVER_ERROR, None))
                }
            });
            response(all.collect())
        };
        if rest.is_empty() {
            return now::<R>(version, &merge(R::Response::default()));
        }
        forward_rest(broker, version, &narrowed(request, rest), Box::new(merge))
    }
}
