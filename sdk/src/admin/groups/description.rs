//! Who is in a group, and what each member reads.

use std::collections::BTreeMap;

use klamm_core::TopicPartition;
use klamm_core::assign::{read_assignment, read_subscription};
use klamm_wire::messages::consumer_group_describe_response as modern;
use klamm_wire::messages::describe_groups_response as classic;
use klamm_wire::messages::{ConsumerGroupDescribeRequest, DescribeGroupsRequest};
use klamm_wire::{ErrorCode, codec};

use super::coordinators::Batch;
use super::{GroupState, GroupType, group_id};
use crate::admin::Admin;
use crate::admin::call::{How, Verdict, verdict};
use crate::admin::error::{AdminError, Refused};
use crate::admin::results::{GroupResults, Results};

/// What members of consumer groups call themselves.
const CONSUMER: &str = "consumer";

/// A group as its coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its id.
    pub id: String,
    /// The protocol by which its members agree.
    pub group_type: GroupType,
    /// What it is doing.
    pub state: GroupState,
    /// What the members are: `consumer`, `connect` and the like; empty if nobody ever joined.
    pub protocol_type: String,
    /// What shares out the partitions, for example `range`; empty while nothing is agreed on.
    pub assignor: String,
    /// Epoch of the group (KIP-848); `None` with the classic protocol, which does not tell its generation.
    pub epoch: Option<i32>,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// Its members in the order of their ids.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Id given by the coordinator.
    pub id: String,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<String>,
    /// Its `client.id`.
    pub client_id: String,
    /// The address it comes from.
    pub client_host: String,
    /// Epoch of the member (KIP-848).
    pub epoch: Option<i32>,
    /// Topics it wants to read, in the order of their names; empty while the group rebalances.
    pub topics: Vec<String>,
    /// What it reads, in order; `None` if that cannot be read: it is no consumer, or says something that is not of the
    /// consumer protocol.
    pub assignment: Option<Vec<TopicPartition>>,
    /// What it shall read in the end, if that is something else (KIP-848).
    pub target: Option<Vec<TopicPartition>>,
}

impl Admin {
    /// Describes groups of the classic protocol and of KIP-848's.
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// for group in admin.describe_groups(["billing"]).await?.all()? {
    ///     println!("{} is {}, coordinated by broker {}", group.id, group.state, group.coordinator);
    ///     for member in group.members {
    ///         println!("{} at {} reads {:?}", member.client_id, member.client_host, member.assignment);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// DescribeGroups, api key 15, to the coordinators; ConsumerGroupDescribe, api key 69, for groups that are not classic,
    /// where brokers offer it.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if no coordinator answers in time. A group that does not exist, or is neither classic nor of
    /// KIP-848, is an error in the results (GROUP_ID_NOT_FOUND).
    pub async fn describe_groups<S: Into<String>>(
        &self,
        groups: impl IntoIterator<Item = S>,
    ) -> Result<GroupResults<GroupDescription>, AdminError> {
        let groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        let wanted = groups.iter().map(|group| (group.clone(), ())).collect();
        let mut attempts = self.attempts();
        let encode = |version, groups: &[(String, ())]| {
            let ids = groups.iter().map(|(group, ())| group_id(group)).collect();
            codec::encode_request(version, &DescribeGroupsRequest::default().with_groups(ids))
        };
        let mut told = attempts
            .ask_coordinators::<DescribeGroupsRequest, _, _>(
                &How::any(),
                Batch::From(0),
                wanted,
                encode,
                |broker, _, answer| {
                    let groups = answer.groups.into_iter();
                    groups.map(|told| (told.group_id.as_str().to_owned(), of_classic(broker, told))).collect()
                },
            )
            .await?;

        let not_classic = |verdict: &Verdict<_>| {
            verdict.as_ref().is_err_and(|refused| refused.code == ErrorCode::GROUP_ID_NOT_FOUND)
        };
        let others: BTreeMap<_, _> = told.iter().filter(|(_, told)| not_classic(told)).collect();
        if others.is_empty() {
            return Ok(Results::in_order(groups, &told));
        }
        let wanted = others.into_keys().map(|group| (group.clone(), ())).collect();
        let encode = |version, groups: &[(String, ())]| {
            let ids = groups.iter().map(|(group, ())| group_id(group)).collect();
            codec::encode_request(version, &ConsumerGroupDescribeRequest::default().with_group_ids(ids))
        };
        let asked = attempts
            .ask_coordinators::<ConsumerGroupDescribeRequest, _, _>(
                &How::any(),
                Batch::From(0),
                wanted,
                encode,
                |broker, _, answer| {
                    let groups = answer.groups.into_iter();
                    groups.map(|told| (told.group_id.as_str().to_owned(), of_modern(broker, told))).collect()
                },
            )
            .await;
        // A broker that does not offer it has no such groups; of one that does not answer, what it said before holds.
        for (group, modern) in asked.into_iter().flatten() {
            let better = modern.is_ok() || not_classic(&modern);
            if better {
                told.insert(group, modern);
            }
        }
        Ok(Results::in_order(groups, &told))
    }
}

