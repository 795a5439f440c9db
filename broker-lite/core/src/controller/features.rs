//! Feature levels: what a new cluster begins with, and UpdateFeatures (57).

use std::collections::BTreeMap;

use klamm_wire::messages::update_features_response::UpdatableFeatureResult;
use klamm_wire::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use klamm_wire::metadata_records::{ConfigRecord, FeatureLevelRecord};
use klamm_wire::{ErrorCode, StrBytes};

use super::{Controller, Outcome, Refusal};
use crate::metadata::ConfigResource;

/// Format of the metadata records.
const METADATA_VERSION: &str = "metadata.version";
/// Eligible leader replicas (KIP-966).
pub(super) const ELR: &str = "eligible.leader.replicas.version";

/// Name, lowest and highest level of each feature that this controller can work with. `metadata.version` is that of
/// Apache Kafka 4.3.0 (4.3-IV0), whose record formats are written.
pub const SUPPORTED: &[(&str, i16, i16)] = &[(METADATA_VERSION, 7, 30), (ELR, 0, 1)];

/// Levels of a new cluster.
pub(super) const FIRST: &[(&str, i16)] = &[(METADATA_VERSION, 30), (ELR, 1)];

/// Levels of `metadata.version` that changed the format of records, and so cannot be gone back behind.
const FORMAT_CHANGES: &[i16] = &[8, 11, 13, 14, 15, 17, 23, 30];

const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

const MIN_INSYNC: &str = "min.insync.replicas";

impl Controller {
    /// UpdateFeatures (57), versions 0 to 2: all of the request, or nothing of it.
    ///
    /// `INVALID_UPDATE_VERSION`: a broker or this controller does not know the level, or it is lower than now and no
    /// downgrade is asked for, or going back would lose metadata.
    pub fn update_features(
        &mut self,
        request: &UpdateFeaturesRequest,
        version: i16,
    ) -> Outcome<UpdateFeaturesResponse> {
        let mut updates = BTreeMap::new();
        for update in &request.feature_updates {
            let kind = match version {
                0 if update.allow_downgrade => SAFE_DOWNGRADE,
                0 => UPGRADE,
                _ => update.upgrade_type,
            };
            updates.insert(update.feature.as_str(), (update.max_version_level, kind));
        }
        let checked =
            updates.iter().try_for_each(|(name, (level, kind))| self.check_level(name, *level, *kind));
        let response = UpdateFeaturesResponse::default();
        if let Err(Refusal(code, reason)) = checked {
            let reason = format!("nothing was updated: {reason}");
            let reason = Some(StrBytes::from_string(reason));
            return self.outcome(response.with_error_code(code.0).with_error_message(reason));
        }
        if !request.validate_only {
            for (name, (level, _)) in &updates {
                self.emit(FeatureLevelRecord { name: (*name).to_owned(), feature_level: *level });
            }
            if updates.get(ELR).is_some_and(|(level, _)| *level > 0) {
                self.settle_min_insync();
            }
        }
        let done = request.feature_updates.iter().map(|update| {
            UpdatableFeatureResult::default().with_feature(update.feature.clone()).with_error_message(None)
        });
        let results = if version <= 1 { done.collect() } else { Vec::new() };
        self.outcome(response.with_error_message(None).with_results(results))
    }

    fn check_level(&self, name: &str, level: i16, kind: i8) -> Result<(), Refusal> {
        let refuse = |reason: String| {
            let reason = format!("level {level} of {name}: {reason}");
            Err(Refusal(ErrorCode::INVALID_UPDATE_VERSION, reason))
        };
        let current = self.image.features().get(name).copied().unwrap_or(0);
        if !(UPGRADE..=UNSAFE_DOWNGRADE).contains(&kind) {
            return refuse(format!("upgrade type {kind} is not known"));
        }
        if level < 0 {
            return refuse("a level is at least 0".to_owned());
        }
        let outside = |(low, high): (i16, i16)| !(low..=high).contains(&level);
        let own =
            SUPPORTED.iter().find(|(known, _, _)| *known == name).map_or((0, 0), |known| (known.1, known.2));
        if outside(own) {
            return refuse(match own {
                (_, 0) => "the controller does not have this feature".to_owned(),
                (low, high) => format!("the controller knows levels {low} to {high}"),
            });
        }
        for broker in self.image.brokers().values() {
            let (low, high) = broker.features.get(name).copied().unwrap_or((0, 0));
            if outside((low, high)) {
                return refuse(format!("broker {} knows levels {low} to {high}", broker.id));
            }
        }
        if level < current && kind == UPGRADE {
            return refuse(format!("is lower than {current} now, and no downgrade is asked for"));
        }
        if level > current && kind != UPGRADE {
            return refuse(format!("is higher than {current} now, and a downgrade is asked for"));
        }
        let loses = FORMAT_CHANGES.iter().any(|change| level < *change && *change <= current);
        if name == METADATA_VERSION && loses {
            return refuse(format!("going back from {current} would lose metadata"));
        }
        Ok(())
    }

    /// Makes `min.insync.replicas` one value for all brokers, which eligible leader replicas rely on: who counts as
    /// eligible is decided by it at the controller, and the high watermark moves by it at the brokers.
    pub(super) fn settle_min_insync(&mut self) {
        let record = |resource_name: String, value: Option<String>| ConfigRecord {
            resource_type: ConfigResource::BROKER,
            resource_name,
            name: MIN_INSYNC.to_owned(),
            value,
        };
        if !self.image.configs(&ConfigResource::Broker(None)).contains_key(MIN_INSYNC) {
            let value = self.given.get(MIN_INSYNC).unwrap_or("1").to_owned();
            self.emit(record(String::new(), Some(value)));
        }
        let own = |id: &i32| self.image.configs(&ConfigResource::Broker(Some(*id))).contains_key(MIN_INSYNC);
        let brokers: Vec<i32> = self.image.brokers().keys().copied().filter(own).collect();
        for id in brokers {
            self.emit(record(id.to_string(), None));
        }
    }
}
