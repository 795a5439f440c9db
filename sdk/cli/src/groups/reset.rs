//! `klamm groups reset`: where a group goes on. Shown first, done with `--execute`.

use std::collections::BTreeMap;

use clap::Args;
use klamm::{
    Admin, AdminError, ErrorCode, Isolation, ListedOffset, OffsetSpec, OffsetsOfGroup, TopicPartition,
};
use serde_json::json;

use super::{Topic, failed, or_dash, parse_topic, partitions_of};
use crate::output::{Output, table};
use crate::properties::Cluster;
use crate::{Failure, say};

/// Sets where a group goes on.
///
/// Prints for each partition what is committed and what would be; with --execute, it is done. The group must not have
/// members. Offsets that are not in the log become the nearest one that is.
///
/// Ends with status 1 if a partition could not be set, or could not be with --execute.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    cluster: Cluster,
    /// The group; one that does not exist is made
    group: String,
    /// Topic, or TOPIC:0,1 for some of its partitions; may be given several times. Without it, all partitions of which the
    /// group has committed an offset
    #[arg(short, long, value_name = "TOPIC[:PARTITIONS]", value_parser = parse_topic)]
    topic: Vec<Topic>,
    #[command(flatten)]
    to: To,
    /// Does it
    #[arg(long)]
    execute: bool,
    /// Prints one JSON object for each partition
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    /// To the first record there is
    #[arg(long)]
    to_earliest: bool,
    /// To the end: only what is written later
    #[arg(long)]
    to_latest: bool,
    /// To the first record with this timestamp or a later one, in ms since the Unix epoch; to the end if there is none
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(i64).range(0..))]
    to_timestamp: Option<i64>,
    /// To this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// So many records on from what is committed, or back if negative
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    shift: Option<i64>,
}

/// What is to become of one partition.
struct Change {
    partition: TopicPartition,
    before: Option<i64>,
    after: Result<i64, String>,
}

impl Reset {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let admin = self.cluster.admin()?;
        self.refuse_active(&admin).await?;
        let committed = self.committed(&admin).await?;
        let partitions = match self.topic.is_empty() {
            true => committed.keys().cloned().collect(),
            false => partitions_of(&admin, &self.topic).await?,
        };
        if partitions.is_empty() {
            let reason = format!("group {:?} has committed nothing: say which --topic", self.group);
            return Err(Failure::Failed(reason));
        }
        let mut changes = self.changes(&admin, partitions, &committed).await?;
        if self.execute {
            self.execute(&admin, &mut changes).await?;
        }
        Output::new().print(&self.printed(&changes)).await?;
        let failed = changes.iter().filter(|change| change.after.is_err()).count();
        for change in &changes {
            if let Err(reason) = &change.after {
                say(format_args!("{}: {reason}", change.partition));
            }
        }
        if !self.execute {
            say("nothing was changed; --execute does it");
        }
        if failed == 0 { Ok(()) } else { Err(Failure::Told) }
    }

    /// Says so before anything is computed; the coordinator refuses it in any case.
    async fn refuse_active(&self, admin: &Admin) -> Result<(), Failure> {
        let described = admin.describe_groups([&self.group]).await.map_err(failed)?.all();
        match described {
            Ok(described) => match described.into_iter().find(|group| !group.members.is_empty()) {
                Some(group) => Err(failed(AdminError::from(group))),
                None => Ok(()),
            },
            Err(error) if error.code == ErrorCode::GROUP_ID_NOT_FOUND => {
                say(format_args!("there is no group {:?} yet", self.group));
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn committed(&self, admin: &Admin) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
        let asked = [OffsetsOfGroup::all(&self.group)];
        let all = admin.list_group_offsets(asked).await.map_err(failed)?.all().map_err(failed)?;
        let mut committed = BTreeMap::new();
        for (partition, offset) in all.into_iter().flatten() {
            if let Some(offset) = offset.map_err(failed)? {
                committed.insert(partition, offset.offset);
            }
        }
        Ok(committed)
    }

    async fn changes(
        &self,
        admin: &Admin,
        partitions: Vec<TopicPartition>,
        committed: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Vec<Change>, Failure> {
        let list = async |spec: OffsetSpec| {
            let asked = partitions.iter().map(|partition| (partition.clone(), spec));
            admin.list_offsets(asked, Isolation::ReadUncommitted).await.map_err(failed)
        };
        let (earliest, latest) = (list(OffsetSpec::Earliest).await?, list(OffsetSpec::Latest).await?);
        let at_time = match self.to.to_timestamp {
            Some(ms) => Some(list(OffsetSpec::Timestamp(ms)).await?),
            None => None,
        };
        let found = |listed: &klamm::PartitionResults<ListedOffset>, partition: &TopicPartition| match listed
            .of(partition)
        {
            Some(Ok(listed)) => Ok(listed.offset),
            Some(Err(error)) if error.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                Err("it does not exist".to_owned())
            }
            Some(Err(error)) => Err(error.to_string()),
            None => Err("no answer".to_owned()),
        };
        let change = |partition: &TopicPartition| {
            let before = committed.get(partition).copied();
            let after = || {
                let first = found(&earliest, partition)?.unwrap_or(0);
                let end = found(&latest, partition)?.unwrap_or(0);
                let wanted = match &self.to {
                    To { to_earliest: true, .. } => first,
                    To { to_offset: Some(offset), .. } => *offset,
                    To { shift: Some(by), .. } => {
                        let from = before.ok_or("the group has committed nothing to shift from")?;
                        from.saturating_add(*by)
                    }
                    _ => match &at_time {
                        Some(listed) => found(listed, partition)?.unwrap_or(end),
                        None => end,
                    },
                };
                Ok(wanted.max(first).min(end))
            };
            Change { partition: partition.clone(), before, after: after() }
        };
        Ok(partitions.iter().map(change).collect())
    }

    async fn execute(&self, admin: &Admin, changes: &mut [Change]) -> Result<(), Failure> {
        let wanted: Vec<_> = changes
            .iter()
            .filter_map(|change| Some((change.partition.clone(), *change.after.as_ref().ok()?)))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let results = admin.alter_group_offsets(&self.group, wanted).await.map_err(failed)?;
        for change in changes {
            if let Some(Err(error)) = results.of(&change.partition) {
                change.after = Err(error.to_string());
            }
        }
        Ok(())
    }

    fn printed(&self, changes: &[Change]) -> String {
        if self.json {
            let object = |change: &Change| {
                let object = json!({
                    "group": self.group,
                    "topic": &*change.partition.topic,
                    "partition": change.partition.partition,
                    "before": change.before,
                    "after": change.after.as_ref().ok(),
                    "error": change.after.as_ref().err(),
                    "executed": self.execute && change.after.is_ok(),
                });
                format!("{object}\n")
            };
            return changes.iter().map(object).collect();
        }
        let row = |change: &Change| {
            vec![
                change.partition.topic.to_string(),
                change.partition.partition.to_string(),
                or_dash(change.before),
                or_dash(change.after.as_ref().ok()),
            ]
        };
        let rows: Vec<_> = changes.iter().map(row).collect();
        table(&["TOPIC", "PARTITION", "BEFORE", "AFTER"], &rows)
    }
}
