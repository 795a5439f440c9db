//! Followers: one task per broker fetched from, over real Fetch requests.
//!
//! In: which replicas follow whom. Out: Fetch requests, and their answers fed to the replicas.
//! The request is a long poll at the leader; a replica that is added meanwhile makes the fetcher
//! dial anew rather than wait for the poll to end. While a replica has records that wait for an fsync, its fetcher
//! waits with it, as Kafka's does with `flush.messages` = 1.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::replica::{EpochEnd, FetchPosition, FetchedFromLeader, Replica};
use klamm_wire::ErrorCode;
use klamm_wire::StrBytes;
use klamm_wire::codec::{decode_response, encode_request};
use klamm_wire::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use klamm_wire::messages::fetch_response::PartitionData;
use klamm_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_wire::messages::{
    BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, TopicName,
};
use klamm_wire::seam::{Link, LinkError};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tower_service::Service;
use uuid::Uuid;

use super::{Broker, Partition};
use crate::disk::Stored;
use crate::node::Party;
use crate::rt::Tick;

/// Version of the Fetch requests between brokers.
const FETCH_VERSION: i16 = 17;
/// Version of the ListOffsets requests between brokers.
const LIST_OFFSETS_VERSION: i16 = 9;
/// First pause after a leader refused a partition, mostly because it has not read the metadata yet.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// `timestamp` that asks for the first and for the last offset.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// The sources of one broker.
#[derive(Debug, Default)]
pub(crate) struct Fetchers(Mutex<BTreeMap<i32, Arc<Source>>>);

/// One broker to fetch from, and what.
#[derive(Debug, Default)]
struct Source {
    partitions: Mutex<BTreeMap<(Uuid, i32), Tracked>>,
    added: Notify,
    /// A replica has come to the end of an fsync, or has left.
    synced: Notify,
}

#[derive(Debug, Clone)]
struct Tracked {
    partition: Arc<Partition>,
    not_before: Option<Tick>,
    pause: Duration,
}

impl Fetchers {
    /// Makes `partition` follow `leader`, or nobody.
    pub(crate) fn follow(&self, broker: &Broker, partition: &Arc<Partition>, leader: Option<i32>) {
        let key = (partition.identity.topic_id, partition.identity.partition);
        let mut sources = self.0.lock();
        for (id, source) in sources.iter() {
            if Some(*id) != leader && source.partitions.lock().remove(&key).is_some() {
                source.synced.notify_one();
            }
        }
        let Some(leader) = leader else { return };
        let source = sources.entry(leader).or_insert_with(|| {
            let source = Arc::new(Source::default());
            if let Some(broker) = broker.me.upgrade() {
                let life = broker.life.clone();
                life.spawn(fetch_from(broker, leader, source.clone()));
            }
            source
        });
        let tracked = Tracked { partition: partition.clone(), not_before: None, pause: FIRST_PAUSE };
        source.partitions.lock().insert(key, tracked);
        source.added.notify_one();
    }

    /// Goes on if the fetcher waits for the disk.
    pub(crate) fn synced(&self, partition: &Partition) {
        let key = (partition.identity.topic_id, partition.identity.partition);
        for source in self.0.lock().values() {
            if source.partitions.lock().contains_key(&key) {
                source.synced.notify_one();
            }
        }
    }

    /// Forgets a partition that is not held here any more.
    pub(crate) fn forget(&self, broker: &Broker, partition: &Arc<Partition>) {
        self.follow(broker, partition, None);
    }
}

/// What was asked of a leader, by partition.
type Asked = BTreeMap<(Uuid, i32), (Arc<Partition>, FetchPosition)>;

async fn fetch_from(broker: Arc<Broker>, leader: i32, source: Arc<Source>) {
    let name = format!("fetcher of broker {}", broker.id());
    let backoff = broker.config.millis("replica.fetch.backoff.ms").unwrap_or(Duration::from_secs(1));
    let me = Party::Node(broker.id());
    loop {
        if source.partitions.lock().is_empty() {
            source.added.notified().await;
        }
        let ended = match broker.network.dial(&me, &Party::Node(leader), &name).await {
            Ok(link) => fetch_over(&broker, &source, link).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(broker = broker.id(), leader, %error, "cannot fetch");
            broker.rt.sleep(backoff).await;
        }
    }
}

