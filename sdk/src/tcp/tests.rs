use std::future::poll_fn;

use bytes::Bytes;
use klamm_wire::Frame;
use tokio::net::TcpListener;

use super::*;
use crate::fake::{Act, Fake};
use crate::listener::Listener;

const METADATA: i16 = 3;

fn frame() -> Frame {
    Frame::new(METADATA, 1, Bytes::from_static(b"\0\0\0\0"))
}

async fn open(connector: TcpConnector, fake: &Fake) -> Link {
    let endpoint = Endpoint::new(fake.address.ip().to_string(), fake.address.port());
    connector.clone().call(endpoint).await.unwrap()
}

async fn ready(link: &mut Link) -> Result<(), LinkError> {
    poll_fn(|cx| link.poll_ready(cx)).await
}

fn is_ready(link: &mut Link) -> bool {
    link.poll_ready(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
}

/// Answers Metadata in version 1 with its correlation id as body.
fn echo(correlation_id: i32) -> Act {
    let id = correlation_id.to_be_bytes();
    Act::Raw([&8i32.to_be_bytes()[..], &id, &id].concat())
}

#[tokio::test]
async fn answers_go_to_their_requests_in_order_and_carry_the_client_id() {
    let fake = Fake::start(|head, _| echo(head.correlation_id)).await;
    let endpoint = Endpoint {
        client_id: Some("me".into()),
        ..Endpoint::new(fake.address.ip().to_string(), fake.address.port())
    };
    let mut link = TcpConnector::new().call(endpoint).await.unwrap();
    ready(&mut link).await.unwrap();
    let answers: Vec<_> = (0..50).map(|_| link.call(frame())).collect();
    for (n, answer) in answers.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        assert_eq!(answer.into_contiguous(), Bytes::copy_from_slice(&(n as i32).to_be_bytes()));
    }
    let heads = fake.heads.lock();
    assert!(heads.iter().all(|head| head.client_id.as_ref().is_some_and(|id| id.as_str() == "me")));
}

#[tokio::test]
async fn the_span_of_a_request_learns_its_correlation_id_if_it_asks_for_it() {
    let (listener, _listening) = Listener::start();
    let fake = Fake::start(|head, _| echo(head.correlation_id)).await;
    let mut link = open(TcpConnector::new(), &fake).await;
    ready(&mut link).await.unwrap();
    for _ in 0..2 {
        let span = tracing::info_span!("asks", kafka.correlation_id = tracing::field::Empty);
        let answer = span.in_scope(|| link.call(frame()));
        answer.await.unwrap();
    }
    let told: Vec<_> =
        listener.spans.lock().values().map(|span| span["kafka.correlation_id"].clone()).collect();
    assert_eq!(told, ["0", "1"]);
}

#[tokio::test]
async fn a_body_in_many_large_chunks_arrives_whole() {
    let fake = Fake::start(|head, body| {
        let sum = body.iter().map(|byte| i32::from(*byte)).sum::<i32>() + body.len() as i32;
        let id = head.correlation_id.to_be_bytes();
        Act::Raw([&8i32.to_be_bytes()[..], &id, &sum.to_be_bytes()].concat())
    })
    .await;
    let mut link = open(TcpConnector::new().send_buffer_bytes(Some(4096)), &fake).await;
    ready(&mut link).await.unwrap();
    let body: Vec<Bytes> = (0..300u32).map(|n| Bytes::from(vec![n as u8; n as usize * 20 % 4001])).collect();
    let expected = body.iter().flatten().map(|byte| i32::from(*byte) + 1).sum::<i32>();
    let answer = link.call(Frame { body, ..frame() }).await.unwrap();
    assert_eq!(answer.into_contiguous(), Bytes::copy_from_slice(&expected.to_be_bytes()));
}

#[tokio::test]
async fn a_full_pipe_is_not_ready_until_an_answer_comes() {
    let fake = Fake::start(|head, _| match head.correlation_id {
        // The answers to 0 and 1 come together, when 2 asks.
        0 => Act::Silence,
        1 => {
            let Act::Raw(first) = echo(0) else { return Act::Close };
            let Act::Raw(second) = echo(1) else { return Act::Close };
            Act::Raw([first, second].concat())
        }
        id => echo(id),
    })
    .await;
    let mut link = open(TcpConnector::new().max_in_flight(2), &fake).await;
    ready(&mut link).await.unwrap();
    let first = link.call(frame());
    assert!(is_ready(&mut link));
    let second = link.call(frame());
    assert!(!is_ready(&mut link), "two are in flight");
    ready(&mut link).await.unwrap();
    first.await.unwrap();
    second.await.unwrap();
}

