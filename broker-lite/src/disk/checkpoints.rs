//! Kafka's checkpoint files of a log directory: one line per partition.
//!
//! ```text
//! 0
//! <lines>
//! <topic> <partition> <offset>
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use broker_lite_core::storage::{Checkpoint, StorageError};

use super::directory::{failed, sync_directory};
use super::fs::{Fs, read_text};

const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const CLEANED: &str = "cleaner-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";

/// Topic and partition.
pub(super) type Key = (Arc<str>, i32);

/// The offsets of all partitions.
pub(super) type Offsets = BTreeMap<Key, Checkpoint>;

/// What one file holds of a checkpoint.
type Field = fn(&mut Checkpoint) -> &mut i64;

const FILES: [(&str, Field); 3] = [
    (HIGH_WATERMARKS, |checkpoint| &mut checkpoint.high_watermark),
    (RECOVERY_POINTS, |checkpoint| &mut checkpoint.recovery_point),
    (LOG_STARTS, |checkpoint| &mut checkpoint.log_start_offset),
];

/// Reads the three files; the second value tells whether there were recovery points.
///
/// # Errors
///
/// One that is there but cannot be read, or is malformed.
pub(super) fn load(fs: &dyn Fs, path: &Path) -> Result<(Offsets, bool), StorageError> {
    let mut all = Offsets::new();
    let mut has_recovery_points = false;
    for (name, field) in FILES {
        let path = path.join(name);
        let text = match read_text(fs, &path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed("read", &path, &error)),
        };
        let malformed = |reason: &str| StorageError::Malformed {
            file: path.display().to_string(),
            reason: reason.to_owned(),
        };
        for (key, offset) in parse(&text).map_err(malformed)? {
            *field(all.entry(key).or_default()) = offset;
        }
        has_recovery_points |= name == RECOVERY_POINTS;
    }
    Ok((all, has_recovery_points))
}

/// How far the logs are compacted, by partition. What cannot be read is not known, as in Kafka: it is done again.
pub(super) fn load_cleaned(fs: &dyn Fs, path: &Path) -> BTreeMap<Key, i64> {
    let path = path.join(CLEANED);
    let lines = match read_text(fs, &path) {
        Ok(text) => parse(&text).map_err(str::to_owned),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    };
    let lines = lines.unwrap_or_else(|error| {
        tracing::warn!(file = %path.display(), error, "how far logs are compacted is not known");
        Vec::new()
    });
    lines.into_iter().collect()
}

/// Writes how far the logs are compacted, and waits until that is durable.
///
/// # Errors
///
/// What the operating system says.
pub(super) fn store_cleaned(
    fs: &dyn Fs,
    path: &Path,
    cleaned: &BTreeMap<Key, i64>,
) -> Result<(), StorageError> {
    replace(fs, &path.join(CLEANED), &written(cleaned.iter().map(|(key, offset)| (key, *offset)).collect()))?;
    sync_directory(fs, path, fs.now())
}

fn written(lines: Vec<(&Key, i64)>) -> String {
    let mut text = format!("0\n{}\n", lines.len());
    for ((topic, partition), offset) in lines {
        text.push_str(&format!("{topic} {partition} {offset}\n"));
    }
    text
}

fn parse(text: &str) -> Result<Vec<(Key, i64)>, &'static str> {
    let mut lines = text.lines();
    if lines.next() != Some("0") {
        return Err("its version is not 0");
    }
    let count: usize =
        lines.next().and_then(|line| line.parse().ok()).ok_or("the number of lines is missing")?;
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (topic, partition, offset) = (words.next()?, words.next()?, words.next()?);
        let key = (Arc::from(topic), partition.parse().ok()?);
        Some((key, offset.parse().ok()?)).filter(|_| words.next().is_none())
    };
    let found: Option<Vec<_>> = lines.map(line).collect();
    let found = found.ok_or("a line is not TOPIC PARTITION OFFSET")?;
    if found.len() == count { Ok(found) } else { Err("the number of lines is not what it says") }
}

/// Writes the three files, each as a whole, and waits until they are durable.
///
/// # Errors
///
/// What the operating system says.
pub(super) fn store(fs: &dyn Fs, path: &Path, offsets: &Offsets) -> Result<(), StorageError> {
    for (name, field) in FILES {
        // Kafka has no line for a log that begins at 0.
        let shown = |(_, offset): &(&Key, i64)| name != LOG_STARTS || *offset > 0;
        let all = offsets.iter().map(|(key, checkpoint)| (key, *field(&mut checkpoint.clone())));
        replace(fs, &path.join(name), &written(all.filter(shown).collect()))?;
    }
    sync_directory(fs, path, fs.now())
}

/// Writes a file that takes the old one's place as a whole; its name is durable with the directory.
pub(super) fn replace(fs: &dyn Fs, path: &Path, text: &str) -> Result<(), StorageError> {
    let temporary = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let file = fs.create(&temporary)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.sync(fs.now())?;
        fs.rename(&temporary, path)
    };
    write().map_err(|error| failed("write", path, &error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::fs::RealFs;

    #[test]
    fn what_is_stored_is_loaded_and_looks_like_kafkas() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(load(&RealFs, temp.path()), Ok((Offsets::new(), false)));
        let checkpoint = Checkpoint { high_watermark: 7, log_start_offset: 0, recovery_point: 9 };
        let other = Checkpoint { log_start_offset: 3, ..checkpoint };
        let offsets: Offsets = [(("a.b".into(), 0), checkpoint), (("a.b".into(), 11), other)].into();
        store(&RealFs, temp.path(), &offsets).unwrap();
        assert_eq!(load(&RealFs, temp.path()), Ok((offsets, true)));
        let text = |name| fs::read_to_string(temp.path().join(name)).unwrap();
        assert_eq!(text(HIGH_WATERMARKS), "0\n2\na.b 0 7\na.b 11 7\n");
        assert_eq!(text(LOG_STARTS), "0\n1\na.b 11 3\n");
    }

    #[test]
    fn how_far_logs_are_compacted_is_kept_as_kafka_keeps_it() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(load_cleaned(&RealFs, temp.path()), BTreeMap::new());
        let cleaned: BTreeMap<Key, i64> = [(("a".into(), 1), 5), (("b.c".into(), 0), 70)].into();
        store_cleaned(&RealFs, temp.path(), &cleaned).unwrap();
        let file = temp.path().join("cleaner-offset-checkpoint");
        assert_eq!(fs::read_to_string(&file).unwrap(), "0\n2\na 1 5\nb.c 0 70\n");
        assert_eq!(load_cleaned(&RealFs, temp.path()), cleaned);
        fs::write(&file, "1\n").unwrap();
        assert_eq!(load_cleaned(&RealFs, temp.path()), BTreeMap::new(), "it is done again");
    }

    #[test]
    fn a_malformed_checkpoint_is_named() {
        for bad in ["", "1\n0\n", "0\nx\n", "0\n1\n", "0\n1\nt 0\n", "0\n1\nt 0 5 6\n", "0\n1\nt zero 5\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(RECOVERY_POINTS), "1\n").unwrap();
        let told = load(&RealFs, temp.path()).unwrap_err().to_string();
        assert!(told.contains(RECOVERY_POINTS) && told.ends_with("version is not 0"), "{told}");
    }
}
