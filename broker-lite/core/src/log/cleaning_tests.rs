//! Retention and compaction.

use std::collections::BTreeMap;

use klamm_wire::batch::NO_HEADERS;
use klamm_wire::{BatchBuilder, BatchHeader, Compression, ProducerStamp, RawBatch};
use proptest::prelude::*;

use super::files::{CLEANED, SWAP};
use super::testing::{placed, plain, produced};
use super::*;
use crate::producer_state::Sequence;
use crate::storage::{FileId, MemoryDirectory};

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

/// Keys are never this many here.
const KEYS: usize = 1 << 20;

fn limits(wall_ms: i64, high_watermark: i64) -> CleaningLimits {
    CleaningLimits { wall_ms, high_watermark, key_memory_bytes: KEYS, decompression_limit_bytes: LIMIT }
}

fn sync<D: Directory>(log: &mut Log<D>) {
    let syncing = log.begin_sync().unwrap();
    log.end_sync(&syncing).unwrap();
}

/// A compaction from its beginning to its end, as its driver does it.
fn compact<D: Directory>(log: &mut Log<D>, limits: CleaningLimits) -> Result<Option<Compacted>, LogError> {
    let Some(mut cleaning) = log.begin_cleaning(limits)? else { return Ok(None) };
    loop {
        while cleaning.step(500)? {}
        match log.go_on_cleaning(&mut cleaning)? {
            NextInCleaning::Step => {}
            NextInCleaning::GivenUp => panic!("nobody has cut it"),
            NextInCleaning::Done(done) => {
                let unsynced = log.begin_cleaned_sync();
                log.end_cleaning(&unsynced)?;
                return Ok(Some(done));
            }
        }
    }
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
        key_memory_bytes in prop_oneof![Just(KEYS), 1usize..400],
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
        sync(&mut log);
        let bounded = |wall_ms| CleaningLimits { key_memory_bytes, ..limits(wall_ms, high_watermark) };
        compact(&mut log, bounded(NOW)).unwrap();
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
        let later = NOW + log.settings.delete_retention_ms;
        while compact(&mut log, bounded(later)).unwrap().is_some() {}
        prop_assert!(log.cleaned_until >= until);
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
        sync(&mut log);
        compact(&mut log, limits(NOW, end)).unwrap();
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
    sync(&mut log);
    compact(&mut log, limits(NOW, 3)).unwrap();
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
    assert_eq!(compact(&mut log, limits(1_250, 4)).unwrap(), None, "not durable");
    sync(&mut log);
    assert_eq!(compact(&mut log, limits(600, 4)).unwrap(), None, "too young");
    let first = compact(&mut log, limits(1_250, 4)).unwrap().unwrap();
    assert!(first.segments > 0);
    assert_eq!(log.cleaned_until, 2, "the third is too young");
    for time in [2_000, 2_100] {
        write(&mut log, time);
    }
    sync(&mut log);
    assert_eq!(compact(&mut log, limits(4_000, 3)).unwrap(), None, "half is not more than half");
    log.settings.min_cleanable_dirty_millionths = 499_999;
    assert!(compact(&mut log, limits(4_000, 3)).unwrap().is_some());
    let again = compact(&mut log, limits(4_000, 3)).unwrap();
    assert_eq!(again, None, "nothing is dirty below the high watermark");
    assert_eq!(compact(&mut log, limits(NOW, 0)).unwrap(), None);
}

