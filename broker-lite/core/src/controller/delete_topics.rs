//! DeleteTopics (20).

use std::collections::BTreeSet;

use klamm_wire::ErrorCode;
use klamm_wire::messages::delete_topics_request::DeleteTopicState;
use klamm_wire::messages::delete_topics_response::DeletableTopicResult;
use klamm_wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use klamm_wire::metadata_records::RemoveTopicRecord;
use uuid::Uuid;

use super::create_topics::repeated;
use super::{Controller, Outcome, Refusal};

impl Controller {
    /// DeleteTopics (20), versions 1 to 6: by name, or from version 6 on by id.
    ///
    /// A topic that is named more than once, be it by name, by id or by both, is refused with `INVALID_REQUEST`, once.
    pub fn delete_topics(&mut self, request: &DeleteTopicsRequest) -> Outcome<DeleteTopicsResponse> {
        let by_name =
            request.topic_names.iter().map(|name| DeleteTopicState::default().with_name(Some(name.clone())));
        let asked: Vec<DeleteTopicState> = request.topics.iter().cloned().chain(by_name).collect();
        let twice = repeated(asked.iter().filter(|state| says_one_thing(state)).map(key));
        let ids_asked: BTreeSet<Uuid> =
            asked.iter().filter(|state| state.name.is_none()).map(|state| state.topic_id).collect();
        let once_by_name =
            asked.iter().filter(|state| state.topic_id.is_nil() && !twice.contains(&key(state)));
        let ids_named: BTreeSet<Uuid> =
            once_by_name.filter_map(|state| Some(self.image.topic(state.name.as_ref()?)?.id)).collect();
        let disabled = !self.settings.boolean("delete.topic.enable");
        let mut responses = Vec::with_capacity(asked.len());
        let mut told = BTreeSet::new();
        for state in &asked {
            let repeats = twice.contains(&key(state));
            let told_already = repeats && !told.insert(key(state));
            let told_by_name = !repeats && state.name.is_none() && ids_named.contains(&state.topic_id);
            if told_already || told_by_name {
                continue;
            }
            let result =
                DeletableTopicResult::default().with_name(state.name.clone()).with_topic_id(state.topic_id);
            let refused = |result: DeletableTopicResult, refusal: Refusal| {
                result.with_error_code(refusal.0.0).with_error_message(refusal.message())
            };
            responses.push(match self.find(state) {
                _ if disabled => refused(result, deletion_disabled()),
                _ if repeats => refused(result, named_twice()),
                Err(refusal) => refused(result, refusal),
                Ok((name, id)) => {
                    let result = result.with_name(Some(name)).with_topic_id(id);
                    if state.name.is_some() && ids_asked.contains(&id) {
                        refused(result, named_twice())
                    } else {
                        self.emit(RemoveTopicRecord { topic_id: id });
                        result.with_error_message(None)
                    }
                }
            });
        }
        self.outcome(DeleteTopicsResponse::default().with_responses(responses))
    }

    fn find(&self, state: &DeleteTopicState) -> Result<(TopicName, Uuid), Refusal> {
        let topic = match (&state.name, state.topic_id.is_nil()) {
            (Some(_), false) => {
                let reason = "name and id are given; one is enough".to_owned();
                return Err(Refusal(ErrorCode::INVALID_REQUEST, reason));
            }
            (None, true) => {
                let reason = "neither name nor id is given".to_owned();
                return Err(Refusal(ErrorCode::INVALID_REQUEST, reason));
            }
            (Some(name), true) => self.image.topic(name).ok_or_else(|| {
                let reason = format!("no topic {}", name.as_str());
                Refusal(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, reason)
            }),
            (None, false) => self.image.topic_by_id(state.topic_id).ok_or_else(|| {
                let reason = format!("no topic has the id {}", state.topic_id);
                Refusal(ErrorCode::UNKNOWN_TOPIC_ID, reason)
            }),
        }?;
        let name = TopicName(klamm_wire::StrBytes::from_string(topic.name.to_string()));
        Ok((name, topic.id))
    }
}

/// A topic as it is asked for.
fn key(state: &DeleteTopicState) -> (Option<&str>, Uuid) {
    (state.name.as_ref().map(|name| name.as_str()), state.topic_id)
}

/// By name or by id, and not by both or neither.
fn says_one_thing(state: &DeleteTopicState) -> bool {
    state.name.is_some() == state.topic_id.is_nil()
}

fn named_twice() -> Refusal {
    Refusal::new(ErrorCode::INVALID_REQUEST, "the request names this topic twice")
}

fn deletion_disabled() -> Refusal {
    Refusal::new(ErrorCode::TOPIC_DELETION_DISABLED, "delete.topic.enable is false")
}
