//! Asking until there is an answer that counts.
//!
//! In: what to ask, whom, and what may be asked twice. Out: an answer, or one verdict per thing asked for, within the
//! call's time (`default.api.timeout.ms`).
//!
//! Invariant: a request that may have been carried out is sent again only where that does no harm ([`Repeat`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI16, Ordering};

use futures::future::join_all;
use klamm_core::backoff::Backoff;
use klamm_core::metadata::Query;
use klamm_core::{Tick, TopicPartition};
use klamm_wire::codec::{self, CodecError};
use klamm_wire::messages::{ApiKey, MetadataRequest};
use klamm_wire::{ErrorCode, Frame, Request, StrBytes};

use super::Admin;
use super::error::{AdminError, Refused};
use crate::client::{Encode, Lane, Target};
use crate::error::{Recovery, RequestError};

/// What a broker says about one thing.
pub(super) type Verdict<T> = Result<T, Refused>;

/// Whether a request may be sent again although it may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Done twice is as done once.
    Harmless,
    /// Done twice could do more than was asked for.
    Harmful,
}

impl Repeat {
    pub(super) fn allows(self, error: &RequestError) -> bool {
        error.recovery() == Recovery::Retry && (self == Self::Harmless || !error.maybe_written())
    }
}

/// How to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) to: Target,
    pub(super) repeat: Repeat,
    /// The lowest version that can say what is asked, and what that is.
    pub(super) needs: Option<(i16, &'static str)>,
    /// Refusals by which nothing was done, so that the thing is asked for again.
    pub(super) again: &'static [ErrorCode],
    /// Refusals that also mean "an earlier attempt did it".
    pub(super) already: &'static [ErrorCode],
}

impl How {
    pub(super) fn any() -> Self {
        Self { to: Target::Any, repeat: Repeat::Harmless, needs: None, again: &[], already: &[] }
    }

    /// Whatever only the active controller can do.
    pub(super) fn controller() -> Self {
        const NOBODY_DID: &[ErrorCode] = &[ErrorCode::NOT_CONTROLLER, ErrorCode::THROTTLING_QUOTA_EXCEEDED];
        Self { to: Target::Controller, again: NOBODY_DID, ..Self::any() }
    }
}

/// The attempts of one call.
pub(super) struct Attempts<'a> {
    admin: &'a Admin,
    deadline: Tick,
    backoff: Backoff,
    rng: fastrand::Rng,
    failed: u32,
    /// One of them may have been carried out without an answer.
    pub(super) lost: bool,
}

impl Admin {
    pub(super) fn attempts(&self) -> Attempts<'_> {
        let (rt, settings) = (self.client.rt(), self.client.settings());
        Attempts {
            admin: self,
            deadline: rt.now().saturating_add(self.timeout.unwrap_or_else(|| settings.api_timeout())),
            backoff: Backoff::new(settings.retry_backoff, settings.retry_backoff_max),
            rng: rt.rng("admin"),
            failed: 0,
            lost: false,
        }
    }

    /// How long a broker may take to carry something out.
    pub(super) fn timeout_ms(&self) -> i32 {
        i32::try_from(self.client.settings().request_timeout.as_millis()).unwrap_or(i32::MAX)
    }
}

