//! Examples of klamm, one file per thing a user wants to do. Run one with `cargo run --release --example NAME`.
