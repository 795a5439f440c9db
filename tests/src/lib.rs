//! Harness shared by the tests, benchmarks and tools of the workspace: processes that are reaped, peers that
//! are found or reported as missing.

pub mod autopsy;
pub mod backend;
pub mod chaos;
pub mod contract;
pub mod fidelity;
pub mod fuzz;
pub mod history;
pub mod java;
pub mod measure;
pub mod members;
pub mod nodes;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod sim;
pub mod suite;
pub mod usage;
pub mod workers;

use std::io::Write;
use std::path::{Path, PathBuf};

/// The workspace's root.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| ".".into(), Path::to_path_buf)
}

/// Reports a missing peer: fails under `REQUIRE=all`, else prints `SKIPPED` with the reason.
///
/// # Panics
///
/// Under `REQUIRE=all`, which is how `tests/run` and CI call the tests.
#[allow(clippy::panic, reason = "this is how a test reports")]
pub fn skipped(what: &str, reason: &str) {
    if std::env::var("REQUIRE").is_ok_and(|value| value == "all") {
        panic!("{what} is required (REQUIRE=all) but not here: {reason}");
    }
    // Not `eprintln!`, which the test runner keeps to itself when a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {reason}");
}
