//! What the APIs of groups have in common: the answer comes from a coordinator, at once or later, and topics are known by
//! name there.

use broker_lite_core::group::Response;
use broker_lite_core::metadata::Image;
use futures::future::join_all;
use klamm_wire::messages::TopicName;
use klamm_wire::{ErrorCode, Request};
use uuid::Uuid;

use super::{Handled, now, reply, text};
use crate::group::Asked;
use crate::node::Answer;

/// Answers with what `make` makes of the coordinator's answer.
pub(super) fn answer<R: Request>(
    version: i16,
    asked: Asked,
    make: impl FnOnce(Response) -> R::Response + Send + 'static,
) -> Handled {
    match asked {
        Asked::Now(response) => now::<R>(version, &make(response)),
        later @ Asked::Later(_) => Ok(Answer::Later(Box::pin(async move {
            let response = later.response().await;
            reply::<R>(version, &make(response))
        }))),
    }
}

/// Answers with what `make` makes of several coordinators' answers, in the order they were asked.
pub(super) fn answer_all<R: Request>(
    version: i16,
    asked: Vec<Asked>,
    make: impl FnOnce(Vec<Response>) -> R::Response + Send + 'static,
) -> Handled {
    if asked.iter().all(|asked| matches!(asked, Asked::Now(_))) {
        let there = |asked| match asked {
            Asked::Now(response) => response,
            Asked::Later(_) => Response::Failed(ErrorCode::UNKNOWN_SERVER_ERROR),
        };
        return now::<R>(version, &make(asked.into_iter().map(there).collect()));
    }
    Ok(Answer::Later(Box::pin(async move {
        let responses = join_all(asked.into_iter().map(Asked::response)).await;
        reply::<R>(version, &make(responses))
    })))
}

/// The code in place of an answer of another kind than was asked for, which is none.
pub(super) fn failure(response: &Response) -> ErrorCode {
    match response {
        Response::Failed(code) => *code,
        _ => ErrorCode::UNKNOWN_SERVER_ERROR,
    }
}

/// The topic that a request names by name, or by id from some version on.
pub(super) fn topic_name(image: &Image, by_id: bool, name: &TopicName, id: Uuid) -> Option<TopicName> {
    match by_id {
        true => image.topic_by_id(id).map(|topic| TopicName(text(&topic.name))),
        false => image.topic(name).map(|_| name.clone()),
    }
}

/// Whether the partition exists.
pub(super) fn has_partition(image: &Image, topic: &str, partition: i32) -> bool {
    image.topic(topic).is_some_and(|topic| topic.partitions.contains_key(&partition))
}

/// Topics by name that a response is made of, each once.
pub(super) fn place_of<T>(topics: &mut Vec<T>, is: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let at = topics.iter().position(is).unwrap_or_else(|| {
        topics.push(new());
        topics.len() - 1
    });
    &mut topics[at]
}
