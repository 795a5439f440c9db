//! What is done to the topic and the cluster, through the client's admin, one step after the other.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm::{
    Admin, ConfigUpdate, Election, NewPartitions, NewTopic, PartitionDescription, Reassignment,
    TopicPartition,
};
use tokio::time::{Instant, sleep};

use super::load::{TOPIC, World};
use super::{Error, System};

/// Brokers at the beginning, with ids from 1.
pub(crate) const BROKERS: usize = 4;
/// Partitions at the beginning and when it has grown.
pub(crate) const PARTITIONS: (i32, i32) = (6, 60);
const REPLICAS: usize = 3;
/// The one that is drained and removed.
const LEAVES: i32 = 2;
/// Partitions that move at a time.
const TOGETHER: usize = 20;
/// What has not come about by then never will.
const LIMIT: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What was done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moved {
    pub(crate) requests: u64,
    pub(crate) reassignments: u64,
    /// Replicas that were not there before.
    pub(crate) made: u64,
    pub(crate) given_up: u64,
    /// Elections of preferred leaders that were asked for and were needed.
    pub(crate) leaders: u64,
    pub(crate) removed: Option<i32>,
    /// The new broker, and how many partitions it leads when it is filled.
    pub(crate) added: Option<(i32, usize)>,
}

pub(crate) struct Steps {
    world: Arc<World>,
    admin: Admin,
    chance: fastrand::Rng,
    moved: Moved,
}

impl Steps {
    pub(crate) fn new(world: Arc<World>, admin: Admin, seed: u64) -> Self {
        Self { world, admin, chance: fastrand::Rng::with_seed(seed), moved: Moved::default() }
    }

    pub(crate) async fn create_topic(&mut self) -> Result<(), Error> {
        let topic =
            NewTopic::new(TOPIC).partitions(PARTITIONS.0).replicas(1).config("min.insync.replicas", "1");
        self.admin.create_topics([topic]).await?.all()?;
        self.until(|partitions| partitions.len() == PARTITIONS.0 as usize && in_order(partitions)).await?;
        self.world.partitions.store(PARTITIONS.0, Ordering::SeqCst);
        Ok(())
    }

    /// All steps, then moves by chance until the time is up.
    pub(crate) async fn all(mut self, system: &System, until: Instant) -> Result<Moved, Error> {
        sleep(Duration::from_secs(1)).await;
        for count in [12, 30, PARTITIONS.1] {
            self.world.mark(&format!("{count} partitions"));
            self.admin.create_partitions([NewPartitions::new(TOPIC, count)]).await?.all()?;
            self.world.partitions.store(count, Ordering::SeqCst);
            self.until(|partitions| partitions.len() == count as usize && in_order(partitions)).await?;
            sleep(Duration::from_millis(self.chance.u64(0..1_000))).await;
        }
        self.world.mark("three replicas of each");
        self.spread(&(1..=BROKERS as i32).collect::<Vec<_>>(), false).await?;
        let config = ConfigUpdate::topic(TOPIC).set("min.insync.replicas", "2");
        self.admin.alter_configs([config]).await?.all()?;
        self.world.mark("preferred leaders");
        self.prefer().await?;
        self.drain().await?;
        if let Some(cluster) = system.cluster() {
            self.world.mark(&format!("broker {LEAVES} shuts down and is unregistered"));
            cluster.shutdown_broker(LEAVES).await?;
            self.admin.unregister_broker(LEAVES).await?;
            cluster.remove_broker(LEAVES).await?;
            self.moved.removed = Some(LEAVES);
            let new = cluster.add_broker().await?;
            self.world.mark(&format!("broker {new} is new; it is filled"));
            let brokers: Vec<_> = [1, 3, 4].into_iter().chain([new]).collect();
            self.spread(&brokers, false).await?;
            self.prefer().await?;
            let led = |partition: &&PartitionDescription| partition.leader == Some(new);
            let leads = self.describe().await?.iter().filter(led).count();
            if leads == 0 {
                return Err(format!("broker {new} leads nothing").into());
            }
            self.moved.added = Some((new, leads));
        }
        while Instant::now() < until {
            let brokers = self.brokers().await?;
            self.world.mark("every partition somewhere else");
            self.spread(&brokers, true).await?;
            self.prefer().await?;
        }
        let partitions = self.describe().await?;
        if partitions.iter().any(|partition| partition.replicas.len() != REPLICAS) {
            return Err(format!("not {REPLICAS} replicas everywhere: {partitions:?}").into());
        }
        Ok(self.moved)
    }

