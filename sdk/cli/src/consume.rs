//! `klamm consume`: records as they come, on standard output.
//!
//! What was handed out is written before more is asked for, so that a group commits nothing that was not written.

use std::collections::BTreeMap;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use klamm::{CommitError, Consumer, ErrorCode, StartOffset, TopicPartition};

use crate::Failure;
use crate::format::Format;
use crate::interrupt::Interrupts;
use crate::output::{Output, Unwritten};
use crate::properties::{admin_of, parse_property, usage, with_own};

/// Most records between two writes.
const AT_ONCE: usize = 500;
/// Between two looks at whether the end is reached, if no records come.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Bytes for records that are printed and not yet written.
const WRITE_BYTES: usize = 64 << 10;

/// Prints the records of a topic as they come.
///
/// Without -g, reads all partitions, or the one of -p, and commits nothing. With -g, joins the group, which shares out the
/// partitions, and commits what was written (unless -X enable.auto.commit=false).
///
/// SIGINT and SIGTERM end it: what was handed out is written and committed, and the group left. A second one gives up at
/// once. If whoever reads standard output goes away, it ends quietly.
///
/// Ends with status 0 if all went well, 1 if anything was not read or not committed, and 2 on wrong usage.
#[derive(Debug, Args)]
pub(crate) struct Consume {
    /// Addresses to find the cluster by: HOST:PORT, several separated by commas
    #[arg(short, long, value_name = "BOOTSTRAP")]
    bootstrap: String,
    /// Topic to read
    #[arg(short, long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    topic: String,
    /// Partition to read, instead of all of them
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(0..), conflicts_with = "group")]
    partition: Option<i32>,
    /// Group to join; it goes on where it has committed
    #[arg(short, long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    group: Option<String>,
    /// Where to begin: beginning, end, an offset, or -N for the last N records of each partition. With -g, beginning or end,
    /// for partitions of which the group has committed nothing [default: end]
    #[arg(short, long, value_name = "OFFSET", allow_hyphen_values = true)]
    offset: Option<Start>,
    /// Ends after so many records
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Ends when everything is printed that was there at the start
    #[arg(short, long)]
    end: bool,
    /// How to print a record; kcat's %t %p %o %k %s %h %T %S %K %R %% \n \t \xHH. Nothing is added, so end it with \n. Without
    /// it, the value and a newline
    #[arg(short, long)]
    format: Option<Format>,
    /// Sets a property of the consumer by its Kafka name, for example isolation.level=read_committed; may be given several
    /// times
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = parse_property)]
    properties: Vec<(String, String)>,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Beginning,
    End,
    At(i64),
    /// So many before the end.
    Last(i64),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.parse::<i64>().ok().filter(|number| *number >= 0);
        match text {
            "beginning" => Ok(Self::Beginning),
            "end" => Ok(Self::End),
            _ => match text.strip_prefix('-') {
                // To kcat, no records before the end is offset 0.
                Some(digits) => {
                    number(digits).map(|count| if count == 0 { Self::At(0) } else { Self::Last(count) })
                }
                None => number(text).map(Self::At),
            }
            .ok_or_else(|| "must be beginning, end, an offset, or -N for the last N records".to_owned()),
        }
    }
}

