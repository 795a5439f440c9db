//! FindCoordinator: of groups. Coordinators of transactions are not there yet.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

fn find(kind: i8, keys: &[&str]) -> Value {
    json!({ "Key": keys.first().unwrap_or(&""), "KeyType": kind, "CoordinatorKeys": keys })
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case(10, "of a group").ask(find(0, &["readers"])),
        case(10, "asked of another broker").ask_of(2, find(0, &["readers"])),
        case(10, "of several groups").ask(find(0, &["a", "b", "a"])).versions(4..=6),
        case(10, "of none").ask(find(0, &[])).versions(4..=6),
        case(10, "of a group without a name").ask(find(0, &[""])),
        case(10, "of a kind that is not known").ask(find(9, &["a"])).versions(1..=6),
        damaged(10, json!({ "Key": "", "CoordinatorKeys": [] })),
    ]
}
