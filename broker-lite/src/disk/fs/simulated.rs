//! A file system in memory that forgets with the power what POSIX lets a real one forget.
//!
//! ```text
//! write, cut            ──▶ lost until the file was synced
//! create, rename, remove ──▶ undone until the directory was synced that they were done in
//! ```
//!
//! A sync covers what was changed before the moment in which it began, and nothing else, however late it ends. A file that
//! was synced under a name that was not is lost as well; a cut that is undone brings the old bytes back. A kill loses
//! nothing. What had reached the medium unasked is chance's: of each file and directory a prefix of its changes since, the
//! last of them perhaps in part, with bytes of zero behind it where only the length had reached the medium.
//!
//! The power can be made to fail at a certain change: from there on every change fails, so nothing that rests on one
//! leaves its process.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Entry, Fs, Moment, OpenFile};

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
    /// Changes that were made.
    changes: u64,
    /// Changes until it fails.
    left: Option<u64>,
    failed: bool,
    failures: u64,
}

impl Power {
    /// Takes the power for one change; returns when it is made.
    fn draw(&mut self) -> io::Result<Moment> {
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
        if self.failed {
            return Err(io::Error::other("the power is gone"));
        }
        self.changes += 1;
        Ok(Moment(self.changes))
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
    /// What leads from `durable` to `now`, in order.
    changes: VecDeque<(Moment, Change)>,
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
    fn change(&mut self, at: Moment, change: Change) {
        change.carry_out(&mut self.now);
        self.changes.push_back((at, change));
    }

    fn sync(&mut self, then: Moment) {
        while let Some((_, change)) = take_until(&mut self.changes, then) {
            change.carry_out(&mut self.durable);
        }
    }

    fn lose_power(&mut self, kept: Loss<'_>) {
        let changes = std::mem::take(&mut self.changes);
        let reached = chosen(kept, changes.len());
        changes.iter().take(reached).for_each(|(_, change)| change.carry_out(&mut self.durable));
        self.now = self.durable.clone();
    }
}

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What leads from `durable` to `now`, in order.
    edits: VecDeque<(Moment, Edit)>,
}

#[derive(Debug)]
enum Edit {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Edit {
    /// What of it may reach the medium without the rest.
    fn parts(&self) -> usize {
        match self {
            Self::Write(_, bytes) => bytes.len(),
            Self::SetLen(_) => 1,
        }
    }

    /// Carries out so many of its parts.
    fn carry_out(&self, parts: usize, held: &mut Vec<u8>) {
        match self {
            _ if parts == 0 => {}
            Self::Write(from, bytes) => {
                let bytes = &bytes[..parts];
                held.resize(held.len().max(from + bytes.len()), 0);
                held[*from..from + bytes.len()].copy_from_slice(bytes);
            }
            Self::SetLen(len) => held.resize(*len, 0),
        }
    }
}

impl Content {
    fn edit(&mut self, at: Moment, edit: Edit) {
        edit.carry_out(edit.parts(), &mut self.now);
        self.edits.push_back((at, edit));
    }

    fn sync(&mut self, then: Moment) {
        while let Some((_, edit)) = take_until(&mut self.edits, then) {
            edit.carry_out(edit.parts(), &mut self.durable);
        }
    }

    fn lose_power(&mut self, kept: Loss<'_>) {
        let edits = std::mem::take(&mut self.edits);
        let mut left = chosen(kept, edits.iter().map(|(_, edit)| edit.parts()).sum());
        for (_, edit) in &edits {
            let parts = edit.parts().min(left);
            edit.carry_out(parts, &mut self.durable);
            left -= parts;
        }
        let longer = chosen(kept, self.now.len().saturating_sub(self.durable.len()));
        self.durable.resize(self.durable.len() + longer, 0);
        self.now.clone_from(&self.durable);
    }
}

/// The first of what was done until then.
fn take_until<T>(done: &mut VecDeque<(Moment, T)>, then: Moment) -> Option<(Moment, T)> {
    let covered = done.front().is_some_and(|(at, _)| *at <= then);
    if covered { done.pop_front() } else { None }
}

/// How many of so many reach the medium.
fn chosen(kept: Loss<'_>, most: usize) -> usize {
    if most == 0 { 0 } else { usize::try_from(kept(most as u64)).unwrap_or(most).min(most) }
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

    fn add(&mut self, at: Moment, path: &Path, node: Node) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let id = self.next;
        self.dir_mut(parent)?.change(at, Change::Put(name.to_owned(), id));
        self.nodes.insert(id, node);
        self.next += 1;
        Ok(())
    }