#[tokio::test]
async fn a_request_without_answer_resolves_when_it_is_written() {
    let fake = Fake::start(|_, _| Act::Silence).await;
    let mut link = open(TcpConnector::new().max_in_flight(1), &fake).await;
    for _ in 0..3 {
        ready(&mut link).await.unwrap();
        let answer = link.call(Frame { expects_reply: false, ..frame() }).await.unwrap();
        assert_eq!(answer.len_bytes(), 0);
    }
    while fake.count(METADATA) < 3 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn any_error_is_final_and_fails_all_requests_in_flight() {
    for (name, act, part) in [
        ("close", None, "connection closed"),
        ("another correlation id", Some(vec![0, 0, 0, 4, 0, 0, 0, 9]), "correlation id 9, expected 0"),
        ("a negative length", Some(vec![255, 255, 255, 255]), "negative frame length -1"),
        ("too long", Some(vec![0, 1, 0, 0]), "frame of 65536 B exceeds the limit of 1000 B"),
        ("no correlation id", Some(vec![0, 0, 0, 2, 0, 0]), "an answer of 2 B has no correlation id"),
        ("http", Some(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), "exceeds the limit"),
    ] {
        let fake = Fake::start(move |head, _| match (&act, head.correlation_id) {
            (_, 0..=1) => Act::Silence,
            (None, _) => Act::Close,
            (Some(bytes), _) => Act::Raw(bytes.clone()),
        })
        .await;
        let mut link = open(TcpConnector::new().max_response_bytes(1000), &fake).await;
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
async fn an_answer_nobody_asked_for_ends_the_conversation() {
    let fake = Fake::start(|head, _| {
        let Act::Raw(answer) = echo(head.correlation_id) else { return Act::Close };
        Act::Raw([answer.clone(), answer].concat())
    })
    .await;
    let mut link = open(TcpConnector::new(), &fake).await;
    ready(&mut link).await.unwrap();
    link.call(frame()).await.unwrap();
    let error = loop {
        match ready(&mut link).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("correlation id 0, expected none"), "{error}");
}

#[tokio::test]
async fn a_stream_cut_in_an_answer_is_told_as_such() {
    let fake = Fake::start(|head, _| match head.correlation_id {
        0 => Act::Raw(vec![0, 0, 0, 8, 0, 0]),
        _ => Act::Close,
    })
    .await;
    let mut link = open(TcpConnector::new(), &fake).await;
    ready(&mut link).await.unwrap();
    let first = link.call(frame());
    let _second = link.call(frame());
    let error = first.await.unwrap_err().to_string();
    assert_eq!(error, "connection closed: in the middle of an answer");
}

#[tokio::test]
async fn dropping_a_link_closes_the_connection_and_fails_what_is_in_flight() {
    let fake = Fake::start(|_, _| Act::Silence).await;
    let mut link = open(TcpConnector::new(), &fake).await;
    ready(&mut link).await.unwrap();
    let answer = link.call(frame());
    drop(link);
    assert!(matches!(answer.await, Err(LinkError::Closed { .. })));
}

#[tokio::test]
async fn a_dropped_answer_does_not_shift_the_others() {
    let fake = Fake::start(|head, _| echo(head.correlation_id)).await;
    let mut link = open(TcpConnector::new(), &fake).await;
    ready(&mut link).await.unwrap();
    drop(link.call(frame()));
    let second = link.call(frame()).await.unwrap();
    assert_eq!(second.into_contiguous(), Bytes::from_static(&[0, 0, 0, 1]));
}

#[tokio::test]
async fn every_address_of_a_name_is_tried_and_told() {
    // A port on which nobody listens any more.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let addresses = tokio::net::lookup_host(("localhost", port)).await.unwrap().count();
    let error = TcpConnector::new().call(Endpoint::new("localhost", port)).await.unwrap_err();
    assert_eq!(error.to_string().matches("cannot connect to").count(), addresses, "{error}");

    let error = TcpConnector::new().call(Endpoint::new("name.invalid", 1)).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot resolve name.invalid"), "{error}");
}

/// Reads options of a dialled socket back: the sizes of its buffers for sending and for receiving, `SO_KEEPALIVE` and
/// `TCP_NODELAY`.
async fn dialled(connector: &TcpConnector) -> (u32, u32, bool, bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port());
    let stream = dial(&Rt::current().unwrap(), &connector.options, &endpoint).await.unwrap();
    let nodelay = stream.nodelay().unwrap();
    let socket = TcpSocket::from_std_stream(stream.into_std().unwrap());
    let sizes = (socket.send_buffer_size().unwrap(), socket.recv_buffer_size().unwrap());
    (sizes.0, sizes.1, socket.keepalive().unwrap(), nodelay)
}

/// What the system has: Linux doubles what it is asked for.
const ASKED: u32 = if cfg!(target_os = "linux") { 2 } else { 1 };

#[tokio::test]
async fn the_options_of_a_socket_are_those_that_were_set() {
    let (send, receive, keepalive, nodelay) = dialled(&TcpConnector::new()).await;
    assert!(keepalive && nodelay, "on by default");
    let set = TcpConnector::new().send_buffer_bytes(Some(20_000)).receive_buffer_bytes(Some(30_000));
    let set = set.nodelay(false);
    assert_eq!(dialled(&set).await, (ASKED * 20_000, ASKED * 30_000, true, false));
    assert_ne!((send, receive), (ASKED * 20_000, ASKED * 30_000), "the system's own sizes are others");
    let half = TcpConnector::new().send_buffer_bytes(Some(20_000)).receive_buffer_bytes(None);
    assert_eq!(dialled(&half).await, (ASKED * 20_000, receive, true, true), "one of them alone");
}

/// Goal: producers and consumers hand their settings of sockets on, by Kafka's names, and -1 is the system's choice.
#[tokio::test]
async fn settings_by_kafkas_names_reach_the_sockets_options() {
    let settings = |pairs: &[(&str, &str)]| {
        let builder = crate::Client::from_properties(pairs.iter().copied()).unwrap();
        TcpConnector::for_client(&builder.settings)
    };
    let none = settings(&[("send.buffer.bytes", "-1"), ("receive.buffer.bytes", "-1")]);
    assert_eq!(dialled(&none).await, dialled(&TcpConnector::new()).await);
    let some = settings(&[("send.buffer.bytes", "20000"), ("receive.buffer.bytes", "30000")]);
    assert_eq!(dialled(&some).await, (ASKED * 20_000, ASKED * 30_000, true, true));
}

/// An address that takes no more connections and refuses none: its queue is full, and nobody accepts.
async fn full() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    let wait = Duration::from_millis(300);
    let rt = Rt::current().unwrap();
    while let Some(connected) = rt.before(rt.now() + wait, TcpStream::connect(address)).await {
        queue.push(connected.unwrap());
    }
    (listener, queue)
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_given_up_after_the_setup_timeout() {
    let (listener, _queue) = full().await;
    let address = listener.local_addr().unwrap();
    let connector = TcpConnector::new().connect_timeout(Duration::from_millis(200));
    let error = connector.clone().call(Endpoint::new("127.0.0.1", address.port())).await.unwrap_err();
    assert!(matches!(error, LinkError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("no connection within 200ms"), "{error}");
}

#[tokio::test]
async fn an_ipv6_address_is_dialled_without_brackets() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        println!("skipped: no IPv6 here");
        return;
    };
    let fake = Fake::on(listener, |head, _| echo(head.correlation_id));
    let mut link = open(TcpConnector::new(), &fake).await;
    ready(&mut link).await.unwrap();
    link.call(frame()).await.unwrap();
}

#[test]
fn in_virtual_time_and_without_io_there_is_an_error_that_says_so_and_no_panic() {
    let dial = || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let dialled = runtime.block_on(TcpConnector::new().call(Endpoint::new("127.0.0.1", 9)));
        dialled.unwrap_err().to_string()
    };
    assert_eq!(dial(), "the tokio runtime has no I/O: build it with `enable_io` or `enable_all`");
    let _entered = klamm_wire::ambient::enter(1, || 0);
    let error = dial();
    assert!(error.starts_with("sockets do not work in virtual time"), "{error}");
}
