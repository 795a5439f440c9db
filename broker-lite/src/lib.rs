//! A small, truly replicated Kafka-compatible cluster, inside your process or as a binary.
//!
//! [`Cluster`] starts a controller and N brokers. Every broker has its own log of every partition
//! it holds; followers pull from leaders, leaders are elected by the controller, and nothing is
//! shared behind their backs. Clients reach it through [`Handle`] (in process) or over TCP.
//!
//! ```text
//!  client ──Handle──┐                    ┌──▶ api/*  ──▶ Partition (log, replica machine)
//!                   ├──▶ conversation ──▶│                 ▲ Fetch
//!  client ──TCP─────┘    (in order)      └──▶ controller   └── fetchers of the other brokers
//! ```
//!
//! Failure is as easy to ask for as success: [`Cluster::kill`] and [`Cluster::pause`] for processes, [`Cluster::cut`],
//! [`Cluster::latency`] and [`Cluster::loss`] for the network, [`Cluster::on`] for single requests. What holds is held
//! by a guard and ends with it; what happened is told by [`Cluster::events`] and [`Cluster::record_requests`].
//!
//! Invariant: decisions are taken in `broker-lite-core`; this crate moves bytes, time and messages.

mod api;
mod broker;
mod cluster;
mod cluster_id;
mod controller;
mod disk;
mod group;
mod handle;
mod identity;
mod journal;
mod node;
mod process;
mod rt;
mod rules;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

// What the integration tests share names this crate from outside.
#[cfg(test)]
extern crate self as broker_lite;

pub use cluster::{
    CheckReport, Cluster, ClusterBuilder, ClusterError, Cut, Latency, LeaderChange, LoggedRecord, Loss,
    Profile, RuleBuilder, Violation,
};
pub use disk::{DiskFault, DiskFaults, PowerLoss};
pub use handle::Handle;
pub use journal::{Ending, Event, NodeEvent, RequestEntry, RequestJournal};
pub use klamm_wire::messages::{self, ApiKey};
pub use klamm_wire::seam::{Connector, Endpoint, Frame, Link, LinkError};
pub use klamm_wire::{ErrorCode, Request};
pub use node::{Party, Side};
pub use process::{Address, NodeError, NodeOptions, NodeProcess, Voter, Voters};
pub use rules::{Answers, Call, Edit, Fault, Gate, Rule, Stage};
