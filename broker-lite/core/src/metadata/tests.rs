use bytes::BytesMut;
use klamm_wire::batch::{NO_HEADERS, NO_PRODUCER};
use klamm_wire::metadata_records::{
    BrokerRegistrationChangeRecord, ConfigRecord, FeatureLevelRecord, NoOpRecord, PartitionChangeRecord,
    PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord, RemoveTopicRecord, TopicRecord,
    UnregisterBrokerRecord,
};
use klamm_wire::{BatchBuilder, BatchHeader, Compression, RawBatch};
use uuid::Uuid;

use super::*;
use crate::quorum::control::{self, Place};

const T: Uuid = Uuid::from_u128(77);

fn image(records: &[MetadataRecord]) -> Image {
    let mut image = Image::default();
    for record in records {
        image.apply(record, &mut Delta::default()).unwrap();
    }
    image
}

fn topic() -> MetadataRecord {
    TopicRecord { name: "t".into(), topic_id: T }.into()
}

fn partition() -> MetadataRecord {
    let replicas = vec![1, 2];
    PartitionRecord {
        partition_id: 0,
        topic_id: T,
        isr: replicas.clone(),
        replicas,
        leader: 1,
        leader_epoch: 4,
        partition_epoch: 9,
        ..PartitionRecord::default()
    }
    .into()
}

fn broker(id: i32, epoch: i64) -> MetadataRecord {
    RegisterBrokerRecord { broker_id: id, broker_epoch: epoch, ..RegisterBrokerRecord::default() }.into()
}

fn written(offset: i64, records: &[MetadataRecord]) -> RawBatch {
    let place = Place { offset, epoch: 1, wall_ms: 0 };
    let (_, bytes) = control::batch(place, records.iter().map(MetadataRecord::encode)).unwrap();
    RawBatch::parse(bytes).unwrap()
}

#[test]
fn a_reader_skips_what_it_knows_and_refuses_a_gap() {
    let batches =
        [written(0, &[topic(), partition()]), written(2, &[RemoveTopicRecord { topic_id: T }.into()])];

    let (mut image, mut delta) = (image(&[topic()]), Delta::default());
    image.apply_batch(&batches[0], &mut delta).unwrap();
    assert_eq!(image.next_offset(), 2, "the topic was known, the partition was not");
    image.apply_batch(&batches[0], &mut delta).unwrap();
    assert_eq!(image.next_offset(), 2, "a batch fetched twice");

    let error = Image::default().apply_batch(&batches[1], &mut delta).unwrap_err();
    assert_eq!(error.to_string(), "metadata record at offset 2: expected offset 0");
}

fn batch_of(value: &[u8], base_offset: i64, attributes: i16) -> RawBatch {
    let mut builder = BatchBuilder::new(BytesMut::new());
    builder.append(0, None, Some(value), NO_HEADERS);
    let sealed = builder.seal(Compression::None, None).unwrap();
    let mut header = BatchHeader::parse(&sealed.header(NO_PRODUCER)).unwrap();
    header.base_offset = base_offset;
    header.attributes |= attributes;
    let unsummed = [&header.encode()[..], sealed.records()].concat();
    header.crc = klamm_wire::crc::crc32c(&unsummed[21..]);
    RawBatch::parse([&header.encode()[..], sealed.records()].concat().into()).unwrap()
}

/// Leader changes of a quorum stand in the log as control batches; they take offsets and say nothing here.
#[test]
fn control_batches_only_move_the_offset() {
    let mut image = Image::default();
    image.apply_batch(&batch_of(b"whatever", 0, 0x20), &mut Delta::default()).unwrap();
    assert_eq!(image, Image { next_offset: 1, ..Image::default() });
}

#[test]
fn a_batch_that_has_changed_on_its_way_is_refused() {
    let mut bytes = batch_of(&MetadataRecord::from(NoOpRecord {}).encode(), 0, 0).bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let damaged = RawBatch::parse(bytes.into()).unwrap();
    let error = Image::default().apply_batch(&damaged, &mut Delta::default()).unwrap_err();
    assert!(error.reason.contains("CRC"), "{error}");
}

#[test]
fn bytes_that_are_no_record_are_refused() {
    let error = Image::default().apply_batch(&batch_of(&[9, 9, 9], 0, 0), &mut Delta::default()).unwrap_err();
    assert_eq!(error.offset, 0);
    assert!(error.reason.contains("frame version 9"), "{error}");
}

/// Goal: a damaged log is noticed, not interpreted; and what was right before it stays.
#[test]
fn a_record_that_does_not_fit_is_refused_and_changes_nothing() {
    let known = image(&[broker(1, 0), topic(), partition()]);
    let change = |id, epoch| BrokerRegistrationChangeRecord {
        broker_id: id,
        broker_epoch: epoch,
        fenced: -1,
        ..BrokerRegistrationChangeRecord::default()
    };
    let nobody = Uuid::from_u128(5);
    let misfits: Vec<MetadataRecord> = vec![
        topic(),
        TopicRecord { name: "other".into(), topic_id: T }.into(),
        TopicRecord { name: "t".into(), topic_id: nobody }.into(),
        PartitionRecord { topic_id: nobody, ..PartitionRecord::default() }.into(),
        PartitionRecord { topic_id: T, leader_recovery_state: 7, ..PartitionRecord::default() }.into(),
        PartitionChangeRecord { topic_id: nobody, partition_id: 0, ..Default::default() }.into(),
        PartitionChangeRecord { topic_id: T, partition_id: 1, ..Default::default() }.into(),
        PartitionChangeRecord {
            topic_id: T,
            partition_id: 0,
            leader_recovery_state: 7,
            ..Default::default()
        }
        .into(),
        RemoveTopicRecord { topic_id: nobody }.into(),
        change(2, 0).into(),
        change(1, 3).into(),
        UnregisterBrokerRecord { broker_id: 1, broker_epoch: 3 }.into(),
        ProducerIdsRecord { next_producer_id: 0, ..Default::default() }.into(),
    ];
    for misfit in misfits {
        let (mut image, mut delta) = (known.clone(), Delta::default());
        let error = image.apply(&misfit, &mut delta).unwrap_err();
        assert_eq!(error.offset, 3, "{misfit:?}");
        assert_eq!(image, known, "{misfit:?}");
        assert!(delta.is_empty(), "{misfit:?}");
    }
}

