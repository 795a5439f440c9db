//! A schedule carried out on a cluster.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::schedule::{Fault, Moment, Schedule, What, Who};
use crate::cluster::Cluster;

/// What came of a schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Played {
    /// Faults that happened.
    pub happened: usize,
    /// Faults that did not, because their moment never came, or the broker was down already.
    pub missed: usize,
}

impl Schedule {
    /// Carries out every fault in its moment and undoes it again.
    pub async fn play(&self, cluster: &Cluster) -> Played {
        let mut running: FuturesUnordered<_> = self.faults.iter().map(|fault| fault.play(cluster)).collect();
        let mut played = Played::default();
        while let Some(happened) = running.next().await {
            played.happened += usize::from(happened);
            played.missed += usize::from(!happened);
        }
        played
    }
}

impl Fault {
    async fn play(&self, cluster: &Cluster) -> bool {
        let rt = cluster.rt();
        if let Moment::At { ms } = self.when {
            rt.sleep(Duration::from_millis(ms)).await;
        }
        let victim = match self.what {
            What::Kill(Who::Broker(id)) | What::Pause(Who::Broker(id)) => id,
            _ => cluster.leader_counts().into_iter().max_by_key(|(_, count)| *count).map_or(1, |(id, _)| id),
        };
        match self.what {
            What::Kill(_) => {
                if cluster.kill(victim).is_err() {
                    return false;
                }
                rt.sleep(Duration::from_millis(self.lasts_ms)).await;
                cluster.restart(victim).await.is_ok()
            }
            What::Pause(_) => {
                if cluster.pause(victim).is_err() {
                    return false;
                }
                rt.sleep(Duration::from_millis(self.lasts_ms)).await;
                cluster.resume(victim).is_ok()
            }
            _ => false,
        }
    }
}
