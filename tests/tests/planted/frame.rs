//! What every schedule starts from and ends with: three brokers, one partition, clients that tell the history.
//!
//! In: a schedule. Out: what the checker and the logs say.
//!
//! Invariant: whatever a schedule does, it does with and without a bug; only the verdict is allowed to differ.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use broker_lite::sim::Sim;
use broker_lite::{CheckReport, Cluster};
use klamm::{
    Acks, Client, Consumer, ConsumerRecord, Delivery, Producer, Record, StartOffset, TopicPartition,
};
use klamm_tests::history::{
    self, History, Log, LogRecord, Op, Partition, ProducerSettings, Promises, Report,
};
use tokio::time::{sleep, timeout};

/// What a schedule may fail with: it could not be carried out.
pub(crate) type Done<T = ()> = Result<T, Box<dyn Error>>;

/// What is done to a run.
pub(crate) type Schedule = for<'a> fn(&'a Run) -> Pin<Box<dyn Future<Output = Done> + 'a>>;

pub(crate) const TOPIC: &str = "t";
const BROKERS: i32 = 3;

/// Longest schedule, and longest way to rest after it, in virtual time.
const SCHEDULE_LIMIT: Duration = Duration::from_secs(300);
const REST_LIMIT: Duration = Duration::from_secs(60);

/// How long clients wait for one answer, and producers for a record.
const PATIENT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));
const IMPATIENT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(800));

/// One run: a cluster, and what its clients saw. Every broker has a replica, two must be in sync, and records are
/// synced before they count.
pub(crate) struct Run {
    pub(crate) cluster: Cluster,
    sim: Sim,
    history: RefCell<History>,
    place: Partition,
}

/// What is to be said of a run.
pub(crate) struct Verdict {
    /// Every replica was in sync and had everything in the end.
    pub(crate) rested: bool,
    /// What clients saw.
    pub(crate) seen: Report,
    /// What the logs hold.
    pub(crate) held: CheckReport,
}

impl Verdict {
    pub(crate) fn is_ok(&self) -> bool {
        self.rested && self.seen.is_ok() && self.held.is_ok()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = if self.rested { "" } else { "it did not come to rest; " };
        write!(f, "{rest}broken: {:?}\n{}\n{}", self.seen.broken(), self.seen, self.held)
    }
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Run {
    pub(crate) async fn start(sim: Sim) -> Done<Self> {
        let cluster = sim.cluster().with_files().brokers(BROKERS as u32).start().await?;
        let configs = [("min.insync.replicas", "2"), ("flush.messages", "1")];
        cluster.create_topic(TOPIC, 1, 3, &configs).await?;
        let mut history = History::new();
        let place = history.partition(TOPIC, 0);
        Ok(Self { cluster, sim, history: RefCell::new(history), place })
    }

    /// Carries out a schedule, lets everything come to rest, and judges.
    pub(crate) async fn play(self, schedule: Schedule) -> Done<Verdict> {
        timeout(SCHEDULE_LIMIT, schedule(&self)).await.map_err(|_| "the schedule hangs")??;
        let rested = timeout(REST_LIMIT, self.rest()).await.is_ok();
        self.judge(rested)
    }

    /// The leader, and the other two in the order in which they would be elected. All must be in sync.
    pub(crate) fn leader_and_followers(&self) -> Done<(i32, i32, i32)> {
        let leader = self.cluster.leader_of(TOPIC, 0);
        match self.cluster.isr_of(TOPIC, 0)[..] {
            [first, second, third] if Some(first) == leader => Ok((first, second, third)),
            _ => Err("the first replica does not lead, or not all are in sync".into()),
        }
    }

    /// The processes of the others die, and start again when `survivor` leads.
    pub(crate) async fn leave_alone(&self, survivor: i32, others: [i32; 2]) -> Done {
        for other in others {
            self.cluster.kill(other)?;
        }
        self.until_leader_is(survivor).await;
        for other in others {
            self.cluster.restart(other).await?;
        }
        Ok(())
    }

    pub(crate) async fn until_leader_is_not(&self, old: i32) -> Done<i32> {
        self.cluster.until_leader(TOPIC, 0, |now| now.is_some_and(|now| now != old)).await;
        Ok(self.cluster.leader_of(TOPIC, 0).ok_or("no leader")?)
    }

    pub(crate) async fn until_leader_is(&self, wanted: i32) {
        self.cluster.until_leader(TOPIC, 0, |now| now == Some(wanted)).await;
    }

    pub(crate) async fn until_isr(&self, wanted: &[i32]) {
        let same = |isr: &[i32]| isr.len() == wanted.len() && isr.iter().all(|id| wanted.contains(id));
        self.cluster.until_isr(TOPIC, 0, same).await;
    }

    /// An idempotent producer.
    pub(crate) fn writer(&self, name: &str) -> Done<Writer<'_>> {
        self.writer_with(name, true, PATIENT, Duration::ZERO)
    }

