//! Correct histories made up by chance: what tests mutate and the benchmark measures.
//!
//! In: a seed and a size. Out: a history of producers that retry, leaders that lose their uncommitted tails, consumers
//! that seek and groups that rebalance, none of which breaks a promise.
//!
//! Invariant: nothing below a partition's high watermark is ever removed, and nobody reads above it.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Acks, Client, History, Log, LogRecord, Op, Partition, ProducerSettings};

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Things that happen; most of them are one event.
    pub steps: usize,
    /// Partitions.
    pub partitions: usize,
    /// Producers, of all kinds in turn.
    pub producers: usize,
    /// Consumers without a group.
    pub consumers: usize,
    /// Members of the one group.
    pub members: usize,
}

/// Records of one producer and partition that have no outcome yet.
const QUEUE: usize = 6;

/// A history that keeps every promise; the same for the same seed.
pub fn correct(seed: u64, size: Size) -> History {
    let mut world = World::new(seed, size);
    for _ in 0..size.steps {
        world.step();
    }
    world.finish()
}

struct World {
    random: fastrand::Rng,
    now: Duration,
    history: History,
    topics: Vec<Topic>,
    senders: Vec<Sender>,
    readers: Vec<Reader>,
    members: Vec<Client>,
    /// By partition.
    owned: Vec<Owned>,
    generation: i32,
}

struct Topic {
    partition: Partition,
    records: Vec<LogRecord>,
    end: i64,
    /// Records that are committed.
    committed: usize,
    epoch: i32,
}

struct Sender {
    client: Client,
    settings: ProducerSettings,
    /// By partition.
    queues: Vec<VecDeque<Waiting>>,
}

struct Waiting {
    op: Op,
    /// Its newest copy, unless truncated.
    copy: Option<usize>,
    tried: bool,
}

struct Reader {
    client: Client,
    topic: usize,
    /// Index of the record that comes next.
    next: usize,
}

#[derive(Default)]
struct Owned {
    member: Option<Client>,
    next: usize,
    position: i64,
    committed: Option<i64>,
}

fn kinds() -> [ProducerSettings; 5] {
    let idempotent = ProducerSettings::default();
    let plain = ProducerSettings { idempotent: false, ordered: false, ..idempotent };
    [
        idempotent,
        ProducerSettings { ordered: true, ..plain },
        plain,
        ProducerSettings { acks: Acks::Leader, ordered: true, ..plain },
        ProducerSettings { acks: Acks::None, retries: false, ..plain },
    ]
}

impl World {
    fn new(seed: u64, size: Size) -> Self {
        let mut history = History::new();
        let partitions = 0..i32::try_from(size.partitions).unwrap_or(1);
        let topics: Vec<_> = partitions
            .map(|number| Topic {
                partition: history.partition("orders", number),
                records: Vec::new(),
                end: 0,
                committed: 0,
                epoch: 0,
            })
            .collect();
        let senders = kinds().into_iter().cycle().take(size.producers).enumerate();
        let senders = senders.map(|(number, settings)| Sender {
            client: history.producer(&format!("writer-{number}"), settings),
            settings,
            queues: topics.iter().map(|_| VecDeque::new()).collect(),
        });
        let senders = senders.collect();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut readers = Vec::new();
        for number in 0..size.consumers {
            let client = history.consumer(&format!("reader-{number}"), None);
            let topic = random.usize(..topics.len());
            history.assigned(Duration::ZERO, client, topics[topic].partition, Some(0), None);
            readers.push(Reader { client, topic, next: 0 });
        }
        let members = 0..size.members;
        let members =
            members.map(|number| history.consumer(&format!("member-{number}"), Some("group"))).collect();
        let owned = topics.iter().map(|_| Owned::default()).collect();
        Self { random, now: Duration::ZERO, history, topics, senders, readers, members, owned, generation: 0 }
    }

