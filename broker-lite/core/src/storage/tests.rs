use super::*;
use proptest::prelude::*;

const A: &str = "a";

/// A directory with one empty file, whose name is durable.
fn one_file() -> (MemoryDirectory, FileId) {
    let mut directory = MemoryDirectory::new();
    let file = directory.create(A).unwrap();
    directory.sync_now().unwrap();
    (directory, file)
}

fn append(directory: &mut MemoryDirectory, name: &str, bytes: &'static [u8]) {
    let file = directory.open(name).or_else(|_| directory.create(name)).unwrap();
    directory.append(file, &[Bytes::from_static(bytes)]).unwrap();
}

/// The content of a file, `None` if there is none.
fn held(directory: &mut MemoryDirectory, name: &str) -> Option<Bytes> {
    read_file(directory, name).ok()
}

fn all(directory: &MemoryDirectory, file: FileId) -> Vec<u8> {
    let mut out = Vec::new();
    directory.read(file, 0, directory.size(file) as usize, &mut out).unwrap();
    out.concat()
}

/// Goal: a thousand partitions without data cost next to nothing.
#[test]
fn an_empty_file_holds_no_memory() {
    let (directory, file) = one_file();
    assert_eq!(directory.memory(file), (None, 0));
}

/// Goal: a large read is a slice of what is stored, not a copy.
#[test]
fn a_large_piece_is_read_without_copying() {
    let (mut directory, file) = one_file();
    directory.append(file, &[Bytes::from(vec![7; 5000])]).unwrap();
    let mut out = Vec::new();
    directory.read(file, 0, 5000, &mut out).unwrap();
    assert_eq!((out.len(), Some(out[0].as_ptr())), (1, directory.memory(file).0));
}

/// Goal: the stored bytes are the replica's own, never those of the sender.
#[test]
fn an_append_copies_the_bytes_it_is_given() {
    let (mut directory, file) = one_file();
    let given = Bytes::from(vec![7; 5000]);
    directory.append(file, std::slice::from_ref(&given)).unwrap();
    assert_ne!(Some(given.as_ptr()), directory.memory(file).0);
}

/// Goal: a batch of a megabyte is not copied once more; its header, which is new, stands before it.
#[test]
fn a_large_chunk_is_kept_as_it_is() {
    let (mut directory, file) = one_file();
    let given = Bytes::from(vec![7; 100_000]);
    directory.append(file, &[Bytes::from(vec![1; 61]), given.clone(), Bytes::from(vec![2; 10])]).unwrap();
    let mut out = Vec::new();
    directory.read(file, 0, 100_071, &mut out).unwrap();
    assert_eq!(out.iter().map(Bytes::len).collect::<Vec<_>>(), [61, 100_000, 10]);
    assert_eq!((out[1].as_ptr(), out[0][0], out[2][9]), (given.as_ptr(), 1, 2));
}

/// Goal: small pieces share chunks and are handed out joined.
#[test]
fn tiny_pieces_are_joined_into_one_chunk_when_read() {
    let (mut directory, file) = one_file();
    for i in 0..100u8 {
        directory.append(file, &[Bytes::from(vec![i; 50])]).unwrap();
    }
    let mut out = Vec::new();
    directory.read(file, 0, 5000, &mut out).unwrap();
    assert_eq!((out.len(), out[0].len()), (1, 5000));
}

/// Goal: damage stays in this directory; a reader who already holds the bytes keeps the good ones.
#[test]
fn a_corrupted_byte_is_seen_by_later_reads_only() {
    let (mut directory, file) = one_file();
    append(&mut directory, A, b"abc");
    append(&mut directory, A, b"def");
    let mut before = Vec::new();
    directory.read(file, 0, 6, &mut before).unwrap();
    directory.corrupt_byte(A, 4).unwrap();
    assert_eq!(before.concat(), b"abcdef");
    assert_eq!(all(&directory, file), [b'a', b'b', b'c', b'd', !b'e', b'f']);
    assert!(directory.corrupt_byte(A, 6).is_err());
}

// ---- loss of power -------------------------------------------------------------------------------------------------

