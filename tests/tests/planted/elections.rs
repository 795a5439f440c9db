//! The controllers start, and the power of some fails at each moment of their election: between a request for a vote, the
//! votes' durability on either side, and the answer. Whatever they forget, an epoch has one leader, and what was committed
//! stays.
//!
//! A loss at every moment of a grid, on disks so slow that each of those steps has moments of its own, for every choice of
//! who is down meanwhile and who loses power: no chance is needed to meet with a bug.

use std::error::Error;

use broker_lite::sim::{self, Sim};
use broker_lite::{Cluster, ClusterBuilder, ClusterError};
use klamm_wire::planted::Bug;
use tokio::time::sleep;

use crate::Planted;
use crate::frame::ms;

/// Found here.
pub(crate) const FOUND: [Bug; 5] = [
    Bug::VoteWithoutFsync,
    Bug::OwnVoteWithoutFsync,
    Bug::VoteAfterItsFsync,
    Bug::MetadataLogWithoutFsync,
    Bug::TrustUnsyncedVoter,
];

/// What is told of a promise that was broken.
const TWO_LEADERS: &str = "was led more than once";
const FORGOTTEN: &str = "has lost what was committed";

/// What an fsync takes at the two that start: one of them, and the other.
const SLOW_MS: [(u64, u64); 2] = [(240, 90), (90, 240)];
/// Moments of the loss, after the start.
const MOMENTS_MS: [u64; 9] = [30, 70, 110, 150, 190, 230, 270, 330, 400];
/// Patience with slow disks: no round of votes ends for lack of time.
const PATIENCE: [(&str, &str); 4] = [
    ("controller.quorum.election.timeout.ms", "2000"),
    ("controller.quorum.election.backoff.max.ms", "200"),
    ("controller.quorum.fetch.timeout.ms", "800"),
    ("controller.quorum.request.timeout.ms", "2000"),
];

/// One way for two of three controllers to start.
#[derive(Debug, Clone, Copy)]
struct Start {
    slow_ms: (u64, u64),
    /// Who stays down until the power is back.
    down: usize,
    /// Which of the two that start lose power.
    victims: (bool, bool),
    at_ms: u64,
}

impl Start {
    fn all() -> impl Iterator<Item = Self> {
        let victims = [(true, false), (false, true), (true, true)];
        SLOW_MS.into_iter().flat_map(move |slow_ms| {
            (0..3).flat_map(move |down| {
                victims.into_iter().flat_map(move |victims| {
                    MOMENTS_MS.into_iter().map(move |at_ms| Self { slow_ms, down, victims, at_ms })
                })
            })
        })
    }

    async fn play(self, sim: Sim) -> Result<Vec<String>, Box<dyn Error>> {
        let patient = |cluster: ClusterBuilder, (name, value)| cluster.config(name, value);
        let cluster =
            PATIENCE.into_iter().fold(sim.cluster().with_files().brokers(3), patient).start().await?;
        cluster.until_controller().await;
        let voters = cluster.voters();
        for voter in &voters {
            cluster.kill(*voter)?;
        }
        let two: Vec<i32> = (0..3).filter(|at| *at != self.down).map(|at| voters[at]).collect();
        let slow =
            (cluster.disk(two[0])?.slow(ms(self.slow_ms.0)), cluster.disk(two[1])?.slow(ms(self.slow_ms.1)));
        for voter in &two {
            cluster.restart(*voter).await?;
        }
        sleep(ms(self.at_ms)).await;
        let lost = [(two[0], self.victims.0), (two[1], self.victims.1)];
        let victims: Vec<i32> = lost.into_iter().filter(|(_, lost)| *lost).map(|(voter, _)| voter).collect();
        for victim in &victims {
            cluster.power_off(*victim)?;
        }
        drop(slow);
        // Who is left goes on alone, and the others without it.
        let left = two.iter().find(|voter| !victims.contains(voter)).copied();
        let alone: Vec<_> = left
            .map(|left| {
                voters.iter().filter(|voter| **voter != left).map(|other| cluster.cut(left, *other)).collect()
            })
            .unwrap_or_default();
        for voter in victims.iter().chain([&voters[self.down]]) {
            cluster.restart(*voter).await?;
        }
        sleep(ms(4_000)).await;
        drop(alone);
        cluster.until_controller().await;
        Ok(fell(&cluster))
    }
}

async fn start(sim: &Sim) -> Result<Cluster, ClusterError> {
    let patient = |cluster: ClusterBuilder, (name, value)| cluster.config(name, value);
    PATIENCE.into_iter().fold(sim.cluster().with_files().brokers(3), patient).start().await
}

/// What is wrong with the controllers.
fn fell(cluster: &Cluster) -> Vec<String> {
    let of_controllers = |violation: &&broker_lite::Violation| violation.topic == "__cluster_metadata";
    cluster.check().violations.iter().filter(of_controllers).map(ToString::to_string).collect()
}

