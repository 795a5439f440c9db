//! Offsets in one file, which is replaced as a whole.
//!
//! ```text
//! klamm offsets 1
//! GROUP ⇥ TOPIC ⇥ PARTITION ⇥ OFFSET ⇥ LEADER EPOCH, or -1 ⇥ TOPIC ID, or nil
//! …
//! end COUNT CRC-32C of everything before this line
//! ```
//!
//! Invariant: under its name lies either what was saved last, or what is being saved, never a part of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use klamm_core::TopicPartition;
use klamm_wire::crc::crc32c;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{OffsetStore, OffsetStoreError, StoredOffset, StoredOffsets};
use crate::rt::Rt;

const MAGIC: &str = "klamm offsets 1\n";

type Groups = BTreeMap<String, StoredOffsets>;

/// Why a [`FileOffsetStore`] cannot be opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileStoreError {
    /// There is a file of that name that is something else, or of a later version.
    #[error(
        "{} is not an offset store of this version: it does not begin with `klamm offsets 1`; give another path",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It was a store once.
    #[error(
        "offset store {} is damaged: {what}; restore it, or delete it to begin as auto.offset.reset says",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another store, maybe of another process, has it open.
    #[error("offset store {} is in use: only one may have it open at a time", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("offset store {}: {step}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        step: &'static str,
        /// What it said.
        cause: io::Error,
    },
    /// It was called outside of a tokio runtime, or the runtime is ending.
    #[error("offset store {}: the tokio runtime is not there (any more)", path.display())]
    NoRuntime {
        /// The file.
        path: PathBuf,
    },
}

/// An [`OffsetStore`] in one file, for as many offsets as are written again as a whole with every save.
///
/// What was saved survives the loss of power: it is written to a file beside it (`PATH.tmp`) and synced, and takes the name of the
/// former then. `PATH.lock` keeps others away as long as the store is open. Clones share the file. `load` answers from memory, also
/// while something is saved, and never blocks.
#[derive(Debug, Clone)]
pub struct FileOffsetStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// As the file has them. Never locked while the file is written: `load` runs in async tasks.
    groups: Mutex<Arc<Groups>>,
    /// One `save` after the other, on threads that may block.
    saving: Mutex<()>,
    /// Locked as long as it is open.
    _lock: File,
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

impl FileOffsetStore {
    /// Opens a store, or a new one if there is no such file. Reads it at once, and so blocks for a moment.
    ///
    /// # Errors
    ///
    /// [`FileStoreError`]; a file that is no store, or a damaged one, is left as it is.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FileStoreError> {
        let path = path.into();
        let io = |step, cause| FileStoreError::Io { path: path.clone(), step, cause };
        let lock = beside(&path, ".lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(lock);
        let lock = lock.map_err(|cause| io("its lock cannot be created", cause))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileStoreError::InUse { path }),
            Err(TryLockError::Error(cause)) => return Err(io("its lock cannot be taken", cause)),
        }
        let groups = match File::open(&path) {
            Ok(file) => read(&path, file)?,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Groups::new(),
            Err(cause) => return Err(io("it cannot be opened", cause)),
        };
        let (groups, saving) = (Mutex::new(Arc::new(groups)), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { path, groups, saving, _lock: lock }) })
    }
}

impl OffsetStore for FileOffsetStore {
    fn load<'a>(
        &'a self,
        group: &'a str,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<StoredOffsets, OffsetStoreError>> {
        let groups = self.inner.groups.lock().clone();
        let stored = |name: &TopicPartition| Some((name.clone(), *groups.get(group)?.get(name)?));
        std::future::ready(Ok(partitions.iter().filter_map(stored).collect())).boxed()
    }

    /// # Cancel safety
    ///
    /// It is saved all the same.
    fn save<'a>(
        &'a self,
        group: &'a str,
        offsets: &'a StoredOffsets,
    ) -> BoxFuture<'a, Result<(), OffsetStoreError>> {
        async move {
            let gone = || FileStoreError::NoRuntime { path: self.inner.path.clone() };
            let rt = Rt::without_chance().map_err(|_| gone())?;
            let (inner, group, offsets) = (self.inner.clone(), group.to_owned(), offsets.clone());
            rt.offload(move || inner.save(group, offsets)).await.ok_or_else(gone)??;
            Ok(())
        }
        .boxed()
    }
}