/// Goal: an fsync vouches for what was written when it began, not for what came while it ran.
#[test]
fn a_loss_of_power_leaves_what_was_there_when_the_last_sync_began() {
    let (mut directory, file) = one_file();
    append(&mut directory, A, b"abc");
    let sync = directory.begin_sync();
    append(&mut directory, A, b"def");
    directory.mark_synced(&sync).unwrap();
    assert_eq!(directory.synced_len(file), 3);
    directory.power_off();
    assert_eq!(held(&mut directory, A).unwrap(), "abc");
}

#[test]
fn a_torn_tail_ends_at_any_byte() {
    for kept in 0..=8 {
        let (mut directory, _) = one_file();
        append(&mut directory, A, b"abc");
        directory.sync_now().unwrap();
        append(&mut directory, A, b"def");
        directory.power_off_torn(&mut |_| kept);
        assert_eq!(held(&mut directory, A).unwrap(), b"abcdef"[..3 + kept.min(3) as usize]);
    }
}

/// Goal: the bytes of a new file are of no use while its name is not durable.
#[test]
fn a_name_is_lost_until_the_names_are_synced() {
    let mut directory = MemoryDirectory::new();
    let file = directory.create(A).unwrap();
    append(&mut directory, A, b"abc");
    let sync = directory.begin_sync();
    directory.mark_synced(&Unsynced { names: None, ..sync }).unwrap();
    assert_eq!(directory.synced_len(file), 0);
    let mut lost = directory;
    lost.power_off();
    assert_eq!(lost.names().unwrap(), [""; 0]);
}

#[test]
fn names_from_before_a_sync_began_are_durable_by_its_end_and_later_ones_are_not() {
    let mut directory = MemoryDirectory::new();
    append(&mut directory, A, b"abc");
    let sync = directory.begin_sync();
    append(&mut directory, "b", b"def");
    directory.mark_synced(&sync).unwrap();
    directory.power_off();
    assert_eq!(directory.names().unwrap(), [A]);
}

#[test]
fn a_removal_and_a_renaming_are_undone_until_the_names_are_synced() {
    let undone = |change: fn(&mut MemoryDirectory), sync: bool| {
        let mut directory = MemoryDirectory::new();
        append(&mut directory, A, b"abc");
        append(&mut directory, "b", b"def");
        directory.sync_now().unwrap();
        change(&mut directory);
        if sync {
            directory.sync_now().unwrap();
        }
        directory.power_off();
        (held(&mut directory, A), held(&mut directory, "b"))
    };
    let both = (Some(Bytes::from("abc")), Some(Bytes::from("def")));
    assert_eq!(undone(|directory| directory.remove(A).unwrap(), false), both);
    assert_eq!(undone(|directory| directory.remove(A).unwrap(), true), (None, both.1.clone()));
    assert_eq!(undone(|directory| directory.rename(A, "b").unwrap(), false), both);
    assert_eq!(undone(|directory| directory.rename(A, "b").unwrap(), true), (None, both.0));
}

#[test]
fn a_cut_is_undone_until_it_is_synced() {
    for sync in [false, true] {
        let (mut directory, file) = one_file();
        append(&mut directory, A, b"abcdef");
        directory.sync_now().unwrap();
        directory.set_len(file, 2).unwrap();
        append(&mut directory, A, b"xy");
        if sync {
            directory.sync_now().unwrap();
        }
        directory.power_off();
        assert_eq!(held(&mut directory, A).unwrap(), if sync { "abxy" } else { "abcdef" });
    }
}

/// Goal: the bytes that a running sync covers may be others by the time it ends.
#[test]
fn a_sync_from_before_a_cut_vouches_for_nothing() {
    let (mut directory, file) = one_file();
    append(&mut directory, A, b"abcdef");
    let stale = directory.begin_sync();
    directory.set_len(file, 2).unwrap();
    append(&mut directory, A, b"xy");
    directory.mark_synced(&stale).unwrap();
    assert_eq!(directory.synced_len(file), 0);
    directory.sync_now().unwrap();
    assert_eq!(directory.synced_len(file), 4);
}

/// Goal: ids are given out again, and a file gets none of the durability of the one that had its id.
#[test]
fn a_sync_vouches_for_no_file_that_is_younger() {
    let (mut directory, file) = one_file();
    append(&mut directory, A, b"abcdef");
    let stale = directory.begin_sync();
    directory.remove(A).unwrap();
    directory.sync_now().unwrap();
    let next = directory.create("b").unwrap();
    assert_eq!(next, file);
    append(&mut directory, "b", b"xy");
    directory.mark_synced(&stale).unwrap();
    let names = directory.begin_sync();
    directory.mark_synced(&Unsynced { files: Vec::new(), ..names }).unwrap();
    assert_eq!(directory.synced_len(next), 0);
}

