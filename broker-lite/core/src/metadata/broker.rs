//! One broker as the controller has registered it.

use std::collections::BTreeMap;

use klamm_wire::metadata_records::RegisterBrokerRecord;
use uuid::Uuid;

/// One address a broker listens at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Name of the listener, for example `PLAINTEXT`.
    pub name: String,
    /// Host that clients shall dial.
    pub host: String,
    /// Port that clients shall dial.
    pub port: u16,
    /// Security protocol code, 0 for PLAINTEXT.
    pub security_protocol: i16,
}

/// One broker as the controller has registered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Broker id.
    pub id: i32,
    /// Epoch of this registration: the offset of its record in the metadata log.
    pub epoch: i64,
    /// Identity of the process; a restarted broker has another one.
    pub incarnation_id: Uuid,
    /// Where the broker listens, in the order it gave.
    pub listeners: Vec<Listener>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Feature name to supported (min, max) level.
    pub features: BTreeMap<String, (i16, i16)>,
    /// Log directories.
    pub log_dirs: Vec<Uuid>,
    /// `true` while the broker must not lead, nor be shown to clients.
    pub fenced: bool,
    /// `true` while its leaderships are being moved away.
    pub in_controlled_shutdown: bool,
}

impl BrokerRegistration {
    /// Whether partitions may be led by this broker, and replicas on it be in sync.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// The listener of this name, or `None`.
    pub fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.name == name)
    }
}

impl From<&RegisterBrokerRecord> for BrokerRegistration {
    fn from(record: &RegisterBrokerRecord) -> Self {
        let listeners = record.end_points.iter().map(|end_point| Listener {
            name: end_point.name.clone(),
            host: end_point.host.clone(),
            port: end_point.port,
            security_protocol: end_point.security_protocol,
        });
        let features = record.features.iter().map(|feature| {
            (feature.name.clone(), (feature.min_supported_version, feature.max_supported_version))
        });
        Self {
            id: record.broker_id,
            epoch: record.broker_epoch,
            incarnation_id: record.incarnation_id,
            listeners: listeners.collect(),
            rack: record.rack.clone(),
            features: features.collect(),
            log_dirs: record.log_dirs.clone(),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
        }
    }
}
