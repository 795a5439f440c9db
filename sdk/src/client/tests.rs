use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use klamm_wire::codec::RequestHead;
use klamm_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use tokio::net::TcpListener;

use super::*;
use crate::fake::{Act, Fake, framed, metadata, names, reply, topic, versions};

const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn builder(servers: &[SocketAddr]) -> ClientBuilder {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    Client::builder().bootstrap_servers(servers.join(","))
}

/// A broker, alone in its cluster, that knows every topic.
async fn broker() -> Fake {
    scripted(|name| topic(name, 0)).await
}

/// A broker, alone in its cluster, whose Metadata answers tell what `tell` tells.
async fn scripted(
    tell: impl Fn(&str) -> klamm_wire::messages::metadata_response::MetadataResponseTopic + Send + Sync + 'static,
) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    Fake::on(listener, move |head, body| answer(head, body, &[address], &tell))
}

fn answer(
    head: &RequestHead,
    body: Bytes,
    brokers: &[SocketAddr],
    tell: &dyn Fn(&str) -> klamm_wire::messages::metadata_response::MetadataResponseTopic,
) -> Act {
    match head.api_key {
        API_VERSIONS => versions(head),
        METADATA => {
            let (names, _) = names(head, body);
            let topics = names.iter().map(|name| tell(name)).collect();
            reply::<MetadataRequest>(head, &metadata(brokers, topics))
        }
        _ => Act::Close,
    }
}

/// A port on which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn in_a_while(client: &Client, wait: Duration) -> Tick {
    client.rt().now() + wait
}

#[tokio::test]
async fn a_client_is_ready_when_a_broker_has_answered() {
    let fake = broker().await;
    let client = builder(&[fake.address]).client_id("me").build().unwrap();
    client.ready(5 * S).await.unwrap();
    assert_eq!(client.metadata().brokers[&1].port, fake.address.port());
    assert!(
        fake.heads.lock().iter().all(|head| head.client_id.as_deref().map(|id| id == "me") == Some(true))
    );
}

#[tokio::test]
async fn one_good_bootstrap_server_is_enough() {
    let fake = broker().await;
    for _ in 0..5 {
        let client = builder(&[nobody().await, fake.address, nobody().await]).build().unwrap();
        client.ready(5 * S).await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_bootstrap_server_does_not_hold_up_the_others() {
    let silent = Fake::start(|_, _| Act::Silence).await;
    let fake = broker().await;
    for _ in 0..4 {
        let client = builder(&[silent.address, fake.address]).build().unwrap();
        client.ready(5 * S).await.unwrap();
    }
}

#[tokio::test]
async fn an_unreachable_bootstrap_list_is_told_address_by_address_in_time() {
    let closes = Fake::start(|_, _| Act::Close).await;
    let garbage = Fake::start(|_, _| Act::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())).await;
    let refused = nobody().await;
    let servers = format!("{},{},{refused},name.invalid:9092", closes.address, garbage.address);
    let client = Client::builder().bootstrap_servers(servers).build().unwrap();
    let started = client.rt().now();
    let error = client.ready(S).await.unwrap_err();
    assert!(client.rt().now() - started < 2 * S, "in time");
    let text = error.to_string();
    for part in [
        format!("{}: cannot reach {}: connection closed", closes.address, closes.address),
        format!("{}: cannot reach {}: malformed bytes", garbage.address, garbage.address),
        format!("{refused}: cannot reach {refused}: cannot connect to {refused}: Connection refused"),
        "name.invalid:9092: cannot reach name.invalid:9092: cannot resolve name.invalid".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} is not in {text}");
    }
    assert_eq!(error.recovery(), crate::Recovery::Retry);
}

#[tokio::test]
async fn a_client_that_was_ready_is_not_when_the_broker_is_gone() {
    let fake = broker().await;
    let client = builder(&[fake.address]).build().unwrap();
    client.ready(5 * S).await.unwrap();
    drop(fake);
    assert!(matches!(client.ready(300 * MS).await, Err(ClientError::NotReached { .. })));
}

/// Goal: brokers before 2.4 do not know ApiVersions 3 and answer in version 0, whatever was asked.
#[tokio::test]
async fn versions_are_asked_for_again_when_the_broker_does_not_know_the_version_asked_in() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fake = Fake::on(listener, move |head, body| {
        if head.api_key == API_VERSIONS && head.api_version > 2 {
            let range = klamm_wire::messages::api_versions_response::ApiVersion::default()
                .with_api_key(API_VERSIONS)
                .with_min_version(0)
                .with_max_version(2);
            let refused = ApiVersionsResponse::default().with_error_code(35).with_api_keys(vec![range]);
            let frame = codec::encode_response::<ApiVersionsRequest>(0, &refused).unwrap();
            return framed(head, frame);
        }
        answer(head, body, &[address], &|name| topic(name, 0))
    });
    let client = builder(&[fake.address]).build().unwrap();
    client.ready(5 * S).await.unwrap();
    let asked: Vec<i16> = fake.heads.lock().iter().take(2).map(|head| head.api_version).collect();
    assert_eq!(asked, [4, 2]);
}

