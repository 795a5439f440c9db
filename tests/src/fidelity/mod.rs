//! The same requests to Apache Kafka and to broker-lite, and their answers compared field by field.
//!
//! ```text
//! Case (data) ──▶ encode ──▶ Side: Apache Kafka ──▶ decode ──▶ normalize ─┐
//!             └─▶ encode ──▶ Side: broker-lite  ──▶ decode ──▶ normalize ─┴▶ differences ──▶ allowed, or failed
//! ```
//!
//! Nothing of our own codec nor of `kafka-protocol` takes part: requests are written and answers are read along Kafka's
//! own schemas (`schemas.jsonl`), so that a mistake shared by our client and our broker shows.

/// Prints a line; whoever does not listen misses it.
macro_rules! tell {
    ($where:ident, $($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::$where(), $($text)*);
    }};
}

pub mod allowed;
mod case;
mod compare;
mod damage;
mod decode;
mod encode;
mod normal;
mod program;
mod records;
mod run;
mod schema;
mod side;
mod tree;
mod verdict;
mod wire;

pub use case::{Case, Step, case};
pub use compare::{Difference, differences};
pub use damage::{damaged, framing};
pub use program::run_main;
pub use run::Suite;
pub use schema::{Api, api, apis};
pub use side::Side;
pub use tree::Node;
pub use verdict::Allowed;
