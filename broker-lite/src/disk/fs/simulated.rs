//! A file system in memory that forgets with the power what POSIX lets a real one forget.
//!
//! ```text
//! write, cut            ──▶ lost until the file was synced
//! create, rename, remove ──▶ undone until the directory was synced that they were done in
//! ```
//!
//! A file that was synced under a name that was not is lost as well; a cut that is undone brings the old bytes back. A kill
//! loses nothing. What had reached the medium unasked is chance's: of each file a prefix of what was written since, with
//! bytes of zero behind it where only the length had reached it, and of each directory a prefix of its changes.
//!
//! The power can be made to fail at a certain change: from there on every change fails, so nothing that rests on one
//! leaves its process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Entry, Fs, OpenFile};

/// What a loss of power leaves of what was not synced: of so many, how many.
type Loss<'a> = &'a mut dyn FnMut(u64) -> u64;

/// The file system; its root is a directory that is durable.
#[derive(Debug)]
pub(in crate::disk) struct SimulatedFs {
    tree: Mutex<Tree>,
    power: Arc<Mutex<Power>>,
}

#[derive(Debug, Default)]
struct Power {
    /// Changes until it fails.
    left: Option<u64>,
    failed: bool,
    failures: u64,
}

impl Power {
    /// Takes the power for one change.
    fn draw(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.left {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => {
                    self.left = None;
                    self.failed = true;
                    self.failures += 1;
                }
            }
        }
        if self.failed { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }
}

const ROOT: u64 = 0;

#[derive(Debug)]
struct Tree {
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

#[derive(Debug)]
enum Node {
    File(Arc<Mutex<Content>>),
    Dir(Names),
}

/// What a directory says.
#[derive(Debug, Default)]
struct Names {
    now: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    /// What leads from one to the other, in order.
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Put(String, u64),
    Rename(String, String),
    Remove(String),
}

impl Change {
    fn carry_out(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Put(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Names {
    fn change(&mut self, change: Change) {
        change.carry_out(&mut self.now);
        self.changes.push(change);
    }
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
    /// The durable bytes from before a cut that is not durable itself.
    before_cut: Option<Vec<u8>>,
}

impl Content {
    fn lose_power(&mut self, kept: Loss<'_>) {
        let unsynced = self.bytes.len() - self.synced;
        match self.before_cut.take() {
            Some(before) if kept(1) == 0 => self.bytes = before,
            _ if unsynced == 0 => {}
            _ => {
                let reached = self.synced + within(kept(unsynced as u64), unsynced);
                let len =
                    reached + within(kept((self.bytes.len() - reached) as u64), self.bytes.len() - reached);
                self.bytes.truncate(reached);
                self.bytes.resize(len, 0);
            }
        }
        self.synced = self.bytes.len();
    }
}

fn within(drawn: u64, most: usize) -> usize {
    usize::try_from(drawn).unwrap_or(most).min(most)
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {}", path.display()))
}

fn refused(why: &str, path: &Path) -> io::Error {
    io::Error::other(format!("{} {why}", path.display()))
}

/// The directory that a path is in, and its name there.
fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let parts = (path.parent(), path.file_name().and_then(|name| name.to_str()));
    let (Some(parent), Some(name)) = parts else { return Err(refused("is no name", path)) };
    Ok((parent, name))
}

impl Tree {
    fn find(&self, path: &Path) -> Option<u64> {
        let mut at = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let Some(Node::Dir(names)) = self.nodes.get(&at) else { return None };
            at = *names.now.get(name.to_str()?)?;
        }
        Some(at)
    }

    fn dir(&self, path: &Path) -> io::Result<&Names> {
        match self.find(path).and_then(|at| self.nodes.get(&at)) {
            Some(Node::Dir(names)) => Ok(names),
            Some(Node::File(_)) => Err(refused("is no directory", path)),
            None => Err(missing(path)),
        }
    }

    fn dir_mut(&mut self, path: &Path) -> io::Result<&mut Names> {
        match self.find(path).and_then(|at| self.nodes.get_mut(&at)) {
            Some(Node::Dir(names)) => Ok(names),
            Some(Node::File(_)) => Err(refused("is no directory", path)),
            None => Err(missing(path)),
        }
    }

    fn file(&self, path: &Path) -> io::Result<Arc<Mutex<Content>>> {
        match self.find(path).and_then(|at| self.nodes.get(&at)) {
            Some(Node::File(content)) => Ok(content.clone()),
            Some(Node::Dir(_)) => Err(refused("is a directory", path)),
            None => Err(missing(path)),
        }
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let id = self.next;
        self.dir_mut(parent)?.change(Change::Put(name.to_owned(), id));
        self.nodes.insert(id, node);
        self.next += 1;
        Ok(())
    }

    /// Frees what no name stands for any more, neither now nor after a loss of power.
    fn drop_nameless(&mut self) {
        let mut named = std::collections::BTreeSet::from([ROOT]);
        let mut dirs = vec![ROOT];
        while let Some(Node::Dir(names)) = dirs.pop().and_then(|at| self.nodes.get(&at)) {
            let put = names.changes.iter().filter_map(|change| match change {
                Change::Put(_, node) => Some(node),
                _ => None,
            });
            for node in names.now.values().chain(names.durable.values()).chain(put) {
                if named.insert(*node) && matches!(self.nodes.get(node), Some(Node::Dir(_))) {
                    dirs.push(*node);
                }
            }
        }
        self.nodes.retain(|node, _| named.contains(node));
    }
}

impl SimulatedFs {
    /// An empty one.
    pub(in crate::disk) fn new() -> Arc<Self> {
        let root = BTreeMap::from([(ROOT, Node::Dir(Names::default()))]);
        Arc::new(Self { tree: Mutex::new(Tree { nodes: root, next: ROOT + 1 }), power: Arc::default() })
    }

