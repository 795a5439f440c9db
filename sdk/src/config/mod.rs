//! Settings by Kafka's property names: one place for parsing, refusing and suggesting.
//!
//! A builder declares its own properties as a table of [`Property`] and calls [`apply`]; the properties that
//! every client shares come with [`ClientSettings`] if the builder implements [`HasClient`].
//!
//! Builder methods carry the full property name in snake case (`linger.ms` is `linger_ms`); those of `*.ms` take
//! a `Duration`.
//!
//! ```ignore
//! const OWN: &[Property<ProducerBuilder>] = &[
//!     property("linger.ms", |b, v| v.millis(0).map(|ms| b.linger = ms)),
//!     property("acks", |b, v| v.one_of(&[("all", Acks::All), ("1", Acks::Leader)]).map(|a| b.acks = a)),
//! ];
//! let mut builder = ProducerBuilder::default();
//! apply(Kind::Producer, OWN, &mut builder, pairs)?;
//! ```

mod client;
mod duration;
#[cfg(test)]
pub(crate) mod kafkas;
mod names;
mod value;

use crate::error::ConfigError;

pub use client::MetadataRecovery;
pub(crate) use client::{ClientSettings, DEFAULT_RESPONSE_LIMIT_BYTES, client_settings, endpoints};
pub(crate) use duration::iso_8601;
pub(crate) use value::Value;

/// Whose properties are read; a name that belongs to another kind is refused as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A client by itself.
    Client,
    /// A producer.
    Producer,
    /// A consumer.
    Consumer,
    /// An admin client.
    Admin,
}

/// One property that a builder takes.
pub(crate) struct Property<B> {
    /// Kafka's name.
    pub(crate) name: &'static str,
    /// Parses the value and keeps it in the builder.
    pub(crate) set: fn(&mut B, &Value<'_>) -> Result<(), ConfigError>,
}

/// Declares a property.
pub(crate) const fn property<B>(
    name: &'static str,
    set: fn(&mut B, &Value<'_>) -> Result<(), ConfigError>,
) -> Property<B> {
    Property { name, set }
}

/// A builder that holds the settings every client shares.
pub(crate) trait HasClient {
    /// Those settings.
    fn client(&mut self) -> &mut ClientSettings;
}

/// Reads properties into a builder.
///
/// # Errors
///
/// Returns [`ConfigError`] for the first impossible value, and for the first name that is unknown or not
/// supported yet.
pub(crate) fn apply<B: HasClient, K: AsRef<str>, V: AsRef<str>>(
    kind: Kind,
    own: &[Property<B>],
    builder: &mut B,
    properties: impl IntoIterator<Item = (K, V)>,
) -> Result<(), ConfigError> {
    for (name, value) in properties {
        let value = Value::new(name.as_ref().trim(), value.as_ref().trim());
        if let Some(property) = own.iter().find(|property| property.name == value.name()) {
            (property.set)(builder, &value)?;
        } else if let Some(property) =
            client::PROPERTIES.iter().find(|property| property.name == value.name())
        {
            (property.set)(builder.client(), &value)?;
        } else {
            let mine = own.iter().map(|property| property.name);
            names::refuse(kind, &value, mine.chain(client::PROPERTIES.iter().map(|p| p.name)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
