//! Followers: one task and one fetch session (KIP-227) per broker fetched from, over real Fetch requests.
//!
//! In: which replicas follow whom. Out: Fetch requests, and their answers fed to the replicas.
//!
//! ```text
//! whole request, answered at once ──▶ session ──▶ long poll that names what changed ──▶ answer ──▶ …
//!                                                   └─ replica added meanwhile: a second request, which ends the poll
//! ```
//!
//! A replica that was refused leaves the session for a while, longer each time. While a replica has records that wait
//! for an fsync, its fetcher waits with it, as Kafka's does with `flush.messages` = 1.
//!
//! Invariant: replicas that have nothing to fetch cost nothing; only what changed is looked at.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::replica::{EpochEnd, FetchPosition, FetchedFromLeader, Replica};
use klamm_wire::ErrorCode;
use klamm_wire::StrBytes;
use klamm_wire::codec::{decode_response, encode_request};
use klamm_wire::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use klamm_wire::messages::fetch_response::PartitionData;
use klamm_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_wire::messages::{
    BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, TopicName,
};
use klamm_wire::planted::{Bug, planted};
use klamm_wire::seam::{BoxFuture, Frame, Link, LinkError};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tower_service::Service;
use uuid::Uuid;

use super::{Broker, CopySide, Partition, to_keep};
use crate::disk::Stored;
use crate::node::Party;
use crate::rt::Tick;

/// Version of the Fetch requests between brokers.
const FETCH_VERSION: i16 = 17;
/// Version of the ListOffsets requests between brokers.
const LIST_OFFSETS_VERSION: i16 = 9;
/// First pause after a leader refused a partition, mostly because it has not read the metadata yet.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// Longest pause of a throttled replica before the rate is looked at again: it may have been raised.
const THROTTLED: Duration = Duration::from_millis(500);
/// Requests under way at a time: the long poll, and the one that ends it.
const UNDER_WAY: usize = 2;
/// `timestamp` that asks for the first and for the last offset.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// Topic id and partition.
type Key = (Uuid, i32);

/// The sources of one broker.
#[derive(Debug, Default)]
pub(crate) struct Fetchers(Mutex<BTreeMap<i32, Arc<Source>>>);

/// One broker to fetch from, and what.
#[derive(Debug, Default)]
struct Source {
    state: Mutex<Following>,
    /// There is something to ask.
    added: Notify,
    /// A replica has come to the end of an fsync, or has left.
    synced: Notify,
}

/// Replicas that follow one broker.
#[derive(Debug, Default)]
struct Following {
    tracked: BTreeMap<Key, Tracked>,
    /// Those that may want another position than the session knows.
    changed: BTreeSet<Key>,
    /// Those left out for a while, by the time they are asked for again.
    paused: BTreeSet<(Tick, Key)>,
    /// Those that leave the session.
    forgotten: BTreeSet<Key>,
}

#[derive(Debug, Clone)]
struct Tracked {
    partition: Arc<Partition>,
    not_before: Option<Tick>,
    pause: Duration,
    /// Position that the session knows, and the number of the request that told it.
    told: Option<(FetchPosition, u64)>,
    /// Where the leader of an epoch last said that its log parts from this one.
    parted: Option<(i32, EpochEnd)>,
}

impl Tracked {
    fn waits_for_throttle(&self) -> bool {
        let me = self.partition.identity.broker_id;
        self.partition.is_throttled(CopySide::Follower)
            && self.partition.look(|replica| !replica.isr().contains(&me)).unwrap_or(false)
    }
}