impl Consume {
    /// Prints until the count, the end or an interrupt comes.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let properties = self.consumer_properties()?;
        let consumer = Consumer::from_properties(properties.iter().copied());
        let consumer = consumer.and_then(|builder| builder.build()).map_err(|error| usage(&error))?;
        let commits = properties.iter().rfind(|(key, _)| *key == "enable.auto.commit");
        let interrupts = Interrupts::listen()
            .map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))?;
        let mut reading = Reading {
            consumer,
            commits: self.group.is_some() && commits.is_none_or(|(_, on)| !on.eq_ignore_ascii_case("false")),
            format: self.format.clone().unwrap_or_else(Format::lines),
            left: self.count,
            ends: self.end.then(Ends::default),
        };
        let mut second = interrupts.clone();
        tokio::select! {
            biased;
            () = second.second() => Err(Failure::Failed("given up at the second interrupt".into())),
            done = reading.run(&self, &properties, interrupts) => done,
        }
    }

    fn consumer_properties(&self) -> Result<Vec<(&str, &str)>, Failure> {
        let mut all = with_own(&self.bootstrap, &self.properties)?;
        let given = |name: &str| self.properties.iter().any(|(key, _)| key == name);
        if given("group.id") {
            return Err(Failure::Usage("group.id is given by -g".into()));
        }
        if !given("allow.auto.create.topics") {
            // A name that is misspelt must not become a topic.
            all.push(("allow.auto.create.topics", "false"));
        }
        let Some(group) = &self.group else { return Ok(all) };
        all.push(("group.id", group));
        match self.offset {
            Some(_) if given("auto.offset.reset") => {
                return Err(Failure::Usage("with -g, -o is auto.offset.reset: give one of them".into()));
            }
            Some(Start::Beginning) => all.push(("auto.offset.reset", "earliest")),
            Some(Start::End) => all.push(("auto.offset.reset", "latest")),
            Some(Start::At(_) | Start::Last(_)) => {
                let cure = "klamm groups reset sets where the group goes on";
                return Err(Failure::Usage(format!("with -g, -o is beginning or end; {cure}")));
            }
            None => {}
        }
        Ok(all)
    }

    /// The partitions to read, once the topic is known.
    async fn partitions(&self, properties: &[(&str, &str)]) -> Result<Vec<TopicPartition>, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
        let admin = admin_of(properties)?;
        let described = admin.describe_topics([&self.topic]).await.map_err(|error| failed(&error))?.all();
        let described = described.map_err(|error| match error.code {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                Failure::Failed(format!("topic {:?} does not exist", self.topic))
            }
            _ => failed(&error),
        })?;
        let all = described.iter().flat_map(|topic| &topic.partitions).map(|known| known.partition);
        let all: Vec<i32> = all.collect();
        let wanted = match self.partition {
            Some(partition) if !all.contains(&partition) => {
                let reason =
                    format!("topic {:?} has no partition {partition}, only {}", self.topic, all.len());
                return Err(Failure::Failed(reason));
            }
            Some(partition) => vec![partition],
            None => all,
        };
        Ok(wanted.into_iter().map(|partition| TopicPartition::new(self.topic.as_str(), partition)).collect())
    }
}

/// One run.
struct Reading {
    consumer: Consumer,
    /// Commits what it has written.
    commits: bool,
    format: Format,
    /// Records still to be printed, if that is limited.
    left: Option<u64>,
    /// Where to end, if at the end.
    ends: Option<Ends>,
}

/// Where partitions ended when they were first seen.
#[derive(Debug, Default)]
struct Ends {
    open: BTreeMap<TopicPartition, i64>,
    reached: Vec<TopicPartition>,
}

impl Reading {
    async fn run(
        &mut self,
        told: &Consume,
        properties: &[(&str, &str)],
        mut interrupts: Interrupts,
    ) -> Result<(), Failure> {
        let begun = tokio::select! {
            biased;
            () = interrupts.first() => return self.leave().await,
            begun = self.begin(told, properties) => begun,
        };
        let printed = match begun {
            Ok(()) => self.print_all(&mut interrupts).await,
            Err(failure) => Err(failure),
        };
        // What nobody has read is not committed, so that whoever comes next reads it again.
        let committed = match printed.is_ok() && self.commits {
            true => self.consumer.commit().await,
            false => Ok(()),
        };
        let committed = committed.or_else(|error| match error {
            CommitError::NoGroup => Ok(()),
            error => Err(Failure::Failed(format!("what was printed last is not committed: {error}"))),
        });
        let left = self.leave().await;
        printed.and(committed).and(left)
    }

    async fn leave(&self) -> Result<(), Failure> {
        self.consumer.close().await.map_err(|error| Failure::Failed(error.to_string()))
    }

