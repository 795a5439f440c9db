use klamm_wire::messages::BrokerId;
use klamm_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const ID: Uuid = Uuid::from_u128(7);

fn machine() -> Refresh {
    let settings = RefreshSettings {
        max_age: 300 * S,
        max_idle: 300 * S,
        retry: Backoff::new(100 * MS, S),
        rebootstrap: Some(300 * S),
    };
    Refresh::new(settings, fastrand::Rng::with_seed(1))
}

fn response(topics: Vec<MetadataResponseTopic>) -> MetadataResponse {
    let broker = |id| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(id))
            .with_host(StrBytes::from_static_str("h"))
            .with_port(9092)
    };
    MetadataResponse::default()
        .with_brokers(vec![broker(1), broker(2)])
        .with_controller_id(BrokerId(1))
        .with_topics(topics)
}

fn topic(name: &str, id: Uuid, error: ErrorCode, partitions: &[(i32, i32)]) -> MetadataResponseTopic {
    let partition = |(index, (leader, epoch)): (usize, &(i32, i32))| {
        MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(BrokerId(*leader))
            .with_leader_epoch(*epoch)
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))))
        .with_topic_id(id)
        .with_error_code(error.0)
        .with_partitions(partitions.iter().enumerate().map(partition).collect())
}

fn good(name: &str) -> MetadataResponseTopic {
    topic(name, ID, ErrorCode::NONE, &[(1, 0)])
}

fn step(machine: &mut Refresh, now: Tick, event: Event<'_>) -> Vec<Effect> {
    let mut out = vec![];
    machine.step(now, event, &mut out);
    out
}

fn wake(machine: &mut Refresh, now: Tick) -> Vec<Effect> {
    let mut out = vec![];
    machine.on_deadline(now, &mut out);
    out
}

fn want(machine: &mut Refresh, now: Tick, topic: &str, auto_create: bool) -> Vec<Effect> {
    step(machine, now, Event::Wanted { topic: topic.into(), auto_create })
}

fn ask(topics: &[&str], auto_create: bool) -> Vec<Effect> {
    let topics = Some(topics.iter().map(|name| (*name).into()).collect());
    vec![Effect::Ask(Query { topics, auto_create, of: None })]
}

/// A machine that has asked for the brokers and got an answer at `now`.
fn started(now: Tick) -> Refresh {
    let mut machine = machine();
    assert_eq!(wake(&mut machine, now), ask(&[], false));
    let out = step(&mut machine, now, Event::Answered(Some(1), &response(vec![])));
    assert_eq!(out, [Effect::Publish(machine.snapshot().clone())]);
    machine
}

/// A machine that knows topic `a`.
fn knowing_a(now: Tick) -> Refresh {
    let mut machine = started(now);
    want(&mut machine, now, "a", false);
    assert_eq!(wake(&mut machine, now), ask(&["a"], false));
    step(&mut machine, now, Event::Answered(Some(1), &response(vec![good("a")])));
    machine
}

#[test]
fn brokers_are_asked_for_at_once_and_again_when_they_are_old() {
    let mut machine = started(S);
    assert_eq!(machine.snapshot().brokers.len(), 2);
    assert_eq!(machine.deadline(), Some(300 * S));
    assert_eq!(wake(&mut machine, 299 * S), []);
    assert_eq!(wake(&mut machine, 300 * S), ask(&[], false));
}

#[test]
fn topics_wanted_together_share_a_query_unless_only_some_may_be_created() {
    let mut machine = started(S);
    want(&mut machine, S, "b", false);
    want(&mut machine, S, "a", false);
    want(&mut machine, S, "c", true);
    assert_eq!(wake(&mut machine, S), ask(&["c"], true));
    assert_eq!(wake(&mut machine, S), [], "one query at a time");
    step(&mut machine, S, Event::Answered(Some(1), &response(vec![good("c")])));
    assert_eq!(wake(&mut machine, S), ask(&["a", "b"], false), "a new topic does not wait for the pause");
}