impl Inner {
    fn save(&self, group: String, offsets: StoredOffsets) -> Result<(), FileStoreError> {
        let _saving = self.saving.lock();
        let mut next = Groups::clone(&self.groups.lock().clone());
        next.entry(group).or_default().extend(offsets);
        self.replace(&encode(&next))?;
        *self.groups.lock() = Arc::new(next);
        Ok(())
    }

    fn replace(&self, bytes: &[u8]) -> Result<(), FileStoreError> {
        let io = |step| move |cause| FileStoreError::Io { path: self.path.clone(), step, cause };
        let temporary = beside(&self.path, ".tmp");
        let mut file = File::create(&temporary).map_err(io("the next one cannot be created"))?;
        file.write_all(bytes).map_err(io("the next one cannot be written"))?;
        file.sync_all().map_err(io("the next one cannot be synced"))?;
        std::fs::rename(&temporary, &self.path).map_err(io("the next one cannot take its place"))?;
        // The name lies in the directory.
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory =
            File::open(parent.unwrap_or(Path::new("."))).map_err(io("its directory cannot be opened"));
        directory?.sync_all().map_err(io("its directory cannot be synced"))
    }
}

fn read(path: &Path, mut file: File) -> Result<Groups, FileStoreError> {
    let io = |cause| FileStoreError::Io { path: path.to_owned(), step: "it cannot be read", cause };
    let mut magic = Vec::new();
    Read::by_ref(&mut file).take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(io)?;
    if magic != MAGIC.as_bytes() {
        return Err(FileStoreError::Foreign { path: path.to_owned() });
    }
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).map_err(io)?;
    decode(&rest).map_err(|what| FileStoreError::Damaged { path: path.to_owned(), what })
}

