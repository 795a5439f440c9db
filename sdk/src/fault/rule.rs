//! Which requests a fault meets, and how often.
//!
//! In: requests and dials, each with its place on its connection. Out: a [`Plan`] for each.
//!
//! Invariant: chance is a function of the seed, the rule, the connection and the request's number on it, so that one
//! rule more or less, or another order of connections, does not move the others' chances.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use klamm_wire::ambient::mix;
use klamm_wire::{Endpoint, ErrorCode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::rt::stable_hash;

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The request reaches the broker so much later, and so do those behind it that would overtake it. Finds time
    /// limits that are too short, and code that takes a slow broker for a dead one.
    DelayRequest(Delay),
    /// The answer is handed over so much later, and so are those behind it. Finds the same where the broker has done
    /// its work already.
    DelayAnswer(Delay),
    /// Requests and answers pass no faster than this, in bytes a second each way. Finds buffers that are too small, and
    /// time limits that do not think of large batches.
    Bandwidth(u64),
    /// The answer asks for a pause (`throttle_time_ms`), as a broker with quotas does.
    Throttle(Duration),
    /// The request is refused with this code and not sent. (Metadata requests are sent, because a refusal names the
    /// brokers as well.) Finds code that gives up where it should try again, and the other way round.
    Refuse(ErrorCode),
    /// The request is carried out and answered with this code all the same. Finds retries that write twice.
    FailAfter(ErrorCode),
    /// The request is not sent, and neither it nor anything behind it on its connection is answered, as by a broker
    /// that hangs. Finds waits without a limit.
    DropRequest,
    /// The request is carried out, and neither it nor anything behind it on its connection is answered.
    DropAnswer,
    /// The connection breaks before the request is sent. Finds requests that are forgotten with their connection.
    CutBefore,
    /// The request is carried out, and the connection breaks before the answer arrives. Finds retries that write twice,
    /// and records that are given up although they are in the log.
    CutAfter,
}

/// What goes wrong with the making of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialFault {
    /// Nobody listens.
    Refuse,
    /// Nobody answers.
    Hang,
    /// It takes so much longer.
    Delay(Delay),
}

/// How long: always the same, or drawn anew each time from a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    min: Duration,
    max: Duration,
}

impl From<Duration> for Delay {
    fn from(always: Duration) -> Self {
        Self { min: always, max: always }
    }
}

impl From<RangeInclusive<Duration>> for Delay {
    fn from(range: RangeInclusive<Duration>) -> Self {
        Self { min: *range.start(), max: *range.end().max(range.start()) }
    }
}

impl Delay {
    fn draw(self, chance: u64) -> Duration {
        let span = u64::try_from((self.max - self.min).as_nanos()).unwrap_or(u64::MAX);
        self.min + Duration::from_nanos(chance % span.saturating_add(1))
    }
}

/// What to wait for with a rule.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    Request(Option<i16>, Fault),
    Dial(DialFault),
}

#[derive(Debug, Clone)]
pub(super) struct Matcher {
    pub(super) to: Option<String>,
    pub(super) client: Option<String>,
    pub(super) probability: f64,
    pub(super) skip: u64,
    pub(super) times: Option<u64>,
}

impl Default for Matcher {
    fn default() -> Self {
        Self { to: None, client: None, probability: 1.0, skip: 0, times: None }
    }
}

impl Matcher {
    fn is_about(&self, line: &Line) -> bool {
        self.to.as_ref().is_none_or(|to| *to == line.address)
            && self.client.as_ref().is_none_or(|client| line.client.as_deref() == Some(client))
    }
}

/// One rule in force.
#[derive(Debug)]
pub(super) struct Armed {
    id: u64,
    matcher: Matcher,
    subject: Subject,
    counts: Mutex<Counts>,
    hit: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    matched: u64,
    hits: u64,
}

impl Armed {
    pub(super) fn hits(&self) -> u64 {
        self.counts.lock().hits
    }

    pub(super) async fn until_hits(&self, count: u64) {
        loop {
            let hit = self.hit.notified();
            if self.hits() >= count {
                return;
            }
            hit.await;
        }
    }

    /// Counts a request that the rule is about; `true` if the fault meets it.
    fn meets(&self, chance: u64) -> bool {
        let mut counts = self.counts.lock();
        counts.matched += 1;
        let meets = counts.matched > self.matcher.skip
            && self.matcher.times.is_none_or(|times| counts.hits < times)
            && fraction(chance) < self.matcher.probability;
        counts.hits += u64::from(meets);
        drop(counts);
        if meets {
            self.hit.notify_waiters();
        }
        meets
    }
}

