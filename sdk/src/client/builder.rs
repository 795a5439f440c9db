//! Describing a client.

use std::sync::Arc;

use klamm_core::backoff::Backoff;
use klamm_core::metadata::{Refresh, RefreshSettings};
use klamm_core::reconnect::Reconnect;
use klamm_wire::{BoxConnector, Connector};
use parking_lot::Mutex;

use super::Client;
use super::shared::Shared;
use crate::config::{ClientSettings, HasClient, client_settings, endpoints};
use crate::connection::Dialling;
use crate::error::{ClientError, ConfigError};
use crate::rt::Rt;
use crate::tcp::TcpConnector;

/// Describes a [`Client`]. Methods carry Kafka's property names; defaults are Kafka's, unless said otherwise.
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until `build` or `connect` is called"]
pub struct ClientBuilder {
    pub(crate) settings: ClientSettings,
    pub(crate) connector: Option<BoxConnector>,
}

impl HasClient for ClientBuilder {
    fn client(&mut self) -> &mut ClientSettings {
        &mut self.settings
    }
}

impl ClientBuilder {
    client_settings!(settings);

    /// Opens connections by something else than TCP, for example a broker in this process. The settings of
    /// sockets (`send.buffer.bytes` and the like) are then without effect.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Some(connector.erase());
        self
    }

    /// Checks the settings and starts the client; the first connection is made in the background.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] for an impossible setting, and outside of a tokio runtime.
    pub fn build(self) -> Result<Client, ConfigError> {
        self.settings.check_limit_of_calls()?;
        self.start()
    }

    /// As [`Self::build`], for producers and consumers.
    pub(crate) fn start(self) -> Result<Client, ConfigError> {
        let origin = self.clone();
        let settings = self.settings;
        settings.check()?;
        let bootstrap = endpoints(&settings.bootstrap_servers)?;
        let rt = Rt::current()?;
        let connector = self.connector.unwrap_or_else(|| TcpConnector::for_client(&settings).erase());
        let redial = Backoff::new(settings.reconnect_backoff, settings.reconnect_backoff_max);
        let refresh = RefreshSettings {
            max_age: settings.metadata_max_age,
            max_idle: settings.metadata_max_idle,
            retry: Backoff::new(settings.retry_backoff, settings.retry_backoff_max),
            rebootstrap: settings.rebootstrap.then_some(settings.rebootstrap_trigger),
        };
        let dialling = Dialling {
            connector,
            reconnect: Mutex::new(Reconnect::new(redial, rt.rng("reconnect"))),
            setup_timeout: settings.connection_setup_timeout_max.max(settings.connection_setup_timeout),
            request_timeout: settings.request_timeout,
            max_queued: settings.max_queued_requests,
            rt: rt.clone(),
        };
        let refresh = Refresh::new(refresh, rt.rng("metadata"));
        Ok(Client::start(origin, Arc::new(Shared::new(settings, bootstrap, dialling, refresh))))
    }

    /// Like [`Self::build`], but waits until a broker answers, at most `default.api.timeout.ms`.
    ///
    /// # Errors
    ///
    /// As [`Self::build`] and [`Client::ready`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client.
    pub async fn connect(self) -> Result<Client, ClientError> {
        let client = self.build()?;
        client.ready(client.settings().api_timeout()).await?;
        Ok(client)
    }
}
