//! What a user sees who gets it wrong: the error names the cause and the cure, within the time limit.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use broker_lite::Cluster;
use klamm::{Acks, Client, Consumer, Producer, Record};

/// An address where nobody listens.
fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

#[tokio::test]
async fn unreachable_bootstrap_names_each_address_and_its_cause() {
    let (first, second) = (dead_address(), dead_address());
    let servers = format!("{first},{second},no-such-host.invalid:9092");
    let client = Client::builder().bootstrap_servers(&servers).build().expect("the settings are fine");
    let asked = Instant::now();
    let error = client.ready(Duration::from_secs(3)).await.expect_err("nobody is there").to_string();
    assert!(asked.elapsed() < Duration::from_secs(30), "it must end at its limit, not at some other one");
    assert!(error.contains(&first) && error.contains(&second), "{error}");
    assert!(error.to_lowercase().contains("refused"), "{error}");
    assert!(error.contains("no-such-host.invalid"), "{error}");
}

#[tokio::test]
async fn a_peer_that_does_not_speak_kafka_is_named_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let client = Client::builder().bootstrap_servers(&address).build().expect("the settings are fine");
    let error = client.ready(Duration::from_secs(2)).await.expect_err("that is no broker").to_string();
    assert!(error.contains(&address), "{error}");
    assert!(error.contains("malformed") || error.contains("frame"), "{error}");
}

#[tokio::test]
async fn malformed_bootstrap_lists_are_refused_when_built() {
    for servers in ["", "localhost", "localhost:port", "localhost:70000", ":9092", "[::1:9092"] {
        let error = Client::builder().bootstrap_servers(servers).build().expect_err(servers).to_string();
        assert!(error.contains("bootstrap.servers"), "{servers:?}: {error}");
    }
    for servers in ["localhost:9092", "127.0.0.1:9092, 127.0.0.1:9093", "[::1]:9092", "PLAINTEXT://h:1"] {
        Client::builder().bootstrap_servers(servers).build().unwrap_or_else(|e| panic!("{servers:?}: {e}"));
    }
}

#[test]
fn outside_a_runtime_a_constructor_returns_an_error() {
    let error = Client::builder().bootstrap_servers("localhost:9092").build().expect_err("no runtime");
    assert!(error.to_string().to_lowercase().contains("tokio"), "{error}");
}

#[tokio::test]
async fn impossible_settings_name_the_setting_and_the_cure() {
    let base = || Producer::builder().bootstrap_servers("localhost:9092");
    let cases = [
        base().enable_idempotence(true).acks(Acks::Leader).build().err(),
        base().enable_idempotence(true).max_in_flight_requests_per_connection(6).build().err(),
        base()
            .delivery_timeout_ms(Duration::from_millis(10))
            .request_timeout_ms(Duration::from_secs(30))
            .build()
            .err(),
    ];
    for (error, names) in cases.into_iter().zip([
        ["enable.idempotence", "acks"],
        ["enable.idempotence", "max.in.flight.requests.per.connection"],
        ["delivery.timeout.ms", "request.timeout.ms"],
    ]) {
        let said = error.expect("refused").to_string();
        assert!(names.iter().all(|name| said.contains(name)), "{said}");
    }
}

#[tokio::test]
async fn property_names_are_checked_and_the_nearest_one_is_suggested() {
    let servers = ("bootstrap.servers", "localhost:9092");
    let _ =
        Producer::from_properties([servers, ("linger.ms", "20"), ("acks", "all")]).expect("known properties");
    let said = Producer::from_properties([servers, ("linger.mss", "20")]).expect_err("unknown").to_string();
    assert!(said.contains("linger.mss") && said.ends_with("linger.ms?"), "{said}");
    let said = Producer::from_properties([servers, ("acks", "two")]).expect_err("impossible").to_string();
    assert!(said.contains("acks") && said.contains("two") && said.contains("all"), "{said}");
    for (name, value) in [
        ("sasl.mechanism", "PLAIN"),
        ("ssl.truststore.location", "/tmp/x"),
        ("transactional.id", "t"),
        ("security.protocol", "SSL"),
    ] {
        let said = Producer::from_properties([servers, (name, value)]).expect_err(name).to_string();
        assert!(said.contains(name) && said.contains("not supported"), "{said}");
    }
    let said =
        Consumer::from_properties([servers, ("group.protocol", "consumer")]).expect_err("later").to_string();
    assert!(said.contains("group.protocol"), "{said}");
}

#[tokio::test]
async fn an_unknown_topic_with_auto_creation_off_is_an_error_after_max_block() {
    let cluster = Cluster::builder()
        .brokers(1)
        .config("auto.create.topics.enable", "false")
        .start()
        .await
        .expect("starts");
    let client = Client::builder()
        .bootstrap_servers(cluster.bootstrap())
        .connector(cluster.handle())
        .build()
        .expect("built");
    let producer: Producer =
        Producer::builder().client(&client).max_block_ms(Duration::from_millis(500)).build().expect("built");
    let error = producer.send(Record::new("absent").value("v")).await.expect_err("there is no such topic");
    assert!(error.to_string().contains("absent"), "{error}");
    assert!(!error.maybe_written());
}