#[tokio::test]
async fn topics_wanted_together_are_asked_for_together() {
    let fake = broker().await;
    let client = builder(&[fake.address]).build().unwrap();
    client.ready(5 * S).await.unwrap();
    let before = fake.count(METADATA);
    let names: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    let deadline = in_a_while(&client, 5 * S);
    let waits = names.iter().map(|name| client.topic(name, true, deadline));
    for found in futures::future::join_all(waits).await {
        found.unwrap();
    }
    assert!(fake.count(METADATA) - before <= 2, "{}", fake.count(METADATA) - before);
}

#[tokio::test]
async fn a_topic_that_appears_late_is_waited_for() {
    let asked = AtomicUsize::new(0);
    let fake = scripted(move |name| {
        let code = if asked.fetch_add(1, Ordering::Relaxed) < 2 { 3 } else { 0 };
        topic(name, code)
    })
    .await;
    let client = builder(&[fake.address]).build().unwrap();
    let found = client.topic("late", true, in_a_while(&client, 5 * S)).await.unwrap();
    assert_eq!(found.partitions.len(), 1);
}

#[tokio::test]
async fn an_unknown_topic_is_an_error_after_the_deadline_that_names_it() {
    let fake = scripted(|name| topic(name, 3)).await;
    let client = builder(&[fake.address]).build().unwrap();
    let started = client.rt().now();
    let error = client.topic("nowhere", false, in_a_while(&client, 400 * MS)).await.unwrap_err();
    assert!(client.rt().now() - started >= 400 * MS);
    let text = error.to_string();
    assert!(text.contains("\"nowhere\"") && text.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{text}");
    assert!(matches!(error, MetadataError::UnknownTopic { .. }));
}

#[tokio::test]
async fn an_invalid_topic_fails_at_once() {
    let fake = scripted(|name| topic(name, 17)).await;
    let client = builder(&[fake.address]).build().unwrap();
    for _ in 0..2 {
        let error = client.topic("a b", true, in_a_while(&client, 20 * S)).await.unwrap_err();
        assert!(
            matches!(&error, MetadataError::Topic { code: ErrorCode::INVALID_TOPIC_EXCEPTION, .. }),
            "{error}"
        );
    }
    assert!(client.rt().now() < 10 * S);
}

#[tokio::test]
async fn without_any_broker_a_wait_for_a_topic_tells_what_was_tried() {
    let address = nobody().await;
    let client = builder(&[address]).build().unwrap();
    let error = client.topic("t", true, in_a_while(&client, 300 * MS)).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(matches!(error, MetadataError::TimedOut { .. }));
}

#[tokio::test]
async fn only_whoever_wants_it_lets_the_broker_create_a_topic() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(parking_lot::Mutex::new(vec![]));
    let seen = asked.clone();
    let _fake = Fake::on(listener, move |head, body| {
        if head.api_key == METADATA {
            seen.lock().push(names(head, body.clone()));
        }
        answer(head, body, &[address], &|name| topic(name, 0))
    });
    let client = builder(&[address]).build().unwrap();
    let deadline = in_a_while(&client, 5 * S);
    let (a, b) = tokio::join!(client.topic("a", true, deadline), client.topic("b", false, deadline));
    a.and(b).unwrap();
    for (names, create) in asked.lock().iter() {
        assert_eq!(names.contains(&"a".to_owned()), *create, "{names:?}");
        assert!(!(names.contains(&"b".to_owned()) && *create), "{names:?}");
    }
}

#[tokio::test]
async fn when_all_brokers_are_gone_the_bootstrap_list_is_asked_again() {
    // The bootstrap server names a broker that does not exist, until it is told to name itself.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (gone, moved) = (nobody().await, Arc::new(AtomicBool::new(false)));
    let now_here = moved.clone();
    let _fake = Fake::on(listener, move |head, body| {
        let there = if now_here.load(Ordering::Relaxed) { address } else { gone };
        answer(head, body, &[there], &|name| topic(name, 0))
    });
    let client = builder(&[address]).build().unwrap();
    while client.metadata().brokers.is_empty() {
        client.changed().await;
    }
    moved.store(true, Ordering::Relaxed);
    client.request_refresh("test");
    client.ready(5 * S).await.unwrap();
    assert_eq!(client.metadata().brokers[&1].port, address.port());
    client.connected(1, Lane::Fetch).await.unwrap();
}

