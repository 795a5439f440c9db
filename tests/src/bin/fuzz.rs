//! Mutated bytes into every fuzz target, on stable Rust: none may panic, hang, or allocate more than the bytes justify.
//!
//! It begins with bytes recorded from Apache Kafka; mutations are seeded, so a failing run is replayed by the `--seed` that
//! it began with. A failing input is written to a file, which `--replay` takes. With `--corpus` it writes what cargo-fuzz begins with.
#![allow(clippy::print_stdout, reason = "a tool prints")]

use std::alloc::System;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use klamm_tests::fuzz::corpus::{Sample, samples};
use klamm_tests::fuzz::mutate::mutate;
use klamm_tests::fuzz::{TARGETS, Target, target};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The first panic of an input, wherever it was: a runtime catches those of its tasks.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// What a target may still hold after all its inputs, such as a cluster for the next one.
const KEPT_BYTES: usize = 4 << 20;

/// Inputs from one seed.
const INPUTS_PER_SEED: usize = 50;

/// Feeds mutated bytes to every fuzz target.
#[derive(Debug, Parser)]
struct Options {
    /// How long in all, shared equally by the targets
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// First seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these targets
    #[arg(long)]
    target: Vec<String>,
    /// Run one target on this file and nothing else
    #[arg(long, requires = "target")]
    replay: Option<PathBuf>,
    /// Write the samples that fuzzing begins with into a folder per target here, and do nothing else
    #[arg(long)]
    corpus: Option<PathBuf>,
}

fn main() -> io::Result<ExitCode> {
    let options = Options::parse();
    let chosen = |name: &String| {
        target(name).ok_or_else(|| io::Error::other(format!("there is no fuzz target {name}: {}", names())))
    };
    let mut targets = options.target.iter().map(chosen).collect::<io::Result<Vec<_>>>()?;
    if targets.is_empty() {
        targets = TARGETS.to_vec();
    }
    if let Some(folder) = options.corpus {
        return write_corpus(&folder, &targets);
    }
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut first) = PANIC.lock() {
            first.get_or_insert_with(|| panic.to_string());
        }
    }));
    if let Some(file) = options.replay {
        let input = fs::read(file)?;
        let findings: Vec<_> = targets.iter().filter_map(|target| run(target, &input).err()).collect();
        findings.iter().for_each(|what| println!("{what}"));
        return Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let share = Duration::from_secs(options.seconds) / u32::try_from(targets.len()).unwrap_or(1);
    for target in &targets {
        if !fuzz(target, options.seed, share)? {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn names() -> String {
    TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ")
}

fn write_corpus(folder: &std::path::Path, targets: &[Target]) -> io::Result<ExitCode> {
    for target in targets {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder)?;
        let samples = samples(target.name)?;
        for (number, Sample { name, bytes }) in samples.iter().enumerate() {
            fs::write(folder.join(format!("{number:04}-{name}")), bytes)?;
        }
        println!("{:16} {} samples", target.name, samples.len());
    }
    Ok(ExitCode::SUCCESS)
}

/// Fuzzes one target for a while; `false` after a finding.
fn fuzz(target: &Target, first_seed: u64, time: Duration) -> io::Result<bool> {
    let samples = samples(target.name)?;
    let end = Instant::now() + time;
    let (mut inputs, mut seed, mut worst) = (0_u64, first_seed, 0);
    let before = live_bytes();
    let bent = |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        let samples = &samples;
        std::iter::repeat_with(move || {
            let sample = &samples[random.usize(..samples.len())];
            let other = &samples[random.usize(..samples.len())];
            mutate(&mut random, &sample.bytes, &other.bytes)
        })
    };
    let mut next = samples.iter().map(|sample| sample.bytes.clone()).collect::<Vec<_>>();
    while Instant::now() < end || inputs == 0 {
        for input in next {
            match run(target, &input) {
                Ok(allocated) => worst = worst.max(allocated),
                Err(what) => {
                    let file = std::env::temp_dir().join(format!("klamm-fuzz-{}-{seed}.bin", target.name));
                    fs::write(&file, &input)?;
                    println!("{}: {what}: seed {seed}, input in {}", target.name, file.display());
                    return Ok(false);
                }
            }
            inputs += 1;
        }
        next = bent(seed).take(INPUTS_PER_SEED).collect();
        seed += 1;
    }
    drop(next);
    (target.end)();
    let kept = live_bytes().saturating_sub(before);
    if kept > KEPT_BYTES {
        println!("{}: {kept} bytes are still allocated after {inputs} inputs", target.name);
        return Ok(false);
    }
    println!(
        "{:16} {inputs} inputs from {} samples, seeds {first_seed} to {seed}, at most {worst} bytes allocated for one: no finding",
        target.name,
        samples.len(),
    );
    Ok(true)
}

fn live_bytes() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

/// Runs one input; bytes allocated, or what is wrong.
fn run(target: &Target, input: &[u8]) -> Result<usize, String> {
    let region = Region::new(ALLOCATOR);
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let allocated = region.change().bytes_allocated;
    let panic = PANIC.lock().ok().and_then(|mut panic| panic.take());
    if let Some(panic) = panic {
        return Err(panic);
    }
    if outcome.is_err() {
        return Err("it panicked".to_owned());
    }
    let allowed = target.fixed_bytes + target.bytes_per_byte * input.len();
    if allocated > allowed {
        return Err(format!("{allocated} bytes allocated, {allowed} allowed"));
    }
    Ok(allocated)
}
