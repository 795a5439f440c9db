use super::testing::{idempotent, placed, plain, produced};
use super::*;
use crate::storage::{MemoryDirectory, joined};
use klamm_wire::{BatchError, Compression, ProducerStamp, RawBatch};
use proptest::prelude::*;

const FIRST: &str = "00000000000000000000.log";

fn empty() -> Log<MemoryDirectory> {
    Log::open(MemoryDirectory::new(), LogSettings::default()).unwrap().0
}

fn push(log: &mut Log<MemoryDirectory>, batch: &Bytes, epoch: i32) {
    let (header, chunks) = placed(batch, log.end_offset(), epoch);
    log.append(&header, &chunks).unwrap();
}

/// A log of `batches` batches of `count` records each, all of epoch 0.
fn filled(batches: usize, count: usize) -> Log<MemoryDirectory> {
    let mut log = empty();
    for _ in 0..batches {
        push(&mut log, &plain(count), 0);
    }
    log
}

fn offsets(chunks: Vec<Bytes>) -> Vec<i64> {
    let mut rest = joined(chunks);
    let mut offsets = Vec::new();
    while let Some(batch) = RawBatch::split(&mut rest) {
        offsets.push(batch.unwrap().header().base_offset);
    }
    assert!(rest.is_empty(), "only whole batches");
    offsets
}

fn reopen(log: Log<MemoryDirectory>) -> (Log<MemoryDirectory>, Option<Damage>) {
    let settings = log.settings.clone();
    Log::open(log.into_directory(), settings).unwrap()
}

/// Everything derived, for comparison.
fn derived(log: &Log<MemoryDirectory>) -> (i64, i64, EpochCache, ProducerStates) {
    (log.start_offset(), log.end_offset(), log.epochs().clone(), log.producers().clone())
}

#[test]
fn a_read_begins_with_the_batch_that_holds_the_offset() {
    let log = filled(3, 10);
    let size = plain(10).len();
    assert_eq!(offsets(log.read(15, 30, usize::MAX, false).unwrap()), [10, 20]);
    assert_eq!(offsets(log.read(0, 30, 2 * size, false).unwrap()), [0, 10]);
    assert_eq!(offsets(log.read(0, 30, 2 * size - 1, false).unwrap()), [0]);
    assert_eq!(offsets(log.read(0, 30, size - 1, false).unwrap()), [0i64; 0]);
    assert_eq!(offsets(log.read(0, 30, 0, true).unwrap()), [0], "one batch comes in any case (KIP-74)");
    assert_eq!(offsets(log.read(0, 20, usize::MAX, true).unwrap()), [0, 10], "not beyond the limit");
    assert_eq!(offsets(log.read(10, 10, usize::MAX, true).unwrap()), [0i64; 0]);
    assert_eq!(offsets(log.read(30, 30, usize::MAX, true).unwrap()), [0i64; 0]);
}

#[test]
fn a_read_outside_the_log_is_out_of_range() {
    let mut log = filled(3, 10);
    assert_eq!(log.read(31, 31, 1, true), Err(LogError::OutOfRange { offset: 31, start: 0, end: 30 }));
    log.advance_start(15).unwrap();
    assert_eq!(log.read(14, 30, 1, true), Err(LogError::OutOfRange { offset: 14, start: 15, end: 30 }));
    assert_eq!(offsets(log.read(15, 30, usize::MAX, true).unwrap()), [10, 20]);
}

#[test]
fn only_a_batch_that_continues_the_log_is_appended() {
    let mut log = filled(1, 10);
    let (header, chunks) = placed(&plain(1), 9, 0);
    assert!(matches!(log.append(&header, &chunks), Err(LogError::NotNext { offset: 9, end: 10, .. })));
    log.begin_epoch(3);
    let (header, chunks) = placed(&plain(1), 10, 2);
    assert!(matches!(log.append(&header, &chunks), Err(LogError::NotNext { epoch: 2, last_epoch: 3, .. })));
    assert_eq!(log.end_offset(), 10);
}

/// Goal: a truncation never leaves half a batch, nor an epoch or a producer's batch that is not there.
#[test]
fn truncation_takes_back_whole_batches_and_what_was_derived_from_them() {
    let mut log = empty();
    push(&mut log, &idempotent(1, 0, 0, &[b"a", b"b"]), 1);
    let short = derived(&log);
    push(&mut log, &idempotent(1, 0, 2, &[b"c", b"d"]), 2);
    push(&mut log, &idempotent(2, 0, 0, &[b"e"]), 2);
    assert!(log.truncate_to(3).unwrap());
    assert_eq!(derived(&log), short);
    assert_eq!(log.verify(), []);
    assert!(!log.truncate_to(5).unwrap());
}