impl Fetchers {
    /// Makes `partition` follow `leader`, or nobody.
    pub(crate) fn follow(&self, broker: &Broker, partition: &Arc<Partition>, leader: Option<i32>) {
        let key = (partition.identity.topic_id, partition.identity.partition);
        let mut sources = self.0.lock();
        for (id, source) in sources.iter() {
            if Some(*id) != leader && source.state.lock().remove(&key) {
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
        source.state.lock().add(key, partition);
        source.added.notify_one();
    }

    /// Goes on if the fetcher waits for the disk.
    pub(crate) fn synced(&self, partition: &Partition) {
        let key = (partition.identity.topic_id, partition.identity.partition);
        for source in self.0.lock().values() {
            let mut state = source.state.lock();
            if state.tracked.contains_key(&key) {
                state.changed.insert(key);
                source.synced.notify_one();
            }
        }
    }

    /// Forgets a partition that is not held here any more.
    pub(crate) fn forget(&self, broker: &Broker, partition: &Arc<Partition>) {
        self.follow(broker, partition, None);
    }
}

impl Source {
    async fn until_something_to_ask(&self, broker: &Broker) {
        let next_retry = self.state.lock().paused.first().map(|(at, _)| *at);
        tokio::select! {
            biased;
            () = self.added.notified() => {}
            () = self.synced.notified() => {}
            () = broker.rt.sleep_until_some(next_retry) => {}
        }
    }
}

impl Following {
    fn add(&mut self, key: Key, partition: &Arc<Partition>) {
        let before = self.tracked.get(&key).filter(|before| Arc::ptr_eq(&before.partition, partition));
        let (told, parted) = before.map_or((None, None), |before| (before.told, before.parted));
        let (partition, not_before, pause) = (partition.clone(), None, FIRST_PAUSE);
        let tracked = Tracked { partition, not_before, pause, told, parted };
        if let Some(Tracked { not_before: Some(at), .. }) = self.tracked.insert(key, tracked) {
            self.paused.remove(&(at, key));
        }
        self.changed.insert(key);
    }

    fn remove(&mut self, key: &Key) -> bool {
        if planted(Bug::NoEpochCheck) {
            // what the earlier leader has not answered yet is taken in, too
            self.changed.remove(key);
            return false;
        }
        let Some(gone) = self.tracked.remove(key) else { return false };
        if let Some(at) = gone.not_before {
            self.paused.remove(&(at, *key));
        }
        self.changed.remove(key);
        self.forgotten.insert(*key);
        true
    }

    /// A new session knows nothing.
    fn begin_session(&mut self) {
        self.forgotten.clear();
        for (key, tracked) in &mut self.tracked {
            tracked.told = None;
            if tracked.not_before.is_none() {
                self.changed.insert(*key);
            }
        }
    }

    /// Leaves a partition out for a while, longer each time.
    fn pause(&mut self, key: &Key, now: Tick, longest: Duration) {
        let Some(tracked) = self.tracked.get_mut(key) else { return };
        let at = now.saturating_add(tracked.pause);
        tracked.pause = (tracked.pause * 2).min(longest);
        self.leave_out(key, at);
    }

    /// Notes where the log of an epoch's leader parts from this one; `true` if it parted there before. What was cut off has
    /// been fetched again then, so one of the two is wrong about its epochs, and asking again at once does not help.
    fn parts_again(&mut self, key: &Key, leader_epoch: i32, at: EpochEnd) -> bool {
        let at = (leader_epoch, at);
        self.tracked.get_mut(key).is_some_and(|tracked| tracked.parted.replace(at) == Some(at))
    }

    fn leave_out(&mut self, key: &Key, at: Tick) {
        let Some(tracked) = self.tracked.get_mut(key) else { return };
        if let Some(before) = tracked.not_before.replace(at) {
            self.paused.remove(&(before, *key));
        }
        if tracked.told.take().is_some() {
            self.forgotten.insert(*key);
        }
        self.paused.insert((at, *key));
        self.changed.remove(key);
    }

    fn resume(&mut self, now: Tick) {
        while let Some((at, key)) = self.paused.first().copied().filter(|(at, _)| *at <= now) {
            self.paused.remove(&(at, key));
            if let Some(tracked) = self.tracked.get_mut(&key) {
                tracked.not_before = None;
                self.changed.insert(key);
            }
        }
    }

    /// Whether the session has any partition, or will have.
    fn is_idle(&self) -> bool {
        self.changed.is_empty() && self.paused.len() == self.tracked.len()
    }

    /// What request number `round` has to tell; `None` while a replica waits for the disk.
    ///
    /// `blocked` says until when replicas that are throttled and not in sync are left out.
    fn next_round(&mut self, now: Tick, round: u64, blocked: Option<Tick>) -> Option<Round> {
        self.resume(now);
        if let Some(until) = blocked {
            let until = until.min(now + THROTTLED);
            let waits =
                |key: &&Key| self.tracked.get(key).is_some_and(|tracked| tracked.waits_for_throttle());
            let waiting: Vec<Key> = self.changed.iter().filter(waits).copied().collect();
            waiting.iter().for_each(|key| self.leave_out(key, until));
        }
        let mut named = BTreeMap::new();
        let mut settled = Vec::new();
        for key in &self.changed {
            let Some(tracked) = self.tracked.get(key) else { continue };
            let look = |replica: &mut Replica<Stored>| (replica.fetch_position(), replica.is_sync_due());
            let (position, sync_due) = tracked.partition.look(look).unwrap_or_default();
            if sync_due {
                return None;
            }
            let told = tracked.told.map(|(position, _)| position);
            match position {
                Some(position) if told != Some(position) => {
                    named.insert(*key, position);
                }
                _ => settled.push(*key),
            }
        }
        settled.iter().for_each(|key| {
            self.changed.remove(key);
        });
        for (key, position) in &named {
            self.changed.remove(key);
            self.forgotten.remove(key);
            if let Some(tracked) = self.tracked.get_mut(key) {
                tracked.told = Some((*position, round));
            }
        }
        let forgotten = std::mem::take(&mut self.forgotten);
        Some(Round { number: round, named, forgotten, next_retry: self.paused.first().map(|(at, _)| *at) })
    }
}

/// What one request tells.
#[derive(Debug)]
struct Round {
    number: u64,
    named: BTreeMap<Key, FetchPosition>,
    forgotten: BTreeSet<Key>,
    next_retry: Option<Tick>,
}

/// How the session with a leader stands.
#[derive(Debug, Default)]
struct Session {
    /// 0 before there is one.
    id: i32,
    /// Of the next request.
    epoch: i32,
    /// The leader has no room for sessions: every request is a whole one.
    declined: bool,
}

async fn fetch_from(broker: Arc<Broker>, leader: i32, source: Arc<Source>) {
    let name = format!("fetcher of broker {}", broker.id());
    let backoff = broker.config.millis("replica.fetch.backoff.ms").unwrap_or(Duration::from_secs(1));
    let me = Party::Node(broker.id());
    loop {
        if source.state.lock().tracked.is_empty() {
            source.added.notified().await;
        }
        let ended = match broker.network.dial(&me, &Party::Node(leader), &name).await {
            Ok(link) => {
                let conversation = Conversation {
                    broker: &broker,
                    source: &source,
                    link,
                    session: Session::default(),
                    rounds: 0,
                    under_way: VecDeque::new(),
                };
                conversation.hold().await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(broker = broker.id(), leader, %error, "cannot fetch");
            broker.rt.sleep(backoff).await;
        }
    }
}

/// One connection to a leader.
struct Conversation<'a> {
    broker: &'a Arc<Broker>,
    source: &'a Source,
    link: Link,
    session: Session,
    rounds: u64,
    under_way: VecDeque<UnderWay>,
}

/// A request whose answer is awaited.
struct UnderWay {
    number: u64,
    give_up_at: Tick,
    answer: BoxFuture<Result<Frame, LinkError>>,
}

impl Conversation<'_> {
    /// Fetches until nothing is followed any more (`Ok`) or the link breaks.
    async fn hold(mut self) -> Result<(), LinkError> {
        self.source.state.lock().begin_session();
        loop {
            let Some(first) = self.under_way.front_mut() else {
                if !self.ask().await? {
                    self.source.until_something_to_ask(self.broker).await;
                    if self.source.state.lock().tracked.is_empty() {
                        return Ok(());
                    }
                }
                continue;
            };
            let number = first.number;
            let answer = tokio::select! {
                biased;
                answer = &mut first.answer => answer?,
                () = self.broker.rt.sleep_until(first.give_up_at) => {
                    return Err(LinkError::TimedOut { what: "response", limit: socket_timeout(self.broker) });
                }
                () = self.source.added.notified() => {
                    self.ask_besides().await?;
                    continue;
                }
                () = self.source.synced.notified() => {
                    self.ask_besides().await?;
                    continue;
                }
            };
            self.under_way.pop_front();
            let frame_bytes = answer.len_bytes();
            let mut response = decode_response::<FetchRequest>(answer).map_err(malformed)?;
            for data in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
                data.records = data.records.take().map(|records| to_keep(records, frame_bytes));
            }
            self.take_in(number, response).await?;
        }
    }

