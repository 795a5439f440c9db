//! Heartbeat, LeaveGroup, SyncGroup, DescribeGroups, ListGroups, DeleteGroups, OffsetDelete: of groups and members that are
//! not there, and of groups without members. What they say to members stands with JoinGroup.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

use crate::groups::{commit, fetch, heartbeat, leave, sync};

fn describe(groups: &[&str]) -> Value {
    json!({ "Groups": groups, "IncludeAuthorizedOperations": true })
}

fn delete_offsets(group: &str, parts: &[(&str, i32)]) -> Value {
    let topic = |(topic, partition): &(&str, i32)| json!({ "Name": topic, "Partitions": [{ "PartitionIndex": partition }] });
    json!({ "GroupId": group, "Topics": parts.iter().map(topic).collect::<Vec<_>>() })
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = members();
    cases.extend(administrators());
    cases
}

fn members() -> Vec<Case> {
    vec![
        case(12, "of nobody").ask(heartbeat("nobodys", "m", 1)).ask(heartbeat("", "m", 1)),
        case(12, "in a group without members")
            .first(1, 8, 8, commit("beats-{v}", "", -1, "orders", 5))
            .ask(heartbeat("beats-{v}", "m", 1)),
        damaged(12, heartbeat("nobodys", "m", 1)),
        case(13, "of nobody").ask(leave("nobodys", "m")).ask(leave("", "m")),
        case(13, "in a group without members")
            .first(1, 8, 8, commit("leaves-{v}", "", -1, "orders", 5))
            .ask(leave("leaves-{v}", "m"))
            .ask(leave("leaves-{v}", "")),
        case(13, "no members").ask(json!({ "GroupId": "nobodys", "Members": [] })).versions(3..=5),
        damaged(13, leave("nobodys", "m")),
        case(14, "of nobody").ask(sync("nobodys", "m", 1)).ask(sync("", "m", 1)),
        case(14, "in a group without members")
            .first(1, 8, 8, commit("syncs-{v}", "", -1, "orders", 5))
            .ask(sync("syncs-{v}", "m", 1)),
        damaged(14, sync("nobodys", "m", 1)),
    ]
}

fn administrators() -> Vec<Case> {
    let listed = |states: &[&str], types: &[&str]| json!({ "StatesFilter": states, "TypesFilter": types });
    vec![
        case(15, "groups that are there and groups that are not")
            .unordered("Groups", "GroupId")
            .first(1, 8, 8, commit("described-{v}", "", -1, "orders", 5))
            .ask(describe(&["described-{v}", "nobodys", ""])),
        case(15, "none").ask(describe(&[])),
        case(15, "asked of another broker").ask_of(2, describe(&["nobodys"])),
        damaged(15, describe(&["nobodys"])),
        case(16, "no state and no type fits")
            .ask(listed(&["Dead"], &[]))
            .ask(listed(&[], &["share"]))
            .versions(5..=5),
        case(16, "asked of another broker").ask_of(2, listed(&[], &[])),
        damaged(16, listed(&["Dead"], &["share"])).versions(5..=5),
        case(42, "groups that are there and groups that are not")
            .unordered("Results", "GroupId")
            .first(1, 8, 8, commit("deleted-{v}", "", -1, "orders", 5))
            .ask(json!({ "GroupsNames": ["deleted-{v}", "nobodys", "", "nobodys"] }))
            .then(1, 9, 7, fetch("deleted-{v}", Some(&["orders"])))
            .ask(json!({ "GroupsNames": ["deleted-{v}"] })),
        case(42, "asked of another broker").ask_of(2, json!({ "GroupsNames": ["nobodys"] })),
        damaged(42, json!({ "GroupsNames": ["nobodys"] })),
        case(47, "offsets that are there and offsets that are not")
            .unordered("Topics", "Name")
            .first(1, 8, 8, commit("forgets-{v}", "", -1, "orders", 5))
            .ask(delete_offsets(
                "forgets-{v}",
                &[("orders", 0), ("empty", 0), ("unheard-of", 0), ("solo", 7)],
            ))
            .then(1, 9, 7, fetch("forgets-{v}", Some(&["orders"])))
            .ask(delete_offsets("forgets-{v}", &[])),
        case(47, "of a group that is not there")
            .ask(delete_offsets("nobodys", &[("orders", 0)]))
            .ask(delete_offsets("", &[("orders", 0)])),
        damaged(47, delete_offsets("nobodys", &[("orders", 0)])),
    ]
}
