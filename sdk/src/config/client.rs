//! The settings that every client shares.

use std::sync::Arc;
use std::time::Duration;

use super::{Property, property};

/// Settings shared by clients, producers, consumers and admin clients, with Kafka's defaults.
#[derive(Debug, Clone)]
#[allow(dead_code)]
pub(crate) struct ClientSettings {
    /// `bootstrap.servers`
    pub(crate) bootstrap_servers: Vec<String>,
    /// `client.id`
    pub(crate) client_id: Option<Arc<str>>,
    /// `request.timeout.ms`
    pub(crate) request_timeout: Duration,
    /// `default.api.timeout.ms`
    pub(crate) default_api_timeout: Duration,
    /// `retry.backoff.ms`
    pub(crate) retry_backoff: Duration,
    /// `retry.backoff.max.ms`
    pub(crate) retry_backoff_max: Duration,
    /// `reconnect.backoff.ms`
    pub(crate) reconnect_backoff: Duration,
    /// `reconnect.backoff.max.ms`
    pub(crate) reconnect_backoff_max: Duration,
    /// `socket.connection.setup.timeout.ms`
    pub(crate) connection_setup_timeout: Duration,
    /// `socket.connection.setup.timeout.max.ms`
    pub(crate) connection_setup_timeout_max: Duration,
    /// `connections.max.idle.ms`; `None`: never closed for being idle
    pub(crate) connections_max_idle: Option<Duration>,
    /// `send.buffer.bytes`; `None`: the operating system decides
    pub(crate) send_buffer_bytes: Option<usize>,
    /// `receive.buffer.bytes`; `None`: the operating system decides
    pub(crate) receive_buffer_bytes: Option<usize>,
    /// `metadata.max.age.ms`
    pub(crate) metadata_max_age: Duration,
    /// `metadata.max.idle.ms`
    pub(crate) metadata_max_idle: Duration,
    /// `metadata.recovery.strategy` is `rebootstrap`
    pub(crate) rebootstrap: bool,
    /// `metadata.recovery.rebootstrap.trigger.ms`
    pub(crate) rebootstrap_trigger: Duration,
    /// Requests that may wait for one connection being made.
    pub(crate) max_queued_requests: usize,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            bootstrap_servers: Vec::new(),
            client_id: None,
            request_timeout: Duration::from_secs(30),
            default_api_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            connection_setup_timeout: Duration::from_secs(10),
            connection_setup_timeout_max: Duration::from_secs(30),
            connections_max_idle: Some(Duration::from_secs(540)),
            send_buffer_bytes: Some(131_072),
            receive_buffer_bytes: Some(65_536),
            metadata_max_age: Duration::from_secs(300),
            metadata_max_idle: Duration::from_secs(300),
            rebootstrap: true,
            rebootstrap_trigger: Duration::from_secs(300),
            max_queued_requests: 1000,
        }
    }
}

/// The shared properties.
#[allow(dead_code)]
pub(super) const PROPERTIES: &[Property<ClientSettings>] = &[property("request.timeout.ms", |s, v| {
    s.request_timeout = v.millis(1)?;
    Ok(())
})];

/// Writes the builder methods of the shared settings into an `impl` block; the argument is the field that
/// holds the [`ClientSettings`].
macro_rules! client_settings {
    ($($field:ident).+) => {
        /// Addresses to find the cluster by, separated by commas (`bootstrap.servers`).
        pub fn bootstrap_servers(mut self, servers: impl AsRef<str>) -> Self {
            self.$($field).+.bootstrap_servers =
                servers.as_ref().split(',').map(|server| server.trim().to_owned()).collect();
            self
        }
    };
}
pub(crate) use client_settings;
