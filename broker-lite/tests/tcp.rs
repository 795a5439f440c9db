//! The TCP front door against everything that may come in.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::time::Duration;

use broker_lite::{Cluster, ClusterError};
use bytes::{BufMut, Bytes, BytesMut};
use klamm_wire::codec::{self, encode_request_header};
use klamm_wire::messages::{ApiVersionsRequest, MetadataRequest};
use klamm_wire::{Frame, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

mod support;

async fn start() -> (Cluster, SocketAddr) {
    let cluster = Cluster::builder().brokers(1).tcp(true).start().await.unwrap();
    let address = cluster.bootstrap().parse().unwrap();
    (cluster, address)
}

fn bytes_of<R: Request>(version: i16, correlation_id: i32, request: &R) -> BytesMut {
    let frame = codec::encode_request(version, request).unwrap();
    let header = encode_request_header(R::KEY, version, correlation_id, Some("test"));
    let body = frame.into_contiguous();
    let mut bytes = BytesMut::new();
    bytes.put_u32((header.len() + body.len()) as u32);
    bytes.put_slice(&header);
    bytes.put_slice(&body);
    bytes
}

async fn answer(stream: &mut TcpStream) -> Bytes {
    let length = stream.read_u32().await.unwrap();
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await.unwrap();
    body.into()
}

/// Reads until the broker closes; returns what came before.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    // A reset is a close, too: the broker had not read everything.
    let _ = tokio::time::timeout(Duration::from_secs(10), read).await.expect("not closed");
    rest
}

async fn assert_alive(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&bytes_of(0, 77, &ApiVersionsRequest::default())).await.unwrap();
    let body = answer(&mut stream).await;
    assert_eq!(codec::peek_correlation_id(&body), Some(77));
}

#[tokio::test]
async fn garbage_closes_the_connection_and_the_broker_lives() {
    let (_cluster, address) = start().await;
    let cases: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
        // Whole frames: too short for a header, an unknown API key, a client id that is cut off.
        b"\x00\x00\x00\x02\x00\x03",
        b"\x00\x00\x00\x0a\x27\x0f\x00\x00\x00\x00\x00\x01\xff\xff",
        b"\x00\x00\x00\x0a\x00\x03\x00\x00\x00\x00\x00\x01\x00\x09",
    ];
    for case in cases {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(case).await.unwrap();
        assert!(until_closed(&mut stream).await.is_empty(), "{case:?}");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"\x00\x00\x01\x00\x00\x03\x00").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(until_closed(&mut stream).await.is_empty(), "a frame that is cut off");
    assert_alive(address).await;
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_by_its_prefix() {
    let cluster = Cluster::builder()
        .brokers(1)
        .tcp(true)
        .config("socket.request.max.bytes", "1000")
        .start()
        .await
        .unwrap();
    let address = cluster.bootstrap().parse().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&1001_u32.to_be_bytes()).await.unwrap();
    assert!(until_closed(&mut stream).await.is_empty());
    assert_alive(address).await;
}

#[tokio::test]
async fn pipelined_requests_in_arbitrary_portions_are_answered_in_order() {
    let (_cluster, address) = start().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut all = BytesMut::new();
    for correlation_id in 0..50 {
        all.unsplit(bytes_of(12, correlation_id, &MetadataRequest::default().with_topics(None)));
    }
    let (mut read, mut write) = stream.split();
    let writing = async {
        for portion in all.chunks(7) {
            write.write_all(portion).await.unwrap();
        }
    };
    let reading = async {
        for correlation_id in 0..50 {
            let length = read.read_u32().await.unwrap();
            let mut body = vec![0; length as usize];
            read.read_exact(&mut body).await.unwrap();
            let mut body = Bytes::from(body);
            assert_eq!(codec::decode_response_header(3, 12, &mut body), Ok(correlation_id));
            let decoded = codec::decode_response::<MetadataRequest>(Frame::new(3, 12, body)).unwrap();
            assert_eq!(decoded.brokers.len(), 1);
        }
    };
    tokio::join!(writing, reading);
}

