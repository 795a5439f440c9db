//! What a member says to its coordinator and hears from it, for the history: what a consumer does by itself, such as an
//! automatic commit, no application sees.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use klamm::{ApiKey, BoxConnector, Endpoint, Frame, Link, LinkError};
use klamm_core::assign::read_assignment;
use klamm_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use klamm_wire::{ErrorCode, codec};
use parking_lot::Mutex;
use tower::Service;

use super::holding::Holding;
use crate::history::{Client, Clock, CommitSent, History, Partition};

/// Writes down what one member says and hears.
#[derive(Debug)]
pub struct Ear {
    pub(super) clock: Clock,
    pub(super) history: Arc<Mutex<History>>,
    pub(super) me: Client,
    /// Partitions of each topic.
    pub(super) topics: Vec<(Arc<str>, Arc<[Partition]>)>,
    /// Generation of the last assignment; -1 before the first.
    pub(super) generation: AtomicI32,
    pub(super) contact: Mutex<Contact>,
    pub(super) holding: Arc<Holding>,
}

/// What keeps a member in its group: joins, syncs and heartbeats.
#[derive(Debug, Default)]
pub(super) struct Contact {
    /// When the last one was sent that was answered with good; none once it is told that it is no member.
    good: Option<Duration>,
    /// When the last one was sent.
    tried: Option<Duration>,
}

/// What the answer to a request is about.
enum Asked {
    Join,
    Sync(i32),
    Heartbeat,
    Commit(Vec<Sent>),
    Fetch,
}

struct Sent {
    topic: TopicName,
    index: i32,
    number: CommitSent,
    place: Partition,
    offset: i64,
}

impl Ear {
    pub(super) fn place(&self, topic: &str, partition: i32) -> Option<Partition> {
        let (_, partitions) = self.topics.iter().find(|(name, _)| &**name == topic)?;
        partitions.get(usize::try_from(partition).ok()?).copied()
    }

    /// Whether its session may be over: it was told so, or for as long as that lasts it was answered nothing good, though it asked.
    pub(super) fn is_cut_off(&self, session: Duration) -> bool {
        let Contact { good, tried } = *self.contact.lock();
        good.is_none_or(|at| at + session <= self.clock.now() && Some(at) < tried)
    }

    fn asks(&self) {
        self.contact.lock().tried = Some(self.clock.now());
    }

    fn answered(&self, error: i16, asked_at: Duration) {
        let good = &mut self.contact.lock().good;
        match ErrorCode(error) {
            ErrorCode::NONE | ErrorCode::REBALANCE_IN_PROGRESS => *good = (*good).max(Some(asked_at)),
            // One whose generation is not known may go back to the one before.
            ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID if *good <= Some(asked_at) => {
                *good = None;
            }
            _ => {}
        }
    }

    fn said(&self, frame: &Frame) -> Option<Asked> {
        let key = ApiKey::try_from(frame.api_key).ok()?;
        if matches!(key, ApiKey::JoinGroup | ApiKey::SyncGroup | ApiKey::Heartbeat) {
            self.asks();
        }
        match key {
            ApiKey::JoinGroup => Some(Asked::Join),
            ApiKey::SyncGroup => {
                let request: SyncGroupRequest = read(codec::decode_request(frame.clone()));
                Some(Asked::Sync(request.generation_id))
            }
            ApiKey::Heartbeat => Some(Asked::Heartbeat),
            ApiKey::OffsetFetch => Some(Asked::Fetch),
            ApiKey::OffsetCommit => {
                let request: OffsetCommitRequest = read(codec::decode_request(frame.clone()));
                let (mut history, mut sent) = (self.history.lock(), Vec::new());
                for topic in request.topics {
                    for part in topic.partitions {
                        let Some(place) = self.place(&topic.name, part.partition_index) else { continue };
                        let (offset, generation) =
                            (part.committed_offset, request.generation_id_or_member_epoch);
                        let number =
                            history.commit_sent(self.clock.now(), self.me, place, offset, generation);
                        self.holding.asked(self.clock.now(), self.me, place, offset);
                        let (topic, index) = (topic.name.clone(), part.partition_index);
                        sent.push(Sent { topic, index, number, place, offset });
                    }
                }
                Some(Asked::Commit(sent))
            }
            _ => None,
        }
    }