#[test]
fn truncating_at_the_end_forgets_an_epoch_that_wrote_nothing() {
    let mut log = filled(1, 10);
    log.begin_epoch(5);
    assert_eq!(log.epochs().latest(), Some(5));
    assert!(!log.truncate_to(10).unwrap());
    assert_eq!(log.epochs().latest(), Some(0));
}

#[test]
fn a_log_that_gave_up_its_beginning_is_the_same_when_opened_again() {
    let mut log = empty();
    log.set_settings(LogSettings { segment_bytes: 2_000, ..LogSettings::default() });
    (0..300).for_each(|_| push(&mut log, &plain(10), 0));
    push(&mut log, &plain(10), 4);
    let whole = log.len_bytes();
    log.advance_start(2_995).unwrap();
    assert!(log.len_bytes() < whole / 10);
    let before = derived(&log);
    let (mut log, damage) = reopen(log);
    assert_eq!((damage, derived(&log)), (None, before));
    log.restart_at(9_000).unwrap();
    let (log, _) = reopen(log);
    assert_eq!((log.start_offset(), log.end_offset()), (9_000, 9_000));
}

/// Goal: recovery stops at the first bad CRC, and says why.
#[test]
fn opening_cuts_the_log_at_the_first_damaged_batch() {
    let mut log = filled(5, 10);
    let size = plain(10).len() as u64;
    log.directory_mut().corrupt_byte(FIRST, 2 * size + 100).unwrap();
    let (log, damage) = reopen(log);
    assert_eq!(log.end_offset(), 20);
    assert_eq!(log.len_bytes(), 2 * size);
    let damage = damage.unwrap();
    assert_eq!((damage.position, damage.offset), (2 * size, 20));
    assert!(matches!(damage.cause, Cause::Batch(BatchError::Crc { .. })));
    assert_eq!(log.verify(), []);
}

#[test]
fn opening_cuts_a_torn_tail() {
    let mut log = filled(2, 10);
    let size = plain(10).len() as u64;
    let file = log.directory_mut().open(FIRST).unwrap();
    log.directory_mut().set_len(file, 2 * size - 1).unwrap();
    let (log, damage) = reopen(log);
    assert_eq!((log.end_offset(), log.len_bytes()), (10, size));
    assert!(matches!(damage.unwrap().cause, Cause::Batch(BatchError::Truncated { .. })));
}

/// Goal: `check()` of the cluster sees every flipped byte, in headers too.
/// What a process finds whose log keeps files beside its segments; `true`: after a shutdown in order.
fn kept(mut log: Log<MemoryDirectory>, in_order: bool) -> Log<MemoryDirectory> {
    if in_order {
        log.close().unwrap();
        log.checkpoint(0).unwrap();
        log.directory_mut().sync_now().unwrap();
    }
    let settings = log.settings.clone();
    let mut directory = log.into_directory();
    directory.set_closed(in_order);
    let (log, damage) = Log::open(directory, settings).unwrap();
    assert_eq!((damage, log.verify()), (None, vec![]));
    log
}

fn starts(log: &Log<MemoryDirectory>) -> Vec<(i32, i64)> {
    log.epochs().entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect()
}

/// Goal: a follower is told the same ends of epochs whether its leader was stopped in order or killed. A segment holds three
/// batches, the index each of them.
#[test]
fn epochs_outlive_a_shutdown_in_order_and_a_kill() {
    let size = plain(10).len() as u64;
    let settings = LogSettings { segment_bytes: 3 * size, index_interval_bytes: 1, ..LogSettings::default() };
    for in_order in [true, false] {
        let mut log = Log::open(MemoryDirectory::with_derived_files(), settings.clone()).unwrap().0;
        let mut epochs = Vec::new();
        for epoch in 0..4 {
            epochs.push((epoch, log.end_offset()));
            for _ in 0..=epoch {
                push(&mut log, &plain(10), epoch);
            }
            if epoch % 2 == 0 {
                let synced = log.begin_sync().unwrap();
                log.directory_mut().sync_now().unwrap();
                log.end_sync(&synced).unwrap();
                log.checkpoint(0).unwrap();
            }
            log = kept(log, in_order);
            assert_eq!(starts(&log), epochs, "in order: {in_order}");
        }
    }
}