fn of_classic(coordinator: i32, told: classic::DescribedGroup) -> Verdict<GroupDescription> {
    verdict(told.error_code, told.error_message.as_ref())?;
    let state = GroupState::from(told.group_state.as_str());
    if state == GroupState::Dead {
        // How versions before 6 say that there is no such group.
        let text = format!("Group {} not found.", told.group_id.as_str());
        return Err(Refused::new(ErrorCode::GROUP_ID_NOT_FOUND, Some(text)));
    }
    let consumers = matches!(told.protocol_type.as_str(), CONSUMER | "");
    let member = |told: classic::DescribedGroupMember| {
        let assignment = match told.member_assignment.is_empty() {
            true => Some(Vec::new()),
            false => read_assignment(told.member_assignment).ok().map(|read| sorted(read.partitions)),
        };
        let subscription = Some(told.member_metadata).filter(|bytes| consumers && !bytes.is_empty());
        let subscription = subscription.and_then(|bytes| read_subscription(bytes).ok());
        let topics = subscription.into_iter().flat_map(|read| read.topics);
        let mut topics: Vec<_> = topics.map(|topic| topic.to_string()).collect();
        topics.sort_unstable();
        GroupMember {
            id: told.member_id.as_str().to_owned(),
            instance_id: told.group_instance_id.map(|id| id.as_str().to_owned()),
            client_id: told.client_id.as_str().to_owned(),
            client_host: told.client_host.as_str().to_owned(),
            epoch: None,
            topics,
            assignment: assignment.filter(|_| consumers),
            target: None,
        }
    };
    let mut members: Vec<_> = told.members.into_iter().map(member).collect();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(GroupDescription {
        id: told.group_id.as_str().to_owned(),
        group_type: GroupType::Classic,
        state,
        protocol_type: told.protocol_type.as_str().to_owned(),
        assignor: told.protocol_data.as_str().to_owned(),
        epoch: None,
        coordinator,
        members,
    })
}

fn of_modern(coordinator: i32, told: modern::DescribedGroup) -> Verdict<GroupDescription> {
    verdict(told.error_code, told.error_message.as_ref())?;
    let partitions = |told: &modern::Assignment| {
        let topics = told.topic_partitions.iter().flat_map(|topic| {
            let name = topic.topic_name.as_str();
            topic.partitions.iter().map(move |partition| TopicPartition::new(name, *partition))
        });
        sorted(topics.collect())
    };
    let member = |told: modern::Member| {
        let assignment = partitions(&told.assignment);
        let target = Some(partitions(&told.target_assignment)).filter(|target| *target != assignment);
        let topics = told.subscribed_topic_names.iter().map(|topic| topic.as_str().to_owned());
        let mut topics: Vec<_> = topics.collect();
        topics.sort_unstable();
        GroupMember {
            id: told.member_id.as_str().to_owned(),
            instance_id: told.instance_id.map(|id| id.as_str().to_owned()),
            client_id: told.client_id.as_str().to_owned(),
            client_host: told.client_host.as_str().to_owned(),
            epoch: Some(told.member_epoch),
            topics,
            assignment: Some(assignment),
            target,
        }
    };
    let mut members: Vec<_> = told.members.into_iter().map(member).collect();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(GroupDescription {
        id: told.group_id.as_str().to_owned(),
        group_type: GroupType::Consumer,
        state: GroupState::from(told.group_state.as_str()),
        protocol_type: CONSUMER.to_owned(),
        assignor: told.assignor_name.as_str().to_owned(),
        epoch: Some(told.group_epoch),
        coordinator,
        members,
    })
}

fn sorted(mut partitions: Vec<TopicPartition>) -> Vec<TopicPartition> {
    partitions.sort();
    partitions
}
