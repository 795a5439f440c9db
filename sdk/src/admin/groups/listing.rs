//! Which groups there are. Each broker is asked for those that it coordinates.

use std::collections::BTreeMap;

use futures::future::join_all;
use klamm_wire::messages::{ListGroupsRequest, ListGroupsResponse};
use klamm_wire::{ErrorCode, codec};

use super::{GroupState, GroupType};
use crate::admin::Admin;
use crate::admin::call::{How, text, verdict};
use crate::admin::error::{AdminError, BrokerError, ItemError, Refused};
use crate::client::Target;

/// First version that is asked for states, and tells them (KIP-518; Apache Kafka 2.6).
const STATES: i16 = 4;
/// First version that is asked for types, and tells them (KIP-848; Apache Kafka 3.8).
const TYPES: i16 = 5;

/// Which groups to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListGroups {
    states: Vec<GroupState>,
    types: Vec<GroupType>,
}

impl ListGroups {
    /// All of them.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those in this state; given several times, in any of them (Apache Kafka 2.6).
    #[must_use]
    pub fn in_state(mut self, state: GroupState) -> Self {
        self.states.push(state);
        self
    }

    /// Those of this type; given several times, of any of them (Apache Kafka 3.8).
    #[must_use]
    pub fn of_type(mut self, group_type: GroupType) -> Self {
        self.types.push(group_type);
        self
    }

    fn needs(&self) -> Option<(i16, &'static str)> {
        match (self.states.is_empty(), self.types.is_empty()) {
            (_, false) => Some((TYPES, "groups of one type")),
            (false, true) => Some((STATES, "groups in one state")),
            (true, true) => None,
        }
    }
}

/// A group as its coordinator lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupListing {
    /// Its id.
    pub id: String,
    /// The protocol of its members, if the broker tells.
    pub group_type: Option<GroupType>,
    /// What the members are: `consumer`, `connect` and the like; empty if nobody ever joined.
    pub protocol_type: String,
    /// What it is doing, if the broker tells.
    pub state: Option<GroupState>,
    /// The broker that coordinates it.
    pub coordinator: i32,
}

/// The groups of a cluster, as far as its brokers have answered.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupListings {
    /// Groups in the order of their ids.
    pub groups: Vec<GroupListing>,
    /// Brokers that did not answer: the groups that they coordinate are missing.
    pub unanswered: Vec<BrokerError>,
}

impl GroupListings {
    /// All groups, or why some are missing.
    ///
    /// # Errors
    ///
    /// Returns the first broker's.
    pub fn all(self) -> Result<Vec<GroupListing>, BrokerError> {
        self.unanswered.into_iter().next().map_or(Ok(self.groups), Err)
    }
}

impl Admin {
    /// Lists groups, of whatever protocol.
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// use klamm::{GroupState, ListGroups};
    ///
    /// for group in admin.list_groups(ListGroups::all().in_state(GroupState::Empty)).await?.all()? {
    ///     println!("{} has no members", group.id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ListGroups, api key 16, to every broker.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if no broker answers in time, or if none can tell states or types that were asked for.
    /// A broker that does not answer while others do is named in the result.
    pub async fn list_groups(&self, which: ListGroups) -> Result<GroupListings, AdminError> {
        let brokers = self.describe_cluster().await?.brokers;
        // Coordinators that are being loaded know soon.
        const SOON: &[ErrorCode] =
            &[ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, ErrorCode::COORDINATOR_NOT_AVAILABLE];
        let encode = |version| {
            let mut request = ListGroupsRequest::default();
            if version >= STATES {
                request.states_filter = which.states.iter().map(|state| text(state.name())).collect();
            }
            if version >= TYPES {
                request.types_filter = which.types.iter().map(|group_type| text(group_type.name())).collect();
            }
            codec::encode_request(version, &request)
        };
        let refusal = |answer: &ListGroupsResponse| verdict(answer.error_code, None);
        let asked = brokers.iter().map(async |broker| {
            let how = How { to: Target::Broker(broker.id), needs: which.needs(), again: SOON, ..How::any() };
            let answer = self.attempts().ask_whole::<ListGroupsRequest>(&how, &encode, refusal).await;
            (broker.id, answer)
        });
        let (mut groups, mut unanswered, mut failed) = (BTreeMap::new(), Vec::new(), None);
        for (broker, answer) in join_all(asked).await {
            match answer {
                Ok(answer) => groups.extend(read(broker, &answer).map(|group| (group.id.clone(), group))),
                Err(error) => {
                    unanswered.push(BrokerError::new(broker, Refused::unanswered(&error)));
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if unanswered.len() == brokers.len() => Err(error),
            _ => Ok(GroupListings { groups: groups.into_values().collect(), unanswered }),
        }
    }
}

fn read(broker: i32, answer: &ListGroupsResponse) -> impl Iterator<Item = GroupListing> {
    fn known<T: for<'a> From<&'a str>>(name: &str) -> Option<T> {
        (!name.is_empty()).then(|| T::from(name))
    }
    answer.groups.iter().map(move |told| GroupListing {
        id: told.group_id.as_str().to_owned(),
        group_type: known(&told.group_type),
        protocol_type: told.protocol_type.as_str().to_owned(),
        state: known(&told.group_state),
        coordinator: broker,
    })
}