fn run<F>(bug: Option<Bug>, body: impl Fn(Sim) -> F) -> Result<Vec<String>, String>
where
    F: Future<Output = Result<Vec<String>, Box<dyn Error>>>,
{
    let _planted = Planted::new(bug);
    sim::run(0, body).map_err(|error| error.to_string())
}

/// Whether exactly this promise is broken.
fn is_only(fell: &[String], promise: &str) -> bool {
    !fell.is_empty() && fell.iter().all(|told| told.contains(promise))
}

/// With the bug some loss of power gives an epoch two leaders, before anything else goes wrong.
fn gives_two_leaders(bug: Bug) -> Result<(), String> {
    for start in Start::all() {
        let fell = run(Some(bug), |sim| start.play(sim))?;
        if !fell.is_empty() {
            let as_expected = fell.iter().any(|told| told.contains(TWO_LEADERS));
            return if as_expected { Ok(()) } else { Err(format!("{bug:?}, {start:?}: {fell:?}")) };
        }
    }
    Err(format!("{bug:?} is not found"))
}

#[test]
fn a_loss_of_power_at_any_moment_of_an_election_leaves_one_leader_an_epoch() -> Result<(), String> {
    for start in Start::all() {
        let fell = run(None, |sim| start.play(sim))?;
        if !fell.is_empty() {
            return Err(format!("{start:?}: {fell:?}"));
        }
    }
    Ok(())
}

#[test]
fn a_vote_that_is_answered_before_it_is_durable_gives_an_epoch_two_leaders() -> Result<(), String> {
    gives_two_leaders(Bug::VoteWithoutFsync)
}

#[test]
fn a_vote_for_itself_that_counts_before_it_is_durable_gives_an_epoch_two_leaders() -> Result<(), String> {
    gives_two_leaders(Bug::OwnVoteWithoutFsync)
}

#[test]
fn a_vote_that_is_written_after_its_fsync_has_begun_gives_an_epoch_two_leaders() -> Result<(), String> {
    gives_two_leaders(Bug::VoteAfterItsFsync)
}

/// A topic is created on slow disks; as soon as that is acknowledged, the power of all controllers fails.
async fn a_topic_is_created(sim: Sim) -> Result<Vec<String>, Box<dyn Error>> {
    let cluster = start(&sim).await?;
    let slow: Result<Vec<_>, _> = cluster
        .voters()
        .into_iter()
        .map(|voter| Ok::<_, Box<dyn Error>>(cluster.disk(voter)?.slow(ms(300))))
        .collect();
    cluster.create_topic("t", 1, 3, &[]).await?;
    for voter in cluster.voters() {
        cluster.power_off(voter)?;
    }
    drop(slow);
    for voter in cluster.voters() {
        cluster.restart(voter).await?;
    }
    // Brokers that know more than their controller may not come to rest with it.
    sleep(ms(2_000)).await;
    Ok(fell(&cluster))
}

#[test]
fn what_controllers_count_before_it_is_durable_is_lost_after_it_was_acknowledged() -> Result<(), String> {
    forgets(Bug::MetadataLogWithoutFsync, a_topic_is_created)
}

/// With the bug, and only with it, what was committed is lost.
fn forgets<F>(bug: Bug, body: impl Fn(Sim) -> F) -> Result<(), String>
where
    F: Future<Output = Result<Vec<String>, Box<dyn Error>>>,
{
    assert_eq!(run(None, &body)?, [""; 0]);
    let fell = run(Some(bug), &body)?;
    assert!(is_only(&fell, FORGOTTEN), "{fell:?}");
    Ok(())
}

/// One of two voters that run is killed with a record that its slow disk has not got yet, and starts again. As soon as the
/// record is committed, its power fails, and it goes on with the third.
async fn a_voter_dies_with_an_unsynced_record(sim: Sim) -> Result<Vec<String>, Box<dyn Error>> {
    let cluster = start(&sim).await?;
    cluster.until_controller().await;
    let leader = cluster.controller().ok_or("no controller")?;
    let others: Vec<i32> = cluster.voters().into_iter().filter(|voter| *voter != leader).collect();
    let [voter, third] = others[..] else { return Err("not three voters".into()) };
    cluster.kill(third)?;
    let slow = cluster.disk(voter)?.slow(ms(500));
    let dying = async {
        sleep(ms(250)).await;
        cluster.kill(voter)?;
        cluster.restart(voter).await
    };
    let (created, restarted) = futures::join!(cluster.create_topic("t", 1, 3, &[]), dying);
    created?;
    restarted?;
    cluster.power_off(voter)?;
    cluster.kill(leader)?;
    drop(slow);
    for other in [voter, third] {
        cluster.restart(other).await?;
    }
    sleep(ms(4_000)).await;
    Ok(fell(&cluster))
}

#[test]
fn what_a_dead_voter_left_unsynced_is_lost_after_it_was_committed() -> Result<(), String> {
    forgets(Bug::TrustUnsyncedVoter, a_voter_dies_with_an_unsynced_record)
}
