//! One connection to a leader: what is asked, what comes back, and the session that both believe in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use broker_lite_core::replica::{EpochEnd, FetchPosition, FetchedFromLeader};
use klamm_wire::ErrorCode;
use klamm_wire::codec::{decode_response, encode_request};
use klamm_wire::messages::fetch_response::PartitionData;
use klamm_wire::messages::{FetchRequest, FetchResponse};
use klamm_wire::seam::{BoxFuture, Frame, Link, LinkError};
use tower_service::Service;

use super::following::{FIRST_PAUSE, Tracked};
use super::{Key, Source};
use crate::broker::{Broker, CopySide, Partition, to_keep};
use crate::rt::Tick;

/// Version of the Fetch requests between brokers.
const FETCH_VERSION: i16 = 17;
/// Requests under way at a time: the long poll, and the one that ends it.
const UNDER_WAY: usize = 2;

/// How the session with a leader stands.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// 0 before there is one.
    pub(super) id: i32,
    /// Of the next request.
    pub(super) epoch: i32,
    /// The leader has no room for sessions: every request is a whole one.
    pub(super) declined: bool,
}

/// One connection to a leader.
pub(super) struct Conversation<'a> {
    pub(super) broker: &'a Arc<Broker>,
    source: &'a Source,
    pub(super) link: Link,
    pub(super) session: Session,
    rounds: u64,
    under_way: VecDeque<UnderWay>,
}

/// A request whose answer is awaited.
struct UnderWay {
    number: u64,
    give_up_at: Tick,
    answer: BoxFuture<Result<Frame, LinkError>>,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(broker: &'a Arc<Broker>, source: &'a Source, link: Link) -> Self {
        Self { broker, source, link, session: Session::default(), rounds: 0, under_way: VecDeque::new() }
    }

    /// Fetches until nothing is followed any more (`Ok`) or the link breaks.
    pub(super) async fn hold(mut self) -> Result<(), LinkError> {
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

/// Longest wait for an answer; one that never comes must not end the fetching.
pub(super) fn socket_timeout(broker: &Broker) -> Duration {
    broker.config.millis("replica.socket.timeout.ms").unwrap_or(Duration::from_secs(30))
}

pub(super) fn malformed(error: impl std::fmt::Display) -> LinkError {
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
