use super::*;

fn placed(partitioner: &impl Partitioner, key: Option<&[u8]>, partitions: i32) -> Placement {
    let record = Unplaced::new("t", partitions);
    partitioner.partition(&match key {
        Some(key) => record.with_key(key),
        None => record,
    })
}

/// Goal: programs on either side of a topic find a key in the same partition. The answers are librdkafka's own
/// (`tests/tools/librdkafka_partitions.py`).
#[test]
fn keys_land_where_librdkafka_puts_them() {
    let mut compared = std::collections::BTreeMap::<&str, u32>::new();
    for line in include_str!("librdkafka.txt").lines().filter(|line| !line.starts_with('#')) {
        let [name, key, partitions, partition] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let partitioner = Librdkafka::ALL.into_iter().find(|known| known.name() == name).unwrap();
        let hex = |at| u8::from_str_radix(&key[at..at + 2], 16).unwrap();
        let key: Vec<u8> = if key == "-" { vec![] } else { (0..key.len()).step_by(2).map(hex).collect() };
        let told = placed(&partitioner, Some(&key), partitions.parse().unwrap());
        assert_eq!(told, Placement::Partition(partition.parse().unwrap()), "{line}");
        *compared.entry(name).or_default() += 1;
    }
    assert!(compared.values().all(|count| *count > 100), "{compared:?}");
    assert_eq!(compared.len(), Librdkafka::ALL.len() - 1, "all but `random`");
}

#[test]
fn records_without_a_key_are_placed_as_the_name_says() {
    for (partitioner, null, empty) in [
        (Librdkafka::Random, Placement::Random, Placement::Random),
        (Librdkafka::Consistent, Placement::Partition(0), Placement::Partition(0)),
        (Librdkafka::ConsistentRandom, Placement::Sticky, Placement::Sticky),
        (Librdkafka::Murmur2, Placement::Partition(3), Placement::Partition(3)),
        (Librdkafka::Murmur2Random, Placement::Sticky, Placement::Partition(3)),
        (Librdkafka::Fnv1a, Placement::Partition(3), Placement::Partition(3)),
        (Librdkafka::Fnv1aRandom, Placement::Sticky, Placement::Partition(3)),
    ] {
        let told = [placed(&partitioner, None, 6), placed(&partitioner, Some(b""), 6)];
        assert_eq!(told, [null, empty], "{partitioner:?}");
    }
}

#[test]
fn round_robin_takes_turns_in_each_topic_and_skips_what_has_no_leader() {
    let robin = RoundRobin::new();
    let turn = |topic: &str, available: &[i32]| {
        robin.partition(&Unplaced::new(topic, 4).with_key(b"k").with_available(available.iter().copied()))
    };
    let a: Vec<_> = (0..5).map(|_| turn("a", &[0, 1, 2, 3])).collect();
    assert_eq!(a, [0, 1, 2, 3, 0].map(Placement::Partition));
    assert_eq!(turn("b", &[0, 1, 2, 3]), Placement::Partition(0), "each topic for itself");
    let a: Vec<_> = (0..4).map(|_| turn("a", &[1, 3])).collect();
    assert_eq!(a, [3, 1, 3, 1].map(Placement::Partition));
    let a: Vec<_> = (0..4).map(|_| turn("a", &[])).collect();
    assert_eq!(a, [1, 2, 3, 0].map(Placement::Partition), "any, if none has a leader");
}
