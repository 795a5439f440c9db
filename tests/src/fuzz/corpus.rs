//! What fuzzing begins with: bytes recorded from Apache Kafka, cut into each target's shape, and some made here.

use std::fs;
use std::io;

use bytes::BytesMut;
use klamm_wire::messages::ApiKey;
use klamm_wire::{BatchBuilder, Compression, ProducerStamp, codec, framing};

use super::front_door;
use crate::workspace;

/// Where the records of a batch begin.
const BATCH_HEADER_BYTES: usize = 61;

/// One sample for one target.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What it is a sample of.
    pub name: String,
    /// The target's input.
    pub bytes: Vec<u8>,
}

/// One recorded message body.
struct Message {
    name: String,
    api_key: u8,
    version: u8,
    body: Vec<u8>,
}

/// The samples of a target, the same each time.
///
/// # Errors
///
/// If the recorded bytes cannot be read.
pub fn samples(target: &str) -> io::Result<Vec<Sample>> {
    let sample = |name: &str, bytes: Vec<u8>| Sample { name: name.to_owned(), bytes };
    let addressed = |message: &Message| [&[message.api_key, message.version], &message.body[..]].concat();
    Ok(match target {
        "record_batch" => batches()?,
        "gzip" => packed(Compression::Gzip)?,
        "snappy" => packed(Compression::Snappy)?,
        "lz4" => packed(Compression::Lz4)?,
        "zstd" => packed(Compression::Zstd)?,
        "request_body" => requests()?.iter().map(|m| sample(&m.name, addressed(m))).collect(),
        "response_body" => responses()?.iter().map(|m| sample(&m.name, addressed(m))).collect(),
        "request_header" => requests()?.iter().map(|m| sample(&m.name, with_head(m, 7))).collect(),
        "response_header" => {
            let answer = |m: &Message| {
                let head = codec::encode_response_header(m.api_key.into(), m.version.into(), 7);
                [&[m.api_key, m.version], &head[..], &m.body].concat()
            };
            responses()?.iter().map(|m| sample(&m.name, answer(m))).collect()
        }
        "frame_splitter" => {
            let all = requests()?;
            let streams = all.chunks(5).map(|some| {
                let frames = some.iter().flat_map(|message| framed(&with_head(message, 7)));
                sample(&some[0].name, [7].into_iter().chain(frames).collect())
            });
            streams.collect()
        }
        "metadata_record" => metadata_records()?,
        "schema_walk" => {
            let halves = [(0, requests()?), (1, responses()?)];
            let all = halves.iter().flat_map(|(half, messages)| messages.iter().map(move |m| (*half, m)));
            all.map(|(half, m)| sample(&m.name, [&[half], &addressed(m)[..]].concat())).collect()
        }
        "front_door" => {
            let recorded = requests()?;
            let single = recorded.iter().map(|m| {
                let frame = front_door::frame(m.api_key, m.version, &m.body);
                sample(&m.name, [&[front_door::FRAMES], &frame[..]].concat())
            });
            let raw = recorded.iter().take(20).map(|m| {
                let stream = framed(&with_head(m, 7));
                sample(&format!("raw-{}", m.name), [&[front_door::STREAM], &stream[..]].concat())
            });
            let made = front_door::samples().into_iter().map(|(name, bytes)| sample(name, bytes));
            single.chain(raw).chain(made).collect()
        }
        "voter_door" => {
            let made = front_door::voter_samples().into_iter().map(|(name, bytes)| sample(name, bytes));
            // What is recorded is mostly for brokers: a voter offers some of it, and refuses the rest.
            let recorded = requests()?;
            let single = recorded.iter().filter(|m| m.api_key >= 18).map(|m| {
                let frame = front_door::frame(m.api_key, m.version, &m.body);
                sample(&m.name, [&[front_door::FRAMES], &frame[..]].concat())
            });
            made.chain(single).collect()
        }
        other => return Err(io::Error::other(format!("there is no fuzz target {other}"))),
    })
}