#[test]
fn a_topic_that_is_not_known_yet_is_asked_for_again_after_a_pause() {
    let mut machine = started(S);
    want(&mut machine, S, "a", true);
    wake(&mut machine, S);
    let unknown = topic("a", Uuid::nil(), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, &[]);
    step(&mut machine, S, Event::Answered(Some(1), &response(vec![unknown])));
    let at = machine.deadline().unwrap();
    assert!(at >= S + 80 * MS && at <= S + 120 * MS, "{at:?}");
    assert_eq!(wake(&mut machine, at - MS), []);
    assert_eq!(wake(&mut machine, at), ask(&["a"], true));
    step(&mut machine, at, Event::Answered(Some(1), &response(vec![good("a")])));
    assert_eq!(machine.snapshot().leader("a", 0), Some((1, 0)));
    assert_eq!(machine.deadline(), Some(300 * S), "known: no reason to ask");
}

#[test]
fn a_refused_topic_is_not_asked_for_again_until_somebody_wants_it_again() {
    let mut machine = started(S);
    want(&mut machine, S, "a b", true);
    wake(&mut machine, S);
    let refused = topic("a b", Uuid::nil(), ErrorCode::INVALID_TOPIC_EXCEPTION, &[]);
    step(&mut machine, S, Event::Answered(Some(1), &response(vec![refused])));
    assert_eq!(machine.snapshot().topics["a b"].error, ErrorCode::INVALID_TOPIC_EXCEPTION);
    assert_eq!(machine.deadline(), Some(300 * S));

    want(&mut machine, 2 * S, "a b", true);
    assert!(!machine.snapshot().topics.contains_key("a b"), "the old refusal is no answer");
    assert_eq!(wake(&mut machine, 2 * S), ask(&["a b"], true));
}

#[test]
fn doubts_are_coalesced_and_queries_are_kept_apart() {
    let mut machine = knowing_a(S);
    for _ in 0..10 {
        assert_eq!(step(&mut machine, S, Event::Doubted), []);
    }
    let at = machine.deadline().unwrap();
    assert!(at >= S + 80 * MS && at <= S + 120 * MS, "{at:?}");
    assert_eq!(wake(&mut machine, at), ask(&["a"], false));
    step(&mut machine, at, Event::Doubted);
    step(&mut machine, at, Event::Answered(Some(1), &response(vec![good("a")])));
    let next = machine.deadline().unwrap();
    assert!(next > at && next <= at + 120 * MS, "doubted after it was asked: {next:?}");
}

#[test]
fn a_partition_without_leader_is_asked_for_until_it_has_one() {
    let mut machine = knowing_a(S);
    step(&mut machine, S, Event::Doubted);
    let mut now = machine.deadline().unwrap();
    let mut pauses = vec![];
    for _ in 0..6 {
        assert_eq!(wake(&mut machine, now), ask(&["a"], false));
        let dead = topic("a", ID, ErrorCode::NONE, &[(-1, 1)]);
        step(&mut machine, now, Event::Answered(Some(1), &response(vec![dead])));
        assert_eq!(machine.snapshot().leader("a", 0), None);
        let next = machine.deadline().unwrap();
        pauses.push(next - now);
        now = next;
    }
    assert!(pauses[0] <= 120 * MS && pauses[5] >= 800 * MS && pauses[5] <= S, "{pauses:?}");
    wake(&mut machine, now);
    step(
        &mut machine,
        now,
        Event::Answered(Some(1), &response(vec![topic("a", ID, ErrorCode::NONE, &[(2, 2)])])),
    );
    assert_eq!(machine.snapshot().leader("a", 0), Some((2, 2)));
}

#[test]
fn a_failed_query_is_repeated_after_a_pause() {
    let mut machine = machine();
    wake(&mut machine, S);
    assert_eq!(step(&mut machine, S, Event::Failed), []);
    let at = machine.deadline().unwrap();
    assert!(at >= S + 80 * MS && at <= S + 120 * MS, "{at:?}");
    assert_eq!(wake(&mut machine, at), ask(&[], false));
}

#[test]
fn an_answer_without_brokers_or_with_an_error_counts_as_failed() {
    for response in
        [MetadataResponse::default(), response(vec![]).with_error_code(ErrorCode::UNKNOWN_SERVER_ERROR.0)]
    {
        let mut machine = machine();
        wake(&mut machine, S);
        assert_eq!(step(&mut machine, S, Event::Answered(Some(1), &response)), []);
        assert!(machine.deadline().unwrap() < 2 * S);
    }
}

