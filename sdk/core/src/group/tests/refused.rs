//! Whatever a coordinator says, and for however long: no member spins.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use klamm_wire::ErrorCode;

use super::one::settings;
use crate::assign::{Assignment, RebalanceProtocol};
use crate::group::*;
use crate::{Tick, TopicPartition};

const S: Tick = Duration::from_secs(1);
/// Requests in ten seconds that are no burden to anybody: pauses double up to a second, and an attempt takes three requests.
const FEW: usize = 60;

fn refusal_of(effect: &Effect, refused: &str, with: Refusal) -> Option<Event> {
    Some(match effect {
        Effect::FindCoordinator if refused == "find" => Event::Coordinator(Err(with)),
        Effect::Join { ticket, .. } if refused == "join" => Event::Join(*ticket, JoinAnswer::Refused(with)),
        Effect::Join { ticket, .. } if refused == "id" => {
            Event::Join(*ticket, JoinAnswer::MemberIdRequired("another".into()))
        }
        Effect::Sync { ticket, .. } if refused == "sync" => Event::Sync(*ticket, Err(with)),
        Effect::Heartbeat { ticket, .. } if refused == "heartbeat" => Event::Heartbeat(*ticket, Err(with)),
        Effect::FetchOffsets { ticket, .. } if refused == "no offsets" => {
            Event::Offsets(*ticket, Ok(BTreeMap::new()))
        }
        Effect::FetchOffsets { ticket, .. } if refused == "offsets" => Event::Offsets(*ticket, Err(with)),
        _ => return None,
    })
}

fn answer(effect: &Effect, generation: i32) -> Option<Event> {
    Some(match effect {
        Effect::FindCoordinator => Event::Coordinator(Ok(1)),
        Effect::Join { ticket, .. } => {
            let joined = Joined {
                generation,
                assignor: "a".into(),
                member_id: "m".into(),
                members: None,
                stands: false,
            };
            Event::Join(*ticket, JoinAnswer::Joined(joined))
        }
        Effect::Sync { ticket, .. } => {
            let partitions = vec![TopicPartition::new("t", 0)];
            Event::Sync(*ticket, Ok(Ok(Assignment { partitions, user_data: None })))
        }
        Effect::Heartbeat { ticket, .. } => Event::Heartbeat(*ticket, Ok(())),
        Effect::FetchOffsets { ticket, partitions, .. } => {
            let found = partitions.iter().map(|name| (name.clone(), None));
            Event::Offsets(*ticket, Ok(found.collect()))
        }
        Effect::Tell(id, _) => Event::Told(*id),
        Effect::Leave { ticket, .. } => Event::Left(*ticket, Ok(())),
        _ => return None,
    })
}

/// Requests in ten seconds, every one answered in no time; and why it failed, if it did. `adopted`: it has an assignment, and what
/// is refused is what comes after.
fn run(protocol: RebalanceProtocol, adopted: bool, refused: &str, with: Refusal) -> (usize, Option<Fatal>) {
    let mut member = Membership::new(settings(protocol, false), fastrand::Rng::with_seed(1));
    let (mut now, mut events) = (S, VecDeque::from([Event::Subscribe(["t".into()].into())]));
    let (mut requests, mut failed, mut joins) = (0, None, 0);
    let mut begun = !adopted;
    while now <= 11 * S {
        let mut effects = Vec::new();
        match events.pop_front() {
            Some(event) => member.step(now, event, &mut effects),
            None => member.on_deadline(now, &mut effects),
        }
        for effect in effects {
            joins += i32::from(matches!(effect, Effect::Join { .. }));
            let refusal = refusal_of(&effect, refused, with).filter(|_| begun);
            let answer = refusal.or_else(|| answer(&effect, joins));
            requests += usize::from(answer.is_some() && !matches!(effect, Effect::Tell(..)));
            events.extend(answer);
            if let Effect::Fail(why) = effect {
                failed = Some(why);
            }
        }
        if !begun && member.is_stable() && events.is_empty() {
            begun = true;
            events.push_back(Event::Subscribe(["t".into(), "u".into()].into()));
        }
        assert!(requests < 1_000, "{refused} refused with {with:?}: it spins");
        if events.is_empty() {
            let Some(next) = member.deadline() else { break };
            assert!(next > now, "{refused} refused with {with:?}: it is due again at once");
            now = next;
        }
    }
    (requests, failed)
}

#[test]
fn no_refusal_makes_a_member_spin_however_often_it_is_repeated() {
    let codes = [
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ErrorCode::NOT_COORDINATOR,
        ErrorCode::ILLEGAL_GENERATION,
        ErrorCode::UNKNOWN_MEMBER_ID,
        ErrorCode::REBALANCE_IN_PROGRESS,
        ErrorCode::UNSTABLE_OFFSET_COMMIT,
        ErrorCode::NOT_ENOUGH_REPLICAS,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    ];
    for protocol in [RebalanceProtocol::Eager, RebalanceProtocol::Cooperative] {
        for refused in ["nothing", "find", "join", "id", "sync", "heartbeat", "offsets", "no offsets"] {
            let all = || codes.map(Refusal::Code).into_iter().chain([Refusal::NoAnswer]);
            for (adopted, with) in
                [false, true].into_iter().flat_map(|adopted| all().map(move |with| (adopted, with)))
            {
                let (requests, failed) = run(protocol, adopted, refused, with);
                assert!(
                    requests <= FEW,
                    "{refused} refused with {with:?}: {requests} requests in ten seconds"
                );
                assert!(requests >= 4, "{refused} refused with {with:?}: it gave up after {requests}");
                assert_eq!(failed, None, "{refused} refused with {with:?}");
            }
        }
    }
}

#[test]
fn what_nothing_helps_against_ends_the_attempts_and_names_the_cure() {
    for (code, cure) in [
        (ErrorCode::FENCED_INSTANCE_ID, "group.instance.id"),
        (ErrorCode::INCONSISTENT_GROUP_PROTOCOL, "partition.assignment.strategy"),
        (ErrorCode::INVALID_GROUP_ID, "group.id"),
        (ErrorCode::INVALID_SESSION_TIMEOUT, "group.min.session.timeout.ms"),
        (ErrorCode::GROUP_MAX_SIZE_REACHED, "group.max.size"),
        (ErrorCode::GROUP_AUTHORIZATION_FAILED, "READ"),
    ] {
        for refused in ["find", "join", "sync", "heartbeat", "offsets"] {
            let (requests, failed) = run(RebalanceProtocol::Eager, false, refused, Refusal::Code(code));
            assert!(requests <= 10, "{refused}: {requests} requests");
            let told = failed.unwrap_or_else(|| panic!("{refused} refused with {code}: nothing is told"));
            assert!(told.to_string().contains(cure), "{told}");
        }
    }
}
