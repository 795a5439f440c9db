//! ApiVersions (18): versions 0 to 4, and the answer in version 0 to any other.

use std::collections::BTreeMap;

use klamm_wire::codec::decode_request;
use klamm_wire::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use klamm_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use klamm_wire::seam::Frame;
use klamm_wire::{ErrorCode, StrBytes};

use super::{Advertised, Handled, now};
use crate::broker::FEATURES;

/// Key of this API.
pub(super) const KEY: i16 = 18;
/// First version with the client's name in the request and features in the answer.
const FLEXIBLE: i16 = 3;
/// First version whose clients can read a feature with minimum 0 (KAFKA-17011).
const MIN_LEVEL_ZERO: i16 = 4;

/// Tells what is offered.
pub(super) fn handle(
    table: &[Advertised],
    frame: Frame,
    finalized: &BTreeMap<String, i16>,
    finalized_at: i64,
) -> Handled {
    let version = frame.api_version;
    let Some(own) = table.iter().find(|entry| entry.api_key == KEY) else {
        return Err(super::Refusal::NotOffered { api_key: KEY, version });
    };
    if !(own.min..=own.max).contains(&version) {
        let code = ErrorCode::UNSUPPORTED_VERSION;
        let hint = ApiVersionsResponse::default().with_error_code(code.0).with_api_keys(vec![entry(own)]);
        return now::<ApiVersionsRequest>(0, &hint);
    }
    let request = decode_request::<ApiVersionsRequest>(frame)?;
    let named = is_name(&request.client_software_name) && is_name(&request.client_software_version);
    if version >= FLEXIBLE && !named {
        let refused = ApiVersionsResponse::default().with_error_code(ErrorCode::INVALID_REQUEST.0);
        return now::<ApiVersionsRequest>(version, &refused);
    }
    let mut response = ApiVersionsResponse::default().with_api_keys(table.iter().map(entry).collect());
    if version >= FLEXIBLE {
        add_features(version, &mut response, finalized, finalized_at);
    }
    now::<ApiVersionsRequest>(version, &response)
}

fn entry(entry: &Advertised) -> ApiVersion {
    ApiVersion::default().with_api_key(entry.api_key).with_min_version(entry.min).with_max_version(entry.max)
}

fn add_features(
    version: i16,
    response: &mut ApiVersionsResponse,
    finalized: &BTreeMap<String, i16>,
    finalized_at: i64,
) {
    let supported = FEATURES.iter().filter(|(_, min, _)| version >= MIN_LEVEL_ZERO || *min > 0);
    response.supported_features = supported
        .map(|&(name, min, max)| {
            SupportedFeatureKey::default()
                .with_name(StrBytes::from_static_str(name))
                .with_min_version(min)
                .with_max_version(max)
        })
        .collect();
    response.finalized_features_epoch = finalized_at;
    response.finalized_features = finalized
        .iter()
        .filter(|(_, level)| **level > 0)
        .map(|(name, level)| {
            FinalizedFeatureKey::default()
                .with_name(super::text(name))
                .with_max_version_level(*level)
                .with_min_version_level(*level)
        })
        .collect();
}

/// Kafka's rule for the name and version of a client: letters, digits, `.` and `-`, and no `.` or `-` at the ends.
fn is_name(name: &str) -> bool {
    let ends = [name.bytes().next(), name.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_name_follows_kafkas_rule() {
        for good in ["a", "klamm", "apache-kafka-java", "4.3.0", "v1.2-rc.1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "ä", "a_b"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
