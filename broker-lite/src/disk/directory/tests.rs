//! Whatever happens to a directory while fsyncs are under way: when it says that everything is durable, a loss of power
//! takes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::disk::fs::{Entry, SimulatedFs};
use crate::rt::Worker;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// What is replaced as a whole is never changed otherwise.
const REPLACED: [&str; 2] = ["d", "e"];

#[derive(Debug, Clone)]
enum Op {
    Create(usize),
    Append(usize, u8),
    Cut(usize, u64),
    /// To one of the other names.
    Rename(usize, usize),
    Remove(usize),
    ReplaceLater(usize),
    /// An fsync begins.
    Begin,
    /// One of those under way ends.
    End(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..NAMES.len();
    prop_oneof![
        2 => name.clone().prop_map(Op::Create),
        4 => (name.clone(), 1u8..9).prop_map(|(name, len)| Op::Append(name, len)),
        2 => (name.clone(), 0u64..12).prop_map(|(name, len)| Op::Cut(name, len)),
        1 => (name.clone(), 1..NAMES.len()).prop_map(|(name, further)| Op::Rename(name, further)),
        1 => name.prop_map(Op::Remove),
        1 => (0..REPLACED.len()).prop_map(Op::ReplaceLater),
        3 => Just(Op::Begin),
        3 => (0usize..3).prop_map(Op::End),
    ]
}

fn directory(fs: &Arc<SimulatedFs>) -> DiskDirectory {
    let log_dir = LogDir::open(fs.clone(), "/".into(), false, Worker::inline()).unwrap();
    let topic: Arc<str> = "t".into();
    log_dir.prepare(Uuid::from_u128(1), &topic, 0).unwrap();
    DiskDirectory::new(log_dir, topic, 0, false).unwrap()
}

fn held(fs: &SimulatedFs) -> BTreeMap<String, Vec<u8>> {
    let path = Path::new("/t-0");
    let files = fs.list(path).unwrap().into_iter();
    files.map(|Entry { name, .. }| (name.clone(), fs.read(&path.join(name)).unwrap())).collect()
}

/// What is not there cannot be changed.
fn if_there<T>(done: Result<T, StorageError>) -> Option<T> {
    match done {
        Ok(done) => Some(done),
        Err(StorageError::Missing(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_said_to_be_durable_is_there_after_a_loss_of_power(ops in prop::collection::vec(op(), 0..40)) {
        let fs = SimulatedFs::new();
        let mut directory = directory(&fs);
        let mut under_way = Vec::new();
        for (number, op) in (0u8..).zip(ops) {
            match op {
                Op::Create(at) => drop(directory.create(NAMES[at]).unwrap()),
                Op::Append(at, len) => {
                    if let Some(file) = if_there(directory.open(NAMES[at])) {
                        directory.append(file, &[vec![number; len.into()].into()]).unwrap();
                    }
                }
                Op::Cut(at, len) => {
                    if let Some(file) = if_there(directory.open(NAMES[at])) {
                        directory.set_len(file, len).unwrap();
                    }
                }
                Op::Rename(at, further) => {
                    if_there(directory.rename(NAMES[at], NAMES[(at + further) % NAMES.len()]));
                }
                Op::Remove(at) => directory.remove(NAMES[at]).unwrap(),
                Op::ReplaceLater(at) => directory.replace_later(REPLACED[at], vec![number; 5].into()).unwrap(),
                Op::Begin => {
                    let unsynced = directory.begin_sync();
                    under_way.push((directory.job(&unsynced), unsynced));
                }
                Op::End(at) if at < under_way.len() => {
                    let (job, unsynced) = under_way.remove(at);
                    job.run().unwrap();
                    directory.mark_synced(&unsynced).unwrap();
                }
                Op::End(_) => {}
            }
        }
        // Those under way never end.
        directory.sync_now().unwrap();
        prop_assert!(directory.begin_sync().is_empty());
        let before = held(&fs);
        fs.lose_power(&mut |_| 0);
        prop_assert_eq!(held(&fs), before);
    }
}
