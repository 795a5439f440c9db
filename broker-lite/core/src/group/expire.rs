//! What time takes away: offsets that nobody reads by any more, and groups with nothing left.

use std::sync::Arc;

use super::records::CommittedOffset;
use super::state::{Group, State};
use super::{Cx, GroupCoordinator, Turn};

/// From when on an offset ages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// Its group became empty, or it was committed, where that is not known.
    Emptied(Option<i64>),
    /// It was committed.
    Committed,
}

impl GroupCoordinator {
    /// Forgets offsets older than `offsets.retention.minutes`, and groups without members whose offsets are all forgotten.
    pub(super) fn clean_up(&mut self, turn: &mut Turn<'_>) {
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            let empty = self.with_group(&id, |cx, group| cx.clean_up(turn, group));
            if empty {
                // what cannot be written now is tried the next time
                let _ = self.remove_group(turn, &id, None);
            }
        }
    }
}

impl Cx<'_> {
    /// Whether nothing of the group is left.
    fn clean_up(&mut self, turn: &mut Turn<'_>, group: &mut Group) -> bool {
        if group.writes > 0 || !group.promised.is_empty() {
            return false;
        }
        let mut expired = Vec::new();
        let mut all = true;
        if !group.offsets.is_empty() {
            let Some(since) = since(group) else { return false };
            for (topic, offsets) in &group.offsets {
                let subscribed = group.is_subscribed_to(topic);
                for (partition, value) in offsets {
                    if !subscribed && self.is_expired(turn, since, value) {
                        expired.push((topic.clone(), *partition));
                    } else {
                        all = false;
                    }
                }
            }
        }
        if all && group.state == State::Empty {
            return true;
        }
        let expired: Vec<(Arc<str>, i32)> = expired;
        self.forget(turn, group, &expired);
        false
    }

    fn is_expired(&self, turn: &Turn<'_>, since: Since, value: &CommittedOffset) -> bool {
        if let Some(at) = value.expire_timestamp_ms {
            return turn.wall_ms >= at;
        }
        let begin = match since {
            Since::Emptied(at) => at.unwrap_or(value.commit_timestamp_ms),
            Since::Committed => value.commit_timestamp_ms,
        };
        turn.wall_ms.saturating_sub(begin) >= self.settings.offsets_retention_ms
    }
}

/// `None` while the group's offsets do not age.
fn since(group: &Group) -> Option<Since> {
    if group.protocol_type.is_none() {
        return Some(Since::Committed);
    }
    match group.state {
        State::Empty => Some(Since::Emptied(group.state_since_ms)),
        State::Stable if group.is_of_consumers() && group.knows_subscriptions() => Some(Since::Committed),
        _ => None,
    }
}
