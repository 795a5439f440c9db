//! ApiVersions: who asks; what is advertised is compared by itself (`NOT_ADVERTISED`).

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    let named =
        |name: &str, version: &str| json!({ "ClientSoftwareName": name, "ClientSoftwareVersion": version });
    let mut refused = case(18, "names of clients that are refused").versions(3..=4);
    for bad in ["", "-a", "a.", "a b", "ä", "a_b", "."] {
        refused = refused.ask(named(bad, "1")).ask(named("a", bad));
    }
    vec![refused, damaged(18, named("a", "1.0"))]
}
