//! OffsetCommit: who may commit what.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::json;

use crate::groups::{commit, commit_of, fetch};

fn committing(about: &str) -> Case {
    case(8, about)
}

pub(crate) fn cases() -> Vec<Case> {
    let long = "x".repeat(4097);
    vec![
        committing("without a group's membership")
            .ask(commit("commits-{v}", "", -1, "orders", 5))
            .until_taken()
            .then(1, 9, 9, fetch("commits-{v}", None))
            .ask(commit("commits-{v}", "", -1, "orders", 3))
            .then(1, 9, 7, fetch("commits-{v}", Some(&["orders", "empty"]))),
        committing("partitions and topics that are not there").ask(commit_of(
            "commits-b-{v}",
            "",
            -1,
            &[("orders", 0, 5, None), ("orders", 9, 5, None), ("unheard-of", 0, 5, None)],
        )),
        committing("nothing that is there").ask(commit("commits-c-{v}", "", -1, "unheard-of", 5)),
        committing("metadata that is too large").ask(commit_of(
            "commits-d-{v}",
            "",
            -1,
            &[("orders", 0, 5, Some(&long)), ("empty", 0, 6, Some("short"))],
        )),
        committing("a member that nobody knows")
            .ask(commit("commits-e-{v}", "somebody", 1, "orders", 5))
            .ask(commit("commits-e-{v}", "somebody", -1, "orders", 5))
            .ask(commit("commits-e-{v}", "somebody", 1, "orders", 5)),
        committing("a group without a name").ask(commit("", "", -1, "orders", 5)),
        committing("no topics").ask(commit_of("commits-f-{v}", "", -1, &[])),
        committing("odd numbers").ask(commit("commits-g-{v}", "", -7, "orders", -1)).ask(commit(
            "commits-g-{v}",
            "",
            -1,
            "orders",
            i64::MAX,
        )),
        damaged(8, json!({ "GroupId": "g", "Topics": [] })).versions(2..=9),
    ]
}
