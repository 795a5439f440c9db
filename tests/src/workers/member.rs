//! One place in a group: a member, and whoever comes after it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use klamm::{
    ClientBuilder, CommitError, Consumer, ConsumerError, ConsumerRecord, ErrorCode, GroupError, OffsetReset,
    RebalanceContext, RebalanceListener, RebalanceReason, TopicPartition,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Act, Ear, GroupPlan, Step, World};
use crate::history::{self, History, Partition};

/// Fills a place in a group until the run is over; `connect` leads to the cluster in the hearing of a member's ear.
///
/// # Errors
///
/// What no member may say, or what takes so long that it hangs.
pub async fn occupy(
    world: Arc<World>,
    group: usize,
    slot: u32,
    mut chance: fastrand::Rng,
    connect: impl Fn(Arc<Ear>) -> ClientBuilder,
) -> Result<(), String> {
    let name = format!("member-{slot}");
    // Whoever comes back under the same name is the same member.
    let fixed = world.groups[group].fixed.then(|| world.register(group, &name));
    for life in 0.. {
        // All of them at once, or one after the other.
        sleep(Duration::from_millis(chance.u64(0..1_000))).await;
        let me = fixed.unwrap_or_else(|| world.register(group, &format!("{name}.{life}")));
        let ear = world.ear(me);
        let member = Member::start(&world, connect(ear.clone()), ear, group, &name, chance.fork())?;
        let whole = member.live().await;
        if whole.map_err(|error| format!("{} {name}: {error}", World::group_id(group)))? {
            return Ok(());
        }
    }
    Ok(())
}

/// What a member and its listener share.
struct Mine {
    world: Arc<World>,
    ear: Arc<Ear>,
    group: usize,
    auto_commit: bool,
    /// What it owns, and the offset behind what it is done with.
    owned: Mutex<BTreeMap<TopicPartition, Option<i64>>>,
    chance: Mutex<fastrand::Rng>,
}

impl Mine {
    fn place(&self, name: &TopicPartition) -> Result<Partition, String> {
        let place = self.ear.place(&name.topic, name.partition);
        place.ok_or_else(|| format!("there is no {name}"))
    }

    fn draw_ms(&self, most: u64) -> Duration {
        Duration::from_millis(self.chance.lock().u64(0..=most))
    }

    /// What it has given up, and had read to there, is not committed. Amid faults its session may have ended meanwhile.
    fn commit_failed(&self, gone: &[(Partition, i64)]) {
        let session = Duration::from_millis(self.world.groups[self.group].session_ms);
        for (place, read) in gone.iter().filter(|_| self.ear.is_cut_off(session)) {
            self.world.cut_off(self.group, self.ear.me, *place, *read);
        }
    }

    fn places(&self, partitions: &[TopicPartition]) -> Vec<Partition> {
        partitions.iter().filter_map(|name| self.place(name).ok()).collect()
    }

    /// Tells the history of partitions; unknown ones are the assignor's inventions.
    fn tell(&self, partitions: &[TopicPartition], told: impl Fn(&mut History, Partition)) {
        let mut history = self.world.history.lock();
        for name in partitions {
            match self.place(name) {
                Ok(place) => told(&mut history, place),
                Err(error) => std::panic::resume_unwind(Box::new(error)),
            }
        }
    }
}

/// Tells the history what comes and goes; without automatic commits it commits what is done before that goes.
struct Listener(Arc<Mine>);

