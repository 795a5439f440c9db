//! Kafka's messages as its own JSON schemas describe them.

use std::sync::OnceLock;

use serde::Deserialize;

/// Request and response of one API key.
#[derive(Debug, Deserialize)]
pub struct Api {
    /// Api key.
    pub key: i16,
    /// Kafka's name of it, for example `Metadata`.
    pub name: String,
    /// What is sent.
    pub request: Message,
    /// What is answered.
    pub response: Message,
}

/// One side of an API.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Versions that have a schema.
    pub versions: Span,
    /// First flexible version (KIP-482).
    pub flexible: i16,
    /// In order of their bytes, tagged ones among them.
    pub fields: Vec<Field>,
}

/// First and last version; empty where the first is larger.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Span(pub i16, pub i16);

impl Span {
    /// Whether a version lies within.
    pub fn has(self, version: i16) -> bool {
        (self.0..=self.1).contains(&version)
    }
}

/// One field.
#[derive(Debug, Deserialize)]
pub struct Field {
    /// Kafka's name of it.
    pub name: String,
    /// For example `int32`, `[]string` or the name of a structure.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it is present.
    pub versions: Span,
    /// Where it may be null.
    pub nullable: Option<Span>,
    /// Its tag, if it is a tagged field.
    pub tag: Option<u32>,
    /// Kafka's default as text.
    pub default: Option<String>,
    /// Of a structure.
    #[serde(default)]
    pub fields: Vec<Field>,
}

impl Field {
    /// Type of the elements of an array.
    pub fn element(&self) -> Option<&str> {
        self.kind.strip_prefix("[]")
    }

    /// Whether null may stand here.
    pub fn may_be_null(&self, version: i16) -> bool {
        self.nullable.is_some_and(|span| span.has(version))
    }

    /// Whether it begins with a length.
    pub fn has_length(&self) -> bool {
        self.element().is_some() || matches!(self.kind.as_str(), "string" | "bytes" | "records")
    }
}

/// Every API of Kafka 4.3.0 that has a schema, by key.
///
/// # Panics
///
/// If the table is not what `tests/tools/kafka_schemas.py` writes.
#[allow(clippy::expect_used, reason = "the table is part of this program")]
pub fn apis() -> &'static [Api] {
    static APIS: OnceLock<Vec<Api>> = OnceLock::new();
    APIS.get_or_init(|| {
        let lines = include_str!("schemas.jsonl").lines();
        lines.map(|line| serde_json::from_str(line).expect("a line of schemas.jsonl")).collect()
    })
}

/// The API of a key.
///
/// # Panics
///
/// If there is none.
#[allow(clippy::panic, reason = "keys stand in the cases")]
pub fn api(key: i16) -> &'static Api {
    apis().iter().find(|api| api.key == key).unwrap_or_else(|| panic!("Kafka 4.3.0 has no api {key}"))
}