impl Attempts<'_> {
    /// Sends a request once.
    pub(super) async fn once<R: Request>(
        &self,
        how: &How,
        encode: &Encode<'_>,
    ) -> Result<R::Response, AdminError> {
        let client = &self.admin.client;
        if how.to != Target::Any && client.metadata().brokers.is_empty() {
            // A new client does not know yet who that is. If it does not hear of it soon, any broker hands on what is
            // the controller's, and a broker is looked for again.
            let _ = client.ready(client.settings().retry_backoff_max).await;
        }
        let limit = client.settings().request_timeout.min(self.deadline.saturating_sub(client.rt().now()));
        let too_old = AtomicI16::new(-1);
        let checked = |version: i16| match how.needs {
            Some((needed, _)) if version < needed => {
                too_old.store(version, Ordering::Relaxed);
                Err(CodecError::UnsupportedVersion { api_key: R::KEY, version })
            }
            _ => encode(version),
        };
        let answer = client.call_encoded::<R>(how.to, Lane::Main, &checked, limit).await;
        match (too_old.into_inner(), how.needs) {
            (offered @ 0.., Some((needed, what))) => {
                Err(AdminError::TooOld { api: api::<R>(), offered, needed, what })
            }
            _ => Ok(answer?),
        }
    }

    /// Waits before the next attempt; `false` if there is no time for one.
    pub(super) async fn pause(&mut self) -> bool {
        self.failed = self.failed.saturating_add(1);
        let rt = self.admin.client.rt();
        let pause = self.backoff.delay(self.failed, &mut self.rng);
        // An attempt with less time than that would only replace what was said last by a time-out.
        let least = self.admin.client.settings().retry_backoff;
        if rt.now().saturating_add(pause).saturating_add(least) >= self.deadline {
            return false;
        }
        self.admin.client.request_refresh("an administrative request was refused or lost");
        rt.sleep(pause).await;
        true
    }

    /// Asks until there is an answer.
    pub(super) async fn ask<R: Request>(
        &mut self,
        how: &How,
        encode: &Encode<'_>,
    ) -> Result<R::Response, AdminError> {
        loop {
            match self.once::<R>(how, encode).await {
                Err(AdminError::Request(error)) if how.repeat.allows(&error) => {
                    self.lost |= error.maybe_written();
                    let unknown = matches!(error, RequestError::UnknownBroker { .. });
                    if unknown && self.failed >= LOOKS_FOR_UNKNOWN || !self.pause().await {
                        return Err(error.into());
                    }
                }
                answer => return answer,
            }
        }
    }

    /// Asks until there is an answer without an error at its top, or with one that another attempt does not cure.
    pub(super) async fn ask_whole<R: Request>(
        &mut self,
        how: &How,
        encode: &Encode<'_>,
        refusal: impl Fn(&R::Response) -> Verdict<()> + Send,
    ) -> Result<R::Response, AdminError> {
        loop {
            let answer = self.ask::<R>(how, encode).await?;
            match refusal(&answer) {
                Ok(()) => return Ok(answer),
                Err(refused) => self.refused(how, refused).await?,
            }
        }
    }

    /// Pauses if the refusal asks for another attempt.
    async fn refused(&mut self, how: &How, refused: Refused) -> Result<(), AdminError> {
        let again = how.again.contains(&refused.code);
        if again && self.pause().await {
            // Whoever did not see the end of it in time does not know how it ended.
            self.lost |= refused.code == ErrorCode::REQUEST_TIMED_OUT;
            return Ok(());
        }
        Err(self.judged(how, refused).into())
    }

    pub(super) fn judged(&self, how: &How, refused: Refused) -> Refused {
        let maybe_done = refused.maybe_done || self.lost && how.already.contains(&refused.code);
        Refused { maybe_done, ..refused }
    }

    /// Asks for several things at once, and again for those that were refused without being looked at.
    ///
    /// `encode` gets what is still wanted; `read` what was told, or a refusal of everything.
    pub(super) async fn ask_each<R: Request, K: Ord + Clone + Sync, T: Sync, V>(
        &mut self,
        how: &How,
        mut wanted: Vec<(K, T)>,
        encode: impl Fn(i16, &[(K, T)]) -> Result<Frame, CodecError> + Sync,
        read: impl Fn(R::Response) -> Verdict<Vec<(K, Verdict<V>)>>,
    ) -> Result<BTreeMap<K, Verdict<V>>, AdminError> {
        let mut settled = BTreeMap::new();
        while !wanted.is_empty() {
            let asked = self.ask::<R>(how, &|version| encode(version, &wanted)).await;
            let told = match asked.map(&read) {
                Ok(Ok(told)) => Ok(told),
                Ok(Err(refused)) => match self.refused(how, refused).await {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            let told = match told {
                Ok(told) => told,
                Err(error) if settled.is_empty() => return Err(error),
                // Others have their answers.
                Err(error) => {
                    let refuse = |(item, _)| (item, Err(Refused::unanswered(&error)));
                    settled.extend(wanted.into_iter().map(refuse));
                    break;
                }
            };
            let mut again = BTreeMap::new();
            for (item, verdict) in told {
                match verdict {
                    Err(refused) if how.again.contains(&refused.code) => drop(again.insert(item, refused)),
                    verdict => {
                        let judged = verdict.map_err(|refused| self.judged(how, refused));
                        settled.entry(item).or_insert(judged);
                    }
                }
            }
            if again.is_empty() || !self.pause().await {
                let left = again.into_iter().map(|(item, refused)| (item, Err(refused)));
                settled.extend(left);
                break;
            }
            wanted.retain(|(item, _)| again.contains_key(item));
        }
        Ok(settled)
    }

    /// Asks the leader of each partition, all leaders at once, and again where leadership has moved.
    ///
    /// Nobody is asked two different things about one partition: that is refused here, as brokers refuse it.
    pub(super) async fn ask_leaders<R: Request, T: Clone + PartialEq + Send + Sync, V>(
        &mut self,
        how: &How,
        wanted: impl IntoIterator<Item = (TopicPartition, T)>,
        encode: impl Fn(i16, &[(TopicPartition, T)]) -> Result<Frame, CodecError> + Sync,
        read: impl Fn(R::Response) -> Vec<(TopicPartition, Verdict<V>)>,
    ) -> Result<BTreeMap<TopicPartition, Verdict<V>>, AdminError> {
        let mut settled: BTreeMap<TopicPartition, Verdict<V>> = BTreeMap::new();
        let mut wanted =
            once_each(wanted, |partition| drop(settled.insert(partition, Err(Refused::twice()))));
        let mut whole = None;
        let mut answered = false;
        while !wanted.is_empty() {
            let topics = wanted.keys().map(|partition| partition.topic.clone()).collect();
            let leaders = match self.leaders(topics).await {
                Ok(leaders) => leaders,
                Err(error) if !answered => return Err(error),
                Err(error) => {
                    let unanswered = |partition| (partition, Err(Refused::unanswered(&error)));
                    settled.extend(std::mem::take(&mut wanted).into_keys().map(unanswered));
                    break;
                }
            };
            let mut left: BTreeMap<TopicPartition, Refused> = BTreeMap::new();
            let mut groups: BTreeMap<i32, Vec<(TopicPartition, T)>> = BTreeMap::new();
            for (partition, what) in &wanted {
                match leaders.get(partition).copied().unwrap_or(Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)) {
                    Ok(leader) => groups.entry(leader).or_default().push((partition.clone(), what.clone())),
                    Err(code) => drop(left.insert(partition.clone(), Refused::new(code, None))),
                }
            }
            let (attempts, encode) = (&*self, &encode);
            let asked = groups.into_iter().map(async |(leader, group): (i32, Vec<(TopicPartition, T)>)| {
                let how = How { to: Target::Broker(leader), ..*how };
                let answer = attempts.once::<R>(&how, &|version| encode(version, &group)).await;
                (group, answer)
            });
            for (group, answer) in join_all(asked).await {
                match answer {
                    Ok(answer) => {
                        answered = true;
                        let mut told: BTreeMap<_, _> = read(answer).into_iter().collect();
                        for (partition, _) in group {
                            match told.remove(&partition).unwrap_or_else(|| Err(Refused::unnamed())) {
                                Err(refused) if may_move(refused.code) => {
                                    left.insert(partition, refused);
                                }
                                verdict => drop(settled.insert(partition, verdict)),
                            }
                        }
                    }
                    Err(error) => {
                        let refused = Refused::unanswered(&error);
                        let again = matches!(&error, AdminError::Request(e) if how.repeat.allows(e));
                        for (partition, _) in group {
                            match again {
                                true => drop(left.insert(partition, refused.clone())),
                                false => drop(settled.insert(partition, Err(refused.clone()))),
                            }
                        }
                        self.lost |= error.maybe_written();
                        whole = whole.or(Some(error));
                    }
                }
            }
            let unknown = |refused: &Refused| refused.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
            let hopeless = self.failed >= LOOKS_FOR_UNKNOWN && left.values().all(unknown);
            if left.is_empty() || hopeless || !self.pause().await {
                settled.extend(left.into_iter().map(|(partition, refused)| (partition, Err(refused))));
                break;
            }
            wanted.retain(|partition, _| left.contains_key(partition));
        }
        match whole {
            Some(error) if !answered => Err(error),
            _ => Ok(settled),
        }
    }

    /// Who leads each partition of these topics, as one broker knows it now.
    async fn leaders(
        &mut self,
        topics: BTreeSet<Arc<str>>,
    ) -> Result<BTreeMap<TopicPartition, Result<i32, ErrorCode>>, AdminError> {
        let request =
            Query { topics: Some(topics.into_iter().collect()), auto_create: false, of: None }.request();
        let encode = |version| codec::encode_request(version, &request);
        let answer = self.ask::<MetadataRequest>(&How::any(), &encode).await?;
        let mut leaders = BTreeMap::new();
        for topic in &answer.topics {
            let Some(name) = &topic.name else { continue };
            let name: Arc<str> = name.as_str().into();
            for partition in &topic.partitions {
                let code = match ErrorCode(partition.error_code) {
                    ErrorCode::NONE => ErrorCode::LEADER_NOT_AVAILABLE,
                    code => code,
                };
                let leader = Some(partition.leader_id.0).filter(|id| *id >= 0).ok_or(code);
                leaders.insert(TopicPartition::new(name.clone(), partition.partition_index), leader);
            }
        }
        Ok(leaders)
    }
}

