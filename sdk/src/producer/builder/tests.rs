use super::*;
use crate::config::kafkas;

fn checked(pairs: &[(&str, &str)]) -> Result<Checked, ConfigError> {
    let builder = ProducerBuilder::from_properties(pairs.iter().copied())?;
    builder.options.check(&builder.options.client)
}

/// What there is beside Kafka's own.
const OURS: &[&str] = &["block.on.buffer.full", "default.api.timeout.ms", "partitioner"];

fn described() -> kafkas::Client {
    kafkas::Client {
        page: "producer.md",
        kafkas: kafkas::defaults(include_str!("../../config/kafka_producer.txt")),
        honoured: kafkas::honoured(PROPERTIES),
        ours: OURS,
        read: |name, value| ProducerBuilder::from_properties([(name, value)]).map(|_| ()),
        sources: [include_str!("../builder.rs"), include_str!("../../config/client.rs")],
    }
}

/// Goal: whoever leaves a setting out gets what Kafka 4.3 would do.
#[test]
fn the_defaults_are_kafkas() {
    described().check_defaults(|pairs| {
        let builder = ProducerBuilder::from_properties(pairs.iter().copied()).unwrap();
        format!("{:?} {:?}", builder.options.check(&builder.options.client).unwrap(), builder.options.client)
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
    let verdicts = include_str!("../../config/kafka_producer_verdicts.txt");
    let (compared, different) = kafkas::verdicts(verdicts, |pairs| {
        let builder = ProducerBuilder::from_properties(pairs.iter().copied())
            .map(|builder| builder.bootstrap_servers("a:1"));
        let ours = builder.and_then(|ProducerBuilder { options, .. }| {
            options.client.check()?;
            options.check(&options.client)
        });
        ours.is_ok()
    });
    assert!(compared > 80, "{compared}");
    let otherwise = [
        "compression.gzip.level=5",                      // without effect
        "compression.type=lz4 compression.lz4.level=17", // the encoder has no levels
    ];
    assert_eq!(different, otherwise);
}

#[test]
fn a_key_of_old_clients_says_whether_to_wait_for_room() {
    assert_eq!(checked(&[("block.on.buffer.full", "false")]).unwrap().max_block, Duration::ZERO);
    assert_eq!(checked(&[("block.on.buffer.full", "true")]).unwrap().max_block, Duration::MAX);
    let told = checked(&[("max.block.ms", "5"), ("block.on.buffer.full", "false")]).unwrap_err();
    let expected = "block.on.buffer.full=false: must be left out, because max.block.ms=5 is given, too";
    assert_eq!(told.to_string(), expected);
}

/// Goal: one clear sentence that names the setting, the value and what would be right.
#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (pairs, message) in [
        (
            &[("enable.idempotence", "true"), ("acks", "1")][..],
            "acks=1: must be all with enable.idempotence=true",
        ),
        (
            &[("enable.idempotence", "true"), ("max.in.flight.requests.per.connection", "6")],
            "max.in.flight.requests.per.connection=6: must be at most 5 with enable.idempotence=true",
        ),
        (
            &[("enable.idempotence", "true"), ("retries", "0")],
            "retries=0: must be more than 0 with enable.idempotence=true",
        ),
        (
            &[("delivery.timeout.ms", "30000")],
            "delivery.timeout.ms=30000: must be at least linger.ms and request.timeout.ms together, 30005",
        ),
        (
            &[("acks", "1"), ("max.in.flight.requests.per.connection", "6")],
            "max.in.flight.requests.per.connection=6: must be at most 5, or else with enable.idempotence=false",
        ),
        (&[("acks", "2")], "acks=2: must be one of all, -1, 1, 0"),
    ] {
        assert_eq!(checked(pairs).unwrap_err().to_string(), message);
    }
}

#[test]
fn idempotence_that_was_not_asked_for_gives_way() {
    for pair in [("acks", "1"), ("acks", "0"), ("retries", "0")] {
        assert!(!checked(&[pair]).unwrap().core.idempotent, "{pair:?}");
    }
}

#[test]
fn the_default_delivery_timeout_gives_way_to_a_long_linger() {
    let checked = checked(&[("linger.ms", "600000")]).unwrap();
    assert_eq!(checked.core.delivery_timeout, Duration::from_secs(630));
}

#[test]
fn codecs_that_this_build_cannot_encode_are_refused_at_once() {
    let zstd = checked(&[("compression.type", "zstd")]);
    assert_eq!(zstd.is_ok(), cfg!(feature = "zstd"));
    let expected = "compression.type=zstd: must be another codec; for zstd, build klamm with its feature \
        `zstd`, which needs a C compiler";
    assert!(zstd.err().is_none_or(|error| error.to_string() == expected));
    let by_topic = ProducerBuilder::new().topic_compression("t", Compression::Zstd).options;
    let by_topic = by_topic.check(&by_topic.client);
    let expected = expected.replace("compression.type", "topic_compression(t)");
    assert_eq!(by_topic.is_ok(), cfg!(feature = "zstd"));
    assert!(by_topic.err().is_none_or(|error| error.to_string() == expected));
}

