//! The bodies of the fuzz targets: what is done with any bytes, and what must hold then.
//!
//! In: bytes from a fuzzer. Out: nothing, or a panic, which is a finding. Two programs drive them: cargo-fuzz
//! (`tests/fuzz`, one binary per target, led by coverage) and `tests/src/bin/fuzz.rs` (stable Rust, all targets, led by
//! chance, counting allocations). Both begin with the samples of [`corpus`].
//!
//! Invariant: what a target does depends on its input only, so that a finding can be replayed by its bytes. (The front
//! door keeps a cluster for a while, see there.)

pub mod corpus;
mod decoders;
pub mod front_door;
mod groups;
pub mod mutate;

/// One thing that takes any bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its binary in `tests/fuzz`.
    pub name: &'static str,
    /// What it does. Panics if the bytes broke something.
    pub run: fn(&[u8]),
    /// Lets go of what it keeps from one input to the next, so that what is left then has leaked.
    pub end: fn(),
    /// What one input may allocate in all, whatever its length…
    pub fixed_bytes: usize,
    /// …and for each of its bytes.
    pub bytes_per_byte: usize,
}

/// Codec windows and the limit of decompressed bytes.
const FIXED_BYTES: usize = 24 << 20;
/// A struct for each element that the bytes hold.
const BYTES_PER_BYTE: usize = 1024;

const fn decoder(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, end: || {}, fixed_bytes: FIXED_BYTES, bytes_per_byte: BYTES_PER_BYTE }
}

/// Every target.
pub const TARGETS: &[Target] = &[
    decoder("record_batch", decoders::record_batch),
    decoder("gzip", decoders::gzip),
    decoder("snappy", decoders::snappy),
    decoder("lz4", decoders::lz4),
    decoder("zstd", decoders::zstd),
    decoder("request_body", decoders::request_body),
    decoder("response_body", decoders::response_body),
    decoder("request_header", decoders::request_header),
    decoder("response_header", decoders::response_header),
    decoder("frame_splitter", decoders::frame_splitter),
    decoder("metadata_record", decoders::metadata_record),
    decoder("schema_walk", decoders::schema_walk),
    Target {
        name: "front_door",
        run: front_door::knock,
        end: front_door::leave,
        fixed_bytes: front_door::FIXED_BYTES,
        bytes_per_byte: front_door::BYTES_PER_BYTE,
    },
    Target {
        name: "voter_door",
        run: front_door::knock_at_voter,
        end: front_door::leave,
        fixed_bytes: front_door::FIXED_BYTES,
        bytes_per_byte: front_door::BYTES_PER_BYTE,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}

/// What `tests/fuzz`'s binary of this name does with one input.
///
/// # Panics
///
/// If the bytes broke something, or there is no such target.
#[allow(clippy::panic, reason = "this is how a fuzz target reports")]
pub fn run(name: &str, input: &[u8]) {
    match target(name) {
        Some(target) => (target.run)(input),
        None => panic!("there is no fuzz target {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn every_target_takes_its_samples_and_what_becomes_of_them() {
        for target in TARGETS {
            let samples = corpus::samples(target.name).unwrap();
            assert!(samples.len() >= 6, "{}", target.name);
            let mut random = fastrand::Rng::with_seed(1);
            for sample in &samples {
                (target.run)(&sample.bytes);
                let other = &samples[random.usize(..samples.len())];
                (target.run)(&mutate::mutate(&mut random, &sample.bytes, &other.bytes));
            }
            (target.run)(&[]);
        }
    }

    /// Goal: fuzzing begins behind the first checks, not in front of them.
    #[test]
    fn recorded_bodies_and_records_are_taken_as_samples_of_what_they_are() {
        use klamm_wire::codec::{decode_any_request, decode_any_response};
        use klamm_wire::metadata_records::MetadataRecord;
        let taken = |target: &str, decode: fn(&[u8]) -> bool| {
            let samples = corpus::samples(target).unwrap();
            let taken = samples.iter().filter(|sample| decode(&sample.bytes)).count();
            (taken, samples.len())
        };
        fn body(bytes: &[u8]) -> bytes::Bytes {
            bytes[2..].to_vec().into()
        }
        let (taken_requests, requests) =
            taken("request_body", |b| decode_any_request(b[0].into(), b[1].into(), body(b)).is_ok());
        assert_eq!(taken_requests, requests);
        let (taken_responses, responses) =
            taken("response_body", |b| decode_any_response(b[0].into(), b[1].into(), body(b)).is_ok());
        assert_eq!(taken_responses, responses);
        // Some of Kafka's records are of types that are not ours.
        let (taken_records, records) = taken("metadata_record", |b| MetadataRecord::decode(b).is_ok());
        assert!(taken_records > records / 2, "{taken_records} of {records}");
    }

    #[test]
    fn cargo_fuzz_has_a_binary_for_every_target() {
        let folder = workspace().join("tests/fuzz");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let binaries = manifest.split("[[bin]]").skip(1).map(|bin| bin.split('"').nth(1).unwrap());
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        assert_eq!(binaries.collect::<Vec<_>>(), names);
        for name in names {
            let source = std::fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).unwrap();
            assert!(source.contains(&format!("run(\"{name}\", input)")), "{source}");
        }
    }
}