fn with_head(message: &Message, correlation_id: i32) -> Vec<u8> {
    let (api_key, version) = (message.api_key.into(), message.version.into());
    let head = codec::encode_request_header(api_key, version, correlation_id, Some("fuzzer"));
    [&head[..], &message.body].concat()
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&framing::length_prefix(frame.len()).unwrap_or_default()[..], frame].concat()
}

fn recorded(file: &str) -> io::Result<String> {
    fs::read_to_string(workspace().join("sdk/wire/tests/golden").join(file))
}

fn requests() -> io::Result<Vec<Message>> {
    Ok(recorded("requests.hex")?.lines().filter_map(message).collect())
}

fn responses() -> io::Result<Vec<Message>> {
    let (made, live) = (recorded("responses.hex")?, recorded("answers.hex")?);
    Ok(made.lines().chain(live.lines()).filter_map(message).collect())
}

/// A line `API VERSION VARIANT BODY` of the recorded messages.
fn message(line: &str) -> Option<Message> {
    let mut words = line.split_whitespace();
    let (api, version, variant) = (words.next()?, words.next()?, words.next()?);
    let api_key = (0..=u8::MAX)
        .find(|key| ApiKey::try_from(i16::from(*key)).is_ok_and(|known| format!("{known:?}") == api))?;
    let name = format!("{api}-{version}-{variant}");
    Some(Message {
        name,
        api_key,
        version: version.parse().ok()?,
        body: hex(words.next().unwrap_or_default())?,
    })
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok();
    (0..digits.len() / 2).map(byte).collect()
}

/// Lines `record TYPE VERSION BYTES` of what Kafka's own classes wrote.
fn metadata_records() -> io::Result<Vec<Sample>> {
    let text = fs::read_to_string(workspace().join("tests/golden/kafka-4.3.0-messages.txt"))?;
    let records = text.lines().filter_map(|line| {
        let mut words = line.strip_prefix("record ")?.split_whitespace();
        let (kind, version) = (words.next()?, words.next()?);
        Some(Sample { name: format!("record-{kind}-{version}"), bytes: hex(words.next()?)? })
    });
    Ok(records.collect())
}

/// Batches of Kafka's, and one of each codec of ours.
fn batches() -> io::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for entry in fs::read_dir(workspace().join("sdk/wire/tests/golden"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            samples.push(Sample { name, bytes: fs::read(&path)? });
        }
    }
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    for codec in Compression::ALL {
        samples
            .push(Sample { name: format!("made-{codec}"), bytes: batch(codec).map_err(io::Error::other)? });
    }
    Ok(samples)
}

/// A batch of twenty records.
pub(super) fn batch(codec: Compression) -> Result<Vec<u8>, klamm_wire::CompressionError> {
    let mut builder = BatchBuilder::new(BytesMut::new());
    for index in 0..20_i64 {
        let headers = [("h", Some("1")), ("n", None)];
        builder.append(1_000 + index, Some(b"key"), Some(&[b'v'; 50]), &headers);
    }
    let sealed = builder.seal(codec, None)?;
    let stamp = ProducerStamp { producer_id: 1, producer_epoch: 0, base_sequence: 0 };
    Ok([&sealed.header(stamp)[..], sealed.records()].concat())
}

/// Compressed records, and some other data.
fn packed(codec: Compression) -> io::Result<Vec<Sample>> {
    let ours = batches()?.into_iter().filter(|batch| batch.name.ends_with(codec.name()));
    let mut samples: Vec<_> = ours
        .map(|batch| Sample {
            bytes: batch.bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default().to_vec(),
            ..batch
        })
        .collect();
    for (name, plain) in [("empty", Vec::new()), ("zeros", vec![0; 70_000]), ("counted", (0..=255).collect())]
    {
        let bytes = codec.compress(None, &plain).map_err(io::Error::other)?;
        samples.push(Sample { name: name.to_owned(), bytes });
    }
    Ok(samples)
}
