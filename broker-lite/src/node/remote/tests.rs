use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use bytes::Bytes;
use klamm_wire::codec::{decode_request_header, encode_response, encode_response_header};
use klamm_wire::framing::{FrameSplitter, length_prefix};
use klamm_wire::messages::MetadataRequest;
use klamm_wire::messages::api_versions_response::ApiVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::Cluster;

const METADATA: i16 = 3;
const LIMIT: Duration = Duration::from_secs(20);

fn rt() -> Rt {
    Rt::current(Some(1)).unwrap()
}

fn patience() -> Patience {
    Patience { connect: LIMIT, pause: Duration::from_millis(40), answer_bytes: 1000, in_flight: 4 }
}

fn frame() -> Frame {
    Frame::new(METADATA, 1, Bytes::from_static(b"\0\0\0\0"))
}

async fn ready(link: &mut Link) -> Result<(), LinkError> {
    std::future::poll_fn(|cx| link.poll_ready(cx)).await
}

/// What a fake does with a request.
#[derive(Clone)]
enum Act {
    Raw(Vec<u8>),
    Silence,
    Close,
}

/// A whole answer, with the header of version 0.
fn answer(correlation_id: i32, body: &[u8]) -> Act {
    let length = length_prefix(4 + body.len()).unwrap();
    Act::Raw([&length[..], &correlation_id.to_be_bytes(), body].concat())
}

fn echo(correlation_id: i32) -> Act {
    answer(correlation_id, &correlation_id.to_be_bytes())
}

