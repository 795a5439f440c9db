use super::*;
use proptest::prelude::*;

fn all(storage: &MemoryStorage) -> Vec<u8> {
    let mut out = Vec::new();
    let len = (storage.end() - storage.start()) as usize;
    storage.read(storage.start(), len, &mut out).unwrap();
    out.concat()
}

/// Goal: a thousand partitions without data cost next to nothing.
#[test]
fn empty_storage_holds_no_memory() {
    let storage = MemoryStorage::new();
    assert_eq!(storage.open.capacity(), 0);
    assert_eq!(storage.pieces.capacity(), 0);
}

/// Goal: a large read is a slice of what is stored, not a copy.
#[test]
fn a_large_piece_is_read_without_copying() {
    let mut storage = MemoryStorage::new();
    storage.append(&[Bytes::from(vec![7; 5000])]).unwrap();
    let mut out = Vec::new();
    storage.read(0, 5000, &mut out).unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].as_ptr(), storage.pieces[0].bytes.as_ptr());
}

/// Goal: the stored bytes are the replica's own, never those of the sender.
#[test]
fn an_append_copies_the_bytes_it_is_given() {
    let mut storage = MemoryStorage::new();
    let given = Bytes::from(vec![7; 5000]);
    storage.append(std::slice::from_ref(&given)).unwrap();
    assert_ne!(given.as_ptr(), storage.pieces[0].bytes.as_ptr());
}

/// Goal: small pieces share chunks and are handed out joined.
#[test]
fn tiny_pieces_are_joined_into_one_chunk_when_read() {
    let mut storage = MemoryStorage::new();
    for i in 0..100u8 {
        storage.append(&[Bytes::from(vec![i; 50])]).unwrap();
    }
    let mut out = Vec::new();
    storage.read(0, 5000, &mut out).unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].len(), 5000);
}

/// Goal: damage stays in this storage; a reader who already holds the bytes keeps the good ones.
#[test]
fn a_corrupted_byte_is_seen_by_later_reads_only() {
    let mut storage = MemoryStorage::new();
    storage.append(&[Bytes::from_static(b"abc")]).unwrap();
    storage.append(&[Bytes::from_static(b"def")]).unwrap();
    let mut before = Vec::new();
    storage.read(0, 6, &mut before).unwrap();
    storage.corrupt_byte(4).unwrap();
    assert_eq!(before.concat(), b"abcdef");
    assert_eq!(all(&storage), [b'a', b'b', b'c', b'd', !b'e', b'f']);
    assert!(storage.corrupt_byte(6).is_err());
}

/// Goal: a loss of power loses exactly what was not synced.
#[test]
fn power_off_cuts_to_the_synced_position() {
    let mut storage = MemoryStorage::new();
    storage.append(&[Bytes::from_static(b"abc")]).unwrap();
    storage.mark_synced(storage.end());
    storage.append(&[Bytes::from_static(b"def")]).unwrap();
    storage.power_off();
    assert_eq!(all(&storage), b"abc");
}

/// Goal: an fsync vouches for what was written when it began, not for what came while it ran.
#[test]
fn what_was_appended_after_the_sync_began_is_not_durable_by_its_end() {
    let mut storage = MemoryStorage::new();
    storage.append(&[Bytes::from_static(b"abc")]).unwrap();
    let began_at = storage.end();
    storage.append(&[Bytes::from_static(b"def")]).unwrap();
    storage.mark_synced(began_at);
    storage.power_off();
    assert_eq!(all(&storage), b"abc");
    storage.mark_synced(100);
    assert_eq!(storage.synced(), 3, "never beyond the end");
}

#[test]
fn a_torn_tail_ends_at_any_byte() {
    for kept in 0..=8 {
        let mut storage = MemoryStorage::new();
        storage.append(&[Bytes::from_static(b"abc")]).unwrap();
        storage.mark_synced(3);
        storage.append(&[Bytes::from_static(b"def")]).unwrap();
        storage.power_off_torn(kept);
        assert_eq!(all(&storage), b"abcdef"[..3 + kept.min(3) as usize]);
    }
}

#[test]
fn reading_outside_is_an_error_that_names_what_is_held() {
    let mut storage = MemoryStorage::new();
    storage.append(&[Bytes::from_static(b"abc")]).unwrap();
    let error = storage.read(1, 3, &mut Vec::new()).unwrap_err();
    assert_eq!(error, StorageError::OutOfRange { position: 1, len: 3, start: 0, end: 3 });
    assert!(storage.read(u64::MAX, 1, &mut Vec::new()).is_err());
    storage.read(3, 0, &mut Vec::new()).unwrap();
}

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<usize>),
    Truncate(u64),
    Prefix(u64),
    /// All but so many bytes.
    Sync(u64),
    PowerOff(u64),
    Corrupt(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![6 => 1usize..300, 2 => 1500usize..4000, 1 => Just(0), 1 => Just(70_000)];
    prop_oneof![
        8 => prop::collection::vec(size, 1..3).prop_map(Op::Append),
        1 => (0u64..10_000).prop_map(Op::Truncate),
        1 => (0u64..10_000).prop_map(Op::Prefix),
        1 => (0u64..100).prop_map(Op::Sync),
        1 => (0u64..100).prop_map(Op::PowerOff),
        1 => (0u64..10_000).prop_map(Op::Corrupt),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is done to it, storage holds what a plain vector would hold.
    #[test]
    fn storage_equals_a_plain_vector(ops in prop::collection::vec(op(), 0..60)) {
        let mut storage = MemoryStorage::new();
        let mut model: Vec<u8> = Vec::new();
        let mut synced = 0u64;
        for (i, op) in ops.into_iter().enumerate() {
            match op {
                Op::Append(sizes) => {
                    let chunks: Vec<Bytes> =
                        sizes.iter().map(|n| (0..*n).map(|j| (i * 31 + j) as u8).collect()).collect();
                    prop_assert_eq!(storage.append(&chunks).unwrap(), model.len() as u64);
                    model.extend(chunks.concat());
                }
                Op::Truncate(to) => {
                    storage.truncate_to(to).unwrap();
                    model.truncate(to.max(storage.start()) as usize);
                    synced = synced.min(model.len() as u64);
                }
                Op::Prefix(to) => {
                    storage.truncate_prefix(to).unwrap();
                    prop_assert!(storage.start() <= to.min(model.len() as u64) || storage.start() <= storage.end());
                    synced = synced.max(storage.start());
                }
                Op::Sync(but) => {
                    let upto = (model.len() as u64).saturating_sub(but);
                    storage.mark_synced(upto);
                    synced = synced.max(upto);
                }
                Op::PowerOff(kept) => {
                    storage.power_off_torn(kept);
                    model.truncate((synced + kept) as usize);
                }
                Op::Corrupt(at) => {
                    let held = at >= storage.start() && at < storage.end();
                    prop_assert_eq!(storage.corrupt_byte(at).is_ok(), held);
                    if held {
                        model[at as usize] = !model[at as usize];
                    }
                }
            }
            prop_assert_eq!(storage.end(), model.len() as u64);
            prop_assert_eq!(storage.synced(), synced);
            prop_assert_eq!(&all(&storage)[..], &model[storage.start() as usize..]);
            let middle = (storage.start() + storage.end()) / 2;
            let mut tail = vec![0; (storage.end() - middle) as usize];
            storage.read_exact(middle, &mut tail).unwrap();
            prop_assert_eq!(&tail[..], &model[middle as usize..]);
        }
    }
}
