//! Commits at moments that only chance brings about elsewhere.

use std::time::Duration;

use futures::FutureExt;
use klamm_core::assign::Assignment;
use klamm_core::consumer::StartOffset;
use klamm_core::group::{Effect, JoinAnswer, Joined};

use super::*;
use crate::consumer::Consumer;
use crate::consumer::tests::{builder, cluster::Cluster, tp};
use crate::rt::Task;

const S: Duration = Duration::from_secs(1);

/// It has read three records by hand, and is done with two. Its group task stands still.
async fn by_hand(auto_commit: bool) -> Consumer {
    let cluster = Cluster::default();
    cluster.count(0, 0..30);
    let consumer: Consumer = builder(&cluster).group_id("g").enable_auto_commit(auto_commit).build().unwrap();
    let still: Task = consumer.shared.client.rt().spawn(std::future::pending());
    consumer.group.machine.lock().task = Some(still);
    consumer.assign([(tp(0), StartOffset::Beginning)]);
    for expected in 0..3 {
        assert_eq!(consumer.recv().await.unwrap().offset, expected);
    }
    consumer
}

impl Group {
    fn commit_at(
        self: &Arc<Self>,
        offset: i64,
    ) -> impl Future<Output = Result<(), CommitError>> + Send + 'static {
        self.begin_commit().offsets([(tp(0), offset.into())].into(), self.api_deadline())
    }
}

impl Machine {
    fn told(&mut self, event: Event) {
        self.membership.step(S, event, &mut self.effects);
    }

    fn ticket(&self, of: impl Fn(&Effect) -> Option<u64>) -> u64 {
        self.effects.iter().rev().find_map(of).unwrap()
    }

    /// The group gives this member what it wants.
    fn become_owner(&mut self, partitions: Vec<TopicPartition>) {
        self.told(Event::Coordinator(Ok(1)));
        let ticket = self.ticket(|effect| match effect {
            Effect::Join { ticket, .. } => Some(*ticket),
            _ => None,
        });
        let (assignor, member_id) = ("range".into(), "m".into());
        let joined = Joined { generation: 1, assignor, member_id, members: None, stands: false };
        self.told(Event::Join(ticket, JoinAnswer::Joined(joined)));
        let ticket = self.ticket(|effect| match effect {
            Effect::Sync { ticket, .. } => Some(*ticket),
            _ => None,
        });
        self.told(Event::Sync(ticket, Ok(Ok(Assignment { partitions, user_data: None }))));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_done_by_hand_is_committed_at_once_on_subscribing_and_not_as_a_member_that_has_it_again() {
    let consumer = by_hand(true).await;
    consumer.subscribe(["t"]);
    let (first, reply) = {
        let machine = &mut *consumer.group.machine.lock();
        machine.become_owner(vec![tp(0)]);
        assert!(machine.membership.owned().contains(&tp(0)));
        (machine.attempts, machine.replies.pop_first())
    };
    assert_eq!(first, 1, "it was begun before");
    // Others may have committed since: what it had as nobody it must not say as their successor.
    reply.unwrap().1.send(Err(CommitRefusal::Later(Refusal::NoAnswer))).unwrap();
    consumer.shared.client.rt().sleep(5 * S).await;
    assert_eq!(consumer.group.machine.lock().attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn without_automatic_commits_nothing_is_committed_on_subscribing() {
    let consumer = by_hand(false).await;
    consumer.subscribe(["t"]);
    consumer.shared.client.rt().sleep(5 * S).await;
    assert_eq!(consumer.group.machine.lock().attempts, 0);
}

/// Goal: commits that pile up while the coordinator is away wake each other neither then nor one after another in the end.
#[tokio::test(start_paused = true)]
async fn commits_that_pile_up_wait_for_the_last_one_and_are_over_with_it() {
    const COMMITS: usize = 100;
    let consumer = by_hand(false).await;
    let group = &consumer.group;
    let commit = |at: usize| group.commit_at(at as i64);
    let mut commits: Vec<_> = (1..=COMMITS).map(|at| consumer.shared.client.rt().spawn(commit(at))).collect();
    consumer.shared.client.rt().sleep(Duration::from_millis(1)).await;
    let answer = |result: Result<(), CommitRefusal>| {
        let replies = std::mem::take(&mut group.machine.lock().replies);
        let count = replies.len();
        for reply in replies.into_values() {
            reply.send(result.clone()).unwrap();
        }
        count
    };
    assert_eq!(answer(Err(CommitRefusal::Later(Refusal::NoAnswer))), COMMITS);
    let behind = || {
        let waiting = &group.machine.lock().behind;
        waiting.iter().map(|(number, waits)| (*number, waits.len())).collect::<Vec<_>>()
    };
    consumer.shared.client.rt().sleep(S).await;
    assert_eq!(behind(), [(COMMITS as u64, COMMITS - 1)]);
    drop(commits.remove(50));
    consumer.shared.client.rt().sleep(S).await;
    assert_eq!(behind(), [(COMMITS as u64, COMMITS - 1)], "nobody looked again");
    assert_eq!(answer(Ok(())), 1, "the last one was tried alone");
    for commit in commits {
        commit.await.unwrap().unwrap();
    }
    assert!(behind().is_empty() && group.machine.lock().replies.is_empty());
}

/// Closing sets the flag, and then drops whoever waits for an answer, under the lock.
#[tokio::test(start_paused = true)]
async fn a_commit_that_meets_closing_at_the_lock_is_told_so_and_does_not_wait_for_an_answer() {
    let consumer = by_hand(false).await;
    let group = &consumer.group;
    let commit = group.begin_commit();
    let offsets: Offsets = [(tp(0), CommittedOffset::new(1))].into();
    let tenures = group.tenures(&offsets);
    let mut machine = group.machine.lock();
    let told = std::thread::scope(|scope| {
        let once = scope.spawn(|| commit.once(&offsets, &tenures).now_or_never());
        while group.machine.waiting() == 0 {
            std::thread::yield_now();
        }
        group.closed.store(true, Ordering::Release);
        machine.replies.clear();
        drop(machine);
        once.join().unwrap()
    });
    assert_eq!(told, Some(None), "it is over");
}