    /// An idempotent producer that puts records which are sent within 50 ms into one batch.
    pub(crate) fn lingering_writer(&self, name: &str) -> Done<Writer<'_>> {
        self.writer_with(name, true, PATIENT, ms(50))
    }

    /// An idempotent producer that soon gives up.
    pub(crate) fn impatient_writer(&self, name: &str) -> Done<Writer<'_>> {
        self.writer_with(name, true, IMPATIENT, Duration::ZERO)
    }

    /// A producer without idempotence, which keeps the order by having one request in flight.
    pub(crate) fn plain_writer(&self, name: &str) -> Done<Writer<'_>> {
        self.writer_with(name, false, PATIENT, Duration::ZERO)
    }

    fn writer_with(
        &self,
        name: &str,
        idempotent: bool,
        (request, delivery): (Duration, Duration),
        linger: Duration,
    ) -> Done<Writer<'_>> {
        let settings =
            ProducerSettings { acks: history::Acks::All, idempotent, ordered: true, retries: true };
        let me = self.history.borrow_mut().producer(name, settings);
        let producer = Producer::builder()
            .client(&self.client(name, request)?)
            .acks(Acks::All)
            .enable_idempotence(idempotent)
            .max_in_flight_requests_per_connection(if idempotent { 5 } else { 1 })
            .linger_ms(linger)
            .delivery_timeout_ms(delivery)
            .build()?;
        Ok(Writer { run: self, me, producer })
    }

    /// A consumer that begins at the first record.
    pub(crate) fn reader(&self, name: &str) -> Done<Reader<'_>> {
        let consumer =
            Consumer::builder().client(&self.client(name, PATIENT.0)?).fetch_max_wait_ms(ms(200)).build()?;
        let mut history = self.history.borrow_mut();
        let me = history.consumer(name, None);
        history.assigned(self.sim.now(), me, self.place, Some(0), None);
        consumer.assign([(TopicPartition::new(TOPIC, 0), StartOffset::Offset(0))]);
        Ok(Reader { run: self, me, consumer })
    }

    fn client(&self, name: &str, request_timeout: Duration) -> Done<Client> {
        let builder = Client::builder().bootstrap_servers(self.cluster.bootstrap());
        let builder = builder.connector(self.cluster.handle()).request_timeout_ms(request_timeout);
        Ok(builder.client_id(name).build()?)
    }

    /// Waits until every broker has just written its checkpoints: each does so every five seconds from its start on, and all
    /// have started at once.
    pub(crate) async fn until_checkpoints_are_written(&self) {
        let every = ms(5_000).as_millis();
        let since = u64::try_from(self.sim.now().as_millis() % every).unwrap_or(0);
        sleep(ms(5_700 - since)).await;
    }

    /// Waits until every replica is in sync and has everything.
    async fn rest(&self) {
        loop {
            let leader = self.cluster.leader_of(TOPIC, 0);
            let end = leader.and_then(|leader| self.cluster.log_end_offset(leader, TOPIC, 0));
            let all = self.cluster.isr_of(TOPIC, 0).len() == BROKERS as usize;
            if all && end.is_some() && self.cluster.high_watermark(TOPIC, 0) == end {
                return;
            }
            sleep(ms(20)).await;
        }
    }

    fn judge(&self, rested: bool) -> Done<Verdict> {
        let mut history = self.history.borrow_mut();
        let leader = self.cluster.leader_of(TOPIC, 0);
        for broker in 1..=BROKERS {
            let log = log(&self.cluster, broker).ok_or("a broker without a replica")?;
            if Some(broker) == leader {
                history.final_log(self.place, log.clone());
            }
            history.replica_log(self.place, broker, log);
        }
        let seen = history::check(&history, &Promises::default());
        Ok(Verdict { rested, seen, held: self.cluster.check() })
    }
}

