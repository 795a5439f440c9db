//! CreatePartitions (37): more partitions for a topic that exists.

use klamm_wire::ErrorCode;
use klamm_wire::messages::create_partitions_request::CreatePartitionsTopic;
use klamm_wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use klamm_wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::create_topics::{MAX_PARTITIONS, bad_assignment, ids, repeated, too_many_partitions};
use super::{Controller, Outcome, Refusal};

impl Controller {
    /// CreatePartitions (37), versions 0 to 3.
    ///
    /// Every topic stands alone, but for the number of partitions that a request may ask for.
    pub fn create_partitions(
        &mut self,
        request: &CreatePartitionsRequest,
    ) -> Outcome<CreatePartitionsResponse> {
        let twice = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
        let mut created = 0;
        let mut results = Vec::with_capacity(request.topics.len());
        for name in &twice {
            let named = request.topics.iter().find(|topic| topic.name.as_str() == *name);
            let result = CreatePartitionsTopicResult::default()
                .with_error_code(ErrorCode::INVALID_REQUEST.0)
                .with_error_message(Some("the request names this topic twice".into()));
            results.extend(named.map(|topic| result.with_name(topic.name.clone())));
        }
        for topic in request.topics.iter().filter(|topic| !twice.contains(topic.name.as_str())) {
            let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
            results.push(match self.grow(topic, request.validate_only, &mut created) {
                Ok(()) => result.with_error_message(None),
                Err(refusal) => result.with_error_code(refusal.0.0).with_error_message(refusal.message()),
            });
        }
        self.outcome(CreatePartitionsResponse::default().with_results(results))
    }

    fn grow(
        &mut self,
        asked: &CreatePartitionsTopic,
        validate_only: bool,
        created: &mut i64,
    ) -> Result<(), Refusal> {
        let Some(topic) = self.image.topic(&asked.name) else {
            let reason = format!("no topic {}", asked.name.as_str());
            return Err(Refusal(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, reason));
        };
        let (id, have) = (topic.id, i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX));
        let factor = topic.partitions.values().next().map_or(1, |first| first.replicas.len());
        if asked.count <= have {
            let reason = format!("the topic has {have} partitions already, {} are asked for", asked.count);
            return Err(Refusal(ErrorCode::INVALID_PARTITIONS, reason));
        }
        let more = asked.count - have;
        let partitions = match &asked.assignments {
            Some(given) if i32::try_from(given.len()) != Ok(more) => {
                return Err(bad_assignment(format!("{} assignments for {more} new partitions", given.len())));
            }
            given => given.as_ref().map(|given| given.iter().map(|one| ids(&one.broker_ids)).collect()),
        };
        *created += i64::from(more);
        if *created > MAX_PARTITIONS {
            return Err(too_many_partitions());
        }
        let partitions: Vec<Vec<i32>> = match partitions {
            None => self.place(usize::try_from(more).unwrap_or_default(), factor)?,
            Some(given) => given,
        };
        if asked.assignments.is_some() {
            for (partition, replicas) in (have..).zip(&partitions) {
                self.check_assignment(partition, replicas, Some(factor))?;
                self.check_some_active(partition, replicas)?;
            }
        }
        if !validate_only {
            for (partition, replicas) in (have..).zip(partitions) {
                self.emit_partition(id, partition, replicas);
            }
        }
        Ok(())
    }
}
