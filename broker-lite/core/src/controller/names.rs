//! Which names a topic may have.

use klamm_wire::ErrorCode;

use super::Refusal;
use crate::metadata::{Image, METADATA_TOPIC};

/// Longest name, in bytes: a directory is called after it.
const MAX_LEN: usize = 249;

/// Checks the name of a topic that shall be created.
pub(super) fn check_new(name: &str, image: &Image) -> Result<(), Refusal> {
    let invalid = |reason: String| Err(Refusal(ErrorCode::INVALID_TOPIC_EXCEPTION, reason));
    if name == METADATA_TOPIC {
        return Err(Refusal(ErrorCode::INVALID_REQUEST, format!("{METADATA_TOPIC} is the metadata log")));
    }
    if name.is_empty() {
        return invalid("the name of a topic must not be empty".to_owned());
    }
    if name == "." || name == ".." {
        return invalid(format!("{name:?} is not a name for a topic"));
    }
    if name.len() > MAX_LEN {
        return invalid(format!("the name has {} characters, at most {MAX_LEN} are allowed", name.len()));
    }
    if let Some(odd) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !['.', '_', '-'].contains(c)) {
        return invalid(format!(
            "{name:?} contains {odd:?}; allowed are ASCII letters and digits, '.', '_' and '-'"
        ));
    }
    if image.topic(name).is_some() {
        return Err(Refusal(ErrorCode::TOPIC_ALREADY_EXISTS, format!("topic {name} exists")));
    }
    // the names of metrics do not tell '.' from '_'
    match image.topics().find(|topic| metric_name(&topic.name).eq(metric_name(name))) {
        Some(other) => invalid(format!("{name} collides with {}: '.' and '_' count as equal", other.name)),
        None => Ok(()),
    }
}

fn metric_name(name: &str) -> impl Iterator<Item = char> {
    name.chars().map(|c| if c == '.' { '_' } else { c })
}
