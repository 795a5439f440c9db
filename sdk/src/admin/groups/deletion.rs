//! Groups go, with what they have committed.

use klamm_wire::messages::DeleteGroupsRequest;
use klamm_wire::{ErrorCode, codec};

use super::coordinators::Batch;
use super::group_id;
use crate::admin::Admin;
use crate::admin::call::{How, verdict};
use crate::admin::error::AdminError;
use crate::admin::results::{GroupResults, Results};

impl Admin {
    /// Deletes groups and everything they have committed. A group must not have members.
    ///
    /// DeleteGroups, api key 42, to the coordinators. After a lost answer it is sent again; GROUP_ID_NOT_FOUND then says
    /// `maybe_done`.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if no coordinator answers in time. A group that has members (NON_EMPTY_GROUP) or does not
    /// exist (GROUP_ID_NOT_FOUND) is an error in the results.
    pub async fn delete_groups<S: Into<String>>(
        &self,
        groups: impl IntoIterator<Item = S>,
    ) -> Result<GroupResults<()>, AdminError> {
        let groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        let wanted = groups.iter().map(|group| (group.clone(), ())).collect();
        let encode = |version, groups: &[(String, ())]| {
            let names = groups.iter().map(|(group, ())| group_id(group)).collect();
            codec::encode_request(version, &DeleteGroupsRequest::default().with_groups_names(names))
        };
        let how = How { already: &[ErrorCode::GROUP_ID_NOT_FOUND], ..How::any() };
        let told = self
            .attempts()
            .ask_coordinators::<DeleteGroupsRequest, _, _>(
                &how,
                Batch::From(0),
                wanted,
                encode,
                |_, _, answer| {
                    let told = answer
                        .results
                        .iter()
                        .map(|told| (told.group_id.as_str().to_owned(), verdict(told.error_code, None)));
                    told.collect()
                },
            )
            .await?;
        Ok(Results::in_order(groups, &told))
    }
}