impl RebalanceListener for Listener {
    fn assigned<'a>(
        &'a self,
        _: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        _: RebalanceReason,
    ) -> BoxFuture<'a, ()> {
        let mine = &self.0;
        async move {
            let (now, me) = (mine.world.clock.now(), mine.ear.me);
            let generation = mine.ear.generation.load(Ordering::Relaxed);
            mine.tell(partitions, |history, place| history.assigned(now, me, place, None, Some(generation)));
            for place in mine.places(partitions) {
                mine.world.assigned(mine.group, me, place, Some(generation));
            }
            mine.owned.lock().extend(partitions.iter().map(|name| (name.clone(), None)));
            if mine.chance.lock().u8(0..4) == 0 {
                sleep(mine.draw_ms(300)).await;
            }
        }
        .boxed()
    }

    fn revoked<'a>(
        &'a self,
        context: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        reason: RebalanceReason,
    ) -> BoxFuture<'a, ()> {
        let mine = &self.0;
        async move {
            let (now, me) = (mine.world.clock.now(), mine.ear.me);
            mine.tell(partitions, |history, place| history.revoked(now, me, place));
            let gone: Vec<_> = mine
                .places(partitions)
                .into_iter()
                .map(|place| {
                    let automatic = mine.auto_commit.then_some(reason);
                    (place, mine.world.revoked(mine.group, me, place, automatic))
                })
                .collect();
            // Others must not begin before it is through. What is done is looked up when it is committed: whoever reads goes on with
            // what it has.
            if mine.chance.lock().u8(0..4) == 0 {
                sleep(mine.draw_ms(300)).await;
            }
            let done = {
                let mut owned = mine.owned.lock();
                let given = partitions.iter().map(|name| (name.clone(), owned.remove(name).flatten()));
                given.filter_map(|(name, done)| Some((name, done?))).collect::<BTreeMap<_, _>>()
            };
            if !mine.auto_commit && !done.is_empty() {
                // If it fails, others work on it again.
                if context.commit_offsets(done).await.is_err() {
                    mine.commit_failed(&gone);
                }
            }
            if mine.chance.lock().u8(0..4) == 0 {
                sleep(mine.draw_ms(500)).await;
            }
        }
        .boxed()
    }

    fn lost<'a>(
        &'a self,
        _: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        _: RebalanceReason,
    ) -> BoxFuture<'a, ()> {
        let mine = &self.0;
        async move {
            let (now, me) = (mine.world.clock.now(), mine.ear.me);
            mine.tell(partitions, |history, place| history.lost(now, me, place));
            mine.places(partitions).into_iter().for_each(|place| mine.world.lost(mine.group, me, place));
            let mut owned = mine.owned.lock();
            owned.retain(|name, _| !partitions.contains(name));
        }
        .boxed()
    }
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    On,
    /// Another member has its `group.instance.id`.
    Fenced,
}

/// One consumer from its start to its end.
pub(super) struct Member {
    consumer: Consumer,
    mine: Arc<Mine>,
    plan: GroupPlan,
}

impl Member {
    pub(super) fn start(
        world: &Arc<World>,
        builder: ClientBuilder,
        ear: Arc<Ear>,
        group: usize,
        name: &str,
        chance: fastrand::Rng,
    ) -> Result<Self, String> {
        let plan = world.groups[group].clone();
        let client = world.client(builder, name)?;
        let properties = [
            ("partition.assignment.strategy", plan.strategy.clone()),
            ("group.id", World::group_id(group)),
            ("session.timeout.ms", plan.session_ms.to_string()),
            ("heartbeat.interval.ms", (plan.session_ms / 4).to_string()),
            ("max.poll.interval.ms", plan.max_poll_ms.to_string()),
            ("enable.auto.commit", plan.auto_commit.to_string()),
            ("auto.commit.interval.ms", plan.commit_ms.to_string()),
        ];
        let mut builder = Consumer::from_properties(properties).map_err(|error| error.to_string())?;
        if plan.fixed {
            builder = builder.group_instance_id(name);
        }
        let consumer = builder
            .client(&client)
            .auto_offset_reset(OffsetReset::Earliest)
            .fetch_max_wait_ms(Duration::from_millis(200))
            .build()
            .map_err(|error| error.to_string())?;
        let mine = Arc::new(Mine {
            world: world.clone(),
            ear,
            group,
            auto_commit: plan.auto_commit,
            owned: Mutex::default(),
            chance: Mutex::new(chance),
        });
        world.tally.joins.fetch_add(1, Ordering::Relaxed);
        Ok(Self { consumer, mine, plan })
    }

