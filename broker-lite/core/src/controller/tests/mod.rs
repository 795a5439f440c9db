//! A cluster as the controller sees it: every outcome goes through a real log into a second image.

mod alter_configs;
mod alter_partition;
mod brokers;
mod elections;
mod features;
mod properties;
mod reassigning;
mod topics;

use klamm_wire::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use klamm_wire::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use klamm_wire::messages::alter_partition_response::PartitionData as Altered;
use klamm_wire::messages::broker_registration_request::{Feature, Listener};
use klamm_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use klamm_wire::messages::elect_leaders_request::TopicPartitions;
use klamm_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use klamm_wire::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionRequest, BrokerHeartbeatRequest,
    BrokerHeartbeatResponse, BrokerId, BrokerRegistrationRequest, BrokerRegistrationResponse,
    CreateTopicsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest, TopicName,
};
use klamm_wire::{ErrorCode, RawBatch, StrBytes};
use uuid::Uuid;

use super::{Controller, Outcome};
use crate::Tick;
use crate::config::BrokerConfig;
use crate::metadata::{
    Checkpoint, ConfigResource, Delta, Image, MetadataRecord, PartitionRegistration, RemovedTopic,
};
use crate::quorum::SnapshotId;
use crate::quorum::control::{self, Place};

const MS: Tick = Tick::from_millis(1);
const SESSION: Tick = Tick::from_secs(9);

