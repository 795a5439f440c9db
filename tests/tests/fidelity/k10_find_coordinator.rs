//! FindCoordinator: version 0 is there for librdkafka, which sends nothing compressed without it.

use klamm_tests::fidelity::{Case, damaged};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    vec![damaged(10, json!({ "Key": "" }))]
}
