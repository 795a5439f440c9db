//! Which version of each api to speak with one broker.
//!
//! In: the broker's answer to ApiVersions. Out: a [`VersionTable`], or the version to ask again with.
//!
//! ```text
//! ask ApiVersions 4 ──▶ answer 4 ─────────────────────────────▶ table
//!                  └──▶ UNSUPPORTED_VERSION, laid out as v0 ──▶ ask again in the version it names, or 0
//! ```

use std::collections::BTreeMap;

use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::Request;

use crate::codec::{self, CodecError};
use crate::error_code::ErrorCode;
use crate::seam::Frame;

/// Versions from `min` to `max`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// Lowest.
    pub min: i16,
    /// Highest.
    pub max: i16,
}

impl std::fmt::Display for VersionRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// Why two sides cannot talk about something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// This client has no use for the api.
    #[error("{api} is not implemented by this client")]
    NotImplemented {
        /// Name of the api.
        api: ApiName,
    },
    /// The broker does not offer the api.
    #[error("the broker does not offer {api}")]
    NotOffered {
        /// Name of the api.
        api: ApiName,
    },
    /// The broker offers the api only in versions unknown here.
    #[error("the broker speaks {api} in versions {theirs}, this client in {ours}")]
    NoCommonVersion {
        /// Name of the api.
        api: ApiName,
        /// What the broker offers.
        theirs: VersionRange,
        /// What this client implements.
        ours: VersionRange,
    },
    /// The broker refused ApiVersions itself.
    #[error("the broker refused ApiVersions: {0}")]
    Refused(ErrorCode),
    /// The answer cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// An api key that prints as its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiName(pub i16);

/// Version that ApiVersions is asked in first.
pub const API_VERSIONS_FIRST: i16 = 4;

/// Versions this client implements, by api key: (key, lowest, highest).
pub const CLIENT_RANGES: &[(i16, i16, i16)] = &[
    (0, 3, 13),
    (1, 4, 18),
    (2, 1, 11),
    (3, 0, 13),
    (8, 7, 9),
    (9, 6, 9),
    (10, 1, 6),
    (11, 5, 9),
    (12, 3, 4),
    (13, 3, 5),
    (14, 3, 5),
    (15, 0, 6),
    (16, 0, 5),
    (18, 0, 4),
    (19, 2, 7),
    (20, 1, 6),
    (21, 0, 2),
    (22, 0, 5),
    (23, 2, 4),
    (32, 1, 4),
    (35, 1, 4),
    (37, 0, 3),
    (42, 0, 2),
    (43, 1, 2),
    (44, 0, 1),
    (45, 0, 1),
    (46, 0, 0),
    (47, 0, 0),
    (55, 0, 2),
    (57, 0, 2),
    (60, 0, 2),
    (61, 0, 0),
    (64, 0, 0),
    (69, 0, 1),
    (75, 0, 0),
];

/// What one broker speaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionTable {
    ranges: BTreeMap<i16, VersionRange>,
    features: BTreeMap<String, i16>,
    features_epoch: Option<i64>,
}

/// What became of a request for ApiVersions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiVersionsAnswer {
    /// Done.
    Table(VersionTable),
    /// The broker does not know the version asked in: ask in this one.
    AskAgain(i16),
}

/// Reads the answer to a request for ApiVersions; `frame.api_version` is the version asked in.
///
/// # Errors
///
/// Returns [`NegotiationError`] if the answer cannot be read or is another error than UNSUPPORTED_VERSION.
pub fn read_api_versions(frame: Frame) -> Result<ApiVersionsAnswer, NegotiationError> {
    let asked = frame.api_version;
    if asked > 0 && leading_error(&frame) == Some(ErrorCode::UNSUPPORTED_VERSION) {
        return Ok(ApiVersionsAnswer::AskAgain(version_to_ask(asked, frame)));
    }
    let response = codec::decode_response::<ApiVersionsRequest>(frame)?;
    ErrorCode(response.error_code).ok().map_err(NegotiationError::Refused)?;
    Ok(ApiVersionsAnswer::Table(VersionTable::from_response(&response)))
}

