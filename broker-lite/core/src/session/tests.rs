//! Sessions by hand, and against a fetcher that asks for everything each time.

use klamm_wire::ErrorCode;
use proptest::prelude::*;

use super::*;
use crate::Tick;

const S: Tick = Tick::from_secs(1);

fn name(partition: i32) -> SessionPartition {
    SessionPartition { topic_id: Uuid::from_u128(7), topic: StrBytes::default(), partition }
}

fn asks(id: i32, epoch: i32, partitions: &[i32]) -> SessionRequest {
    let wanted = partitions.iter().map(|partition| (name(*partition), Wanted::from_offset(0, 100), None));
    SessionRequest {
        id,
        epoch,
        follower: false,
        topic_ids: true,
        wanted: wanted.collect(),
        forgotten: Vec::new(),
    }
}

fn quiet(high_watermark: i64) -> Found {
    Found { high_watermark, log_start_offset: 0, telling: false, records: false, failed: false, more: false }
}

fn records(high_watermark: i64) -> Found {
    Found { telling: true, records: true, ..quiet(high_watermark) }
}

const FAILED: Found = Found {
    high_watermark: -1,
    log_start_offset: -1,
    telling: false,
    records: false,
    failed: true,
    more: false,
};

/// Sessions, and what became of them.
struct Sut {
    sessions: Sessions,
    ended: Vec<i32>,
    next: i32,
}

impl Sut {
    fn new(slots: usize) -> Self {
        let limits = SessionLimits { slots, ..SessionLimits::default() };
        Self { sessions: Sessions::new(limits), ended: Vec::new(), next: 0 }
    }

    fn open(&mut self, now: Tick, request: &SessionRequest) -> Opened {
        self.sessions.open(now, request, &mut self.ended)
    }

    fn create(&mut self, now: Tick, request: &SessionRequest, told: &[Found]) -> i32 {
        let next = &mut self.next;
        let mut chance = || {
            *next += 1;
            *next
        };
        let partitions = request.wanted.iter().map(|(partition, ..)| partition.clone());
        let told: Vec<_> = partitions.zip(told.iter().copied()).collect();
        self.sessions.create(now, request, &told, &mut chance, &mut self.ended)
    }

    /// A session over these partitions that has nothing left to look at.
    fn settled(&mut self, partitions: &[i32]) -> i32 {
        let told = vec![quiet(0); partitions.len()];
        let id = self.create(S, &asks(0, 0, partitions), &told);
        self.round(id, 1, &[], |_| quiet(0));
        id
    }

    fn due(&self, id: i32) -> Vec<i32> {
        self.sessions.due(id).into_iter().map(|due| due.partition.partition).collect()
    }

    /// One request and its answer: the partitions in it.
    fn round(&mut self, id: i32, epoch: i32, named: &[i32], look: impl Fn(i32) -> Found) -> Vec<i32> {
        let Opened::Incremental { id, epoch } = self.open(S, &asks(id, epoch, named)) else { panic!() };
        let looked: Vec<_> = self.due(id).into_iter().map(|number| (name(number), look(number))).collect();
        let told = self.sessions.tell(id, epoch, &looked).unwrap();
        looked.iter().zip(told).filter(|(_, told)| *told).map(|((name, _), _)| name.partition).collect()
    }
}

#[test]
fn an_answer_tells_only_what_is_new_and_what_is_idle_is_not_even_looked_at() {
    let mut sut = Sut::new(10);
    let id = sut.create(S, &asks(0, 0, &[0, 1, 2]), &[quiet(5), quiet(5), records(9)]);
    assert_eq!(sut.round(id, 1, &[], |_| quiet(5)), [2], "it was told 9");
    assert_eq!(sut.due(id), [0; 0]);
    sut.sessions.touch(id, &[name(1)]);
    assert_eq!(sut.due(id), [1]);
    assert_eq!(sut.round(id, 2, &[], |_| quiet(6)), [1], "a higher high watermark");
    assert_eq!(sut.round(id, 3, &[0], |_| quiet(5)), [0; 0], "looked at, as it was named, and nothing new");
    sut.sessions.touch(id, &[name(9)]);
    assert_eq!(sut.due(id), [0; 0], "one that is not in the session");
}

#[test]
fn records_and_errors_are_told_again_until_they_are_gone() {
    let mut sut = Sut::new(10);
    let id = sut.settled(&[0, 1]);
    sut.sessions.touch(id, &[name(0), name(1)]);
    let look = |number| if number == 0 { records(3) } else { FAILED };
    assert_eq!(sut.round(id, 2, &[], look), [0, 1]);
    assert_eq!(sut.round(id, 3, &[], look), [1, 0], "nobody has moved on");
    assert_eq!(
        sut.round(id, 4, &[], |number| quiet(3 * i64::from(number == 0))),
        [1],
        "back to what it was told before"
    );
    assert_eq!(sut.due(id), [0; 0]);
}