#[test]
fn a_level_that_is_impossible_or_of_a_codec_not_in_use_is_refused() {
    for (codec, setting, value, expected) in [
        ("gzip", "compression.gzip.level", "0", "must be 1 to 9, or -1 for the default"),
        ("gzip", "compression.gzip.level", "10", "must be 1 to 9, or -1 for the default"),
        ("gzip", "compression.gzip.level", "best", "must be a whole number from -2147483648 to 2147483647"),
        (
            "lz4",
            "compression.lz4.level",
            "12",
            "must be 9, which is Kafka's default and its fast encoder; the one here is as fast and no other",
        ),
        (
            "lz4",
            "compression.gzip.level",
            "5",
            "must be left out, because nothing is compressed by gzip (compression.type)",
        ),
        (
            "none",
            "compression.zstd.level",
            "19",
            "must be left out, because nothing is compressed by zstd (compression.type)",
        ),
    ] {
        let told = checked(&[("compression.type", codec), (setting, value)]).unwrap_err();
        assert_eq!(told.to_string(), format!("{setting}={value}: {expected}"));
    }
    for (codec, setting, level) in [
        ("gzip", "compression.gzip.level", 1),
        ("gzip", "compression.gzip.level", 9),
        ("gzip", "compression.gzip.level", -1),
        ("lz4", "compression.lz4.level", 9),
    ] {
        let checked = checked(&[("compression.type", codec), (setting, &level.to_string())]).unwrap();
        assert_eq!(checked.packings.default.level, Some(level), "{setting}");
    }
    if cfg!(feature = "zstd") {
        for (level, possible) in [(-131_072, true), (22, true), (23, false), (-131_073, false)] {
            let builder = ProducerBuilder::new().compression_zstd_level(level);
            let options = builder.compression_type(Compression::Zstd).options;
            assert_eq!(options.check(&options.client).is_ok(), possible, "{level}");
        }
    }
}

#[test]
fn a_level_counts_for_a_topic_that_is_compressed_by_its_codec() {
    let builder = ProducerBuilder::new().compression_gzip_level(9);
    let options = builder.topic_compression("t", Compression::Gzip).options;
    let packings = options.check(&options.client).unwrap().packings;
    assert_eq!(packings.default, Packing { compression: Compression::None, level: None });
    assert_eq!(packings.by_topic["t"], Packing { compression: Compression::Gzip, level: Some(9) });
}

/// What a builder was told, one setting a line.
fn told(builder: &ProducerBuilder) -> BTreeSet<String> {
    format!("{:#?}", builder.options).lines().map(|line| line.trim().to_owned()).collect()
}

/// Goal: a preset sets what it names and nothing else.
#[test]
fn presets_set_what_they_name() {
    let strange = || {
        ProducerBuilder::new()
            .acks(Acks::None)
            .enable_idempotence(false)
            .linger_ms(Duration::from_secs(1))
            .retries(7)
            .max_in_flight_requests_per_connection(9)
            .partitioner_ignore_keys(true)
            .batch_size(1)
            .compression_type(Compression::Gzip)
            .delivery_timeout_ms(Duration::from_secs(77))
    };
    type Preset = fn(ProducerBuilder) -> ProducerBuilder;
    let presets: [(&str, Preset, &[&str]); 4] = [
        (
            "high_throughput",
            |b| b.high_throughput(Acks::Leader),
            &["acks: Leader,", "linger: 0ns,", "retries: 2147483647,"],
        ),
        (
            "reliable",
            |b| b.reliable(),
            &["acks: All,", "idempotence: None,", "linger: 0ns,", "retries: 2147483647,"],
        ),
        (
            "highly_reliable",
            |b| b.highly_reliable(),
            &["acks: All,", "idempotence: None,", "linger: 0ns,", "retries: 2147483647,"],
        ),
        (
            "ordered",
            |b| b.ordered(),
            &["max_in_flight: 1,", "ignore_keys: false,", "linger: 0ns,", "retries: 2147483647,"],
        ),
    ];
    for (name, preset, named) in presets {
        let (before, after) = (told(&strange()), told(&preset(strange())));
        let set: BTreeSet<_> = after.difference(&before).map(String::as_str).collect();
        assert_eq!(set, named.iter().copied().collect(), "{name}");
        let checked = preset(ProducerBuilder::new()).options.check(&ClientSettings::default()).unwrap();
        assert_eq!(checked.core.linger, Duration::ZERO, "{name}");
        assert_eq!(checked.core.idempotent, name != "high_throughput", "{name}");
    }
}

#[test]
fn of_two_calls_that_set_the_same_the_later_one_counts() {
    let new = ProducerBuilder::new;
    let lingers = new().linger_ms(Duration::from_millis(9)).reliable();
    assert_eq!(lingers.options.linger, Duration::ZERO);
    let lingers = new().reliable().linger_ms(Duration::from_millis(9));
    assert_eq!(lingers.options.linger, Duration::from_millis(9));
    assert_eq!(told(&new().high_throughput(Acks::None).reliable()), told(&new().reliable()));
    assert_eq!(
        told(&new().reliable().ordered()),
        told(&new().ordered().reliable()),
        "they set different things"
    );
    let faster = new().reliable().high_throughput(Acks::Leader).options;
    assert_eq!((faster.acks, faster.idempotence), (Acks::Leader, Some(false)));
    let classic = new().ordered().retries(0).options;
    let classic = classic.check(&classic.client).unwrap().core;
    assert_eq!((classic.retries, classic.max_in_flight, classic.idempotent), (0, 1, false));
}

#[test]
fn high_throughput_with_acks_all_is_refused_unless_acks_are_set_again() {
    let refused = ProducerBuilder::new().high_throughput(Acks::All).options;
    assert_eq!(
        refused.check(&refused.client).unwrap_err().to_string(),
        "acks=all: must be 0 or 1 with high_throughput, which gives up safety for speed; reliable is for all"
    );
    for fine in [
        ProducerBuilder::new().high_throughput(Acks::All).acks(Acks::Leader).options,
        ProducerBuilder::new().high_throughput(Acks::All).reliable().options,
        ProducerBuilder::new().high_throughput(Acks::None).options,
    ] {
        assert!(fine.check(&fine.client).is_ok());
    }
}

/// Goal: the page says what the code does, and misses nothing.
#[test]
fn the_page_of_settings_is_true() {
    described().check_page();
}
