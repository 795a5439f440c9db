//! What stopped nodes have left in their data directories, held against each other.
//!
//! In: directories in Kafka's layout, `TOPIC-PARTITION/BASE.log`. Out: that they agree, or the first place where not.

use std::collections::BTreeMap;
use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use klamm_wire::RawBatch;

/// What was compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Batches that all replicas have, each counted once.
    pub batches: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// How much of each log must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Every replica has everything.
    Whole,
    /// One may be behind, and begin later because of a snapshot: what two of them have must be equal.
    Common,
}

/// The batches of one replica by base offset, each whole and with the right checksum.
///
/// # Errors
///
/// The directory is unreadable, or holds what is no batch.
pub fn batches(dir: &Path) -> Result<BTreeMap<i64, Bytes>, Error> {
    let mut segments: Vec<PathBuf> = fs::read_dir(dir)
        .map_err(|error| Error::other(format!("{}: {error}", dir.display())))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    let mut found = BTreeMap::new();
    for segment in segments {
        let broken = |what: String| Error::other(format!("{}: {what}", segment.display()));
        let mut rest = Bytes::from(fs::read(&segment)?);
        while let Some(batch) = RawBatch::split(&mut rest) {
            let batch = batch.map_err(|error| broken(error.to_string()))?;
            batch.verify_crc().map_err(|error| broken(error.to_string()))?;
            let (base, last) = (batch.header().base_offset, batch.header().last_offset());
            if found.last_key_value().is_some_and(|(before, _)| *before >= base) {
                return Err(broken(format!("offsets {base} to {last} come too late")));
            }
            found.insert(base, batch.bytes().clone());
        }
        if !rest.is_empty() {
            return Err(broken(format!("{} B at its end are no batch", rest.len())));
        }
    }
    Ok(found)
}

/// Compares all replicas of one partition byte for byte, by the ids of their nodes.
///
/// # Errors
///
/// Where they disagree.
pub fn compare(replicas: &BTreeMap<i32, PathBuf>, extent: Extent) -> Result<Agreement, Error> {
    let mut logs = BTreeMap::new();
    for (node, dir) in replicas {
        logs.insert(*node, batches(dir)?);
    }
    let mut agreement = Agreement::default();
    let Some((first, rest)) = logs.iter().next().map(|(node, log)| ((node, log), logs.iter().skip(1))) else {
        return Ok(agreement);
    };
    for (node, log) in rest {
        let start = first.1.keys().next().max(log.keys().next()).copied().unwrap_or_default();
        let (one, other) = (first.1.range(start..), log.range(start..));
        if extent == Extent::Whole && (first.1.len() != log.len()) {
            let (ours, theirs) = (ends(first.1), ends(log));
            return Err(Error::other(format!("node {} holds {ours}, node {node} {theirs}", first.0)));
        }
        if let Some(((at, _), (there, _))) = one.zip(other).find(|(one, other)| one != other) {
            return Err(Error::other(format!(
                "the batches at offset {at} of node {} and at offset {there} of node {node} differ",
                first.0
            )));
        }
    }
    agreement.batches = first.1.len();
    agreement.bytes = first.1.values().map(Bytes::len).sum();
    Ok(agreement)
}

fn ends(log: &BTreeMap<i64, Bytes>) -> String {
    let bases = [log.keys().next(), log.keys().next_back()].map(|base| base.copied().unwrap_or(-1));
    format!("{} batches, from {} to {}", log.len(), bases[0], bases[1])
}

/// Compares every partition of a topic.
///
/// # Errors
///
/// The first place where replicas disagree.
pub fn compare_topic(
    nodes: &BTreeMap<i32, PathBuf>,
    topic: &str,
    partitions: i32,
) -> Result<Agreement, Error> {
    let mut sum = Agreement::default();
    for partition in 0..partitions {
        let name = format!("{topic}-{partition}");
        let replicas = nodes.iter().map(|(node, dir)| (*node, dir.join(&name))).collect();
        let compared = compare(&replicas, Extent::Whole);
        let Agreement { batches, bytes } =
            compared.map_err(|error| Error::other(format!("{name}: {error}")))?;
        sum = Agreement { batches: sum.batches + batches, bytes: sum.bytes + bytes };
    }
    Ok(sum)
}

/// One batch as a log holds it, for tests.
#[doc(hidden)]
pub fn batch(base_offset: i64, value: &str) -> Bytes {
    let mut builder = klamm_wire::BatchBuilder::new(BytesMut::new());
    builder.append::<&[u8], &[u8]>(0, None, Some(value.as_bytes()), &[]);
    let Ok(sealed) = builder.seal(klamm_wire::Compression::None, None) else { return Bytes::new() };
    let mut bytes = BytesMut::from(&sealed.header(klamm_wire::batch::NO_PRODUCER)[..]);
    bytes.extend_from_slice(sealed.records());
    // The checksum does not cover the offset.
    bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(root: &Path, node: i32, segments: &[&[Bytes]]) -> PathBuf {
        let dir = root.join(node.to_string());
        fs::create_dir_all(&dir).unwrap();
        for (number, batches) in segments.iter().enumerate() {
            fs::write(dir.join(format!("{number:020}.log")), batches.concat()).unwrap();
        }
        dir
    }

    fn verdict(one: &[&[Bytes]], other: &[&[Bytes]], extent: Extent) -> Result<Agreement, String> {
        let root = tempfile::tempdir().unwrap();
        let replicas =
            BTreeMap::from([(1, replica(root.path(), 1, one)), (2, replica(root.path(), 2, other))]);
        compare(&replicas, extent).map_err(|error| error.to_string())
    }

    #[test]
    fn replicas_are_equal_however_they_are_cut_into_segments() {
        let [a, b, c] = [batch(0, "a"), batch(1, "b"), batch(2, "c")];
        let agreed = verdict(
            &[&[a.clone(), b.clone()], std::slice::from_ref(&c)],
            &[&[a, b, c.clone()]],
            Extent::Whole,
        )
        .unwrap();
        assert_eq!(agreed.batches, 3);
    }

    #[test]
    fn what_differs_is_named_by_its_place() {
        let [a, b, x] = [batch(0, "a"), batch(1, "b"), batch(1, "x")];
        let told = verdict(&[&[a.clone(), b.clone()]], &[&[a.clone(), x]], Extent::Whole).unwrap_err();
        assert_eq!(told, "the batches at offset 1 of node 1 and at offset 1 of node 2 differ");
        let told =
            verdict(&[&[a.clone(), b.clone()]], &[std::slice::from_ref(&a)], Extent::Whole).unwrap_err();
        assert_eq!(told, "node 1 holds 2 batches, from 0 to 1, node 2 1 batches, from 0 to 0");
        // A log of which another one lacks the beginning, or the end.
        assert!(verdict(&[&[a.clone(), b.clone()]], &[std::slice::from_ref(&b)], Extent::Common).is_ok());
        let mut torn = b.to_vec();
        *torn.last_mut().unwrap() ^= 1;
        assert!(verdict(&[&[a.clone(), b]], &[&[a, torn.into()]], Extent::Common).is_err());
    }
}