    /// Gives every partition three replicas on these brokers: evenly, those stay that can; or by chance.
    async fn spread(&mut self, brokers: &[i32], by_chance: bool) -> Result<(), Error> {
        let mut order: Vec<_> = (0..self.world.partitions.load(Ordering::SeqCst)).collect();
        self.chance.shuffle(&mut order);
        for together in order.chunks(TOGETHER) {
            let wanted = |partition: &i32| {
                let mut replicas = brokers.to_vec();
                match by_chance {
                    true => self.chance.shuffle(&mut replicas),
                    false => replicas.rotate_left(*partition as usize % brokers.len()),
                }
                replicas.truncate(REPLICAS);
                (*partition, replicas)
            };
            let wanted: Vec<(i32, Vec<i32>)> = together.iter().map(wanted).collect();
            self.reassign(&wanted).await?;
        }
        Ok(())
    }

    async fn reassign(&mut self, wanted: &[(i32, Vec<i32>)]) -> Result<(), Error> {
        let before = self.describe().await?;
        for (partition, replicas) in wanted {
            let now: BTreeSet<_> = before[*partition as usize].replicas.iter().collect();
            let then: BTreeSet<_> = replicas.iter().collect();
            self.moved.made += then.difference(&now).count() as u64;
            self.moved.given_up += now.difference(&then).count() as u64;
        }
        self.moved.requests += 1;
        self.moved.reassignments += wanted.len() as u64;
        let to = |(partition, replicas): &(i32, Vec<i32>)| {
            Reassignment::to(TopicPartition::new(TOPIC, *partition), replicas.iter().copied())
        };
        self.admin.reassign_partitions(wanted.iter().map(to)).await?.all()?;
        let there = |partitions: &[PartitionDescription]| {
            let mut wanted = wanted.iter();
            wanted.all(|(index, replicas)| partitions[*index as usize].replicas == *replicas)
                && in_order(partitions)
        };
        self.until(there).await
    }

    /// Has preferred leaders elected.
    async fn prefer(&mut self) -> Result<(), Error> {
        let led = |partition: &PartitionDescription| partition.leader == partition.replicas.first().copied();
        let wrong = self.describe().await?.iter().filter(|partition| !led(partition)).count();
        let partitions = 0..self.world.partitions.load(Ordering::SeqCst);
        let all = partitions.map(|partition| TopicPartition::new(TOPIC, partition));
        self.admin.elect_leaders(Election::Preferred, all).await?.all()?;
        self.until(|partitions| partitions.iter().all(led)).await?;
        self.moved.leaders += wrong as u64;
        Ok(())
    }

    /// Moves everything off the broker that is to leave.
    async fn drain(&mut self) -> Result<(), Error> {
        self.world.mark(&format!("broker {LEAVES} is drained"));
        let here = |partition: &&PartitionDescription| partition.replicas.contains(&LEAVES);
        let held = self.describe().await?.iter().filter(here).count();
        let drain = self.admin.drain(LEAVES).at_once(TOGETHER).poll_interval(LOOK_AGAIN);
        let drained = drain.run(|_| ControlFlow::Continue(())).await?;
        if held == 0 || drained.moved != held {
            return Err(
                format!("{held} partitions were on broker {LEAVES}, {} have moved", drained.moved).into()
            );
        }
        let gone = |partitions: &[PartitionDescription]| {
            in_order(partitions) && !partitions.iter().any(|partition| partition.replicas.contains(&LEAVES))
        };
        self.until(gone).await?;
        self.moved.reassignments += held as u64;
        self.moved.made += held as u64;
        self.moved.given_up += held as u64;
        Ok(())
    }

    async fn brokers(&self) -> Result<Vec<i32>, Error> {
        let cluster = self.admin.describe_cluster().await?;
        Ok(cluster.brokers.iter().map(|broker| broker.id).collect())
    }

    async fn describe(&self) -> Result<Vec<PartitionDescription>, Error> {
        let told = self.admin.describe_topics([TOPIC]).await?.all()?;
        Ok(told.into_iter().next().ok_or("no topic")?.partitions)
    }

    async fn until(&self, wanted: impl Fn(&[PartitionDescription]) -> bool) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            let told = self.describe().await?;
            if wanted(&told) {
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                return Err(format!("not as wanted after {LIMIT:?}: {told:?}").into());
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Every partition has a leader, and all its replicas in sync.
fn in_order(partitions: &[PartitionDescription]) -> bool {
    partitions.iter().all(|partition| {
        let in_sync: BTreeSet<_> = partition.isr.iter().collect();
        partition.leader.is_some() && in_sync == partition.replicas.iter().collect()
    })
}
