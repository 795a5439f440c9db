//! What the measuring programs share: samples and what is said of them, and a watchdog that tells how much of a time was
//! the machine's fault.

pub mod client;
mod stalls;
mod times;

pub use stalls::{Stalls, Watchdog};
pub use times::Times;
