//! Produce: what is taken, what is refused, and how.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

const NOBODYS: &str = "00112233445566778899aabbccddeeff";

/// One request with batches for partitions of one topic, by name and, where ids are used, by id.
fn write(topic: &str, partitions: &[(i32, Value)]) -> Value {
    with_acks(-1, topic, partitions)
}

fn with_acks(acks: i16, topic: &str, partitions: &[(i32, Value)]) -> Value {
    let partitions: Vec<_> =
        partitions.iter().map(|(index, batches)| json!({ "Index": index, "Records": batches })).collect();
    let id = if topic == "unheard-of" { NOBODYS.to_owned() } else { format!("$id:{topic}") };
    let topic = json!({ "Name": topic, "TopicId": id, "PartitionData": partitions });
    json!({ "Acks": acks, "TimeoutMs": 10_000, "TopicData": [topic] })
}

fn batch(records: &[&str]) -> Value {
    json!([{ "records": records }])
}

/// Adds to a batch's fields.
fn odd(extra: Value) -> Value {
    let mut batch = json!({ "records": ["a", "b"] });
    if let (Value::Object(batch), Value::Object(extra)) = (&mut batch, extra) {
        batch.extend(extra);
    }
    json!([batch])
}

fn of_producer(epoch: i64, sequence: i64) -> Value {
    odd(json!({ "producer_id": "$pid", "producer_epoch": epoch, "sequence": sequence }))
}

fn produce(about: &str) -> Case {
    case(0, about)
        .unordered("Responses.PartitionResponses", "Index")
        .vague("Responses.PartitionResponses.BaseOffset", "some offset")
}

/// A case with a topic of its own, `TOPIC-{v}`, with one partition led by broker 1, and a producer id.
fn idempotent(about: &str, topic: &str) -> Case {
    produce(about)
        .topic(&format!("{topic}-{{v}}"), &[&[1]])
        .first(1, 22, 4, json!({ "TransactionalId": null, "TransactionTimeoutMs": 60_000 }))
        .keep("pid", "ProducerId")
}

