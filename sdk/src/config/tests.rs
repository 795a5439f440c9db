use std::time::Duration;

use super::*;
use crate::client::ClientBuilder;

#[derive(Default)]
struct Sample {
    client: ClientSettings,
    linger: Option<Duration>,
}

impl HasClient for Sample {
    fn client(&mut self) -> &mut ClientSettings {
        &mut self.client
    }
}

const OWN: &[Property<Sample>] =
    &[property("linger.ms", |sample, value| value.millis(0).map(|ms| sample.linger = Some(ms)))];

fn read(kind: Kind, pairs: &[(&str, &str)]) -> Result<Sample, ConfigError> {
    let mut sample = Sample::default();
    apply(kind, OWN, &mut sample, pairs.iter().copied())?;
    Ok(sample)
}

fn error(kind: Kind, name: &str, value: &str) -> String {
    read(kind, &[(name, value)]).err().map_or_else(|| "accepted".to_owned(), |error| error.to_string())
}

#[test]
fn own_and_shared_properties_are_kept() {
    let sample = read(
        Kind::Producer,
        &[
            (" bootstrap.servers ", "a:1, [::1]:2,PLAINTEXT://c:3"),
            ("linger.ms", "7"),
            ("request.timeout.ms", "1500"),
            ("receive.buffer.bytes", "-1"),
            ("send.buffer.bytes", "4096"),
            ("connections.max.idle.ms", "-1"),
            ("metadata.recovery.strategy", "NONE"),
        ],
    )
    .unwrap();
    assert_eq!(sample.linger, Some(Duration::from_millis(7)));
    assert_eq!(sample.client.request_timeout, Duration::from_millis(1500));
    assert_eq!((sample.client.receive_buffer_bytes, sample.client.send_buffer_bytes), (None, Some(4096)));
    assert_eq!(sample.client.connections_max_idle, None);
    assert!(!sample.client.rebootstrap);
    let endpoints = endpoints(&sample.client.bootstrap_servers).unwrap();
    let endpoints: Vec<_> = endpoints.iter().map(|e| (e.host.as_str(), e.port)).collect();
    assert_eq!(endpoints, [("a", 1), ("::1", 2), ("c", 3)]);
}

#[test]
fn an_impossible_value_names_setting_value_and_what_would_be_right() {
    for (name, value, expected) in [
        (
            "request.timeout.ms",
            "0",
            "request.timeout.ms=0: must be a whole number of milliseconds, at least 1",
        ),
        (
            "request.timeout.ms",
            "soon",
            "request.timeout.ms=soon: must be a whole number of milliseconds, at least 1",
        ),
        (
            "metadata.max.idle.ms",
            "10",
            "metadata.max.idle.ms=10: must be a whole number of milliseconds, at least 5000",
        ),
        (
            "metadata.recovery.strategy",
            "pray",
            "metadata.recovery.strategy=pray: must be one of rebootstrap, none",
        ),
        ("bootstrap.servers", "", "bootstrap.servers is missing: give at least one HOST:PORT"),
        ("bootstrap.servers", "a", "bootstrap.servers=a: must be HOST:PORT; the port is missing"),
        ("bootstrap.servers", "a:0", "bootstrap.servers=a:0: must be HOST:PORT with a port from 1 to 65535"),
        (
            "bootstrap.servers",
            "a:99999",
            "bootstrap.servers=a:99999: must be HOST:PORT with a port from 1 to 65535",
        ),
        (
            "bootstrap.servers",
            "::1:9092",
            "bootstrap.servers=::1:9092: must be [ADDRESS]:PORT for an IPv6 address",
        ),
        (
            "bootstrap.servers",
            "[::g]:9092",
            "bootstrap.servers=[::g]:9092: must be an IPv6 address between [ and ]",
        ),
        ("bootstrap.servers", ":9092", "bootstrap.servers=:9092: must be HOST:PORT; the host is missing"),
        (
            "bootstrap.servers",
            "SSL://a:9093",
            "bootstrap.servers=SSL://a:9093: must be HOST:PORT without TLS or SASL, which are not supported yet",
        ),
    ] {
        assert_eq!(error(Kind::Producer, name, value), expected);
    }
}

