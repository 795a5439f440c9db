//! Replays `kafka.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::TopicPartition;
use crate::assign::*;

const RECORDED: &str = include_str!("kafka.txt");
const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

#[derive(Default)]
struct Case {
    topics: Vec<(Arc<str>, i32)>,
    known: Topics,
    members: Vec<Told>,
    answers: Vec<(String, String)>,
}

struct Told {
    member: Member,
    owned: Vec<TopicPartition>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for line in RECORDED.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "case" => cases.push(Case::default()),
            "bytes" => {}
            kind => {
                let case = cases.last_mut().expect("a case before its lines");
                match kind {
                    "t" => case.topic(&words),
                    "m" => case.member(&words),
                    _ => case.answers.push((kind.into(), words[1].into())),
                }
            }
        }
    }
    cases
}

fn optional(word: &str) -> Option<Arc<str>> {
    (word != "-").then(|| word.into())
}

impl Case {
    fn topic(&mut self, words: &[&str]) {
        let count: i32 = words[2].parse().expect("a count");
        self.topics.push((words[1].into(), count));
        if count >= 0 {
            let letters =
                |word: &str| word.chars().filter(|c| *c != '-').map(|c| c.to_string().into()).collect();
            match words[3] {
                "*" => self.known.insert(words[1], count as usize),
                racks => self.known.insert_with_racks(words[1], racks.split(',').map(letters).collect()),
            }
        }
    }

    fn by_letter(&self, letter: char) -> Arc<str> {
        self.topics[letter as usize - 'a' as usize].0.clone()
    }

    fn member(&mut self, words: &[&str]) {
        let owned = |word: &str| {
            let topic = self.by_letter(word.chars().next().expect("a letter"));
            TopicPartition::new(topic, word[1..].parse().expect("a number"))
        };
        let subscription = Subscription {
            topics: words[5].chars().filter(|c| *c != '-').map(|letter| self.by_letter(letter)).collect(),
            user_data: None,
            owned: Vec::new(),
            generation: optional(words[4]).map(|generation| generation.parse().expect("a generation")),
            rack: optional(words[3]),
        };
        let owned = words[6].split(',').filter(|word| *word != "-").map(owned).collect();
        let member = Member { id: words[1].into(), instance: optional(words[2]), subscription };
        self.members.push(Told { member, owned });
    }

    /// What the leader is told, with user data as each member's own assignor writes them.
    fn group(&self, assignor: &str) -> Vec<Member> {
        let told = self.members.iter().map(|told| {
            let mut member = told.member.clone();
            let mut own = build(assignor);
            if let Some(generation) = member.subscription.generation {
                own.on_assignment(
                    &Assignment { partitions: told.owned.clone(), user_data: None },
                    generation,
                );
                member.subscription.user_data = own.user_data(&member.subscription.topics);
            }
            if assignor == "cooperative-sticky" {
                member.subscription.owned = told.owned.clone();
            }
            member
        });
        told.collect()
    }

    fn render(&self, given: &GroupAssignment) -> String {
        let mut owners = BTreeMap::new();
        for (told, letter) in self.members.iter().zip(LETTERS.chars()) {
            for partition in &given[&told.member.id].partitions {
                assert_eq!(owners.insert(partition.clone(), letter), None, "{partition} has two owners");
            }
        }
        let all = self.topics.iter().flat_map(|(topic, count)| {
            (0..*count).map(move |partition| TopicPartition { topic: topic.clone(), partition })
        });
        all.map(|partition| owners.get(&partition).copied().unwrap_or('-')).collect()
    }

    /// Java takes subscriptions for equal if those that it meets first are empty and all others are equal, and then counts
    /// members that want nothing.
    fn only_emptiness_differs(&self) -> bool {
        let topics = || self.members.iter().map(|told| &told.member.subscription.topics);
        let some: BTreeSet<_> = topics().filter(|topics| !topics.is_empty()).collect();
        some.len() == 1 && topics().any(|topics| topics.is_empty())
    }

    /// Java takes what is far from its owner away in each generation, and may give it to somebody as far.
    fn never_rests_in_java(&self, answer: &str) -> bool {
        let members = self.group("cooperative-sticky");
        let step = cooperative::step(&self.known, &members);
        self.render(&step.given) == answer && !cooperative::comes_to_rest(&self.known, &members, &step.given)
    }

    /// Java gives a partition back to a former owner that does not want it any more.
    fn gives_unwanted(&self, answer: &str) -> bool {
        let all = self.topics.iter().flat_map(|(topic, count)| (0..*count).map(move |_| topic));
        all.zip(answer.chars()).any(|(topic, owner)| {
            let owner = LETTERS.find(owner);
            owner.is_some_and(|at| !self.members[at].member.subscription.topics.contains(topic))
        })
    }
}

fn build(name: &str) -> Box<dyn Assignor> {
    match name {
        "range" => Box::new(RangeAssignor),
        "roundrobin" => Box::new(RoundRobinAssignor),
        "sticky" => Box::new(StickyAssignor::default()),
        "cooperative-sticky" => Box::new(CooperativeStickyAssignor::default()),
        other => panic!("no assignor {other}"),
    }
}

