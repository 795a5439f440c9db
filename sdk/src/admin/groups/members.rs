//! Members are put out of their group.

use std::collections::BTreeMap;

use klamm_wire::codec;
use klamm_wire::messages::LeaveGroupRequest;
use klamm_wire::messages::leave_group_request::MemberIdentity;
use klamm_wire::{ErrorCode, StrBytes};

use super::coordinators::Batch;
use super::group_id;
use crate::admin::Admin;
use crate::admin::call::{How, Verdict, text, verdict};
use crate::admin::error::{AdminError, Refused};
use crate::admin::results::{MemberResults, Results};

/// First version of LeaveGroup that says why (KIP-800).
const REASONS: i16 = 5;

/// Which members are to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersToRemove {
    which: Which,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    All,
    Instances(Vec<String>),
    Ids(Vec<String>),
}

impl MembersToRemove {
    fn new(which: Which) -> Self {
        Self { which, reason: "removed by an administrator".to_owned() }
    }

    /// All that are there when the coordinator is asked.
    pub fn all() -> Self {
        Self::new(Which::All)
    }

    /// Static members, by their `group.instance.id`.
    pub fn instances<S: Into<String>>(ids: impl IntoIterator<Item = S>) -> Self {
        Self::new(Which::Instances(ids.into_iter().map(Into::into).collect()))
    }

    /// Members by the ids that the coordinator gave them.
    pub fn ids<S: Into<String>>(ids: impl IntoIterator<Item = S>) -> Self {
        Self::new(Which::Ids(ids.into_iter().map(Into::into).collect()))
    }

    /// Tells the coordinator why, for its log (KIP-800).
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }
}

impl Admin {
    /// Removes members from a group; the others rebalance at once. Gives one result per member, by its `group.instance.id`, or
    /// by its id if it has none.
    ///
    /// Whoever is still alive joins again when it hears of it: stop it first, or its partitions come back to it.
    ///
    /// ```no_run
    /// # async fn run(admin: klamm::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// use klamm::MembersToRemove;
    ///
    /// admin.remove_members("billing", MembersToRemove::instances(["host-7"])).await?.all()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// LeaveGroup, api key 13 (Apache Kafka 2.4), to the coordinator. After a lost answer it is sent again; UNKNOWN_MEMBER_ID
    /// then says `maybe_done`.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if the coordinator does not answer in time or refuses the whole. A member that is not there is
    /// an error in the results.
    pub async fn remove_members(
        &self,
        group: impl Into<String>,
        members: MembersToRemove,
    ) -> Result<MemberResults<()>, AdminError> {
        let group = group.into();
        let MembersToRemove { which, reason } = members;
        let by_id = |id: String| MemberIdentity::default().with_member_id(text(&id));
        let by_instance = |id: String| MemberIdentity::default().with_group_instance_id(Some(text(&id)));
        let named: Vec<MemberIdentity> = match which {
            Which::Ids(ids) => ids.into_iter().map(by_id).collect(),
            Which::Instances(ids) => ids.into_iter().map(by_instance).collect(),
            Which::All => {
                let described = self.describe_groups([&group]).await?.all();
                let described = described.map_err(|error| Refused::new(error.code, error.message))?;
                let members = described.into_iter().flat_map(|group| group.members);
                members
                    .map(|member| member.instance_id.map_or_else(|| by_id(member.id), by_instance))
                    .collect()
            }
        };
        let names: Vec<String> = named.iter().map(name).collect();
        if named.is_empty() {
            return Ok(Results::in_order(names, &BTreeMap::new()));
        }
        let encode = |version, _: &[(String, ())]| {
            let mut members = named.clone();
            if version >= REASONS {
                members.iter_mut().for_each(|member| member.reason = Some(text(&reason)));
            }
            let request = LeaveGroupRequest::default().with_group_id(group_id(&group)).with_members(members);
            codec::encode_request(version, &request)
        };
        let mut attempts = self.attempts();
        let told = attempts
            .ask_coordinators::<LeaveGroupRequest, _, _>(
                &How::any(),
                Batch::Single,
                [(group.clone(), ())].into(),
                encode,
                |_, asked, answer| {
                    let whole = verdict(answer.error_code, None);
                    let members = answer.members.iter().map(|told| {
                        let who = MemberIdentity::default()
                            .with_member_id(told.member_id.clone())
                            .with_group_instance_id(told.group_instance_id.clone());
                        (name(&who), verdict(told.error_code, None))
                    });
                    let told: Verdict<BTreeMap<String, Verdict<()>>> = whole.map(|()| members.collect());
                    asked.first().map(|(group, ())| (group.clone(), told)).into_iter().collect()
                },
            )
            .await?;
        let mut told = told.into_values().next().unwrap_or_else(|| Err(Refused::unnamed()))?;
        let gone = [ErrorCode::UNKNOWN_MEMBER_ID];
        for refused in told.values_mut().filter_map(|told| told.as_mut().err()) {
            refused.maybe_done |= attempts.lost && gone.contains(&refused.code);
        }
        Ok(Results::in_order(names, &told))
    }
}

fn name(member: &MemberIdentity) -> String {
    let instance = member.group_instance_id.as_ref().map(StrBytes::as_str).filter(|id| !id.is_empty());
    instance.unwrap_or(member.member_id.as_str()).to_owned()
}
