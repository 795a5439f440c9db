//! UnregisterBroker: brokers that are not there.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case(64, "a broker that is not there").ask(json!({ "BrokerId": 9 })),
        case(64, "a negative broker").ask(json!({ "BrokerId": -1 })),
        damaged(64, json!({ "BrokerId": 9 })),
    ]
}
