//! Feature levels.

use klamm_wire::messages::UpdateFeaturesRequest;
use klamm_wire::messages::broker_registration_request::Feature;
use klamm_wire::messages::update_features_request::FeatureUpdateKey;

use super::*;

pub(super) const ELR: &str = "eligible.leader.replicas.version";
const UPGRADE: i8 = 1;
pub(super) const SAFE: i8 = 2;

impl World {
    /// Brokers that know these levels.
    fn with_features() -> Self {
        let mut world = Self::new(&[]);
        for id in 1..=2 {
            let feature = |(name, min, max): &(&'static str, i16, i16)| {
                Feature::default()
                    .with_name(text(name))
                    .with_min_supported_version(*min)
                    .with_max_supported_version(*max)
            };
            let features = crate::controller::SUPPORTED_FEATURES.iter().map(feature).collect();
            let request = world.registration(id).with_features(features);
            world.join_with(&request);
        }
        world
    }

    /// Levels are set, as `kafka-features` does.
    pub(super) fn update(&mut self, updates: &[(&str, i16, i8)], validate_only: bool) -> ErrorCode {
        let update = |(name, level, kind): &(&str, i16, i8)| {
            FeatureUpdateKey::default()
                .with_feature(text(name))
                .with_max_version_level(*level)
                .with_upgrade_type(*kind)
        };
        let request = UpdateFeaturesRequest::default()
            .with_feature_updates(updates.iter().map(update).collect())
            .with_validate_only(validate_only);
        let outcome = self.controller.update_features(&request, 2);
        ErrorCode(self.settle(outcome).error_code)
    }
}

#[test]
fn a_level_goes_up_and_down_as_far_as_everybody_knows_it() {
    let mut world = World::with_features();
    let refused = ErrorCode::INVALID_UPDATE_VERSION;
    assert_eq!(world.update(&[(ELR, 0, UPGRADE)], false), refused, "a downgrade must be asked for");
    assert_eq!(world.update(&[(ELR, 0, SAFE)], true), ErrorCode::NONE);
    assert_eq!(world.reader.features().get(ELR), Some(&1), "only checked");
    assert_eq!(world.update(&[(ELR, 0, SAFE)], false), ErrorCode::NONE);
    assert_eq!(world.reader.features().get(ELR), None);
    assert_eq!(world.update(&[(ELR, 1, SAFE)], false), refused, "that is an upgrade");
    assert_eq!(world.update(&[(ELR, 1, UPGRADE)], false), ErrorCode::NONE);
    for (name, level, kind) in [
        (ELR, 2, UPGRADE),
        (ELR, -1, SAFE),
        (ELR, 1, 9),
        ("share.version", 1, UPGRADE),
        ("metadata.version", 29, SAFE),
    ] {
        assert_eq!(world.update(&[(name, level, kind)], false), refused, "{name} {level} {kind}");
    }
    assert_eq!(world.update(&[(ELR, 0, SAFE), ("metadata.version", 31, UPGRADE)], false), refused);
    assert_eq!(world.reader.features().get(ELR), Some(&1), "all or nothing");
}

#[test]
fn without_the_feature_nobody_outside_the_isr_is_eligible() {
    let mut world = World::with_features();
    assert_eq!(world.update(&[(ELR, 0, SAFE)], false), ErrorCode::NONE);
    let topic = world.create_on("t", &[1, 2], &[("min.insync.replicas", "2")]);
    world.set_isr(topic, &[1]);
    assert_eq!(world.state(topic).2, [] as [i32; 0]);
    let own = (4, "1");
    assert_eq!(world.configure(own, 0, "min.insync.replicas", Some("2")), ErrorCode::NONE);
    assert_eq!(world.update(&[(ELR, 1, UPGRADE)], false), ErrorCode::NONE);
    let broker = crate::metadata::ConfigResource::Broker(Some(1));
    assert!(world.reader.configs(&broker).is_empty(), "the minimum is one for all again");
}

/// Goal: a partition without a leader knows who has its records, although nobody is eligible outside the ISR.
#[test]
fn without_the_feature_the_last_isr_is_remembered_and_leads_when_it_comes_back() {
    let mut world = World::with_features();
    assert_eq!(world.update(&[(ELR, 0, SAFE)], false), ErrorCode::NONE);
    let topic = world.create_on("t", &[1, 2], &[]);
    let leave = |world: &mut World, id| {
        let request = world.heartbeat(id).with_want_fence(true);
        world.beat_with(&request);
    };
    leave(&mut world, 1);
    assert_eq!(world.state(topic).1, [2]);
    leave(&mut world, 2);
    let (leader, isr, ..) = world.state(topic);
    assert_eq!((leader, isr), (None, vec![2]));
    world.beat(1);
    let (leader, isr, ..) = world.state(topic);
    assert_eq!((leader, isr), (None, vec![2]), "1 lacks what 2 may have written alone");
    world.beat(2);
    let (leader, isr, ..) = world.state(topic);
    assert_eq!((leader, isr), (Some(2), vec![2]));
}