struct World {
    controller: Controller,
    /// Where the log ends.
    end: i64,
    /// What a broker knows that reads the log.
    reader: Image,
    delta: Delta,
    now: Tick,
    incarnations: u128,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

fn brokers(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn with_epochs(members: &[(i32, i64)]) -> Vec<BrokerState> {
    let state = |(id, epoch): &(i32, i64)| {
        BrokerState::default().with_broker_id(BrokerId(*id)).with_broker_epoch(*epoch)
    };
    members.iter().map(state).collect()
}

impl World {
    fn new(settings: &[(&str, &str)]) -> Self {
        let mut config = BrokerConfig::new();
        for (name, value) in settings {
            config.set(name, value).unwrap();
        }
        let rng = fastrand::Rng::with_seed(7);
        let controller = Controller::new(Tick::ZERO, "cluster", config, Image::default(), rng);
        let mut world = Self {
            controller,
            end: 0,
            reader: Image::default(),
            delta: Delta::default(),
            now: Tick::ZERO,
            incarnations: 0,
        };
        let outcome = world.controller.bootstrap();
        world.settle(outcome);
        world
    }

    /// Brokers 1 to `n`, unfenced.
    fn with_brokers(n: i32, settings: &[(&str, &str)]) -> Self {
        let mut world = Self::new(settings);
        for id in 1..=n {
            world.join(id);
        }
        world
    }

    /// Commits an outcome, lets the reader follow, and compares the two images.
    fn settle<R>(&mut self, outcome: Outcome<R>) -> R {
        let before = self.reader.clone();
        if !outcome.records.is_empty() {
            let place = Place { offset: self.end, epoch: 1, wall_ms: 0 };
            let batch = control::batch(place, outcome.records.iter().map(MetadataRecord::encode));
            let (header, bytes) = batch.unwrap();
            self.end = header.next_offset();
            self.reader.apply_batch(&RawBatch::parse(bytes).unwrap(), &mut self.delta).unwrap();
        }
        assert_eq!(outcome.commit_at, self.end, "the controller's offsets are the log's");
        assert_eq!(&self.reader, self.controller.image(), "a reader of the log knows the same");
        self.check_snapshot(&before);
        outcome.response
    }

    /// Goal: who catches up by a snapshot knows what a reader of the log knows, and acts on as much.
    fn check_snapshot(&self, before: &Image) {
        let id = SnapshotId { end_offset: self.end, epoch: 1 };
        let loaded = Checkpoint::read(id, &Checkpoint::write(id, &self.reader, 0).unwrap()).unwrap();
        assert_eq!(loaded, self.reader, "a snapshot holds everything");
        let between = Delta::between(before, &loaded);
        assert!(between.partitions.is_subset(&self.delta.partitions), "{between:?}");
        assert!(between.brokers.is_subset(&self.delta.brokers), "{between:?}");
        assert!(between.removed_topics.iter().all(|gone| self.delta.removed_topics.contains(gone)));
        let of_removed = |resource: &&ConfigResource| {
            let removed = |gone: &RemovedTopic| **resource == ConfigResource::Topic(gone.name.to_string());
            between.removed_topics.iter().any(removed)
        };
        let mut configs = between.configs.iter().filter(|resource| !of_removed(resource));
        assert!(configs.all(|resource| self.delta.configs.contains(resource)), "{between:?}");
        // What is the same before and after is no change, so apart from that nothing may be missing.
        for (topic, number) in self.delta.partitions.iter().filter(|key| !between.partitions.contains(key)) {
            assert_eq!(before.partition(*topic, *number), self.reader.partition(*topic, *number));
        }
        for broker in self.delta.brokers.difference(&between.brokers) {
            assert_eq!(before.broker(*broker), self.reader.broker(*broker));
        }
    }

    fn registration(&mut self, id: i32) -> BrokerRegistrationRequest {
        self.incarnations += 1;
        let listener = Listener::default().with_name(text("PLAINTEXT")).with_host(text("b")).with_port(9092);
        let level = Feature::default().with_name(text("metadata.version"));
        BrokerRegistrationRequest::default()
            .with_features(vec![level.with_min_supported_version(7).with_max_supported_version(30)])
            .with_broker_id(BrokerId(id))
            .with_cluster_id(text("cluster"))
            .with_incarnation_id(Uuid::from_u128(self.incarnations))
            .with_rack(Some(text(&format!("RACK{id}"))))
            .with_listeners(vec![listener])
            .with_log_dirs(vec![Uuid::from_u128(1000 + u128::from(id.unsigned_abs()))])
            .with_previous_broker_epoch(-1)
    }

    fn register(&mut self, request: &BrokerRegistrationRequest) -> BrokerRegistrationResponse {
        let outcome = self.controller.register_broker(self.now, request);
        self.settle(outcome)
    }

    /// Registers a new incarnation, which has died uncleanly if there was one before, and unfences it.
    fn join(&mut self, id: i32) -> i64 {
        let request = self.registration(id);
        self.join_with(&request)
    }

    fn join_with(&mut self, request: &BrokerRegistrationRequest) -> i64 {
        let response = self.register(request);
        assert_eq!(ErrorCode(response.error_code), ErrorCode::NONE);
        let answer = self.beat(request.broker_id.0);
        assert!(!answer.is_fenced);
        response.broker_epoch
    }

    fn epoch(&self, id: i32) -> i64 {
        self.controller.image().broker(id).map_or(-1, |broker| broker.epoch)
    }

    fn beat_with(&mut self, request: &BrokerHeartbeatRequest) -> BrokerHeartbeatResponse {
        let outcome = self.controller.heartbeat(self.now, request);
        self.settle(outcome)
    }

    fn heartbeat(&self, id: i32) -> BrokerHeartbeatRequest {
        BrokerHeartbeatRequest::default()
            .with_broker_id(BrokerId(id))
            .with_broker_epoch(self.epoch(id))
            .with_current_metadata_offset(self.reader.next_offset() - 1)
    }

    fn beat(&mut self, id: i32) -> BrokerHeartbeatResponse {
        let request = self.heartbeat(id);
        self.beat_with(&request)
    }

    /// Lets time pass in which only these brokers report.
    fn silence_all_but(&mut self, alive: &[i32]) {
        self.now += SESSION - MS;
        for id in alive {
            self.beat(*id);
        }
        self.now += MS;
        let outcome = self.controller.on_deadline(self.now);
        self.settle(outcome);
    }

    fn create_with(&mut self, topic: CreatableTopic) -> klamm_wire::messages::CreateTopicsResponse {
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        let outcome = self.controller.create_topics(&request);
        self.settle(outcome)
    }

    /// A topic with one partition on these brokers.
    fn create_on(&mut self, topic: &str, replicas: &[i32], configs: &[(&str, &str)]) -> Uuid {
        let configs = configs.iter().map(|(name, value)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        });
        let assignment = CreatableReplicaAssignment::default().with_broker_ids(brokers(replicas));
        let topic = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![assignment])
            .with_configs(configs.collect());
        let response = self.create_with(topic);
        let created = &response.topics[0];
        assert_eq!(ErrorCode(created.error_code), ErrorCode::NONE, "{:?}", created.error_message);
        created.topic_id
    }