#[test]
fn what_did_not_fit_comes_first_next_time() {
    let mut sut = Sut::new(10);
    let id = sut.settled(&[0, 1, 2]);
    sut.sessions.touch(id, &[name(0), name(1), name(2)]);
    let fits =
        |wanted| move |number| if number == wanted { records(0) } else { Found { more: true, ..quiet(0) } };
    assert_eq!(sut.round(id, 2, &[], fits(0)), [0]);
    assert_eq!(sut.due(id), [1, 2, 0]);
    assert_eq!(sut.round(id, 3, &[], fits(1)), [1]);
    assert_eq!(sut.due(id), [2, 0, 1]);
}

#[test]
fn who_has_told_records_is_last_next_time_and_the_others_keep_their_places() {
    let mut sut = Sut::new(10);
    let id = sut.settled(&[3, 1, 2]);
    sut.sessions.touch(id, &[name(1), name(2), name(3)]);
    let look = |number| if number == 3 { records(1) } else { FAILED };
    assert_eq!(sut.round(id, 2, &[], look), [3, 1, 2]);
    assert_eq!(sut.round(id, 3, &[0], look), [1, 2, 3, 0], "a new one comes behind those that were there");
}

#[test]
fn a_session_keeps_the_order_of_the_answer_that_has_opened_it() {
    let mut sut = Sut::new(10);
    let told = [(name(2), quiet(0)), (name(0), FAILED), (name(1), FAILED)];
    let asked = asks(0, 0, &[0, 1, 2]);
    let id = sut.sessions.create(S, &asked, &told, &mut || 5, &mut Vec::new());
    assert_eq!(sut.due(id), [2, 0, 1]);
}

#[test]
fn a_request_that_waits_does_not_look_again_at_what_is_quiet() {
    let mut sut = Sut::new(10);
    let id = sut.create(S, &asks(0, 0, &[0, 1]), &[quiet(0), quiet(0)]);
    let Opened::Incremental { epoch, .. } = sut.open(S, &asks(id, 1, &[])) else { panic!() };
    sut.sessions.settle(id, &[(name(0), quiet(0)), (name(1), quiet(4))]);
    assert_eq!(sut.due(id), [1], "its high watermark is to be told in the end");
    assert_eq!(sut.sessions.tell(id, epoch, &[(name(1), quiet(4))]), Ok(vec![true]));
}