#[test]
fn every_assignor_answers_as_javas_does_for_1000_recorded_groups() {
    let cases = cases();
    assert_eq!(cases.len(), 1010);
    let (mut same, mut unwanted, mut restless, mut wrong) =
        (BTreeMap::<&str, usize>::new(), 0, 0, Vec::new());
    for (number, case) in cases.iter().enumerate() {
        assert_eq!(case.answers.len(), 4, "case {number}");
        for (name, expected) in &case.answers {
            let expected = expected.strip_prefix('=').expect("Java threw nothing and gave nothing twice");
            let given = build(name).assign(&case.known, &case.group(name)).expect("ours cannot fail");
            let ours = case.render(&given);
            if ours == expected {
                *same.entry(name.as_str()).or_default() += 1;
            } else if case.only_emptiness_differs() || case.gives_unwanted(expected) {
                assert!(!case.gives_unwanted(&ours), "case {number} {name}");
                unwanted += 1;
            } else if name == "cooperative-sticky" && case.never_rests_in_java(expected) {
                restless += 1;
            } else {
                wrong.push(format!("case {number} {name}:\n  Java {expected}\n  ours {ours}"));
            }
        }
    }
    println!(
        "the same: {same:?}; Java gave what nobody wanted: {unwanted}, and would never come to rest: {restless}"
    );
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong[..wrong.len().min(8)].join("\n"));
    assert!(same.len() == 4 && same.values().all(|count| *count >= 1000), "{same:?}");
}

fn recorded_bytes() -> Vec<(String, i16, Bytes, String)> {
    let lines = RECORDED.lines().filter_map(|line| line.strip_prefix("bytes "));
    let parse = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let hex = words[2].as_bytes().chunks(2).map(|two| std::str::from_utf8(two).expect("hex"));
        let bytes = hex.map(|two| u8::from_str_radix(two, 16).expect("hex")).collect();
        (words[0].into(), words[1].parse().expect("a version"), bytes, words[3].into())
    };
    lines.map(parse).collect()
}

fn three() -> Vec<TopicPartition> {
    [("a", 0), ("a", 7), ("b.c", 1)].map(TopicPartition::from).into()
}

#[test]
fn the_consumer_protocol_has_javas_bytes_in_every_version() {
    let data = Some(Bytes::from_static(&[1, 2, 3]));
    let recorded = recorded_bytes();
    assert_eq!(recorded.len(), 19);
    for (kind, version, bytes, meaning) in recorded {
        let full = meaning == "full";
        match kind.as_str() {
            "subscription" => {
                let at_least = |first: i16| full && version >= first;
                let subscription = Subscription {
                    topics: if full { vec!["a".into(), "b.c".into()] } else { vec!["a".into()] },
                    user_data: if full { data.clone() } else { None },
                    owned: if at_least(1) { three() } else { Vec::new() },
                    generation: at_least(2).then_some(5),
                    rack: at_least(3).then(|| "r1".into()),
                };
                assert_eq!(write_subscription(&subscription, version), bytes, "{version} {meaning}");
                assert_eq!(read_subscription(bytes).expect("Java's bytes"), subscription);
            }
            "assignment" => {
                let assignment = Assignment {
                    partitions: if full { three() } else { Vec::new() },
                    user_data: if full { data.clone() } else { None },
                };
                assert_eq!(write_assignment(&assignment, version), bytes, "{version} {meaning}");
                assert_eq!(read_assignment(bytes).expect("Java's bytes"), assignment);
            }
            name => {
                let mut assignor = build(name);
                if full {
                    assignor.on_assignment(&Assignment { partitions: three(), user_data: None }, 5);
                }
                assert_eq!(assignor.user_data(&[]), Some(bytes), "{name} {meaning}");
            }
        }
    }
}

#[test]
fn cut_bytes_are_refused_and_later_versions_read() {
    for (kind, version, bytes, _) in recorded_bytes() {
        if kind != "subscription" && kind != "assignment" {
            continue;
        }
        let read = |bytes: Bytes| match kind.as_str() {
            "subscription" => read_subscription(bytes).map(|_| ()),
            _ => read_assignment(bytes).map(|_| ()),
        };
        for end in 1..bytes.len() {
            read(bytes.slice(..end)).expect_err("cut");
        }
        if version == 3 {
            let mut later = bytes.to_vec();
            later[1] = 9;
            later.extend([1, 2, 3]);
            read(later.into()).expect("what a later version adds is ignored");
        }
    }
    assert_eq!(read_assignment(Bytes::new()), Ok(Assignment::default()));
    assert_eq!(read_subscription(Bytes::from_static(&[0xff, 0xff])), Err(MalformedMetadata::Version(-1)));
    let claims = Bytes::from_static(&[0, 0, 0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(
        read_subscription(claims),
        Err(MalformedMetadata::Short("topics")),
        "nothing is allocated by a claim"
    );
}

#[test]
fn topics_of_nobody_are_given_to_nobody() {
    let mut known = Topics::default();
    known.insert("wanted", 2);
    known.insert("unwanted", 2);
    let subscription =
        Subscription { topics: vec!["wanted".into(), "missing".into()], ..Subscription::default() };
    let members = [Member { id: "m".into(), instance: None, subscription }];
    for name in ["range", "roundrobin", "sticky", "cooperative-sticky"] {
        let given = build(name).assign(&known, &members).expect("cannot fail");
        let expected: BTreeSet<TopicPartition> =
            [("wanted", 0), ("wanted", 1)].map(TopicPartition::from).into();
        assert_eq!(given["m"].partitions.iter().cloned().collect::<BTreeSet<_>>(), expected, "{name}");
        assert!(build(name).assign(&known, &[]).expect("cannot fail").is_empty());
    }
}