/// Goal: memory for keys is bounded, within a segment too, and what it has not reached is cleaned the next time.
#[test]
fn compaction_reaches_as_far_as_its_memory_and_goes_on_there() {
    let mut log = log(compacting(1 << 20), true);
    let mut sequences = [0; 3];
    for round in 0..4 {
        for key in 0..50 {
            let batch = Batch { pairs: vec![(key, Some(round))], producer: None, packed: false };
            push(&mut log, &encoded(&batch, &mut sequences, 1));
        }
    }
    log.roll(log.end_offset()).unwrap();
    sync(&mut log);
    let end = log.end_offset();
    let before = table(&held(&log));
    let small = CleaningLimits { key_memory_bytes: 20 * 65, ..limits(NOW, end) };
    let mut reached = Vec::new();
    while let Some(done) = compact(&mut log, small).unwrap() {
        reached.push(done.until);
        assert_eq!(table(&held(&log)), before);
    }
    assert!(reached.len() > 5 && reached.is_sorted() && reached[0] < 50, "{reached:?}");
    assert_eq!((reached.last(), log.cleaned_until), (Some(&end), end));
    assert_eq!(held(&log).len(), 50, "of each key one record is left");
    assert_eq!(log.verify(), []);
}

/// Overtaken records in three segments, committed and durable, and an active one.
fn dirty(derived: bool) -> Log<MemoryDirectory> {
    let written = [(1, Some(1)), (2, Some(1)), (1, Some(2)), (3, None), (2, Some(3)), (1, Some(4))];
    let pairs = written.map(|(key, value)| [(key, value), (key + 3, Some(9))]);
    dirty_with(compacting(1), derived, &pairs)
}

fn dirty_with(settings: LogSettings, derived: bool, written: &[[Pair; 2]]) -> Log<MemoryDirectory> {
    let mut log = log(settings, derived);
    let mut sequences = [0; 3];
    for pairs in written {
        let pairs = pairs.to_vec();
        push(&mut log, &encoded(&Batch { pairs, producer: Some(1), packed: false }, &mut sequences, 1));
    }
    sync(&mut log);
    log.checkpoint(log.end_offset()).unwrap();
    log
}

fn half_done(names: &[String]) -> Vec<&String> {
    names.iter().filter(|name| name.ends_with(CLEANED) || name.ends_with(SWAP)).collect()
}

/// Goal: whoever cuts the log, deletes from it or gives up wins over a compaction, at whichever step that is.
#[test]
fn a_log_that_is_cut_while_it_is_compacted_stays_as_it_was_cut() {
    for steps in 0..40 {
        for restarts in [false, true] {
            let mut log = dirty(true);
            let end = log.end_offset();
            let mut cleaning = log.begin_cleaning(limits(NOW, end)).unwrap().unwrap();
            let mut done = false;
            for _ in 0..steps {
                if !cleaning.step(1).unwrap() {
                    done |= matches!(log.go_on_cleaning(&mut cleaning).unwrap(), NextInCleaning::Done(_));
                }
                if done {
                    break;
                }
            }
            if restarts {
                log.restart_at(3).unwrap();
            } else {
                log.truncate_to(6).unwrap();
                // what is written now looks the same from outside
                push(&mut log, &plain(4));
                push(&mut log, &plain(2));
                assert_eq!(log.end_offset(), end);
            }
            let cut = crate::log::content(&mut log.directory).unwrap();
            if !done {
                // It may read what is there no more, and fail.
                while cleaning.step(1_000).unwrap_or(false) {}
                assert_eq!(log.go_on_cleaning(&mut cleaning).unwrap(), NextInCleaning::GivenUp);
                assert!(log.cleaned_until <= 6);
            }
            assert_eq!(half_done(&log.directory.names().unwrap()), Vec::<&String>::new());
            assert_eq!(crate::log::content(&mut log.directory).unwrap(), cut);
            assert_eq!(log.verify(), []);
            reopen(log);
        }
    }
}

#[test]
fn segments_that_are_deleted_while_a_log_is_compacted_do_not_come_back() {
    for steps in 0..40 {
        let mut log = dirty(true);
        let mut cleaning = log.begin_cleaning(limits(NOW, log.end_offset())).unwrap().unwrap();
        for _ in 0..steps {
            if !cleaning.step(1).unwrap()
                && log.go_on_cleaning(&mut cleaning).unwrap() != NextInCleaning::Step
            {
                break;
            }
        }
        log.advance_start(5).unwrap();
        let left = table(&held(&log));
        loop {
            while cleaning.step(1_000).unwrap() {}
            if log.go_on_cleaning(&mut cleaning).unwrap() != NextInCleaning::Step {
                break;
            }
        }
        assert!(log.segments.first().is_some_and(|first| first.base >= 2), "after {steps} steps");
        assert_eq!((table(&held(&log)), log.verify()), (left, vec![]));
        assert_eq!(half_done(&log.directory.names().unwrap()), Vec::<&String>::new());
        reopen(log);
    }
}

