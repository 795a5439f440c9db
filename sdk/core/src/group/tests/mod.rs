//! A member alone, step by step, and groups of members against a model of the coordinator.

mod alone;
mod coordinator;
mod one;
mod order;
mod reasons;
mod refused;
mod world;
