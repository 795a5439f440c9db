use std::collections::BTreeMap;

use super::*;

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

fn topic(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn broker(pairs: &[(&str, &str)]) -> BrokerConfig {
    let mut config = BrokerConfig::new();
    for (name, value) in pairs {
        config.set(name, value).unwrap();
    }
    config
}

#[test]
fn tables_are_sorted_so_that_names_are_found() {
    for table in [table::BROKER, table::TOPIC] {
        assert!(table.windows(2).all(|pair| pair[0].name < pair[1].name));
        for key in table {
            assert_eq!(find(table, key.name).unwrap().name, key.name);
        }
    }
}

/// Goal: nobody's properties file with defaults spelt out is refused. An empty list that must not be empty
/// is Kafka's own way to say "not set".
#[test]
fn every_default_passes_its_own_check() {
    for key in table::BROKER.iter().chain(table::TOPIC) {
        if let Some(default) = key.default {
            let empty = matches!(key.valid, key::Valid::NotEmpty) && default.is_empty();
            assert!(empty || key.check(default).is_ok(), "{} = {default}", key.name);
        }
    }
}

#[test]
fn every_synonym_is_a_setting_of_both_levels() {
    for (name, vias) in table::SYNONYMS {
        assert!(find(table::TOPIC, name).is_some(), "{name}");
        for via in *vias {
            assert!(find(table::BROKER, via.broker).is_some(), "{}", via.broker);
        }
    }
}

#[test]
fn defaults_are_kafkas() {
    let config = BrokerConfig::new();
    assert_eq!(config.int("num.partitions"), Some(1));
    assert_eq!(config.millis("broker.session.timeout.ms"), Some(std::time::Duration::from_secs(9)));
    assert_eq!(config.millis("replica.lag.time.max.ms"), Some(std::time::Duration::from_secs(30)));
    assert!(config.boolean("auto.create.topics.enable"));
    assert_eq!(config.get("log.retention.ms"), None);
    assert_eq!(config.get("no.such.setting"), None);
    config.check().unwrap();
}

#[test]
fn a_given_value_wins_over_the_default() {
    let config = broker(&[("num.partitions", " 4 ")]);
    assert_eq!(config.int("num.partitions"), Some(4));
    assert!(config.is_given("num.partitions") && !config.is_given("log.dirs"));
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest_one() {
    let error = BrokerConfig::new().set("num.partition", "4").unwrap_err();
    assert_eq!(error.to_string(), r#"unknown setting "num.partition"; did you mean "num.partitions"?"#);
    let error = check_topic_config("retention.mss", "1").unwrap_err();
    assert_eq!(error, ConfigError::Unknown { name: "retention.mss".into(), nearest: Some("retention.ms") });
    let error = check_topic_config("zzz", "1").unwrap_err();
    assert_eq!(error.to_string(), r#"unknown setting "zzz""#);
}

#[test]
fn a_name_of_the_other_level_leads_to_its_twin() {
    let nearest = |error| match error {
        ConfigError::Unknown { nearest, .. } => nearest,
        other => panic!("{other}"),
    };
    assert_eq!(nearest(BrokerConfig::new().set("retention.ms", "1").unwrap_err()), Some("log.retention.ms"));
    assert_eq!(nearest(check_topic_config("log.retention.hours", "1").unwrap_err()), Some("retention.ms"));
}

#[test]
fn values_of_the_wrong_type_or_outside_the_limits_are_refused_with_what_would_be_right() {
    let reason = |name: &str, value: &str| match BrokerConfig::new().set(name, value) {
        Err(ConfigError::Invalid { reason, .. }) => reason,
        other => panic!("{name}={value}: {other:?}"),
    };
    assert_eq!(reason("num.partitions", "0"), "must be a whole number from 1 to 2147483647");
    assert_eq!(reason("num.partitions", "four"), "must be a whole number from 1 to 2147483647");
    assert_eq!(reason("num.partitions", "2147483648"), "must be a whole number from 1 to 2147483647");
    assert_eq!(
        reason("offsets.topic.replication.factor", "40000"),
        "must be a whole number from 1 to 9223372036854775807".replace("9223372036854775807", "32767")
    );
    assert_eq!(reason("compression.gzip.level", "10"), "must be a whole number from 1 to 9 or -1");
    assert_eq!(reason("delete.topic.enable", "yes"), "must be true or false");
    assert_eq!(reason("log.cleaner.min.cleanable.ratio", "1.5"), "must be a number from 0 to 1");
    assert_eq!(reason("log.cleaner.min.cleanable.ratio", "NaN"), "must be a number from 0 to 1");
    assert_eq!(reason("log.message.timestamp.type", "Now"), "must be one of CreateTime, LogAppendTime");
    assert_eq!(reason("log.cleanup.policy", "delete,shred"), "must be a list of compact, delete");
}

#[test]
fn lists_and_special_values_are_taken() {
    broker(&[("log.cleanup.policy", "delete, compact"), ("compression.gzip.level", "-1")]);
    assert_eq!(check_topic_config("cleanup.policy", ""), Ok(""));
}

#[test]
fn settings_of_missing_subjects_are_refused_by_name_unless_they_are_the_default() {
    let mut config = BrokerConfig::new();
    let error = config.set("ssl.keystore.location", "/k").unwrap_err();
    assert_eq!(error.to_string(), "ssl.keystore.location is not supported yet");
    assert!(config.set("transactional.id.expiration.ms", "1").is_err());
    assert_eq!(
        check_topic_config("compression.type", "zstd").is_ok(),
        klamm_wire::Compression::Zstd.check_level(None).is_ok()
    );
    assert_eq!(check_topic_config("compression.type", "gzip"), Ok("gzip"));
    let error = config.set("node.id", "3").unwrap_err();
    assert_eq!(error.to_string(), "node.id is set by broker-lite itself");
    config.set("compression.type", "producer").unwrap();
    config.set("transaction.state.log.replication.factor", "1").unwrap();
}

#[test]
fn how_much_stays_local_is_taken_since_everything_does() {
    assert_eq!(check_topic_config("local.retention.ms", "2000"), Ok("2000"));
    assert!(is_without_effect("local.retention.ms", "2000"));
    assert!(check_topic_config("remote.storage.enable", "true").is_err());
}

#[test]
fn what_a_broker_runs_with_is_shown_as_given_at_the_start() {
    let config = BrokerConfig::new().running_with([("node.id", "3".to_owned()), ("no.such", String::new())]);
    let shown = config.describe();
    let id = shown.iter().find(|config| config.name == "node.id").unwrap();
    assert_eq!((id.value.as_deref(), id.source), (Some("3"), ConfigSource::StaticBroker));
    assert!(shown.iter().all(|config| config.name != "no.such"));
}

#[test]
fn a_password_is_not_repeated_in_the_error() {
    let error = BrokerConfig::new().set("ssl.key.password", "hunter2").unwrap_err();
    assert!(!error.to_string().contains("hunter2"));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let error = broker(&[("broker.session.timeout.ms", "300")]).check().unwrap_err();
    assert_eq!(
        error.to_string(),
        "broker.heartbeat.interval.ms must be at most half of broker.session.timeout.ms"
    );
    assert!(broker(&[("replica.lag.time.max.ms", "100")]).check().is_err());
}

#[test]
fn a_topic_falls_back_to_its_broker_and_then_to_kafkas_default() {
    let (own, empty) = (topic(&[("retention.ms", "5")]), none());
    let given = broker(&[("log.retention.minutes", "2"), ("min.insync.replicas", "2")]);

    assert_eq!(TopicConfig::new(&own, &given).get("retention.ms").as_deref(), Some("5"));
    assert_eq!(TopicConfig::new(&empty, &given).get("retention.ms").as_deref(), Some("120000"));
    assert_eq!(TopicConfig::new(&empty, &given).min_insync_replicas(), 2);
    let plain = BrokerConfig::new();
    assert_eq!(TopicConfig::new(&empty, &plain).int("retention.ms"), Some(604_800_000));
    assert_eq!(TopicConfig::new(&empty, &plain).get("remote.storage.enable").as_deref(), Some("false"));
}

#[test]
fn a_negative_time_in_hours_means_no_limit() {
    let given = broker(&[("log.retention.hours", "-1")]);
    assert_eq!(TopicConfig::new(&none(), &given).int("retention.ms"), Some(-1));
}

/// Kafka's classes give the same values on both levels; a slip in the synonyms would show here.
#[test]
fn without_any_given_setting_a_topic_has_kafkas_topic_defaults() {
    let (empty, plain) = (none(), BrokerConfig::new());
    let config = TopicConfig::new(&empty, &plain);
    for key in table::TOPIC {
        assert_eq!(config.get(key.name).as_deref(), key.default, "{}", key.name);
    }
}

#[test]
fn describing_a_topic_names_where_each_value_comes_from() {
    let (own, given) = (topic(&[("retention.ms", "5")]), broker(&[("log.retention.ms", "6")]));
    let described = TopicConfig::new(&own, &given).describe();

    let retention = described.iter().find(|config| config.name == "retention.ms").unwrap();
    assert_eq!(retention.value.as_deref(), Some("5"));
    assert_eq!(retention.source, ConfigSource::DynamicTopic);
    let synonyms: Vec<_> =
        retention.synonyms.iter().map(|s| (&*s.name, s.value.as_deref(), s.source)).collect();
    assert_eq!(
        synonyms,
        [
            ("retention.ms", Some("5"), ConfigSource::DynamicTopic),
            ("log.retention.ms", Some("6"), ConfigSource::StaticBroker),
            ("log.retention.hours", Some("168"), ConfigSource::Default),
        ]
    );
    assert_eq!(described.len(), table::TOPIC.len());
}

#[test]
fn describing_a_broker_hides_passwords_and_ranks_the_sources() {
    let given = broker(&[("message.max.bytes", "10")]);
    let running = given.under(
        &topic(&[("message.max.bytes", "30"), ("broker.rack", "never"), ("plug.in", "secret")]),
        &topic(&[("message.max.bytes", "20"), ("leader.replication.throttled.rate", "5")]),
    );
    let described = running.describe();

    let max = described.iter().find(|config| config.name == "message.max.bytes").unwrap();
    assert_eq!((max.value.as_deref(), max.source), (Some("30"), ConfigSource::DynamicBroker));
    let values: Vec<_> = max.synonyms.iter().filter_map(|s| s.value.as_deref()).collect();
    assert_eq!(values, ["30", "20", "10", "1048588"]);
    assert!(!max.read_only);
    let node = described.iter().find(|config| config.name == "broker.rack").unwrap();
    assert_eq!((node.value.as_deref(), node.source, node.read_only), (None, ConfigSource::Default, true));
    assert!(described.iter().find(|config| config.name == "ssl.key.password").unwrap().sensitive);
    let plug_in = described.iter().find(|config| config.name == "plug.in").unwrap();
    assert_eq!((plug_in.sensitive, &plug_in.value), (true, &None), "nobody knows whether it is a secret");
    let shown: Vec<_> = running.describe_all_brokers();
    let shown: Vec<_> = shown.iter().map(|config| (&*config.name, config.synonyms.len())).collect();
    assert_eq!(shown, [("leader.replication.throttled.rate", 1), ("message.max.bytes", 1)]);
}

/// Goal: as `ConfigCommand --describe` of Apache Kafka shows it.
#[test]
fn a_setting_without_its_own_name_anywhere_has_no_synonyms() {
    let (own, given) = (none(), broker(&[("log.retention.hours", "1")]));
    let described = TopicConfig::new(&own, &given).describe();
    let retention = described.iter().find(|config| config.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.source), (Some("3600000"), ConfigSource::Default));
    assert!(retention.synonyms.is_empty());
}

#[test]
fn a_topic_inherits_what_is_set_for_its_broker_while_running() {
    let given = broker(&[("min.insync.replicas", "1")]);
    let running = given.under(&none(), &topic(&[("min.insync.replicas", "2")]));
    let own = none();
    assert_eq!(TopicConfig::new(&own, &running).min_insync_replicas(), 2);
    let own = topic(&[("min.insync.replicas", "3")]);
    assert_eq!(TopicConfig::new(&own, &running).min_insync_replicas(), 3);
}

#[test]
fn a_running_broker_refuses_what_it_reads_only_at_the_start() {
    for (name, value) in [("broker.rack", Some("r")), ("node.id", None), ("message.max.bytes", Some("x"))] {
        assert!(check_broker_change(name, value).is_err(), "{name}");
    }
    for (name, value) in [("message.max.bytes", Some(" 5 ")), ("plug.in", Some("x")), ("log.roll.ms", None)] {
        assert_eq!(check_broker_change(name, value), Ok(()), "{name}");
    }
}

#[test]
fn settings_of_a_topic_are_checked_against_each_other() {
    let configs = topic(&[("min.compaction.lag.ms", "6"), ("max.compaction.lag.ms", "5")]);
    let error = check_topic_configs(&configs).unwrap_err().to_string();
    assert_eq!(error, "min.compaction.lag.ms must be at most max.compaction.lag.ms");
    for (value, fits) in
        [("", true), ("*", true), ("0:1,12:3", true), ("0:1,*", false), ("0", false), ("a:1", false)]
    {
        let configs = topic(&[("leader.replication.throttled.replicas", value)]);
        assert_eq!(check_topic_configs(&configs).is_ok(), fits, "{value}");
    }
}

/// Goal: nobody waits for something that never happens, such as a deletion by age.
#[test]
fn settings_that_are_not_acted_on_are_known_as_such() {
    for (name, value) in [("log.preallocate", "true"), ("preallocate", "true"), ("log.cleaner.threads", "2")]
    {
        assert!(is_without_effect(name, value), "{name}");
    }
    assert!(!is_without_effect("cleanup.policy", "delete"), "the default");
    assert!(!is_without_effect("no.such.setting", "1"));
    for name in support::ACTED_ON {
        assert!(broker::find_key(name).or_else(|| find(table::TOPIC, name)).is_some(), "{name} is misspelt");
        assert!(!is_without_effect(name, "1"), "{name}");
    }
}
