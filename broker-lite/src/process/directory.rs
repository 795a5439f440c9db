//! The data directory of one process: held by one at a time, and marked with whose it is.
//!
//! ```text
//! DIR/.lock                 held while the process runs
//!     meta.properties       version, node.id, directory.id, cluster.id, as Kafka writes it
//! ```
//!
//! A voter of a new cluster has no `cluster.id` yet: it is written once the first controller has committed one.
//!
//! Invariant: `meta.properties` is there before anything else of the node, and is replaced as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::cluster::{base64, from_base64};

const META: &str = "meta.properties";
const LOCK: &str = ".lock";

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) node: i32,
    pub(crate) directory: Uuid,
    pub(crate) cluster: Option<String>,
}

/// A data directory that this process holds.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    pub(crate) meta: Meta,
    /// The directories in which a name has changed for it to be.
    above: Vec<PathBuf>,
    /// Locked as long as it is open.
    _lock: File,
}

impl Directory {
    /// Takes hold of a node's directory, which is made if there is none; `id` is for a new one.
    ///
    /// # Errors
    ///
    /// One sentence: it cannot be used, is held, is another node's or another cluster's, or holds something else.
    pub(crate) fn open(path: &Path, node: i32, cluster: Option<&str>, id: Uuid) -> Result<Self, String> {
        let mut directory = Self::hold(path, node, cluster, id)?;
        match cluster {
            Some(cluster) => directory.join(cluster)?,
            None => {
                let failed = |error| format!("cannot write to data directory {}: {error}", path.display());
                directory.write().and_then(|()| directory.sync()).map_err(failed)?;
            }
        }
        sync_all(&directory.above)?;
        Ok(directory)
    }

    /// As [`Self::open`], but a new one is not marked before it [joins](Self::join) a cluster.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub(crate) fn hold(path: &Path, node: i32, cluster: Option<&str>, id: Uuid) -> Result<Self, String> {
        let failed = |what: &str, error: io::Error| {
            format!("cannot {what} data directory {}: {error}", path.display())
        };
        let missing = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let above = missing.filter_map(Path::parent).map(Path::to_owned).collect();
        fs::create_dir_all(path).map_err(|error| failed("create", error))?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join(LOCK));
        let lock = lock.map_err(|error| failed("write to", error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                format!(
                    "data directory {} is held by another process: one directory serves one node",
                    path.display()
                )
            }
            TryLockError::Error(error) => failed("lock", error),
        })?;
        let found = match fs::read_to_string(path.join(META)) {
            Ok(text) => {
                Some(Meta::parse(&text).map_err(|why| format!("{}: {why}", path.join(META).display()))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read", error)),
        };
        let meta = match found {
            Some(meta) => meta.belongs_to(path, node, cluster)?,
            None if is_empty(path).map_err(|error| failed("read", error))? => {
                Meta { node, directory: id, cluster: None }
            }
            None => {
                return Err(format!(
                    "data directory {} is not empty and has no {META}: it is none of broker-lite's; give an empty one",
                    path.display()
                ));
            }
        };
        // As clients are told it.
        let path = fs::canonicalize(path).map_err(|error| failed("find", error))?;
        Ok(Self { path, meta, above, _lock: lock })
    }

    /// Writes down which cluster the node belongs to, for good.
    ///
    /// # Errors
    ///
    /// One sentence: it belongs to another one, or the directory cannot be written to.
    pub(crate) fn join(&mut self, cluster: &str) -> Result<(), String> {
        self.mark(cluster)?;
        self.sync()
            .map_err(|error| format!("cannot write to data directory {}: {error}", self.path.display()))
    }

    /// As [`Self::join`], but the name of the file is durable only with the directory's next sync, and its own with that of
    /// what is [above](Self::above).
    ///
    /// # Errors
    ///
    /// As [`Self::join`].
    pub(crate) fn mark(&mut self, cluster: &str) -> Result<(), String> {
        if let Some(own) = self.meta.cluster.as_deref().filter(|own| *own != cluster) {
            return Err(other_cluster(&self.path, own, cluster));
        }
        self.meta.cluster = Some(cluster.to_owned());
        let failed = |error| format!("cannot write to data directory {}: {error}", self.path.display());
        self.write().map_err(failed)
    }

    /// Directories in which a name is new for this one to be.
    pub(crate) fn above(&self) -> &[PathBuf] {
        &self.above
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn write(&self) -> io::Result<()> {
        let (target, new) = (self.path.join(META), self.path.join(format!("{META}.tmp")));
        let text = self.meta.text();
        if fs::read_to_string(&target).is_ok_and(|present| present == text) {
            return Ok(());
        }
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &target)
    }

    fn sync(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }
}

