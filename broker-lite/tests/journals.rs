//! The journals of events and of requests.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::Duration;

use broker_lite::messages::{DeleteTopicsRequest, FetchRequest, ProduceRequest};
use broker_lite::{ApiKey, Cluster, Ending, ErrorCode, Event, Fault, NodeEvent, Party, Side, Stage};
use klamm_wire::messages::delete_topics_request::DeleteTopicState;
use support::{Socket, Talk, batch, produce, topic_name};
use tokio::time::sleep;

async fn cluster() -> (Cluster, i32) {
    let cluster = Cluster::builder().seed(7).start().await.unwrap();
    cluster.create_topic("t", 1, 3, &[]).await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    (cluster, leader)
}

/// An event in a few words.
fn told(event: &Event) -> String {
    match event {
        Event::LeaderChanged(change) => format!("{} led by {:?}", change.topic, change.leader),
        Event::IsrChanged { topic, isr, previous, .. } => {
            format!("isr of {topic} {} -> {}", previous.len(), isr.len())
        }
        Event::BrokerRegistered { broker, .. } => format!("{broker} registered"),
        Event::Fenced { broker, .. } => format!("{broker} fenced"),
        Event::Unfenced { broker, .. } => format!("{broker} unfenced"),
        Event::TopicCreated { topic, .. } => format!("{topic} created"),
        Event::TopicDeleted { topic, .. } => format!("{topic} deleted"),
        other => format!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn events_tell_the_life_of_a_topic_and_of_its_leader_in_order() {
    let (cluster, leader) = cluster().await;
    cluster.kill(leader).unwrap();
    cluster.until_leader("t", 0, |now| now.is_some_and(|id| id != leader)).await;
    let second = cluster.leader_of("t", 0).unwrap();
    cluster.restart(leader).await.unwrap();
    cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
    let topic = DeleteTopicState::default().with_name(Some(topic_name("t")));
    let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
    Talk::to(&cluster, second).await.ask(6, &request).await;
    let events = cluster.events();
    assert!(events.is_sorted_by_key(Event::at));
    assert_eq!((cluster.event_count(), cluster.dropped_events()), (events.len() as u64, 0));
    let of_nodes = |event: &Event| match event {
        Event::Node { node, what, .. } => Some((*node, what.clone())),
        _ => None,
    };
    assert_eq!(
        events.iter().filter_map(of_nodes).skip(3).collect::<Vec<_>>(),
        [(leader, NodeEvent::Killed), (leader, NodeEvent::Started)],
        "behind the start of all three"
    );
    let mut all: Vec<_> = events.iter().filter(|event| of_nodes(event).is_none()).map(told).collect();
    let elected = events.iter().find(|event| of_nodes(event).is_none());
    assert!(matches!(elected, Some(Event::ControllerElected { epoch: 1, .. })), "{elected:?}");
    all.remove(0);
    let mut start = all.drain(..6).collect::<Vec<_>>();
    start.sort();
    let expected = ["1 registered", "1 unfenced", "2 registered", "2 unfenced", "3 registered", "3 unfenced"];
    assert_eq!(start, expected);
    let mut later = all.split_off(3);
    assert_eq!(
        all,
        ["t created".to_owned(), format!("t led by Some({leader})"), "isr of t 0 -> 3".to_owned()]
    );
    // Within one moment the controller chooses the order of what it tells about one fence.
    later[..3].sort();
    let mut expected =
        vec![format!("{leader} fenced"), format!("t led by Some({second})"), "isr of t 3 -> 2".to_owned()];
    expected.sort();
    expected.extend([
        format!("{leader} registered"),
        format!("{leader} unfenced"),
        "isr of t 2 -> 3".to_owned(),
        "t deleted".to_owned(),
    ]);
    assert_eq!(later, expected);
    let changes = cluster.leader_changes();
    assert_eq!(changes.iter().map(|change| change.leader).collect::<Vec<_>>(), [Some(leader), Some(second)]);
    assert_eq!((changes[1].previous, cluster.elections()), (Some(leader), 1));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_an_event_sees_those_of_the_past_from_its_marker_on() {
    let (cluster, leader) = cluster().await;
    let created = cluster.until_event(|event| matches!(event, Event::TopicCreated { .. })).await;
    assert_eq!(told(&created), "t created");
    let before = cluster.event_count();
    cluster.kill(leader).unwrap();
    cluster.until_leader("t", 0, |now| now.is_some_and(|id| id != leader)).await;
    // It has happened by now, and is found all the same.
    let changed = |event: &Event| matches!(event, Event::LeaderChanged(_));
    assert!(changed(&cluster.until_event_since(before, changed).await));
    let after = cluster.event_count();
    let waiting = cluster.until_event_since(after, |event| matches!(event, Event::Unfenced { .. }));
    let (found, restarted) = tokio::join!(waiting, cluster.restart(leader));
    restarted.unwrap();
    assert_eq!(told(&found), format!("{leader} unfenced"));
}

#[tokio::test(start_paused = true)]
async fn a_journal_of_requests_tells_who_asked_what_and_how_it_ended() {
    let (cluster, leader) = cluster().await;
    let journal = cluster.record_requests(1_000);
    let mut talk = Talk::named(&cluster, leader, "svc").await.unwrap();
    talk.produce("t", 0, batch(&["a", "b"])).await;
    talk.produce("t", 7, batch(&["nowhere"])).await;
    talk.send(produce("t", 0, 0, 1_000, batch(&["unanswered"]))).await.unwrap().await.unwrap();
    journal.until(|entries| entries.iter().any(|entry| entry.ending == Ending::Unanswered)).await;
    let mut broken = Talk::to(&cluster, leader).await;
    let lost = cluster.on(ApiKey::Produce).times(1).at(Stage::AfterAppend).then(Fault::DropConnection);
    let answer = broken.send(produce("t", 0, 1, 1_000, batch(&["lost"]))).await.unwrap();
    assert!(answer.await.is_err());
    drop(lost);
    let silence = cluster.on(ApiKey::Produce).then(Fault::Silence);
    let unheard = talk.send(produce("t", 0, 1, 1_000, batch(&["unheard"]))).await.unwrap();
    silence.hit().await;
    let ends = |journal: &broker_lite::RequestJournal| {
        journal.of(ApiKey::Produce).into_iter().map(|entry| entry.ending).collect::<Vec<_>>()
    };
    assert_eq!(ends(&journal).last(), Some(&Ending::Pending));
    drop((talk, unheard));
    sleep(Duration::from_millis(1)).await;
    let produced = journal.of(ApiKey::Produce);
    assert!(matches!(&produced[0].ending, Ending::Answered { errors, .. } if errors.is_empty()));
    let wrong = [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION];
    assert!(matches!(&produced[1].ending, Ending::Answered { errors, .. } if *errors == wrong));
    assert_eq!(ends(&journal)[2..], [Ending::Unanswered, Ending::BrokenByRule, Ending::Closed]);
    let first = &produced[0];
    assert_eq!((first.broker, first.client_id(), first.api_version), (leader, Some("svc"), 9));
    assert_eq!(first.topics, [("t".to_owned(), Some(0))]);
    assert_eq!((first.api(), first.size_bytes), (Some(ApiKey::Produce), first.frame().len_bytes()));
    assert_eq!(first.request::<ProduceRequest>().unwrap().acks, -1);
    assert!(first.request::<FetchRequest>().is_none());
    // Requests between brokers are there, too, by the names of topics that they know by id only.
    let fetched = journal.of(ApiKey::Fetch);
    let follower =
        fetched.iter().find(|entry| matches!(entry.from, Party::Node(_)) && entry.broker == leader);
    assert_eq!(follower.unwrap().topics, [("t".to_owned(), Some(0))]);
    journal.until(|entries| entries.iter().any(|entry| entry.broker >= 3001)).await;
    journal.clear();
    assert!(journal.entries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_time_to_an_answer_counts_its_way_back_and_a_wait_sees_it() {
    let (cluster, leader) = cluster().await;
    let mut talk = Talk::to(&cluster, leader).await;
    let journal = cluster.record_requests(10_000);
    let way = Duration::from_millis(20);
    let _latency = cluster.latency(Side::Clients, leader, way..=way);
    let answer = talk.send(produce("t", 0, 1, 1_000, batch(&["a"]))).await.unwrap();
    let ended = journal.until(|entries| {
        entries.iter().any(|entry| entry.api_key == 0 && matches!(entry.ending, Ending::Answered { .. }))
    });
    ended.await;
    answer.await.unwrap();
    let Ending::Answered { after, .. } = journal.of(ApiKey::Produce)[0].ending.clone() else { panic!() };
    assert_eq!(after, way, "from its arrival on");
}

#[tokio::test(start_paused = true)]
async fn the_newest_requests_are_kept_and_nothing_after_the_end() {
    let (cluster, leader) = cluster().await;
    let mut talk = Talk::to(&cluster, leader).await;
    let small = cluster.record_requests(3);
    let big = cluster.record_requests(100_000);
    for number in 0..10 {
        talk.produce("t", 0, batch(&[&number.to_string()])).await;
    }
    let (kept, all) = (small.entries(), big.entries());
    assert_eq!(kept.len(), 3);
    assert_eq!(small.dropped() as usize, all.len() - 3);
    let times = |entries: &[broker_lite::RequestEntry]| {
        entries.iter().map(|entry| (entry.at, entry.api_key)).collect::<Vec<_>>()
    };
    assert_eq!(times(&kept), times(&all[all.len() - 3..]));
    assert_eq!(big.of(ApiKey::Produce).len(), 10);
}

#[tokio::test]
async fn over_sockets_the_client_id_of_the_header_is_told() {
    let cluster = Cluster::builder().tcp(true).topic("t", Some(1), Some(3)).start().await.unwrap();
    let leader = cluster.leader_of("t", 0).unwrap();
    let journal = cluster.record_requests(1_000);
    let mut socket = Socket::connect(&cluster, leader).await;
    socket.send(1, produce("t", 0, 1, 1_000, batch(&["a"]))).await;
    assert_eq!(socket.produced(1).await, Some(0));
    let entry = journal.of(ApiKey::Produce).remove(0);
    assert_eq!(entry.client_id(), Some("socket"));
    assert!(matches!(entry.ending, Ending::Answered { .. }), "{entry:?}");
}