    /// The power is gone, and comes back: `kept` is asked how many of so many unsynced bytes of a file, or changes of a
    /// directory, had reached the medium all the same.
    pub(in crate::disk) fn lose_power(&self, kept: Loss<'_>) {
        let mut tree = self.tree.lock();
        for node in tree.nodes.values_mut() {
            match node {
                Node::File(content) => content.lock().lose_power(kept),
                Node::Dir(names) => {
                    let changes = std::mem::take(&mut names.changes);
                    let reached = match changes.len() {
                        0 => 0,
                        all => within(kept(all as u64), all),
                    };
                    changes[..reached].iter().for_each(|change| change.carry_out(&mut names.durable));
                    names.now = names.durable.clone();
                }
            }
        }
        tree.drop_nameless();
        let mut power = self.power.lock();
        (power.left, power.failed) = (None, false);
    }

    /// The power fails after so many more changes, or `None`, not by itself.
    pub(in crate::disk) fn fail_after(&self, changes: Option<u64>) {
        self.power.lock().left = changes;
    }

    /// Whether it has failed by itself, and is not back.
    pub(in crate::disk) fn has_failed(&self) -> bool {
        self.power.lock().failed
    }

    /// How often it has failed by itself.
    pub(in crate::disk) fn failures(&self) -> u64 {
        self.power.lock().failures
    }

    fn changing(&self) -> io::Result<parking_lot::MutexGuard<'_, Tree>> {
        self.power.lock().draw()?;
        Ok(self.tree.lock())
    }