#[test]
fn topics_nobody_uses_are_dropped_and_used_ones_stay() {
    let mut machine = knowing_a(S);
    want(&mut machine, S, "b", false);
    wake(&mut machine, S);
    step(&mut machine, S, Event::Answered(Some(1), &response(vec![good("b")])));
    step(&mut machine, 250 * S, Event::Used("b"));
    let mut now = machine.deadline().unwrap();
    assert_eq!(wake(&mut machine, now), ask(&["a", "b"], false));
    step(&mut machine, now, Event::Answered(Some(1), &response(vec![good("a"), good("b")])));
    now = machine.deadline().unwrap();
    step(&mut machine, now - S, Event::Used("b"));
    assert_eq!(wake(&mut machine, now), ask(&["b"], false));
    step(&mut machine, now, Event::Answered(Some(1), &response(vec![good("b")])));
    let names: Vec<_> = machine.snapshot().topics.keys().map(|name| &**name).collect();
    assert_eq!(names, ["b"]);
}

#[test]
fn a_leader_epoch_never_goes_back_but_a_new_topic_of_the_same_name_starts_again() {
    let mut machine = knowing_a(S);
    let mut now = S;
    let mut tell = |machine: &mut Refresh, id, partitions: &[(i32, i32)]| {
        step(machine, now, Event::Doubted);
        now = machine.deadline().unwrap().max(now);
        wake(machine, now);
        step(
            machine,
            now,
            Event::Answered(Some(1), &response(vec![topic("a", id, ErrorCode::NONE, partitions)])),
        );
        machine.snapshot().leader("a", 0)
    };
    assert_eq!(tell(&mut machine, ID, &[(2, 5)]), Some((2, 5)));
    assert_eq!(tell(&mut machine, ID, &[(1, 4)]), Some((2, 5)), "an outdated broker");
    assert_eq!(tell(&mut machine, ID, &[]), Some((2, 5)), "a partition does not vanish");
    assert_eq!(tell(&mut machine, ID, &[(-1, -1)]), None, "no leader, and no epoch told");
    assert_eq!(tell(&mut machine, ID, &[(1, 4)]), None, "still outdated");
    assert_eq!(tell(&mut machine, ID, &[(3, 6)]), Some((3, 6)));
    assert_eq!(tell(&mut machine, Uuid::from_u128(8), &[(1, 0)]), Some((1, 0)), "created anew");
}

#[test]
fn a_broker_that_does_not_know_a_topic_does_not_erase_it() {
    let mut machine = knowing_a(S);
    step(&mut machine, S, Event::Doubted);
    let now = machine.deadline().unwrap();
    wake(&mut machine, now);
    let unknown = topic("a", Uuid::nil(), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, &[]);
    step(&mut machine, now, Event::Answered(Some(1), &response(vec![unknown])));
    let known = &machine.snapshot().topics["a"];
    assert_eq!((known.error, known.id), (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ID));
    assert_eq!(machine.snapshot().leader("a", 0), Some((1, 0)));
}

#[test]
fn a_leader_told_by_the_way_counts_only_if_its_epoch_is_newer() {
    let mut machine = knowing_a(S);
    let hint = |leader, leader_epoch, endpoint| Event::Leader {
        topic: "a",
        partition: 0,
        leader,
        leader_epoch,
        endpoint,
    };
    let at = |id| Some(BrokerMetadata { id, host: "new".to_owned(), port: 1, rack: None });
    assert_eq!(step(&mut machine, S, hint(2, 0, None)), []);
    assert_eq!(step(&mut machine, S, hint(9, 3, None)), [], "a broker that nobody knows");
    assert_eq!(step(&mut machine, S, hint(9, 3, at(8))), [], "nor does that tell");
    assert_eq!(step(&mut machine, S, hint(2, 3, at(2))).len(), 1);
    assert_eq!(machine.snapshot().leader("a", 0), Some((2, 3)));
    assert_ne!(machine.snapshot().brokers[&2].host, "new", "the metadata know best");
    assert_eq!(step(&mut machine, S, hint(9, 3, at(9))), [], "old");
    assert!(!machine.snapshot().brokers.contains_key(&9));
    assert_eq!(step(&mut machine, S, hint(9, 4, at(9))).len(), 1);
    assert_eq!(machine.snapshot().leader("a", 0), Some((9, 4)));
    assert_eq!(machine.snapshot().brokers.get(&9), at(9).as_ref());
}