/// A number from 0 up to but without 1.
fn fraction(chance: u64) -> f64 {
    (chance >> 11) as f64 / (1_u64 << 53) as f64
}

/// A connection, as rules see it.
#[derive(Debug, Clone)]
pub(super) struct Line {
    address: String,
    client: Option<Arc<str>>,
    /// Chance of its own for each connection.
    chance: u64,
}

/// What is to happen to one request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) delay_request: Duration,
    pub(super) delay_answer: Duration,
    /// Bytes a second.
    pub(super) bandwidth: Option<u64>,
    pub(super) throttle: Option<Duration>,
    /// One of those that decide about the request; the first one counts.
    pub(super) verdict: Option<Fault>,
}

impl Plan {
    fn add(&mut self, fault: &Fault, chance: u64) {
        match fault {
            Fault::DelayRequest(delay) => self.delay_request += delay.draw(chance),
            Fault::DelayAnswer(delay) => self.delay_answer += delay.draw(chance),
            Fault::Bandwidth(rate) => {
                let rate = (*rate).max(1);
                self.bandwidth = Some(self.bandwidth.map_or(rate, |other| other.min(rate)));
            }
            Fault::Throttle(pause) => self.throttle = Some(*pause),
            verdict => self.verdict = Some(verdict.clone()),
        }
    }
}

/// All rules of a layer.
#[derive(Debug)]
pub(super) struct Rules {
    seed: u64,
    off: AtomicBool,
    hits: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    armed: Vec<Arc<Armed>>,
    next_id: u64,
    /// Connections so far, by address and client.
    dialled: BTreeMap<(String, Option<Arc<str>>), u64>,
}