    fn subscribe(&self, all: bool) {
        let topics = self.mine.world.topics.iter().map(|(topic, _)| topic.clone());
        let mut topics: Vec<Arc<str>> = topics.collect();
        if !all {
            let chosen = self.mine.chance.lock().usize(..topics.len());
            topics = vec![topics.swap_remove(chosen)];
        }
        self.consumer.subscribe_with(topics, Listener(self.mine.clone()));
    }

    /// `true` if it lived to the end of the run.
    pub(super) async fn live(self) -> Result<bool, String> {
        let world = self.mine.world.clone();
        self.subscribe(true);
        while !world.calm.load(Ordering::SeqCst) {
            let life = self.mine.draw_ms(world.habits.life_ms);
            if self.read(Instant::now() + life).await? == Reading::Fenced {
                self.crash();
                return Ok(false);
            }
            if world.calm.load(Ordering::SeqCst) {
                break;
            }
            let Some(act) = self.mine.chance.lock().choice(world.habits.acts.iter().copied()) else {
                continue;
            };
            world.step(self.mine.group, self.mine.ear.me, Step::Acts(act));
            match act {
                Act::Leave => {
                    self.close().await?;
                    return Ok(false);
                }
                Act::Crash => {
                    self.crash();
                    return Ok(false);
                }
                Act::Stall => {
                    let longer = Duration::from_millis(self.plan.max_poll_ms) + self.mine.draw_ms(2_000);
                    sleep(longer).await;
                }
                Act::Change => {
                    let all = self.mine.chance.lock().bool();
                    self.subscribe(all);
                }
                Act::Unsubscribe => {
                    let limit = world.habits.hang();
                    let left = timeout(limit, self.consumer.unsubscribe()).await;
                    left.map_err(|_| format!("unsubscribe takes longer than {limit:?}"))?;
                    self.owns_nothing("unsubscribed")?;
                    sleep(self.mine.draw_ms(1_000)).await;
                    self.subscribe(true);
                }
            }
        }
        self.subscribe(true);
        world.step(self.mine.group, self.mine.ear.me, Step::Rests);
        while !world.over.load(Ordering::SeqCst) {
            if self.read(Instant::now() + Duration::from_millis(200)).await? == Reading::Fenced {
                self.crash();
                return Ok(false);
            }
        }
        world.step(self.mine.group, self.mine.ear.me, Step::Closes);
        // What was read last is done, and committed by the close, once somebody asks for more.
        if self.poll(1, Duration::ZERO).await? == Reading::Fenced {
            self.crash();
            return Ok(false);
        }
        self.close().await?;
        world.step(self.mine.group, self.mine.ear.me, Step::Whole);
        Ok(true)
    }

