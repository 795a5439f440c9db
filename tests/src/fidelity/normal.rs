//! What differs by nature, and what is put in its place. Whatever is not named here is compared as it is.

use std::collections::BTreeMap;

use super::side::Known;
use super::tree::{Node, base64};

/// One thing that differs by nature.
#[derive(Debug, Clone)]
pub(super) enum Normal {
    /// The order of an array is that of a hash map.
    Unordered { array: String, by: String },
    /// Chance or time decides over a number.
    Vague { field: String, what: String },
}

/// Numbers that two clusters give out each in its own way; they are named by their first occurrence.
const GIVEN_OUT: &[(&str, &str)] = &[("ProducerId", "producer"), ("SessionId", "session")];
/// Numbers that grow with the metadata log, of which each cluster has its own.
const POSITIONS: &[&str] = &["BrokerEpoch", "FinalizedFeaturesEpoch"];

/// What ApiVersions lists, which the suite compares by itself, entry by entry, wherever there is more than one.
const INVENTORIES: &[&str] = &["ApiKeys", "SupportedFeatures", "FinalizedFeatures"];

/// Names that the answers of one case have been given so far.
#[derive(Debug, Default)]
pub(super) struct Names {
    given: BTreeMap<(&'static str, String), usize>,
}

impl Names {
    fn of(&mut self, what: &'static str, value: String) -> Node {
        let next = self.given.keys().filter(|(kind, _)| *kind == what).count() + 1;
        let number = *self.given.entry((what, value)).or_insert(next);
        Node::Named(format!("{what} {number}"))
    }
}

/// Replaces what differs by nature.
pub(super) fn normalize(tree: &mut Node, known: &Known, names: &mut Names, normal: &[Normal]) {
    for rule in normal {
        if let Normal::Unordered { array, by } = rule {
            tree.visit("", &mut |path, node| {
                if let Node::List(elements) = node
                    && plain(path) == *array
                {
                    elements
                        .sort_by_key(|element| element.at(by).map_or_else(|| element.to_string(), sort_key));
                }
            });
        }
    }
    tree.visit("", &mut |path, node| {
        let field = path.rsplit('.').next().unwrap_or(path);
        let field = field.split('[').next().unwrap_or(field);
        let vague = normal.iter().find_map(|rule| match rule {
            Normal::Vague { field, what } if plain(path) == *field => Some(what),
            _ => None,
        });
        let named = match &*node {
            Node::Int(0..) | Node::Text(_) | Node::Uuid(_) if vague.is_some() => {
                vague.map(|what| Node::Named(what.clone()))
            }
            Node::Int(value) if *value >= 0 => {
                if let Some((_, what)) = GIVEN_OUT.iter().find(|(name, _)| *name == field) {
                    (*value > 0 || field == "ProducerId").then(|| names.of(what, value.to_string()))
                } else if POSITIONS.contains(&field) {
                    Some(Node::Named("position in the metadata log".into()))
                } else if field == "Port" {
                    known.broker_at(*value).map(|broker| Node::Named(format!("port of broker {broker}")))
                } else {
                    None
                }
            }
            Node::List(elements) if INVENTORIES.contains(&field) && elements.len() > 1 => {
                Some(Node::Named("what is advertised".into()))
            }
            Node::Uuid(id) if *id != [0; 16] => Some(match known.topic_of(id) {
                Some(topic) => Node::Named(format!("id of {}", known.in_general(topic))),
                None => names.of("id", base64(id)),
            }),
            Node::Text(text) => {
                let plain = known.in_general(text);
                (plain != *text).then_some(Node::Text(plain))
            }
            _ => None,
        };
        if let Some(named) = named {
            *node = named;
        }
    });
}

/// Numbers by size, everything else by its text.
fn sort_key(node: &Node) -> String {
    node.int().map_or_else(|| node.to_string(), |value| format!("{value:020}"))
}

/// A path without its indexes.
pub(super) fn plain(path: &str) -> String {
    let mut out = String::new();
    let mut within = false;
    for letter in path.chars() {
        match letter {
            '[' => within = true,
            ']' => within = false,
            _ if within => {}
            '.' if out.is_empty() => {}
            _ => out.push(letter),
        }
    }
    out
}
