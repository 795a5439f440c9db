//! Followers: one task and one fetch session (KIP-227) per broker fetched from, over real Fetch requests.
//!
//! In: which replicas follow whom. Out: Fetch requests, and their answers fed to the replicas.
//!
//! ```text
//! whole request, answered at once ──▶ session ──▶ long poll that names what changed ──▶ answer ──▶ …
//!                                                   └─ replica added meanwhile: a second request, which ends the poll
//! ```
//!
//! A replica that was refused leaves the session for a while, longer each time. While a replica has records that wait
//! for an fsync, its fetcher waits with it, as Kafka's does with `flush.messages` = 1.
//!
//! Invariant: replicas that have nothing to fetch cost nothing; only what changed is looked at.

mod conversation;
mod following;
mod range;
mod request;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use self::conversation::Conversation;
use self::following::Following;
use super::{Broker, Partition};
use crate::node::Party;

/// Topic id and partition.
type Key = (Uuid, i32);

/// The sources of one broker.
#[derive(Debug, Default)]
pub(crate) struct Fetchers(Mutex<BTreeMap<i32, Arc<Source>>>);

/// One broker to fetch from, and what.
#[derive(Debug, Default)]
struct Source {
    state: Mutex<Following>,
    /// There is something to ask.
    added: Notify,
    /// A replica has come to the end of an fsync, or has left.
    synced: Notify,
}

impl Fetchers {
    /// Makes `partition` follow `leader`, or nobody.
    pub(crate) fn follow(&self, broker: &Broker, partition: &Arc<Partition>, leader: Option<i32>) {
        let key = (partition.identity.topic_id, partition.identity.partition);
        let mut sources = self.0.lock();
        for (id, source) in sources.iter() {
            if Some(*id) != leader && source.state.lock().remove(&key) {
                source.synced.notify_one();
            }
        }
        let Some(leader) = leader else { return };
        let source = sources.entry(leader).or_insert_with(|| {
            let source = Arc::new(Source::default());
            if let Some(broker) = broker.me.upgrade() {
                let life = broker.life.clone();
                life.spawn(fetch_from(broker, leader, source.clone()));
            }
            source
        });
        source.state.lock().add(key, partition);
        source.added.notify_one();
    }

    /// Goes on if the fetcher waits for the disk.
    pub(crate) fn synced(&self, partition: &Partition) {
        let key = (partition.identity.topic_id, partition.identity.partition);
        for source in self.0.lock().values() {
            let mut state = source.state.lock();
            if state.tracked.contains_key(&key) {
                state.changed.insert(key);
                source.synced.notify_one();
            }
        }
    }

    /// Forgets a partition that is not held here any more.
    pub(crate) fn forget(&self, broker: &Broker, partition: &Arc<Partition>) {
        self.follow(broker, partition, None);
    }
}

impl Source {
    async fn until_something_to_ask(&self, broker: &Broker) {
        let next_retry = self.state.lock().paused.first().map(|(at, _)| *at);
        tokio::select! {
            biased;
            () = self.added.notified() => {}
            () = self.synced.notified() => {}
            () = broker.rt.sleep_until_some(next_retry) => {}
        }
    }
}

async fn fetch_from(broker: Arc<Broker>, leader: i32, source: Arc<Source>) {
    let name = format!("fetcher of broker {}", broker.id());
    let backoff = broker.config.millis("replica.fetch.backoff.ms").unwrap_or(Duration::from_secs(1));
    let me = Party::Node(broker.id());
    loop {
        if source.state.lock().tracked.is_empty() {
            source.added.notified().await;
        }
        let ended = match broker.network.dial(&me, &Party::Node(leader), &name).await {
            Ok(link) => Conversation::new(&broker, &source, link).hold().await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(broker = broker.id(), leader, %error, "cannot fetch");
            broker.rt.sleep(backoff).await;
        }
    }
}