    fn step(&mut self) {
        self.now += Duration::from_micros(self.random.u64(1..50));
        match self.random.u32(..1_000) {
            0..220 => self.send(),
            220..440 => self.append(),
            440..600 => self.acknowledge(),
            600..700 => self.commit_records(),
            700..850 => self.read(),
            850..940 => self.read_as_member(),
            940..970 => self.commit_offset(),
            970..980 => self.expire(),
            980..986 => self.change_leader(),
            986..992 => self.seek(),
            992..995 => self.rebalance(),
            995..998 => self.reassign(),
            _ => self.history.mark(self.now, "cut broker 1"),
        }
    }

    fn queue(&mut self) -> (usize, usize) {
        (self.random.usize(..self.senders.len()), self.random.usize(..self.topics.len()))
    }

    fn send(&mut self) {
        let (sender, topic) = self.queue();
        let partition = self.topics[topic].partition;
        let chosen = self.random.bool().then_some(partition);
        let Sender { client, queues, .. } = &mut self.senders[sender];
        if queues[topic].len() >= QUEUE {
            return;
        }
        let op = self.history.invoke(self.now, *client, chosen);
        if self.random.u8(..100) < 2 {
            return self.history.failed(self.now, *client, op, false);
        }
        self.history.accepted(self.now, *client, op, partition);
        queues[topic].push_back(Waiting { op, copy: None, tried: false });
    }

    /// A leader takes a record, or takes it once more.
    fn append(&mut self) {
        let (sender, topic) = self.queue();
        let (again, unordered) = (self.random.u8(..100) < 10, self.random.usize(..QUEUE));
        let Sender { client, settings, queues } = &mut self.senders[sender];
        let queue = &mut queues[topic];
        let at = match settings {
            ProducerSettings { idempotent: true, .. } => {
                queue.iter().take_while(|w| w.copy.is_some()).count()
            }
            ProducerSettings { ordered: true, .. } => 0,
            _ => unordered,
        };
        let topic = &mut self.topics[topic];
        let Some(waiting) = queue.get_mut(at) else { return };
        let may = !waiting.tried || settings.retries;
        if !may || (waiting.copy.is_some() && !again) {
            return;
        }
        // A control record now and then.
        topic.end += i64::from(self.random.u8(..100) == 0);
        let offset = topic.end;
        (waiting.copy, waiting.tried) = (Some(topic.records.len()), true);
        topic.records.push(LogRecord { offset, op: waiting.op, leader_epoch: topic.epoch });
        topic.end += 1;
        if settings.acks != Acks::All {
            let said = (settings.acks == Acks::Leader).then_some(offset);
            self.history.acked(self.now, *client, waiting.op, topic.partition, said);
            queue.remove(at);
        }
    }

    fn acknowledge(&mut self) {
        let (sender, topic) = self.queue();
        let forgotten = self.random.u8(..50) == 0;
        let Sender { client, queues, .. } = &mut self.senders[sender];
        let Topic { partition, records, committed, .. } = &self.topics[topic];
        let done =
            queues[topic].iter().position(|waiting| waiting.copy.is_some_and(|copy| copy < *committed));
        let Some(Waiting { op, copy: Some(copy), .. }) = done.and_then(|at| queues[topic].remove(at)) else {
            return;
        };
        let offset = records[copy].offset;
        self.history.acked(self.now, *client, op, *partition, (!forgotten).then_some(offset));
    }

    fn commit_records(&mut self) {
        let topic = self.random.usize(..self.topics.len());
        let topic = &mut self.topics[topic];
        topic.committed = self.random.usize(topic.committed..=topic.records.len());
    }

    /// The uncommitted tail goes, or some of it.
    fn change_leader(&mut self) {
        let number = self.random.usize(..self.topics.len());
        let topic = &mut self.topics[number];
        let keep = self.random.usize(topic.committed..=topic.records.len());
        topic.records.truncate(keep);
        topic.end = topic.records.last().map_or(0, |record| record.offset + 1);
        topic.epoch += 1;
        for sender in &mut self.senders {
            for waiting in &mut sender.queues[number] {
                waiting.copy = waiting.copy.filter(|copy| *copy < keep);
            }
        }
        self.history.mark(self.now, "kill the leader");
    }