/// A listener that offers one API, and does what it is told with everything but ApiVersions.
struct Fake {
    endpoint: Endpoint,
    /// Connections accepted, and those that have ended.
    accepted: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    asked_by: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    async fn start(offers: i16, act: impl Fn(i32) -> Act + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port());
        let (accepted, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let asked_by = Arc::new(Mutex::new(Vec::new()));
        let fake =
            Self { endpoint, accepted: accepted.clone(), ended: ended.clone(), asked_by: asked_by.clone() };
        rt().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (act, ended, asked_by) = (act.clone(), ended.clone(), asked_by.clone());
                rt().spawn(async move {
                    let mut splitter = FrameSplitter::new(1 << 20);
                    'open: while stream.read_buf(splitter.read_buffer()).await.is_ok_and(|count| count > 0) {
                        while let Some(mut request) = splitter.next_frame().unwrap() {
                            let head = decode_request_header(&mut request).unwrap();
                            asked_by.lock().push(head.client_id.as_deref().unwrap_or_default().to_owned());
                            let act = match head.api_key {
                                18 => Act::Raw(versions(offers, head.correlation_id)),
                                _ => act(head.correlation_id),
                            };
                            match act {
                                Act::Raw(bytes) => stream.write_all(&bytes).await.unwrap(),
                                Act::Silence => {}
                                Act::Close => break 'open,
                            }
                        }
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        fake
    }

    async fn link(&self) -> Link {
        let stream = connect(&rt(), &self.endpoint, LIMIT).await.unwrap();
        socket::open(&rt(), stream, Some("me".into()), 1000, 4)
    }

    fn remotes(&self) -> (Remotes, Party) {
        let (remotes, party) = (Remotes::new(rt(), 1, patience()), Party::Node(2));
        remotes.set(&party, Listener::Broker, self.endpoint.clone());
        (remotes, party)
    }

    async fn until_ended(&self, count: usize) {
        while self.ended.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }
}

fn versions(offers: i16, correlation_id: i32) -> Vec<u8> {
    let offered = ApiVersion::default().with_api_key(offers).with_max_version(9);
    let response = ApiVersionsResponse::default().with_api_keys(vec![offered]);
    let frame = encode_response::<ApiVersionsRequest>(API_VERSIONS, &response).unwrap();
    let header = encode_response_header(18, API_VERSIONS, correlation_id);
    let body = frame.into_contiguous();
    [&length_prefix(header.len() + body.len()).unwrap()[..], &header, &body].concat()
}

#[tokio::test]
async fn answers_go_to_their_requests_in_order() {
    let fake = Fake::start(PRODUCE, echo).await;
    let mut link = fake.link().await;
    let mut answers = Vec::new();
    for number in 0..50_i32 {
        ready(&mut link).await.unwrap();
        answers.push((number, link.call(frame())));
    }
    for (number, answer) in answers {
        assert_eq!(answer.await.unwrap().into_contiguous(), Bytes::copy_from_slice(&number.to_be_bytes()));
    }
    assert_eq!(fake.asked_by.lock()[0], "me");
}

#[tokio::test]
async fn a_full_link_is_not_ready() {
    let fake = Fake::start(PRODUCE, |_| Act::Silence).await;
    let mut link = fake.link().await;
    let mut taken = Vec::new();
    let mut noop = Context::from_waker(Waker::noop());
    // What is on the wire, what waits for it, and one for each handle of the channel between them.
    while taken.len() < 100 {
        tokio::task::yield_now().await;
        if link.poll_ready(&mut noop).is_pending() {
            break;
        }
        taken.push(link.call(frame()));
    }
    assert!((4..=10).contains(&taken.len()), "{}", taken.len());
}

#[tokio::test]
async fn an_error_is_final_and_fails_all_that_is_under_way() {
    for (name, act, part) in [
        ("close", Act::Close, "connection closed"),
        ("another correlation id", answer(9, &[]), "correlation id 9, expected 0"),
        ("a negative length", Act::Raw(vec![255; 4]), "negative frame length -1"),
        ("too long", Act::Raw(vec![0, 1, 0, 0]), "frame of 65536 B exceeds the limit of 1000 B"),
        ("no correlation id", Act::Raw(vec![0, 0, 0, 2, 0, 0]), "an answer of 2 B has no correlation id"),
        ("http", Act::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), "exceeds the limit"),
    ] {
        let fake = Fake::start(PRODUCE, move |id| if id < 2 { Act::Silence } else { act.clone() }).await;
        let mut link = fake.link().await;
        ready(&mut link).await.unwrap();
        let answers: Vec<_> = (0..3).map(|_| link.call(frame())).collect();
        for answer in answers {
            let error = answer.await.unwrap_err();
            assert!(!matches!(error, LinkError::NotSent { .. }), "{name}: {error}");
            assert!(error.to_string().contains(part), "{name}: {error}");
        }
        let error = ready(&mut link).await.unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
        let error = link.call(frame()).await.unwrap_err();
        assert!(matches!(error, LinkError::NotSent { .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn an_answer_to_nothing_ends_the_conversation() {
    let fake = Fake::start(PRODUCE, |id| {
        let (Act::Raw(first), Act::Raw(second)) = (echo(id), echo(id)) else { return Act::Close };
        Act::Raw([first, second].concat())
    })
    .await;
    let mut link = fake.link().await;
    ready(&mut link).await.unwrap();
    link.call(frame()).await.unwrap();
    fake.until_ended(1).await;
    assert!(ready(&mut link).await.unwrap_err().to_string().contains("to nothing that was asked"));
}

#[tokio::test]
async fn a_request_without_answer_resolves_when_it_is_written() {
    let fake = Fake::start(PRODUCE, |_| Act::Silence).await;
    let mut link = fake.link().await;
    for _ in 0..20 {
        ready(&mut link).await.unwrap();
        let written = link.call(Frame { expects_reply: false, ..frame() }).await.unwrap();
        assert_eq!(written.len_bytes(), 0);
    }
}

#[tokio::test]
async fn a_link_that_is_dropped_closes_its_connection() {
    let fake = Fake::start(PRODUCE, |_| Act::Silence).await;
    let mut link = fake.link().await;
    ready(&mut link).await.unwrap();
    let unanswered = link.call(frame());
    drop(link);
    assert!(unanswered.await.is_err());
    fake.until_ended(1).await;
}

#[tokio::test]
async fn requests_of_one_purpose_share_a_connection_that_lasts() {
    let fake = Fake::start(PRODUCE, echo).await;
    let (remotes, party) = fake.remotes();
    for _ in 0..10 {
        let calls = (0..5).map(|_| remotes.call(&party, "heartbeats", LIMIT, frame()));
        assert!(futures::future::join_all(calls).await.iter().all(Result::is_ok));
    }
    assert_eq!(fake.accepted.load(Ordering::SeqCst), 1);
    remotes.call(&party, "votes", LIMIT, frame()).await.unwrap();
    assert_eq!(fake.accepted.load(Ordering::SeqCst), 2);
    let asked_by = fake.asked_by.lock();
    assert!(
        asked_by.iter().any(|id| id == "node 1: heartbeats")
            && asked_by.iter().any(|id| id == "node 1: votes")
    );
}

#[tokio::test]
async fn a_connection_that_broke_or_does_not_answer_is_replaced() {
    let fake = Fake::start(PRODUCE, |id| match id {
        1 => echo(id),
        2 => Act::Silence,
        _ => Act::Close,
    })
    .await;
    let (remotes, party) = fake.remotes();
    for round in 0..3 {
        // ApiVersions was 0.
        remotes.call(&party, "p", LIMIT, frame()).await.unwrap();
        let limit = Duration::from_millis(20);
        let late = remotes.call(&party, "p", limit, frame()).await.unwrap_err();
        assert!(matches!(late, LinkError::TimedOut { .. }), "{late}");
        fake.until_ended(round + 1).await;
    }
    assert_eq!(fake.accepted.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_listens_elsewhere_is_told_from_what_is_meant() {
    let fake = Fake::start(BROKER_REGISTRATION, echo).await;
    let (remotes, party) = fake.remotes();
    let error = remotes.dial(&party, "p").await.unwrap_err().to_string();
    assert!(
        error.ends_with(&format!("what listens at {} is not a broker's listener", fake.endpoint)),
        "{error}"
    );
    assert!(remotes.unreachable()[0].contains("is not a broker's listener"));
    remotes.set(&party, Listener::Controller, fake.endpoint.clone());
    remotes.dial(&party, "p").await.unwrap();
    assert_eq!(remotes.unreachable(), Vec::<String>::new());
}

/// Goal: a dead node is not dialled in a busy loop, and is found soon when it is back.
#[tokio::test]
async fn a_node_that_is_away_is_tried_again_after_growing_pauses() {
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new("127.0.0.1", reserved.local_addr().unwrap().port());
    drop(reserved);
    let (remotes, party) = (Remotes::new(rt(), 1, patience()), Party::Node(2));
    remotes.set(&party, Listener::Broker, endpoint);
    let began = remotes.rt.now();
    for _ in 0..4 {
        remotes.dial(&party, "p").await.unwrap_err();
    }
    let passed = remotes.rt.now() - began;
    assert!(passed >= Duration::from_millis(20 + 40 + 40), "{passed:?}");
    let fake = Fake::start(PRODUCE, echo).await;
    remotes.set(&party, Listener::Broker, fake.endpoint.clone());
    remotes.dial(&party, "p").await.unwrap();
}

#[tokio::test]
async fn our_own_broker_answers_over_a_socket_what_it_answers_in_process() {
    let cluster = Cluster::builder().brokers(1).tcp(true).start().await.unwrap();
    let (host, port) =
        cluster.bootstrap().rsplit_once(':').map(|(h, p)| (h.to_owned(), p.parse().unwrap())).unwrap();
    let (remotes, party) =
        (Remotes::new(rt(), 1, Patience { answer_bytes: 1 << 20, ..patience() }), Party::Node(1));
    remotes.set(&party, Listener::Broker, Endpoint::new(host, port));
    let request = encode_request(12, &MetadataRequest::default().with_topics(None)).unwrap();
    let over_tcp = remotes.call(&party, "p", LIMIT, request.clone()).await.unwrap();
    let mut handle = cluster.handle();
    let mut link = handle.call(Endpoint::new("127.0.0.1", port)).await.unwrap();
    ready(&mut link).await.unwrap();
    let in_process = link.call(request).await.unwrap();
    assert_eq!(over_tcp.into_contiguous(), in_process.into_contiguous());
    cluster.kill(1).unwrap();
    assert!(remotes.call(&party, "p", LIMIT, frame()).await.is_err(), "and notices that it is gone");
}