/// Goal: what lies before the recovery point is not looked at after a kill, so what is compacted has its epochs in their file.
#[test]
fn nothing_is_compacted_before_its_epochs_are_written_down() {
    let settings = LogSettings { segment_bytes: 1, compact: true, ..LogSettings::default() };
    let mut log = Log::open(MemoryDirectory::with_derived_files(), settings).unwrap().0;
    for epoch in [0, 2, 4] {
        push(&mut log, &idempotent(1, 0, epoch / 2, &[b"x"]), epoch);
    }
    let limits = CleaningLimits {
        wall_ms: 1_000_000,
        high_watermark: log.end_offset(),
        key_memory_bytes: 1 << 20,
        decompression_limit_bytes: 1 << 20,
    };
    assert!(log.begin_cleaning(limits).unwrap().is_none(), "nothing is durable");
    let synced = log.begin_sync().unwrap();
    log.directory_mut().sync_now().unwrap();
    log.end_sync(&synced).unwrap();
    assert!(log.begin_cleaning(limits).unwrap().is_some());
    let written = crate::storage::read_file(log.directory_mut(), LEADER_EPOCHS).unwrap();
    assert_eq!(EpochCache::decode(&written).as_ref(), Some(log.epochs()));
}

/// Goal: where the epochs' file does not know what the batches say, as of a process that had not written it, those are asked.
#[test]
fn epochs_that_the_last_batches_do_not_bear_out_are_derived_again() {
    let settings = LogSettings { index_interval_bytes: 1, ..LogSettings::default() };
    let mut log = Log::open(MemoryDirectory::with_derived_files(), settings).unwrap().0;
    for epoch in [0, 2, 4] {
        push(&mut log, &plain(10), epoch);
        push(&mut log, &plain(10), epoch);
    }
    let all = starts(&log);
    log.close().unwrap();
    log.directory_mut().sync_now().unwrap();
    let mut known = EpochCache::default();
    known.assign(0, 0);
    log.directory_mut().replace_later(LEADER_EPOCHS, known.encode()).unwrap();
    assert_eq!(starts(&kept(log, true)), all);
}

/// Goal: the segment that gets this name next does not find an index of other bytes.
#[test]
fn nothing_stays_of_the_segments_behind_a_damage() {
    let size = plain(10).len() as u64;
    let settings = LogSettings { segment_bytes: 2 * size, index_interval_bytes: 1, ..LogSettings::default() };
    let mut log = Log::open(MemoryDirectory::with_derived_files(), settings.clone()).unwrap().0;
    for _ in 0..6 {
        push(&mut log, &plain(10), 0);
    }
    let mut directory = log.into_directory();
    directory.corrupt_byte(FIRST, size + 70).unwrap();
    let (log, damage) = Log::open(directory, settings).unwrap();
    assert_eq!((damage.map(|damage| damage.offset), log.end_offset()), (Some(10), 10));
    let left = log.directory().names().unwrap();
    assert!(left.iter().all(|name| name.starts_with("00000000000000000000.")), "{left:?}");
}

#[test]
fn verify_finds_a_flip_of_any_byte() {
    let size = plain(3).len() as u64;
    for position in 0..3 * size {
        let mut log = empty();
        (0..3).for_each(|i| push(&mut log, &plain(3), i));
        assert_eq!(log.verify(), []);
        log.directory_mut().corrupt_byte(FIRST, position).unwrap();
        let damages = log.verify();
        assert!(!damages.is_empty(), "flip at {position} goes unseen");
        let batch = position / size * size;
        assert!(damages.iter().any(|damage| damage.position == batch), "{position}: {damages:?}");
    }
}

#[test]
fn time_finds_the_first_record_that_is_late_enough() {
    for codec in [Compression::None, Compression::Lz4] {
        let mut log = empty();
        for time in [100, 50, 300, 200, 400] {
            let values: Vec<&[u8]> = vec![b"0123456789"; 3];
            push(&mut log, &produced(ProducerStamp::default(), time, &values, codec), 7);
        }
        let at =
            |time, limit| log.at_timestamp(time, limit, 1 << 20).unwrap().map(|f| (f.offset, f.timestamp));
        assert_eq!(at(0, 15), Some((0, 100)));
        assert_eq!(at(101, 15), Some((1, 101)));
        assert_eq!(at(103, 15), Some((6, 300)));
        assert_eq!(at(303, 15), Some((12, 400)));
        assert_eq!(at(303, 12), None, "beyond the limit");
        assert_eq!(at(403, 15), None);
        let max = |limit| log.at_max_timestamp(limit, 1 << 20).unwrap().map(|f| (f.offset, f.leader_epoch));
        assert_eq!(max(15), Some((14, 7)));
        assert_eq!(max(12), Some((8, 7)));
        assert_eq!(max(0), None);
    }
}

#[derive(Debug, Clone)]
enum Op {
    Append { count: usize, size: usize, time: i64, producer: Option<i64> },
    Truncate(i64),
    Start(i64),
    Epoch,
    Sync,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let append = (
        1usize..5,
        prop_oneof![4 => 1usize..50, 1 => 3000usize..9000],
        0i64..1000,
        prop::option::of(0i64..3),
    );
    prop_oneof![
        12 => append.prop_map(|(count, size, time, producer)| Op::Append { count, size, time, producer }),
        2 => (0i64..100).prop_map(Op::Truncate),
        1 => (0i64..30).prop_map(Op::Start),
        1 => Just(Op::Epoch),
        1 => Just(Op::Sync),
        1 => Just(Op::Reopen),
    ]
}

