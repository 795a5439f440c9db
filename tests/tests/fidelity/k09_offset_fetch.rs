//! OffsetFetch: of one group, of several, of everything.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::json;

use crate::groups::{commit, fetch};

fn fetching(about: &str) -> Case {
    case(9, about)
}

pub(crate) fn cases() -> Vec<Case> {
    let both = json!({
        "RequireStable": true,
        "Groups": [
            { "GroupId": "fetches-b-{v}", "MemberId": null, "MemberEpoch": -1, "Topics": null },
            { "GroupId": "nobodys", "MemberId": "m", "MemberEpoch": 3, "Topics": [] },
            { "GroupId": "", "MemberId": null, "MemberEpoch": -1, "Topics": null },
        ],
    });
    vec![
        fetching("what is committed and what is not")
            .first(1, 8, 8, commit("fetches-{v}", "", -1, "orders", 5))
            .ask(fetch("fetches-{v}", Some(&["orders", "empty"])))
            .ask(fetch("fetches-{v}", Some(&["unheard-of"])))
            .ask(fetch("fetches-{v}", Some(&[]))),
        fetching("everything")
            .first(1, 8, 8, commit("fetches-a-{v}", "", -1, "orders", 5))
            .ask(fetch("fetches-a-{v}", None))
            .versions(2..=10),
        fetching("of a group that nobody knows").ask(fetch("nobodys", Some(&["orders"]))),
        fetching("everything of a group that nobody knows").ask(fetch("nobodys", None)).versions(2..=10),
        fetching("several groups")
            .first(1, 8, 8, commit("fetches-b-{v}", "", -1, "orders", 5))
            .ask(both)
            .versions(8..=10),
        damaged(9, json!({ "GroupId": "g", "Topics": [], "Groups": [] })),
    ]
}