#[tokio::test]
async fn answers_that_are_due_come_before_the_close() {
    let (_cluster, address) = start().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut bytes = bytes_of(0, 5, &ApiVersionsRequest::default());
    bytes.put_slice(b"\xff\xff\xff\xff");
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(codec::peek_correlation_id(&answer(&mut stream).await), Some(5));
    assert!(until_closed(&mut stream).await.is_empty());
}

#[tokio::test]
async fn connections_over_the_limit_and_idle_ones_are_closed() {
    let cluster = Cluster::builder()
        .brokers(1)
        .tcp(true)
        .config("max.connections", "1")
        .config("connections.max.idle.ms", "200")
        .start()
        .await
        .unwrap();
    let address: SocketAddr = cluster.bootstrap().parse().unwrap();
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(&bytes_of(0, 1, &ApiVersionsRequest::default())).await.unwrap();
    answer(&mut first).await;
    let mut second = TcpStream::connect(address).await.unwrap();
    assert!(until_closed(&mut second).await.is_empty(), "one too many");
    assert!(until_closed(&mut first).await.is_empty(), "idle");
}

#[tokio::test]
async fn a_killed_broker_resets_its_connections_and_listens_again_after_its_restart() {
    let cluster = Cluster::builder().tcp(true).start().await.unwrap();
    let address: SocketAddr = cluster.bootstrap().split(',').next().unwrap().parse().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&bytes_of(0, 1, &ApiVersionsRequest::default())).await.unwrap();
    answer(&mut stream).await;
    cluster.kill(1).unwrap();
    assert!(until_closed(&mut stream).await.is_empty());
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
    cluster.restart(1).await.unwrap();
    assert_alive(address).await;
}

#[tokio::test]
async fn a_port_in_use_is_told_in_one_sentence() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Cluster::builder().port(port).start().await.unwrap_err();
    assert!(matches!(error, ClusterError::Listen { .. }));
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")), "{text}");
}

#[tokio::test]
async fn a_port_in_use_is_told_also_if_it_is_not_the_first() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Cluster::builder().port(port - 1).start().await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")), "{error}");
}

#[tokio::test]
async fn an_ipv6_host_may_be_written_with_or_without_brackets() {
    for host in ["::1", "[::1]"] {
        let cluster = Cluster::builder().brokers(1).host(host).start().await.unwrap();
        assert!(cluster.bootstrap().starts_with("[::1]:"), "{}", cluster.bootstrap());
        assert_alive(cluster.bootstrap().parse().unwrap()).await;
    }
}

/// Goal: a client that asks and asks and never reads does not hold its connection, or the answers, for ever.
#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_given_up() {
    let cluster = Cluster::builder()
        .brokers(1)
        .tcp(true)
        .topic("t", Some(1), None)
        .config("max.connections", "1")
        .config("connections.max.idle.ms", "300")
        .start()
        .await
        .unwrap();
    let address: SocketAddr = cluster.bootstrap().parse().unwrap();
    let mut talk = support::Talk::to(&cluster, 1).await;
    let value = "x".repeat(900_000);
    assert_eq!(talk.produce("t", 0, support::batch(&[&value])).await.error_code, 0);
    let mut stream = TcpStream::connect(address).await.unwrap();
    for correlation_id in 0..60 {
        let request = support::fetch("t", 0, 0, 0);
        stream.write_all(&bytes_of(12, correlation_id, &request)).await.unwrap();
    }
    let freed = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let Ok(mut other) = TcpStream::connect(address).await else { continue };
            if other.write_all(&bytes_of(0, 1, &ApiVersionsRequest::default())).await.is_ok()
                && other.read_u32().await.is_ok()
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), freed).await.expect("the connection is still held");
    drop(stream);
}