    /// Sends the next request, if there is anything to ask.
    async fn ask(&mut self) -> Result<bool, LinkError> {
        let now = self.broker.rt.now();
        let whole = self.session.id == 0;
        let round = {
            let mut state = self.source.state.lock();
            if whole {
                state.begin_session();
            }
            state.resume(now);
            if state.is_idle() && (whole || state.forgotten.is_empty()) {
                return Ok(false);
            }
            let blocked = self.broker.throttled_until(CopySide::Follower);
            match state.next_round(now, self.rounds + 1, blocked) {
                Some(round) if whole && round.named.is_empty() => return Ok(false),
                Some(round) => round,
                None => return Ok(false),
            }
        };
        self.rounds += 1;
        let request = self.request(&round);
        let frame = encode_request(FETCH_VERSION, &request).map_err(malformed)?;
        std::future::poll_fn(|cx| self.link.poll_ready(cx)).await?;
        let give_up_at = self.broker.rt.now().saturating_add(socket_timeout(self.broker));
        let answer = Box::pin(self.link.call(frame));
        self.under_way.push_back(UnderWay { number: round.number, give_up_at, answer });
        if self.session.id != 0 {
            self.session.epoch = self.session.epoch.checked_add(1).unwrap_or(1);
        }
        Ok(true)
    }

