//! Features of the cluster and their levels (KIP-584).

use std::collections::BTreeMap;

use klamm_wire::messages::update_features_request::FeatureUpdateKey;
use klamm_wire::messages::{ApiVersionsRequest, ApiVersionsResponse, UpdateFeaturesRequest};
use klamm_wire::{StrBytes, codec};

use super::Admin;
use super::call::{How, text, verdict};
use super::error::AdminError;
use super::results::{FeatureResults, Results};

/// Which features a broker supports, and at which levels the cluster runs them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// Levels that the broker that was asked supports, by name.
    pub supported: BTreeMap<String, FeatureLevels>,
    /// Levels that all brokers have to support now, by name.
    pub finalized: BTreeMap<String, FinalizedFeature>,
    /// Grows with every change of the finalized ones; `None` if the broker does not know it.
    pub epoch: Option<i64>,
}

/// Levels from `min` to `max`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FeatureLevels {
    /// Lowest.
    pub min: i16,
    /// Highest.
    pub max: i16,
}

/// A feature that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FinalizedFeature {
    /// The level in use.
    pub level: i16,
}

/// A feature that shall have another level.
///
/// ```
/// use klamm::FeatureUpdate;
///
/// let (up, down) = (FeatureUpdate::upgrade("group.version", 1), FeatureUpdate::downgrade("group.version", 0));
/// # let _ = (up, down);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdate {
    feature: String,
    level: i16,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Upgrade = 1,
    SafeDowngrade = 2,
    UnsafeDowngrade = 3,
}

impl FeatureUpdate {
    /// To a higher level.
    pub fn upgrade(feature: impl Into<String>, level: i16) -> Self {
        Self { feature: feature.into(), level, kind: Kind::Upgrade }
    }

    /// To a lower level, 0 to switch it off, if nothing is lost by that.
    pub fn downgrade(feature: impl Into<String>, level: i16) -> Self {
        Self { feature: feature.into(), level, kind: Kind::SafeDowngrade }
    }

    /// To a lower level, 0 to switch it off. **What the lower level cannot express is lost.**
    pub fn downgrade_with_loss(feature: impl Into<String>, level: i16) -> Self {
        Self { feature: feature.into(), level, kind: Kind::UnsafeDowngrade }
    }

    fn request(&self, version: i16) -> FeatureUpdateKey {
        let key =
            FeatureUpdateKey::default().with_feature(text(&self.feature)).with_max_version_level(self.level);
        match version {
            0 => key.with_allow_downgrade(self.kind != Kind::Upgrade),
            _ => key.with_upgrade_type(self.kind as i8),
        }
    }
}

impl Admin {
    /// Describes the features of the cluster.
    ///
    /// ApiVersions, api key 18, to any broker.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time, or the broker refuses.
    pub async fn describe_features(&self) -> Result<Features, AdminError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("klamm"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let encode = |version| codec::encode_request(version, &request);
        let how = How { needs: Some((3, "describing features")), ..How::any() };
        let answer = self
            .attempts()
            .ask_whole::<ApiVersionsRequest>(&how, &encode, |answer| verdict(answer.error_code, None))
            .await?;
        Ok(read(&answer))
    }

    /// Changes the levels of features; returns when the controller has done so.
    ///
    /// UpdateFeatures, api key 57, to the controller.
    ///
    /// # Errors
    ///
    /// Returns [`AdminError`] if there is no answer in time, or if the controller refuses all of it: from version 2 on all
    /// are changed, or none. With an older one, what was refused is an error in the results.
    pub async fn update_features(
        &self,
        updates: impl IntoIterator<Item = FeatureUpdate>,
    ) -> Result<FeatureResults<()>, AdminError> {
        let wanted: Vec<_> = updates.into_iter().map(|update| (update.feature.clone(), update)).collect();
        let names: Vec<_> = wanted.iter().map(|(name, _)| name.clone()).collect();
        let lossy = wanted.iter().any(|(_, update)| update.kind == Kind::UnsafeDowngrade);
        let needs = match (self.validate_only, lossy) {
            (true, _) => Some((1, "validating without doing")),
            (_, true) => Some((1, "a downgrade with loss")),
            _ => None,
        };
        let how = How { needs, ..How::controller() };
        let encode = |version, wanted: &[(String, FeatureUpdate)]| {
            let request = UpdateFeaturesRequest::default()
                .with_feature_updates(wanted.iter().map(|(_, update)| update.request(version)).collect())
                .with_validate_only(self.validate_only)
                .with_timeout_ms(self.timeout_ms());
            codec::encode_request(version, &request)
        };
        let all = names.clone();
        let told = self
            .attempts()
            .ask_each::<UpdateFeaturesRequest, _, _, _>(&how, wanted, encode, |response| {
                verdict(response.error_code, response.error_message.as_ref())?;
                if response.results.is_empty() {
                    // From version 2 on there is one answer for all.
                    return Ok(all.iter().map(|name| (name.clone(), Ok(()))).collect());
                }
                let told = response.results.into_iter().map(|result| {
                    let verdict = verdict(result.error_code, result.error_message.as_ref());
                    (result.feature.as_str().to_owned(), verdict)
                });
                Ok(told.collect())
            })
            .await?;
        Ok(Results::in_order(names, &told))
    }
}

fn read(answer: &ApiVersionsResponse) -> Features {
    let name = |name: &StrBytes| name.as_str().to_owned();
    let supported = answer.supported_features.iter().map(|feature| {
        (name(&feature.name), FeatureLevels { min: feature.min_version, max: feature.max_version })
    });
    let epoch = Some(answer.finalized_features_epoch).filter(|epoch| *epoch >= 0);
    let finalized = answer.finalized_features.iter().filter(|_| epoch.is_some());
    let finalized =
        finalized.map(|feature| (name(&feature.name), FinalizedFeature { level: feature.max_version_level }));
    Features { supported: supported.collect(), finalized: finalized.collect(), epoch }
}