/// Fetches until partitions are added (`Ok`) or the link breaks.
async fn fetch_over(broker: &Arc<Broker>, source: &Source, mut link: Link) -> Result<(), LinkError> {
    let limit = socket_timeout(broker);
    loop {
        let (asked, next_retry) = source.due(broker);
        if asked.is_empty() {
            tokio::select! {
                biased;
                () = source.added.notified() => {}
                () = source.synced.notified() => {}
                () = broker.rt.sleep_until_some(next_retry) => {}
            }
            if source.partitions.lock().is_empty() {
                return Ok(());
            }
            continue;
        }
        let request = fetch_request(broker, &asked, next_retry);
        let frame = encode_request(FETCH_VERSION, &request).map_err(malformed)?;
        std::future::poll_fn(|cx| link.poll_ready(cx)).await?;
        let answer = tokio::select! {
            biased;
            answer = broker.network.within(limit, link.call(frame)) => answer?,
            () = source.added.notified() => return Ok(()),
        };
        let response = decode_response::<FetchRequest>(answer).map_err(malformed)?;
        take_in(broker, source, &asked, response, &mut link).await?;
    }
}

/// Longest wait for an answer; one that never comes must not end the fetching.
fn socket_timeout(broker: &Broker) -> Duration {
    broker.config.millis("replica.socket.timeout.ms").unwrap_or(Duration::from_secs(30))
}

fn malformed(error: impl std::fmt::Display) -> LinkError {
    LinkError::Malformed { reason: error.to_string() }
}

impl Source {
    /// Partitions to ask for now, none while one of them waits for the disk; and when the next of those left out is due.
    fn due(&self, broker: &Broker) -> (Asked, Option<Tick>) {
        let now = broker.rt.now();
        let mut asked = Asked::new();
        let mut next: Option<Tick> = None;
        let mut syncing = false;
        for (key, tracked) in self.partitions.lock().iter() {
            match tracked.not_before {
                Some(at) if at > now => next = Some(next.map_or(at, |next| next.min(at))),
                _ => {
                    let look =
                        |replica: &mut Replica<Stored>| (replica.fetch_position(), replica.is_sync_due());
                    let (position, due) = tracked.partition.look(look).unwrap_or_default();
                    syncing |= due;
                    if let Some(position) = position {
                        asked.insert(*key, (tracked.partition.clone(), position));
                    }
                }
            }
        }
        if syncing {
            asked.clear();
        }
        (asked, next)
    }

    /// Leaves a partition out for a while, longer each time.
    fn pause(&self, broker: &Broker, key: &(Uuid, i32)) {
        let longest = broker.config.millis("replica.fetch.backoff.ms").unwrap_or(Duration::from_secs(1));
        if let Some(tracked) = self.partitions.lock().get_mut(key) {
            tracked.not_before = Some(broker.rt.now() + tracked.pause);
            tracked.pause = (tracked.pause * 2).min(longest);
        }
    }

    fn went_well(&self, key: &(Uuid, i32)) {
        if let Some(tracked) = self.partitions.lock().get_mut(key) {
            tracked.not_before = None;
            tracked.pause = FIRST_PAUSE;
        }
    }
}

fn fetch_request(broker: &Broker, asked: &Asked, next_retry: Option<Tick>) -> FetchRequest {
    let setting = |name: &str, default: i64| {
        i32::try_from(broker.config.int(name).unwrap_or(default)).unwrap_or(i32::MAX)
    };
    let partition_max_bytes = setting("replica.fetch.max.bytes", 1_048_576);
    let mut topics: Vec<FetchTopic> = Vec::new();
    for ((topic, partition), (_, position)) in asked {
        let wanted = FetchPartition::default()
            .with_partition(*partition)
            .with_current_leader_epoch(position.current_leader_epoch)
            .with_fetch_offset(position.offset)
            .with_last_fetched_epoch(position.last_fetched_epoch)
            .with_log_start_offset(position.log_start_offset)
            .with_partition_max_bytes(partition_max_bytes);
        match topics.last_mut().filter(|last| last.topic_id == *topic) {
            Some(last) => last.partitions.push(wanted),
            None => topics.push(FetchTopic::default().with_topic_id(*topic).with_partitions(vec![wanted])),
        }
    }
    let wait = i64::from(setting("replica.fetch.wait.max.ms", 500));
    let until_retry = next_retry.map(|at| at.saturating_sub(broker.rt.now()).as_millis().max(1));
    let wait = until_retry.and_then(|ms| i64::try_from(ms).ok()).map_or(wait, |ms| wait.min(ms));
    let replica = ReplicaState::default()
        .with_replica_id(BrokerId(broker.id()))
        .with_replica_epoch(broker.registration().epoch);
    FetchRequest::default()
        .with_replica_state(replica)
        .with_max_wait_ms(i32::try_from(wait).unwrap_or(i32::MAX))
        .with_min_bytes(setting("replica.fetch.min.bytes", 1))
        .with_max_bytes(setting("replica.fetch.response.max.bytes", 10_485_760))
        .with_session_epoch(-1)
        .with_topics(topics)
}