    async fn close(&self) -> Result<(), String> {
        let limit = self.mine.world.habits.hang();
        match timeout(limit, self.consumer.close()).await {
            Ok(closed) => closed.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("close takes longer than {limit:?}")),
        }
        self.owns_nothing("closed")
    }

    /// Whoever is out has been told of everything that it gave up or lost.
    fn owns_nothing(&self, out: &str) -> Result<(), String> {
        let owned = self.mine.owned.lock();
        if owned.is_empty() {
            return Ok(());
        }
        let names = owned.keys().map(ToString::to_string).collect::<Vec<_>>();
        Err(format!("{out}, and was not told that it gave up {}", names.join(", ")))
    }

    fn crash(self) {
        let owned: Vec<_> = self.mine.owned.lock().keys().cloned().collect();
        let (now, me) = (self.mine.world.clock.now(), self.mine.ear.me);
        self.mine.tell(&owned, |history, place| history.revoked(now, me, place));
        let group = self.mine.group;
        self.mine.places(&owned).into_iter().for_each(|place| self.mine.world.lost(group, me, place));
        self.mine.world.over_for(me);
        // Dropped alone it would leave its group.
        self.consumer.vanish();
    }

    /// Reads and works until then.
    async fn read(&self, until: Instant) -> Result<Reading, String> {
        loop {
            let most = self.mine.chance.lock().usize(1..=self.mine.world.habits.most);
            let polled = tokio::select! {
                biased;
                () = sleep_until(until) => return Ok(Reading::On),
                polled = self.next(most, Duration::from_secs(1)) => polled,
            };
            if self.take(polled).await? == Reading::Fenced {
                return Ok(Reading::Fenced);
            }
        }
    }

    async fn poll(&self, most: usize, wait: Duration) -> Result<Reading, String> {
        let polled = self.next(most, wait).await;
        self.take(polled).await
    }

    async fn next(&self, most: usize, wait: Duration) -> Result<Vec<ConsumerRecord>, ConsumerError> {
        let world = &self.mine.world;
        world.holding.turn_ends(world.clock.now(), self.mine.group, self.mine.ear.me);
        self.consumer.poll(most, wait).await
    }

    /// Works on what was read.
    async fn take(&self, polled: Result<Vec<ConsumerRecord>, ConsumerError>) -> Result<Reading, String> {
        match polled {
            Ok(records) => self.work(records).await.map(|()| Reading::On),
            // Nobody led it for long, or there is a leader that does not know yet.
            Err(ConsumerError::NoLeader { .. }) => Ok(Reading::On),
            // Its JoinGroup was answered by one coordinator after another, each with an id, and the first id is the one
            // that was replicated. Who starts it again gets the place.
            Err(ConsumerError::Group { why: GroupError::Refused(ErrorCode::FENCED_INSTANCE_ID), .. })
                if self.plan.fixed =>
            {
                Ok(Reading::Fenced)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn work(&self, records: Vec<ConsumerRecord>) -> Result<(), String> {
        let (world, me) = (&self.mine.world, self.mine.ear.me);
        let mut todo = Vec::new();
        for record in &records {
            let name = TopicPartition::new(record.topic.clone(), record.partition);
            let place = self.mine.place(&name)?;
            let op = record.value.as_deref().map_or(history::Op::ALIEN, history::Op::of_value);
            let (offset, epoch) = (record.offset, record.leader_epoch);
            world.history.lock().read(world.clock.now(), me, place, offset, op, epoch);
            world.holding.read(self.mine.group, me, place, offset);
            todo.push((name, place, offset));
        }
        world.tally.reads.fetch_add(todo.len() as u64, Ordering::Relaxed);
        for (name, place, offset) in todo {
            if self.mine.chance.lock().u8(0..3) == 0 {
                sleep(self.mine.draw_ms(world.habits.work_ms)).await;
            }
            world.history.lock().done(world.clock.now(), me, place, offset);
            world.done(self.mine.group, me, place, offset);
            if let Some(done) = self.mine.owned.lock().get_mut(&name) {
                *done = Some(offset + 1);
            }
        }
        if self.plan.auto_commit || records.is_empty() {
            return Ok(());
        }
        if self.plan.pipelined {
            // It goes on; the ear hears what becomes of it.
            drop(self.consumer.commit_async());
            return Ok(());
        }
        let limit = world.habits.hang();
        match timeout(limit, self.consumer.commit()).await {
            Ok(Ok(())) => Ok(()),
            // Others work on it again.
            Ok(Err(
                CommitError::NotOwned { .. } | CommitError::Expelled { .. } | CommitError::TimedOut { .. },
            )) => Ok(()),
            Ok(Err(error)) => Err(format!("commit: {error}")),
            Err(_) => Err(format!("a commit takes longer than {limit:?}")),
        }
    }
}