#[test]
fn an_unknown_name_gets_the_nearest_known_one() {
    for (name, expected) in [
        ("lingr.ms", "unknown setting lingr.ms; did you mean linger.ms?"),
        ("linger_ms", "unknown setting linger_ms; did you mean linger.ms?"),
        ("Bootstrap.Servers", "unknown setting Bootstrap.Servers; did you mean bootstrap.servers?"),
        ("request.timeout", "unknown setting request.timeout; did you mean request.timeout.ms?"),
        ("buffer.memroy", "unknown setting buffer.memroy; did you mean buffer.memory?"),
        ("queue.buffering.max.messages", "unknown setting queue.buffering.max.messages"),
    ] {
        assert_eq!(error(Kind::Producer, name, "1"), expected);
    }
}

#[test]
fn what_comes_later_is_refused_by_name_unless_it_asks_for_nothing_new() {
    for (kind, name, value, part) in [
        (
            Kind::Producer,
            "security.protocol",
            "SSL",
            "security.protocol is not supported yet: only PLAINTEXT",
        ),
        (
            Kind::Consumer,
            "ssl.keystore.type",
            "JKS",
            "ssl.keystore.type is not supported yet: connections are",
        ),
        (Kind::Admin, "sasl.login.class", "x", "sasl.login.class is not supported yet"),
        (Kind::Producer, "transactional.id", "t", "transactional.id is not supported yet: transactions"),
        (
            Kind::Consumer,
            "group.protocol",
            "consumer",
            "group.protocol is not supported yet: groups are of the classic protocol",
        ),
        (Kind::Consumer, "group.protocol", "classic", "accepted"),
        (Kind::Client, "enable.metrics.push", "true", "enable.metrics.push is not supported yet"),
        (Kind::Client, "enable.metrics.push", "false", "accepted"),
        (Kind::Producer, "security.protocol", "plaintext", "accepted"),
        (Kind::Consumer, "isolation.level", "read_uncommitted", "accepted"),
    ] {
        let told = error(kind, name, value);
        assert!(told.starts_with(part), "{told}");
    }
}

#[test]
fn a_setting_of_somebody_else_is_refused_as_such() {
    assert_eq!(error(Kind::Producer, "fetch.min.bytes", "1"), "fetch.min.bytes is a setting of consumers");
    assert_eq!(error(Kind::Consumer, "acks", "1"), "acks is a setting of producers");
}

/// Goal: whoever comes with a file for Kafka 4.3 is never told that a name of Kafka's own is unknown.
#[test]
fn every_name_of_kafka_4_3_is_known() {
    let common = "bootstrap.servers client.dns.lookup client.id config.providers connections.max.idle.ms \
        enable.metrics.push metadata.max.age.ms metadata.recovery.rebootstrap.trigger.ms \
        metadata.recovery.strategy metric.reporters metrics.num.samples metrics.recording.level \
        metrics.sample.window.ms receive.buffer.bytes reconnect.backoff.max.ms reconnect.backoff.ms \
        request.timeout.ms retry.backoff.max.ms retry.backoff.ms sasl.kerberos.kinit.cmd sasl.mechanism \
        security.protocol security.providers send.buffer.bytes socket.connection.setup.timeout.max.ms \
        socket.connection.setup.timeout.ms ssl.cipher.suites ssl.truststore.type";
    let producer = "acks batch.size buffer.memory compression.gzip.level compression.lz4.level compression.type \
        compression.zstd.level delivery.timeout.ms enable.idempotence interceptor.classes key.serializer linger.ms \
        max.block.ms max.in.flight.requests.per.connection max.request.size metadata.max.idle.ms \
        partitioner.adaptive.partitioning.enable partitioner.availability.timeout.ms partitioner.class \
        partitioner.ignore.keys retries transaction.timeout.ms transaction.two.phase.commit.enable \
        transactional.id value.serializer";
    let consumer = "allow.auto.create.topics auto.commit.interval.ms auto.offset.reset check.crcs client.rack \
        default.api.timeout.ms enable.auto.commit fetch.max.bytes fetch.max.wait.ms \
        fetch.min.bytes group.id group.instance.id group.protocol group.remote.assignor heartbeat.interval.ms \
        interceptor.classes isolation.level key.deserializer max.partition.fetch.bytes max.poll.interval.ms \
        max.poll.records partition.assignment.strategy session.timeout.ms share.acknowledgement.mode \
        share.acquire.mode value.deserializer";
    let admin = "bootstrap.controllers default.api.timeout.ms retries";
    for (kind, own) in [(Kind::Producer, producer), (Kind::Consumer, consumer), (Kind::Admin, admin)] {
        for name in common.split_whitespace().chain(own.split_whitespace()) {
            let told = error(kind, name, "?");
            assert!(!told.contains("unknown") && !told.contains("is a setting of"), "{name}: {told}");
        }
    }
}

