//! Messages as Kafka 4.3.0's own classes write them; see tests/tools/RecordMessages.java.

use crate::schema::Kind;

/// One line of the file.
pub(crate) struct Golden {
    /// `None` is a record of the metadata log.
    pub(crate) kind: Option<Kind>,
    /// Api key, or record type.
    pub(crate) key: i16,
    pub(crate) version: i16,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn all() -> Vec<Golden> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/kafka-4.3.0-messages.txt");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(parse).collect()
}

fn parse(line: &str) -> Golden {
    let mut words = line.split(' ');
    let kind = match words.next().unwrap() {
        "request" => Some(Kind::Request),
        "response" => Some(Kind::Response),
        _ => None,
    };
    let key = words.next().unwrap().parse().unwrap();
    let version = words.next().unwrap().parse().unwrap();
    let hex = words.next().unwrap_or_default().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    Golden { kind, key, version, bytes: hex.chunks(2).map(byte).collect() }
}
