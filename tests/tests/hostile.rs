//! Bad bytes on the broker's port: Kafka's error code or a closed connection, and the broker lives.
#![allow(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use klamm_tests::process::{BrokerLite, broker_lite_binary};

fn connect(cluster: &BrokerLite) -> TcpStream {
    let first = cluster.bootstrap().split(',').next().expect("one broker");
    let stream = TcpStream::connect(first).expect("the broker listens");
    // A wait for an answer that never comes ends the test instead of hanging it.
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket option");
    stream
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).expect("small").to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// Header v1: api key, version, correlation id, null client id.
fn request(api_key: i16, api_version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&api_key.to_be_bytes());
    bytes.extend_from_slice(&api_version.to_be_bytes());
    bytes.extend_from_slice(&77_i32.to_be_bytes());
    bytes.extend_from_slice(&(-1_i16).to_be_bytes());
    bytes.extend_from_slice(body);
    framed(&bytes)
}

fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).expect("a whole answer");
    body
}

/// Whether the peer closed the connection without an answer.
fn closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
    }
}

/// The broker still answers ApiVersions v0.
fn assert_alive(cluster: &BrokerLite) {
    let mut stream = connect(cluster);
    stream.write_all(&request(18, 0, &[])).expect("written");
    let body = answer(&mut stream);
    assert_eq!(&body[..4], &77_i32.to_be_bytes(), "correlation id");
    assert_eq!(&body[4..6], &[0, 0], "no error");
}

#[test]
fn a_broker_survives_whatever_arrives_on_its_port() {
    let cluster = BrokerLite::up(&[]).expect("broker-lite starts");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec()),
        ("a 2 GB length prefix", i32::MAX.to_be_bytes().to_vec()),
        ("a negative length prefix", (-1_i32).to_be_bytes().to_vec()),
        ("an empty frame", framed(&[])),
        ("a frame shorter than its header", framed(&[0, 18, 0])),
        ("an unknown api key", request(9_999, 0, &[])),
        ("an unknown version of Metadata", request(3, 99, &[])),
        ("a Metadata body that claims two billion topics", request(3, 1, &i32::MAX.to_be_bytes())),
        ("a Metadata body that ends too early", request(3, 1, &[0, 0])),
        ("a Produce body of noise", request(0, 7, &[0xff; 200])),
        ("a request of an api that is not advertised", request(11, 0, &[0, 1, b'g'])),
    ];
    for (name, bytes) in cases {
        let mut stream = connect(&cluster);
        stream.write_all(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(closed(&mut stream), "{name} must close the connection");
        assert_alive(&cluster);
    }
}

#[test]
fn a_frame_cut_off_by_the_peer_is_dropped_in_silence() {
    let cluster = BrokerLite::up(&[]).expect("broker-lite starts");
    let whole = request(18, 0, &[]);
    for cut in 1..whole.len() {
        let mut stream = connect(&cluster);
        stream.write_all(&whole[..cut]).expect("written");
        stream.shutdown(std::net::Shutdown::Write).expect("half closed");
        assert!(closed(&mut stream), "cut at {cut}");
    }
    assert_alive(&cluster);
}

#[test]
fn api_versions_in_a_version_of_the_future_is_answered_in_version_0() {
    let cluster = BrokerLite::up(&[]).expect("broker-lite starts");
    let mut stream = connect(&cluster);
    stream.write_all(&request(18, 99, &[0])).expect("written");
    let body = answer(&mut stream);
    assert_eq!(&body[..4], &77_i32.to_be_bytes());
    assert_eq!(i16::from_be_bytes([body[4], body[5]]), 35, "UNSUPPORTED_VERSION");
    let count = i32::from_be_bytes([body[6], body[7], body[8], body[9]]);
    assert_eq!(body.len(), 10 + 6 * usize::try_from(count).expect("positive"), "layout of version 0");
    assert!(body[10..].chunks(6).any(|range| range[..2] == [0, 18]), "it names ApiVersions' own range");
    // The connection is still good for another try.
    stream.write_all(&request(18, 0, &[])).expect("written");
    assert_eq!(&answer(&mut stream)[4..6], &[0, 0]);
}

#[test]
fn a_port_in_use_is_one_clear_sentence_and_status_1() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = holder.local_addr().expect("an address").port().to_string();
    let output = Command::new(broker_lite_binary().expect("built"))
        .args(["up", "--port", &port])
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"", "nothing on standard output");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains(&port) && said.to_lowercase().contains("in use"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
}

#[test]
fn an_unknown_setting_names_the_nearest_known_one() {
    let output = Command::new(broker_lite_binary().expect("built"))
        .args(["up", "--port", "0", "--config", "min.insync.replica=2"])
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("min.insync.replica") && said.contains("min.insync.replicas"), "{said}");
}
