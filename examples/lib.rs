//! Examples of klamm, one file per thing a user wants to do. Run one with `cargo run --release --example NAME`.

/// The examples of README.md, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
