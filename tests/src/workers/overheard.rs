//! What a member says to its coordinator and hears from it, for the history: what a consumer does by itself, such as an
//! automatic commit, no application sees.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::task::{Context, Poll};

use klamm::{ApiKey, BoxConnector, Endpoint, Frame, Link, LinkError};
use klamm_core::assign::read_assignment;
use klamm_wire::codec;
use klamm_wire::messages::{
    JoinGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest, TopicName,
};
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
    pub(super) holding: Arc<Holding>,
}

/// What the answer to a request is about.
enum Asked {
    Join,
    Sync(i32),
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

    fn said(&self, frame: &Frame) -> Option<Asked> {
        match ApiKey::try_from(frame.api_key).ok()? {
            ApiKey::JoinGroup => Some(Asked::Join),
            ApiKey::SyncGroup => {
                let request: SyncGroupRequest = read(codec::decode_request(frame.clone()));
                Some(Asked::Sync(request.generation_id))
            }
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

    fn heard(&self, asked: Asked, asked_at: std::time::Duration, answer: Frame) {
        let (now, me) = (self.clock.now(), self.me);
        match asked {
            Asked::Join => {
                let answer = read(codec::decode_response::<JoinGroupRequest>(answer));
                if answer.error_code == 0 {
                    self.history.lock().joined(now, me, answer.generation_id, asked_at);
                }
            }
            Asked::Sync(generation) => {
                let answer = read(codec::decode_response::<SyncGroupRequest>(answer));
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
            Asked::Commit(sent) => {
                let answer = read(codec::decode_response::<OffsetCommitRequest>(answer));
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
