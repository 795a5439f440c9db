//! DeleteTopics (20).

use klamm_wire::ErrorCode;
use klamm_wire::messages::delete_topics_request::DeleteTopicState;
use klamm_wire::messages::delete_topics_response::DeletableTopicResult;
use klamm_wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use klamm_wire::metadata_records::RemoveTopicRecord;

use super::create_topics::repeated;
use super::{Controller, Outcome, Refusal};

impl Controller {
    /// DeleteTopics (20), versions 1 to 6: by name, or from version 6 on by id.
    pub fn delete_topics(&mut self, request: &DeleteTopicsRequest) -> Outcome<DeleteTopicsResponse> {
        let by_name =
            request.topic_names.iter().map(|name| DeleteTopicState::default().with_name(Some(name.clone())));
        let asked: Vec<DeleteTopicState> = request.topics.iter().cloned().chain(by_name).collect();
        let named = |state: &DeleteTopicState| match &state.name {
            Some(name) => self.image.topic(name).map(|topic| topic.id),
            None => self.image.topic_by_id(state.topic_id).map(|topic| topic.id),
        };
        let twice = repeated(asked.iter().filter_map(named));
        let mut responses = Vec::with_capacity(asked.len());
        for state in asked {
            let found = self.find(&state);
            let result = match &found {
                Ok((name, id)) => {
                    DeletableTopicResult::default().with_name(Some(name.clone())).with_topic_id(*id)
                }
                Err(_) => DeletableTopicResult::default().with_name(state.name).with_topic_id(state.topic_id),
            };
            let deleted = found.and_then(|(_, id)| {
                if twice.contains(&id) {
                    let reason = "the request names this topic twice".to_owned();
                    return Err(Refusal(ErrorCode::INVALID_REQUEST, reason));
                }
                self.emit(RemoveTopicRecord { topic_id: id });
                Ok(())
            });
            responses.push(match deleted {
                Ok(()) => result.with_error_message(None),
                Err(refusal) => result.with_error_code(refusal.0.0).with_error_message(refusal.message()),
            });
        }
        self.outcome(DeleteTopicsResponse::default().with_responses(responses))
    }

    fn find(&self, state: &DeleteTopicState) -> Result<(TopicName, uuid::Uuid), Refusal> {
        if !self.settings.boolean("delete.topic.enable") {
            let reason = "delete.topic.enable is false".to_owned();
            return Err(Refusal(ErrorCode::TOPIC_DELETION_DISABLED, reason));
        }
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
