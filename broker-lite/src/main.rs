//! The binary `broker-lite`.
fn main() {}
