//! `klamm groups show`, once or again and again.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use klamm::{Admin, ErrorCode, GroupLag, GroupMember, Isolation, PartitionLag};
use serde_json::{Value, json};

use super::{failed, or_dash};
use crate::interrupt::Interrupts;
use crate::output::{Output, table};
use crate::properties::Cluster;
use crate::{Failure, say};

/// Clears the screen and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows a group: its members, what they read, what it has committed, and how far behind it is.
#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    cluster: Cluster,
    /// The group
    group: String,
    /// Shows it again every so many seconds, until it is interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = parse_pause)]
    watch: Option<Duration>,
    /// Measures against what is committed by transactions, as readers with isolation.level=read_committed see it
    #[arg(long)]
    read_committed: bool,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

fn parse_pause(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds >= 0.05);
    let pause = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    pause.ok_or_else(|| "must be seconds, at least 0.05".to_owned())
}

impl Show {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let admin = self.cluster.admin()?;
        let mut output = Output::new();
        let Some(pause) = self.watch else {
            let text = self.look(&admin).await?;
            return output.print(&text).await;
        };
        let mut interrupts = Interrupts::listen()
            .map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))?;
        let clear = if io::stdout().is_terminal() && !self.json { CLEAR } else { "" };
        loop {
            let look = async {
                match self.look(&admin).await {
                    Ok(text) => output.print(&format!("{clear}{text}")).await?,
                    // It may be back in a moment.
                    Err(Failure::Failed(reason)) => say(reason),
                    Err(failure) => return Err(failure),
                }
                tokio::time::sleep(pause).await;
                Ok(())
            };
            tokio::select! {
                biased;
                () = interrupts.first() => return Ok(()),
                looked = look => looked?,
            }
        }
    }

    async fn look(&self, admin: &Admin) -> Result<String, Failure> {
        let isolation = match self.read_committed {
            true => Isolation::ReadCommitted,
            false => Isolation::ReadUncommitted,
        };
        let lag = admin.group_lag([&self.group], isolation).await.map_err(failed)?.all();
        let lag = lag.map_err(|error| match (error.code, &error.message) {
            (ErrorCode::GROUP_ID_NOT_FOUND, Some(message)) => failed(message),
            (ErrorCode::GROUP_ID_NOT_FOUND, None) => {
                failed(format_args!("there is no group {:?}", self.group))
            }
            _ => failed(error),
        })?;
        let lag = lag.into_iter().next().ok_or_else(|| failed("no answer"))?;
        Ok(if self.json { format!("{}\n", in_json(&self.group, &lag)) } else { in_words(&self.group, &lag) })
    }
}

fn name(member: &GroupMember) -> &str {
    member.instance_id.as_deref().unwrap_or(&member.id)
}

fn in_words(name_of_group: &str, lag: &GroupLag) -> String {
    let members = lag.group.as_ref().map_or(&[][..], |group| &group.members);
    let described = |field: fn(&klamm::GroupDescription) -> String| {
        or_dash(lag.group.as_ref().map(field).filter(|text| !text.is_empty()))
    };
    let row = vec![
        name_of_group.to_owned(),
        described(|group| group.state.to_string()),
        described(|group| group.group_type.to_string()),
        described(|group| group.assignor.clone()),
        described(|group| group.coordinator.to_string()),
        described(|group| group.members.len().to_string()),
        lag.total().to_string(),
    ];
    let head = ["GROUP", "STATE", "TYPE", "ASSIGNOR", "COORDINATOR", "MEMBERS", "LAG"];
    let mut text = table(&head, &[row]);
    if !lag.partitions.is_empty() {
        let row = |lag: &PartitionLag| {
            let member = lag.member.and_then(|place| members.get(place));
            let end = match &lag.end {
                Ok(end) => end.to_string(),
                Err(error) => error.code.to_string(),
            };
            vec![
                lag.partition.topic.to_string(),
                lag.partition.partition.to_string(),
                or_dash(lag.committed.as_ref().map(|committed| committed.offset)),
                end,
                or_dash(lag.lag()),
                or_dash(member.map(name)),
            ]
        };
        let rows: Vec<_> = lag.partitions.iter().map(row).collect();
        text += "\n";
        text += &table(&["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"], &rows);
    }
    if !members.is_empty() {
        let row = |member: &GroupMember| {
            let reads = member.assignment.as_ref().map(Vec::len);
            vec![
                name(member).to_owned(),
                member.client_id.clone(),
                member.client_host.clone(),
                or_dash(reads),
            ]
        };
        let rows: Vec<_> = members.iter().map(row).collect();
        text += "\n";
        text += &table(&["MEMBER", "CLIENT", "HOST", "PARTITIONS"], &rows);
    }
    text
}

fn in_json(name_of_group: &str, lag: &GroupLag) -> Value {
    let members = lag.group.as_ref().map_or(&[][..], |group| &group.members);
    let partition = |lag: &PartitionLag| {
        json!({
            "topic": &*lag.partition.topic,
            "partition": lag.partition.partition,
            "committed": lag.committed.as_ref().map(|committed| committed.offset),
            "metadata": lag.committed.as_ref().map(|committed| &committed.metadata),
            "end": lag.end.as_ref().ok(),
            "error": lag.end.as_ref().err().map(ToString::to_string),
            "lag": lag.lag(),
            "member": lag.member.and_then(|place| members.get(place)).map(|member| &member.id),
        })
    };
    let member = |member: &GroupMember| {
        let reads = member.assignment.as_ref().map(|partitions| {
            let one = |p: &klamm::TopicPartition| json!({"topic": &*p.topic, "partition": p.partition});
            partitions.iter().map(one).collect::<Vec<_>>()
        });
        json!({
            "id": member.id,
            "instance": member.instance_id,
            "client": member.client_id,
            "host": member.client_host,
            "topics": member.topics,
            "assignment": reads,
        })
    };
    let group = lag.group.as_ref();
    json!({
        "group": name_of_group,
        "state": group.map(|group| group.state.name()),
        "type": group.map(|group| group.group_type.name()),
        "assignor": group.map(|group| &group.assignor),
        "coordinator": group.map(|group| group.coordinator),
        "lag": lag.total(),
        "partitions": lag.partitions.iter().map(partition).collect::<Vec<_>>(),
        "members": members.iter().map(member).collect::<Vec<_>>(),
    })
}