    /// Ends the long poll by a second request if that tells anything.
    async fn ask_besides(&mut self) -> Result<(), LinkError> {
        let state = || self.source.state.lock();
        if self.under_way.len() >= UNDER_WAY || self.session.id == 0 || state().changed.is_empty() {
            return Ok(());
        }
        self.ask().await.map(|_| ())
    }

    fn request(&self, round: &Round) -> FetchRequest {
        let broker = self.broker;
        let setting = |name: &str, default: i64| {
            i32::try_from(broker.config.int(name).unwrap_or(default)).unwrap_or(i32::MAX)
        };
        let until_retry = round.next_retry.map(|at| at.saturating_sub(broker.rt.now()).as_millis().max(1));
        let longest = i64::from(setting("replica.fetch.wait.max.ms", 500));
        let wait = match until_retry.and_then(|ms| i64::try_from(ms).ok()) {
            // it only opens a session, in which to wait
            _ if self.session.id == 0 && !self.session.declined => 0,
            Some(ms) => longest.min(ms),
            None => longest,
        };
        let replica = ReplicaState::default()
            .with_replica_id(BrokerId(broker.id()))
            .with_replica_epoch(broker.registration().epoch);
        FetchRequest::default()
            .with_replica_state(replica)
            .with_max_wait_ms(i32::try_from(wait).unwrap_or(i32::MAX))
            .with_min_bytes(setting("replica.fetch.min.bytes", 1))
            .with_max_bytes(setting("replica.fetch.response.max.bytes", 10_485_760))
            .with_session_id(self.session.id)
            .with_session_epoch(self.session.epoch)
            .with_topics(topics(&round.named, setting("replica.fetch.max.bytes", 1_048_576)))
            .with_forgotten_topics_data(forgotten(&round.forgotten))
    }

    /// Feeds an answer to the replicas it is for.
    async fn take_in(&mut self, number: u64, response: FetchResponse) -> Result<(), LinkError> {
        let code = ErrorCode(response.error_code);
        match code {
            ErrorCode::NONE => {}
            // the poll that a later request has ended
            ErrorCode::INVALID_FETCH_SESSION_EPOCH if !self.under_way.is_empty() => return Ok(()),
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND
            | ErrorCode::INVALID_FETCH_SESSION_EPOCH
            | ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR => {
                tracing::debug!(broker = self.broker.id(), %code, "fetch session is over");
                self.session = Session::default();
                return Ok(());
            }
            refused => return Err(malformed(format!("fetch refused with {refused}"))),
        }
        if response.session_id != self.session.id {
            let epoch = i32::from(response.session_id != 0);
            self.session = Session { id: response.session_id, epoch, declined: response.session_id == 0 };
        }
        for topic in response.responses {
            for data in topic.partitions {
                self.take_in_partition(number, (topic.topic_id, data.partition_index), data).await?;
            }
        }
        Ok(())
    }

