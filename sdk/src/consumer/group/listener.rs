//! Hearing of partitions that come and go.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use klamm_core::TopicPartition;
use klamm_core::consumer::StartOffset;
use klamm_core::group::{CommittedOffset, Reason};

use super::Group;
use super::error::CommitError;
use crate::consumer::ConsumerError;

/// Hears of partitions that come and go ([`Consumer::subscribe_with`](crate::Consumer::subscribe_with)).
///
/// Calls follow one another, on a task of their own: they may wait, commit and seek. One that has not returned within
/// `max.poll.interval.ms` is dropped where it waits, and the group goes on. One that panics counts as returned.
///
/// ```
/// use futures::FutureExt;
/// use futures::future::BoxFuture;
/// use klamm::{RebalanceContext, RebalanceListener, RebalanceReason, TopicPartition};
///
/// /// Commits what was done before others take over.
/// struct Orderly;
///
/// impl RebalanceListener for Orderly {
///     fn revoked<'a>(
///         &'a self,
///         context: &'a RebalanceContext,
///         partitions: &'a [TopicPartition],
///         reason: RebalanceReason,
///     ) -> BoxFuture<'a, ()> {
///         async move {
///             println!("giving up {partitions:?}: {reason}");
///             if let Err(error) = context.commit().await {
///                 eprintln!("{error}");
///             }
///         }
///         .boxed()
///     }
/// }
/// ```
pub trait RebalanceListener: Send + Sync + 'static {
    /// These partitions are this member's now, since a rebalance that it joined for this reason, or because
    /// it had lost others for it. Nothing of them is read before
    /// this returns; whoever keeps offsets elsewhere seeks here.
    fn assigned<'a>(
        &'a self,
        context: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        reason: Reason,
    ) -> BoxFuture<'a, ()> {
        let _ = (context, partitions, reason);
        Box::pin(std::future::ready(()))
    }

    /// These partitions are to be given up; nothing more of them is handed out. They can be committed until this returns, and
    /// nobody else reads them before. What `commit_async` began and automatic commits come first, for at most half of `max.poll.interval.ms`.
    fn revoked<'a>(
        &'a self,
        context: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        reason: Reason,
    ) -> BoxFuture<'a, ()> {
        let _ = (context, partitions, reason);
        Box::pin(std::future::ready(()))
    }

    /// These partitions are gone, and maybe read by others already: they cannot be committed any more.
    fn lost<'a>(
        &'a self,
        context: &'a RebalanceContext,
        partitions: &'a [TopicPartition],
        reason: Reason,
    ) -> BoxFuture<'a, ()> {
        let _ = (context, partitions, reason);
        Box::pin(std::future::ready(()))
    }
}

/// What a [`RebalanceListener`] can do with its consumer.
pub struct RebalanceContext {
    group: Arc<Group>,
}

impl fmt::Debug for RebalanceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RebalanceContext").finish_non_exhaustive()
    }
}

impl RebalanceContext {
    pub(super) fn new(group: Arc<Group>) -> Self {
        Self { group }
    }

    /// Commits what is done: what was handed out, but for the records of those who have not asked for more since. Those may be at
    /// work on them at this moment, because a listener runs beside them. Who is done with more says so by
    /// [`Self::commit_offsets`].
    ///
    /// # Errors
    ///
    /// See [`CommitError`].
    pub async fn commit(&self) -> Result<(), CommitError> {
        self.group.commit_done().await
    }

    /// As [`Consumer::commit_offsets`](crate::Consumer::commit_offsets), but within `request.timeout.ms` if that is longer than
    /// `default.api.timeout.ms`, as [`Self::commit`].
    ///
    /// # Errors
    ///
    /// See [`CommitError`].
    pub async fn commit_offsets<P: Into<TopicPartition>, O: Into<CommittedOffset>>(
        &self,
        offsets: impl IntoIterator<Item = (P, O)>,
    ) -> Result<(), CommitError> {
        let offsets = offsets.into_iter().map(|(name, at)| (name.into(), at.into())).collect();
        self.group.begin_commit().offsets(offsets, self.group.patience_ends()).await
    }

    /// As [`Consumer::seek`](crate::Consumer::seek).
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`].
    pub fn seek(&self, partition: &TopicPartition, to: StartOffset) -> Result<(), ConsumerError> {
        self.group.seek(partition, to)
    }
}
