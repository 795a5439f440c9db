//! `klamm groups list`.

use clap::Args;
use klamm::{GroupListing, GroupState, GroupType, ListGroups};
use serde_json::json;

use super::{failed, or_dash};
use crate::output::{Output, table};
use crate::properties::Cluster;
use crate::{Failure, say};

/// Lists the groups of a cluster.
///
/// Ends with status 1 if a broker did not answer: the groups that it coordinates are missing.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    cluster: Cluster,
    /// Only groups in this state, for example Empty or Stable; may be given several times
    #[arg(long, value_parser = parse_state)]
    state: Vec<GroupState>,
    /// Only groups of this type: classic, consumer, share or streams; may be given several times
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    of_type: Vec<GroupType>,
    /// Prints one JSON object for each group
    #[arg(long)]
    json: bool,
}

fn parse_state(text: &str) -> Result<GroupState, String> {
    match GroupState::from(text) {
        GroupState::Other(_) => {
            Err("known are Empty, PreparingRebalance, CompletingRebalance, Stable, Dead, \
            Assigning, Reconciling and NotReady"
                .to_owned())
        }
        state => Ok(state),
    }
}

fn parse_type(text: &str) -> Result<GroupType, String> {
    match GroupType::from(text) {
        GroupType::Other(_) => Err("known are classic, consumer, share and streams".to_owned()),
        group_type => Ok(group_type),
    }
}

impl List {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let admin = self.cluster.admin()?;
        let mut which = ListGroups::all();
        for state in self.state {
            which = which.in_state(state);
        }
        for group_type in self.of_type {
            which = which.of_type(group_type);
        }
        let listed = admin.list_groups(which).await.map_err(failed)?;
        let text = match self.json {
            true => listed.groups.iter().map(in_json).collect(),
            false => {
                let rows: Vec<_> = listed.groups.iter().map(row).collect();
                table(&["GROUP", "TYPE", "STATE", "PROTOCOL", "COORDINATOR"], &rows)
            }
        };
        Output::new().print(&text).await?;
        for error in &listed.unanswered {
            say(format_args!("groups are missing: {error}"));
        }
        if listed.unanswered.is_empty() { Ok(()) } else { Err(Failure::Told) }
    }
}

fn row(group: &GroupListing) -> Vec<String> {
    let protocol = Some(&group.protocol_type).filter(|name| !name.is_empty());
    vec![
        group.id.clone(),
        or_dash(group.group_type.as_ref()),
        or_dash(group.state.as_ref()),
        or_dash(protocol),
        group.coordinator.to_string(),
    ]
}

fn in_json(group: &GroupListing) -> String {
    let object = json!({
        "group": group.id,
        "type": group.group_type.as_ref().map(GroupType::name),
        "state": group.state.as_ref().map(GroupState::name),
        "protocol_type": group.protocol_type,
        "coordinator": group.coordinator,
    });
    format!("{object}\n")
}
