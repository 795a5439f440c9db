//! Two answers side by side.

use super::tree::{Node, shown};

/// A place where they differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// For example `Metadata.Topics[0].ErrorCode`.
    pub path: String,
    /// Kafka's value.
    pub kafka: String,
    /// Ours.
    pub ours: String,
}

/// Every place where two trees differ; arrays of different lengths differ as a whole.
pub fn differences(path: &str, kafka: &Node, ours: &Node) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(path, kafka, ours, &mut found);
    found
}

fn walk(path: &str, kafka: &Node, ours: &Node, found: &mut Vec<Difference>) {
    match (kafka, ours) {
        (Node::List(theirs), Node::List(mine)) if theirs.len() == mine.len() => {
            for (index, (kafka, ours)) in theirs.iter().zip(mine).enumerate() {
                walk(&format!("{path}[{index}]"), kafka, ours, found);
            }
        }
        (Node::Struct(theirs), Node::Struct(mine)) => {
            for (name, kafka) in theirs {
                let below = format!("{path}.{name}");
                match mine.iter().find(|(other, _)| other == name) {
                    Some((_, ours)) => walk(&below, kafka, ours, found),
                    None => found.push(difference(&below, name, kafka, &Node::Named("no such field".into()))),
                }
            }
            for (name, ours) in mine.iter().filter(|(name, _)| theirs.iter().all(|(other, _)| other != name))
            {
                let below = format!("{path}.{name}");
                found.push(difference(&below, name, &Node::Named("no such field".into()), ours));
            }
        }
        (kafka, ours) if kafka == ours => {}
        (kafka, ours) => {
            let name = path.rsplit('.').next().unwrap_or(path);
            found.push(difference(path, name, kafka, ours));
        }
    }
}

fn difference(path: &str, name: &str, kafka: &Node, ours: &Node) -> Difference {
    Difference { path: path.to_owned(), kafka: shown(name, kafka), ours: shown(name, ours) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fidelity::{api, decode, encode};

    /// Every bit of an answer counts: whichever byte is changed, it is no longer the same or no longer an answer.
    #[test]
    fn an_answer_with_any_byte_changed_is_found() {
        let body = json!({
            "Brokers": [{ "NodeId": 1, "Host": "a", "Port": 9092, "Rack": "RACK1" }],
            "ClusterId": "abc", "ControllerId": 1,
            "Topics": [{ "Name": "orders", "TopicId": "00112233445566778899aabbccddeeff",
                "Partitions": [{ "PartitionIndex": 0, "LeaderId": 1, "ReplicaNodes": [1, 2], "IsrNodes": [1] }] }],
        });
        for version in 0..=13 {
            let metadata = api(3);
            let mut bytes = if version >= 9 { vec![0, 0, 0, 1, 0] } else { vec![0, 0, 0, 1] };
            let header = bytes.len();
            bytes.extend(encode::body(&metadata.response, version, &body, None).unwrap());
            let (_, good) = decode::answer(metadata, version, &bytes).unwrap();
            assert_eq!(differences("Metadata", &good, &good), []);
            for place in header..bytes.len() {
                let mut changed = bytes.clone();
                changed[place] ^= 0x01;
                if let Ok((_, bad)) = decode::answer(metadata, version, &changed) {
                    assert_ne!(differences("Metadata", &good, &bad), [], "v{version}, byte {place}");
                }
            }
        }
    }
}