impl Rules {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, off: AtomicBool::new(false), hits: AtomicU64::new(0), state: Mutex::default() }
    }

    pub(super) fn arm(&self, matcher: Matcher, subject: Subject) -> Arc<Armed> {
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        let counts = Mutex::default();
        let armed = Arc::new(Armed { id, matcher, subject, counts, hit: Notify::new() });
        state.armed.push(armed.clone());
        armed
    }

    pub(super) fn disarm(&self, rule: &Arc<Armed>) {
        self.state.lock().armed.retain(|other| !Arc::ptr_eq(other, rule));
    }

    pub(super) fn switch(&self, on: bool) {
        self.off.store(!on, Ordering::Relaxed);
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Numbers a connection.
    pub(super) fn line(&self, endpoint: &Endpoint) -> Line {
        let (address, client) = (endpoint.to_string(), endpoint.client_id.clone());
        let mut state = self.state.lock();
        let number = state.dialled.entry((address.clone(), client.clone())).or_default();
        *number += 1;
        let name = mix(stable_hash(&address), stable_hash(client.as_deref().unwrap_or_default()));
        Line { chance: mix(mix(self.seed, name), *number), address, client }
    }

    /// Rules that are about a connection, with the chance of each for something that has this number on it.
    fn about<'a>(&self, line: &'a Line, number: u64) -> impl Iterator<Item = (Arc<Armed>, u64)> + use<'a> {
        let armed = match self.off.load(Ordering::Relaxed) {
            true => Vec::new(),
            false => self.state.lock().armed.clone(),
        };
        let about = armed.into_iter().filter(|rule| rule.matcher.is_about(line));
        about.map(move |rule| {
            let chance = mix(mix(line.chance, rule.id), number);
            (rule, chance)
        })
    }

    /// What is to happen to the request that has this number on its connection, from 0.
    pub(super) fn plan(&self, line: &Line, number: u64, api_key: i16) -> Plan {
        let mut plan = Plan::default();
        for (rule, chance) in self.about(line, number) {
            let Subject::Request(api, fault) = &rule.subject else { continue };
            if api.is_none_or(|api| api == api_key) && rule.meets(chance) {
                self.hits.fetch_add(1, Ordering::Relaxed);
                plan.add(fault, mix(chance, 1));
                if plan.verdict.is_some() {
                    break;
                }
            }
        }
        plan
    }

    /// What is to happen to the making of a connection.
    pub(super) fn plan_dial(&self, line: &Line) -> (Duration, Option<DialFault>) {
        let mut delay = Duration::ZERO;
        for (rule, chance) in self.about(line, u64::MAX) {
            let Subject::Dial(fault) = &rule.subject else { continue };
            if rule.meets(chance) {
                self.hits.fetch_add(1, Ordering::Relaxed);
                match fault {
                    DialFault::Delay(more) => delay += more.draw(mix(chance, 1)),
                    verdict => return (delay, Some(verdict.clone())),
                }
            }
        }
        (delay, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn line(rules: &Rules) -> Line {
        rules.line(&Endpoint::new("here", 1))
    }

    fn matcher(probability: f64) -> Matcher {
        Matcher { probability, ..Matcher::default() }
    }

    /// Which of 64 requests are cut on the first and on the second connection.
    fn cuts(seed: u64, more: bool) -> Vec<bool> {
        let rules = Rules::new(seed);
        rules.arm(matcher(0.5), Subject::Request(None, Fault::CutAfter));
        if more {
            rules.arm(matcher(0.5), Subject::Request(None, Fault::DelayAnswer((MS..=9 * MS).into())));
        }
        let lines = [line(&rules), line(&rules)];
        let cut = |(line, number)| rules.plan(line, number, 0).verdict.is_some();
        lines.iter().flat_map(|line| (0..64).map(move |number| (line, number))).map(cut).collect()
    }

    #[test]
    fn the_same_seed_decides_the_same_and_another_rule_moves_nothing() {
        let first = cuts(7, false);
        assert_eq!(first, cuts(7, true));
        assert_ne!(first, cuts(8, false));
        assert_ne!(first[..64], first[64..], "every connection has chances of its own");
        let met = first.iter().filter(|cut| **cut).count();
        assert!((40..88).contains(&met), "{met} of 128");
    }

    #[test]
    fn rules_of_equal_probability_do_not_meet_the_same_requests() {
        let rules = Rules::new(5);
        let fault = || Subject::Request(None, Fault::DelayAnswer(MS.into()));
        let both = [rules.arm(matcher(0.5), fault()), rules.arm(matcher(0.5), fault())];
        let line = line(&rules);
        let delays: Vec<_> = (0..64).map(|number| rules.plan(&line, number, 0).delay_answer).collect();
        for delay in [Duration::ZERO, MS, 2 * MS] {
            assert!(delays.contains(&delay), "{delays:?}");
        }
        assert_ne!(both[0].hits(), 0);
    }

    #[test]
    fn a_rule_skips_and_ends_as_it_says() {
        let rules = Rules::new(1);
        let limits = Matcher { skip: 2, times: Some(3), ..Matcher::default() };
        let rule = rules.arm(limits, Subject::Request(Some(1), Fault::CutBefore));
        let line = line(&rules);
        assert_eq!(rules.plan(&line, 0, 0), Plan::default(), "another api is not counted");
        let met: Vec<bool> = (1..9).map(|number| rules.plan(&line, number, 1).verdict.is_some()).collect();
        assert_eq!(met, [false, false, true, true, true, false, false, false]);
        assert_eq!((rule.hits(), rules.hits()), (3, 3));
    }

    #[test]
    fn delays_add_up_and_the_first_verdict_counts() {
        let rules = Rules::new(1);
        let arm = |fault| rules.arm(Matcher::default(), Subject::Request(None, fault));
        arm(Fault::DelayRequest(MS.into()));
        arm(Fault::DelayRequest((2 * MS).into()));
        arm(Fault::Bandwidth(50));
        arm(Fault::Bandwidth(20));
        arm(Fault::Refuse(ErrorCode::NOT_CONTROLLER));
        let after = arm(Fault::CutAfter);
        let plan = rules.plan(&line(&rules), 0, 3);
        let verdict = Some(Fault::Refuse(ErrorCode::NOT_CONTROLLER));
        assert_eq!((plan.delay_request, plan.bandwidth, plan.verdict), (3 * MS, Some(20), verdict));
        assert_eq!(after.hits(), 0);
    }

    #[test]
    fn a_delay_stays_in_its_range_and_uses_all_of_it() {
        let delay = Delay::from(2 * MS..=5 * MS);
        let drawn: Vec<_> = (0..200).map(|n| delay.draw(mix(3, n))).collect();
        assert!(drawn.iter().all(|d| (2 * MS..=5 * MS).contains(d)));
        assert!(drawn.iter().any(|d| *d < 3 * MS) && drawn.iter().any(|d| *d > 4 * MS));
        assert_eq!(Delay::from(MS).draw(u64::MAX), MS);
    }
}