fn escape(name: &str) -> String {
    name.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescape(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        name.push(match char {
            '\\' => match chars.next()? {
                '\\' => '\\',
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            char => char,
        });
    }
    Some(name)
}

fn encode(groups: &Groups) -> Vec<u8> {
    let mut text = String::from(MAGIC);
    let mut count = 0;
    for (group, offsets) in groups {
        for (TopicPartition { topic, partition }, at) in offsets {
            let (group, topic, epoch) = (escape(group), escape(topic), at.leader_epoch.unwrap_or(-1));
            let StoredOffset { offset, topic_id, .. } = at;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{group}\t{topic}\t{partition}\t{offset}\t{epoch}\t{topic_id}");
            count += 1;
        }
    }
    let crc = crc32c(text.as_bytes());
    let _ = writeln!(text, "end {count} {crc:08x}");
    text.into_bytes()
}

/// Reads what follows the first line.
fn decode(rest: &[u8]) -> Result<Groups, String> {
    let text = std::str::from_utf8(rest).map_err(|_| "it is not text".to_owned())?;
    let body = text.strip_suffix('\n').ok_or("its end is missing")?;
    let (lines, end) = body.rsplit_once('\n').map_or(("", body), |(lines, end)| (lines, end));
    let told = end.strip_prefix("end ").and_then(|told| told.split_once(' ')).ok_or("its end is missing")?;
    let before = &text[..text.len() - end.len() - 1];
    if told.1 != format!("{:08x}", crc32c(&[MAGIC.as_bytes(), before.as_bytes()].concat())) {
        return Err("its checksum is another one".to_owned());
    }
    let mut groups = Groups::new();
    for (number, line) in (2..).zip(lines.lines()) {
        let (group, name, at) = entry(line).ok_or_else(|| format!("line {number} is not an offset"))?;
        groups.entry(group).or_default().insert(name, at);
    }
    let count: usize = groups.values().map(BTreeMap::len).sum();
    if told.0 != count.to_string() {
        return Err(format!("it has {count} offsets instead of {}", told.0));
    }
    Ok(groups)
}

fn entry(line: &str) -> Option<(String, TopicPartition, StoredOffset)> {
    let mut fields = line.split('\t');
    let group = unescape(fields.next()?)?;
    let name = TopicPartition::new(unescape(fields.next()?)?, fields.next()?.parse().ok()?);
    let offset = fields.next()?.parse().ok()?;
    let epoch: i32 = fields.next()?.parse().ok()?;
    let topic_id = Uuid::try_parse(fields.next()?).ok()?;
    let leader_epoch = Some(epoch).filter(|epoch| *epoch >= 0);
    fields.next().is_none().then_some((group, name, StoredOffset { offset, leader_epoch, topic_id }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(offset: i64) -> StoredOffset {
        StoredOffset { offset, leader_epoch: Some(3), topic_id: Uuid::from_u128(7) }
    }

    fn home() -> PathBuf {
        static HOMES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = HOMES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("klamm-store-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        home
    }

    #[tokio::test]
    async fn what_was_saved_is_there_when_it_is_opened_again() {
        let home = home();
        let path = home.join("offsets");
        let store = FileOffsetStore::open(&path).unwrap();
        let [zero, one] = [0, 1].map(|partition| TopicPartition::new("t", partition));
        let both = [zero.clone(), one.clone()];
        assert!(store.load("g", &both).await.unwrap().is_empty());
        store.save("g", &[(zero.clone(), at(5)), (one.clone(), at(6))].into()).await.unwrap();
        store.save("other", &[(zero.clone(), at(70))].into()).await.unwrap();
        store.save("g", &[(one.clone(), at(7))].into()).await.unwrap();
        let again = FileOffsetStore::open(&path).unwrap_err().to_string();
        assert!(again.contains("in use"), "{again}");
        drop(store);

        // As a process leaves it that dies while it saves.
        std::fs::write(home.join("offsets.tmp"), "klamm off").unwrap();
        let store = FileOffsetStore::open(&path).unwrap();
        let expected: StoredOffsets = [(zero.clone(), at(5)), (one, at(7))].into();
        assert_eq!(store.load("g", &both).await.unwrap(), expected);
        assert_eq!(store.load("other", &both).await.unwrap(), [(zero, at(70))].into());
        store.save("g", &expected).await.unwrap();
        assert!(!home.join("offsets.tmp").exists());
        std::fs::remove_dir_all(home).unwrap();
    }

    #[tokio::test]
    async fn a_foreign_file_and_a_damaged_one_are_refused_in_a_sentence_and_left_as_they_are() {
        let home = home();
        let path = home.join("offsets");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let told = FileOffsetStore::open(&path).unwrap_err().to_string();
            assert!(told.contains(&path.display().to_string()), "{told}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            told
        };
        for foreign in [&b""[..], b"klamm", b"SQLite format 3\0", b"klamm offsets 2\nend 0 00000000\n"] {
            assert!(refused(foreign).contains("not an offset store"));
        }
        let groups: Groups = [("g".to_owned(), [(TopicPartition::new("t", 0), at(5))].into())].into();
        let whole = encode(&groups);
        for cut in MAGIC.len()..whole.len() {
            let told = refused(&whole[..cut]);
            assert!(told.contains("damaged") && told.contains("missing"), "{cut}: {told}");
        }
        for place in MAGIC.len()..whole.len() {
            let mut flipped = whole.clone();
            flipped[place] ^= 1;
            assert!(refused(&flipped).contains("damaged"), "byte {place}");
        }
        std::fs::remove_dir_all(&home).unwrap();
        let told = FileOffsetStore::open(&path).unwrap_err().to_string();
        assert!(told.contains("cannot be created"), "{told}");
    }

    #[tokio::test]
    async fn a_save_that_fails_changes_nothing_and_names_the_cause() {
        let home = home();
        let path = home.join("offsets");
        let store = FileOffsetStore::open(&path).unwrap();
        let name = TopicPartition::new("t", 0);
        store.save("g", &[(name.clone(), at(5))].into()).await.unwrap();
        // Nothing can be created under this name.
        std::fs::create_dir(home.join("offsets.tmp")).unwrap();
        let told = store.save("g", &[(name.clone(), at(6))].into()).await.unwrap_err().to_string();
        assert!(told.contains("cannot be created"), "{told}");
        assert_eq!(store.load("g", std::slice::from_ref(&name)).await.unwrap()[&name], at(5));
        std::fs::remove_dir(home.join("offsets.tmp")).unwrap();
        store.save("g", &[(name.clone(), at(6))].into()).await.unwrap();
        drop(store);
        let store = FileOffsetStore::open(&path).unwrap();
        assert_eq!(store.load("g", std::slice::from_ref(&name)).await.unwrap()[&name], at(6));
        std::fs::remove_dir_all(home).unwrap();
    }

    /// A disk may take seconds to sync. Here it is a pipe that nobody reads, in the place of the file that is written.
    #[cfg(unix)]
    #[tokio::test]
    async fn loading_does_not_wait_for_a_save_that_is_under_way() {
        let home = home();
        let store = FileOffsetStore::open(home.join("offsets")).unwrap();
        let name = TopicPartition::new("t", 0);
        store.save("g", &[(name.clone(), at(5))].into()).await.unwrap();
        let pipe = home.join("offsets.tmp");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let saver = store.clone();
        let offsets: StoredOffsets = [(name.clone(), at(6))].into();
        let rt = Rt::current().unwrap();
        let saving = rt.spawn(async move { saver.save("g", &offsets).await });
        while !store.inner.saving.is_locked() {
            tokio::task::yield_now().await;
        }
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let loaded = store.load("g", std::slice::from_ref(&name)).now_or_never();
                tell.send(loaded.unwrap().unwrap()[&name]).unwrap();
            });
            let loaded = told.recv_timeout(std::time::Duration::from_secs(10));
            // The save goes on, and fails: a pipe cannot be synced.
            let mut written = String::new();
            File::open(&pipe).unwrap().read_to_string(&mut written).unwrap();
            assert!(written.starts_with(MAGIC), "{written}");
            assert_eq!(loaded, Ok(at(5)), "what lies there");
        });
        let told = saving.await.unwrap().unwrap_err().to_string();
        assert!(told.contains("cannot be synced"), "{told}");
        assert_eq!(store.load("g", std::slice::from_ref(&name)).await.unwrap()[&name], at(5));
        std::fs::remove_dir_all(home).unwrap();
    }

    proptest! {
        #[test]
        fn whatever_names_there_are_come_back(
            stored in prop::collection::btree_map(
                ".{0,6}",
                prop::collection::btree_map((".{0,6}", any::<i32>()), (any::<i64>(), -1..9, any::<u128>()), 1..4),
                0..4,
            )
        ) {
            let offset = |((topic, partition), (offset, epoch, id)): ((String, i32), (i64, i32, u128))| {
                let leader_epoch = Some(epoch).filter(|epoch| *epoch >= 0);
                let topic_id = Uuid::from_u128(id);
                (TopicPartition::new(topic, partition), StoredOffset { offset, leader_epoch, topic_id })
            };
            let groups: Groups = stored
                .into_iter()
                .map(|(group, offsets)| (group, offsets.into_iter().map(offset).collect()))
                .collect();
            prop_assert_eq!(decode(&encode(&groups)[MAGIC.len()..]), Ok(groups));
        }
    }
}
