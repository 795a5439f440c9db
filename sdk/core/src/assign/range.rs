//! Each topic in as many ranges as it has subscribers, so that equal partitions of several topics go to one member.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{AssignError, Assignor, GroupAssignment, Member, Topics, answer, in_turn, racks};
use crate::TopicPartition;

/// Kafka's `range` (`org.apache.kafka.clients.consumer.RangeAssignor`), which looks at racks first (KIP-881).
#[derive(Debug, Clone, Copy, Default)]
pub struct RangeAssignor;

impl Assignor for RangeAssignor {
    fn name(&self) -> &str {
        "range"
    }

    fn assign(&self, topics: &Topics, members: &[Member]) -> Result<GroupAssignment, AssignError> {
        let turns = in_turn(members);
        let mut open: Vec<Open<'_>> = topics
            .iter()
            .filter(|(_, racks)| !racks.is_empty())
            .map(|(topic, racks)| Open::new(topic, racks, &turns))
            .filter(|open| !open.takers.is_empty())
            .collect();
        if open.iter().any(|open| open.racks_matter) {
            match_racks(&mut open);
        }
        let mut given = BTreeMap::<_, Vec<TopicPartition>>::new();
        for mut topic in open {
            topic.deal(|_, _| true);
            for (partition, taker) in topic.owners.iter().enumerate() {
                if let Some(taker) = taker {
                    let partition = TopicPartition { topic: topic.name.clone(), partition: partition as i32 };
                    given.entry(topic.takers[*taker].id.clone()).or_default().push(partition);
                }
            }
        }
        Ok(answer(given, members))
    }
}

/// A topic with what of it is not given away yet.
struct Open<'a> {
    name: &'a Arc<str>,
    racks: &'a [BTreeSet<Arc<str>>],
    takers: Vec<&'a Member>,
    racks_matter: bool,
    /// Each partition's owner, by its place among the takers.
    owners: Vec<Option<usize>>,
    held: Vec<usize>,
    /// How many each taker gets at least.
    share: usize,
    /// How many takers still get one more.
    larger: usize,
}

impl<'a> Open<'a> {
    fn new(name: &'a Arc<str>, racks: &'a [BTreeSet<Arc<str>>], turns: &[&'a Member]) -> Self {
        let takers: Vec<&Member> =
            turns.iter().copied().filter(|member| member.subscription.topics.contains(name)).collect();
        let places: BTreeSet<&str> = takers.iter().filter_map(|member| rack(member)).collect();
        let among = takers.len().max(1);
        Self {
            name,
            racks,
            racks_matter: racks::matter(&places, racks.iter()),
            owners: vec![None; racks.len()],
            held: vec![0; takers.len()],
            share: racks.len() / among,
            larger: racks.len() % among,
            takers,
        }
    }

    fn room(&self, taker: usize) -> usize {
        (self.share + usize::from(self.larger > 0)).saturating_sub(self.held[taker])
    }

    fn near(&self, taker: usize, partition: usize) -> bool {
        rack(self.takers[taker]).is_none_or(|rack| self.racks[partition].contains(rack))
    }

    fn give(&mut self, taker: usize, partition: usize) {
        self.owners[partition] = Some(taker);
        self.held[taker] += 1;
        if self.held[taker] == self.share + 1 {
            self.larger = self.larger.saturating_sub(1);
        }
    }

    /// Gives each taker, in turn, the first partitions that nobody has and that `suits` allows.
    fn deal(&mut self, suits: impl Fn(&Self, (usize, usize)) -> bool) {
        for taker in 0..self.takers.len() {
            let free = (0..self.owners.len()).filter(|partition| self.owners[*partition].is_none());
            let fitting = free.filter(|partition| suits(self, (taker, *partition)));
            let chosen: Vec<usize> = fitting.take(self.room(taker)).collect();
            for partition in chosen {
                self.give(taker, partition);
            }
        }
    }
}

fn rack(member: &Member) -> Option<&str> {
    member.subscription.rack.as_deref().filter(|rack| !rack.is_empty())
}

/// Topics with the same subscribers and as many partitions are matched together, so that equal partitions stay together.
fn match_racks(open: &mut [Open<'_>]) {
    let mut alike = BTreeMap::<(Vec<&str>, usize), Vec<usize>>::new();
    for (at, topic) in open.iter().enumerate() {
        let takers = topic.takers.iter().map(|member| member.id.as_ref()).collect();
        let known =
            if topic.takers.iter().any(|member| rack(member).is_some()) { topic.racks.len() } else { 0 };
        alike.entry((takers, known)).or_default().push(at);
    }
    for ((takers, partitions), topics) in alike {
        match topics[..] {
            [only] if open[only].racks_matter => open[only].deal(|topic, (taker, at)| topic.near(taker, at)),
            [_] => {}
            _ => match_together(open, &topics, takers.len(), partitions),
        }
    }
}

fn match_together(open: &mut [Open<'_>], topics: &[usize], takers: usize, partitions: usize) {
    let mut left: Vec<usize> = (0..takers).collect();
    for partition in 0..partitions {
        let fits = |taker: &usize| {
            topics.iter().all(|topic| open[*topic].near(*taker, partition) && open[*topic].room(*taker) > 0)
        };
        let Some(taker) = left.iter().copied().find(fits) else {
            continue;
        };
        for topic in topics {
            open[*topic].give(taker, partition);
        }
        if topics.iter().all(|topic| open[*topic].room(taker) == 0) {
            left.retain(|other| *other != taker);
        }
    }
}