/// Goal: whoever leaves a setting out gets what Kafka 4.3 would do. The values are those of its own definitions.
#[test]
fn shared_defaults_are_kafkas() {
    let kafkas = [
        ("client.id", ""),
        ("request.timeout.ms", "30000"),
        ("retry.backoff.ms", "100"),
        ("retry.backoff.max.ms", "1000"),
        ("reconnect.backoff.ms", "50"),
        ("reconnect.backoff.max.ms", "1000"),
        ("socket.connection.setup.timeout.ms", "10000"),
        ("socket.connection.setup.timeout.max.ms", "30000"),
        ("connections.max.idle.ms", "540000"),
        ("metadata.max.age.ms", "300000"),
        ("metadata.max.idle.ms", "300000"),
        ("metadata.recovery.strategy", "rebootstrap"),
        ("metadata.recovery.rebootstrap.trigger.ms", "300000"),
    ];
    let ours = format!("{:?}", ClientSettings::default());
    for (name, value) in kafkas {
        let told = read(Kind::Client, &[(name, value)]).unwrap().client;
        assert_eq!(format!("{told:?}"), ours, "{name}");
    }
    assert_eq!(ClientSettings::default().api_timeout(), Duration::from_secs(60), "default.api.timeout.ms");
    // Different on purpose: a fixed size ends the operating system's own adaption, and Kafka's 32 KiB for
    // receiving are too few for answers that cross a room.
    let deliberate = ["send.buffer.bytes", "receive.buffer.bytes"];
    let unset = ["bootstrap.servers", "default.api.timeout.ms"];
    let listed = kafkas.iter().map(|(name, _)| *name).chain(deliberate).chain(unset);
    let listed: std::collections::BTreeSet<_> = listed.collect();
    assert!(client::PROPERTIES.iter().all(|property| listed.contains(property.name)), "one is not listed");
    assert_eq!(listed.len(), client::PROPERTIES.len());
}

#[tokio::test]
async fn impossible_settings_of_a_builder_are_found_when_it_is_built() {
    let told = |builder: ClientBuilder| builder.build().unwrap_err().to_string();
    let builder = || ClientBuilder::default().bootstrap_servers("localhost:9092");
    assert_eq!(told(ClientBuilder::default()), "bootstrap.servers is missing: give at least one HOST:PORT");
    assert_eq!(
        told(builder().request_timeout_ms(Duration::ZERO)),
        "request.timeout.ms=0: must be more than 0"
    );
    assert_eq!(
        told(builder().default_api_timeout_ms(Duration::from_secs(1))),
        "default.api.timeout.ms=1000: must be at least request.timeout.ms, which is 30000"
    );
    assert_eq!(
        told(builder().metadata_max_idle_ms(Duration::from_secs(1))),
        "metadata.max.idle.ms=1000: must be at least 5000"
    );
}

#[test]
fn a_client_outside_of_a_runtime_is_an_error_and_no_panic() {
    let error = ClientBuilder::default().bootstrap_servers("localhost:9092").build().unwrap_err();
    assert_eq!(error, ConfigError::NoRuntime);
}
