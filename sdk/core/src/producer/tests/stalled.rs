//! Which brokers count as stalled, so that records without a key avoid them.

use super::*;

fn stalled(desk: &Desk) -> Vec<(i32, Tick)> {
    desk.sender.stalled().collect()
}

/// A desk whose broker has all the requests in flight that it may have since 10 ms, and something more to take.
fn busy() -> Desk {
    let mut desk = Desk::new(Settings { idempotent: false, max_in_flight: 2, ..settings() });
    desk.full(P0);
    assert_eq!(stalled(&desk), [], "it would take another one");
    desk.at(10 * MS);
    desk.full(P0);
    desk.full(P1);
    desk
}

#[test]
fn a_broker_is_stalled_from_its_last_request_until_it_answers_one() {
    let mut desk = busy();
    desk.at(20 * MS);
    desk.full(P0);
    assert_eq!(stalled(&desk), [(1, 10 * MS)]);
    desk.at(30 * MS);
    desk.answer(0, P0, ErrorCode::NONE, 0);
    assert_eq!(stalled(&desk), [(1, 30 * MS)], "one more is taken, and that makes two again");
    desk.at(40 * MS);
    desk.answer(1, P0, ErrorCode::NONE, 3);
    assert_eq!(stalled(&desk), [], "it would take another one");
}

#[test]
fn a_broker_stays_stalled_through_vain_attempts_to_reach_it_until_it_takes_something() {
    let mut desk = busy();
    desk.feed(Event::Lost { request: RequestId(0), maybe_written: true, retriable: true });
    desk.at(50 * MS);
    desk.feed(Event::Unreachable { broker: 1 });
    desk.at(400 * MS);
    desk.feed(Event::Unreachable { broker: 1 });
    assert_eq!(stalled(&desk), [(1, 10 * MS)]);
    let sent = desk.feed(Event::Connected { broker: 1 });
    assert!(sent.iter().any(|effect| matches!(effect, Effect::Produce(_))), "{sent:?}");
    assert_eq!(
        stalled(&desk),
        [(1, 400 * MS)],
        "it took something, and has its two requests in flight again"
    );
}

/// Goal: nobody is left out for ever because nothing is there any more that could show the contrary.
#[test]
fn a_broker_has_another_chance_when_what_waited_is_given_up_and_when_it_leads_again() {
    let mut desk = busy();
    for request in [0, 1].map(RequestId) {
        desk.feed(Event::Lost { request, maybe_written: true, retriable: true });
    }
    desk.at(10 * MS + settings().delivery_timeout);
    assert_eq!(stalled(&desk), [], "nothing waits any more");

    let mut desk = busy();
    desk.feed(Event::Leader { partition: P1, leader: Some(2) });
    desk.feed(Event::Leader { partition: P1, leader: Some(1) });
    assert_eq!(
        stalled(&desk).iter().find(|(id, _)| *id == 1),
        Some(&(1, 10 * MS)),
        "from now on: the clock stood still"
    );
    desk.at(20 * MS);
    desk.feed(Event::Leader { partition: P1, leader: Some(2) });
    desk.feed(Event::Leader { partition: P1, leader: Some(1) });
    assert_eq!(stalled(&desk).iter().find(|(id, _)| *id == 1), Some(&(1, 20 * MS)));
}
