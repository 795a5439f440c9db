//! The clusters that a behaviour runs on. A behaviour is written once, against [`Backend`].
//!
//! In: a [`Kind`], which says what a cluster of that kind can do and how to start one. Out: a [`Backend`]: clients, topics,
//! waits, and faults on cue. What only one kind knows how to do stands behind [`System`].
//!
//! Invariant: a behaviour learns leaders and replicas through the client under test, as its users do, so that the same
//! wait holds on every kind.

mod kafka;
mod kind;
mod lite;
mod mock;
mod processes;
mod system;
mod up;

use std::io::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use klamm::fault::{FaultHandle, FaultLayer, Layer};
use klamm::{
    BoxConnector, Client, ClientBuilder, ErrorCode, NewTopic, PartitionDescription, TopicDescription,
};
use tokio::time::{Instant, sleep};

pub use kind::{Can, KINDS, Kind, Starting};
pub use processes::Processes;
pub use system::{Done, System, Unavailable};

/// Brokers of every cluster here, and replicas of every topic.
pub const BROKERS: usize = 3;
/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What has not come about by then never will; only turns a hang into a failure that says what is missing.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// A running cluster.
pub struct Backend {
    kind: &'static Kind,
    system: Arc<dyn System>,
    /// Names given out so far. Counted here and not in a global, so that a run by seed does not depend on others.
    topics: Mutex<Vec<String>>,
}

impl Backend {
    /// A cluster that was just started.
    pub fn new(kind: &'static Kind, system: Arc<dyn System>) -> Self {
        Self { kind, system, topics: Mutex::default() }
    }

    /// What kind of cluster it is.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// Whether the cluster can do that.
    pub fn can(&self, what: Can) -> bool {
        self.kind.can.contains(&what)
    }

    /// A client's builder that leads to this cluster.
    pub fn client_builder(&self) -> ClientBuilder {
        self.system.client_builder().client_id("behaviour")
    }

    /// What opens connections to this cluster, for whoever wants to stand between.
    pub fn connector(&self) -> BoxConnector {
        self.system.connector()
    }

    /// A client of this cluster with Kafka's defaults.
    ///
    /// # Errors
    ///
    /// A setting is impossible.
    pub fn client(&self) -> Result<Client, Error> {
        self.client_builder().build().map_err(Error::other)
    }

