//! What every connector promises (`klamm_wire::seam`), as one check over any of them.
//!
//! In: a [`Peer`]: a connector, and a broker that can be reached through it. Out: what it does not keep.
//!
//! Every part looks at frames, not at clients: a client hides what a link does wrong. Run it on a current_thread
//! runtime, where an answer and the readiness that comes with it cannot be seen apart.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, Either, poll_immediate, select};
use klamm::{BoxConnector, Endpoint, Frame, Link, LinkError};
use klamm_wire::batch::{NO_HEADERS, NO_PRODUCER};
use klamm_wire::codec::{self, ProduceHead, ProducePartition, ProduceTopic, encode_produce};
use klamm_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_wire::messages::{
    BrokerId, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, TopicName,
};
use klamm_wire::{BatchBuilder, Compression, RawBatch, StrBytes};
use tokio::time::sleep;
use tower::Service;

/// Versions that name topics and that every peer speaks.
const PRODUCE: i16 = 9;
const FETCH: i16 = 11;
const LIST_OFFSETS: i16 = 5;
const METADATA: i16 = 9;
/// No broker has it, so every broker ends the conversation.
const NO_API: i16 = 32_000;
/// Turns a wait for ever into a failure; nothing here takes nearly as long.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a Fetch without records is held by the broker.
const LONG_POLL: Duration = Duration::from_millis(300);
/// More requests in flight than any connector may take.
const ANY_NUMBER: usize = 2_000;

/// A connector and a broker behind it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What is checked.
    pub connector: BoxConnector,
    /// A broker that leads the partitions below.
    pub endpoint: Endpoint,
    /// A topic with at least [`Peer::PARTITIONS`] partitions that nobody else uses.
    pub topic: String,
}

/// Says what is not kept.
pub type Verdict = Result<(), String>;

/// One promise.
pub struct Part {
    /// The promise, as a sentence.
    pub name: &'static str,
    check: for<'a> fn(&'a Peer) -> BoxFuture<'a, Verdict>,
}

impl Part {
    /// Whether a connector keeps the promise.
    ///
    /// # Errors
    ///
    /// What it does instead.
    pub async fn check(&self, peer: &Peer) -> Verdict {
        (self.check)(peer).await
    }
}

/// The order of `call` is the order at the broker.
pub const ORDER: Part =
    Part { name: "the order of calls is the order at the broker", check: |peer| Box::pin(order(peer)) };
/// `poll_ready` is the limit of requests in flight.
pub const LIMITED: Part =
    Part { name: "a link that is full is not ready, and later is", check: |peer| Box::pin(limited(peer)) };
/// An error is final.
pub const FINAL: Part = Part { name: "an error is final", check: |peer| Box::pin(final_error(peer)) };
/// Dropping a response future cancels nothing.
pub const DROPPED: Part =
    Part { name: "a dropped response future cancels nothing", check: |peer| Box::pin(dropped(peer)) };
/// A request with acks=0 resolves when it is written.
pub const UNANSWERED: Part =
    Part { name: "a request without answer resolves when written", check: |peer| Box::pin(unanswered(peer)) };

/// All promises.
pub const PARTS: [Part; 5] = [ORDER, LIMITED, FINAL, DROPPED, UNANSWERED];