#[test]
fn when_no_known_broker_can_be_reached_the_bootstrap_list_is_used_again() {
    let mut machine = knowing_a(S);
    step(&mut machine, 2 * S, Event::Doubted);
    assert_eq!(wake(&mut machine, 2 * S), ask(&["a"], false));
    let out = step(&mut machine, 3 * S, Event::Unreachable);
    assert_eq!(out, [Effect::Publish(machine.snapshot().clone()), Effect::Rebootstrap]);
    assert!(machine.snapshot().brokers.is_empty());
    assert_eq!(machine.snapshot().topics["a"].partitions[0].leader_epoch, 0, "epochs are kept");
    assert_eq!(wake(&mut machine, 3 * S), ask(&["a"], false), "at once");
    assert_eq!(step(&mut machine, 4 * S, Event::Unreachable), [], "there is nothing else to go back to");
}

#[test]
fn without_an_answer_for_long_the_bootstrap_list_is_used_again() {
    let mut machine = knowing_a(S);
    step(&mut machine, 2 * S, Event::Doubted);
    wake(&mut machine, 2 * S);
    let mut now = 2 * S;
    while now < 301 * S {
        step(&mut machine, now, Event::Failed);
        now = machine.deadline().unwrap();
        step(&mut machine, now, Event::Used("a"));
        let out = wake(&mut machine, now);
        assert!(!out.contains(&Effect::Rebootstrap), "{now:?}");
    }
    let out = wake(&mut machine, 302 * S);
    assert!(out.contains(&Effect::Rebootstrap), "{out:?}");
    assert_eq!(out.last(), ask(&["a"], false).last());
}

#[test]
fn a_broker_may_ask_for_a_fresh_start() {
    let mut machine = knowing_a(S);
    step(&mut machine, 2 * S, Event::Doubted);
    wake(&mut machine, 2 * S);
    let told = response(vec![]).with_error_code(ErrorCode::REBOOTSTRAP_REQUIRED.0);
    let out = step(&mut machine, 2 * S, Event::Answered(Some(1), &told));
    assert!(out.contains(&Effect::Rebootstrap), "{out:?}");
}

#[test]
fn with_recovery_strategy_none_there_is_no_fresh_start() {
    let mut machine = knowing_a(S);
    machine.settings.rebootstrap = None;
    step(&mut machine, 2 * S, Event::Doubted);
    wake(&mut machine, 2 * S);
    assert_eq!(step(&mut machine, 2 * S, Event::Unreachable), []);
    let now = machine.deadline().unwrap();
    assert_eq!(wake(&mut machine, now), ask(&["a"], false));
    let told = response(vec![]).with_error_code(ErrorCode::REBOOTSTRAP_REQUIRED.0);
    assert_eq!(step(&mut machine, now, Event::Answered(Some(1), &told)), []);
    assert_eq!(machine.rebootstrap_at(), None);
}