    /// How long an impatient client waits for an answer: longer than a healthy broker of this kind takes.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(if self.can(Can::RestartQuickly) { 1 } else { 2 })
    }

    /// A client that calls a broker dead which has not answered for [`Self::patience`].
    ///
    /// # Errors
    ///
    /// A setting is impossible.
    pub fn impatient_client(&self) -> Result<Client, Error> {
        self.client_builder().request_timeout_ms(self.patience()).build().map_err(Error::other)
    }

    /// A client's builder that leads to this cluster through faults, and what says which.
    pub fn faulty_client_builder(&self) -> (ClientBuilder, FaultHandle) {
        let layer = FaultLayer::new(self.chance(u64::MAX));
        let connector = layer.layer(self.system.connector());
        (self.client_builder().connector(connector), layer.handle())
    }

    /// A topic name that no other behaviour uses.
    pub fn fresh_topic(&self, stem: &str) -> String {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{stem}-{}", topics.len());
        topics.push(name.clone());
        name
    }

    /// Creates a topic with three replicas of which two must be in sync. Where topics cannot be created, it is made up.
    ///
    /// # Errors
    ///
    /// What the cluster said.
    pub async fn topic(&self, stem: &str, partitions: i32) -> Result<String, Error> {
        self.topic_with(stem, partitions, &[]).await
    }

    /// As [`Self::topic`], with settings of its own.
    ///
    /// # Errors
    ///
    /// What the cluster said.
    pub async fn topic_with(
        &self,
        stem: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<String, Error> {
        let name = self.fresh_topic(stem);
        if !self.can(Can::CreateTopics) {
            self.system.invent_topic(&name, partitions);
        } else {
            let mut created = NewTopic::new(&name).partitions(partitions).replicas(BROKERS as i16);
            // Behaviours write records of 1970, and retention deletes those after five minutes.
            let own = [("min.insync.replicas", "2"), ("retention.ms", "-1")];
            for (key, value) in own.iter().chain(configs) {
                created = created.config(*key, *value);
            }
            let results = self.client()?.admin().create_topics([created]).await.map_err(Error::other)?;
            match results.all() {
                // Nobody else has this name: an answer was lost, and the request repeated.
                Err(error) if error.code == ErrorCode::TOPIC_ALREADY_EXISTS => {}
                created => drop(created.map_err(Error::other)?),
            }
        }
        Ok(name)
    }

    /// Milliseconds since the Unix epoch, as clients of this cluster have it.
    pub fn wall_ms(&self) -> i64 {
        klamm_wire::ambient::current().map_or_else(
            || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64,
            |simulation| simulation.wall_ms(),
        )
    }

    /// A number below `limit` that the seed chooses where time is virtual, so that another seed is another history;
    /// elsewhere 0.
    pub fn chance(&self, limit: u64) -> u64 {
        klamm_wire::ambient::current().map_or(0, |simulation| simulation.next_seed() % limit.max(1))
    }

    // ---- waits

    /// Waits until the cluster describes a topic in a way that `wanted` makes something of.
    ///
    /// # Errors
    ///
    /// It did not within a minute; says what was described last.
    pub async fn until_described<T>(
        &self,
        topic: &str,
        wanted: impl Fn(Result<&TopicDescription, ErrorCode>) -> Option<T>,
    ) -> Result<T, Error> {
        let admin = self.impatient_client()?.admin();
        let begun = Instant::now();
        loop {
            let told = match admin.describe_topics([topic]).await {
                Ok(results) => results.all().map(|mut all| all.remove(0)).map_err(|error| error.code),
                Err(_) => Err(ErrorCode::NETWORK_EXCEPTION),
            };
            if let Some(found) = wanted(told.as_ref().map_err(|code| *code)) {
                return Ok(found);
            }
            if begun.elapsed() > WAIT_LIMIT {
                return Err(Error::other(format!("{topic} is not as wanted after {WAIT_LIMIT:?}: {told:?}")));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn until_partition<T>(
        &self,
        topic: &str,
        partition: usize,
        wanted: impl Fn(&PartitionDescription) -> Option<T>,
    ) -> Result<T, Error> {
        self.until_described(topic, |told| wanted(told.ok()?.partitions.get(partition)?)).await
    }

    /// Waits until a partition has a leader as wanted, and gives it.
    ///
    /// # Errors
    ///
    /// As [`Self::until_described`].
    pub async fn until_leader(
        &self,
        topic: &str,
        partition: usize,
        wanted: impl Fn(i32) -> bool,
    ) -> Result<i32, Error> {
        self.until_partition(topic, partition, |found| found.leader.filter(|leader| wanted(*leader))).await
    }

    /// The leader of a partition, once there is one.
    ///
    /// # Errors
    ///
    /// As [`Self::until_described`].
    pub async fn leader_of(&self, topic: &str, partition: usize) -> Result<i32, Error> {
        self.until_leader(topic, partition, |_| true).await
    }

    /// Waits until a partition has so many replicas in sync.
    ///
    /// # Errors
    ///
    /// As [`Self::until_described`].
    pub async fn until_in_sync(&self, topic: &str, partition: usize, count: usize) -> Result<(), Error> {
        self.until_partition(topic, partition, |found| (found.isr.len() == count).then_some(())).await
    }

    /// A replica of the partition that does not lead it, and is not the active controller either: whatever happens to
    /// it, topics are created and deleted, and leaders elected, without a failover of the controller first.
    ///
    /// # Errors
    ///
    /// As [`Self::until_described`]; or the controller is not known.
    pub async fn follower_of(&self, topic: &str, partition: usize) -> Result<i32, Error> {
        let controller = self.system.controller().await?.map(|(node, _)| node);
        let follower = |found: &PartitionDescription| {
            let leader = found.leader?;
            let fit = |replica: &i32| *replica != leader && Some(*replica) != controller;
            found.replicas.iter().copied().find(fit)
        };
        self.until_partition(topic, partition, follower).await
    }

    /// The node that is the active controller now, and its epoch, where it is one of the brokers.
    ///
    /// # Errors
    ///
    /// Nobody knows.
    pub async fn controller(&self) -> Result<Option<(i32, i32)>, Error> {
        self.system.controller().await
    }

    /// The broker that coordinates a group now, if anybody knows.
    pub async fn coordinator_of(&self, group: &str) -> Option<i32> {
        let builder = self.client_builder().request_timeout_ms(self.patience());
        let client = builder.default_api_timeout_ms(3 * self.patience()).build().ok()?;
        let told = client.admin().describe_groups([group]).await.ok()?;
        told.all().ok()?.first().map(|group| group.coordinator)
    }

    // ---- faults; on a kind that cannot, they say so

    /// Kills the process of a broker; what it wrote stays.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    pub async fn kill(&self, broker: i32) -> Result<(), Error> {
        self.system.kill(broker).await
    }

    /// As [`Self::kill`], if the kind can in the moment when an answer to a producer is due. Somebody must be producing.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    pub async fn kill_amid_writes(&self, broker: i32) -> Result<(), Error> {
        self.system.kill_amid_writes(broker).await
    }

    /// Ends a broker in order, as an operator does.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    pub async fn stop(&self, broker: i32) -> Result<(), Error> {
        self.system.stop(broker).await
    }

    /// Starts a killed or stopped broker on its own data.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    pub async fn restart(&self, broker: i32) -> Result<(), Error> {
        self.system.restart(broker).await
    }

    /// Stops a broker from doing anything; its connections stay open.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    pub async fn pause(&self, broker: i32) -> Result<(), Error> {
        self.system.pause(broker).await
    }

    /// Ends [`Self::pause`].
    ///
    /// # Errors
    ///
    /// It cannot be done.
    pub async fn resume(&self, broker: i32) -> Result<(), Error> {
        self.system.resume(broker).await
    }

    /// Cuts the network between a broker and the other nodes; clients still reach it. Ends with [`Self::mend`], or when
    /// the cluster is healed.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    pub async fn cut_off(&self, broker: i32) -> Result<(), Error> {
        self.system.cut_off(broker).await
    }

    /// Undoes every fault: the dead run again, the paused go on, cuts heal.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    pub async fn mend(&self) -> Result<(), Error> {
        self.system.revive().await
    }

    /// All brokers lose power in one instant, and with it what they had not synced.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    pub async fn power_off_all(&self) -> Result<(), Error> {
        self.system.power_off_all().await
    }

    /// Stops all brokers from doing anything, at once.
    ///
    /// # Errors
    ///
    /// It cannot be done.
    pub async fn freeze(&self) -> Result<(), Error> {
        self.system.freeze().await
    }

    /// Ends [`Self::freeze`].
    ///
    /// # Errors
    ///
    /// It cannot be done.
    pub async fn thaw(&self) -> Result<(), Error> {
        self.system.thaw().await
    }

    /// Makes the cluster whole: every broker runs, every partition has a leader and all its replicas in sync; and, where
    /// the logs can be seen, they agree.
    ///
    /// # Errors
    ///
    /// What is still missing after a minute, or what the logs disagree about.
    pub async fn heal(&self) -> Result<(), Error> {
        if !self.can(Can::CreateTopics) {
            return Ok(());
        }
        self.system.revive().await?;
        self.until_all_brokers().await?;
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let whole = |told: Result<&TopicDescription, ErrorCode>| {
            let in_order = |p: &PartitionDescription| p.leader.is_some() && p.isr.len() == p.replicas.len();
            let whole = match told {
                Ok(topic) => topic.partitions.iter().all(in_order),
                // A name that was given out and not used, or a topic that was deleted.
                Err(code) => code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            };
            whole.then_some(())
        };
        for topic in topics {
            self.until_described(&topic, whole).await?;
        }
        self.check()
    }

    async fn until_all_brokers(&self) -> Result<(), Error> {
        let admin = self.impatient_client()?.admin();
        let begun = Instant::now();
        loop {
            let told = admin.describe_cluster().await;
            if told.as_ref().is_ok_and(|cluster| cluster.brokers.len() == BROKERS) {
                return Ok(());
            }
            if begun.elapsed() > WAIT_LIMIT {
                return Err(Error::other(format!("brokers are missing after {WAIT_LIMIT:?}: {told:?}")));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends all brokers in order, and holds against each other what they have left on their disks, where there are any;
    /// tells what was compared. All replicas of the topic must have been in sync, and nobody may write any more.
    ///
    /// # Errors
    ///
    /// Where they disagree.
    pub async fn autopsy(&self, topic: &str, partitions: i32) -> Result<Option<String>, Error> {
        self.system.autopsy(topic.to_owned(), partitions).await
    }

    /// Holds the brokers' logs against each other, where they can be seen.
    ///
    /// # Errors
    ///
    /// Where they disagree.
    pub fn check(&self) -> Result<(), Error> {
        self.system.check().map_err(Error::other)
    }
}
