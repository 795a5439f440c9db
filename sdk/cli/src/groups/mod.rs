//! `klamm groups`: what consumer groups are doing, and where they go on.
//!
//! Tables for people, one JSON object a line with `--json`. What changes a group's offsets is shown first and done with
//! `--execute` only.

mod list;
mod remove;
mod reset;
mod show;

use clap::Subcommand;
use klamm::TopicPartition;

use crate::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Groups {
    List(list::List),
    Show(show::Show),
    Reset(reset::Reset),
    Delete(remove::Delete),
    DeleteOffsets(remove::DeleteOffsets),
    RemoveMembers(remove::RemoveMembers),
}

impl Groups {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run().await,
            Self::Show(show) => show.run().await,
            Self::Reset(reset) => reset.run().await,
            Self::Delete(delete) => delete.run().await,
            Self::DeleteOffsets(delete) => delete.run().await,
            Self::RemoveMembers(remove) => remove.run().await,
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

/// `TOPIC`, or `TOPIC:0,2` for some of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Topic {
    name: String,
    partitions: Option<Vec<i32>>,
}

fn parse_topic(text: &str) -> Result<Topic, String> {
    let (name, partitions) = match text.split_once(':') {
        None => (text, None),
        Some((name, list)) => {
            let number = |text: &str| text.trim().parse::<i32>().ok().filter(|number| *number >= 0);
            let partitions: Option<Vec<i32>> = list.split(',').map(number).collect();
            let wrong = || format!("{list:?} is not a list of partitions; write TOPIC:0,1");
            (name, Some(partitions.ok_or_else(wrong)?))
        }
    };
    match name.is_empty() {
        true => Err("the topic is missing; write TOPIC or TOPIC:0,1".into()),
        false => Ok(Topic { name: name.to_owned(), partitions }),
    }
}

/// The partitions that topics stand for, each once.
async fn partitions_of(admin: &klamm::Admin, topics: &[Topic]) -> Result<Vec<TopicPartition>, Failure> {
    let whole = topics.iter().filter(|topic| topic.partitions.is_none()).map(|topic| &topic.name);
    let mut all = std::collections::BTreeSet::new();
    let described = admin.describe_topics(whole).await.map_err(failed)?;
    for (name, described) in described {
        let described = described.map_err(|error| match error.code {
            klamm::ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                failed(format_args!("topic {name:?} does not exist"))
            }
            _ => failed(error),
        })?;
        let partitions = described.partitions.iter().map(|known| known.partition);
        all.extend(partitions.map(|partition| TopicPartition::new(name.as_str(), partition)));
    }
    for topic in topics {
        let partitions = topic.partitions.iter().flatten();
        all.extend(partitions.map(|partition| TopicPartition::new(topic.name.as_str(), *partition)));
    }
    Ok(all.into_iter().collect())
}

/// A number, or `-` where there is none.
fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_may_name_some_of_its_partitions() {
        let topic = |name: &str, partitions| Ok(Topic { name: name.to_owned(), partitions });
        assert_eq!(parse_topic("orders"), topic("orders", None));
        assert_eq!(parse_topic("orders:0,12"), topic("orders", Some(vec![0, 12])));
        for wrong in ["", ":1", "orders:", "orders:-1", "orders:1,x"] {
            assert!(parse_topic(wrong).is_err(), "{wrong:?}");
        }
    }
}
