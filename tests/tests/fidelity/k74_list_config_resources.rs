//! ListConfigResources.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    let list = |about: &str| case(74, about);
    vec![
        // Without kinds version 0 asks for client metrics.
        list("client metrics").ask(json!({ "ResourceTypes": [16] })),
        list("groups").ask(json!({ "ResourceTypes": [32] })).versions(1..=1),
        list("brokers")
            .ask(json!({ "ResourceTypes": [4] }))
            .unordered("ConfigResources", "ResourceName")
            .versions(1..=1),
        list("loggers")
            .ask(json!({ "ResourceTypes": [8] }))
            .unordered("ConfigResources", "ResourceName")
            .versions(1..=1),
        list("kinds that are none")
            .ask(json!({ "ResourceTypes": [0] }))
            .ask(json!({ "ResourceTypes": [99, 4] }))
            .versions(1..=1),
        damaged(74, json!({ "ResourceTypes": [16] })),
    ]
}
