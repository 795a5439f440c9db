//! A process that stands still for a while, and is told so when it wakes.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::simulation::settings;
use crate::Tick;
use crate::quorum::*;
use crate::storage::MemoryDirectory;

const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone)]
enum Step {
    Wait(u32),
    /// Before anything else happens.
    Stall(u32),
    Ask {
        from: i32,
        ahead: i32,
        kind: u8,
        longer: bool,
    },
    Fetch {
        from: i32,
        behind: i64,
    },
    /// The oldest request that waits for an outcome: a vote given or not, or no answer.
    Answer(Option<bool>),
}

fn step() -> impl Strategy<Value = Step> {
    let from = || prop_oneof![Just(2), Just(3)];
    prop_oneof![
        4 => (1..80_u32).prop_map(Step::Wait),
        2 => (1..2_000_u32).prop_map(Step::Stall),
        2 => (from(), -1..3_i32, 0..4_u8, any::<bool>())
            .prop_map(|(from, ahead, kind, longer)| Step::Ask { from, ahead, kind, longer }),
        3 => (from(), 0..2_i64).prop_map(|(from, behind)| Step::Fetch { from, behind }),
        4 => prop::option::weighted(0.8, any::<bool>()).prop_map(Step::Answer),
    ]
}

/// One voter of three, and the effects of every step.
struct Alone {
    voter: Voter,
    store: MetadataStore<MemoryDirectory>,
    /// Time in which the process was awake, and in which it was not.
    awake: Tick,
    stalled: Tick,
    waiting: Vec<(i32, u64, Request)>,
    seen: Vec<Effect>,
}

impl Alone {
    fn new() -> Self {
        let (store, state) = MetadataStore::open(MemoryDirectory::new()).unwrap();
        let (rng, now) = (fastrand::Rng::with_seed(1), Now::default());
        let voter = Voter::new(now, 1, BTreeSet::from([1, 2, 3]), settings(), state, &store, rng);
        let (awake, stalled) = (Tick::ZERO, Tick::ZERO);
        Self { voter, store, awake, stalled, waiting: Vec::new(), seen: Vec::new() }
    }

    fn now(&self) -> Now {
        Now { tick: self.awake + self.stalled, wall_ms: 0 }
    }

    fn act(
        &mut self,
        act: impl FnOnce(&mut Voter, &mut MetadataStore<MemoryDirectory>, Now, &mut Vec<Effect>),
    ) {
        let mut fx = Vec::new();
        let now = self.now();
        act(&mut self.voter, &mut self.store, now, &mut fx);
        let mut done = 0;
        while let Some(effect) = fx.get(done).cloned() {
            done += 1;
            match effect {
                Effect::Send { to, number, request } => self.waiting.push((to, number, request)),
                Effect::Sync { end, cut } => self.voter.synced(now, end, cut, &self.store, &mut fx),
                _ => {}
            }
        }
        self.seen.extend(fx);
    }

    /// Lets awake time pass, deadline by deadline.
    fn wait(&mut self, time: Duration) {
        let end = self.awake + time;
        while let Some(due) = self.voter.deadline().filter(|due| *due <= end + self.stalled) {
            self.awake = self.awake.max(due - self.stalled);
            self.act(|voter, store, now, fx| voter.on_deadline(now, store, fx).unwrap());
        }
        self.awake = end;
    }

    fn take(&mut self, step: &Step, stalls: bool) {
        match *step {
            Step::Wait(ms) => self.wait(ms * MS),
            Step::Stall(ms) if stalls => {
                self.stalled += ms * MS;
                self.voter.deaf(ms * MS);
            }
            Step::Stall(_) => {}
            Step::Ask { from, ahead, kind, longer } => {
                let epoch = (self.voter.epoch() + ahead).max(0);
                let (last_epoch, last_offset) = if longer { (epoch, 100) } else { (0, 0) };
                let request = match kind {
                    0 | 1 => Request::Vote(Vote {
                        epoch,
                        candidate: from,
                        last_epoch,
                        last_offset,
                        pre_vote: kind == 0,
                    }),
                    2 => Request::BeginEpoch { leader: from, epoch },
                    _ => Request::EndEpoch { leader: from, epoch, successors: vec![1, 5 - from] },
                };
                self.act(|voter, store, now, fx| {
                    voter.on_request(now, &request, store, fx);
                });
            }
            Step::Fetch { from, behind } => {
                let offset = (self.store.end_offset() - behind).max(0);
                let (epoch, last_epoch) = (self.voter.epoch(), self.store.last_epoch());
                let fetch = Fetch { epoch, offset, last_epoch, high_watermark: 0 };
                self.act(|voter, store, now, fx| {
                    voter.fetch(now, Replica::Voter(from), &fetch, 100, store, fx).unwrap();
                });
            }
            Step::Answer(granted) => {
                if self.waiting.is_empty() {
                    return;
                }
                let (from, number, request) = self.waiting.remove(0);
                let head = Head {
                    error: klamm_wire::ErrorCode::NONE,
                    leader: self.voter.leader(),
                    epoch: self.voter.epoch(),
                };
                let answer = granted.map(|granted| match request {
                    Request::Vote(_) => Response::Vote { head, granted },
                    Request::Fetch(_) => {
                        Response::Fetch { head, high_watermark: 0, fetched: Fetched::Records(Vec::new()) }
                    }
                    _ => Response::Epoch(head),
                });
                self.act(|voter, store, now, fx| {
                    voter.on_response(now, from, number, answer.as_ref(), store, fx).unwrap();
                });
            }
        }
    }
}

proptest! {
    /// Goal: neither an election nor a resignation, nor anything else, comes of time in which nobody could be heard.
    #[test]
    fn a_voter_that_was_held_up_and_told_so_goes_on_as_if_nothing_had_been(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let (mut steady, mut stalled) = (Alone::new(), Alone::new());
        for step in &steps {
            steady.take(step, false);
            stalled.take(step, true);
            prop_assert_eq!(&steady.seen, &stalled.seen);
            prop_assert_eq!(steady.voter.leading(), stalled.voter.leading());
            prop_assert_eq!(steady.voter.deadline(), stalled.voter.deadline().map(|due| due - stalled.stalled));
        }
    }
}
