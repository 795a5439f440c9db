//! Retention and compaction.

use std::collections::BTreeMap;

use klamm_wire::batch::NO_HEADERS;
use klamm_wire::{BatchBuilder, BatchHeader, Compression, ProducerStamp, RawBatch};
use proptest::prelude::*;

use super::testing::{placed, plain, produced};
use super::*;
use crate::producer_state::Sequence;
use crate::storage::MemoryDirectory;

const LIMIT: usize = 1 << 20;
const NOW: i64 = 1_000_000;

fn log(settings: LogSettings, derived: bool) -> Log<MemoryDirectory> {
    let directory = if derived { MemoryDirectory::with_derived_files() } else { MemoryDirectory::new() };
    Log::open(directory, settings).unwrap().0
}

fn push(log: &mut Log<MemoryDirectory>, batch: &Bytes) {
    let (header, chunks) = placed(batch, log.end_offset(), 0);
    log.append(&header, &chunks).unwrap();
}

fn reopen(log: Log<MemoryDirectory>) -> Log<MemoryDirectory> {
    let settings = log.settings.clone();
    let (log, damage) = Log::open(log.into_directory(), settings).unwrap();
    assert_eq!(damage, None);
    log
}

// ---- retention -----------------------------------------------------------------------------------------------------

fn aged(times: &[i64], settings: &LogSettings) -> Log<MemoryDirectory> {
    let mut log = log(LogSettings { segment_bytes: 1, ..settings.clone() }, true);
    for time in times {
        push(&mut log, &produced(ProducerStamp::default(), *time, &[b"0123456789"], Compression::None));
    }
    log
}

#[test]
fn segments_go_when_their_newest_record_is_too_old() {
    let settings = LogSettings { retention_ms: Some(1_000), ..LogSettings::default() };
    let mut log = aged(&[100, 50, 200, 900, 150], &settings);
    assert!(!log.retain(1_050, 5).unwrap());
    assert!(log.retain(1_150, 5).unwrap());
    assert_eq!(log.start_offset(), 2, "only from the front");
    assert!(log.read(1, 5, 1_000, true).is_err());
    assert!(!log.retain(10_000, 2).unwrap(), "what is not committed stays");
    assert!(log.retain(10_000, 4).unwrap());
    assert_eq!((log.start_offset(), log.end_offset()), (4, 5));
    assert!(log.retain(10_000, 5).unwrap(), "the last segment, too");
    assert_eq!((log.start_offset(), log.end_offset(), log.len_bytes()), (5, 5, 0));
    let mut log = reopen(log);
    assert_eq!((log.start_offset(), log.end_offset()), (5, 5));
    push(&mut log, &plain(1));
    assert_eq!(log.verify(), []);
}

#[test]
fn the_oldest_segments_go_when_the_log_is_too_large() {
    let size = plain(1).len() as u64;
    let settings =
        LogSettings { retention_ms: None, retention_bytes: Some(3 * size), ..LogSettings::default() };
    let mut log = aged(&[1, 2, 3, 4, 5], &settings);
    assert!(log.retain(NOW, 5).unwrap());
    assert_eq!((log.start_offset(), log.len_bytes()), (2, 3 * size));
    assert!(!log.retain(NOW, 5).unwrap());
    let mut kept = aged(&[1, 2, 3, 4, 5], &LogSettings { delete: false, ..settings });
    assert!(!kept.retain(NOW, 5).unwrap());
}

#[test]
fn deleted_files_stay_until_their_delay_is_over() {
    let settings = LogSettings { retention_ms: Some(0), ..LogSettings::default() };
    let mut log = aged(&[1, 2, 3], &settings);
    let doomed = |log: &Log<MemoryDirectory>| {
        log.directory().names().unwrap().iter().filter(|name| name.ends_with(".deleted")).count()
    };
    assert!(log.retain(NOW, 2).unwrap());
    assert_eq!(doomed(&log), 6, "log and indexes of two segments");
    log.remove_doomed(Tick::from_secs(10)).unwrap();
    log.remove_doomed(Tick::from_secs(69)).unwrap();
    assert_eq!(doomed(&log), 6);
    log.remove_doomed(Tick::from_secs(70)).unwrap();
    assert_eq!(doomed(&log), 0);
}

// ---- compaction ----------------------------------------------------------------------------------------------------

/// Key, and value or none for a tombstone.
type Pair = (u8, Option<u8>);

#[derive(Debug, Clone)]
struct Batch {
    pairs: Vec<Pair>,
    producer: Option<i64>,
    packed: bool,
}

