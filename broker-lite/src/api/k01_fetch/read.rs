//! What there is to read at the moment, within the limits of a request.

use std::sync::Arc;

use broker_lite_core::replica::{FetchFrom, Fetched, Fetcher};
use broker_lite_core::session::{Due, Found, SessionPartition, Wanted};
use bytes::Bytes;
use klamm_wire::ErrorCode;
use klamm_wire::messages::fetch_response::PartitionData;

use super::answer::{answered, refused, unknown};
use super::{ANY_REPLICA, DIVERGING, Plan, Scope, TOPIC_IDS};
use crate::broker::{Bell, Broker, CopySide, Partition, TopicRef};

/// Last version whose clients take `KAFKA_STORAGE_ERROR` for something that is not to be tried again.
const STORAGE_ERROR_UNKNOWN: i16 = 5;

/// One look at one partition.
pub(super) struct Look {
    pub(super) partition: SessionPartition,
    pub(super) found: Found,
    pub(super) data: PartitionData,
    pub(super) records: Vec<Bytes>,
    /// The replica, and what it has been read up to.
    pub(super) replica: Option<(Arc<Partition>, i64)>,
}

/// What is there at the moment.
#[derive(Default)]
pub(super) struct Harvest {
    pub(super) looks: Vec<Look>,
    pub(super) bytes: usize,
    /// Something that is to be told without waiting.
    pub(super) urgent: bool,
    /// Partitions that nobody knows here. They are told, but a consumer that waits for others goes on waiting.
    pub(super) unknown: usize,
}

impl Harvest {
    /// Puts partitions in the order in which Kafka tells them: what nobody knows here comes behind what was read. A
    /// consumer hears of ids first, which Kafka looks for before it looks for partitions.
    pub(super) fn arrange(&mut self, follower: bool) {
        self.looks.sort_by_key(|look| match ErrorCode(look.data.error_code) {
            ErrorCode::UNKNOWN_TOPIC_ID => 1,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION if follower => 1,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => 2,
            _ => 0,
        });
    }

    /// As sessions hear of it, in the order of the answer.
    pub(super) fn found(&self) -> Vec<(SessionPartition, Found)> {
        self.looks.iter().map(|look| (look.partition.clone(), look.found)).collect()
    }
}

impl Plan {
    /// Reads what is there, within the limits.
    pub(super) fn harvest(&self, broker: &Broker) -> Harvest {
        let mut harvest = Harvest::default();
        match &self.scope {
            Scope::Whole { request, .. } => {
                harvest.looks.reserve(request.wanted.len());
                for (partition, wanted, _) in &request.wanted {
                    self.look(broker, partition, wanted, None, &mut harvest);
                }
            }
            Scope::Session { id, bell, .. } => {
                for due in broker.sessions.due(*id, bell) {
                    self.look(broker, &due.partition, &due.wanted, Some((bell, &due)), &mut harvest);
                }
            }
        }
        harvest
    }

    fn look(
        &self,
        broker: &Broker,
        name: &SessionPartition,
        wanted: &Wanted,
        session: Option<(&Arc<Bell>, &Due)>,
        harvest: &mut Harvest,
    ) {
        let topic =
            if self.version >= TOPIC_IDS { TopicRef::Id(name.topic_id) } else { TopicRef::Name(&name.topic) };
        let found = broker.partition(topic, name.partition);
        let look = match found {
            Ok(partition) => {
                if let Some((bell, _)) = session {
                    partition.listen(bell, name);
                }
                self.read(broker, name, wanted, &partition, harvest)
            }
            Err(code) => {
                let was_named = session.and_then(|(_, due)| due.topic.as_deref());
                let code = match (code, was_named) {
                    (ErrorCode::UNKNOWN_TOPIC_ID, Some(topic)) => gone(broker, topic),
                    (code, _) => code,
                };
                let data = match code {
                    ErrorCode::NOT_LEADER_OR_FOLLOWER => refused(name.partition, code),
                    code => unknown(name.partition, code),
                };
                failed(name, data)
            }
        };
        let code = ErrorCode(look.data.error_code);
        let unknown = is_unknown(code);
        harvest.unknown += usize::from(unknown);
        harvest.urgent |= match look.found.failed {
            // a follower has only heard of the partition earlier than its leader
            true => !unknown || self.follower.is_some(),
            false => look.found.telling && look.records.is_empty(),
        };
        harvest.bytes += look.records.iter().map(Bytes::len).sum::<usize>();
        harvest.looks.push(look);
    }