    fn expire(&mut self) {
        let (sender, topic) = self.queue();
        let Sender { client, queues, .. } = &mut self.senders[sender];
        let at = self.random.usize(..QUEUE);
        if let Some(waiting) = queues[topic].remove(at) {
            self.history.failed(self.now, *client, waiting.op, waiting.tried);
        }
    }

    fn read(&mut self) {
        let Some(at) = self.random.choice(0..self.readers.len()) else { return };
        let Reader { client, topic, next } = &mut self.readers[at];
        let topic = &self.topics[*topic];
        if *next < topic.committed {
            let LogRecord { offset, op, leader_epoch } = topic.records[*next];
            self.history.read(self.now, *client, topic.partition, offset, op, leader_epoch);
            *next += 1;
        }
    }

    fn seek(&mut self) {
        let Some(at) = self.random.choice(0..self.readers.len()) else { return };
        let Reader { client, topic, next } = &mut self.readers[at];
        let topic = &self.topics[*topic];
        *next = self.random.usize(..=topic.committed);
        let to = topic.records[..topic.committed].get(*next).map(|record| record.offset);
        self.history.seek(self.now, *client, topic.partition, to.filter(|_| self.random.bool()));
    }

    fn reassign(&mut self) {
        let Some(at) = self.random.choice(0..self.readers.len()) else { return };
        let reader = &mut self.readers[at];
        self.history.revoked(self.now, reader.client, self.topics[reader.topic].partition);
        (reader.topic, reader.next) = (self.random.usize(..self.topics.len()), 0);
        let partition = self.topics[reader.topic].partition;
        self.history.assigned(self.now, reader.client, partition, Some(0), None);
    }

    fn read_as_member(&mut self) {
        let number = self.random.usize(..self.topics.len());
        let (topic, owned) = (&self.topics[number], &mut self.owned[number]);
        let Some(member) = owned.member.filter(|_| owned.next < topic.committed) else { return };
        let LogRecord { offset, op, leader_epoch } = topic.records[owned.next];
        self.history.read(self.now, member, topic.partition, offset, op, leader_epoch);
        (owned.next, owned.position) = (owned.next + 1, offset + 1);
    }

    fn commit_offset(&mut self) {
        let number = self.random.usize(..self.topics.len());
        let owned = &mut self.owned[number];
        if let Some(member) = owned.member {
            self.history.committed(self.now, member, self.topics[number].partition, owned.position);
            owned.committed = Some(owned.position);
        }
    }

    fn rebalance(&mut self) {
        self.generation += 1;
        for number in 0..self.topics.len() {
            let Some(member) = self.random.choice(self.members.iter().copied()) else { return };
            let (topic, owned) = (&self.topics[number], &mut self.owned[number]);
            match owned.member {
                Some(before) if self.random.bool() => self.history.lost(self.now, before, topic.partition),
                Some(before) => self.history.revoked(self.now, before, topic.partition),
                None => {}
            }
            let asked = self.now + Duration::from_nanos(1);
            self.now += Duration::from_micros(1);
            self.history.commit_fetched(self.now, member, topic.partition, owned.committed, asked);
            owned.position = owned.committed.unwrap_or(0);
            owned.next = topic.records.partition_point(|record| record.offset < owned.position);
            owned.member = Some(member);
            let (start, generation) = (Some(owned.position), Some(self.generation));
            self.history.assigned(self.now, member, topic.partition, start, generation);
        }
    }

    /// Whatever is not committed goes, and some of the logs have lost their beginnings to retention.
    fn finish(mut self) -> History {
        for topic in &mut self.topics {
            topic.records.truncate(topic.committed);
            let end = topic.records.last().map_or(0, |record| record.offset + 1);
            let cut = |start: i64, end: i64| {
                let records = topic.records.iter().filter(|record| (start..end).contains(&record.offset));
                Log { start, end, records: records.copied().collect() }
            };
            let start = if self.random.u8(..4) == 0 { end / 4 } else { 0 };
            self.history.final_log(topic.partition, cut(start, end));
            for broker in 1..=3 {
                let (start, end) = (self.random.i64(0..=start), self.random.i64(end / 2..=end));
                self.history.replica_log(topic.partition, broker, cut(start.min(end), end));
            }
        }
        self.history
    }
}
