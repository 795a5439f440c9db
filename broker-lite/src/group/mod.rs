//! The groups that this broker coordinates: one [`Shard`] for each partition of `__consumer_offsets` that it leads.
//!
//! ```text
//! leads ──▶ loading ──the log is read and replicated──▶ active ──leads no more──▶ over: everybody who waits is told
//! ```
//!
//! Invariant: no request is answered out of a log that another broker may have written to since.

mod load;
mod log;
mod shard;
mod topic;

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_lite_core::group::{GroupCoordinator, Response, Turn, partition_of};
use broker_lite_core::metadata::Image;
use broker_lite_core::replica::Role;
use klamm_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(crate) use topic::create as create_topic;

use crate::broker::{Broker, Partition};
use shard::Shard;

/// The topic that groups live in.
pub(crate) const TOPIC: &str = "__consumer_offsets";

/// Everything that is coordinated here.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    shards: Mutex<BTreeMap<i32, Arc<Shard>>>,
}

/// What comes of a request to a coordinator.
pub(crate) enum Asked {
    Now(Response),
    Later(oneshot::Receiver<Response>),
}

impl Asked {
    /// The answer when it is there. Whoever coordinates no more has told everybody, or has ended with its broker.
    pub(crate) async fn response(self) -> Response {
        match self {
            Self::Now(response) => response,
            Self::Later(answer) => answer.await.unwrap_or(Response::Failed(ErrorCode::NOT_COORDINATOR)),
        }
    }
}

/// The partition of a group, `None` while there is no topic.
pub(crate) fn partition_in(image: &Image, group: &str) -> Option<i32> {
    let partitions = image.topic(TOPIC)?.partitions.len();
    i32::try_from(partitions).ok().filter(|count| *count > 0).map(|count| partition_of(group, count))
}

impl Groups {
    /// Asks the coordinator of a group. What must happen in order has happened when this returns.
    pub(crate) fn ask(
        &self,
        broker: &Broker,
        group: &str,
        work: impl FnOnce(&mut GroupCoordinator, &mut Turn<'_>, u64),
    ) -> Asked {
        match self.of(broker, group) {
            Ok(shard) => shard.ask(broker, work),
            Err(code) => Asked::Now(Response::Failed(code)),
        }
    }

    /// Looks at a group where it is coordinated.
    pub(crate) fn look<R>(
        &self,
        broker: &Broker,
        group: &str,
        look: impl FnOnce(&GroupCoordinator) -> R,
    ) -> Result<R, ErrorCode> {
        self.of(broker, group)?.look(look)
    }

    /// Looks at everything that is coordinated here; one that is still loading makes it fail.
    pub(crate) fn look_at_all<R>(&self, look: impl Fn(&GroupCoordinator) -> R) -> Result<Vec<R>, ErrorCode> {
        let shards: Vec<_> = self.shards.lock().values().cloned().collect();
        let mut found = Vec::new();
        for shard in shards {
            match shard.look(&look) {
                Ok(result) => found.push(result),
                Err(ErrorCode::NOT_COORDINATOR) => {}
                Err(code) => return Err(code),
            }
        }
        Ok(found)
    }

    fn of(&self, broker: &Broker, group: &str) -> Result<Arc<Shard>, ErrorCode> {
        let partition = broker.image(|image| partition_in(image, group));
        let shard = partition.and_then(|number| self.shards.lock().get(&number).cloned());
        shard.ok_or(ErrorCode::NOT_COORDINATOR)
    }

    /// A replica of the topic leads, or leads no more. It takes effect a moment later: whoever calls this may hold what
    /// that needs.
    pub(crate) fn role_changed(&self, broker: &Broker, partition: &Arc<Partition>, role: Role) {
        if &*partition.identity.topic != TOPIC {
            return;
        }
        let Role::Leader { leader_epoch } = role else { return self.gone(partition) };
        let number = partition.identity.partition;
        let mut shards = self.shards.lock();
        if shards.get(&number).is_some_and(|shard| shard.goes_on(partition)) {
            return;
        }
        let shard = Shard::new(partition.clone(), leader_epoch);
        if let Some(before) = shards.insert(number, shard.clone()) {
            before.end();
        }
        if let Some(broker) = broker.me() {
            let life = broker.life.clone();
            life.spawn(async move { shard.run(broker).await });
        }
    }

    /// The replica leads no more, or is gone.
    pub(crate) fn gone(&self, partition: &Arc<Partition>) {
        if &*partition.identity.topic != TOPIC {
            return;
        }
        let mut shards = self.shards.lock();
        let number = partition.identity.partition;
        if shards.get(&number).is_some_and(|shard| shard.is_of(partition))
            && let Some(shard) = shards.remove(&number)
        {
            shard.end();
        }
    }

    /// Topics are no more: what groups have committed for them is forgotten, a moment later.
    pub(crate) fn topics_deleted(&self, broker: &Broker, names: Vec<Arc<str>>) {
        let shards: Vec<_> = self.shards.lock().values().cloned().collect();
        if names.is_empty() || shards.is_empty() {
            return;
        }
        let Some(broker) = broker.me() else { return };
        let life = broker.life.clone();
        life.spawn(async move {
            for shard in shards {
                shard.until_loaded().await;
                // one that is over needs nothing more
                let _ = shard.step(&broker, |coordinator, turn| coordinator.topics_deleted(turn, &names));
            }
        });
    }
}
