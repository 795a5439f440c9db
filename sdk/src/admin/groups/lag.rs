//! How far behind groups are: what they have committed, held against where the partitions end.

use std::collections::{BTreeMap, BTreeSet};

use klamm_core::TopicPartition;
use klamm_wire::ErrorCode;

use super::{GroupDescription, GroupOffset, GroupOffsets};
use crate::admin::error::{AdminError, GroupAdminError, PartitionError};
use crate::admin::results::{GroupResults, Results};
use crate::admin::{Admin, ListedOffset, OffsetSpec, PartitionResults};
use crate::consumer::Isolation;

/// How far behind a group is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupLag {
    /// The group, with its members; `None` if it has committed offsets and cannot be described.
    pub group: Option<GroupDescription>,
    /// Every partition that it has committed an offset for, or that a member reads, in order.
    pub partitions: Vec<PartitionLag>,
}

impl GroupLag {
    /// Records that are still to be read, in all partitions where that is known.
    pub fn total(&self) -> i64 {
        self.partitions.iter().filter_map(PartitionLag::lag).map(|lag| lag.max(0)).sum()
    }
}

/// How far behind a group is in one partition.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PartitionLag {
    /// The partition.
    pub partition: TopicPartition,
    /// What the group has committed; `None` if nothing.
    pub committed: Option<GroupOffset>,
    /// The next record's offset, as seen by a reader with the isolation asked for; or why it is not known: the topic is
    /// deleted, for example.
    pub end: Result<i64, PartitionError>,
    /// Place in [`GroupDescription::members`] of who reads it; `None` if nobody does.
    pub member: Option<usize>,
}

impl PartitionLag {
    /// Offsets from what is committed up to the end; `None` if one of them is not known. Negative if the log ends before
    /// what is committed: it was cut, or is another one.
    pub fn lag(&self) -> Option<i64> {
        let (committed, end) = (self.committed.as_ref()?, self.end.as_ref().ok()?);
        Some(end.saturating_sub(committed.offset))
    }
}

impl Admin {
    /// Tells how far behind groups are, with their members: [`describe_groups`](Self::describe_groups),
    /// [`list_group_offsets`](Self::list_group_offsets) and [`list_offsets`](Self::list_offsets) together.
    ///
    /// Ends are asked for after the commits, so that nobody seems to be ahead. With [`Isolation::ReadCommitted`] the end is
    /// that of what is decided: the first record of an open transaction. Offsets of a compacted log or with transactions
    /// have gaps, so that lag can be more than there are records.
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// use klamm::Isolation;
    ///
    /// for lag in admin.group_lag(["billing"], Isolation::ReadUncommitted).await?.all()? {
    ///     println!("{} records behind", lag.total());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if nobody answers in time. A group that does not exist is an error in the results
    /// (GROUP_ID_NOT_FOUND); a topic that does not exist one in [`PartitionLag::end`].
    pub async fn group_lag<S: Into<String>>(
        &self,
        groups: impl IntoIterator<Item = S>,
        isolation: Isolation,
    ) -> Result<GroupResults<GroupLag>, AdminError> {
        let groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        let names: BTreeSet<&String> = groups.iter().collect();
        let (described, offsets) = futures::future::join(
            self.describe_groups(names.iter().copied()),
            self.list_group_offsets(names.iter().copied()),
        )
        .await;
        let (described, offsets) = (described?, offsets?);
        let mut lags: BTreeMap<String, Result<GroupLag, GroupAdminError>> = BTreeMap::new();
        for ((name, described), (_, offsets)) in described.into_iter().zip(offsets) {
            lags.insert(name, without_ends(described, offsets));
        }
        let all = lags.values().flatten().flat_map(|lag| &lag.partitions);
        let partitions: BTreeSet<_> = all.map(|lag| lag.partition.clone()).collect();
        let wanted = partitions.into_iter().map(|partition| (partition, OffsetSpec::Latest));
        let ends = self.list_offsets(wanted, isolation).await?;
        for lag in lags.values_mut().flatten().flat_map(|lag| &mut lag.partitions) {
            lag.end = end(&ends, &lag.partition, &lag.end);
        }
        let of = |group: String| {
            let unnamed = GroupAdminError {
                group: group.clone(),
                code: ErrorCode::UNKNOWN_SERVER_ERROR,
                message: None,
                maybe_done: false,
            };
            let lag = lags.get(&group).cloned().unwrap_or(Err(unnamed));
            (group, lag)
        };
        Ok(Results::of_each(groups.into_iter().map(of)))
    }
}

/// One group's partitions, as long as nobody was asked where they end.
fn without_ends(
    described: Result<GroupDescription, GroupAdminError>,
    offsets: Result<GroupOffsets, GroupAdminError>,
) -> Result<GroupLag, GroupAdminError> {
    let mut committed = BTreeMap::new();
    let mut refused = BTreeMap::new();
    for (partition, offset) in offsets? {
        match offset {
            Ok(offset) => drop(committed.insert(partition, offset)),
            Err(error) => drop(refused.insert(partition, error)),
        }
    }
    let group = match described {
        Ok(group) => Some(group),
        // Of another kind, a share group for instance.
        Err(error) if committed.is_empty() && refused.is_empty() => return Err(error),
        Err(_) => None,
    };
    let mut readers: BTreeMap<TopicPartition, usize> = BTreeMap::new();
    let members = group.iter().flat_map(|group| &group.members).enumerate();
    for (place, member) in members {
        let reads = member.assignment.iter().flatten().cloned();
        readers.extend(reads.map(|partition| (partition, place)));
    }
    let partitions: BTreeSet<_> =
        committed.keys().chain(refused.keys()).chain(readers.keys()).cloned().collect();
    let lag = |partition: TopicPartition| {
        let not_asked = PartitionError {
            partition: partition.clone(),
            code: ErrorCode::UNKNOWN_SERVER_ERROR,
            message: None,
            maybe_done: false,
        };
        PartitionLag {
            committed: committed.remove(&partition).flatten(),
            end: Err(refused.remove(&partition).unwrap_or(not_asked)),
            member: readers.get(&partition).copied(),
            partition,
        }
    };
    Ok(GroupLag { partitions: partitions.into_iter().map(lag).collect(), group })
}

fn end(
    ends: &PartitionResults<ListedOffset>,
    partition: &TopicPartition,
    before: &Result<i64, PartitionError>,
) -> Result<i64, PartitionError> {
    // Why the commit is not known says more than where the partition ends.
    if let Err(error) = before
        && error.code != ErrorCode::UNKNOWN_SERVER_ERROR
    {
        return before.clone();
    }
    match ends.of(partition) {
        Some(Ok(ListedOffset { offset: Some(offset), .. })) => Ok(*offset),
        Some(Err(error)) => Err(error.clone()),
        _ => before.clone(),
    }
}