    fn handle(&self, content: Arc<Mutex<Content>>) -> Arc<dyn OpenFile> {
        Arc::new(SimulatedFile { content, power: self.power.clone() })
    }
}

impl Fs for SimulatedFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
        Ok(self.handle(self.tree.lock().file(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
        let mut tree = self.changing()?;
        if let Some(Node::File(content)) = tree.find(path).and_then(|at| tree.nodes.get(&at)) {
            let file = self.handle(content.clone());
            drop(tree);
            file.set_len(0)?;
            return Ok(file);
        }
        let content = Arc::default();
        tree.add(path, Node::File(Arc::clone(&content)))?;
        Ok(self.handle(content))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(self.tree.lock().file(path)?.lock().bytes.len() as u64)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.tree.lock().file(path)?.lock().bytes.clone())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let tree = self.tree.lock();
        let is_dir = |node: &u64| matches!(tree.nodes.get(node), Some(Node::Dir(_)));
        let entry = |(name, node): (&String, &u64)| Entry { name: name.clone(), is_dir: is_dir(node) };
        Ok(tree.dir(path)?.now.iter().map(entry).collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.tree.lock().find(path).is_some()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.changing()?;
        if tree.find(path).is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, path.display().to_string()));
        }
        tree.add(path, Node::Dir(Names::default()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.changing()?;
        tree.find(from).ok_or_else(|| missing(from))?;
        let ((old_parent, old), (new_parent, new)) = (split(from)?, split(to)?);
        if old_parent != new_parent {
            return Err(refused("cannot be moved to another directory", from));
        }
        tree.dir_mut(old_parent)?.change(Change::Rename(old.to_owned(), new.to_owned()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.changing()?;
        tree.file(path)?;
        let (parent, name) = split(path)?;
        tree.dir_mut(parent)?.change(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        for Entry { name, is_dir } in self.list(path)? {
            let inside = path.join(name);
            if is_dir { self.remove_dir_all(&inside)? } else { self.remove_file(&inside)? }
        }
        let (parent, name) = split(path)?;
        self.changing()?.dir_mut(parent)?.change(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.changing()?;
        let names = tree.dir_mut(path)?;
        if !std::mem::take(&mut names.changes).is_empty() {
            names.durable = names.now.clone();
            tree.drop_nameless();
        }
        Ok(())
    }

    fn is_simulated(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct SimulatedFile {
    content: Arc<Mutex<Content>>,
    power: Arc<Mutex<Power>>,
}

impl OpenFile for SimulatedFile {
    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        let content = self.content.lock();
        let from = usize::try_from(position).ok();
        let held = from.and_then(|from| content.bytes.get(from..from.checked_add(buf.len())?));
        buf.copy_from_slice(held.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.power.lock().draw()?;
        let held = &mut self.content.lock().bytes;
        let from = usize::try_from(position).map_err(io::Error::other)?;
        held.resize(held.len().max(from + bytes.len()), 0);
        held[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.power.lock().draw()?;
        let content = &mut *self.content.lock();
        let len = usize::try_from(len).map_err(io::Error::other)?;
        if len < content.synced {
            content.before_cut.get_or_insert_with(|| content.bytes[..content.synced].to_vec());
            content.synced = len;
        }
        content.bytes.resize(len, 0);
        Ok(())
    }

    fn sync(&self, upto: u64) -> io::Result<()> {
        self.power.lock().draw()?;
        let content = &mut *self.content.lock();
        content.synced = content.synced.max(within(upto, content.bytes.len()));
        content.before_cut = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(fs: &SimulatedFs, path: &str, text: &str) -> Arc<dyn OpenFile> {
        let file = fs.create(Path::new(path)).unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        file
    }

    fn held(fs: &SimulatedFs, path: &str) -> Option<String> {
        super::super::read_text(fs, Path::new(path)).ok()
    }

    fn at(path: &str) -> &Path {
        Path::new(path)
    }

    /// A directory with a file, both durable.
    fn one_file() -> Arc<SimulatedFs> {
        let fs = SimulatedFs::new();
        fs.create_dir(at("/d")).unwrap();
        write(&fs, "/d/a", "old").sync(3).unwrap();
        fs.sync_dir(at("/d")).unwrap();
        fs.sync_dir(at("/")).unwrap();
        fs
    }

    #[test]
    fn bytes_are_lost_until_they_are_synced_and_so_is_a_cut() {
        let fs = one_file();
        let file = fs.open(at("/d/a")).unwrap();
        file.write_all_at(b"er", 3).unwrap();
        fs.lose_power(&mut |_| 0);
        assert_eq!(held(&fs, "/d/a").unwrap(), "old");
        let file = fs.open(at("/d/a")).unwrap();
        file.set_len(1).unwrap();
        file.write_all_at(b"ff", 1).unwrap();
        fs.lose_power(&mut |_| 0);
        assert_eq!(held(&fs, "/d/a").unwrap(), "old");
        let file = fs.open(at("/d/a")).unwrap();
        file.set_len(1).unwrap();
        file.write_all_at(b"ff", 1).unwrap();
        file.sync(2).unwrap();
        fs.lose_power(&mut |_| 0);
        assert_eq!(held(&fs, "/d/a").unwrap(), "of", "a sync covers what was there when it began");
    }

    #[test]
    fn names_are_undone_until_their_directory_is_synced_however_durable_the_bytes() {
        for synced in [false, true] {
            let fs = one_file();
            write(&fs, "/d/b", "new").sync(3).unwrap();
            fs.rename(at("/d/b"), at("/d/a")).unwrap();
            write(&fs, "/d/c", "c").sync(1).unwrap();
            fs.create_dir(at("/e")).unwrap();
            if synced {
                fs.sync_dir(at("/d")).unwrap();
            }
            fs.lose_power(&mut |_| 0);
            assert_eq!(held(&fs, "/d/a").unwrap(), if synced { "new" } else { "old" });
            assert_eq!((held(&fs, "/d/b"), held(&fs, "/d/c").is_some()), (None, synced));
            assert!(!fs.exists(at("/e")));
        }
    }

    #[test]
    fn a_directory_that_was_removed_comes_back_with_all_it_held() {
        let fs = one_file();
        fs.rename(at("/d"), at("/d-delete")).unwrap();
        fs.remove_dir_all(at("/d-delete")).unwrap();
        assert_eq!(fs.list(at("/")).unwrap(), []);
        fs.lose_power(&mut |_| 0);
        assert_eq!(held(&fs, "/d/a").unwrap(), "old");
    }

    #[test]
    fn what_is_torn_is_a_prefix_of_changes_and_of_bytes_with_zeros_behind() {
        let fs = one_file();
        write(&fs, "/d/b", "b");
        write(&fs, "/d/c", "c");
        fs.open(at("/d/a")).unwrap().write_all_at(b"1234", 3).unwrap();
        fs.lose_power(&mut |most| most.min(2) - 1 + u64::from(most == 4));
        assert_eq!(held(&fs, "/d/a").unwrap(), "old12\0");
        assert_eq!((held(&fs, "/d/b").is_some(), held(&fs, "/d/c")), (true, None));
    }

    #[test]
    fn from_the_change_on_at_which_the_power_fails_nothing_is_done() {
        let fs = one_file();
        fs.fail_after(Some(1));
        let file = fs.open(at("/d/a")).unwrap();
        file.write_all_at(b"new", 0).unwrap();
        assert!(file.sync(3).is_err() && fs.sync_dir(at("/d")).is_err() && fs.has_failed());
        fs.lose_power(&mut |_| 0);
        assert!(!fs.has_failed() && fs.open(at("/d/a")).unwrap().sync(3).is_ok());
    }
}
