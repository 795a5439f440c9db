//! Mutated bytes into every decoder: none may panic, abort, or allocate more than the bytes justify.
//!
//! The corpus is the golden bytes recorded from Apache Kafka plus batches made here; mutations are seeded, so a
//! failing run is replayed with `--seed`. A failing input is written to a file and named.
#![allow(clippy::print_stdout, reason = "a tool prints")]

use std::alloc::System;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use clap::Parser;
use klamm_tests::workspace;
use klamm_wire::framing::FrameSplitter;
use klamm_wire::messages::ApiKey;
use klamm_wire::metadata_records::MetadataRecord;
use klamm_wire::{BatchBuilder, Compression, ProducerStamp, RawBatch, codec};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Decompressed bytes that a batch may grow to here.
const LIMIT_BYTES: usize = 1 << 20;
/// What a decoder may allocate in total: codec windows and the limit, and a struct per element that the bytes hold.
const FIXED_BYTES: usize = 24 << 20;
const BYTES_PER_INPUT_BYTE: usize = 1024;

/// Feeds mutated bytes to every decoder.
#[derive(Debug, Parser)]
struct Options {
    /// How long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// First seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One sample and what it is a sample of.
struct Sample {
    name: String,
    /// Api key and version, if it is a message.
    api: Option<(i16, i16)>,
    bytes: Vec<u8>,
}

impl Sample {
    fn new(name: String, bytes: Vec<u8>) -> Self {
        Self { api: api_of(&name), name, bytes }
    }
}

fn corpus() -> std::io::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut folders = vec![workspace().join("sdk/wire/tests/golden")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "bin") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                samples.push(Sample::new(name, fs::read(&path)?));
            } else if path.extension().is_some_and(|extension| extension == "hex") {
                samples.extend(fs::read_to_string(&path)?.lines().filter_map(message));
            }
        }
    }
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    for compression in
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let mut builder = BatchBuilder::new(BytesMut::new());
        for index in 0..20_i64 {
            let headers = [("h", Some("1")), ("n", None)];
            builder.append(1_000 + index, Some(b"key"), Some(&[b'v'; 50]), &headers);
        }
        let sealed = builder.seal(compression, None).map_err(std::io::Error::other)?;
        let stamp = ProducerStamp { producer_id: 1, producer_epoch: 0, base_sequence: 0 };
        let bytes = [&sealed.header(stamp)[..], sealed.records()].concat();
        samples.push(Sample::new(format!("batch-made-{compression:?}"), bytes));
    }
    Ok(samples)
}

/// A line `API VERSION VARIANT BODY` of the recorded messages.
fn message(line: &str) -> Option<Sample> {
    let mut words = line.split_whitespace();
    let (api, version, variant) = (words.next()?, words.next()?, words.next()?);
    let digits = words.next().unwrap_or_default();
    let bytes = (0..digits.len() / 2).map(|at| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok());
    Some(Sample::new(format!("message-{api}-v{version}-{variant}"), bytes.collect::<Option<_>>()?))
}

fn mutate(random: &mut fastrand::Rng, sample: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..random.usize(1..=4) {
        let at = if bytes.is_empty() { 0 } else { random.usize(..bytes.len()) };
        match random.u8(..8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.u8(..8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.u8(..)),
            4 if !bytes.is_empty() => drop(bytes.remove(at)),
            5 if bytes.len() >= 4 => {
                let at = random.usize(..=bytes.len() - 4);
                let number = [i32::MAX, i32::MIN, -1, 0, 1 << 24, 0xffff][random.usize(..6)];
                bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            6 => bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f]).for_each(drop),
            7 if !other.is_empty() => {
                let from = random.usize(..other.len());
                let to = random.usize(from..other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..to]);
            }
            _ => {}
        }
    }
    bytes
}

/// Every decoder that can make sense of these bytes, and some that cannot.
fn decode(random: &mut fastrand::Rng, api: Option<(i16, i16)>, bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let mut records = body.clone();
    while let Some(Ok(batch)) = RawBatch::split(&mut records) {
        let _ = batch.verify_crc();
        let _ = batch.validate_records(LIMIT_BYTES);
        if let Ok(decoded) = batch.records(LIMIT_BYTES) {
            for record in decoded.iter() {
                let Ok(record) = record else { break };
                record.headers().for_each(drop);
            }
        }
    }
    let (api_key, version) = api.unwrap_or_else(|| (random.i16(0..93), random.i16(0..19)));
    let _ = codec::decode_any_request(api_key, version, body.clone());
    let _ = codec::decode_any_response(api_key, version, body.clone());
    let mut head = body.clone();
    let _ = codec::decode_request_header(&mut head);
    let mut head = body;
    let _ = codec::decode_response_header(api_key, version, &mut head);
    let _ = MetadataRecord::decode(bytes);
    let mut splitter = FrameSplitter::new(1 << 20);
    for piece in bytes.chunks(random.usize(1..=64)) {
        splitter.push(piece);
        while let Ok(Some(frame)) = splitter.next_frame() {
            drop(frame);
        }
    }
}

/// `message-Produce-v9-full`: api key and version.
fn api_of(name: &str) -> Option<(i16, i16)> {
    let mut parts = name.strip_prefix("message-")?.split('-');
    let api = parts.next()?;
    let key = (0..=i16::from(u8::MAX))
        .find(|key| ApiKey::try_from(*key).is_ok_and(|known| format!("{known:?}") == api))?;
    Some((key, parts.next()?.strip_prefix('v')?.parse().ok()?))
}

fn main() -> std::io::Result<ExitCode> {
    let options = Options::parse();
    std::panic::set_hook(Box::new(|_| {})); // the report below says more
    let samples = corpus()?;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let (mut inputs, mut seed, mut worst) = (0_u64, options.seed, 0);
    while Instant::now() < end {
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..100 {
            let sample = &samples[random.usize(..samples.len())];
            let other = &samples[random.usize(..samples.len())];
            let input = mutate(&mut random, &sample.bytes, &other.bytes);
            let region = Region::new(ALLOCATOR);
            let outcome = catch_unwind(AssertUnwindSafe(|| decode(&mut random, sample.api, &input)));
            let allocated = region.change().bytes_allocated;
            worst = worst.max(allocated);
            let allowed = FIXED_BYTES + BYTES_PER_INPUT_BYTE * input.len();
            if outcome.is_err() || allocated > allowed {
                let file = std::env::temp_dir().join(format!("klamm-fuzz-{seed}.bin"));
                fs::write(&file, &input)?;
                let what = if outcome.is_err() {
                    "a decoder panicked".to_owned()
                } else {
                    format!("{allocated} bytes allocated, {allowed} allowed")
                };
                println!("{what}: sample {}, seed {seed}, input in {}", sample.name, file.display());
                return Ok(ExitCode::FAILURE);
            }
            inputs += 1;
        }
        seed += 1;
    }
    println!(
        "{inputs} inputs from {} samples, seeds {} to {}, at most {worst} bytes allocated for one: no finding",
        samples.len(),
        options.seed,
        seed - 1
    );
    Ok(ExitCode::SUCCESS)
}