fn batch() -> impl Strategy<Value = Batch> {
    let pair = (0u8..6, prop::option::weighted(0.8, any::<u8>()));
    (prop::collection::vec(pair, 1..5), prop::option::of(0i64..3), any::<bool>())
        .prop_map(|(pairs, producer, packed)| Batch { pairs, producer, packed })
}

fn encoded(batch: &Batch, sequences: &mut [i32; 3], time: i64) -> Bytes {
    let mut builder = BatchBuilder::new(bytes::BytesMut::new());
    for (key, value) in &batch.pairs {
        let value = value.map(|value| [value; 20]);
        builder.append(time, Some(&[*key]), value.as_ref().map(|value| &value[..]), NO_HEADERS);
    }
    let stamp = batch.producer.map_or(ProducerStamp::default(), |id| {
        let base_sequence = sequences[id as usize];
        sequences[id as usize] += batch.pairs.len() as i32;
        ProducerStamp { producer_id: id, producer_epoch: 0, base_sequence }
    });
    let sealed = builder.seal(if batch.packed { Compression::Lz4 } else { Compression::None }, None).unwrap();
    [&sealed.header(stamp)[..], sealed.records()].concat().into()
}

/// Offset to timestamp, key and value.
type Held = BTreeMap<i64, (i64, u8, Option<Vec<u8>>)>;

fn held(log: &Log<MemoryDirectory>) -> Held {
    let mut held = Held::new();
    for found in log.batches() {
        let (_, batch) = found.unwrap();
        let records = batch.records(LIMIT).unwrap();
        for record in &records {
            let record = record.unwrap();
            let value = record.value.map(<[u8]>::to_vec);
            assert!(held.insert(record.offset, (record.timestamp, record.key.unwrap()[0], value)).is_none());
        }
    }
    held
}

/// What a reader who applies one record after the other ends up with.
fn table(held: &Held) -> BTreeMap<u8, Vec<u8>> {
    let mut table = BTreeMap::new();
    for (_, key, value) in held.values() {
        match value {
            Some(value) => table.insert(*key, value.clone()),
            None => table.remove(key),
        };
    }
    table
}