/// Makes the names in each of these directories durable.
///
/// # Errors
///
/// One sentence with what the operating system says.
pub(crate) fn sync_all(directories: &[PathBuf]) -> Result<(), String> {
    directories.iter().try_for_each(|path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        sync_directory(path).map_err(|error| format!("cannot make {} durable: {error}", path.display()))
    })
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Whether nothing is in it but the lock, or what an interrupted start has left of [`Directory::write`].
fn is_empty(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != LOCK && name != *format!("{META}.tmp") && name != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn other_cluster(path: &Path, own: &str, asked: &str) -> String {
    format!("data directory {} belongs to cluster {own}, not to {asked}", path.display())
}

impl Meta {
    fn belongs_to(self, path: &Path, node: i32, cluster: Option<&str>) -> Result<Self, String> {
        if self.node != node {
            return Err(format!(
                "data directory {} belongs to node {}, not to node {node}",
                path.display(),
                self.node
            ));
        }
        match (&self.cluster, cluster) {
            (Some(own), Some(asked)) if own != asked => Err(other_cluster(path, own, asked)),
            _ => Ok(self),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec!["#".to_owned()];
        lines.extend(self.cluster.as_ref().map(|cluster| format!("cluster.id={cluster}")));
        lines.push(format!("directory.id={}", base64(self.directory)));
        lines.push(format!("node.id={}", self.node));
        lines.push("version=1".to_owned());
        lines.join("\n") + "\n"
    }

    fn parse(text: &str) -> Result<Self, String> {
        let lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
        let pairs = lines.filter_map(|line| line.split_once('='));
        let found: BTreeMap<_, _> = pairs.map(|(name, value)| (name.trim(), value.trim())).collect();
        let get = |name: &str| found.get(name).copied().filter(|value| !value.is_empty());
        let missing = |name: &str| format!("{name} is missing");
        match get("version") {
            Some("1") => {}
            Some(other) => return Err(format!("version is {other}, but 1 is the one that is known")),
            None => return Err(missing("version")),
        }
        let node = get("node.id").ok_or_else(|| missing("node.id"))?;
        let node = node.parse().map_err(|_| format!("node.id is {node:?}, which is not a number"))?;
        let directory = get("directory.id").ok_or_else(|| missing("directory.id"))?;
        let directory =
            from_base64(directory).ok_or_else(|| format!("directory.id is {directory:?}, which is no id"))?;
        Ok(Self { node, directory, cluster: get("cluster.id").map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("broker-lite-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const ID: Uuid = Uuid::from_u128(0x1234);

    #[test]
    fn a_new_directory_is_marked_as_kafka_marks_it() {
        let temp = Temp::new("marked");
        drop(Directory::open(&temp.0, 3, Some("abc"), ID).unwrap());
        let text = fs::read_to_string(temp.0.join(META)).unwrap();
        assert_eq!(text, "#\ncluster.id=abc\ndirectory.id=AAAAAAAAAAAAAAAAAAASNA\nnode.id=3\nversion=1\n");
        let again = Directory::open(&temp.0, 3, None, Uuid::from_u128(9)).unwrap();
        assert_eq!(again.meta, Meta { node: 3, directory: ID, cluster: Some("abc".into()) });
    }

    #[test]
    fn a_directory_joins_one_cluster_for_good() {
        let temp = Temp::new("joins");
        let mut directory = Directory::open(&temp.0, 1, None, ID).unwrap();
        assert_eq!(directory.meta.cluster, None);
        directory.join("first").unwrap();
        assert!(directory.join("second").unwrap_err().contains("belongs to cluster first, not to second"));
        drop(directory);
        let told = Directory::open(&temp.0, 1, Some("second"), ID).unwrap_err();
        assert!(told.ends_with("belongs to cluster first, not to second"), "{told}");
    }

    #[test]
    fn a_directory_that_is_held_or_not_ours_is_refused_in_one_sentence() {
        let temp = Temp::new("refused");
        let held = Directory::open(&temp.0, 1, None, ID).unwrap();
        let told = Directory::open(&temp.0, 1, None, ID).unwrap_err();
        assert!(told.contains("is held by another process"), "{told}");
        drop(held);
        let told = Directory::open(&temp.0, 2, None, ID).unwrap_err();
        assert!(told.contains("belongs to node 1, not to node 2"), "{told}");
        fs::write(temp.0.join(META), "version=0\nbroker.id=1\n").unwrap();
        let told = Directory::open(&temp.0, 1, None, ID).unwrap_err();
        assert!(told.contains("version is 0"), "{told}");
        fs::remove_file(temp.0.join(META)).unwrap();
        fs::write(temp.0.join("letter.txt"), "dear").unwrap();
        let told = Directory::open(&temp.0, 1, None, ID).unwrap_err();
        assert!(told.contains("is not empty and has no meta.properties"), "{told}");
        let told = Directory::open(&temp.0.join("letter.txt"), 1, None, ID).unwrap_err();
        assert!(told.starts_with("cannot create data directory"), "{told}");
    }

    /// Goal: `Properties.store` of Java, which Kafka uses, writes a date and escapes; its file is read.
    #[test]
    fn what_kafka_writes_is_read() {
        let text = "#\n#Fri Nov 27 19:36:23 UTC 2026\ncluster.id=wQ-1\ndirectory.id=AAAAAAAAAAAAAAAAAAASNA\nnode.id=7\n\
                    version=1\n";
        let meta = Meta::parse(text).unwrap();
        assert_eq!(meta, Meta { node: 7, directory: ID, cluster: Some("wQ-1".into()) });
        for bad in
            ["version=1", "version=1\nnode.id=x", "version=1\nnode.id=1\ndirectory.id=short", "node.id=1"]
        {
            assert!(Meta::parse(bad).is_err(), "{bad:?}");
        }
    }
}