#[tokio::test]
async fn a_broken_connection_is_dialled_again_and_the_request_in_flight_is_told() {
    let broken = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let breaks = broken.clone();
    let fake = Fake::on(listener, move |head, body| {
        if head.api_key == METADATA && breaks.swap(false, Ordering::Relaxed) {
            return Act::Close;
        }
        answer(head, body, &[address], &|name| topic(name, 0))
    });
    let client = builder(&[address]).build().unwrap();
    client.ready(5 * S).await.unwrap();
    let request = Query { topics: Some(vec![]), auto_create: false, of: None }.request();
    client.call(Target::Broker(1), Lane::Main, &request).await.unwrap();
    broken.store(true, Ordering::Relaxed);
    let error = client.call(Target::Broker(1), Lane::Main, &request).await.unwrap_err();
    assert!(matches!(&error, RequestError::Lost { .. }) && error.maybe_written(), "{error}");
    let accepted = *fake.accepted.lock();
    client.call(Target::Broker(1), Lane::Main, &request).await.unwrap();
    assert_eq!(*fake.accepted.lock(), accepted + 1);
}

#[tokio::test]
async fn a_late_answer_closes_the_connection_and_fails_what_is_behind_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mute = Arc::new(AtomicBool::new(false));
    let muted = mute.clone();
    let _fake = Fake::on(listener, move |head, body| {
        if muted.load(Ordering::Relaxed) {
            return Act::Silence;
        }
        answer(head, body, &[address], &|name| topic(name, 0))
    });
    let client = builder(&[address]).request_timeout_ms(300 * MS).build().unwrap();
    client.ready(5 * S).await.unwrap();
    client.connected(1, Lane::Fetch).await.unwrap();
    mute.store(true, Ordering::Relaxed);
    let request =
        codec::encode_request(12, &Query { topics: Some(vec![]), auto_create: false, of: None }.request())
            .unwrap();
    let first = client.send_frame(1, Lane::Fetch, request.clone());
    client.rt().sleep(100 * MS).await;
    let second = client.send_frame(1, Lane::Fetch, request);
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(first, Err(RequestError::TimedOut { sent: true, .. })), "{first:?}");
    assert!(matches!(second, Err(RequestError::Lost { .. })), "{second:?}");
}

#[tokio::test]
async fn frames_reach_the_broker_in_the_order_of_the_calls_even_before_there_is_a_connection() {
    let fake = broker().await;
    let client = builder(&[fake.address]).build().unwrap();
    client.ready(5 * S).await.unwrap();
    // Version 1 to 12 of one request tell the frames apart.
    let request = Query { topics: Some(vec![]), auto_create: true, of: None }.request();
    let frame = |version| codec::encode_request(version, &request).unwrap();
    assert!(!client.is_connected(1, Lane::Fetch));
    let before = fake.heads.lock().len();
    let mut answers: Vec<_> =
        (1..=12).map(|version| client.send_frame(1, Lane::Fetch, frame(version))).collect();
    answers.reverse();
    for answer in futures::future::join_all(answers).await {
        answer.unwrap();
    }
    let versions: Vec<i16> = fake.heads.lock()[before..]
        .iter()
        .filter(|head| head.api_key == METADATA)
        .map(|head| head.api_version)
        .collect();
    assert_eq!(versions, (1..=12).collect::<Vec<_>>());
    assert!(client.is_connected(1, Lane::Fetch));
}

#[tokio::test]
async fn an_unknown_broker_is_an_error_at_once() {
    let fake = broker().await;
    let client = builder(&[fake.address]).build().unwrap();
    client.ready(5 * S).await.unwrap();
    let error = client.connected(42, Lane::Main).await.unwrap_err();
    assert!(matches!(error, RequestError::UnknownBroker { id: 42 }), "{error}");
    assert!(!error.maybe_written());
}