fn compacting(segment_bytes: u64) -> LogSettings {
    let (compact, delete) = (true, false);
    LogSettings {
        segment_bytes,
        compact,
        delete,
        min_cleanable_dirty_millionths: 0,
        ..LogSettings::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The last record of each key stays at its offset and with its time, nothing overtaken does where it was cleaned,
    /// tombstones go when their time is over, and everything else goes on as before.
    #[test]
    fn compaction_keeps_the_last_record_of_each_key(
        batches in prop::collection::vec(batch(), 0..30),
        segment_bytes in 150u64..600,
        derived in any::<bool>(),
        uncommitted in 0i64..10,
        limit in 1usize..1_000,
    ) {
        let mut log = log(compacting(segment_bytes), derived);
        let mut sequences = [0; 3];
        for (number, batch) in batches.iter().enumerate() {
            push(&mut log, &encoded(batch, &mut sequences, 500 + number as i64));
        }
        let before = held(&log);
        let high_watermark = (log.end_offset() - uncommitted).max(0);
        log.checkpoint(high_watermark).unwrap();
        let (end, producers) = (log.end_offset(), log.producers().clone());
        log.compact(NOW, high_watermark, LIMIT).unwrap();
        let until = log.cleaned_until;
        prop_assert!(until <= high_watermark);
        let after = held(&log);
        for (offset, record) in &after {
            prop_assert_eq!(before.get(offset), Some(record));
            let later = before.iter().any(|(at, later)| at > offset && *at < until && later.1 == record.1);
            prop_assert!(!later || *offset >= until, "offset {} is overtaken", offset);
        }
        for (offset, record) in &before {
            let later = before.iter().any(|(at, later)| at > offset && *at < until && later.1 == record.1);
            prop_assert!(later || after.contains_key(offset), "offset {} is missing", offset);
        }
        prop_assert_eq!(table(&after), table(&before));
        // a second one, when the tombstones' time is over
        log.cleaned_until = 0;
        log.compact(NOW + log.settings.delete_retention_ms, high_watermark, LIMIT).unwrap();
        let last = held(&log);
        prop_assert!(last.range(..until).all(|(_, record)| record.2.is_some()), "no tombstone is left");
        prop_assert_eq!(table(&last), table(&before));
        // and the log is a log
        prop_assert_eq!(log.verify(), []);
        let mut log = reopen(log);
        prop_assert_eq!((log.end_offset(), held(&log)), (end, last));
        for (id, entry) in producers.iter() {
            let known = log.producers().iter().find(|(known, _)| *known == id);
            let known = known.and_then(|(_, known)| known.batches.back());
            prop_assert_eq!(known.map(|batch| batch.last_sequence), entry.batches.back().map(|b| b.last_sequence));
        }
        // reads across the gaps, from every offset
        for offset in 0..end {
            let chunks = log.read(offset, end, limit, true).unwrap();
            let mut bytes = crate::storage::joined(chunks);
            let first = RawBatch::split(&mut bytes).map(|batch| *batch.unwrap().header());
            let wanted = log.batches().map(|found| *found.unwrap().1.header()).find(|h| h.next_offset() > offset);
            prop_assert_eq!(first, wanted);
        }
        let batch = encoded(&Batch { pairs: vec![(1, None)], producer: None, packed: false }, &mut sequences, 1);
        push(&mut log, &batch);
    }

    /// A crash at any moment of a compaction leaves a log that reads the same.
    #[test]
    fn a_loss_of_power_during_compaction_loses_nothing(
        batches in prop::collection::vec(batch(), 5..20),
        kept in prop::collection::vec(0u64..200, 8),
    ) {
        let mut log = log(compacting(200), true);
        let mut sequences = [0; 3];
        for (number, batch) in batches.iter().enumerate() {
            push(&mut log, &encoded(batch, &mut sequences, 500 + number as i64));
        }
        let before = table(&held(&log));
        let end = log.end_offset();
        log.compact(NOW, end, LIMIT).unwrap();
        let mut kept = kept.into_iter().cycle();
        let mut directory = log.into_directory();
        directory.power_off_torn(&mut |_| kept.next().unwrap());
        let (log, _) = Log::open(directory, compacting(200)).unwrap();
        prop_assert_eq!((log.end_offset(), table(&held(&log))), (end, before));
    }
}

/// Goal: the memory of what a producer wrote last outlives its records.
#[test]
fn an_overtaken_batch_stays_empty_as_long_as_it_is_the_last_of_its_producer() {
    let mut log = log(compacting(1), false);
    let mut sequences = [0; 3];
    let one = |producer| Batch { pairs: vec![(1, Some(1))], producer, packed: true };
    push(&mut log, &encoded(&one(Some(1)), &mut sequences, 1));
    push(&mut log, &encoded(&one(None), &mut sequences, 2));
    push(&mut log, &encoded(&one(None), &mut sequences, 3));
    log.compact(NOW, 3, LIMIT).unwrap();
    let headers: Vec<BatchHeader> = log.batches().map(|found| *found.unwrap().1.header()).collect();
    assert_eq!((headers[0].count, headers[0].base_offset, headers[0].producer_id), (0, 0, 1));
    let log = reopen(log);
    let next = BatchHeader { base_sequence: 1, ..headers[0] };
    assert_eq!(log.producers().check(&next), Sequence::Next);
    let gap = BatchHeader { base_sequence: 2, ..headers[0] };
    assert!(matches!(log.producers().check(&gap), Sequence::OutOfOrder { last: 0 }));
}

#[test]
fn compaction_waits_until_enough_is_dirty_or_old() {
    let settings = LogSettings {
        min_cleanable_dirty_millionths: 500_000,
        min_compaction_lag_ms: 1_000,
        max_compaction_lag_ms: 50_000,
        ..compacting(1)
    };
    let mut log = log(settings, false);
    let mut sequences = [0; 3];
    let mut write = |log: &mut Log<MemoryDirectory>, time| {
        let batch = Batch { pairs: vec![(1, Some(1))], producer: None, packed: false };
        push(log, &encoded(&batch, &mut sequences, time));
    };
    for time in [100, 200, 300, 400] {
        write(&mut log, time);
    }
    assert_eq!(log.compact(600, 4, LIMIT).unwrap(), None, "too young");
    let first = log.compact(1_250, 4, LIMIT).unwrap().unwrap();
    assert!(first.segments > 0);
    assert_eq!(log.cleaned_until, 2, "the third is too young");
    for time in [2_000, 2_100] {
        write(&mut log, time);
    }
    assert!(log.compact(4_000, 3, LIMIT).unwrap().is_some());
    assert_eq!(log.compact(4_000, 3, LIMIT).unwrap(), None, "nothing is dirty below the high watermark");
    assert_eq!(log.compact(NOW, 0, LIMIT).unwrap(), None);
}
