//! What may be wrong with the network, between nodes and towards clients.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use super::Cluster;
use crate::broker::CONTROLLER_ID;
use crate::node::{Between, Network, Side, Trouble};

/// One condition, taken away when it is dropped.
struct Guard {
    network: Arc<Network>,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.network.heal(self.id);
    }
}

macro_rules! guards {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(
            $(#[$doc])*
            #[must_use = "the network heals when this is dropped"]
            pub struct $name(#[expect(dead_code, reason = "lives for its drop")] Guard);

            impl $name {
                /// Ends it, as dropping does. What was held arrives from now on, in order.
                pub fn heal(self) {}
            }

            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(stringify!($name))
                }
            }
        )*
    };
}

guards! {
    /// A cut in the network; dropped, it heals. See [`Cluster::cut`].
    Cut
    /// Messages take their time; dropped, new ones do not. See [`Cluster::latency`].
    Latency
    /// Messages are lost; dropped, new ones are not. See [`Cluster::loss`].
    Loss
}

/// Faults of the network. Each lasts until its guard is dropped, and concerns conversations that are open as well as new
/// ones. Several may hold at a time.
///
/// The network carries conversations as TCP does: what one end sends arrives at the other in the order it was sent, or
/// the connection breaks. A request counts as sent once it was handed to the connection; it arrives, and is carried out,
/// also if the client has closed its end meanwhile. With [`ClusterBuilder::tcp`](crate::ClusterBuilder::tcp) the
/// same conditions hold for whole requests and answers: behind the broker's socket on the way in, in front of it on the way out.
///
/// What a broker has sent is lost with it when it dies, and stays where it is while it is paused.
impl Cluster {
    /// Cuts the network between `a` and `b`, in both directions.
    ///
    /// Nothing breaks: messages wait until the cut heals and then arrive in order, if both ends are still there. A
    /// connection that is dialled meanwhile neither comes about nor fails: it is up to the client for how long it waits.
    /// (Over a socket it is the operating system that accepts; the first request is held.) What waits is bounded by the
    /// requests that a connection may have in flight.
    ///
    /// Finds: clients without a time limit somewhere; split brain, when a leader is cut off from the controller
    /// (`cut(leader, Side::Controller)`) and goes on for a while beside its successor; requests that are carried out
    /// long after the client has given them up.
    ///
    /// ```
    /// # async fn example(cluster: &broker_lite::Cluster) {
    /// use broker_lite::Side;
    ///
    /// let cut = cluster.cut(1, Side::Brokers);
    /// // ... broker 1 talks to clients and to the controller, but not to other brokers.
    /// cut.heal();
    /// # }
    /// ```
    pub fn cut(&self, a: impl Into<Side>, b: impl Into<Side>) -> Cut {
        Cut(self.trouble(a.into(), b.into(), true, Trouble::Cut))
    }

    /// Cuts one direction only: what `from` sends does not reach `to`, the other way works. Otherwise as [`Self::cut`].
    ///
    /// A connection takes messages in both directions to come about: none does.
    ///
    /// Finds: "applied, but I do not know it": requests arrive and are carried out, and every answer is held; nodes
    /// that take silence in one direction for silence in both.
    pub fn cut_one_way(&self, from: impl Into<Side>, to: impl Into<Side>) -> Cut {
        Cut(self.trouble(from.into(), to.into(), false, Trouble::Cut))
    }

    /// Lets every message between `a` and `b` take a time out of `range`, in both directions, drawn from the cluster's
    /// seed.
    ///
    /// Order is kept in each direction, so a message may wait for an earlier one; but messages that are under way at the
    /// same time do not add up their times. To open a connection takes a message there and one back. Several latencies
    /// between the same two add up. Virtual time has a resolution of a millisecond.
    ///
    /// Finds: code that waits for one answer before it sends the next request; time limits that are too tight; races
    /// that a network without latency hides.
    pub fn latency(
        &self,
        a: impl Into<Side>,
        b: impl Into<Side>,
        range: impl RangeBounds<Duration>,
    ) -> Latency {
        let least = match range.start_bound() {
            Bound::Included(time) | Bound::Excluded(time) => *time,
            Bound::Unbounded => Duration::ZERO,
        };
        let most = match range.end_bound() {
            Bound::Included(time) => *time,
            Bound::Excluded(time) => time.saturating_sub(Duration::from_micros(1)),
            Bound::Unbounded => least,
        };
        Latency(self.trouble(a.into(), b.into(), true, Trouble::Latency(least..=most.max(least))))
    }

    /// Loses every message between `a` and `b` with this probability (0 to 1), in both directions, drawn from the
    /// cluster's seed.
    ///
    /// TCP does not lose single messages: the connection breaks instead. The message is gone, with all that is under way
    /// behind it, and both ends see the connection closed. A connection that is being opened fails in the same way.
    ///
    /// Finds: retries that change the order or write twice; requests that are forgotten with their connection.
    pub fn loss(&self, a: impl Into<Side>, b: impl Into<Side>, probability: f64) -> Loss {
        Loss(self.trouble(a.into(), b.into(), true, Trouble::Loss(probability)))
    }