/// The error code that every version of the answer starts with.
fn leading_error(frame: &Frame) -> Option<ErrorCode> {
    let mut bytes = frame.body.iter().flatten().copied();
    Some(ErrorCode(i16::from_be_bytes([bytes.next()?, bytes.next()?])))
}

/// A broker that does not know the version asked in answers in version 0 (KIP-511); if it lists
/// ApiVersions there, that is the version to use next, else version 0 is. Always lower than `asked`.
fn version_to_ask(asked: i16, mut refusal: Frame) -> i16 {
    refusal.api_version = 0;
    let listed = codec::decode_response::<ApiVersionsRequest>(refusal).ok().and_then(|response| {
        let mut keys = response.api_keys.iter();
        keys.find(|api| api.api_key == ApiVersionsRequest::KEY).map(|api| api.max_version)
    });
    listed.filter(|version| (0..asked).contains(version)).unwrap_or(0)
}

impl VersionTable {
    /// The table of an answer without error.
    pub fn from_response(response: &ApiVersionsResponse) -> Self {
        let range = |min, max| (min <= max).then_some(VersionRange { min, max });
        let ranges = response
            .api_keys
            .iter()
            .filter_map(|api| Some((api.api_key, range(api.min_version, api.max_version)?)));
        let features_epoch = Some(response.finalized_features_epoch).filter(|epoch| *epoch >= 0);
        let finalized = response.finalized_features.iter().filter(|_| features_epoch.is_some());
        Self {
            ranges: ranges.collect(),
            features: finalized
                .map(|feature| (feature.name.to_string(), feature.max_version_level))
                .collect(),
            features_epoch,
        }
    }

    /// A table that offers exactly these (key, lowest, highest).
    pub fn from_ranges(ranges: &[(i16, i16, i16)]) -> Self {
        let ranges = ranges.iter().map(|&(key, min, max)| (key, VersionRange { min, max })).collect();
        Self { ranges, ..Self::default() }
    }

    /// The highest version that both sides speak.
    ///
    /// # Errors
    ///
    /// Returns [`NegotiationError`] naming the api and both ranges if there is none.
    pub fn pick(&self, api_key: i16) -> Result<i16, NegotiationError> {
        let api = ApiName(api_key);
        let &(_, min, max) = CLIENT_RANGES
            .iter()
            .find(|(key, ..)| *key == api_key)
            .ok_or(NegotiationError::NotImplemented { api })?;
        let theirs = self.range(api_key).ok_or(NegotiationError::NotOffered { api })?;
        let highest = max.min(theirs.max);
        if highest < min.max(theirs.min) {
            return Err(NegotiationError::NoCommonVersion { api, theirs, ours: VersionRange { min, max } });
        }
        Ok(highest)
    }

    /// What the broker offers for an api.
    pub fn range(&self, api_key: i16) -> Option<VersionRange> {
        self.ranges.get(&api_key).copied()
    }

    /// Every range the broker offers, by api key.
    pub fn ranges(&self) -> impl Iterator<Item = (i16, VersionRange)> + '_ {
        self.ranges.iter().map(|(&key, &range)| (key, range))
    }

    /// Finalized level of a feature of the cluster, such as `transaction.version`; `None` if unknown.
    pub fn finalized_feature(&self, name: &str) -> Option<i16> {
        self.features.get(name).copied()
    }

    /// Epoch of the finalized features; `None` if the broker does not know it.
    pub fn features_epoch(&self) -> Option<i64> {
        self.features_epoch
    }
}