    fn read(
        &self,
        broker: &Broker,
        name: &SessionPartition,
        wanted: &Wanted,
        partition: &Arc<Partition>,
        harvest: &Harvest,
    ) -> Look {
        // A throttled follower that is not in sync waits until the throttle lets more pass.
        let held_up = self.follower.is_some_and(|(id, _)| {
            partition.is_throttled(CopySide::Leader)
                && broker.throttled_until(CopySide::Leader).is_some()
                && partition.look(|replica| !replica.isr().contains(&id)).unwrap_or(false)
        });
        let room = if held_up { 0 } else { self.max_bytes.saturating_sub(harvest.bytes) };
        let from = FetchFrom {
            fetcher: match self.follower {
                Some((id, epoch)) => {
                    Fetcher::Replica { id, epoch, log_start_offset: wanted.log_start_offset }
                }
                None => Fetcher::Consumer { follower_ok: self.version >= ANY_REPLICA },
            },
            offset: wanted.fetch_offset,
            last_fetched_epoch: epoch(wanted.last_fetched_epoch).filter(|_| self.version >= DIVERGING),
            current_leader_epoch: epoch(wanted.current_leader_epoch),
            max_bytes: usize::try_from(wanted.max_bytes).unwrap_or(0).min(room),
            min_one: harvest.bytes == 0 && !held_up,
        };
        let now = broker.rt.now();
        let read = partition.with(broker, |replica, fx| match &self.nearby {
            Some(nearby) => replica.read_nearby(now, &from, &|id| nearby.contains(&id), fx),
            None => replica.read(now, &from, fx),
        });
        match read.unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)) {
            Ok(fetched) if self.cannot_hold(wanted, &fetched) => {
                failed(name, refused(name.partition, ErrorCode::UNKNOWN_SERVER_ERROR))
            }
            Ok(fetched) => self.answer(name, wanted, partition, fetched),
            Err(code) => {
                let code = match code {
                    ErrorCode::KAFKA_STORAGE_ERROR if self.version <= STORAGE_ERROR_UNKNOWN => {
                        ErrorCode::NOT_LEADER_OR_FOLLOWER
                    }
                    code => code,
                };
                let look = failed(name, refused(name.partition, code));
                Look { replica: Some((partition.clone(), -1)), ..look }
            }
        }
    }

    /// Whether there is something to read and its limit is below 0, which Kafka fails over.
    fn cannot_hold(&self, wanted: &Wanted, fetched: &Fetched) -> bool {
        let told = fetched.diverging.is_some() || fetched.preferred_read_replica.is_some();
        let negative = self.negative_limit || wanted.max_bytes < 0;
        negative && !told && fetched.limit > wanted.fetch_offset
    }

    fn answer(
        &self,
        name: &SessionPartition,
        wanted: &Wanted,
        partition: &Arc<Partition>,
        fetched: Fetched,
    ) -> Look {
        let told = fetched.diverging.is_some() || fetched.preferred_read_replica.is_some();
        let found = Found {
            high_watermark: fetched.high_watermark,
            log_start_offset: fetched.log_start_offset,
            telling: told || !fetched.records.is_empty(),
            records: !fetched.records.is_empty(),
            failed: false,
            more: fetched.ask_again || (fetched.records.is_empty() && fetched.limit > wanted.fetch_offset),
        };
        let replica = Some((partition.clone(), fetched.limit));
        let aborted = self.read_committed && !told;
        let (data, records) = answered(name.partition, fetched, aborted);
        Look { partition: name.clone(), found, data, records, replica }
    }
}

fn failed(name: &SessionPartition, data: PartitionData) -> Look {
    let found = Found {
        high_watermark: -1,
        log_start_offset: -1,
        telling: false,
        records: false,
        failed: true,
        more: false,
    };
    Look { partition: name.clone(), found, data, records: Vec::new(), replica: None }
}

fn is_unknown(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UNKNOWN_TOPIC_ID | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
}

/// What a session hears of a topic that was known by this name when it was named, and whose id is gone.
fn gone(broker: &Broker, topic: &str) -> ErrorCode {
    let again = broker.image(|image| image.topic(topic).is_some());
    if again { ErrorCode::INCONSISTENT_TOPIC_ID } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION }
}

fn epoch(value: i32) -> Option<i32> {
    (value >= 0).then_some(value)
}
