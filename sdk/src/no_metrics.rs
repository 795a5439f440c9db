//! What takes the place of `metrics` without the feature: nothing is measured, and nothing is left of the calls.
#![allow(clippy::unused_self, reason = "of the same shape as what it replaces")]

use std::sync::Arc;
use std::time::Duration;

use klamm_wire::SealedBatch;

pub(crate) struct Meter;

#[derive(Clone)]
pub(crate) struct BufferMeter;

impl BufferMeter {
    pub(crate) fn new(_client_id: Option<&str>, _total: usize) -> Self {
        Self
    }

    pub(crate) fn see(&self, _available: usize, _waiters: usize) {}
}

impl Meter {
    pub(crate) const ON: bool = false;

    pub(crate) fn new(_client_id: Option<&str>) -> Self {
        Self
    }

    pub(crate) fn batch_sent(&mut self, _topic: &Arc<str>, _queued: Duration, _batch: &SealedBatch) {}

    pub(crate) fn resolved(&mut self, _topic: &Arc<str>, _records: u32, _acknowledged: bool) {}

    pub(crate) fn request_sent(&mut self, _broker: i32, _bytes: usize) {}

    pub(crate) fn answered(&mut self, _broker: i32, _took: Duration) {}

    pub(crate) fn throttled(&mut self, _broker: i32, _pause: Duration) {}

    pub(crate) fn failed(&mut self, _code: &'static str, _batches: usize) {}

    pub(crate) fn see(&mut self, _in_flight: usize, _retries: u64) {}
}