#[tokio::test]
async fn too_many_waiting_requests_are_refused() {
    let silent = Fake::start(|_, _| Act::Silence).await;
    let address = silent.address;
    let fake = Fake::start(move |head, body| answer(head, body, &[address], &|name| topic(name, 0))).await;
    let client = builder(&[fake.address]).max_queued_requests(2).build().unwrap();
    while client.metadata().brokers.is_empty() {
        client.changed().await;
    }
    let request =
        codec::encode_request(12, &Query { topics: Some(vec![]), auto_create: false, of: None }.request())
            .unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| client.send_frame(1, Lane::Fetch, request.clone())).collect();
    let error = waiting.pop().unwrap().await.unwrap_err();
    assert!(matches!(error, RequestError::QueueFull { limit: 2, .. }), "{error}");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let fake = broker().await;
    let client = builder(&[fake.address]).connections_max_idle_ms(200 * MS).build().unwrap();
    client.ready(5 * S).await.unwrap();
    client.connected(1, Lane::Fetch).await.unwrap();
    assert!(client.is_connected(1, Lane::Fetch));
    client.rt().sleep(500 * MS).await;
    assert!(!client.is_connected(1, Lane::Fetch));
    client.connected(1, Lane::Fetch).await.unwrap();
}

#[tokio::test]
async fn dropping_the_last_client_closes_its_connections_and_ends_its_tasks() {
    let fake = broker().await;
    let client = builder(&[fake.address]).build().unwrap();
    client.ready(5 * S).await.unwrap();
    client.connected(1, Lane::Fetch).await.unwrap();
    let shared = Arc::downgrade(&client.inner.shared);
    let other = client.clone();
    drop(client);
    assert!(shared.upgrade().is_some_and(|shared| !shared.is_closed()), "a clone is left");
    drop(other);
    let rt = Rt::current().unwrap();
    let ended = async {
        while shared.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    };
    rt.before(rt.now() + 5 * S, ended).await.unwrap();
    // What the peer sees: its side of every connection ends.
    while *fake.open.lock() > 0 {
        rt.sleep(MS).await;
    }
}

#[tokio::test]
async fn a_broker_that_comes_back_is_found_again() {
    let fake = broker().await;
    let address = fake.address;
    let client = builder(&[address]).build().unwrap();
    client.ready(5 * S).await.unwrap();
    let version = client.metadata().version;
    drop(fake);
    assert!(client.ready(200 * MS).await.is_err());
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => client.rt().sleep(10 * MS).await,
        }
    };
    let _fake = Fake::on(listener, move |head, body| answer(head, body, &[address], &|name| topic(name, 0)));
    client.ready(5 * S).await.unwrap();
    assert!(client.metadata().version > version);
}

#[tokio::test]
async fn silent_bootstrap_servers_are_tried_once_each_before_any_of_them_again() {
    let silent = [Fake::start(|_, _| Act::Silence).await, Fake::start(|_, _| Act::Silence).await];
    let fake = broker().await;
    let servers = [silent[0].address, silent[1].address, fake.address];
    // Each silent one costs 400 ms; many clients, because the order is chance.
    let starts = (0..40).map(|_| async {
        let client = builder(&servers).socket_connection_setup_timeout_ms(4 * S).build().unwrap();
        client.ready(5 * S).await.unwrap();
        assert!(client.rt().now() < 1195 * MS, "{:?}", client.rt().now());
    });
    futures::future::join_all(starts).await;
}

#[tokio::test]
async fn a_broker_that_asks_for_a_fresh_start_gets_one_and_old_connections_are_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asks = Arc::new(AtomicBool::new(false));
    let asked = asks.clone();
    let _fake = Fake::on(listener, move |head, body| {
        if head.api_key == METADATA && asked.swap(false, Ordering::Relaxed) {
            let refused = metadata(&[], vec![]).with_error_code(ErrorCode::REBOOTSTRAP_REQUIRED.0);
            return reply::<MetadataRequest>(head, &refused);
        }
        answer(head, body, &[address], &|name| topic(name, 0))
    });
    let client = builder(&[address]).build().unwrap();
    client.ready(5 * S).await.unwrap();
    client.connected(1, Lane::Fetch).await.unwrap();
    asks.store(true, Ordering::Relaxed);
    client.request_refresh("test");
    let rt = client.rt().clone();
    let begun_anew = async {
        while asks.load(Ordering::Relaxed) || client.is_connected(1, Lane::Fetch) {
            rt.sleep(MS).await;
        }
    };
    rt.before(rt.now() + 20 * S, begun_anew).await.unwrap();
    client.ready(5 * S).await.unwrap();
}

#[tokio::test]
async fn dropping_a_client_ends_the_dialling_it_was_at() {
    let silent = Fake::start(|_, _| Act::Silence).await;
    let client = builder(&[silent.address]).build().unwrap();
    assert!(client.ready(100 * MS).await.is_err());
    assert_eq!(*silent.open.lock(), 1);
    let rt = client.rt().clone();
    drop(client);
    let closed = async {
        while *silent.open.lock() > 0 {
            rt.sleep(MS).await;
        }
    };
    rt.before(rt.now() + S, closed).await.unwrap();
}