    async fn take_in_partition(
        &mut self,
        number: u64,
        key: Key,
        data: PartitionData,
    ) -> Result<(), LinkError> {
        let broker = self.broker;
        let tracked = self.source.state.lock().tracked.get(&key).cloned();
        // what was asked for meanwhile is answered by the next one
        let Some(Tracked { partition, told: Some((position, told_in)), .. }) = tracked else { return Ok(()) };
        if told_in > number {
            return Ok(());
        }
        let diverging = &data.diverging_epoch;
        let diverging = EpochEnd { epoch: diverging.epoch, end_offset: diverging.end_offset };
        let code = match ErrorCode(data.error_code) {
            ErrorCode::NONE => feed(broker, &partition, &position, data),
            ErrorCode::OFFSET_OUT_OF_RANGE => self.move_into_range(&partition, &position).await?,
            refused => refused,
        };
        let longest = broker.config.millis("replica.fetch.backoff.ms").unwrap_or(Duration::from_secs(1));
        let mut state = self.source.state.lock();
        let leader_epoch = position.current_leader_epoch;
        if code.is_ok() && diverging.end_offset >= 0 && state.parts_again(&key, leader_epoch, diverging) {
            let EpochEnd { epoch, end_offset } = diverging;
            tracing::warn!(
                replica = %partition.identity, epoch, end_offset,
                "the leader's log parts from this one where it did before; it is asked again later"
            );
            state.leave_out(&key, broker.rt.now().saturating_add(longest));
        } else if code.is_ok() {
            if let Some(tracked) = state.tracked.get_mut(&key) {
                tracked.pause = FIRST_PAUSE;
            }
            state.changed.insert(key);
        } else {
            tracing::debug!(replica = %partition.identity, %code, "fetch failed");
            state.pause(&key, broker.rt.now(), longest);
        }
        Ok(())
    }
}

fn topics(named: &BTreeMap<Key, FetchPosition>, partition_max_bytes: i32) -> Vec<FetchTopic> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for ((topic, partition), position) in named {
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
    topics
}

fn forgotten(keys: &BTreeSet<Key>) -> Vec<ForgottenTopic> {
    let mut topics: Vec<ForgottenTopic> = Vec::new();
    for (topic, partition) in keys {
        match topics.last_mut().filter(|last| last.topic_id == *topic) {
            Some(last) => last.partitions.push(*partition),
            None => {
                topics
                    .push(ForgottenTopic::default().with_topic_id(*topic).with_partitions(vec![*partition]));
            }
        }
    }
    topics
}

/// Longest wait for an answer; one that never comes must not end the fetching.
fn socket_timeout(broker: &Broker) -> Duration {
    broker.config.millis("replica.socket.timeout.ms").unwrap_or(Duration::from_secs(30))
}

fn malformed(error: impl std::fmt::Display) -> LinkError {
    LinkError::Malformed { reason: error.to_string() }
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
    if partition.is_throttled(CopySide::Follower) {
        broker.copied(CopySide::Follower, data.records.as_ref().map_or(0, bytes::Bytes::len));
    }
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

impl Conversation<'_> {
    /// Asks the leader for its range of offsets and moves the follower into it.
    async fn move_into_range(
        &mut self,
        partition: &Arc<Partition>,
        position: &FetchPosition,
    ) -> Result<ErrorCode, LinkError> {
        let broker = self.broker;
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
            std::future::poll_fn(|cx| self.link.poll_ready(cx)).await?;
            let answer = broker.network.within(socket_timeout(broker), self.link.call(frame)).await?;
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
}

fn single_offset(response: &ListOffsetsResponse) -> Result<i64, ErrorCode> {
    let found = response.topics.first().and_then(|topic| topic.partitions.first());
    let found = found.ok_or(ErrorCode::UNKNOWN_SERVER_ERROR)?;
    if found.error_code == 0 { Ok(found.offset) } else { Err(ErrorCode(found.error_code)) }
}