#[test]
fn a_session_refuses_what_is_not_its_next_request() {
    let mut sut = Sut::new(10);
    let id = sut.create(S, &asks(0, 0, &[0]), &[quiet(0)]);
    let refused = |code| Opened::Refused(code);
    assert_eq!(sut.open(S, &asks(id + 1, 1, &[])), refused(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
    assert_eq!(sut.open(S, &asks(id, 2, &[])), refused(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
    let by_name = SessionRequest { topic_ids: false, ..asks(id, 1, &[]) };
    assert_eq!(sut.open(S, &by_name), refused(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR));
    assert_eq!(sut.open(S, &asks(id, 1, &[])), Opened::Incremental { id, epoch: 2 });
    assert_eq!(
        sut.open(S, &asks(id, 2, &[])),
        Opened::Incremental { id, epoch: 3 },
        "before the first was answered"
    );
    assert_eq!(sut.sessions.tell(id, 2, &[]), Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
    assert_eq!(sut.sessions.tell(id, 3, &[]), Ok(Vec::new()));
}

#[test]
fn a_session_ends_when_it_is_left_empty_or_named_by_a_whole_request() {
    let mut sut = Sut::new(10);
    let id = sut.create(S, &asks(0, 0, &[0, 1]), &[quiet(0), quiet(0)]);
    let leaves =
        |epoch, partition| SessionRequest { forgotten: vec![name(partition)], ..asks(id, epoch, &[]) };
    assert_eq!(sut.open(S, &leaves(1, 0)), Opened::Incremental { id, epoch: 2 });
    assert_eq!(sut.due(id), [1]);
    assert_eq!(sut.open(S, &leaves(2, 1)), Opened::Whole { may_create: false });
    assert_eq!((sut.sessions.len(), &*sut.ended), (0, &[id][..]));

    let second = sut.settled(&[0]);
    assert_eq!(sut.open(S, &asks(second, -1, &[])), Opened::Whole { may_create: false });
    let third = sut.settled(&[0]);
    assert_eq!(sut.open(S, &asks(third, 0, &[0])), Opened::Whole { may_create: true });
    assert!(sut.sessions.is_empty());
    assert_eq!(sut.ended, [id, second, third]);
}

#[test]
fn epochs_go_on_from_one_after_the_largest() {
    assert_eq!((next_epoch(0), next_epoch(i32::MAX)), (1, 1));
}

/// Goal: the slots are never exceeded, and who may evict whom is Kafka's rule.
#[test]
fn a_full_cache_gives_up_the_session_that_is_worth_least() {
    let mut sut = Sut::new(2);
    let open = |sut: &mut Sut, now, follower, size: i32| {
        let partitions: Vec<_> = (0..size).collect();
        let request = SessionRequest { follower, ..asks(0, 0, &partitions) };
        sut.create(now, &request, &vec![quiet(0); partitions.len()])
    };
    let small = open(&mut sut, S, false, 1);
    let large = open(&mut sut, S, false, 5);
    assert_eq!(open(&mut sut, S, false, 9), 0, "young sessions of consumers stay before consumers");
    let follower = open(&mut sut, S, true, 3);
    assert_eq!(sut.ended, [small], "but not before followers");
    assert!(follower != 0 && sut.sessions.len() == 2);
    assert_ne!(open(&mut sut, S, true, 1), 0, "a follower's, however small, for a consumer's");
    assert_eq!(sut.ended, [small, large]);
    assert_eq!(open(&mut sut, S, true, 9), 0, "young sessions of followers stay");
    assert_ne!(open(&mut sut, 200 * S, false, 1), 0, "what was not used for two minutes goes for anything");
    assert_eq!(sut.ended, [small, large, follower]);
    let mut none = Sut::new(0);
    assert_eq!(none.create(S, &asks(0, 0, &[0]), &[quiet(0)]), 0);
}

#[test]
fn every_partition_of_a_follower_is_looked_at_from_time_to_time() {
    let mut sut = Sut::new(2);
    let follower = |id, epoch| SessionRequest { follower: true, ..asks(id, epoch, &[]) };
    let first = SessionRequest { follower: true, ..asks(0, 0, &[0, 1]) };
    let id = sut.create(S, &first, &[quiet(0), quiet(0)]);
    sut.sessions.settle(id, &[(name(0), quiet(0)), (name(1), quiet(0))]);
    sut.open(2 * S, &follower(id, 1));
    assert_eq!(sut.due(id), [0; 0]);
    sut.open(9 * S, &follower(id, 2));
    assert_eq!(sut.due(id), [0, 1]);
}

#[derive(Debug, Clone)]
enum Step {
    Append(i32),
    Fail(i32, bool),
    Fetch,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4).prop_map(Step::Append),
        ((0..4), any::<bool>()).prop_map(|(partition, fails)| Step::Fail(partition, fails)),
        Just(Step::Fetch),
    ]
}

/// A partition as the fetcher sees it: its error, or its high watermark.
type Seen = Result<i64, ()>;

proptest! {
    /// Goal: whoever fetches in a session knows after each answer what a whole answer would tell, however few
    /// partitions fit into one, once nothing is due any more.
    #[test]
    fn a_session_tells_what_whole_requests_would(steps in prop::collection::vec(step(), 0..60), room in 1usize..3) {
        let mut sut = Sut::new(1);
        let mut truth: Vec<(i64, bool)> = vec![(0, false); 4];
        let mut positions = [0i64; 4];
        let mut seen: Vec<Seen> = vec![Ok(0); 4];
        let id = sut.create(S, &asks(0, 0, &[0, 1, 2, 3]), &[quiet(0); 4]);
        let mut epoch = 1;
        let mut moved: Vec<i32> = Vec::new();
        let mut fetch = |sut: &mut Sut, truth: &[(i64, bool)], seen: &mut Vec<Seen>, positions: &mut [i64; 4]| {
            let mut request = asks(id, epoch, &moved);
            for (name, wanted, _) in &mut request.wanted {
                wanted.fetch_offset = positions[name.partition as usize];
            }
            epoch = match sut.open(S, &request) { Opened::Incremental { epoch, .. } => epoch, _ => panic!() };
            moved.clear();
            let mut left = room;
            let looked: Vec<_> = sut.sessions.due(id).into_iter().map(|due| {
                let (end, fails) = truth[due.partition.partition as usize];
                let has = end > due.wanted.fetch_offset;
                let found = match (fails, has) {
                    (true, _) => FAILED,
                    (_, false) => quiet(end),
                    (_, true) if left == 0 => Found { more: true, ..quiet(end) },
                    (_, true) => { left -= 1; records(end) }
                };
                (due.partition, found)
            }).collect();
            let told = sut.sessions.tell(id, epoch, &looked).unwrap();
            for ((name, found), _) in looked.iter().zip(told).filter(|(_, told)| *told) {
                let at = name.partition as usize;
                seen[at] = if found.failed { Err(()) } else { Ok(found.high_watermark) };
                if found.telling {
                    positions[at] = found.high_watermark;
                    moved.push(name.partition);
                }
            }
        };
        for step in steps {
            match step {
                Step::Append(partition) => {
                    truth[partition as usize].0 += 1;
                    sut.sessions.touch(id, &[name(partition)]);
                }
                Step::Fail(partition, fails) => {
                    truth[partition as usize].1 = fails;
                    sut.sessions.touch(id, &[name(partition)]);
                }
                Step::Fetch => fetch(&mut sut, &truth, &mut seen, &mut positions),
            }
        }
        for _ in 0..12 {
            fetch(&mut sut, &truth, &mut seen, &mut positions);
        }
        for (at, (end, fails)) in truth.iter().enumerate() {
            prop_assert_eq!(seen[at], if *fails { Err(()) } else { Ok(*end) });
            prop_assert!(*fails || positions[at] == *end);
        }
    }
}
