//! A message as a tree of named values.

use std::fmt;

use klamm_wire::ErrorCode;

/// A value and what is in it.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// Null on the wire.
    Null,
    /// A tagged field that was not sent: it has its default.
    Absent,
    /// `bool`
    Bool(bool),
    /// Any whole number.
    Int(i64),
    /// `float64`
    Float(f64),
    /// `string`
    Text(String),
    /// `bytes`
    Bytes(Vec<u8>),
    /// `uuid`
    Uuid([u8; 16]),
    /// An array.
    List(Vec<Node>),
    /// A structure, its fields in order of their bytes.
    Struct(Vec<(String, Node)>),
    /// What a normalizer has put in place of something that differs by nature.
    Named(String),
}

impl Node {
    /// The node at a path such as `Topics[0].Name`.
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, part| {
            let (name, index) = match part.split_once('[') {
                Some((name, index)) => (name, index.strip_suffix(']')?.parse::<usize>().ok()),
                None => (part, None),
            };
            let Self::Struct(fields) = node else { return None };
            let found = fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)?;
            match (index, found) {
                (Some(index), Self::List(elements)) => elements.get(index),
                (Some(_), _) => None,
                (None, found) => Some(found),
            }
        })
    }

    /// Its whole number, if it is one.
    pub fn int(&self) -> Option<i64> {
        if let Self::Int(value) = self { Some(*value) } else { None }
    }

    /// Its text, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(value) = self { Some(value) } else { None }
    }

    /// Its elements, none if it is no array.
    pub fn list(&self) -> &[Self] {
        if let Self::List(elements) = self { elements } else { &[] }
    }

    /// Calls `work` for every value with its path, from the outside in.
    pub fn visit(&mut self, path: &str, work: &mut impl FnMut(&str, &mut Self)) {
        work(path, self);
        match self {
            Self::List(elements) => {
                for (index, element) in elements.iter_mut().enumerate() {
                    element.visit(&format!("{path}[{index}]"), work);
                }
            }
            Self::Struct(fields) => {
                for (name, value) in fields {
                    let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    value.visit(&below, work);
                }
            }
            _ => {}
        }
    }

    /// Number of values that are no arrays and no structures.
    pub fn leaves(&self) -> usize {
        match self {
            Self::List(elements) => elements.iter().map(Self::leaves).sum(),
            Self::Struct(fields) => fields.iter().map(|(_, value)| value.leaves()).sum(),
            _ => 1,
        }
    }
}

/// How it stands in a report and in the list of allowed differences.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Absent => f.write_str("absent"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Bytes(bytes) => write!(f, "{} B {}", bytes.len(), hex(bytes)),
            Self::Uuid(id) => write!(f, "uuid {}", hex(id)),
            Self::Named(name) => write!(f, "<{name}>"),
            Self::List(elements) => {
                f.write_str("[")?;
                for (index, element) in elements.iter().enumerate() {
                    write!(f, "{}{element}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Struct(fields) => {
                f.write_str("{")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    let value = shown(name, value);
                    write!(f, "{}{name}: {value}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// A value as it stands in a report: error codes by name.
pub(super) fn shown(name: &str, value: &Node) -> String {
    match value {
        Node::Int(code) if name.ends_with("ErrorCode") => {
            let known = i16::try_from(*code).ok().and_then(|code| ErrorCode(code).name());
            known.map_or_else(|| code.to_string(), str::to_owned)
        }
        value => value.to_string(),
    }
}

/// Bytes as text.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Kafka's way to write an id as text: URL-safe base64 without padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            out.push(char::from(LETTERS[(word >> (18 - 6 * place) & 63) as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_as_kafka_writes_it() {
        assert_eq!(base64(b"klammTestCluster"), "a2xhbW1UZXN0Q2x1c3Rlcg");
        assert_eq!(base64(b"ab"), "YWI");
        assert_eq!(base64(b"abc"), "YWJj");
    }

    #[test]
    fn a_path_finds_what_lies_deep() {
        let inner = Node::Struct(vec![("Name".into(), Node::Text("a".into()))]);
        let tree = Node::Struct(vec![("Topics".into(), Node::List(vec![inner]))]);
        assert_eq!(tree.at("Topics[0].Name").and_then(Node::text), Some("a"));
        assert_eq!(tree.at("Topics[1].Name"), None);
        assert_eq!(tree.at("Nothing"), None);
    }
}
