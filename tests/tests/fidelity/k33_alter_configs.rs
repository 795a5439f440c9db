//! AlterConfigs, which replaces all settings of a thing at once.

use klamm_tests::fidelity::{Case, case, damaged};
use serde_json::{Value, json};

const TOPIC: i8 = 2;

fn alter(name: &str, configs: &[(&str, Value)]) -> Value {
    let configs: Vec<_> =
        configs.iter().map(|(name, value)| json!({ "Name": name, "Value": value })).collect();
    json!({ "Resources": [{ "ResourceType": TOPIC, "ResourceName": name, "Configs": configs }] })
}

pub(crate) fn cases() -> Vec<Case> {
    let tried = |mut body: Value| {
        body["ValidateOnly"] = json!(true);
        body
    };
    let altered = |about: &str| case(33, about);
    vec![
        altered("settings replaced")
            .topic("replaced-{v}", &[&[1]])
            .ask(alter("replaced-{v}", &[("retention.ms", json!("5"))]))
            .ask(alter("replaced-{v}", &[("cleanup.policy", json!("compact"))])),
        altered("values that cannot be")
            .ask(tried(alter("orders", &[("retention.ms", json!("soon"))])))
            .ask(tried(alter("orders", &[("retention.ms", json!(null))])))
            .ask(tried(alter("orders", &[("no.such.setting", json!("1"))]))),
        altered("an unknown topic").ask(alter("unheard-of", &[("retention.ms", json!("5"))])),
        altered("nothing").ask(json!({ "Resources": [] })),
        damaged(33, tried(alter("orders", &[("retention.ms", json!("5"))]))),
    ]
}