/// Checks everything.
///
/// # Errors
///
/// Lists every promise that is not kept, and what happens instead.
pub async fn check(peer: &Peer) -> Verdict {
    let mut broken = Vec::new();
    for part in PARTS {
        if let Err(instead) = part.check(peer).await {
            broken.push(format!("{}: {instead}", part.name));
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
}

impl Peer {
    /// Partitions that the topic has to have: every part has its own.
    pub const PARTITIONS: i32 = 5;

    async fn link(&self) -> Result<Link, String> {
        let mut connector = self.connector.clone();
        let dialled = async {
            poll_fn(|cx| connector.poll_ready(cx)).await?;
            connector.call(self.endpoint.clone()).await
        };
        within("a connection", dialled).await?.map_err(|error| format!("cannot connect: {error}"))
    }

    fn produce(&self, partition: i32, value: &str, acks: i16) -> Result<Frame, String> {
        let mut builder = BatchBuilder::new(BytesMut::new());
        builder.append(1, None, Some(value.as_bytes()), NO_HEADERS);
        let sealed = builder.seal(Compression::None, None).map_err(|error| error.to_string())?;
        let header = Bytes::copy_from_slice(&sealed.header(NO_PRODUCER));
        let records = vec![header, sealed.records().clone()];
        let head = ProduceHead { acks, timeout_ms: 10_000, transactional_id: None };
        let topic = ProduceTopic {
            name: text(&self.topic),
            id: Default::default(),
            partitions: vec![ProducePartition { index: partition, records }],
        };
        encode_produce(PRODUCE, &head, &[topic]).map_err(|error| error.to_string())
    }

    fn fetch(&self, partition: i32, offset: i64) -> Result<Frame, String> {
        let partition = FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic(self.name()).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(i32::try_from(LONG_POLL.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_topics(vec![topic]);
        codec::encode_request(FETCH, &request).map_err(|error| error.to_string())
    }

    fn name(&self) -> TopicName {
        TopicName(text(&self.topic))
    }

    /// Offset of the next record.
    async fn end(&self, link: &mut Link, partition: i32) -> Result<i64, String> {
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(self.name()).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let frame = codec::encode_request(LIST_OFFSETS, &request).map_err(|error| error.to_string())?;
        let answer = call(link, frame).await?;
        let answer =
            codec::decode_response::<ListOffsetsRequest>(answer).map_err(|error| error.to_string())?;
        let listed = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
        match listed {
            Some(listed) if listed.error_code == 0 => Ok(listed.offset),
            other => Err(format!("the end of partition {partition} is not told: {other:?}")),
        }
    }

    /// Values of all records from an offset on.
    async fn values(&self, link: &mut Link, partition: i32, offset: i64) -> Result<Vec<String>, String> {
        let answer = call(link, self.fetch(partition, offset)?).await?;
        let answer = codec::decode_response::<FetchRequest>(answer).map_err(|error| error.to_string())?;
        let mut values = Vec::new();
        for data in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            let mut records = data.records.unwrap_or_default();
            while let Some(Ok(batch)) = RawBatch::split(&mut records) {
                let decoded = batch.records(1 << 20).map_err(|error| error.to_string())?;
                let found = decoded.iter().flatten().filter(|record| record.offset >= offset);
                values
                    .extend(found.map(|r| String::from_utf8_lossy(r.value.unwrap_or_default()).into_owned()));
            }
        }
        Ok(values)
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T, String> {
    // The limit is looked at first: a future that is ready only because the limit woke it has not said so.
    match select(pin!(sleep(LIMIT)), pin!(future)).await {
        Either::Left(_) => Err(format!("no {what} within {LIMIT:?}")),
        Either::Right((output, _)) => Ok(output),
    }
}

async fn ready(link: &mut Link) -> Result<(), String> {
    let ready = within("readiness", poll_fn(|cx| link.poll_ready(cx))).await?;
    ready.map_err(|error| format!("not ready: {error}"))
}

async fn answer(future: impl Future<Output = Result<Frame, LinkError>>) -> Result<Frame, String> {
    within("answer", future).await?.map_err(|error| format!("no answer: {error}"))
}

async fn call(link: &mut Link, frame: Frame) -> Result<Frame, String> {
    ready(link).await?;
    let future = link.call(frame);
    answer(future).await
}

fn base_offset(frame: Frame) -> Result<i64, String> {
    let answer = codec::decode_response::<ProduceRequest>(frame).map_err(|error| error.to_string())?;
    let written = answer.responses.iter().flat_map(|topic| &topic.partition_responses).next();
    match written {
        Some(written) if written.error_code == 0 => Ok(written.base_offset),
        other => Err(format!("the record was not written: {other:?}")),
    }
}

async fn order(peer: &Peer) -> Verdict {
    const PARTITION: i32 = 0;
    let mut link = peer.link().await?;
    let first = peer.end(&mut link, PARTITION).await?;
    let mut answers = Vec::new();
    for n in 0..40 {
        ready(&mut link).await?;
        answers.push(link.call(peer.produce(PARTITION, &n.to_string(), 1)?));
    }
    let mut offsets = Vec::new();
    for future in answers {
        offsets.push(base_offset(answer(future).await?)?);
    }
    let expected: Vec<i64> = (first..first + 40).collect();
    if offsets != expected {
        return Err(format!("requests were written at {offsets:?}"));
    }
    let values = peer.values(&mut link, PARTITION, first).await?;
    let expected: Vec<_> = (0..40).map(|n| n.to_string()).collect();
    if values == expected { Ok(()) } else { Err(format!("the log holds {values:?}")) }
}

async fn limited(peer: &Peer) -> Verdict {
    const PARTITION: i32 = 1;
    let mut link = peer.link().await?;
    let end = peer.end(&mut link, PARTITION).await?;
    let mut waiting = Vec::new();
    // Full is what stays full although the other side has had time to take what waits on the way.
    let mut looks_full = 0;
    while looks_full < 3 {
        match poll_immediate(poll_fn(|cx| link.poll_ready(cx))).await {
            Some(Ok(())) => {
                looks_full = 0;
                waiting.push(link.call(peer.fetch(PARTITION, end)?));
                if waiting.len() > ANY_NUMBER {
                    return Err(format!("{ANY_NUMBER} requests are taken without an answer"));
                }
            }
            Some(Err(error)) => return Err(format!("a link that is full fails: {error}")),
            None => {
                looks_full += 1;
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
    ready(&mut link).await?;
    // Woken by an answer, not by chance.
    let (first, rest) = match waiting.is_empty() {
        true => return Err("not one request is taken".to_owned()),
        false => (waiting.remove(0), waiting),
    };
    match poll_immediate(first).await {
        Some(Ok(_)) => {}
        other => return Err(format!("ready again without an answer: {other:?}")),
    }
    for future in rest {
        codec::decode_response::<FetchRequest>(answer(future).await?).map_err(|error| error.to_string())?;
    }
    peer.end(&mut link, PARTITION).await.map(drop)
}

async fn final_error(peer: &Peer) -> Verdict {
    const PARTITION: i32 = 2;
    let mut link = peer.link().await?;
    peer.end(&mut link, PARTITION).await?;
    ready(&mut link).await?;
    let last = link.call(Frame::new(NO_API, 0, Bytes::new()));
    let behind = match poll_immediate(poll_fn(|cx| link.poll_ready(cx))).await {
        Some(Ok(())) => Some(link.call(peer.produce(PARTITION, "too late", 1)?)),
        _ => None,
    };
    if within("end of the conversation", last).await?.is_ok() {
        return Err("a request of an unknown api is answered".to_owned());
    }
    if let Some(behind) = behind
        && within("end of a request behind it", behind).await?.is_ok()
    {
        return Err("a request is answered behind an error".to_owned());
    }
    for _ in 0..3 {
        if within("readiness after an error", poll_fn(|cx| link.poll_ready(cx))).await?.is_ok() {
            return Err("ready after an error".to_owned());
        }
        let future = link.call(peer.produce(PARTITION, "much too late", 1)?);
        if within("answer after an error", future).await?.is_ok() {
            return Err("a request is answered after an error".to_owned());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let mut fresh = peer.link().await?;
    peer.end(&mut fresh, PARTITION).await.map(drop)
}

async fn dropped(peer: &Peer) -> Verdict {
    const PARTITION: i32 = 3;
    let mut link = peer.link().await?;
    let first = peer.end(&mut link, PARTITION).await?;
    // One is never polled, the other is dropped while it waits.
    ready(&mut link).await?;
    drop(link.call(peer.produce(PARTITION, "never polled", 1)?));
    ready(&mut link).await?;
    let _ = poll_immediate(link.call(peer.produce(PARTITION, "polled once", 1)?)).await;
    let metadata = MetadataRequest::default().with_topics(Some(Vec::new()));
    let metadata = codec::encode_request(METADATA, &metadata).map_err(|error| error.to_string())?;
    let told = call(&mut link, metadata).await?;
    let told = codec::decode_response::<MetadataRequest>(told)
        .map_err(|error| format!("the answer to the next request is another one: {error}"))?;
    if told.brokers.is_empty() {
        return Err("the answer to the next request names no brokers".to_owned());
    }
    let third = base_offset(call(&mut link, peer.produce(PARTITION, "awaited", 1)?).await?)?;
    let values = peer.values(&mut link, PARTITION, first).await?;
    if third == first + 2 && values == ["never polled", "polled once", "awaited"] {
        return Ok(());
    }
    Err(format!("behind two dropped futures the record is at {third}, from {first} on there are {values:?}"))
}

async fn unanswered(peer: &Peer) -> Verdict {
    const PARTITION: i32 = 4;
    let mut link = peer.link().await?;
    let first = peer.end(&mut link, PARTITION).await?;
    // Something that the broker holds: what is written does not wait for its answer. It waits for records of another
    // partition, which get none.
    let elsewhere = peer.end(&mut link, 1).await?;
    ready(&mut link).await?;
    let held = link.call(peer.fetch(1, elsewhere)?);
    ready(&mut link).await?;
    let written = link.call(peer.produce(PARTITION, "unanswered", 0)?);
    let frame = match select(pin!(written), pin!(held)).await {
        Either::Left((written, held)) => {
            answer(held).await?;
            written.map_err(|error| format!("not written: {error}"))?
        }
        Either::Right(_) => return Err("it waits for the answer to the request in front of it".to_owned()),
    };
    if frame.len_bytes() > 0 {
        return Err(format!("it resolves with {} bytes", frame.len_bytes()));
    }
    let next = base_offset(call(&mut link, peer.produce(PARTITION, "answered", 1)?).await?)?;
    if next != first + 1 {
        return Err(format!("the record behind it is at {next}, not at {}", first + 1));
    }
    let values = peer.values(&mut link, PARTITION, first).await?;
    if values == ["unanswered", "answered"] { Ok(()) } else { Err(format!("the log holds {values:?}")) }
}
