//! ListGroups (16), DescribeGroups (15), DeleteGroups (42): what administrators see and do.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_wire::messages::GroupId;
use klamm_wire::messages::delete_groups_response::DeletableGroupResult;
use klamm_wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use klamm_wire::messages::list_groups_response::ListedGroup;
use klamm_wire::{ErrorCode, StrBytes};

use super::records::GroupRecord;
use super::state::{Group, Member, State};
use super::timers::Timer;
use super::{Change, GroupCoordinator, GroupKey, Response, Then, Turn, Write, said_of, text};

/// First version that says when a group does not exist; before, it is shown as dead.
const NOT_FOUND_FROM: i16 = 6;
/// What groups are called that are not of KIP-848.
const CLASSIC: &str = "classic";

impl GroupCoordinator {
    /// ListGroups: those in one of these states and of one of these types, all if none are named.
    pub fn list(&self, states: &[StrBytes], types: &[StrBytes]) -> Vec<ListedGroup> {
        let wanted: BTreeSet<_> = states.iter().map(|state| state.trim().to_lowercase()).collect();
        let of_type = types.is_empty() || types.iter().any(|kind| kind.trim().to_lowercase() == CLASSIC);
        let listed = |group: &&Group| {
            of_type && (wanted.is_empty() || wanted.contains(&group.state.name().to_lowercase()))
        };
        let show = |group: &Group| {
            ListedGroup::default()
                .with_group_id(GroupId(text(&group.id)))
                .with_protocol_type(text(group.protocol_type.as_deref().unwrap_or_default()))
                .with_group_state(StrBytes::from_static_str(group.state.name()))
                .with_group_type(StrBytes::from_static_str(CLASSIC))
        };
        self.shown_groups().filter(listed).map(show).collect()
    }

    /// DescribeGroups: one group.
    pub fn describe(&self, id: &GroupId, version: i16) -> DescribedGroup {
        let answer = DescribedGroup::default().with_group_id(id.clone());
        let Some(group) = self.shown(id) else {
            let dead = answer.with_group_state(StrBytes::from_static_str("Dead"));
            return match version >= NOT_FOUND_FROM {
                true => dead
                    .with_error_code(ErrorCode::GROUP_ID_NOT_FOUND.0)
                    .with_error_message(Some(text(&format!("Group {} not found.", id.as_str())))),
                false => dead,
            };
        };
        let protocol = group.protocol.as_deref().filter(|_| group.state == State::Stable);
        let member = |member: &Member| {
            DescribedGroupMember::default()
                .with_member_id(text(&member.id))
                .with_group_instance_id(member.instance_id.as_deref().map(text))
                .with_client_id(text(&member.client_id))
                .with_client_host(text(&member.client_host))
                .with_member_metadata(protocol.map(|name| member.metadata(name)).unwrap_or_default())
                .with_member_assignment(member.assignment.clone())
        };
        answer
            .with_group_state(StrBytes::from_static_str(group.state.name()))
            .with_protocol_type(text(group.protocol_type.as_deref().unwrap_or_default()))
            .with_protocol_data(text(protocol.unwrap_or_default()))
            .with_members(group.members.values().map(member).collect())
    }

    /// DeleteGroups: one group.
    pub fn delete(&mut self, turn: &mut Turn<'_>, to: u64, id: &GroupId) {
        let code = match self.groups.get(id.as_str()).map(|group| group.state) {
            None => Err(ErrorCode::GROUP_ID_NOT_FOUND),
            Some(State::Empty) => Ok(()),
            Some(_) => Err(ErrorCode::NON_EMPTY_GROUP),
        };
        let answer = DeletableGroupResult::default().with_group_id(id.clone());
        let done = code.and_then(|()| {
            let then = Then::Answer(to, Response::Delete(answer.clone()));
            self.remove_group(turn, id, Some(then))
        });
        if let Err(code) = done {
            turn.answer(to, Response::Delete(answer.with_error_code(code.0)));
        }
    }

    /// Writes tombstones for an empty group and all that it has committed. Until they are replicated it is still shown,
    /// but whoever joins makes a new one.
    pub(super) fn remove_group(
        &mut self,
        turn: &mut Turn<'_>,
        id: &str,
        then: Option<Then>,
    ) -> Result<(), ErrorCode> {
        let Some(group) = self.groups.get(id) else { return Ok(()) };
        let mut gone: BTreeSet<(Arc<str>, i32)> = BTreeSet::new();
        for (topic, offsets) in &group.offsets {
            gone.extend(offsets.keys().map(|partition| (topic.clone(), *partition)));
        }
        let of_group =
            |write: &&Write| write.group.as_ref().is_some_and(|key| key.incarnation == group.incarnation);
        for change in self.writes.iter().filter(of_group).flat_map(|write| &write.changes) {
            if let Change::Offset { topic, partition, .. } = change {
                gone.insert((topic.clone(), *partition));
            }
        }
        let forgotten = |(topic, partition): (Arc<str>, i32)| GroupRecord::Offset {
            group: group.id.clone(),
            topic,
            partition,
            value: None,
        };
        let mut records: Vec<_> = gone.into_iter().map(forgotten).collect();
        records.push(GroupRecord::Group { group: group.id.clone(), value: None });
        let end = turn.log.append(&records).map_err(said_of)?;
        let Some(group) = self.groups.remove(id) else { return Ok(()) };
        for member in &group.promised {
            self.timers.cancel(&Timer::Session(group.id.clone(), member.clone()));
        }
        self.timers.cancel(&Timer::Join(group.id.clone()));
        self.writes.push_back(Write {
            end,
            deadline: turn.now.saturating_add(self.settings.commit_timeout),
            group: Some(GroupKey { id: group.id.clone(), incarnation: group.incarnation }),
            changes: vec![Change::Gone],
            then,
        });
        self.going.push(group);
        Ok(())
    }
}
