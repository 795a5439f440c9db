//! Names that are known but refused, and suggestions for names that are not known.

use super::{Kind, Value};
use crate::error::ConfigError;

/// Accepts or refuses a property that no table implements.
#[allow(dead_code)]
pub(super) fn refuse(
    kind: Kind,
    value: &Value<'_>,
    known: impl Iterator<Item = &'static str>,
) -> Result<(), ConfigError> {
    let _ = (kind, known);
    Err(ConfigError::Unknown { setting: value.name().to_owned(), nearest: None })
}
