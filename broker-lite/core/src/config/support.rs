//! Settings of Kafka whose subject broker-lite does not have yet: any value but the default is refused.

use klamm_wire::Compression;

/// Subjects that are missing as a whole: TLS, SASL, ACLs, quotas, transactions, tiered storage, share and
/// streams groups, KIP-848 groups.
const MISSING: &[&str] = &[
    "alter.log.dirs.replication.quota.",
    "controller.quota.",
    "delegation.token.",
    "group.consumer.",
    "group.share.",
    "group.streams.",
    "quota.",
    "remote.",
    "replication.quota.",
    "sasl.",
    "share.coordinator.",
    "ssl.",
    "transaction.",
    "transactional.",
];

/// Single settings that ask for something missing.
const MISSING_NAMES: &[&str] = &[
    "alter.config.policy.class.name",
    "authorizer.class.name",
    "client.quota.callback.class",
    "connections.max.reauth.ms",
    "create.topic.policy.class.name",
    "listener.security.protocol.map",
    "principal.builder.class",
    "security.inter.broker.protocol",
    "security.providers",
];

/// Accepted although their subject is missing: they only shape internal topics, and are often set.
const HARMLESS: &str = "transaction.state.log.";

/// Given by broker-lite itself, to every broker its own.
const OWNED: &[&str] = &[
    "advertised.listeners",
    "broker.id",
    "controller.listener.names",
    "controller.quorum.auto.join.enable",
    "controller.quorum.bootstrap.servers",
    "controller.quorum.voters",
    "inter.broker.listener.name",
    "listeners",
    "node.id",
    "process.roles",
];

/// Why the setting cannot have this value, if it cannot, although Kafka's could.
pub(super) fn refusal_of_value(name: &str, value: &str) -> Option<&'static str> {
    let selector = "RackAwareReplicaSelector";
    match (name, value) {
        ("compression.type", "zstd") if Compression::Zstd.check_level(None).is_err() => {
            Some("cannot be zstd: this build reads zstd and does not write it (feature `zstd`)")
        }
        ("replica.selector.class", class)
            if !class.is_empty() && class.rsplit('.').next() != Some(selector) =>
        {
            Some("can only be org.apache.kafka.common.replica.RackAwareReplicaSelector")
        }
        _ => None,
    }
}

/// Why the setting cannot be changed, if it cannot.
pub(super) fn refusal(name: &str) -> Option<&'static str> {
    if OWNED.contains(&name) {
        return Some("is set by broker-lite itself");
    }
    let missing = MISSING_NAMES.contains(&name) || MISSING.iter().any(|prefix| name.starts_with(prefix));
    (missing && !name.starts_with(HARMLESS)).then_some("is not supported yet")
}

/// What broker-lite acts on; everything else that is not refused is kept and shown, and changes nothing.
pub(super) const ACTED_ON: &[&str] = &[
    "auto.create.topics.enable",
    "auto.leader.rebalance.enable",
    "broker.heartbeat.interval.ms",
    "broker.session.timeout.ms",
    "cleanup.policy",
    "compression.gzip.level",
    "compression.type",
    "compression.zstd.level",
    "connections.max.idle.ms",
    "controller.quorum.append.linger.ms",
    "controller.quorum.election.backoff.max.ms",
    "controller.quorum.election.timeout.ms",
    "controller.quorum.fetch.timeout.ms",
    "controller.quorum.request.timeout.ms",
    "controller.quorum.retry.backoff.ms",
    "default.replication.factor",
    "delete.retention.ms",
    "delete.topic.enable",
    "fetch.max.bytes",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.rate",
    "follower.replication.throttled.replicas",
    "group.initial.rebalance.delay.ms",
    "group.max.session.timeout.ms",
    "group.max.size",
    "group.min.session.timeout.ms",
    "index.interval.bytes",
    "leader.imbalance.check.interval.seconds",
    "leader.replication.throttled.rate",
    "leader.replication.throttled.replicas",
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.delete.retention.ms",
    "log.cleaner.enable",
    "log.cleaner.max.compaction.lag.ms",
    "log.cleaner.min.cleanable.ratio",
    "log.cleaner.min.compaction.lag.ms",
    "log.cleanup.policy",
    "log.flush.interval.messages",
    "log.flush.interval.ms",
    "log.flush.scheduler.interval.ms",
    "log.index.interval.bytes",
    "log.message.timestamp.after.max.ms",
    "log.message.timestamp.before.max.ms",
    "log.message.timestamp.type",
    "log.retention.bytes",
    "log.retention.check.interval.ms",
    "log.retention.hours",
    "log.retention.minutes",
    "log.retention.ms",
    "log.roll.hours",
    "log.roll.jitter.hours",
    "log.roll.jitter.ms",
    "log.roll.ms",
    "log.segment.bytes",
    "log.segment.delete.delay.ms",
    "max.compaction.lag.ms",
    "max.connections",
    "max.incremental.fetch.session.cache.slots",
    "max.message.bytes",
    "message.max.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "metadata.log.max.record.bytes.between.snapshots",
    "metadata.log.max.snapshot.interval.ms",
    "metadata.log.segment.bytes",
    "metadata.log.segment.ms",
    "metadata.max.idle.interval.ms",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "num.partitions",
    "offset.metadata.max.bytes",
    "offsets.commit.timeout.ms",
    "offsets.retention.check.interval.ms",
    "offsets.retention.minutes",
    "offsets.topic.compression.codec",
    "offsets.topic.num.partitions",
    "offsets.topic.replication.factor",
    "offsets.topic.segment.bytes",
    "producer.id.expiration.ms",
    "queued.max.requests",
    "replica.fetch.backoff.ms",
    "replica.fetch.max.bytes",
    "replica.fetch.min.bytes",
    "replica.fetch.response.max.bytes",
    "replica.fetch.wait.max.ms",
    "replica.high.watermark.checkpoint.interval.ms",
    "replica.lag.time.max.ms",
    "replica.selector.class",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "socket.request.max.bytes",
    "unclean.leader.election.enable",
];
