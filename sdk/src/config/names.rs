//! Kafka's names that no table implements: refused by name, each with a sentence that says what to do instead,
//! unless the value asks for what this client does anyway. Names that Kafka does not have either get the
//! nearest known one.

use super::{Kind, Value};
use crate::error::ConfigError;

/// A property that is known and not implemented.
struct Known {
    name: &'static str,
    kinds: &'static [Kind],
    /// Values that ask for what this client does anyway.
    accepts: &'static [&'static str],
    reason: &'static str,
}

const ANY: &[Kind] = &[Kind::Client, Kind::Producer, Kind::Consumer, Kind::Admin];
const PRODUCER: &[Kind] = &[Kind::Producer];
const CONSUMER: &[Kind] = &[Kind::Consumer];
const ADMIN: &[Kind] = &[Kind::Admin];

const fn known(
    name: &'static str,
    kinds: &'static [Kind],
    accepts: &'static [&'static str],
    reason: &'static str,
) -> Known {
    Known { name, kinds, accepts, reason }
}

const TLS: &str = "connections are plaintext, TLS comes later";
const SASL: &str = "connections are not authenticated, SASL comes later";
const METRICS: &str = "metrics are not sampled or reported by the client itself";
const CLASSES: &str = "Java classes cannot be loaded; use the builder's method of the same name";
const TRANSACTIONS: &str = "transactions come later";
const SHARE: &str = "share groups come later";
const LATER: &str = "this client does not have it yet";

/// Names that begin like this are refused alike.
const PREFIXES: &[(&str, &str)] = &[("ssl.", TLS), ("sasl.", SASL)];

const KNOWN: &[Known] = &[
    known("client.dns.lookup", ANY, &["use_all_dns_ips"], "all addresses of a name are tried, always"),
    known("config.providers", ANY, &[""], "values are taken as they stand, nothing fills them in"),
    known(
        "enable.metrics.push",
        ANY,
        &["false"],
        "metrics are not pushed to brokers (KIP-714); set it to false",
    ),
    known("metric.reporters", ANY, &[""], METRICS),
    known("metrics.num.samples", ANY, &["2"], METRICS),
    known("metrics.recording.level", ANY, &["INFO"], METRICS),
    known("metrics.sample.window.ms", ANY, &["30000"], METRICS),
    known("security.protocol", ANY, &["PLAINTEXT"], "only PLAINTEXT is; TLS and SASL come later"),
    known("security.providers", ANY, &[""], "Java classes cannot be loaded"),
    known("ssl.truststore.location", ANY, &[], TLS),
    known("ssl.keystore.location", ANY, &[], TLS),
    known("sasl.mechanism", ANY, &[], SASL),
    known("sasl.jaas.config", ANY, &[], SASL),
    known("acks", PRODUCER, &[], LATER),
    known("batch.size", PRODUCER, &[], LATER),
    known("block.on.buffer.full", PRODUCER, &[], LATER),
    known("buffer.memory", PRODUCER, &[], LATER),
    known("compression.gzip.level", PRODUCER, &["-1"], LATER),
    known("compression.lz4.level", PRODUCER, &[], "the lz4 encoder in use has no levels"),
    known("compression.type", PRODUCER, &[], LATER),
    known("compression.zstd.level", PRODUCER, &["3"], LATER),
    known("delivery.timeout.ms", PRODUCER, &[], LATER),
    known("enable.idempotence", PRODUCER, &[], LATER),
    known("key.serializer", PRODUCER, &[], CLASSES),
    known("linger.ms", PRODUCER, &[], LATER),
    known("max.block.ms", PRODUCER, &[], LATER),
    known("max.in.flight.requests.per.connection", PRODUCER, &[], LATER),
    known("max.request.size", PRODUCER, &[], LATER),
    known("partitioner.adaptive.partitioning.enable", PRODUCER, &["false"], LATER),
    known("partitioner.availability.timeout.ms", PRODUCER, &["0"], LATER),
    known("partitioner.class", PRODUCER, &[""], CLASSES),
    known("partitioner.ignore.keys", PRODUCER, &["false"], LATER),
    known("transaction.timeout.ms", PRODUCER, &["60000"], TRANSACTIONS),
    known("transaction.two.phase.commit.enable", PRODUCER, &["false"], TRANSACTIONS),
    known("transactional.id", PRODUCER, &[""], TRANSACTIONS),
    known("value.serializer", PRODUCER, &[], CLASSES),
    known(
        "interceptor.classes",
        &[Kind::Producer, Kind::Consumer],
        &[""],
        "Java classes cannot be loaded; add interceptors by the builder",
    ),
    known(
        "retries",
        &[Kind::Producer, Kind::Admin],
        &["2147483647"],
        "calls are repeated until default.api.timeout.ms",
    ),
    known("allow.auto.create.topics", CONSUMER, &[], LATER),
    known("auto.commit.interval.ms", CONSUMER, &[], LATER),
    known("auto.offset.reset", CONSUMER, &[], LATER),
    known("check.crcs", CONSUMER, &["true"], "checksums are checked, always"),
    known("client.rack", CONSUMER, &[], LATER),
    known("enable.auto.commit", CONSUMER, &[], LATER),
    known("exclude.internal.topics", CONSUMER, &[], LATER),
    known("fetch.max.bytes", CONSUMER, &[], LATER),
    known("fetch.max.wait.ms", CONSUMER, &[], LATER),
    known("fetch.min.bytes", CONSUMER, &[], LATER),
    known("group.id", CONSUMER, &[], LATER),
    known("group.instance.id", CONSUMER, &[], LATER),
    known(
        "group.protocol",
        CONSUMER,
        &["classic"],
        "groups are of the classic protocol; those of KIP-848 come later",
    ),
    known(
        "group.remote.assignor",
        CONSUMER,
        &[],
        "groups are of the classic protocol; those of KIP-848 come later",
    ),
    known("heartbeat.interval.ms", CONSUMER, &[], LATER),
    known("isolation.level", CONSUMER, &["read_uncommitted"], TRANSACTIONS),
    known("key.deserializer", CONSUMER, &[], CLASSES),
    known("max.partition.fetch.bytes", CONSUMER, &[], LATER),
    known("max.poll.interval.ms", CONSUMER, &[], LATER),
    known("max.poll.records", CONSUMER, &[], LATER),
    known("partition.assignment.strategy", CONSUMER, &[], LATER),
    known("session.timeout.ms", CONSUMER, &[], LATER),
    known("share.acknowledgement.mode", CONSUMER, &[], SHARE),
    known("share.acquire.mode", CONSUMER, &[], SHARE),
    known("value.deserializer", CONSUMER, &[], CLASSES),
    known(
        "bootstrap.controllers",
        ADMIN,
        &[],
        "controllers are not asked directly; give brokers in bootstrap.servers",
    ),
];