    /// [`Self::CONTROLLER`] is the one that is active now, or all of them if none is.
    fn side(&self, side: Side) -> Side {
        match side {
            Side::Node(CONTROLLER_ID) => self.controller().map_or(Side::Controller, Side::Node),
            side => side,
        }
    }

    fn trouble(&self, from: Side, to: Side, both_ways: bool, trouble: Trouble) -> Guard {
        let (from, to) = (self.side(from), self.side(to));
        let network = self.started.network.clone();
        tracing::info!(?from, ?to, both_ways, ?trouble, "network fault");
        let id = network.trouble(Between { from, to, both_ways }, trouble);
        Guard { network, id }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::node::{Carried, Party, Tap};
    use crate::rt::Tick;
    use crate::support::{MADE_MS, Talk, batch, produce, produced};
    use crate::{ApiKey, Fault, Stage};

    const MS: Duration = Duration::from_millis(1);

    /// Everything that was carried, as text.
    #[derive(Debug, Default)]
    struct Trace(Mutex<Vec<String>>);

    impl Tap for Trace {
        fn carried(&self, at: Tick, from: &Party, to: &Party, what: Carried<'_>) {
            self.0.lock().push(format!("{at:?} {from} -> {to}: {what:?}"));
        }
    }

    /// Two records under latency and loss, with a leader that is cut off and comes back.
    async fn history(seed: u64) -> Vec<String> {
        // The wall clock goes into the records.
        let _ambient = klamm_wire::ambient::enter(seed, || *MADE_MS);
        let cluster = Cluster::builder().seed(seed).start().await.unwrap();
        let trace = Arc::new(Trace::default());
        cluster.started.network.set_tap(Some(trace.clone()));
        let latency = cluster.latency(Side::Anyone, Side::Anyone, MS..10 * MS);
        cluster.create_topic("t", 2, 3, &[]).await.unwrap();
        let loss = cluster.loss(Side::Brokers, Side::Brokers, 0.05);
        let leader = cluster.leader_of("t", 0).unwrap();
        let mut talk = Talk::named(&cluster, leader, "writer").await.unwrap();
        for value in ["a", "b", "c"] {
            let answer =
                talk.send(produce("t", 0, -1, 60_000, batch(&[value]))).await.unwrap().await.unwrap();
            assert_eq!(produced(answer).error_code, 0);
        }
        let dropped =
            cluster.on(ApiKey::Fetch).skip(3).times(2).at(Stage::AfterAppend).then(Fault::DropConnection);
        dropped.until_hits(2).await;
        let cut = cluster.cut(leader, Side::Controller);
        cluster.until_leader("t", 0, |now| now.is_some_and(|id| id != leader)).await;
        cut.heal();
        let second = cluster.leader_of("t", 0).unwrap();
        let kill = cluster.on(ApiKey::Fetch).broker(second).from(Side::Brokers).times(1).then(Fault::Kill);
        kill.hit().await;
        cluster.until_leader("t", 0, |now| now.is_some_and(|id| id != second)).await;
        cluster.restart(second).await.unwrap();
        drop((latency, loss));
        cluster.until_isr("t", 0, |isr| isr.len() == 3).await;
        cluster.started.network.set_tap(None);
        let seen = std::mem::take(&mut *trace.0.lock());
        cluster.shutdown().await;
        seen
    }

    /// Goal: what happens in the network is the seed's doing and nobody else's.
    #[tokio::test(start_paused = true)]
    async fn the_same_seed_carries_the_same_bytes_at_the_same_times() {
        let (first, second, other) = (history(7).await, history(7).await, history(8).await);
        assert!(first.len() > 200, "{}", first.len());
        let differ = first.iter().zip(&second).position(|(first, second)| first != second);
        assert_eq!(differ, None, "{:?}", differ.map(|at| (&first[at], &second[at])));
        assert_eq!(first.len(), second.len());
        assert_ne!(first, other);
        for what in
            ["Dial", "Request", "Answer", "Closed", "client writer -> broker", "broker 1 -> controller"]
        {
            assert!(first.iter().any(|line| line.contains(what)), "{what}");
        }
    }

    /// Goal: a thousand clusters one after the other in one process need the memory of one.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_of_a_cluster_that_was_shut_down() {
        let cluster = Cluster::builder().seed(7).topic("t", Some(1), Some(3)).start().await.unwrap();
        let network = Arc::downgrade(&cluster.started.network);
        let rt = cluster.started.rt.clone();
        cluster.shutdown().await;
        rt.sleep(MS).await;
        assert_eq!(network.strong_count(), 0);
    }
}
