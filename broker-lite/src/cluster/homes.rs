//! The directories of a cluster on disk: one per node, below the one that was given.
//!
//! ```text
//! DIR/broker-1      log directory of a broker, as Kafka's
//!     controller-3001  that of a controller
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ClusterError, base64, random_uuid};
use crate::process::directory::{Directory, sync_all};
use crate::rt::side_by_side;

/// The directories of all nodes, held by this process.
#[derive(Debug)]
pub(super) struct Homes {
    pub(super) cluster_id: Arc<str>,
    pub(super) controllers: BTreeMap<i32, Directory>,
    pub(super) brokers: BTreeMap<i32, Directory>,
}

impl Homes {
    /// Takes hold of the directories, which are made if they are not there.
    ///
    /// # Errors
    ///
    /// One sentence: one of them cannot be used, is held, holds something else, or they are not of one cluster.
    pub(super) fn open(
        path: &Path,
        brokers: u32,
        voters: &BTreeSet<i32>,
        rng: &mut fastrand::Rng,
    ) -> Result<Self, ClusterError> {
        refuse_foreign(path).map_err(ClusterError::Directory)?;
        let mut open = |name: String, node: i32| {
            Directory::hold(&path.join(name), node, None, random_uuid(rng)).map_err(ClusterError::Directory)
        };
        let mut controllers = BTreeMap::new();
        for id in voters {
            controllers.insert(*id, open(format!("controller-{id}"), *id)?);
        }
        let mut homes = BTreeMap::new();
        for id in (1..).take(brokers as usize) {
            homes.insert(id, open(format!("broker-{id}"), id)?);
        }
        let mut all = controllers.values().chain(homes.values());
        let known = all.find_map(|home| home.meta.cluster.clone());
        let cluster_id = known.unwrap_or_else(|| base64(random_uuid(rng)));
        let all = controllers.values().chain(homes.values());
        let above: Vec<PathBuf> = all.flat_map(|home| home.above().to_owned()).collect();
        let above = BTreeSet::from_iter(above);
        // The name of a mark goes along with the first sync of its directory, before anything of the node counts.
        let marks = controllers.values_mut().chain(homes.values_mut()).map(Durable::Mark);
        let all = marks.chain(above.into_iter().map(Durable::Names));
        let done = side_by_side(all, |what| match what {
            Durable::Mark(home) => home.mark(&cluster_id),
            Durable::Names(path) => sync_all(&[path]),
        });
        let done = done.map_err(|error| format!("cannot start a thread for the directories: {error}"));
        done.and_then(|done| done.into_iter().collect::<Result<(), String>>())
            .map_err(ClusterError::Directory)?;
        Ok(Self { cluster_id: Arc::from(cluster_id), controllers, brokers: homes })
    }
}

/// What is made durable first.
enum Durable<'a> {
    /// Whose directory it is.
    Mark(&'a mut Directory),
    /// Names in a directory.
    Names(PathBuf),
}

/// A directory that holds anything but nodes of ours is somebody else's.
fn refuse_foreign(path: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot use data directory {}: {error}", path.display());
    if !path.try_exists().map_err(failed)? {
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        let is_node = |prefix: &str| name.strip_prefix(prefix).is_some_and(|id| id.parse::<i32>().is_ok());
        if !is_node("broker-") && !is_node("controller-") && name != "lost+found" {
            return Err(format!(
                "data directory {} is not empty and holds {name:?}, which is none of broker-lite's; give an empty one",
                path.display()
            ));
        }
    }
    Ok(())
}