    /// Asks for replicas of partition 0 of `topic`, or to cancel.
    fn reassign(&mut self, topic: &str, target: Option<&[i32]>) -> ErrorCode {
        let partition = ReassignablePartition::default().with_replicas(target.map(brokers));
        let topic = ReassignableTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        let outcome = self.controller.alter_partition_reassignments(&request);
        let response = self.settle(outcome);
        ErrorCode(response.responses[0].partitions[0].error_code)
    }

    /// Asks for an election of partition 0 of `topic`: 0 preferred, 1 unclean.
    fn elect(&mut self, topic: &str, kind: i8) -> ErrorCode {
        let topic = TopicPartitions::default().with_topic(name(topic)).with_partitions(vec![0]);
        let request =
            ElectLeadersRequest::default().with_election_type(kind).with_topic_partitions(Some(vec![topic]));
        let outcome = self.controller.elect_leaders(&request);
        let response = self.settle(outcome);
        ErrorCode(response.replica_election_results[0].partition_result[0].error_code)
    }

    /// Changes one setting by IncrementalAlterConfigs: 0 set, 1 delete, 2 append, 3 subtract.
    fn configure(
        &mut self,
        (kind, resource): (i8, &str),
        operation: i8,
        key: &str,
        value: Option<&str>,
    ) -> ErrorCode {
        let config = AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(operation)
            .with_value(value.map(text));
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(resource))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let outcome = self.controller.incremental_alter_configs(&request);
        let response = self.settle(outcome);
        ErrorCode(response.responses[0].error_code)
    }

    fn partition(&self, topic: Uuid) -> &PartitionRegistration {
        self.reader.partition(topic, 0).unwrap()
    }

    /// (leader, ISR, ELR, leader epoch, partition epoch) of partition 0.
    fn state(&self, topic: Uuid) -> (Option<i32>, Vec<i32>, Vec<i32>, i32, i32) {
        let p = self.partition(topic);
        (p.leader, p.isr.clone(), p.elr.clone(), p.leader_epoch, p.partition_epoch)
    }

    /// What the leader of partition 0 asks for to have this ISR.
    fn wish(&self, topic: Uuid, isr: &[i32]) -> PartitionData {
        let p = self.partition(topic);
        let members: Vec<(i32, i64)> = isr.iter().map(|id| (*id, self.epoch(*id))).collect();
        PartitionData::default()
            .with_leader_epoch(p.leader_epoch)
            .with_partition_epoch(p.partition_epoch)
            .with_new_isr_with_epochs(with_epochs(&members))
    }

    fn alter_as(&mut self, broker: i32, topic: Uuid, wish: PartitionData) -> Altered {
        let topic = TopicData::default().with_topic_id(topic).with_partitions(vec![wish]);
        let request = AlterPartitionRequest::default()
            .with_broker_id(BrokerId(broker))
            .with_broker_epoch(self.epoch(broker))
            .with_topics(vec![topic]);
        let outcome = self.controller.alter_partition(&request);
        let response = self.settle(outcome);
        assert_eq!(ErrorCode(response.error_code), ErrorCode::NONE);
        response.topics[0].partitions[0].clone()
    }

    fn set_isr(&mut self, topic: Uuid, isr: &[i32]) {
        let leader = self.partition(topic).leader.unwrap();
        let wish = self.wish(topic, isr);
        let altered = self.alter_as(leader, topic, wish);
        assert_eq!(ErrorCode(altered.error_code), ErrorCode::NONE);
    }
}

/// Type names of records, to compare what was written and nothing more.
fn kinds(records: &[MetadataRecord]) -> Vec<&'static str> {
    let kind = |record: &MetadataRecord| match record {
        MetadataRecord::RegisterBroker(_) => "register",
        MetadataRecord::BrokerRegistrationChange(_) => "broker change",
        MetadataRecord::Topic(_) => "topic",
        MetadataRecord::Partition(_) => "partition",
        MetadataRecord::PartitionChange(_) => "partition change",
        MetadataRecord::RemoveTopic(_) => "remove topic",
        MetadataRecord::Config(_) => "config",
        MetadataRecord::FeatureLevel(_) => "feature",
        MetadataRecord::ProducerIds(_) => "producer ids",
        _ => "other",
    };
    records.iter().map(kind).collect()
}
