//! The fetch task. It decides nothing: it carries out the effects of the [`Fetcher`] and tells it what came of
//! them. It never decodes records, and runs no code of the application.
//!
//! [`Fetcher`]: klamm_core::consumer::Fetcher

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use klamm_core::consumer::{
    BY_DURATION, Effect, EpochLookup, Event, FetchAnswer, FetchPlan, Leader, Location, Lookup, OffsetReset,
    ends_of_epochs, ends_of_epochs_request, list_offsets_request, listed_offsets,
};
use klamm_core::metadata::ClusterMetadata;
use klamm_core::{Tick, TopicPartition};
use klamm_wire::ErrorCode;
use klamm_wire::messages::{FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest};

use super::shared::{Machine, Shared};
use crate::client::{Lane, Target};
use crate::error::RequestError;

/// What became of something the task waited for.
enum Outcome {
    Event(Event),
    /// The metadata of a topic is there, or will not come.
    Topic(Arc<str>),
}

struct Task {
    shared: Arc<Shared>,
    asking: FuturesUnordered<BoxFuture<'static, Outcome>>,
    /// Topics whose metadata is being waited for.
    awaited: BTreeSet<Arc<str>>,
    /// The metadata has to be looked at again.
    locate: bool,
}

/// Runs until it is aborted, when the consumer is closed or dropped.
pub(super) async fn drive(shared: Arc<Shared>) {
    let client = shared.client.clone();
    let mut task = Task { shared, asking: FuturesUnordered::new(), awaited: BTreeSet::new(), locate: true };
    let mut seen = None;
    loop {
        let changed = client.changed();
        let version = client.metadata().version;
        task.locate |= seen.replace(version) != Some(version);
        let deadline = task.turn();
        tokio::select! {
            biased;
            Some(outcome) = task.asking.next(), if !task.asking.is_empty() => task.came(outcome),
            () = task.shared.budget.work.notified() => {}
            () = changed => {}
            () = client.rt().sleep_until_some(deadline) => {}
        }
    }
}

impl Task {
    /// Tells the machine what time it is and how much memory is in use, and carries out what it wants.
    fn turn(&mut self) -> Option<Tick> {
        loop {
            let (effects, deadline) = {
                let now = self.shared.now();
                let Machine { fetcher, effects } = &mut *self.shared.machine();
                if std::mem::take(&mut self.locate) {
                    let cluster = self.shared.client.metadata();
                    let locations = fetcher.assignment().map(|name| (name.clone(), locate(&cluster, name)));
                    let locations = locations.collect();
                    fetcher.step(now, Event::Located(locations), effects);
                }
                fetcher.step(now, Event::Held(self.shared.budget.held()), effects);
                (std::mem::take(effects), fetcher.deadline())
            };
            if effects.is_empty() {
                return deadline;
            }
            for effect in effects {
                self.carry_out(effect);
            }
        }
    }

    fn came(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Event(event) => {
                // Counted before its reservation ends, else room would be seen where there is none.
                self.shared.step(Event::Held(self.shared.budget.held()));
                self.shared.step(event);
            }
            Outcome::Topic(topic) => {
                self.awaited.remove(&topic);
                self.locate = true;
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Fetch { broker, plan } => {
                self.asking.push(fetch(self.shared.clone(), broker, plan).map(Outcome::Event).boxed());
            }
            Effect::ListOffsets { broker, lookup, partitions } => {
                let listed = list(self.shared.clone(), broker, lookup, partitions);
                self.asking.push(listed.map(Outcome::Event).boxed());
            }
            Effect::EndsOfEpochs { broker, lookup, partitions } => {
                let ended = ends(self.shared.clone(), broker, lookup, partitions);
                self.asking.push(ended.map(Outcome::Event).boxed());
            }
            Effect::WasCut { partition: TopicPartition { topic, partition }, offset, diverges } => {
                tracing::warn!(
                    topic = &*topic,
                    partition,
                    offset,
                    diverges,
                    "the log was cut before the position"
                );
            }
            Effect::Recreated { partition, offset } => {
                self.shared.recreated.lock().insert(partition.clone());
                self.shared.went_back.lock().insert(partition.clone());
                let TopicPartition { topic, partition } = partition;
                tracing::warn!(
                    topic = &*topic,
                    partition,
                    offset,
                    "the topic was deleted and created again: it is read from its beginning"
                );
            }
            Effect::Void { partition, from } => self.shared.void(&partition, from),
            Effect::Refresh(topics) => topics.into_iter().for_each(|topic| self.refresh(topic)),
            Effect::LeaderHint { partition, leader, epoch } => {
                let TopicPartition { topic, partition } = partition;
                self.shared.client.apply_leader_hint(&topic, partition, (leader, epoch), None);
            }
            Effect::Wake => self.shared.common.arrived.notify_waiters(),
            Effect::WakeReader(partition) => self.shared.wake(&partition),
            Effect::Unpin => self.shared.unpin(),
        }
    }