#[derive(Debug, Clone)]
enum Step {
    Want(u8, bool),
    Follow(Option<&'static str>),
    Doubt,
    Fail,
    Unreachable,
    Answer(Vec<(u128, i16, i32, i32)>),
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let told = (0u128..3, prop_oneof![4 => Just(0i16), 1 => Just(3), 1 => Just(17)], -1i32..3, -1i32..6);
    prop_oneof![
        3 => (0u8..3, any::<bool>()).prop_map(|(topic, auto)| Step::Want(topic, auto)),
        1 => prop::sample::select(vec![None, Some("t[01]"), Some("t[12]")]).prop_map(Step::Follow),
        2 => Just(Step::Doubt),
        1 => Just(Step::Fail),
        1 => Just(Step::Unreachable),
        5 => prop::collection::vec(told, 1..4).prop_map(Step::Answer),
        4 => (0u64..2000).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens in whatever order: one query at a time, no topic both with and without creation, no
    /// leader epoch of the same topic id goes back, versions grow, and work that is due has a deadline.
    #[test]
    fn the_rules_hold_in_every_order(steps in prop::collection::vec(any_step(), 0..120)) {
        let (mut machine, mut now) = (machine(), Tick::ZERO);
        let mut out_for: Option<Query> = None;
        let mut version = 0;
        for step in steps {
            let before = machine.snapshot().clone();
            let mut effects = vec![];
            match step {
                Step::Want(topic, auto_create) => {
                    let topic = format!("t{topic}").into();
                    machine.step(now, Event::Wanted { topic, auto_create }, &mut effects);
                }
                Step::Follow(text) => {
                    machine.step(now, Event::Follow(text.map(pattern)), &mut effects);
                }
                Step::Doubt => machine.step(now, Event::Doubted, &mut effects),
                Step::Fail if out_for.take().is_some() => machine.step(now, Event::Failed, &mut effects),
                Step::Unreachable if out_for.take().is_some() => {
                    machine.step(now, Event::Unreachable, &mut effects);
                }
                Step::Answer(told) => if let Some(query) = out_for.take() {
                    // Of all topics there are, some.
                    let some = || (0..told.len()).map(|number| format!("t{number}").into()).collect();
                    let names: Vec<Arc<str>> = query.topics.unwrap_or_else(some);
                    let topics = names.iter().zip(told).map(|(name, (id, error, leader, epoch))| {
                        topic(name, Uuid::from_u128(id), ErrorCode(error), &[(leader, epoch)])
                    });
                    machine.step(now, Event::Answered(Some(1), &response(topics.collect())), &mut effects);
                },
                Step::Pass(ms) => now += Duration::from_millis(ms),
                Step::Fail | Step::Unreachable => {}
            }
            machine.on_deadline(now, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Ask(query) => prop_assert!(out_for.replace(query).is_none(), "two queries at once"),
                    Effect::Rebootstrap => out_for = None,
                    Effect::Publish(cluster) => {
                        prop_assert!(cluster.version > version);
                        version = cluster.version;
                    }
                }
            }
            prop_assert!(machine.deadline().is_some());
            let matched = machine.snapshot().matched.iter().flat_map(|matched| &matched.topics);
            for name in matched {
                prop_assert!(machine.snapshot().topics.contains_key(name), "{} matches and is not known", name);
            }
            for (name, old) in &before.topics {
                let Some(new) = machine.snapshot().topics.get(name) else { continue };
                for (old_partition, new_partition) in old.partitions.iter().zip(&new.partitions) {
                    let same = old.id == new.id || old.id.is_nil() || new.id.is_nil();
                    let untold = new_partition.leader_epoch == -1 && new_partition.leader.is_some();
                    prop_assert!(!same || untold
                        || new_partition.leader_epoch >= old_partition.leader_epoch);
                }
            }
        }
    }
}

fn pattern(text: &str) -> TopicPattern {
    TopicPattern::new(text, true).unwrap()
}

fn follow(machine: &mut Refresh, now: Tick, text: &str) {
    let pattern = pattern(text);
    step(machine, now, Event::Follow(Some(pattern)));
    assert_eq!(machine.deadline(), Some(Tick::ZERO), "a new pattern does not wait");
    assert_eq!(wake(machine, now), [ask_all()]);
}

fn ask_all() -> Effect {
    ask_all_of(None)
}

fn ask_all_of(of: Option<i32>) -> Effect {
    Effect::Ask(Query { topics: None, auto_create: false, of })
}

fn answer(machine: &mut Refresh, now: Tick, topics: Vec<MetadataResponseTopic>) {
    let out = step(machine, now, Event::Answered(Some(1), &response(topics)));
    assert_eq!(out, [Effect::Publish(machine.snapshot().clone())]);
}

fn matched(machine: &Refresh) -> Vec<&str> {
    machine.snapshot().matched.as_ref().unwrap().topics.iter().map(|name| &**name).collect()
}

fn known(machine: &Refresh) -> Vec<&str> {
    machine.snapshot().topics.keys().map(|name| &**name).collect()
}

#[test]
fn a_pattern_is_evaluated_on_all_topics_with_every_refresh() {
    let mut machine = started(S);
    follow(&mut machine, S, "t[0-9]");
    assert!(machine.snapshot().matched.is_none(), "nobody knows yet");
    let internal = good("t9").with_is_internal(true);
    answer(&mut machine, S, vec![good("t1"), good("other"), internal.clone()]);
    assert_eq!((matched(&machine), known(&machine)), (vec!["t1"], vec!["t1"]));
    assert_eq!(machine.deadline(), Some(300 * S), "no more than any other topic");

    // One is deleted and one created.
    assert_eq!(wake(&mut machine, 300 * S), [ask_all()]);
    answer(&mut machine, 300 * S, vec![good("t2"), internal.clone()]);
    assert_eq!(matched(&machine), ["t1", "t2"], "once more, to be sure");
    assert_eq!(wake(&mut machine, 301 * S), [ask_all_of(Some(1))], "who has told of it");
    answer(&mut machine, 301 * S, vec![good("t2"), internal]);
    assert_eq!((matched(&machine), known(&machine)), (vec!["t2"], vec!["t2"]));
    assert_eq!(machine.snapshot().leader("t2", 0), Some((1, 0)));

    step(&mut machine, 302 * S, Event::Follow(None));
    assert_eq!(machine.snapshot().matched, None);
    step(&mut machine, 302 * S, Event::Doubted);
    assert_eq!(wake(&mut machine, 303 * S), ask(&[], false), "only brokers are asked for now");
    answer(&mut machine, 303 * S, vec![]);
    assert!(known(&machine).is_empty());
}

#[test]
fn a_matching_topic_without_leader_is_asked_for_again_and_a_query_without_answer_too() {
    let mut machine = started(S);
    follow(&mut machine, S, "t");
    step(&mut machine, S, Event::Failed);
    let at = machine.deadline().unwrap();
    assert!(at > S && at < 2 * S, "after a pause: {at:?}");
    assert_eq!(wake(&mut machine, at), [ask_all()]);
    answer(&mut machine, at, vec![topic("t", ID, ErrorCode::NONE, &[(-1, 0)])]);
    assert_eq!(matched(&machine), ["t"]);
    let at = machine.deadline().unwrap();
    assert!(at < 3 * S, "{at:?}");
    assert_eq!(wake(&mut machine, at), [ask_all()]);
    answer(&mut machine, at, vec![good("t")]);
    assert_eq!(machine.deadline(), Some(300 * S));
}

#[test]
fn topics_wanted_by_name_and_a_pattern_take_turns() {
    let mut machine = started(S);
    want(&mut machine, S, "named", true);
    follow(&mut machine, S, "t");
    answer(&mut machine, S, vec![topic("t", ID, ErrorCode::NONE, &[(-1, 0)])]);
    assert_eq!(wake(&mut machine, S), ask(&["named"], true), "it may have to be created");
    answer(&mut machine, S, vec![topic("named", ID, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, &[])]);
    assert_eq!(matched(&machine), ["t"], "an answer about others does not change it");
    let at = machine.deadline().unwrap();
    assert_eq!(wake(&mut machine, at), [ask_all()]);
    answer(&mut machine, at, vec![topic("t", ID, ErrorCode::NONE, &[(-1, 0)])]);
    let at = machine.deadline().unwrap();
    assert_eq!(wake(&mut machine, at), ask(&["named"], true));
    answer(&mut machine, at, vec![good("named")]);
    let at = machine.deadline().unwrap();
    assert_eq!(wake(&mut machine, at), [ask_all()]);
    answer(&mut machine, at, vec![good("t"), good("named")]);
    assert_eq!((matched(&machine), known(&machine)), (vec!["t"], vec!["named", "t"]));
}

#[test]
fn another_pattern_is_answered_anew_and_an_old_epoch_is_not_believed() {
    let mut machine = started(S);
    follow(&mut machine, S, "t|u");
    answer(&mut machine, S, vec![topic("t", ID, ErrorCode::NONE, &[(2, 5)]), good("u")]);
    let first = machine.snapshot().matched.clone().unwrap();
    follow(&mut machine, 2 * S, "t");
    assert_eq!(machine.snapshot().matched, None);
    assert_eq!(machine.snapshot().leader("t", 0), Some((2, 5)), "what is read goes on");
    answer(&mut machine, 2 * S, vec![good("t"), good("u")]);
    assert_eq!((matched(&machine), known(&machine)), (vec!["t"], vec!["t"]));
    assert!(!machine.snapshot().matched.as_ref().unwrap().pattern.is(&first.pattern));
}

/// Answers the query for `t`, once it is asked, as a broker does that has it or not.
fn tell_t(machine: &mut Refresh, by: i32, there: bool) -> Tick {
    step(machine, machine.not_before, Event::Doubted);
    let at = machine.deadline().unwrap();
    let asked = wake(machine, at);
    assert!(
        matches!(&asked[..], [Effect::Ask(Query { topics: Some(topics), .. })] if **topics == ["t".into()])
    );
    let denied = topic("t", Uuid::nil(), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, &[]);
    let told = if there { good("t") } else { denied };
    step(machine, at, Event::Answered(Some(by), &response(vec![told])));
    at
}

#[test]
fn a_topic_is_gone_when_a_broker_says_so_that_knew_it() {
    let mut machine = started(S);
    want(&mut machine, S, "t", false);
    wake(&mut machine, S);
    answer(&mut machine, S, vec![good("t")]);
    // The other one has not heard of it, for a while.
    while tell_t(&mut machine, 2, false) < 3 * S {
        let known = &machine.snapshot().topics["t"];
        assert!(!known.gone && known.is_there(), "{known:?}");
    }
    for gone in [false, true] {
        tell_t(&mut machine, 1, false);
        assert_eq!(machine.snapshot().topics["t"].gone, gone);
    }
    assert!(!machine.snapshot().topics["t"].is_there());
    tell_t(&mut machine, 2, true);
    assert!(!machine.snapshot().topics["t"].gone, "it was created again");
}

#[test]
fn a_topic_that_matches_stays_when_a_broker_does_not_list_it_that_never_did() {
    let mut machine = started(S);
    follow(&mut machine, S, "t");
    answer(&mut machine, S, vec![good("t")]);
    step(&mut machine, S, Event::Doubted);
    for of in [None, Some(1), Some(1), Some(1)] {
        let at = machine.deadline().unwrap();
        assert!(at < 20 * S, "it is asked for again soon");
        assert_eq!(wake(&mut machine, at), [ask_all_of(of)]);
        step(&mut machine, at, Event::Answered(Some(2), &response(vec![])));
        assert_eq!((matched(&machine), known(&machine)), (vec!["t"], vec!["t"]));
        assert_eq!(machine.snapshot().leader("t", 0), Some((1, 0)));
    }
    for left in [1, 0] {
        let at = machine.deadline().unwrap();
        wake(&mut machine, at);
        answer(&mut machine, at, vec![]);
        assert_eq!(matched(&machine).len(), left);
    }
    assert!(machine.deadline().unwrap() > 100 * S, "nothing is missing any more");
}

#[test]
fn a_topic_does_not_become_a_former_one_of_its_name_again() {
    let mut machine = knowing_a(S);
    let mut tell = |id| {
        step(&mut machine, S, Event::Doubted);
        let at = machine.deadline().unwrap();
        wake(&mut machine, at);
        let told = topic("a", Uuid::from_u128(id), ErrorCode::NONE, &[(1, 0), (2, 0)][..(id - 6) as usize]);
        step(&mut machine, at, Event::Answered(Some(2), &response(vec![told])));
        let known = &machine.snapshot().topics["a"];
        (known.id.as_u128(), known.partitions.len(), machine.deadline().unwrap() - at < 2 * S)
    };
    assert_eq!(tell(8), (8, 2, false));
    assert_eq!(tell(7), (8, 2, true), "a broker that lags behind is asked again");
    assert_eq!(tell(8), (8, 2, false));
}
