//! JoinGroup, and what a member does then.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

use crate::groups::{commit, fetch, heartbeat, join, leave, sync};

fn joining(about: &str) -> Case {
    case(11, about)
        .vague("MemberId", "an id")
        .vague("Leader", "an id")
        .vague("Members.MemberId", "an id")
        .vague("Groups.Members.MemberId", "an id")
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        joining("a member comes and goes")
            .ask(join("joins-{v}", "", None))
            .keep("member", "MemberId")
            .ask(join("joins-{v}", "$member", None))
            .then(1, 14, 5, sync("joins-{v}", "$member", 1))
            .then(1, 12, 4, heartbeat("joins-{v}", "$member", 1))
            .then(1, 12, 4, heartbeat("joins-{v}", "$member", 2))
            .then(1, 8, 8, commit("joins-{v}", "$member", 1, "orders", 7))
            .then(1, 8, 8, commit("joins-{v}", "$member", 0, "orders", 8))
            .then(1, 8, 8, commit("joins-{v}", "", -1, "orders", 8))
            .then(1, 9, 7, fetch("joins-{v}", Some(&["orders"])))
            .then(1, 15, 5, json!({ "Groups": ["joins-{v}"], "IncludeAuthorizedOperations": true }))
            .then(1, 42, 2, json!({ "GroupsNames": ["joins-{v}"] }))
            .then(1, 13, 5, leave("joins-{v}", "$member"))
            .then(1, 13, 5, leave("joins-{v}", "$member"))
            .then(1, 15, 5, json!({ "Groups": ["joins-{v}"], "IncludeAuthorizedOperations": false }))
            .versions(4..=9),
        joining("at once")
            .ask(join("joins-a-{v}", "", None))
            .keep("member", "MemberId")
            .then(1, 14, 3, sync("joins-a-{v}", "$member", 1))
            .ask(join("joins-a-{v}", "$member", None))
            .versions(0..=3),
        joining("a static member is back")
            .ask(join("joins-b-{v}", "", Some("one")))
            .keep("member", "MemberId")
            .then(1, 14, 5, with(sync("joins-b-{v}", "$member", 1), "GroupInstanceId", json!("one")))
            .ask(join("joins-b-{v}", "", Some("one")))
            .keep("next", "MemberId")
            .then(1, 12, 4, with(heartbeat("joins-b-{v}", "$member", 1), "GroupInstanceId", json!("one")))
            .then(1, 12, 4, with(heartbeat("joins-b-{v}", "$next", 1), "GroupInstanceId", json!("one")))
            .then(1, 14, 5, with(sync("joins-b-{v}", "$next", 1), "GroupInstanceId", json!("one")))
            .ask(join("joins-b-{v}", "$member", Some("one")))
            .ask(join("joins-b-{v}", "$next", Some("two")))
            .versions(5..=9),
        joining("what cannot be")
            .ask(join("", "", None))
            .ask(with(join("joins-c-{v}", "", None), "SessionTimeoutMs", json!(10)))
            .ask(with(join("joins-c-{v}", "", None), "SessionTimeoutMs", json!(10_000_000)))
            .ask(with(join("joins-c-{v}", "", None), "ProtocolType", json!("")))
            .ask(with(join("joins-c-{v}", "", None), "Protocols", json!([])))
            .ask(join("joins-c-{v}", "somebody", None))
            .ask(join("joins-d-{v}", "somebody", None)),
        joining("of another kind")
            .ask(join("joins-e-{v}", "", None))
            .keep("member", "MemberId")
            .ask(join("joins-e-{v}", "$member", None))
            .ask(with(join("joins-e-{v}", "", None), "ProtocolType", json!("connect")))
            .ask(with(
                join("joins-e-{v}", "", None),
                "Protocols",
                json!([{ "Name": "other", "Metadata": "" }]),
            ))
            .then(1, 14, 5, with(sync("joins-e-{v}", "$member", 1), "ProtocolName", json!("other")))
            .then(1, 14, 5, with(sync("joins-e-{v}", "$member", 1), "ProtocolType", json!(null)))
            .versions(4..=9),
        damaged(11, join("joins-damaged", "nobody", None)),
    ]
}