pub(crate) fn cases() -> Vec<Case> {
    let refused = |about: &str, batches: Value| produce(about).ask(write("refusing", &[(0, batches)]));
    vec![
        produce("records are taken with each acks")
            .topic("taken-{v}", &[&[1]])
            .ask(with_acks(-1, "taken-{v}", &[(0, batch(&["a", "b"]))]))
            .ask(with_acks(1, "taken-{v}", &[(0, batch(&["c"]))]))
            .ask(write("taken-{v}", &[(0, json!([{ "records": [["k", "v"]] }]))])),
        produce("partitions of other leaders")
            .ask(write("orders", &[(1, batch(&["a"])), (2, batch(&["a"]))]))
            .ask_of(3, with_acks(1, "orders", &[(0, batch(&["a"]))])),
        produce("unknown partitions").ask(write("orders", &[(3, batch(&["a"])), (-1, batch(&["a"]))])),
        produce("an unknown topic").ask(write("unheard-of", &[(0, batch(&["a"]))])),
        produce("no topics").ask(json!({ "Acks": -1, "TimeoutMs": 1000, "TopicData": [] })),
        produce("no partitions").ask(write("orders", &[])),
        produce("a partition twice")
            .topic("twice-{v}", &[&[1]])
            .ask(write("twice-{v}", &[(0, batch(&["a"])), (0, batch(&["b"]))])),
        produce("acks that mean nothing").ask(with_acks(2, "orders", &[(0, batch(&["a"]))])).ask(with_acks(
            -2,
            "orders",
            &[(0, batch(&["a"])), (7, batch(&["a"]))],
        )),
        produce("a transactional id and a batch without one").ask({
            let mut body = write("orders", &[(0, batch(&["a"]))]);
            body["TransactionalId"] = json!("tx");
            body
        }),
        produce("topics of the cluster's own")
            .ask(write("__cluster_metadata", &[(0, batch(&["a"]))]))
            .versions(3..=12),
        // One version is enough: Kafka says nothing for ever.
        refused("null instead of records", Value::Null).versions(9..=9),
        refused("no records", json!([])),
        refused("two batches", json!([{ "records": ["a"] }, { "records": ["b"] }])),
        refused("a batch without records", json!([{ "records": [] }])),
        refused("a wrong checksum", odd(json!({ "crc": 1 }))),
        refused("a batch that is cut", odd(json!({ "cut": 3 }))),
        refused("a batch shorter than a header", odd(json!({ "cut": 40 }))),
        refused("a batch that says it is longer", odd(json!({ "length": 5 }))),
        refused("a batch that says it is shorter", odd(json!({ "length": -5 }))),
        refused("a batch of no length", odd(json!({ "length": -90 }))),
        refused("magic 1", odd(json!({ "magic": 1 }))),
        refused("magic 3", odd(json!({ "magic": 3 }))),
        refused("more records announced than there are", odd(json!({ "count": 3 }))),
        refused("fewer records announced than there are", odd(json!({ "count": 1 }))),
        refused("a negative count", odd(json!({ "count": -1 }))),
        refused("a last offset that is too large", odd(json!({ "last_offset_delta": 5 }))),
        refused("a control batch", odd(json!({ "attributes": 0x20 }))),
        refused("a transactional batch without a producer", odd(json!({ "attributes": 0x10 }))),
        refused("an unknown compression", odd(json!({ "attributes": 7 }))),
        refused("gzip that is none", odd(json!({ "attributes": 1 }))),
        refused("snappy that is none", odd(json!({ "attributes": 2 }))),
        refused("lz4 that is none", odd(json!({ "attributes": 3 }))),
        refused("zstd that is none", odd(json!({ "attributes": 4 }))),
        refused("a base offset", odd(json!({ "base_offset": 17 }))),
        refused("a leader epoch of its own", odd(json!({ "leader_epoch": 5 }))),
        refused("a negative timestamp", odd(json!({ "first_timestamp": -5, "max_timestamp": -5 }))),
        refused("a timestamp in the far future", odd(json!({ "first_timestamp": 95_617_584_000_000_i64 }))),
        refused("a sequence without a producer", odd(json!({ "sequence": 0 }))),
        produce("a record larger than a topic takes")
            .topic_with("narrow-{v}", &[&[1]], &[("max.message.bytes", "200")])
            .ask(write("narrow-{v}", &[(0, batch(&[&"x".repeat(300)]))]))
            .ask(write("narrow-{v}", &[(0, batch(&["fits"]))])),
        produce("the broker's time")
            .topic_with("timed-{v}", &[&[1]], &[("message.timestamp.type", "LogAppendTime")])
            .ask(write("timed-{v}", &[(0, batch(&["a"]))]))
            .vague("Responses.PartitionResponses.LogAppendTimeMs", "some time"),
        produce("a compacted topic takes no records without keys")
            .topic_with("keyed-{v}", &[&[1]], &[("cleanup.policy", "compact")])
            .ask(write("keyed-{v}", &[(0, batch(&["a", "b"]))]))
            .ask(write("keyed-{v}", &[(0, json!([{ "records": [["k", "v"], "w"] }]))]))
            .ask(write("keyed-{v}", &[(0, json!([{ "records": [["k", "v"]] }]))])),
        produce("fewer replicas than min.insync.replicas")
            .topic_with("lonely-{v}", &[&[1]], &[("min.insync.replicas", "2")])
            .ask(write("lonely-{v}", &[(0, batch(&["a"]))]))
            .ask(with_acks(1, "lonely-{v}", &[(0, batch(&["a"]))])),
        idempotent("sequences in order, a repetition, a gap", "sequenced")
            .ask(write("sequenced-{v}", &[(0, of_producer(0, 0))]))
            .ask(write("sequenced-{v}", &[(0, of_producer(0, 2))]))
            .ask(write("sequenced-{v}", &[(0, of_producer(0, 0))]))
            .ask(write("sequenced-{v}", &[(0, of_producer(0, 7))]))
            .ask(write("sequenced-{v}", &[(0, of_producer(0, 1))])),
        idempotent("a sequence that does not begin at 0", "begun")
            .ask(write("begun-{v}", &[(0, of_producer(0, 5))]))
            .ask(write("begun-{v}", &[(0, of_producer(0, 7))])),
        idempotent("epochs of a producer", "epochs")
            .ask(write("epochs-{v}", &[(0, of_producer(1, 0))]))
            .ask(write("epochs-{v}", &[(0, of_producer(0, 2))]))
            .ask(write("epochs-{v}", &[(0, of_producer(2, 2))]))
            .ask(write("epochs-{v}", &[(0, of_producer(2, 0))])),
        idempotent("a negative sequence and epoch", "negative")
            .ask(write("negative-{v}", &[(0, of_producer(0, -1))]))
            .ask(write("negative-{v}", &[(0, of_producer(-1, 0))])),
        idempotent("two batches of one producer in a request", "double").ask(write(
            "double-{v}",
            &[(
                0,
                json!([
                    { "records": ["a"], "producer_id": "$pid", "producer_epoch": 0, "sequence": 0 },
                    { "records": ["b"], "producer_id": "$pid", "producer_epoch": 0, "sequence": 1 },
                ]),
            )],
        )),
        produce("a producer id that nobody gave out").topic("foreign-{v}", &[&[1]]).ask(write(
            "foreign-{v}",
            &[(
                0,
                odd(json!({
                "producer_id": 1_000_000, "producer_epoch": 3, "sequence": 4 })),
            )],
        )),
        damaged(0, write("orders", &[(9, batch(&["a"]))])),
    ]
}
