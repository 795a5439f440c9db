//! Asking the coordinators of groups: who they are, and again where groups have moved or are still being loaded.

use std::collections::BTreeMap;

use futures::future::join_all;
use klamm_wire::codec::{self, CodecError};
use klamm_wire::messages::find_coordinator_response::Coordinator;
use klamm_wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use klamm_wire::{ErrorCode, Frame, Request};

use crate::admin::call::{Attempts, How, Verdict, text, verdict};
use crate::admin::error::{AdminError, Refused};
use crate::client::Target;

/// First version of FindCoordinator that is asked for several groups (KIP-699).
const SEVERAL_KEYS: i16 = 4;

/// How many groups one request may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Batch {
    /// One.
    Single,
    /// As many as there are, from this version of the api on; one before.
    From(i16),
}

/// Another coordinator, or the same one a little later, may answer.
pub(super) fn may_move(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NOT_COORDINATOR
            | ErrorCode::COORDINATOR_NOT_AVAILABLE
            | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
    )
}

/// Groups that were asked for in one request, and the answer.
type Asked<T, A> = (Vec<(String, T)>, Result<A, AdminError>);

impl Attempts<'_> {
    /// Asks the coordinator of each group, all coordinators at once, and again where a group has moved.
    ///
    /// `read` gets who answers, what was asked for and the answer.
    pub(super) async fn ask_coordinators<R: Request, T: Clone + Sync, V>(
        &mut self,
        how: &How,
        batch: Batch,
        mut wanted: BTreeMap<String, T>,
        encode: impl Fn(i16, &[(String, T)]) -> Result<Frame, CodecError> + Sync,
        read: impl Fn(i32, &[(String, T)], R::Response) -> Vec<(String, Verdict<V>)>,
    ) -> Result<BTreeMap<String, Verdict<V>>, AdminError> {
        let mut settled: BTreeMap<String, Verdict<V>> = BTreeMap::new();
        let mut whole = None;
        let mut answered = false;
        while !wanted.is_empty() {
            let coordinators = match self.coordinators(wanted.keys().cloned().collect()).await {
                Ok(coordinators) => coordinators,
                Err(error) if !answered => return Err(error),
                Err(error) => {
                    let unanswered = |group| (group, Err(Refused::unanswered(&error)));
                    settled.extend(std::mem::take(&mut wanted).into_keys().map(unanswered));
                    break;
                }
            };
            let mut left: BTreeMap<String, Refused> = BTreeMap::new();
            let mut requests: BTreeMap<i32, Vec<(String, T)>> = BTreeMap::new();
            for (group, what) in &wanted {
                match coordinators.get(group).cloned().unwrap_or_else(|| Err(Refused::unnamed())) {
                    Ok(broker) => requests.entry(broker).or_default().push((group.clone(), what.clone())),
                    Err(refused) if may_move(refused.code) => drop(left.insert(group.clone(), refused)),
                    Err(refused) => {
                        answered = true;
                        settled.insert(group.clone(), Err(refused));
                    }
                }
            }
            let (attempts, encode) = (&*self, &encode);
            let asked = requests.into_iter().map(async |(broker, groups)| {
                let how = How { to: Target::Broker(broker), ..*how };
                (broker, attempts.once_or_singly::<R, T>(&how, batch, groups, encode).await)
            });
            for (broker, answers) in join_all(asked).await {
                for (asked, answer) in answers {
                    let answer = match answer {
                        Ok(answer) => answer,
                        Err(error) => {
                            let refused = Refused::unanswered(&error);
                            let again = matches!(&error, AdminError::Request(e) if how.repeat.allows(e));
                            for (group, _) in asked {
                                match again {
                                    true => drop(left.insert(group, refused.clone())),
                                    false => drop(settled.insert(group, Err(refused.clone()))),
                                }
                            }
                            self.lost |= error.maybe_written();
                            whole = Some(error);
                            continue;
                        }
                    };
                    answered = true;
                    let mut told: BTreeMap<_, _> = read(broker, &asked, answer).into_iter().collect();
                    for (group, _) in asked {
                        match told.remove(&group).unwrap_or_else(|| Err(Refused::unnamed())) {
                            Err(refused) if may_move(refused.code) || how.again.contains(&refused.code) => {
                                left.insert(group, refused);
                            }
                            verdict => {
                                let judged = verdict.map_err(|refused| self.judged(how, refused));
                                settled.insert(group, judged);
                            }
                        }
                    }
                }
            }
            if left.is_empty() || !self.pause().await {
                settled.extend(left.into_iter().map(|(group, refused)| (group, Err(refused))));
                break;
            }
            wanted.retain(|group, _| left.contains_key(group));
        }
        match whole {
            Some(error) if !answered => Err(error),
            _ => Ok(settled),
        }
    }

    /// Sends one request for all groups, or one for each if the broker is too old for that.
    async fn once_or_singly<R: Request, T: Clone + Sync>(
        &self,
        how: &How,
        batch: Batch,
        groups: Vec<(String, T)>,
        encode: &(impl Fn(i16, &[(String, T)]) -> Result<Frame, CodecError> + Sync),
    ) -> Vec<Asked<T, R::Response>> {
        if let Batch::From(version) = batch
            && groups.len() > 1
        {
            let together = How { needs: Some((version, "several groups in one request")), ..*how };
            match self.once::<R>(&together, &|version| encode(version, &groups)).await {
                Err(AdminError::TooOld { .. }) => {}
                answer => return vec![(groups, answer)],
            }
        }
        let mut answers = Vec::new();
        for group in groups {
            let group = vec![group];
            let answer = self.once::<R>(how, &|version| encode(version, &group)).await;
            answers.push((group, answer));
        }
        answers
    }

    /// Who coordinates each group, as one broker knows it now.
    async fn coordinators(
        &mut self,
        groups: Vec<String>,
    ) -> Result<BTreeMap<String, Verdict<i32>>, AdminError> {
        let encode = |version: i16, groups: &[String]| {
            let mut keys = groups.iter().map(|group| text(group));
            let request = match version {
                SEVERAL_KEYS.. => FindCoordinatorRequest::default().with_coordinator_keys(keys.collect()),
                _ => FindCoordinatorRequest::default().with_key(keys.next().unwrap_or_default()),
            };
            codec::encode_request(version, &request)
        };
        let (mut found, how) = (BTreeMap::new(), How::any());
        if groups.len() > 1 {
            let together = How { needs: Some((SEVERAL_KEYS, "several groups in one request")), ..how };
            let asked =
                self.ask::<FindCoordinatorRequest>(&together, &|version| encode(version, &groups)).await;
            match asked {
                Err(AdminError::TooOld { .. }) => {}
                answer => {
                    note(&mut found, &groups, answer?);
                    return Ok(found);
                }
            }
        }
        for group in groups {
            let group = [group];
            let answer = self.ask::<FindCoordinatorRequest>(&how, &|version| encode(version, &group)).await?;
            note(&mut found, &group, answer);
        }
        Ok(found)
    }
}

fn note(found: &mut BTreeMap<String, Verdict<i32>>, groups: &[String], answer: FindCoordinatorResponse) {
    match groups {
        // Before version 4 the answer does not name it.
        [group] if answer.coordinators.is_empty() => {
            let alone = Coordinator::default()
                .with_error_code(answer.error_code)
                .with_error_message(answer.error_message)
                .with_node_id(answer.node_id);
            found.insert(group.clone(), told(&alone));
        }
        _ => found.extend(answer.coordinators.iter().map(|one| (one.key.as_str().to_owned(), told(one)))),
    }
}

fn told(told: &Coordinator) -> Verdict<i32> {
    verdict(told.error_code, told.error_message.as_ref()).map(|()| told.node_id.0)
}