/// Feeds an answer to the replicas it is for.
async fn take_in(
    broker: &Arc<Broker>,
    source: &Source,
    asked: &Asked,
    response: FetchResponse,
    link: &mut Link,
) -> Result<(), LinkError> {
    if response.error_code != 0 {
        let code = ErrorCode(response.error_code);
        tracing::debug!(broker = broker.id(), %code, "fetch refused");
        asked.keys().for_each(|key| source.pause(broker, key));
        return Ok(());
    }
    for topic in response.responses {
        for data in topic.partitions {
            let key = (topic.topic_id, data.partition_index);
            let Some((partition, position)) = asked.get(&key) else { continue };
            let code = match ErrorCode(data.error_code) {
                ErrorCode::NONE => feed(broker, partition, position, data),
                ErrorCode::OFFSET_OUT_OF_RANGE => move_into_range(broker, partition, position, link).await?,
                refused => refused,
            };
            if code.is_ok() {
                source.went_well(&key);
            } else {
                tracing::debug!(replica = %partition.identity, %code, "fetch failed");
                source.pause(broker, &key);
            }
        }
    }
    Ok(())
}

fn feed(
    broker: &Broker,
    partition: &Arc<Partition>,
    position: &FetchPosition,
    data: PartitionData,
) -> ErrorCode {
    let now = broker.rt.now();
    let leader_epoch = position.current_leader_epoch;
    let diverging = data.diverging_epoch;
    let done = partition.with(broker, |replica, fx| {
        if diverging.end_offset >= 0 {
            let end = EpochEnd { epoch: diverging.epoch, end_offset: diverging.end_offset };
            return replica.truncate(now, leader_epoch, end, fx);
        }
        let fetched = FetchedFromLeader {
            leader_epoch,
            records: data.records.unwrap_or_default(),
            high_watermark: data.high_watermark,
            log_start_offset: data.log_start_offset,
        };
        replica.append_fetched(now, &fetched, fx)
    });
    done.map_or(ErrorCode::NONE, |result| result.err().unwrap_or(ErrorCode::NONE))
}

/// Asks the leader for its range of offsets and moves the follower into it.
async fn move_into_range(
    broker: &Arc<Broker>,
    partition: &Arc<Partition>,
    position: &FetchPosition,
    link: &mut Link,
) -> Result<ErrorCode, LinkError> {
    let mut range = [0; 2];
    for (timestamp, found) in [EARLIEST, LATEST].into_iter().zip(&mut range) {
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(partition.identity.partition)
            .with_current_leader_epoch(position.current_leader_epoch)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_string(partition.identity.topic.to_string())))
            .with_partitions(vec![wanted]);
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(broker.id())).with_topics(vec![topic]);
        let frame = encode_request(LIST_OFFSETS_VERSION, &request).map_err(malformed)?;
        std::future::poll_fn(|cx| link.poll_ready(cx)).await?;
        let answer = broker.network.within(socket_timeout(broker), link.call(frame)).await?;
        let response = decode_response::<ListOffsetsRequest>(answer).map_err(malformed)?;
        match single_offset(&response) {
            Ok(offset) => *found = offset,
            Err(code) => return Ok(code),
        }
    }
    let (now, epoch) = (broker.rt.now(), position.current_leader_epoch);
    let moved =
        partition.with(broker, |replica, fx| replica.out_of_range(now, epoch, range[0], range[1], fx));
    Ok(moved.map_or(ErrorCode::NONE, |result| result.err().unwrap_or(ErrorCode::NONE)))
}

fn single_offset(response: &ListOffsetsResponse) -> Result<i64, ErrorCode> {
    let found = response.topics.first().and_then(|topic| topic.partitions.first());
    let found = found.ok_or(ErrorCode::UNKNOWN_SERVER_ERROR)?;
    if found.error_code == 0 { Ok(found.offset) } else { Err(ErrorCode(found.error_code)) }
}
