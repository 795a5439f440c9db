//! One result per thing that a call names.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use klamm_core::TopicPartition;
use uuid::Uuid;

use super::configs::ConfigResource;
use super::error::{
    BrokerError, ConfigsError, FeatureError, GroupAdminError, ItemError, MemberError, PartitionError,
    Refused, TopicError, TopicIdError,
};

/// One result per thing asked for, in the order asked for.
#[derive(Debug, Clone)]
#[must_use = "each one may have failed by itself"]
pub struct Results<K, T, E> {
    results: Vec<(K, Result<T, E>)>,
}

/// One result per topic.
pub type TopicResults<T> = Results<String, T, TopicError>;
/// One result per topic that was named by its id.
pub type TopicIdResults<T> = Results<Uuid, T, TopicIdError>;
/// One result per partition.
pub type PartitionResults<T> = Results<TopicPartition, T, PartitionError>;
/// One result per resource that has settings.
pub type ConfigResults<T> = Results<ConfigResource, T, ConfigsError>;
/// One result per feature.
pub type FeatureResults<T> = Results<String, T, FeatureError>;
/// One result per broker.
pub type BrokerResults<T> = Results<i32, T, BrokerError>;
/// One result per group.
pub type GroupResults<T> = Results<String, T, GroupAdminError>;
/// One result per member of a group.
pub type MemberResults<T> = Results<String, T, MemberError>;

impl<K, T, E> Results<K, T, E> {
    /// All values, or the first error.
    ///
    /// # Errors
    ///
    /// Returns the first error.
    pub fn all(self) -> Result<Vec<T>, E> {
        self.results.into_iter().map(|(_, result)| result).collect()
    }

    /// The result for one of them.
    pub fn of<Q: Eq + ?Sized>(&self, item: &Q) -> Option<&Result<T, E>>
    where
        K: Borrow<Q>,
    {
        self.results.iter().find(|(known, _)| known.borrow() == item).map(|(_, result)| result)
    }

    /// Each of them with its result.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Result<T, E>)> {
        self.results.iter().map(|(item, result)| (item, result))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.results.len()
    }

    /// `true` if nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }
}

impl<K, T, E> Results<K, T, E> {
    /// Puts what was told into the order asked for; twice, if it was asked for twice. What the answer does not name
    /// has failed.
    pub(super) fn in_order(asked: impl IntoIterator<Item = K>, told: &BTreeMap<K, Result<T, Refused>>) -> Self
    where
        K: Clone + Ord,
        T: Clone,
        E: ItemError<K>,
    {
        Self::in_each(asked.into_iter().map(|item| {
            let told = told.get(&item).cloned().unwrap_or_else(|| Err(Refused::unnamed()));
            (item, told)
        }))
    }

    /// One result each.
    pub(super) fn of_each(results: impl IntoIterator<Item = (K, Result<T, E>)>) -> Self {
        Self { results: results.into_iter().collect() }
    }

    /// One verdict each.
    pub(super) fn in_each(told: impl IntoIterator<Item = (K, Result<T, Refused>)>) -> Self
    where
        K: Clone,
        E: ItemError<K>,
    {
        let result = |(item, told): (K, Result<T, Refused>)| {
            let result = told.map_err(|refused| E::new(item.clone(), refused));
            (item, result)
        };
        Self { results: told.into_iter().map(result).collect() }
    }
}

impl<K, T, E> IntoIterator for Results<K, T, E> {
    type Item = (K, Result<T, E>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.results.into_iter()
    }
}