fn log(cluster: &Cluster, broker: i32) -> Option<Log> {
    let record = |record: &broker_lite::LoggedRecord| LogRecord {
        offset: record.offset,
        op: record.value.as_deref().map_or(Op::ALIEN, Op::of_value),
        leader_epoch: record.leader_epoch,
    };
    let records: Vec<_> = cluster.log(broker, TOPIC, 0)?.iter().map(record).collect();
    let end = records.last().map_or(0, |record| record.offset + 1);
    Some(Log { start: 0, end, records })
}

/// A producer that tells the history what it does.
pub(crate) struct Writer<'a> {
    run: &'a Run,
    me: history::Client,
    producer: Producer,
}

/// A record that is on its way.
pub(crate) struct Sent {
    op: Op,
    delivery: Delivery,
}

impl Writer<'_> {
    /// Hands one record over, in a batch of its own, and does not wait for what comes of it.
    pub(crate) async fn send(&self) -> Done<Sent> {
        let Run { history, sim, place, .. } = self.run;
        let op = history.borrow_mut().invoke(sim.now(), self.me, Some(*place));
        let delivery = self.producer.send(Record::new(TOPIC).partition(0).value(op.value().to_vec())).await?;
        history.borrow_mut().accepted(sim.now(), self.me, op, *place);
        sleep(ms(1)).await;
        Ok(Sent { op, delivery })
    }

    /// Waits for what comes of a record.
    pub(crate) async fn settle(&self, Sent { op, delivery }: Sent) {
        let outcome = delivery.await;
        let Run { history, sim, place, .. } = self.run;
        let (mut history, at) = (history.borrow_mut(), sim.now());
        match outcome {
            Ok(written) => history.acked(at, self.me, op, *place, written.offset),
            Err(error) => history.failed(at, self.me, op, error.maybe_written()),
        }
    }

    /// Sends a record, and waits for what comes of it.
    pub(crate) async fn write(&self) -> Done {
        let sent = self.send().await?;
        self.settle(sent).await;
        Ok(())
    }

    /// Sends a first record, and waits until everybody knows that everybody has it.
    pub(crate) async fn begin(&self) -> Done {
        self.write().await?;
        sleep(ms(700)).await;
        Ok(())
    }
}

/// A consumer that tells the history what it reads.
pub(crate) struct Reader<'a> {
    run: &'a Run,
    me: history::Client,
    consumer: Consumer,
}

impl Reader<'_> {
    /// Reads whatever comes within this time.
    pub(crate) async fn read_for(&self, time: Duration) -> Done {
        let end = self.run.sim.now() + time;
        while let Ok(record) = timeout(end.saturating_sub(self.run.sim.now()), self.consumer.recv()).await {
            self.tell(&record?);
        }
        Ok(())
    }

    fn tell(&self, record: &ConsumerRecord) {
        let Run { history, sim, place, .. } = self.run;
        let op = record.value.as_deref().map_or(Op::ALIEN, Op::of_value);
        history.borrow_mut().read(sim.now(), self.me, *place, record.offset, op, record.leader_epoch);
    }
}
