use super::*;
use crate::config::kafkas;

#[test]
fn a_properties_file_is_read_and_what_is_missing_is_refused_by_name() {
    let builder = ConsumerBuilder::from_properties([
        ("bootstrap.servers", "localhost:9092"),
        ("auto.offset.reset", "earliest"),
        ("isolation.level", "read_committed"),
        ("fetch.max.wait.ms", "20"),
        ("max.partition.fetch.bytes", "1000"),
    ])
    .unwrap();
    assert_eq!(builder.options.reset, OffsetReset::Earliest);
    assert_eq!(builder.options.isolation, Isolation::ReadCommitted);
    assert_eq!(builder.options.max_wait, Duration::from_millis(20));
    assert_eq!(builder.options.max_partition_bytes, 1_000);

    let refused = ConsumerBuilder::from_properties([("group.protocol", "consumer")]).unwrap_err().to_string();
    assert!(refused.contains("group.protocol") && refused.contains("not supported yet"), "{refused}");
    let unknown = ConsumerBuilder::from_properties([("fetch.max.byte", "1")]).unwrap_err().to_string();
    assert!(unknown.contains("fetch.max.bytes"), "{unknown}");
}

fn described() -> kafkas::Client {
    kafkas::Client {
        page: "consumer-settings.md",
        kafkas: kafkas::defaults(include_str!("../../config/kafka_consumer.txt")),
        honoured: kafkas::honoured(PROPERTIES),
        ours: &["metadata.max.idle.ms"],
        read: |name, value| ConsumerBuilder::from_properties([(name, value)]).map(|_| ()),
        sources: [include_str!("../builder.rs"), include_str!("../../config/client.rs")],
    }
}

/// Goal: whoever leaves a setting out gets what Kafka 4.3 would do.
#[test]
fn the_defaults_are_kafkas() {
    described().check_defaults(|pairs| {
        let mut options = ConsumerBuilder::from_properties(pairs.iter().copied()).unwrap().options;
        options.client.default_api_timeout = Some(options.client.api_timeout());
        format!("{options:?}")
    });
}

/// Goal: no setting of a file for Kafka is dropped in silence.
#[test]
fn every_setting_of_kafka_is_honoured_or_refused_with_a_reason() {
    described().check_refusals();
}

/// Goal: what Kafka refuses is refused, and what it accepts is accepted, but for what is said here.
#[test]
fn settings_are_accepted_and_refused_as_by_kafka() {
    let verdicts = include_str!("../../config/kafka_consumer_verdicts.txt");
    let (compared, different) = kafkas::verdicts(verdicts, |pairs| {
        let builder = ConsumerBuilder::from_properties(pairs.iter().copied())
            .map(|builder| builder.bootstrap_servers("a:1"));
        let ours = builder.and_then(|ConsumerBuilder { options, .. }| {
            options.client.check()?;
            options.check()?;
            options.assignors()
        });
        ours.is_ok()
    });
    assert!(compared > 80, "{compared}");
    let otherwise = [
        "auto.offset.reset=EARLIEST",           // read in any case, as everywhere
        "isolation.level=READ_COMMITTED",       // the same
        "group.id=g heartbeat.interval.ms=0",   // would be heartbeats without a pause
        "enable.auto.commit=true",              // the group is `default` then
        "group.id=g auto.commit.interval.ms=0", // that is `commit_record`
        "request.timeout.ms=0",                 // nothing could be answered
        // Each once: they are offered to the coordinator by their names.
        "group.id=g partition.assignment.strategy=org.apache.kafka.clients.consumer.RangeAssignor,org.apache.kafka.clients.consumer.RangeAssignor",
        "group.id=g partition.assignment.strategy=", // nothing could be agreed upon
        "group.protocol=consumer",                   // not supported yet
        "metadata.max.age.ms=0",                     // would be requests without a pause
        // No address could be connected to.
        "socket.connection.setup.timeout.ms=0",
        "socket.connection.setup.timeout.max.ms=0",
        // Of which no system makes a buffer.
        "receive.buffer.bytes=0",
        "send.buffer.bytes=0",
        "partition.assignment.strategy=range", // short, as librdkafka has it
    ];
    assert_eq!(different, otherwise);
}

/// Goal: the page says what the code does, and misses nothing.
#[test]
fn the_page_of_settings_is_true() {
    described().check_page();
}

#[tokio::test]
async fn impossible_settings_name_the_setting() {
    let error = ConsumerBuilder::new()
        .bootstrap_servers("localhost:9092")
        .fetch_max_bytes(1 << 40)
        .build()
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("fetch.max.bytes=1099511627776"), "{error}");
    let told = |properties: &[(&str, &str)]| {
        let servers = [("bootstrap.servers", "localhost:9092")];
        let builder = ConsumerBuilder::from_properties(servers.iter().chain(properties).copied())?;
        builder.build().map(drop)
    };
    for (properties, setting) in [
        (&[("heartbeat.interval.ms", "45000")][..], "heartbeat.interval.ms=45000"),
        (&[("group.id", "")], "group.id="),
        (&[("partition.assignment.strategy", "range,range")], "partition.assignment.strategy"),
        (&[("partition.assignment.strategy", "nearest")], "partition.assignment.strategy=nearest"),
    ] {
        let error = told(properties).unwrap_err().to_string();
        assert!(error.starts_with(setting), "{error}");
    }
    assert!(ConsumerBuilder::new().build().unwrap_err().to_string().contains("bootstrap.servers"));
}
