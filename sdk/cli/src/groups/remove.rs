//! `klamm groups delete`, `delete-offsets` and `remove-members`.

use std::fmt::Display;

use clap::Args;
use klamm::MembersToRemove;
use serde_json::{Value, json};

use super::{Topic, failed, parse_topic, partitions_of};
use crate::output::Output;
use crate::properties::Cluster;
use crate::{Failure, say};

/// Deletes groups and all that they have committed. They must not have members.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    cluster: Cluster,
    /// The groups
    #[arg(required = true)]
    groups: Vec<String>,
    /// Prints one JSON object for each group
    #[arg(long)]
    json: bool,
}

/// Forgets what a group has committed of topics that none of its members reads.
#[derive(Debug, Args)]
pub(crate) struct DeleteOffsets {
    #[command(flatten)]
    cluster: Cluster,
    /// The group
    group: String,
    /// Topic, or TOPIC:0,1 for some of its partitions; may be given several times
    #[arg(short, long, required = true, value_name = "TOPIC[:PARTITIONS]", value_parser = parse_topic)]
    topic: Vec<Topic>,
    /// Prints one JSON object for each partition
    #[arg(long)]
    json: bool,
}

/// Puts members out of a group: static ones that do not come back, or all.
///
/// A member that is still alive joins again.
#[derive(Debug, Args)]
pub(crate) struct RemoveMembers {
    #[command(flatten)]
    cluster: Cluster,
    /// The group
    group: String,
    #[command(flatten)]
    which: Which,
    /// Says why, in the coordinator's log
    #[arg(long)]
    reason: Option<String>,
    /// Prints one JSON object for each member
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// All that are there
    #[arg(long)]
    all: bool,
    /// A static member, by its group.instance.id; may be given several times
    #[arg(long, value_name = "ID")]
    instance: Vec<String>,
    /// A member, by the id that the coordinator gave it; may be given several times
    #[arg(long, value_name = "ID")]
    member: Vec<String>,
}

/// What became of one thing, in words and for machines.
struct Outcome {
    object: Value,
    error: Option<String>,
}

impl Outcome {
    fn new<E: Display>(mut object: Value, result: &Result<(), E>) -> Self {
        let error = result.as_ref().err().map(ToString::to_string);
        object["done"] = json!(error.is_none());
        object["error"] = json!(error);
        Self { object, error }
    }
}

/// Tells every outcome; fails if one of them is an error.
async fn tell(outcomes: Vec<Outcome>, json: bool, done: &str) -> Result<(), Failure> {
    let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
    if json {
        let lines: String = outcomes.iter().map(|outcome| format!("{}\n", outcome.object)).collect();
        Output::new().print(&lines).await?;
    }
    for error in outcomes.iter().filter_map(|outcome| outcome.error.as_ref()) {
        say(error);
    }
    if failed > 0 {
        return Err(Failure::Told);
    }
    if !json {
        say(format_args!("{} {done}", outcomes.len()));
    }
    Ok(())
}

impl Delete {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let deleted = self.cluster.admin()?.delete_groups(self.groups).await.map_err(failed)?;
        let outcomes = deleted.iter().map(|(group, result)| Outcome::new(json!({"group": group}), result));
        tell(outcomes.collect(), self.json, "groups deleted").await
    }
}

impl DeleteOffsets {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let admin = self.cluster.admin()?;
        let partitions = partitions_of(&admin, &self.topic).await?;
        let deleted = admin.delete_group_offsets(&self.group, partitions).await.map_err(failed)?;
        let outcomes = deleted.iter().map(|(partition, result)| {
            let place = json!({
                "group": self.group,
                "topic": &*partition.topic,
                "partition": partition.partition,
            });
            Outcome::new(place, result)
        });
        tell(outcomes.collect(), self.json, "offsets deleted").await
    }
}

impl RemoveMembers {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut members = match self.which {
            Which { all: true, .. } => MembersToRemove::all(),
            Which { instance, .. } if !instance.is_empty() => MembersToRemove::instances(instance),
            Which { member, .. } => MembersToRemove::ids(member),
        };
        if let Some(reason) = self.reason {
            members = members.because(reason);
        }
        let removed = self.cluster.admin()?.remove_members(&self.group, members).await.map_err(failed)?;
        let outcomes = removed
            .iter()
            .map(|(member, result)| Outcome::new(json!({"group": self.group, "member": member}), result));
        tell(outcomes.collect(), self.json, "members removed").await
    }
}
