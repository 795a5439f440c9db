//! What happened in the cluster, and which requests came to its nodes.

use super::{Cluster, LeaderChange};
use crate::journal::{Event, RequestJournal};

/// Journals.
impl Cluster {
    /// What happened since the cluster started, in order: the newest 100,000 events.
    pub fn events(&self) -> Vec<Event> {
        self.started.journal.events()
    }

    /// How many events there were since the cluster started. A moment to wait from: see [`Self::until_event_since`].
    pub fn event_count(&self) -> u64 {
        self.started.journal.event_counts().0
    }

    /// How many of them were given up because there was no room.
    pub fn dropped_events(&self) -> u64 {
        self.started.journal.event_counts().1
    }

    /// Every change of a leader or leader epoch among [`Self::events`].
    pub fn leader_changes(&self) -> Vec<LeaderChange> {
        self.started.journal.leader_changes()
    }

    /// Waits for an event that is `wanted` and returns the first, looking at those that have happened already, too.
    ///
    /// `wanted` must not use the cluster.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn until_event(&self, wanted: impl FnMut(&Event) -> bool) -> Event {
        self.until_event_since(0, wanted).await
    }

    /// Waits for an event that is `wanted` among those from number `since` on, and returns the first.
    ///
    /// Taking [`Self::event_count`] before something is done, and waiting from there on afterwards, misses nothing that
    /// happens in between. `wanted` must not use the cluster.
    ///
    /// ```
    /// # async fn example(cluster: &broker_lite::Cluster) -> Result<(), broker_lite::ClusterError> {
    /// use broker_lite::Event;
    ///
    /// let before = cluster.event_count();
    /// cluster.kill(1)?;
    /// cluster.until_event_since(before, |event| matches!(event, Event::Fenced { broker: 1, .. })).await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn until_event_since(&self, since: u64, wanted: impl FnMut(&Event) -> bool) -> Event {
        self.started.journal.until_event(since, wanted).await
    }

    /// Records the requests that arrive at every node from now on, those between nodes as well, until the guard is
    /// dropped: the newest `capacity` of them, with all their bytes.
    ///
    /// Nothing is recorded, and nothing is to be paid for it, without such a guard.
    pub fn record_requests(&self, capacity: usize) -> RequestJournal {
        RequestJournal::new(self.started.network.clone(), capacity)
    }
}