/// Goal: a file that is replaced is the old one or the new one, never half of either.
#[test]
fn a_file_is_replaced_as_a_whole_by_the_next_sync() {
    let mut directory = MemoryDirectory::new();
    append(&mut directory, A, b"old");
    directory.sync_now().unwrap();
    directory.replace_later(A, "new".into()).unwrap();
    assert_eq!(held(&mut directory, A).unwrap(), "old");
    let sync = directory.begin_sync();
    directory.mark_synced(&sync).unwrap();
    assert_eq!(held(&mut directory, A).unwrap(), "new");
    directory.replace_later(A, "newer".into()).unwrap();
    directory.power_off();
    assert_eq!(held(&mut directory, A).unwrap(), "new");
    assert!(directory.begin_sync().is_empty());
}

#[test]
fn reading_outside_is_an_error_that_names_the_end() {
    let (mut directory, file) = one_file();
    append(&mut directory, A, b"abc");
    let error = directory.read(file, 1, 3, &mut Vec::new()).unwrap_err();
    assert_eq!(error, StorageError::OutOfRange { position: 1, len: 3, end: 3 });
    assert!(directory.read(file, u64::MAX, 1, &mut Vec::new()).is_err());
    directory.read(file, 3, 0, &mut Vec::new()).unwrap();
    assert_eq!(directory.open("b"), Err(StorageError::Missing("b".into())));
}

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<usize>),
    Truncate(u64),
    Sync,
    PowerOff(u64),
    Corrupt(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![6 => 1usize..300, 2 => 1500usize..4000, 1 => Just(0), 1 => Just(70_000)];
    prop_oneof![
        8 => prop::collection::vec(size, 1..3).prop_map(Op::Append),
        1 => (0u64..10_000).prop_map(Op::Truncate),
        1 => Just(Op::Sync),
        1 => (0u64..100).prop_map(Op::PowerOff),
        1 => (0u64..10_000).prop_map(Op::Corrupt),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is done to it, a file holds what a plain vector would hold, and a loss of power leaves what it would.
    #[test]
    fn a_file_equals_a_plain_vector(ops in prop::collection::vec(op(), 0..60)) {
        let (mut directory, file) = one_file();
        let mut model: Vec<u8> = Vec::new();
        // what is durable, and how much of the model it agrees with
        let (mut durable, mut cut) = (Vec::new(), false);
        for (i, op) in ops.into_iter().enumerate() {
            match op {
                Op::Append(sizes) => {
                    let chunks: Vec<Bytes> =
                        sizes.iter().map(|n| (0..*n).map(|j| (i * 31 + j) as u8).collect()).collect();
                    prop_assert_eq!(directory.append(file, &chunks).unwrap(), model.len() as u64);
                    model.extend(chunks.concat());
                }
                Op::Truncate(to) => {
                    directory.set_len(file, to).unwrap();
                    cut |= to < durable.len() as u64;
                    model.truncate(to as usize);
                }
                Op::Sync => {
                    directory.sync_now().unwrap();
                    (durable, cut) = (model.clone(), false);
                }
                Op::PowerOff(kept) => {
                    directory.power_off_torn(&mut |unsynced| if cut { 0 } else { kept.min(unsynced) });
                    if cut {
                        model = durable.clone();
                    } else {
                        model.truncate(durable.len() + kept as usize);
                    }
                    (durable, cut) = (model.clone(), false);
                }
                Op::Corrupt(at) => {
                    let held = at < model.len() as u64;
                    prop_assert_eq!(directory.corrupt_byte(A, at).is_ok(), held);
                    if held {
                        model[at as usize] = !model[at as usize];
                        if let Some(byte) = durable.get_mut(at as usize).filter(|_| !cut) {
                            *byte = !*byte;
                        }
                    }
                }
            }
            prop_assert_eq!(directory.size(file), model.len() as u64);
            prop_assert_eq!(&all(&directory, file)[..], &model[..]);
            let middle = model.len() / 2;
            let mut tail = vec![0; model.len() - middle];
            directory.read_exact(file, middle as u64, &mut tail).unwrap();
            prop_assert_eq!(&tail[..], &model[middle..]);
        }
    }
}