    fn refresh(&mut self, topic: Arc<str>) {
        let client = &self.shared.client;
        if client.cached_topic(&topic).is_some() {
            self.locate = true;
            return client.request_refresh("a consumer cannot go on with what is known");
        }
        if self.awaited.insert(topic.clone()) {
            let shared = self.shared.clone();
            let wait = async move {
                let deadline = shared.now().saturating_add(shared.client.settings().patience());
                if let Err(error) = shared.client.topic(&topic, shared.may_create(), deadline).await {
                    tracing::warn!(topic = &*topic, %error, "no metadata for an assigned topic");
                }
                Outcome::Topic(topic)
            };
            self.asking.push(wait.boxed());
        }
    }
}

/// What the metadata says about a partition.
pub(super) fn locate(cluster: &ClusterMetadata, name: &TopicPartition) -> Location {
    let Some(topic) = cluster.topics.get(&name.topic) else {
        return Location::Unknown(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    };
    // A broker that has not heard of it yet takes nothing away.
    if !topic.is_there() {
        return match topic.error.is_retriable() {
            true => Location::Unknown(topic.error),
            false => Location::Refused(topic.error),
        };
    }
    match topic.partition(name.partition) {
        None => Location::Unknown(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        Some(partition) => match partition.leader {
            None => Location::Unknown(ErrorCode::LEADER_NOT_AVAILABLE),
            Some(broker) => {
                Location::At(Leader { broker, epoch: partition.leader_epoch, topic_id: topic.id })
            }
        },
    }
}

async fn fetch(shared: Arc<Shared>, broker: i32, plan: FetchPlan) -> Event {
    let (settings, topics) = {
        let machine = shared.machine();
        let topics: Vec<_> = machine.fetcher.topics().cloned().collect();
        (machine.fetcher.settings().clone(), topics)
    };
    // Looking keeps topics from being forgotten (`metadata.max.idle.ms`) while they are fetched.
    for topic in &topics {
        shared.client.cached_topic(topic);
    }
    let limit = shared.client.settings().request_timeout.saturating_add(settings.max_wait);
    let request = plan.request(&settings);
    match shared
        .client
        .call_within::<FetchRequest>(Target::Broker(broker), Lane::Fetch, &request, limit)
        .await
    {
        Ok(response) => {
            let mut answer = FetchAnswer::from(response);
            let bytes = answer.partitions.iter().map(|partition| partition.records.len()).sum();
            let charge = shared.budget.charge(bytes);
            for partition in answer.partitions.iter_mut().filter(|p| !p.records.is_empty()) {
                partition.records = charge.attach(std::mem::take(&mut partition.records));
            }
            Event::Fetched { broker, answer }
        }
        Err(error) => {
            tracing::debug!(broker.id = broker, %error, "fetch failed");
            Event::FetchFailed { broker }
        }
    }
}

async fn list(shared: Arc<Shared>, broker: i32, lookup: u64, mut partitions: Vec<Lookup>) -> Event {
    let reset = shared.machine().fetcher.settings().reset;
    if let OffsetReset::ByDuration(ago) = reset {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        let since = shared.client.rt().wall_ms().saturating_sub(ago).max(0);
        partitions.iter_mut().filter(|p| p.timestamp == BY_DURATION).for_each(|p| p.timestamp = since);
    }
    let timeout_ms = i32::try_from(shared.client.settings().request_timeout.as_millis()).unwrap_or(i32::MAX);
    let request = list_offsets_request(&partitions, shared.settings.isolation, timeout_ms);
    match shared.client.call::<ListOffsetsRequest>(Target::Broker(broker), Lane::Main, &request).await {
        Ok(response) => Event::Listed { broker, lookup, offsets: listed_offsets(response) },
        Err(error) => {
            tracing::debug!(broker.id = broker, %error, "offsets not listed");
            Event::ListFailed { broker, lookup }
        }
    }
}

async fn ends(shared: Arc<Shared>, broker: i32, lookup: u64, partitions: Vec<EpochLookup>) -> Event {
    let request = ends_of_epochs_request(&partitions);
    let target = Target::Broker(broker);
    match shared.client.call::<OffsetForLeaderEpochRequest>(target, Lane::Main, &request).await {
        Ok(response) => Event::Ended { broker, lookup, ends: Some(ends_of_epochs(response)) },
        Err(RequestError::Version(_)) => Event::Ended { broker, lookup, ends: None },
        Err(error) => {
            tracing::debug!(broker.id = broker, %error, "ends of epochs are not known");
            Event::ListFailed { broker, lookup }
        }
    }
}