    /// Frees what no name stands for any more, neither now nor after a loss of power.
    fn drop_nameless(&mut self) {
        let mut named = std::collections::BTreeSet::from([ROOT]);
        let mut dirs = vec![ROOT];
        while let Some(Node::Dir(names)) = dirs.pop().and_then(|at| self.nodes.get(&at)) {
            let put = names.changes.iter().filter_map(|(_, change)| match change {
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
                Node::Dir(names) => names.lose_power(kept),
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

    fn changing(&self) -> io::Result<(Moment, parking_lot::MutexGuard<'_, Tree>)> {
        let at = self.power.lock().draw()?;
        Ok((at, self.tree.lock()))
    }

    fn handle(&self, content: Arc<Mutex<Content>>) -> Arc<dyn OpenFile> {
        Arc::new(SimulatedFile { content, power: self.power.clone() })
    }
}

impl Fs for SimulatedFs {
    fn now(&self) -> Moment {
        Moment(self.power.lock().changes)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
        Ok(self.handle(self.tree.lock().file(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
        let (at, mut tree) = self.changing()?;
        if let Some(Node::File(content)) = tree.find(path).and_then(|at| tree.nodes.get(&at)) {
            let file = self.handle(content.clone());
            drop(tree);
            file.set_len(0)?;
            return Ok(file);
        }
        let content = Arc::default();
        tree.add(at, path, Node::File(Arc::clone(&content)))?;
        Ok(self.handle(content))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(self.tree.lock().file(path)?.lock().now.len() as u64)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.tree.lock().file(path)?.lock().now.clone())
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
        let (at, mut tree) = self.changing()?;
        if tree.find(path).is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, path.display().to_string()));
        }
        tree.add(at, path, Node::Dir(Names::default()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (at, mut tree) = self.changing()?;
        tree.find(from).ok_or_else(|| missing(from))?;
        let ((old_parent, old), (new_parent, new)) = (split(from)?, split(to)?);
        if old_parent != new_parent {
            return Err(refused("cannot be moved to another directory", from));
        }
        tree.dir_mut(old_parent)?.change(at, Change::Rename(old.to_owned(), new.to_owned()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (at, mut tree) = self.changing()?;
        tree.file(path)?;
        let (parent, name) = split(path)?;
        tree.dir_mut(parent)?.change(at, Change::Remove(name.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        for Entry { name, is_dir } in self.list(path)? {
            let inside = path.join(name);
            if is_dir { self.remove_dir_all(&inside)? } else { self.remove_file(&inside)? }
        }
        let (parent, name) = split(path)?;
        let (at, mut tree) = self.changing()?;
        tree.dir_mut(parent)?.change(at, Change::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path, then: Moment) -> io::Result<()> {
        let (_, mut tree) = self.changing()?;
        tree.dir_mut(path)?.sync(then);
        tree.drop_nameless();
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

impl SimulatedFile {
    fn edit(&self, edit: Edit) -> io::Result<()> {
        let at = self.power.lock().draw()?;
        self.content.lock().edit(at, edit);
        Ok(())
    }
}

impl OpenFile for SimulatedFile {
    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        let content = self.content.lock();
        let from = usize::try_from(position).ok();
        let held = from.and_then(|from| content.now.get(from..from.checked_add(buf.len())?));
        buf.copy_from_slice(held.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let from = usize::try_from(position).map_err(io::Error::other)?;
        self.edit(Edit::Write(from, bytes.to_vec()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.edit(Edit::SetLen(usize::try_from(len).map_err(io::Error::other)?))
    }

    fn sync(&self, then: Moment) -> io::Result<()> {
        self.power.lock().draw()?;
        self.content.lock().sync(then);
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
        write(&fs, "/d/a", "old").sync(fs.now()).unwrap();
        fs.sync_dir(at("/d"), fs.now()).unwrap();
        fs.sync_dir(at("/"), fs.now()).unwrap();
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
        file.sync(fs.now()).unwrap();
        fs.lose_power(&mut |_| 0);
        assert_eq!(held(&fs, "/d/a").unwrap(), "off", "now it is durable");
    }

    #[test]
    fn names_are_undone_until_their_directory_is_synced_however_durable_the_bytes() {
        for synced in [false, true] {
            let fs = one_file();
            write(&fs, "/d/b", "new").sync(fs.now()).unwrap();
            fs.rename(at("/d/b"), at("/d/a")).unwrap();
            write(&fs, "/d/c", "c").sync(fs.now()).unwrap();
            fs.create_dir(at("/e")).unwrap();
            if synced {
                fs.sync_dir(at("/d"), fs.now()).unwrap();
            }
            fs.lose_power(&mut |_| 0);
            assert_eq!(held(&fs, "/d/a").unwrap(), if synced { "new" } else { "old" });
            assert_eq!((held(&fs, "/d/b"), held(&fs, "/d/c").is_some()), (None, synced));
            assert!(!fs.exists(at("/e")));
        }
    }

    #[test]
    fn what_is_written_cut_or_named_while_a_sync_is_under_way_is_not_covered_by_it() {
        let fs = one_file();
        let file = fs.open(at("/d/a")).unwrap();
        file.write_all_at(b"er", 3).unwrap();
        write(&fs, "/d/b", "b");
        let then = fs.now();
        file.set_len(0).unwrap();
        file.write_all_at(b"new text", 0).unwrap();
        write(&fs, "/d/c", "c");
        fs.remove_file(at("/d/b")).unwrap();
        file.sync(then).unwrap();
        fs.sync_dir(at("/d"), then).unwrap();
        assert_eq!(held(&fs, "/d/a").unwrap(), "new text");
        fs.lose_power(&mut |_| 0);
        assert_eq!(held(&fs, "/d/a").unwrap(), "older");
        assert_eq!((held(&fs, "/d/b").unwrap(), held(&fs, "/d/c")), (String::new(), None));
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
        assert!(file.sync(fs.now()).is_err() && fs.sync_dir(at("/d"), fs.now()).is_err() && fs.has_failed());
        fs.lose_power(&mut |_| 0);
        assert!(!fs.has_failed() && fs.open(at("/d/a")).unwrap().sync(fs.now()).is_ok());
    }
}