/// How often a partition or a broker is looked for that nobody knows: it may be so new that word of it is still on its way.
const LOOKS_FOR_UNKNOWN: u32 = 5;

/// Another leader, or the same one a little later, may answer.
fn may_move(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NOT_LEADER_OR_FOLLOWER
            | ErrorCode::LEADER_NOT_AVAILABLE
            | ErrorCode::REPLICA_NOT_AVAILABLE
            | ErrorCode::FENCED_LEADER_EPOCH
            | ErrorCode::UNKNOWN_LEADER_EPOCH
            | ErrorCode::OFFSET_NOT_AVAILABLE
            | ErrorCode::KAFKA_STORAGE_ERROR
            | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    )
}

/// What is wanted of each partition; `refuse` gets those of which two different things are.
fn once_each<T: PartialEq>(
    wanted: impl IntoIterator<Item = (TopicPartition, T)>,
    mut refuse: impl FnMut(TopicPartition),
) -> BTreeMap<TopicPartition, T> {
    let (mut once, mut twice) = (BTreeMap::new(), BTreeSet::new());
    for (partition, what) in wanted {
        match once.get(&partition) {
            Some(known) if *known != what => drop(twice.insert(partition)),
            Some(_) => {}
            None => drop(once.insert(partition, what)),
        }
    }
    for partition in twice {
        once.remove(&partition);
        refuse(partition);
    }
    once
}

/// The api of a request, for errors.
pub(super) fn api<R: Request>() -> ApiKey {
    ApiKey::try_from(R::KEY).unwrap_or(ApiKey::ApiVersions)
}

/// A code and a text as a verdict.
pub(super) fn verdict(code: i16, message: Option<&StrBytes>) -> Verdict<()> {
    let code = ErrorCode(code);
    let text = || message.map(|message| message.as_str().to_owned());
    code.ok().map_err(|code| Refused::new(code, text()))
}

/// Groups what is asked for by topic, topics in the order of their names.
pub(super) fn by_topic<T>(
    wanted: impl IntoIterator<Item = (TopicPartition, T)>,
) -> impl Iterator<Item = (StrBytes, Vec<(i32, T)>)> {
    let mut topics: BTreeMap<Arc<str>, Vec<(i32, T)>> = BTreeMap::new();
    for (partition, what) in wanted {
        topics.entry(partition.topic).or_default().push((partition.partition, what));
    }
    topics.into_iter().map(|(topic, partitions)| (text(&topic), partitions))
}

/// A string of the protocol.
pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
