//! Describing a client.

use klamm_wire::{BoxConnector, Connector};

use crate::config::{ClientSettings, HasClient, client_settings};
use crate::error::ClientError;

use super::Client;

/// Describes a [`Client`]. Methods carry Kafka's property names.
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

    /// Opens connections by something else than TCP, for example a broker in this process.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Some(connector.erase());
        self
    }

    /// Checks the settings and starts the client; the first connection is made in the background.
    ///
    /// # Errors
    ///
    /// Returns [`ClientError::Config`] for an impossible setting or outside of a tokio runtime.
    #[allow(clippy::unused_async)]
    pub fn build(self) -> Result<Client, ClientError> {
        unimplemented!()
    }

    /// Like [`Self::build`], but waits until a broker has answered, at most `default.api.timeout.ms`.
    ///
    /// # Errors
    ///
    /// As [`Self::build`] and [`Client::ready`].
    #[allow(clippy::unused_async)]
    pub async fn connect(self) -> Result<Client, ClientError> {
        unimplemented!()
    }
}