    fn heard(&self, asked: Asked, asked_at: Duration, answer: Frame) {
        let (now, me) = (self.clock.now(), self.me);
        match asked {
            Asked::Join => {
                let answer = read(codec::decode_response::<JoinGroupRequest>(answer));
                self.answered(answer.error_code, asked_at);
                if answer.error_code == 0 {
                    self.history.lock().joined(now, me, answer.generation_id, asked_at);
                }
            }
            Asked::Sync(generation) => {
                let answer = read(codec::decode_response::<SyncGroupRequest>(answer));
                self.answered(answer.error_code, asked_at);
                if answer.error_code == 0 {
                    self.generation.store(generation, Ordering::Relaxed);
                    let given = read_assignment(answer.assignment)
                        .map_or_else(|_| Vec::new(), |told| told.partitions);
                    let mut history = self.history.lock();
                    history.synced(now, me, generation);
                    for name in given {
                        let place = self.place(&name.topic, name.partition);
                        place.into_iter().for_each(|place| history.given(now, me, place, generation));
                    }
                }
            }
            Asked::Heartbeat => {
                let answer = read(codec::decode_response::<HeartbeatRequest>(answer));
                self.answered(answer.error_code, asked_at);
            }
            Asked::Commit(sent) => {
                let answer = read(codec::decode_response::<OffsetCommitRequest>(answer));
                let parts = answer.topics.iter().flat_map(|topic| &topic.partitions);
                let codes = parts.map(|part| part.error_code).filter(|code| *code != 0);
                codes.for_each(|code| self.answered(code, asked_at));
                let mut history = self.history.lock();
                for topic in &answer.topics {
                    for part in topic.partitions.iter().filter(|part| part.error_code == 0) {
                        let of =
                            |sent: &&Sent| sent.topic == topic.name && sent.index == part.partition_index;
                        if let Some(Sent { number, place, offset, .. }) = sent.iter().find(of) {
                            history.commit_acked(now, me, *number);
                            self.holding.acknowledged(me, *place, *offset);
                        }
                    }
                }
            }
            Asked::Fetch => {
                let answer = read(codec::decode_response::<OffsetFetchRequest>(answer));
                let mut history = self.history.lock();
                for group in answer.groups.iter().filter(|group| group.error_code == 0) {
                    for topic in &group.topics {
                        for part in topic.partitions.iter().filter(|part| part.error_code == 0) {
                            let Some(place) = self.place(&topic.name, part.partition_index) else { continue };
                            let known = (part.committed_offset >= 0).then_some(part.committed_offset);
                            history.commit_fetched(now, me, place, known, asked_at);
                            history.began(now, me, place, known.unwrap_or(0));
                            self.holding.began(me, place, known.unwrap_or(0));
                        }
                    }
                }
            }
        }
    }
}

/// What the product's own codec has written, it can read.
fn read<T>(decoded: Result<T, codec::CodecError>) -> T {
    decoded.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(format!("overheard: {error}"))))
}

/// A connector that is listened to.
#[derive(Clone)]
pub struct Overheard {
    connector: BoxConnector,
    ear: Arc<Ear>,
}

impl Overheard {
    /// Lets `ear` listen to everything that goes through.
    pub fn new(connector: BoxConnector, ear: Arc<Ear>) -> Self {
        Self { connector, ear }
    }
}

impl Service<Endpoint> for Overheard {
    type Response = Link;
    type Error = LinkError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, LinkError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let (dial, ear) = (self.connector.call(endpoint), self.ear.clone());
        Box::pin(async move { Ok(Link::new(OverheardLink { link: dial.await?, ear })) })
    }
}

struct OverheardLink {
    link: Link,
    ear: Arc<Ear>,
}

impl Service<Frame> for OverheardLink {
    type Response = Frame;
    type Error = LinkError;
    type Future = Pin<Box<dyn Future<Output = Result<Frame, LinkError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.link.poll_ready(cx)
    }

    fn call(&mut self, frame: Frame) -> Self::Future {
        let (asked, at) = (self.ear.said(&frame), self.ear.clock.now());
        let answer = self.link.call(frame);
        let ear = self.ear.clone();
        match asked {
            None => answer,
            Some(asked) => Box::pin(async move {
                let answer = answer.await?;
                ear.heard(asked, at, answer.clone());
                Ok(answer)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn who_hears_of_its_session_for_longer_than_that_lasts_nothing_or_no_good_is_cut_off() {
        let seconds = Arc::new(AtomicU64::new(0));
        let now = seconds.clone();
        let mut history = History::new();
        let ear = Ear {
            clock: Clock::new(move || Duration::from_secs(now.load(Ordering::SeqCst))),
            me: history.consumer("a", Some("g")),
            history: Arc::new(Mutex::new(history)),
            topics: Vec::new(),
            generation: AtomicI32::new(-1),
            contact: Mutex::default(),
            holding: Arc::default(),
        };
        let cut_off_at = |at| {
            seconds.store(at, Ordering::SeqCst);
            ear.is_cut_off(Duration::from_secs(5))
        };
        assert!(cut_off_at(0), "it has no session yet");
        for asked in 1..=2 {
            seconds.store(asked, Ordering::SeqCst);
            ear.asks();
        }
        ear.answered(ErrorCode::NONE.0, Duration::from_secs(2));
        ear.answered(ErrorCode::NONE.0, Duration::from_secs(1));
        assert!(!cut_off_at(7), "it was silent itself");
        seconds.store(4, Ordering::SeqCst);
        ear.asks();
        ear.answered(ErrorCode::NOT_COORDINATOR.0, Duration::from_secs(4));
        assert!(!cut_off_at(6) && cut_off_at(7));
        ear.answered(ErrorCode::NONE.0, Duration::from_secs(4));
        ear.answered(ErrorCode::ILLEGAL_GENERATION.0, Duration::from_secs(4));
        assert!(!cut_off_at(7), "it goes back to the generation before");
        ear.answered(ErrorCode::UNKNOWN_MEMBER_ID.0, Duration::from_secs(4));
        assert!(cut_off_at(7));
    }
}