/// Accepts or refuses a property that no table implements; `implemented` are the names that one does.
pub(super) fn refuse(
    kind: Kind,
    value: &Value<'_>,
    implemented: impl Iterator<Item = &'static str>,
) -> Result<(), ConfigError> {
    let name = value.name();
    let not_yet = |reason| ConfigError::NotSupportedYet {
        setting: name.to_owned(),
        value: value.text().to_owned(),
        reason,
    };
    if let Some(known) = KNOWN.iter().find(|known| known.name == name) {
        if !known.kinds.contains(&kind) {
            return Err(ConfigError::Misplaced { setting: known.name, belongs_to: of(known.kinds) });
        }
        if known.accepts.iter().any(|accepted| accepted.eq_ignore_ascii_case(value.text())) {
            return Ok(());
        }
        return Err(not_yet(known.reason));
    }
    if let Some((_, reason)) = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        return Err(not_yet(reason));
    }
    let mine = KNOWN.iter().filter(|known| known.kinds.contains(&kind)).map(|known| known.name);
    Err(ConfigError::Unknown { setting: name.to_owned(), nearest: nearest(name, implemented.chain(mine)) })
}

/// Why a property is refused that no table implements.
#[cfg(test)]
pub(super) fn reason(name: &str) -> Option<&'static str> {
    let known = KNOWN.iter().find(|known| known.name == name).map(|known| known.reason);
    known.or_else(|| PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, reason)| *reason))
}

/// The value of such a property that asks for what this client does anyway.
#[cfg(test)]
pub(super) fn accepted(name: &str) -> Option<&'static str> {
    let known = KNOWN.iter().find(|known| known.name == name)?;
    known.accepts.first().copied().filter(|value| !value.is_empty())
}

fn of(kinds: &[Kind]) -> &'static str {
    match kinds {
        [Kind::Producer] => "producers",
        [Kind::Consumer] => "consumers",
        [Kind::Admin] => "admin clients",
        [Kind::Producer, Kind::Admin] => "producers and admin clients",
        _ => "producers and consumers",
    }
}

/// The name that is spelt most alike, if it is alike at all.
fn nearest(name: &str, all: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let spelt = name.to_ascii_lowercase().replace(['_', '-'], ".");
    let distance = |known: &'static str| (strsim::damerau_levenshtein(&spelt, known), known);
    let (distance, known) = all.map(distance).min()?;
    (distance <= (name.len() / 3).max(2)).then_some(known)
}