/// What a log holds, as plain as can be.
#[derive(Debug, Default)]
struct Model {
    /// Base offset, next offset, bytes, max timestamp.
    batches: Vec<(i64, i64, usize, i64)>,
    start: i64,
    end: i64,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever was appended and cut, reads by offset, size and time give what a plain list of batches would, and what
    /// was derived equals what is derived when the log is opened again.
    #[test]
    fn a_log_equals_a_plain_list_of_batches(
        ops in prop::collection::vec(op(), 0..50),
        max_bytes in 0usize..30_000,
        derived in any::<bool>(),
        segment_bytes in prop_oneof![Just(1u64 << 30), Just(1), 2_000u64..20_000],
    ) {
        let directory = if derived { MemoryDirectory::with_derived_files() } else { MemoryDirectory::new() };
        let settings = LogSettings { segment_bytes, index_interval_bytes: 300, ..LogSettings::default() };
        let (mut log, mut model, mut epoch) = (Log::open(directory, settings).unwrap().0, Model::default(), 0);
        let mut sequences = [0i32; 3];
        for op in ops {
            match op {
                Op::Append { count, size, time, producer } => {
                    let value = vec![0; size];
                    let values = vec![&value[..]; count];
                    let stamp = producer.map_or(ProducerStamp::default(), |id| {
                        let base_sequence = sequences[id as usize];
                        sequences[id as usize] += count as i32;
                        ProducerStamp { producer_id: id, producer_epoch: 0, base_sequence }
                    });
                    let batch = produced(stamp, time, &values, Compression::None);
                    push(&mut log, &batch, epoch);
                    let next = model.end + count as i64;
                    model.batches.push((model.end, next, batch.len(), time + count as i64 - 1));
                    model.end = next;
                }
                Op::Truncate(back) => {
                    let to = (model.end - back).max(model.start);
                    log.truncate_to(to).unwrap();
                    model.batches.retain(|batch| batch.1 <= to);
                    model.end = model.batches.last().map_or(model.start, |batch| batch.1).max(model.start);
                }
                Op::Start(forward) => {
                    let to = (model.start + forward).min(model.end);
                    log.advance_start(to).unwrap();
                    model.start = to;
                    model.batches.retain(|batch| batch.1 > to);
                }
                Op::Epoch => epoch += 1,
                Op::Sync => {
                    let sync = log.begin_sync().unwrap();
                    log.end_sync(&sync).unwrap();
                    log.checkpoint(0).unwrap();
                    prop_assert_eq!(log.recovery_point(), model.end);
                }
                Op::Reopen => {
                    let (epochs, producers) = (log.epochs().clone(), log.producers().clone());
                    let (again, damage) = reopen(log);
                    log = again;
                    prop_assert_eq!(damage, None);
                    if !model.batches.is_empty() {
                        prop_assert_eq!(log.epochs(), &epochs);
                    }
                    // what was written before the start is remembered as long as its bytes are there
                    if model.start == 0 {
                        prop_assert_eq!(log.producers(), &producers);
                    }
                }
            }
            prop_assert_eq!(log.verify(), []);
            prop_assert_eq!((log.start_offset(), log.end_offset()), (model.start, model.end));
            for offset in [model.start, (model.start + model.end) / 2, (model.end - 1).max(model.start)] {
                let limit = (offset + model.end) / 2;
                let limit = model.batches.iter().map(|b| b.1).filter(|n| *n <= limit).max().unwrap_or(0);
                let mut room = max_bytes;
                let wanted: Vec<i64> = model
                    .batches
                    .iter()
                    .filter(|b| b.1 > offset && b.1 <= limit)
                    .take_while(|b| {
                        let fits = b.2 <= room;
                        room = room.saturating_sub(b.2);
                        fits
                    })
                    .map(|b| b.0)
                    .collect();
                prop_assert_eq!(offsets(log.read(offset, limit, max_bytes, false).unwrap()), wanted);
            }
            for time in [0, 250, 500, 900] {
                let wanted = model.batches.iter().find(|b| b.3 >= time).map(|b| b.0);
                let found = log.at_timestamp(time, model.end, 1 << 20).unwrap();
                let batch = found.and_then(|f| model.batches.iter().find(|b| b.1 > f.offset)).map(|b| b.0);
                // the record that is late enough may lie before the start, in the first batch
                let first = model.batches.first().map(|b| b.0);
                if wanted != first || first.is_none_or(|base| base >= model.start) {
                    prop_assert_eq!(batch, wanted);
                }
            }
        }
    }
}
