//! Record batches (magic 2), written and read without our own code for them.

use serde_json::Value;

use super::tree::{Node, hex};

const HEADER: usize = 61;
/// What comes before the bytes that the CRC covers.
const BEFORE_CRC_ENDS: usize = 21;

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Writes batches that are given as objects. `records` is a list of values; everything else in the header has a default and
/// can be set: `base_offset`, `leader_epoch`, `magic`, `attributes`, `first_timestamp`, `max_timestamp`, `producer_id`,
/// `producer_epoch`, `sequence`, `count`, `last_offset_delta`, `crc` (added to the right one), `length` (likewise), `cut`
/// (bytes left out at the end).
pub(super) fn write(batches: &[Value]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    for batch in batches {
        write_one(batch, &mut out)?;
    }
    Ok(out)
}

fn write_one(batch: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    let values = batch["records"].as_array().map(Vec::as_slice).unwrap_or_default();
    let number = |name: &str, default: i64| match &batch[name] {
        Value::Null => Ok(default),
        value => value.as_i64().ok_or_else(|| format!("{name}: {value} is no number")),
    };
    let count = values.len() as i64;
    let first_timestamp = number("first_timestamp", 1_600_000_000_000)?;
    let mut body = Vec::new();
    body.extend((number("attributes", 0)? as i16).to_be_bytes());
    body.extend((number("last_offset_delta", count - 1)? as i32).to_be_bytes());
    body.extend(first_timestamp.to_be_bytes());
    body.extend(number("max_timestamp", first_timestamp + (count - 1).max(0))?.to_be_bytes());
    body.extend(number("producer_id", -1)?.to_be_bytes());
    body.extend((number("producer_epoch", -1)? as i16).to_be_bytes());
    body.extend((number("sequence", -1)? as i32).to_be_bytes());
    body.extend((number("count", count)? as i32).to_be_bytes());
    for (index, value) in values.iter().enumerate() {
        let (key, value) = match value {
            Value::Array(pair) => (pair[0].as_str(), pair[1].as_str()),
            value => (None, value.as_str()),
        };
        let mut record = vec![0];
        zigzag(index as i64, &mut record);
        zigzag(index as i64, &mut record);
        for part in [key, value] {
            zigzag(part.map_or(-1, |part| part.len() as i64), &mut record);
            record.extend(part.unwrap_or_default().as_bytes());
        }
        zigzag(0, &mut record);
        zigzag(record.len() as i64, &mut body);
        body.extend(record);
    }
    let crc = i64::from(crc32c(&body)) + number("crc", 0)?;
    let start = out.len();
    out.extend(number("base_offset", 0)?.to_be_bytes());
    out.extend(((body.len() + BEFORE_CRC_ENDS - 12) as i32 + number("length", 0)? as i32).to_be_bytes());
    out.extend((number("leader_epoch", -1)? as i32).to_be_bytes());
    out.push(number("magic", 2)? as u8);
    out.extend((crc as u32).to_be_bytes());
    out.extend(body);
    let cut = number("cut", 0)? as usize;
    out.truncate(out.len().saturating_sub(cut).max(start));
    Ok(())
}

/// Reads batches, the last of which may be cut short.
pub(super) fn read(mut bytes: &[u8]) -> Node {
    let mut batches = Vec::new();
    while bytes.len() >= HEADER {
        let length = i32::from_be_bytes(at(bytes, 8));
        let Some(end) = usize::try_from(length).ok().map(|length| length + 12) else { break };
        if !(HEADER..=bytes.len()).contains(&end) {
            break;
        }
        let (batch, rest) = bytes.split_at(end);
        batches.push(read_one(batch));
        bytes = rest;
    }
    if !bytes.is_empty() {
        // How much of a batch fits is compared; its bytes were or will be whole elsewhere.
        batches.push(Node::Struct(vec![("Rest".into(), Node::Int(bytes.len() as i64))]));
    }
    Node::List(batches)
}

fn read_one(batch: &[u8]) -> Node {
    let crc = u32::from_be_bytes(at(batch, 17));
    let field = |name: &str, value: i64| (name.to_owned(), Node::Int(value));
    Node::Struct(vec![
        field("BaseOffset", i64::from_be_bytes(at(batch, 0))),
        field("BatchLength", i32::from_be_bytes(at(batch, 8)).into()),
        field("PartitionLeaderEpoch", i32::from_be_bytes(at(batch, 12)).into()),
        field("Magic", i64::from(batch[16])),
        ("CrcIsRight".into(), Node::Bool(crc == crc32c(&batch[BEFORE_CRC_ENDS..]))),
        field("Attributes", i16::from_be_bytes(at(batch, 21)).into()),
        field("LastOffsetDelta", i32::from_be_bytes(at(batch, 23)).into()),
        field("BaseTimestamp", i64::from_be_bytes(at(batch, 27))),
        field("MaxTimestamp", i64::from_be_bytes(at(batch, 35))),
        field("ProducerId", i64::from_be_bytes(at(batch, 43))),
        field("ProducerEpoch", i16::from_be_bytes(at(batch, 51)).into()),
        field("BaseSequence", i32::from_be_bytes(at(batch, 53)).into()),
        field("RecordCount", i32::from_be_bytes(at(batch, 57)).into()),
        ("Records".into(), Node::Text(hex(&batch[HEADER..]))),
    ])
}

fn at<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[start..start + N]);
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use klamm_wire::RawBatch;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_batch_is_what_our_own_code_takes_for_one() {
        let batch =
            json!({ "records": ["a", ["k", "v"]], "producer_id": 7, "producer_epoch": 1, "sequence": 3 });
        let bytes = write(&[batch]).unwrap();
        let raw = RawBatch::split(&mut Bytes::from(bytes.clone())).unwrap().unwrap();
        raw.verify_crc().unwrap();
        assert_eq!((raw.header().count, raw.header().producer_id), (2, 7));
        let Node::List(read) = read(&bytes) else { panic!("a list") };
        assert_eq!(read[0].at("CrcIsRight"), Some(&Node::Bool(true)));
        assert_eq!(read[0].at("BaseSequence"), Some(&Node::Int(3)));
    }

    #[test]
    fn a_batch_can_be_wrong_on_purpose() {
        let bytes = write(&[json!({ "records": ["a"], "crc": 1 })]).unwrap();
        let Node::List(read) = read(&bytes) else { panic!("a list") };
        assert_eq!(read[0].at("CrcIsRight"), Some(&Node::Bool(false)));
    }
}
