//! Members of consumer groups that we did not write, each a process: Kafka's Java consumer, librdkafka (kcat and
//! confluent-kafka), kafka-python, aiokafka. All say what they own and what they read.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Error, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::process::{ApacheKafka, find_program, signal};
use crate::workspace;

/// How long a member may take to leave in order.
const LEAVING: Duration = Duration::from_secs(60);

/// Whose consumer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Apache Kafka's own, by its VerifiableConsumer; it commits after each poll.
    Java,
    /// librdkafka as kcat has it.
    Kcat,
    /// librdkafka of the day, by confluent-kafka-python.
    Confluent,
    /// kafka-python.
    KafkaPython,
    /// aiokafka, which knows no cooperative rebalances.
    Aiokafka,
}

impl Peer {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Java, Self::Kcat, Self::Confluent, Self::KafkaPython, Self::Aiokafka];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::Kcat => "kcat",
            Self::Confluent => "confluent",
            Self::KafkaPython => "kafka-python",
            Self::Aiokafka => "aiokafka",
        }
    }

    /// Why it cannot run here, if so.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Java => ApacheKafka::missing(),
            Self::Kcat => find_program("kcat")
                .is_none()
                .then(|| "it is not installed (Debian: apt-get install kcat)".to_owned()),
            Self::Confluent | Self::KafkaPython | Self::Aiokafka => (!python().is_file())
                .then(|| format!("{} is not there (tests/run setup installs it)", python().display())),
        }
    }

    /// Whether it can rebalance so.
    pub fn knows(self, strategy: &str) -> bool {
        strategy == "range" || self != Self::Aiokafka
    }

    fn command(self, bootstrap: &str, group: &str, topic: &str, strategy: &str) -> Command {
        match self {
            Self::Java => {
                let class = match strategy {
                    "range" => "org.apache.kafka.clients.consumer.RangeAssignor",
                    _ => "org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
                };
                let mut java = Command::new(workspace().join("tests/kafka/kafka-cluster"));
                java.args(["tool", "org.apache.kafka.tools.VerifiableConsumer", "--verbose"]);
                java.args(["--bootstrap-server", bootstrap, "--group-id", group, "--topic", topic]);
                java.args(["--assignment-strategy", class, "--reset-policy", "earliest"]);
                java.arg("--command-config").arg(workspace().join("tests/tools/members/java.properties"));
                java
            }
            Self::Kcat => {
                let mut kcat = Command::new("kcat");
                kcat.args(["-b", bootstrap, "-G", group, "-u", "-f", "%p %o %s\\n"]);
                kcat.args(["-X", &format!("partition.assignment.strategy={strategy}")]);
                kcat.args(["-X", "auto.offset.reset=earliest", "-X", "heartbeat.interval.ms=300", topic]);
                kcat
            }
            Self::Confluent | Self::KafkaPython | Self::Aiokafka => {
                let mut member = Command::new(python());
                member.arg(workspace().join("tests/tools/members/member.py"));
                member.args([self.name(), bootstrap, group, topic, strategy]);
                member
            }
        }
    }
}

/// The interpreter that has the clients of `tests/tools/members/requirements.txt`.
fn python() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    absolute(&target).join("python/bin/python3")
}

fn absolute(path: &Path) -> PathBuf {
    if path.is_absolute() { path.to_owned() } else { workspace().join(path) }
}

/// What a member has said so far.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// Partitions that it owns.
    pub owned: BTreeSet<i32>,
    /// Partition, offset and value of each record that it was handed.
    pub read: Vec<(i32, i64, String)>,
    /// Whatever else it printed, for whoever looks for the cause of a failure.
    pub other: Vec<String>,
}

/// A member; killed and reaped when dropped, without a word to the group.
#[derive(Debug)]
pub struct Member {
    peer: Peer,
    child: Child,
    said: Arc<Mutex<Said>>,
    listening: Vec<JoinHandle<()>>,
}

