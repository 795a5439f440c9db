//! The file system of a log directory: the machine's, or one in memory that forgets what a real one may forget.
//!
//! Errors are the operating system's.

#[cfg(feature = "sim")]
mod simulated;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "sim")]
pub(super) use simulated::SimulatedFs;

/// A point in the order of all changes to a file system. An fsync need not cover what is changed after it has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

/// What is done to files by their names. All paths are absolute.
pub(super) trait Fs: fmt::Debug + Send + Sync {
    /// After everything that was changed so far.
    fn now(&self) -> Moment;

    /// Opens a file that exists, to read and to write.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>>;

    /// Makes an empty file, or empties the one there is.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>>;

    /// Size of a file.
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// The whole of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Everything in a directory, in order of names; what is no text is left out.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// Whether there is something of that name.
    fn exists(&self, path: &Path) -> bool;

    /// Makes a directory.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Gives a file or directory another name, in place of the file that had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names durable that a directory had then; waits for that.
    fn sync_dir(&self, path: &Path, then: Moment) -> io::Result<()>;

    /// Whether it takes no time, so that nothing is gained by doing several things at once, and a seed replays.
    fn is_simulated(&self) -> bool;
}

/// A file that is open.
pub(super) trait OpenFile: fmt::Debug + Send + Sync {
    /// Fills `buf` from `position` on.
    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()>;

    /// Writes all of it at `position`.
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Cuts it.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes durable what it held then; waits for that.
    fn sync(&self, then: Moment) -> io::Result<()>;
}

/// Something in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Or a link to one.
    pub(super) is_dir: bool,
}

/// A text, as a whole.
pub(super) fn read_text(fs: &dyn Fs, path: &Path) -> io::Result<String> {
    String::from_utf8(fs.read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))
}

/// The machine's.
#[derive(Debug)]
pub(super) struct RealFs;

impl Fs for RealFs {
    /// The operating system's fsync covers all that was written before.
    fn now(&self) -> Moment {
        Moment(0)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                let kind = entry.file_type()?;
                // A link that leads nowhere is no directory.
                let linked = kind.is_symlink() && entry.path().is_dir();
                found.push(Entry { name, is_dir: kind.is_dir() || linked });
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path, _then: Moment) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn is_simulated(&self) -> bool {
        false
    }
}

impl OpenFile for File {
    #[cfg(unix)]
    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buf, position)
    }

    #[cfg(unix)]
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, position)
    }

    #[cfg(not(unix))]
    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        use std::io::{Read, Seek};
        let mut file = self;
        file.seek(io::SeekFrom::Start(position))?;
        file.read_exact(buf)
    }

    #[cfg(not(unix))]
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        use std::io::{Seek, Write};
        let mut file = self;
        file.seek(io::SeekFrom::Start(position))?;
        file.write_all(bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&self, _then: Moment) -> io::Result<()> {
        self.sync_data()
    }
}
