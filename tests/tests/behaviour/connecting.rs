//! How a client keeps its connections: counted by a connector around the cluster's own.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use klamm::{
    ApiKey, BoxConnector, Client, Connector, Consumer, Endpoint, Frame, Link, LinkError, Producer, Record,
    StartOffset,
};
use klamm_tests::backend::Backend;
use klamm_tests::process::find_program;
use klamm_tests::skipped;
use klamm_tests::suite::Outcome;
use tokio::time::{Instant, sleep};
use tower::Service;

use crate::tools::{SOON, read};

/// Short enough to wait for, several times as long as a request takes.
const IDLE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Connections, all together and still open, and those that were closed although an answer was awaited.
#[derive(Debug, Default)]
struct Counts {
    dialled: AtomicUsize,
    open: AtomicUsize,
    cut_short: AtomicUsize,
    /// Fetch requests that are not answered yet.
    polls: AtomicUsize,
}

impl Counts {
    fn dialled(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }

    fn polls(&self) -> usize {
        self.polls.load(Ordering::SeqCst)
    }

    async fn until_none_is_open(&self) {
        while self.open.load(Ordering::SeqCst) > 0 {
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Counts the connections that another connector opens.
#[derive(Debug, Clone)]
struct Counting {
    behind: BoxConnector,
    counts: Arc<Counts>,
}

/// One that is counted as long as it lives.
struct Counted {
    link: Link,
    counts: Arc<Counts>,
    /// Requests that are not answered yet.
    awaited: Arc<AtomicUsize>,
}

impl Service<Endpoint> for Counting {
    type Response = Link;
    type Error = LinkError;
    type Future = BoxFuture<'static, Result<Link, LinkError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.behind.poll_ready(cx)
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let (dialling, counts) = (self.behind.call(endpoint), self.counts.clone());
        Box::pin(async move {
            let link = dialling.await?;
            counts.dialled.fetch_add(1, Ordering::SeqCst);
            counts.open.fetch_add(1, Ordering::SeqCst);
            Ok(Link::new(Counted { link, counts, awaited: Arc::default() }))
        })
    }
}

impl Service<Frame> for Counted {
    type Response = Frame;
    type Error = LinkError;
    type Future = BoxFuture<'static, Result<Frame, LinkError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.link.poll_ready(cx)
    }

    fn call(&mut self, frame: Frame) -> Self::Future {
        let polls = usize::from(frame.api_key == ApiKey::Fetch as i16);
        let (answer, counts, awaited) = (self.link.call(frame), self.counts.clone(), self.awaited.clone());
        awaited.fetch_add(1, Ordering::SeqCst);
        counts.polls.fetch_add(polls, Ordering::SeqCst);
        Box::pin(async move {
            let answer = answer.await;
            awaited.fetch_sub(1, Ordering::SeqCst);
            counts.polls.fetch_sub(polls, Ordering::SeqCst);
            answer
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let cut_short = usize::from(self.awaited.load(Ordering::SeqCst) > 0);
        self.counts.cut_short.fetch_add(cut_short, Ordering::SeqCst);
        self.counts.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A client whose connections are counted.
fn counted(backend: &Backend, idle: Duration) -> Result<(Client, Arc<Counts>), klamm::ConfigError> {
    let counts = Arc::new(Counts::default());
    let counting = Counting { behind: backend.connector().erase(), counts: counts.clone() };
    let client = backend.client_builder().connector(counting).connections_max_idle_ms(idle).build()?;
    Ok((client, counts))
}

pub(crate) async fn idle_connections_are_closed_and_the_next_record_is_sent_on_a_new_one(
    backend: &Backend,
) -> Outcome {
    let topic = backend.topic("idle", 3).await?;
    let (client, counts) = counted(backend, IDLE)?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    let mut retries = 0;
    for round in 0..3 {
        for partition in 0..3 {
            let record = Record::new(topic.as_str()).partition(partition).value(round.to_string());
            let written = producer.send_and_wait(record).await?;
            assert_eq!(written.offset, Some(round));
        }
        // A topic that was just created may answer its first records late.
        if round == 0 {
            retries = producer.retries();
        }
        let before = counts.dialled();
        counts.until_none_is_open().await;
        assert_eq!(counts.dialled(), before, "nothing is dialled without need");
    }
    assert_eq!(counts.cut_short.load(Ordering::SeqCst), 0);
    assert_eq!(producer.retries(), retries, "no request meets a connection that is being closed");
    producer.close(SOON).await?;
    Ok(())
}

pub(crate) async fn a_connection_in_use_is_not_idle(backend: &Backend) -> Outcome {
    let topic = backend.topic("in-use", 1).await?;
    let (client, counts) = counted(backend, IDLE)?;
    let producer: Producer = Producer::builder().client(&client).build()?;
    let send = async || producer.send_and_wait(Record::new(topic.as_str()).value("v")).await;
    let mut last = Instant::now();
    send().await?;
    let (dialled, mut longest) = (counts.dialled(), Duration::ZERO);
    // Much longer than a connection may be idle, and never as long without a record.
    for _ in 0..12 {
        sleep(IDLE / 4).await;
        let now = Instant::now();
        send().await?;
        longest = longest.max(last.elapsed());
        last = now;
    }
    // A machine that stood still for so long has let the connection idle.
    assert!(counts.dialled() == dialled || longest >= IDLE, "one connection serves all the time: {counts:?}");
    producer.close(SOON).await?;
    Ok(())
}

/// A long poll that nobody answers yet looks like silence.
pub(crate) async fn a_connection_on_which_an_answer_is_awaited_is_not_idle(backend: &Backend) -> Outcome {
    let topic = backend.topic("awaited", 1).await?;
    let (client, counts) = counted(backend, IDLE / 4)?;
    let consumer: Consumer = Consumer::builder().client(&client).fetch_max_wait_ms(20 * IDLE).build()?;
    consumer.assign([((topic.as_str(), 0), StartOffset::Beginning)]);
    // The record comes while the broker holds the poll back, long after a connection without one would be closed.
    let write = async {
        while counts.polls() == 0 {
            sleep(LOOK_AGAIN).await;
        }
        sleep(2 * IDLE).await;
        assert!(counts.polls() > 0, "a poll is on its way: {counts:?}");
        assert_eq!(counts.cut_short.load(Ordering::SeqCst), 0, "none was cut short: {counts:?}");
        let producer: Producer = Producer::builder().client(&backend.client()?).build()?;
        producer.send_and_wait(Record::new(topic.as_str()).value("late")).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    let (written, record) = tokio::join!(write, consumer.recv());
    written?;
    assert_eq!(record?.value.as_deref(), Some(&b"late"[..]));
    consumer.close().await?;
    Ok(())
}

pub(crate) async fn tiny_socket_buffers_let_everything_through(backend: &Backend) -> Outcome {
    let topic = backend.topic("tiny-buffers", 1).await?;
    let client = backend.client_builder().send_buffer_bytes(1000).receive_buffer_bytes(1000).build()?;
    let producer: Producer =
        Producer::builder().client(&client).batch_size(500_000).max_request_size(1_000_000).build()?;
    let value = |index: usize| vec![index as u8; 10_000 + index];
    let mut deliveries = Vec::new();
    for index in 0..200 {
        deliveries.push(producer.send(Record::new(topic.as_str()).value(value(index))).await?);
    }
    for (offset, delivery) in (0..).zip(deliveries) {
        assert_eq!(delivery.await?.offset, Some(offset));
    }
    producer.close(SOON).await?;
    for (index, record) in read(backend, &topic, 1, 200).await?.into_iter().enumerate() {
        assert_eq!(record.value.as_deref(), Some(&*value(index)));
    }
    Ok(())
}

/// The sizes that the operating system tells of this process's connections to these ports: for receiving and sending.
fn sizes(ports: &[u16]) -> Result<Vec<(u32, u32)>, std::io::Error> {
    let output = Command::new("ss").args(["-tmnpOH", "state", "established"]).output()?;
    let mine = format!("pid={},", std::process::id());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let to = |line: &&str| {
        let peer = line.split_whitespace().nth(3).unwrap_or_default();
        line.contains(&mine) && ports.iter().any(|port| peer.ends_with(&format!(":{port}")))
    };
    let number = |line: &str, name: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let both = |line: &str| Some((number(line, ",rb")?, number(line, ",tb")?));
    Ok(text.lines().filter(to).filter_map(both).collect())
}

pub(crate) async fn buffer_sizes_reach_the_sockets_of_producers_and_consumers(backend: &Backend) -> Outcome {
    if find_program("ss").is_none() {
        skipped("ss", "it is not installed (Debian: apt-get install iproute2)");
        return Ok(());
    }
    let topic = backend.topic("buffers", 1).await?;
    let brokers = backend.client()?.admin().describe_cluster().await?.brokers;
    let ports: Vec<_> = brokers.iter().map(|broker| broker.port).collect();
    let bootstrap: Vec<_> = brokers.iter().map(|broker| format!("{}:{}", broker.host, broker.port)).collect();
    let bootstrap = ("bootstrap.servers", &*bootstrap.join(","));

    let sizes_of = [("receive.buffer.bytes", "31000"), ("send.buffer.bytes", "21000")];
    let producer: Producer = Producer::from_properties([bootstrap].into_iter().chain(sizes_of))?.build()?;
    producer.send_and_wait(Record::new(topic.as_str()).value("v")).await?;
    // Linux doubles what it is asked for.
    let told = sizes(&ports)?;
    assert!(told.contains(&(62_000, 42_000)), "a producer's: {told:?}");

    let sizes_of = [("receive.buffer.bytes", "32000"), ("send.buffer.bytes", "22000")];
    let consumer: Consumer = Consumer::from_properties([bootstrap].into_iter().chain(sizes_of))?.build()?;
    consumer.assign([((topic.as_str(), 0), StartOffset::Beginning)]);
    consumer.recv().await?;
    let told = sizes(&ports)?;
    assert!(told.contains(&(64_000, 44_000)), "a consumer's: {told:?}");
    assert!(told.contains(&(62_000, 42_000)), "still the producer's: {told:?}");
    producer.close(SOON).await?;
    consumer.close().await?;
    Ok(())
}