/// A directory whose owner dies after so many changes.
#[derive(Debug)]
struct Mortal {
    inner: MemoryDirectory,
    left: usize,
}

impl Mortal {
    fn live(&mut self) -> Result<&mut MemoryDirectory, StorageError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| StorageError::Failed("dead".into()))?;
        Ok(&mut self.inner)
    }
}

impl Directory for Mortal {
    type Aside = crate::storage::MemoryAside;

    fn names(&self) -> Result<Vec<String>, StorageError> {
        self.inner.names()
    }
    fn open(&mut self, name: &str) -> Result<FileId, StorageError> {
        self.inner.open(name)
    }
    fn create(&mut self, name: &str) -> Result<FileId, StorageError> {
        self.live()?.create(name)
    }
    fn set_lazy(&mut self, file: FileId, lazy: bool) {
        self.inner.set_lazy(file, lazy);
    }
    fn size(&self, file: FileId) -> u64 {
        self.inner.size(file)
    }
    fn synced_len(&self, file: FileId) -> u64 {
        self.inner.synced_len(file)
    }
    fn append(&mut self, file: FileId, chunks: &[Bytes]) -> Result<u64, StorageError> {
        self.live()?.append(file, chunks)
    }
    fn read(&self, file: FileId, at: u64, len: usize, out: &mut Vec<Bytes>) -> Result<(), StorageError> {
        self.inner.read(file, at, len, out)
    }
    fn read_exact(&self, file: FileId, position: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.inner.read_exact(file, position, buf)
    }
    fn aside(&self, file: FileId) -> Result<Self::Aside, StorageError> {
        self.inner.aside(file)
    }
    fn take_back(&mut self, file: FileId, aside: Self::Aside) -> Result<(), StorageError> {
        self.live()?.take_back(file, aside)
    }
    fn set_len(&mut self, file: FileId, len: u64) -> Result<(), StorageError> {
        self.live()?.set_len(file, len)
    }
    fn rename(&mut self, from: &str, to: &str) -> Result<(), StorageError> {
        self.live()?.rename(from, to)
    }
    fn remove(&mut self, name: &str) -> Result<(), StorageError> {
        self.live()?.remove(name)
    }
    fn replace_later(&mut self, name: &str, content: Bytes) -> Result<(), StorageError> {
        self.live()?.replace_later(name, content)
    }
    fn begin_sync(&mut self) -> Unsynced {
        self.inner.begin_sync()
    }
    fn mark_synced(&mut self, done: &Unsynced) -> Result<(), StorageError> {
        self.live()?.mark_synced(done)
    }
    fn sync_now(&mut self) -> Result<(), StorageError> {
        self.live()?.sync_now()
    }
    fn checkpoint(&self) -> Checkpoint {
        self.inner.checkpoint()
    }
    fn set_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StorageError> {
        self.live()?.set_checkpoint(checkpoint)
    }
    fn cleaned_until(&self) -> i64 {
        self.inner.cleaned_until()
    }
    fn set_cleaned_until(&mut self, offset: i64) {
        if self.live().is_ok() {
            self.inner.set_cleaned_until(offset);
        }
    }
    fn was_closed(&self) -> bool {
        self.inner.was_closed()
    }
    fn keeps_derived(&self) -> bool {
        self.inner.keeps_derived()
    }
}

