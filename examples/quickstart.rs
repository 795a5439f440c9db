//! Ships files through a replicated cluster while a leader dies.
fn main() {}
