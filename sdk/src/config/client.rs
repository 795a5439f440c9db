//! The settings that every client shares.

use std::sync::Arc;
use std::time::Duration;

use klamm_wire::Endpoint;

use super::{Property, property};
use crate::error::ConfigError;

/// Default of `max_response_bytes`: the most that Fetch answers with by default (`fetch.max.bytes`), and as much
/// again for a last batch beyond it.
pub(crate) const DEFAULT_RESPONSE_LIMIT_BYTES: usize = 128 << 20;

/// What a client does when no broker that it knows can be reached (`metadata.recovery.strategy`, KIP-899).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetadataRecovery {
    /// Starts again from `bootstrap.servers`.
    #[default]
    Rebootstrap,
    /// Goes on trying the brokers that it knows.
    None,
}

/// Settings shared by clients, producers, consumers and admin clients.
#[derive(Debug, Clone)]
pub(crate) struct ClientSettings {
    /// `bootstrap.servers`
    pub(crate) bootstrap_servers: Vec<String>,
    /// `client.id`
    pub(crate) client_id: Option<Arc<str>>,
    /// `request.timeout.ms`
    pub(crate) request_timeout: Duration,
    /// `default.api.timeout.ms`, if given; see [`Self::api_timeout`]
    pub(crate) default_api_timeout: Option<Duration>,
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
    /// Largest answer that is read.
    pub(crate) max_response_bytes: usize,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            bootstrap_servers: Vec::new(),
            client_id: None,
            request_timeout: Duration::from_secs(30),
            default_api_timeout: None,
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            connection_setup_timeout: Duration::from_secs(10),
            connection_setup_timeout_max: Duration::from_secs(30),
            connections_max_idle: Some(Duration::from_secs(540)),
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            metadata_max_age: Duration::from_secs(300),
            metadata_max_idle: Duration::from_secs(300),
            rebootstrap: true,
            rebootstrap_trigger: Duration::from_secs(300),
            max_queued_requests: 1000,
            max_response_bytes: DEFAULT_RESPONSE_LIMIT_BYTES,
        }
    }
}

impl ClientSettings {
    /// How long a call may take that retries by itself: 60 s unless one request may take longer.
    pub(crate) fn api_timeout(&self) -> Duration {
        self.default_api_timeout.unwrap_or(Duration::from_secs(60).max(self.request_timeout))
    }

    /// How long may take what has to be done for others, as leaving a group: a request has its time, however little calls have.
    pub(crate) fn patience(&self) -> Duration {
        self.api_timeout().max(self.request_timeout)
    }

    /// Finds impossible values, whichever way they came in.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("request.timeout.ms", self.request_timeout),
            ("socket.connection.setup.timeout.ms", self.connection_setup_timeout),
            ("metadata.max.age.ms", self.metadata_max_age),
        ];
        for (setting, value) in positive {
            if value.is_zero() {
                return Err(ConfigError::invalid(setting, "0", "more than 0"));
            }
        }
        // Kafka's own lower bound: the topic in use would be dropped between two records.
        if self.metadata_max_idle < Duration::from_secs(5) {
            let value = self.metadata_max_idle.as_millis();
            return Err(ConfigError::invalid("metadata.max.idle.ms", value, "at least 5000"));
        }
        if self.max_queued_requests == 0 {
            return Err(ConfigError::invalid("max_queued_requests", 0, "at least 1"));
        }
        Ok(())
    }

    /// What Kafka demands of admin clients, and of no consumer: a call is given up no sooner than one of its requests.
    pub(crate) fn check_limit_of_calls(&self) -> Result<(), ConfigError> {
        if self.api_timeout() >= self.request_timeout {
            return Ok(());
        }
        let value = self.api_timeout().as_millis();
        let expected = format!("at least request.timeout.ms, which is {}", self.request_timeout.as_millis());
        Err(ConfigError::invalid("default.api.timeout.ms", value, expected))
    }
}

/// Reads `bootstrap.servers`.
pub(crate) fn endpoints(servers: &[String]) -> Result<Vec<Endpoint>, ConfigError> {
    let servers: Vec<&str> = servers.iter().map(|server| server.trim()).filter(|s| !s.is_empty()).collect();
    if servers.is_empty() {
        let expected = "give at least one HOST:PORT";
        return Err(ConfigError::Missing { setting: "bootstrap.servers", expected });
    }
    servers.into_iter().map(endpoint).collect()
}