impl std::fmt::Display for ApiName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match kafka_protocol::messages::ApiKey::try_from(self.0) {
            Ok(key) => write!(f, "{key:?}"),
            Err(()) => write!(f, "api key {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey};

    use super::*;
    use crate::codec::encode_response;

    fn api(key: i16, min: i16, max: i16) -> ApiVersion {
        ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
    }

    fn refusal(keys: Vec<ApiVersion>, asked: i16) -> Frame {
        let response = ApiVersionsResponse::default()
            .with_error_code(ErrorCode::UNSUPPORTED_VERSION.0)
            .with_api_keys(keys);
        let mut frame = encode_response::<ApiVersionsRequest>(0, &response).unwrap();
        frame.api_version = asked;
        frame
    }

    #[test]
    fn the_highest_common_version_is_picked() {
        let table = VersionTable::from_ranges(&[(0, 0, 13), (1, 4, 99), (3, 0, 8)]);
        assert_eq!(table.pick(0), Ok(13));
        assert_eq!(table.pick(1), Ok(18));
        assert_eq!(table.pick(3), Ok(8));
    }

    #[test]
    fn no_common_version_names_the_api_and_both_ranges() {
        let table = VersionTable::from_ranges(&[(0, 0, 2), (1, 50, 60)]);
        let error = table.pick(0).unwrap_err().to_string();
        assert_eq!(error, "the broker speaks Produce in versions 0-2, this client in 3-13");
        assert!(matches!(table.pick(1), Err(NegotiationError::NoCommonVersion { .. })));
        assert_eq!(table.pick(3).unwrap_err().to_string(), "the broker does not offer Metadata");
        let none = table.pick(52).unwrap_err().to_string();
        assert_eq!(none, "Vote is not implemented by this client");
    }

    /// Goal: a broker that knows only ApiVersions 0 to 2 is asked again in 2 (KIP-511).
    #[test]
    fn a_refusal_in_version_0_names_the_version_to_ask_again_with() {
        let answer = read_api_versions(refusal(vec![api(3, 0, 9), api(18, 0, 2)], 4));
        assert_eq!(answer, Ok(ApiVersionsAnswer::AskAgain(2)));
    }

    #[test]
    fn a_refusal_that_does_not_say_what_is_known_leads_to_version_0() {
        assert_eq!(read_api_versions(refusal(vec![], 4)), Ok(ApiVersionsAnswer::AskAgain(0)));
        let code_only = Frame::new(18, 4, Bytes::from_static(&[0, 35]));
        assert_eq!(read_api_versions(code_only), Ok(ApiVersionsAnswer::AskAgain(0)));
        // Asking in 4 again would never end.
        assert_eq!(read_api_versions(refusal(vec![api(18, 0, 4)], 4)), Ok(ApiVersionsAnswer::AskAgain(0)));
    }

    /// Goal: asking again fits versions without room for the client's name.
    #[test]
    fn the_same_request_can_be_asked_in_every_version() {
        let request = ApiVersionsRequest::default().with_client_software_name("klamm".into());
        for version in 0..=API_VERSIONS_FIRST {
            let frame = codec::encode_request(version, &request).unwrap();
            assert_eq!(frame.len_bytes() > 0, version >= 3);
        }
    }

    #[test]
    fn a_refusal_of_version_0_is_final() {
        let unsupported = NegotiationError::Refused(ErrorCode::UNSUPPORTED_VERSION);
        assert_eq!(read_api_versions(refusal(vec![], 0)), Err(unsupported));
    }

    #[test]
    fn finalized_features_count_only_with_an_epoch() {
        let feature = FinalizedFeatureKey::default().with_name("transaction.version".into());
        let response = ApiVersionsResponse::default()
            .with_api_keys(vec![api(0, 0, 13), api(1, 9, 3)])
            .with_finalized_features(vec![feature.with_max_version_level(2).with_min_version_level(2)]);
        let known = response.clone().with_finalized_features_epoch(7);
        let frame = encode_response::<ApiVersionsRequest>(4, &known).unwrap();
        let Ok(ApiVersionsAnswer::Table(table)) = read_api_versions(frame) else { panic!("no table") };
        assert_eq!(table.finalized_feature("transaction.version"), Some(2));
        assert_eq!((table.features_epoch(), table.range(1)), (Some(7), None));

        let unknown = VersionTable::from_response(&response.with_finalized_features_epoch(-1));
        assert_eq!(unknown.finalized_feature("transaction.version"), None);
    }

    #[test]
    fn client_ranges_are_within_kafkas() {
        for &(key, min, max) in CLIENT_RANGES {
            let (low, high) = crate::schema::versions(crate::schema::Kind::Request, key).unwrap();
            assert!(low <= min && max <= high, "{}", ApiName(key));
        }
    }
}
