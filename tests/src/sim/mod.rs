//! The simulation program: clients and a cluster in virtual time, faults by schedule, every history judged.
//!
//! ```text
//! seed ──▶ Scenario (data) ──▶ run: producers, consumers, schedule ──▶ History, logs ──▶ checker ──▶ verdict
//!             ▲ shrunk                                                                      │ violation
//!             └─────────────────────────────────────────────────────────────────────────────┘
//! ```

mod clients;
mod groups;
mod power;
mod run;
mod scenario;

pub use power::{Outages, power_off};
pub use run::{Broken, Stats, run};
pub use scenario::{Grouping, Producing, Scenario, Workload};