#[test]
fn a_partition_change_keeps_what_it_does_not_name() {
    let mut image = image(&[topic(), partition()]);
    let mut delta = Delta::default();
    let change =
        PartitionChangeRecord { partition_id: 0, topic_id: T, isr: Some(vec![1]), ..Default::default() };
    image.apply(&change.clone().into(), &mut delta).unwrap();
    let p = image.partition(T, 0).unwrap();
    assert_eq!((p.leader, p.isr.as_slice(), p.leader_epoch, p.partition_epoch), (Some(1), &[1][..], 4, 10));

    let nobody = PartitionChangeRecord { leader: -1, leader_recovery_state: 1, ..change };
    image.apply(&nobody.into(), &mut delta).unwrap();
    let p = image.partition(T, 0).unwrap();
    assert_eq!((p.leader, p.leader_epoch, p.partition_epoch), (None, 5, 11));
    assert_eq!(p.leader_recovery_state, LeaderRecoveryState::Recovering);
    assert_eq!(p.replicas, [1, 2]);
    assert_eq!(delta.partitions.iter().collect::<Vec<_>>(), [&(T, 0)]);
}

#[test]
fn brokers_come_change_and_go() {
    let mut image = image(&[broker(1, 0), broker(2, 1)]);
    let mut delta = Delta::default();
    let change = BrokerRegistrationChangeRecord { broker_id: 1, fenced: -1, ..Default::default() };
    image.apply(&change.clone().into(), &mut delta).unwrap();
    assert_eq!((image.live_epoch(1), image.active_epoch(1), image.live_epoch(2)), (Some(0), Some(0), None));

    let leaving = BrokerRegistrationChangeRecord { fenced: 0, in_controlled_shutdown: 1, ..change };
    image.apply(&leaving.into(), &mut delta).unwrap();
    assert_eq!((image.live_epoch(1), image.active_epoch(1)), (Some(0), None), "alive, but must not lead");

    image.apply(&UnregisterBrokerRecord { broker_id: 2, broker_epoch: 1 }.into(), &mut delta).unwrap();
    assert_eq!(image.brokers().keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(delta.brokers.iter().collect::<Vec<_>>(), [&1, &2]);
}

#[test]
fn settings_are_set_and_taken_back() {
    let mut image = Image::default();
    let mut delta = Delta::default();
    let set = |kind, resource: &str, value: Option<&str>| -> MetadataRecord {
        ConfigRecord {
            resource_type: kind,
            resource_name: resource.into(),
            name: "n".into(),
            value: value.map(str::to_owned),
        }
        .into()
    };
    for (kind, resource) in [(2, "t"), (4, ""), (4, "7"), (8, "7")] {
        image.apply(&set(kind, resource, Some("v")), &mut delta).unwrap();
    }
    let resources = [
        ConfigResource::Topic("t".into()),
        ConfigResource::Broker(None),
        ConfigResource::Broker(Some(7)),
        ConfigResource::Other(8, "7".into()),
    ];
    for resource in &resources {
        assert_eq!(image.configs(resource).get("n").map(String::as_str), Some("v"), "{resource:?}");
    }
    assert_eq!(delta.configs.into_iter().collect::<Vec<_>>(), resources);
    image.apply(&set(2, "t", None), &mut Delta::default()).unwrap();
    assert!(image.configs(&resources[0]).is_empty());
}

#[test]
fn features_follow_the_log_and_level_zero_is_none() {
    let level = |feature_level| FeatureLevelRecord { name: "f".into(), feature_level }.into();
    let with = image(&[level(3)]);
    assert_eq!(with.features().get("f"), Some(&3));
    assert!(image(&[level(3), level(0)]).features().is_empty());
}

#[test]
fn topics_are_listed_by_name_and_a_clone_is_not_changed_with_its_original() {
    let b = TopicRecord { name: "b".into(), topic_id: Uuid::from_u128(1) };
    let a = TopicRecord { name: "a".into(), topic_id: Uuid::from_u128(2) };
    let mut image = image(&[b.into(), a.into(), topic(), partition()]);
    assert_eq!(image.topics().map(|t| t.name.as_ref()).collect::<Vec<_>>(), ["a", "b", "t"]);

    let before = image.clone();
    let change =
        PartitionChangeRecord { partition_id: 0, topic_id: T, isr: Some(vec![1]), ..Default::default() };
    image.apply(&change.into(), &mut Delta::default()).unwrap();
    assert_eq!(before.partition(T, 0).unwrap().isr, [1, 2]);
}