/// Reads `host:port` or `[v6]:port`; like Kafka, a scheme in front (`PLAINTEXT://`) is taken off.
fn endpoint(server: &str) -> Result<Endpoint, ConfigError> {
    let wrong = |expected: &'static str| ConfigError::invalid("bootstrap.servers", server, expected);
    let address = match server.split_once("://") {
        Some((scheme, address)) if scheme.eq_ignore_ascii_case("plaintext") => address,
        Some(_) => return Err(wrong("HOST:PORT without TLS or SASL, which are not supported yet")),
        None => server,
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("HOST:PORT; the port is missing"))?;
    let port = port.parse().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| wrong("HOST:PORT with a port from 1 to 65535"))?;
    let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        Some(Some(v6)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
        Some(_) => return Err(wrong("an IPv6 address between [ and ]")),
        None if host.contains(':') => return Err(wrong("[ADDRESS]:PORT for an IPv6 address")),
        None if host.is_empty() || host.contains(char::is_whitespace) => {
            return Err(wrong("HOST:PORT; the host is missing"));
        }
        None => host,
    };
    Ok(Endpoint::new(host, port))
}

/// The shared properties.
pub(super) const PROPERTIES: &[Property<ClientSettings>] = &[
    property("bootstrap.servers", |s, v| {
        let servers: Vec<String> = v.list().map(str::to_owned).collect();
        endpoints(&servers)?;
        s.bootstrap_servers = servers;
        Ok(())
    }),
    property("client.id", |s, v| {
        s.client_id = Some(v.text().into()).filter(|id: &Arc<str>| !id.is_empty());
        Ok(())
    }),
    property("request.timeout.ms", |s, v| v.millis(1).map(|ms| s.request_timeout = ms)),
    property("default.api.timeout.ms", |s, v| v.millis(0).map(|ms| s.default_api_timeout = Some(ms))),
    property("retry.backoff.ms", |s, v| v.millis(0).map(|ms| s.retry_backoff = ms)),
    property("retry.backoff.max.ms", |s, v| v.millis(0).map(|ms| s.retry_backoff_max = ms)),
    property("reconnect.backoff.ms", |s, v| v.millis(0).map(|ms| s.reconnect_backoff = ms)),
    property("reconnect.backoff.max.ms", |s, v| v.millis(0).map(|ms| s.reconnect_backoff_max = ms)),
    property("socket.connection.setup.timeout.ms", |s, v| {
        v.millis(1).map(|ms| s.connection_setup_timeout = ms)
    }),
    property("socket.connection.setup.timeout.max.ms", |s, v| {
        v.millis(1).map(|ms| s.connection_setup_timeout_max = ms)
    }),
    property("connections.max.idle.ms", |s, v| {
        s.connections_max_idle = if v.text() == "-1" { None } else { Some(v.millis(0)?) };
        Ok(())
    }),
    property("send.buffer.bytes", |s, v| v.buffer_bytes().map(|bytes| s.send_buffer_bytes = bytes)),
    property("receive.buffer.bytes", |s, v| v.buffer_bytes().map(|bytes| s.receive_buffer_bytes = bytes)),
    property("metadata.max.age.ms", |s, v| v.millis(1).map(|ms| s.metadata_max_age = ms)),
    property("metadata.max.idle.ms", |s, v| v.millis(5000).map(|ms| s.metadata_max_idle = ms)),
    property("metadata.recovery.strategy", |s, v| {
        v.one_of(&[("rebootstrap", true), ("none", false)]).map(|on| s.rebootstrap = on)
    }),
    property("metadata.recovery.rebootstrap.trigger.ms", |s, v| {
        v.millis(0).map(|ms| s.rebootstrap_trigger = ms)
    }),
];

