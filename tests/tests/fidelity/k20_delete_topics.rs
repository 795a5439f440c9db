//! DeleteTopics: by name and by id.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

const NOBODYS: &str = "00112233445566778899aabbccddeeff";

/// By name, in every version's own way.
fn names(names: &[&str]) -> Value {
    let topics: Vec<_> = names.iter().map(|name| json!({ "Name": name })).collect();
    json!({ "Topics": topics, "TopicNames": names, "TimeoutMs": 10_000 })
}

fn states(states: &[(Value, &str)]) -> Value {
    let topics: Vec<_> = states.iter().map(|(name, id)| json!({ "Name": name, "TopicId": id })).collect();
    json!({ "Topics": topics, "TimeoutMs": 10_000 })
}

fn deletion(about: &str) -> Case {
    case(20, about).unordered("Responses", "Name")
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        deletion("topics by name")
            .topic("gone-a-{v}", &[&[1]])
            .topic("gone-b-{v}", &[&[2]])
            .ask(names(&["gone-a-{v}", "gone-b-{v}"]))
            .gone("gone-a-{v}")
            .ask(names(&["gone-a-{v}"])),
        deletion("an unknown topic").ask(names(&["unheard-of"])),
        deletion("good ones and bad ones").topic("gone-c-{v}", &[&[1]]).ask(names(&[
            "gone-c-{v}",
            "unheard-of",
            "",
        ])),
        deletion("a topic twice").topic("gone-d-{v}", &[&[1]]).ask(names(&["gone-d-{v}", "gone-d-{v}"])),
        deletion("no topics").ask(names(&[])),
        deletion("names that cannot be").ask(names(&["", "a b", ".."])),
        deletion("the cluster's own").ask(names(&["__cluster_metadata"])),
        deletion("a topic by id")
            .topic("gone-e-{v}", &[&[1]])
            .ask(states(&[(Value::Null, "$id:gone-e-{v}")]))
            .gone("gone-e-{v}")
            .ask(states(&[(Value::Null, "$id:gone-e-{v}")]))
            .versions(6..=6),
        deletion("an id that nobody has").ask(states(&[(Value::Null, NOBODYS)])).versions(6..=6),
        deletion("neither name nor id").ask(states(&[(Value::Null, &"0".repeat(32))])).versions(6..=6),
        deletion("both name and id")
            .topic("gone-f-{v}", &[&[1]])
            .ask(states(&[(json!("gone-f-{v}"), "$id:gone-f-{v}")]))
            .versions(6..=6),
        deletion("one by name and by id")
            .topic("gone-g-{v}", &[&[1]])
            .ask(states(&[(Value::Null, "$id:gone-g-{v}"), (json!("gone-g-{v}"), &"0".repeat(32))]))
            .versions(6..=6),
        deletion("an id twice")
            .topic("gone-h-{v}", &[&[1]])
            .ask(states(&[(Value::Null, "$id:gone-h-{v}"), (Value::Null, "$id:gone-h-{v}")]))
            .versions(6..=6),
        damaged(20, names(&["unheard-of"])),
    ]
}