impl Member {
    /// Starts it: it joins the group by itself, and reads from the beginning or from where the group has committed.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn join(
        peer: Peer,
        bootstrap: &str,
        group: &str,
        topic: &str,
        strategy: &str,
    ) -> Result<Self, Error> {
        let mut command = peer.command(bootstrap, group, topic, strategy);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let said = Arc::new(Mutex::new(Said::default()));
        let mut listening = Vec::new();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        listening.extend(out.map(|out| listen(peer, out, said.clone())));
        listening.extend(err.map(|err| listen(peer, err, said.clone())));
        Ok(Self { peer, child, said, listening })
    }

    /// Whose it is.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What it has said so far.
    pub fn said(&self) -> Said {
        self.said.lock().clone()
    }

    /// Lets it leave the group in order and waits for its end; everything that it has said.
    ///
    /// # Errors
    ///
    /// It does not end, or not well.
    pub fn leave(mut self) -> Result<Said, Error> {
        match self.peer {
            Peer::Java | Peer::Kcat => signal(self.child.id(), "TERM")?,
            _ => self.child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(b"leave\n"))?,
        }
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if begun.elapsed() > LEAVING {
                return Err(Error::other(format!("{} does not leave: {:?}", self.peer.name(), self.said())));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        for thread in self.listening.drain(..) {
            thread.join().map_err(|_| Error::other("a listening thread panicked"))?;
        }
        let said = self.said();
        // 143: Java's way to say that it was asked by SIGTERM to end.
        let asked = self.peer == Peer::Java && status.code() == Some(143);
        match status.success() || asked {
            true => Ok(said),
            false => Err(Error::other(format!("{} ended with {status}: {said:?}", self.peer.name()))),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(peer: Peer, from: impl Read + Send + 'static, said: Arc<Mutex<Said>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut said = said.lock();
            let understood = match peer {
                Peer::Java => said.hear_java(&line),
                Peer::Kcat => said.hear_kcat(&line),
                _ => said.hear(&line),
            };
            if understood.is_none() {
                said.other.push(line);
            }
        }
    })
}

impl Said {
    /// A line of `tests/tools/members/member.py`.
    fn hear(&mut self, line: &str) -> Option<()> {
        if let Some(owned) = line.strip_prefix("owns") {
            self.owned = owned.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
            return Some(());
        }
        if line == "left" {
            self.owned.clear();
            return Some(());
        }
        self.record(line.strip_prefix("read ")?)
    }

    fn record(&mut self, words: &str) -> Option<()> {
        let mut words = words.splitn(3, ' ');
        let (partition, offset) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        self.read.push((partition, offset, words.next()?.to_owned()));
        Some(())
    }

    fn hear_java(&mut self, line: &str) -> Option<()> {
        let told: serde_json::Value = serde_json::from_str(line).ok()?;
        let number = |value: &serde_json::Value| value.as_i64().and_then(|number| i32::try_from(number).ok());
        let partitions = || {
            let list = told["partitions"].as_array()?;
            list.iter().map(|each| number(&each["partition"])).collect::<Option<BTreeSet<_>>>()
        };
        match told["name"].as_str()? {
            "partitions_assigned" => self.owned.extend(partitions()?),
            "partitions_revoked" => self.owned = &self.owned - &partitions()?,
            "record_data" => {
                let value = told["value"].as_str()?.to_owned();
                self.read.push((number(&told["partition"])?, told["offset"].as_i64()?, value));
            }
            _ => {}
        }
        Some(())
    }

    /// `% Group g rebalanced (memberid m): assigned: t [0], t [1]`, or cooperatively `% Group g rebalanced: incremental
    /// assignment of 1 partition(s) (memberid m, ...): t [0]`, or a record as `%p %o %s`.
    fn hear_kcat(&mut self, line: &str) -> Option<()> {
        if line.starts_with('%') {
            let (before, list) = line.split_once("): ").filter(|_| line.contains(" rebalanced"))?;
            let partition = |text: &str| text.split(']').next().and_then(|text| text.parse().ok());
            let partitions: BTreeSet<i32> = list.split('[').skip(1).filter_map(partition).collect();
            match before.contains("revoke") || list.starts_with("revoked") {
                true => self.owned = &self.owned - &partitions,
                false => self.owned.extend(partitions),
            }
            return None; // kept among what else was said
        }
        self.record(line)
    }
}