/// Writes the builder methods of the shared settings into an `impl` block; the argument is the path of the
/// field that holds the [`ClientSettings`], for example `client_settings!(client.settings)`.
macro_rules! client_settings {
    ($($field:ident).+) => {
        /// Addresses to find the cluster by: `HOST:PORT`, several separated by commas, IPv6 as `[::1]:9092`
        /// (`bootstrap.servers`).
        pub fn bootstrap_servers(mut self, servers: impl AsRef<str>) -> Self {
            let servers = servers.as_ref().split(',').map(|server| server.trim().to_owned());
            self.$($field).+.bootstrap_servers = servers.collect();
            self
        }

        /// Name of this program in the brokers' logs and quotas (`client.id`). Default: none.
        pub fn client_id(mut self, id: impl Into<std::sync::Arc<str>>) -> Self {
            self.$($field).+.client_id = Some(id.into()).filter(|id: &std::sync::Arc<str>| !id.is_empty());
            self
        }

        /// How long the answer to one request is awaited; then the connection is closed
        /// (`request.timeout.ms`). Default: 30 s.
        pub fn request_timeout_ms(mut self, limit: std::time::Duration) -> Self {
            self.$($field).+.request_timeout = limit;
            self
        }

        /// How long a call may take that retries by itself (`default.api.timeout.ms`). Default: 60 s.
        pub fn default_api_timeout_ms(mut self, limit: std::time::Duration) -> Self {
            self.$($field).+.default_api_timeout = Some(limit);
            self
        }

        /// Pause after the first failed attempt; doubled after each further one (`retry.backoff.ms`).
        /// Default: 100 ms.
        pub fn retry_backoff_ms(mut self, pause: std::time::Duration) -> Self {
            self.$($field).+.retry_backoff = pause;
            self
        }

        /// Longest pause between attempts (`retry.backoff.max.ms`). Default: 1 s.
        pub fn retry_backoff_max_ms(mut self, pause: std::time::Duration) -> Self {
            self.$($field).+.retry_backoff_max = pause;
            self
        }

        /// Pause before a broker is dialled again; doubled after each failure (`reconnect.backoff.ms`).
        /// Default: 50 ms.
        pub fn reconnect_backoff_ms(mut self, pause: std::time::Duration) -> Self {
            self.$($field).+.reconnect_backoff = pause;
            self
        }

        /// Longest pause before a broker is dialled again (`reconnect.backoff.max.ms`). Default: 1 s.
        pub fn reconnect_backoff_max_ms(mut self, pause: std::time::Duration) -> Self {
            self.$($field).+.reconnect_backoff_max = pause;
            self
        }

        /// How long one address of a broker may take to accept a connection
        /// (`socket.connection.setup.timeout.ms`). Default: 10 s.
        pub fn socket_connection_setup_timeout_ms(mut self, limit: std::time::Duration) -> Self {
            self.$($field).+.connection_setup_timeout = limit;
            self
        }

        /// How long all addresses of a broker's name may take together
        /// (`socket.connection.setup.timeout.max.ms`). Default: 30 s.
        pub fn socket_connection_setup_timeout_max_ms(mut self, limit: std::time::Duration) -> Self {
            self.$($field).+.connection_setup_timeout_max = limit;
            self
        }

        /// Closes connections that were not used for this long; `None`: never (`connections.max.idle.ms`).
        /// Default: 9 minutes.
        pub fn connections_max_idle_ms(mut self, idle: impl Into<Option<std::time::Duration>>) -> Self {
            self.$($field).+.connections_max_idle = idle.into();
            self
        }

        /// Size of a socket's send buffer (`send.buffer.bytes`). Default: `None`, the operating system adapts
        /// it to the connection, where Kafka's own client has 128 KiB.
        pub fn send_buffer_bytes(mut self, bytes: impl Into<Option<usize>>) -> Self {
            self.$($field).+.send_buffer_bytes = bytes.into();
            self
        }

        /// Size of a socket's receive buffer (`receive.buffer.bytes`). Default: `None`, the operating system
        /// adapts it to the connection, where Kafka's own clients have 32 or 64 KiB.
        pub fn receive_buffer_bytes(mut self, bytes: impl Into<Option<usize>>) -> Self {
            self.$($field).+.receive_buffer_bytes = bytes.into();
            self
        }

        /// Asks for metadata again after this time even if nothing hints at a change
        /// (`metadata.max.age.ms`). Default: 5 minutes.
        pub fn metadata_max_age_ms(mut self, age: std::time::Duration) -> Self {
            self.$($field).+.metadata_max_age = age;
            self
        }

        /// Forgets the metadata of topics that were not used for this long, at least 5 s
        /// (`metadata.max.idle.ms`). Default: 5 minutes.
        pub fn metadata_max_idle_ms(mut self, idle: std::time::Duration) -> Self {
            self.$($field).+.metadata_max_idle = idle;
            self
        }

        /// What to do when the known brokers are gone (`metadata.recovery.strategy`). Default:
        /// [`Rebootstrap`](crate::MetadataRecovery::Rebootstrap).
        pub fn metadata_recovery_strategy(mut self, strategy: crate::MetadataRecovery) -> Self {
            self.$($field).+.rebootstrap = strategy == crate::MetadataRecovery::Rebootstrap;
            self
        }

        /// Starts again from the bootstrap list after this long without metadata
        /// (`metadata.recovery.rebootstrap.trigger.ms`). Default: 5 minutes.
        pub fn metadata_recovery_rebootstrap_trigger_ms(mut self, after: std::time::Duration) -> Self {
            self.$($field).+.rebootstrap_trigger = after;
            self
        }

        /// Requests that may wait for one connection being made; further ones fail at once. Not a property of
        /// Kafka. Default: 1000.
        pub fn max_queued_requests(mut self, limit: usize) -> Self {
            self.$($field).+.max_queued_requests = limit;
            self
        }

        /// Closes a TCP connection whose peer announces an answer larger than this. Not a property of Kafka.
        /// Default: 128 MiB.
        pub fn max_response_bytes(mut self, limit: usize) -> Self {
            self.$($field).+.max_response_bytes = limit;
            self
        }
    };
}
pub(crate) use client_settings;