    async fn begin(&mut self, told: &Consume, properties: &[(&str, &str)]) -> Result<(), Failure> {
        let failed = |error: klamm::ConsumerError| Failure::Failed(error.to_string());
        let partitions = told.partitions(properties).await?;
        if told.group.is_some() {
            self.consumer.subscribe([told.topic.as_str()]);
            return Ok(());
        }
        let last = match told.offset {
            Some(Start::Last(count)) => count,
            _ => 0,
        };
        let mut ends = BTreeMap::new();
        if last > 0 || self.ends.is_some() {
            ends = self.consumer.end_offsets(&partitions).await.map_err(failed)?;
        }
        let beginnings = match last {
            0 => BTreeMap::new(),
            _ => self.consumer.beginning_offsets(&partitions).await.map_err(failed)?,
        };
        let start = |partition: &TopicPartition| match told.offset.unwrap_or(Start::End) {
            Start::Beginning => StartOffset::Beginning,
            Start::Last(1..) => {
                let first = beginnings.get(partition).copied().unwrap_or(0);
                let end = ends.get(partition).copied().unwrap_or(0);
                StartOffset::Offset(end.saturating_sub(last).max(first))
            }
            Start::End | Start::Last(_) => StartOffset::End,
            Start::At(offset) => StartOffset::Offset(offset),
        };
        self.consumer.assign(partitions.iter().map(|partition| (partition.clone(), start(partition))));
        if let Some(wanted) = &mut self.ends {
            wanted.open = ends;
        }
        Ok(())
    }

    async fn print_all(&mut self, interrupts: &mut Interrupts) -> Result<(), Failure> {
        let mut output = Output::new();
        let mut buffer = Vec::with_capacity(WRITE_BYTES);
        let wait = if self.ends.is_some() { LOOK_AGAIN } else { Duration::MAX };
        loop {
            let interrupted = {
                let mut ended = pin!(self.is_at_end());
                tokio::select! {
                    biased;
                    () = interrupts.first() => true,
                    ended = &mut ended => ended?,
                }
            };
            if interrupted || self.left == Some(0) {
                return Ok(());
            }
            let most =
                self.left.map_or(AT_ONCE, |left| usize::try_from(left).unwrap_or(AT_ONCE).min(AT_ONCE));
            let records = tokio::select! {
                biased;
                () = interrupts.first() => return Ok(()),
                records = self.consumer.poll(most, wait) => records,
            };
            let records = records.map_err(|error| Failure::Failed(error.to_string()))?;
            for record in &records {
                self.format.write(record, &mut buffer);
                if buffer.len() >= WRITE_BYTES {
                    write(&mut output, &mut buffer).await?;
                }
            }
            write(&mut output, &mut buffer).await?;
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(records.len() as u64);
            }
        }
    }

    /// Whether everything is printed that was there when a partition was first seen.
    async fn is_at_end(&mut self) -> Result<bool, Failure> {
        let Some(ends) = &mut self.ends else { return Ok(false) };
        let assigned = self.consumer.assignment();
        ends.open.retain(|partition, _| assigned.contains(partition));
        let new: Vec<_> = assigned
            .iter()
            .filter(|partition| !ends.open.contains_key(*partition) && !ends.reached.contains(partition))
            .cloned()
            .collect();
        if !new.is_empty() {
            let found = self.consumer.end_offsets(&new).await;
            ends.open.extend(found.map_err(|error| Failure::Failed(error.to_string()))?);
        }
        let open: Vec<_> = ends.open.iter().map(|(partition, end)| (partition.clone(), *end)).collect();
        // Where some begin may not be known yet.
        let positions = open.iter().map(|(partition, _)| self.consumer.position(partition));
        let positions = positions.map(|position| tokio::time::timeout(LOOK_AGAIN, position));
        let positions = futures::future::join_all(positions).await;
        for ((partition, end), position) in open.into_iter().zip(positions) {
            if position.is_ok_and(|position| position.is_ok_and(|position| position >= end)) {
                ends.open.remove(&partition);
                ends.reached.push(partition);
            }
        }
        Ok(!assigned.is_empty() && ends.open.is_empty())
    }
}

async fn write(output: &mut Output, buffer: &mut Vec<u8>) -> Result<(), Failure> {
    if buffer.is_empty() {
        return Ok(());
    }
    let written = output.write(buffer).await;
    buffer.clear();
    written.map_err(|unwritten| match unwritten {
        Unwritten::NobodyReads => Failure::NobodyReads,
        Unwritten::Failed(reason) => Failure::Failed(reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_name_an_offset_or_so_many_before_the_end() {
        let parsed = |text: &str| text.parse::<Start>();
        assert_eq!(parsed("beginning"), Ok(Start::Beginning));
        assert_eq!(parsed("end"), Ok(Start::End));
        assert_eq!(parsed("0"), Ok(Start::At(0)));
        assert_eq!(parsed("-5"), Ok(Start::Last(5)));
        assert_eq!(parsed("-0"), Ok(Start::At(0)));
        for wrong in ["", "-", "--5", "1x", "begin", "9223372036854775808"] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