/// Goal: a process that dies, or loses its power, at any step of a compaction leaves a log that reads
/// the same.
#[test]
fn a_death_at_any_step_of_a_compaction_loses_nothing() {
    // Three batches a segment, and an entry in its index for each. Of the first one so little goes that the old index could
    // pass, by its size, for that of the new segment.
    let written: Vec<[Pair; 2]> =
        [1, 2, 3, 1, 5, 6, 7].iter().zip(20..).map(|(key, other)| [(*key, Some(1)), (other, None)]).collect();
    let settings = LogSettings { index_interval_bytes: 1, ..compacting(450) };
    let mut deaths = 0;
    for derived in [true, false] {
        for power in [None, Some(0), Some(1)] {
            for left in 0.. {
                let whole = dirty_with(settings.clone(), derived, &written);
                let (end, before) = (whole.end_offset(), table(&held(&whole)));
                let (mut log, _) =
                    Log::open(Mortal { inner: whole.into_directory(), left: 1_000 }, settings.clone())
                        .unwrap();
                sync(&mut log);
                log.directory.left = left;
                let lived = compact(&mut log, limits(NOW, end)).is_ok() && log.directory.left > 0;
                let mut inner = log.into_directory().inner;
                if let Some(kept) = power {
                    inner.power_off_torn(&mut |_| kept);
                }
                let log = reopen(Log::open(inner, settings.clone()).unwrap().0);
                assert_eq!(
                    (log.end_offset(), table(&held(&log))),
                    (end, before),
                    "{derived} {power:?} {left}"
                );
                assert_eq!(half_done(&log.directory.names().unwrap()), Vec::<&String>::new());
                assert_eq!(log.verify(), []);
                for offset in 0..end {
                    let bytes = crate::storage::joined(log.read(offset, end, 1, true).unwrap());
                    let first = *RawBatch::parse(bytes).unwrap().header();
                    assert!(first.next_offset() > offset);
                }
                if lived {
                    break;
                }
                deaths += 1;
            }
        }
    }
    assert!(deaths > 40, "{deaths}");
}

#[test]
fn how_far_a_log_is_compacted_outlives_its_process_and_ends_where_it_is_cut() {
    let mut log = dirty(true);
    let end = log.end_offset();
    let done = compact(&mut log, limits(NOW, end)).unwrap().unwrap();
    assert_eq!((done.until, log.directory.cleaned_until()), (10, 10));
    let mut log = reopen(log);
    assert_eq!(log.verify(), [], "it knows that it has gaps");
    assert_eq!(compact(&mut log, limits(NOW, end)).unwrap(), None, "nothing is dirty");
    log.truncate_to(5).unwrap();
    assert_eq!(log.directory.cleaned_until(), log.end_offset());
    log.restart_at(20).unwrap();
    assert_eq!((log.directory.cleaned_until(), log.cleaned_until), (0, 0));
}

/// Goal: what Kafka leaves when it dies while it swaps is taken as Kafka takes it.
#[test]
fn a_swap_that_kafka_left_half_done_is_completed_or_undone() {
    for undone in [false, true] {
        let mut log = dirty(true);
        let (end, before) = (log.end_offset(), held(&log));
        let merged: Vec<Bytes> = (0..3)
            .map(|number| {
                let name = files::of_offset(number * 2, files::LOG);
                crate::storage::read_file(&mut log.directory, &name).unwrap()
            })
            .collect();
        let mut directory = log.into_directory();
        let file = directory.create("00000000000000000000.log.swap").unwrap();
        directory.append(file, &merged).unwrap();
        directory.create("00000000000000000000.timeindex.swap").unwrap();
        if undone {
            directory.create("00000000000000000000.index.cleaned").unwrap();
        }
        let (log, damage) = Log::open(directory, compacting(1)).unwrap();
        let log = reopen(log);
        assert_eq!((damage, log.end_offset(), held(&log)), (None, end, before));
        assert_eq!(log.segments.len(), if undone { 6 } else { 4 });
        assert_eq!(half_done(&log.directory.names().unwrap()), Vec::<&String>::new());
    }
}
