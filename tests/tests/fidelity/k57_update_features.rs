//! UpdateFeatures, tried only.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    let update = |feature: &str, level: i16, kind: i8| {
        json!({ "timeoutMs": 1000, "ValidateOnly": true,
            "FeatureUpdates": [{ "Feature": feature, "MaxVersionLevel": level, "UpgradeType": kind }] })
    };
    let updates = |about: &str| case(57, about).versions(1..=2);
    vec![
        updates("the level that it has").ask(update("metadata.version", 30, 1)),
        updates("a level that is too high").ask(update("metadata.version", 99, 1)),
        updates("a lower level").ask(update("metadata.version", 25, 1)).ask(update(
            "metadata.version",
            25,
            2,
        )),
        updates("a level below the lowest").ask(update("metadata.version", 1, 3)),
        updates("a feature that nobody knows").ask(update("no.such.feature", 1, 1)),
        updates("a feature without a name").ask(update("", 1, 1)),
        updates("levels that cannot be").ask(update("metadata.version", -1, 1)).ask(update(
            "metadata.version",
            0,
            3,
        )),
        updates("a kind that is none").ask(update("metadata.version", 30, 0)).ask(update(
            "metadata.version",
            30,
            9,
        )),
        updates("nothing").ask(json!({ "timeoutMs": 1000, "FeatureUpdates": [] })),
        damaged(57, update("no.such.feature", 1, 1)),
    ]
}
