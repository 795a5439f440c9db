//! Every decoder of `klamm-wire`, with what must hold for bytes that it takes.
#![allow(clippy::panic, reason = "this is how a fuzz target reports")]

use bytes::Bytes;
use klamm_wire::codec::{self, CodecError};
use klamm_wire::framing::FrameSplitter;
use klamm_wire::metadata_records::MetadataRecord;
use klamm_wire::schema::{self, Kind};
use klamm_wire::{Compression, RawBatch};

/// Decompressed bytes that a batch may grow to here.
pub(super) const LIMIT_BYTES: usize = 1 << 20;

pub(super) fn record_batch(input: &[u8]) {
    let mut rest = Bytes::copy_from_slice(input);
    while let Some(Ok(batch)) = RawBatch::split(&mut rest) {
        let header = batch.header();
        assert_eq!(header.size_bytes(), batch.bytes().len(), "a batch is as long as it says");
        assert_eq!(header.encode()[..], batch.bytes()[..header.encode().len()], "its header survives");
        let _ = batch.verify_crc();
        let valid = batch.validate_records(LIMIT_BYTES);
        let Ok(records) = batch.records(LIMIT_BYTES) else {
            assert!(valid.is_err(), "a batch without records is not valid");
            continue;
        };
        assert!(records.body().len() <= LIMIT_BYTES.max(input.len()), "the limit holds");
        let mut read = 0;
        for record in records.iter() {
            let Ok(record) = record else {
                assert!(valid.is_err(), "a batch with a bad record is not valid");
                break;
            };
            record.headers().for_each(drop);
            read += 1;
        }
        assert!(valid.is_err() || Some(read) == u32::try_from(header.count).ok(), "{read} of {header:?}");
        let moved = batch.assigned(7, 3).concat();
        let moved = RawBatch::parse(moved.into()).unwrap_or_else(|error| panic!("moved: {error}"));
        assert_eq!((moved.header().base_offset, moved.header().partition_leader_epoch), (7, 3));
        assert_eq!(moved.verify_crc().is_ok(), batch.verify_crc().is_ok(), "its place is outside of the CRC");
    }
}

pub(super) fn gzip(input: &[u8]) {
    decompress(Compression::Gzip, input);
}

pub(super) fn snappy(input: &[u8]) {
    decompress(Compression::Snappy, input);
}

pub(super) fn lz4(input: &[u8]) {
    decompress(Compression::Lz4, input);
}

pub(super) fn zstd(input: &[u8]) {
    decompress(Compression::Zstd, input);
}

fn decompress(codec: Compression, input: &[u8]) {
    let Ok(plain) = codec.decompress(input, LIMIT_BYTES) else { return };
    assert!(plain.len() <= LIMIT_BYTES, "{} B exceed the limit", plain.len());
    if let Some(less) = plain.len().checked_sub(1) {
        assert!(codec.decompress(input, less).is_err(), "a limit of {less} B holds");
    }
    let packed = codec.compress(None, &plain).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(codec.decompress(&packed, plain.len()).as_deref(), Ok(&plain[..]), "{codec} there and back");
}

/// Api key and version in one byte each, then a body.
fn addressed(input: &[u8]) -> Option<(i16, i16, Bytes)> {
    let (&[api_key, version], body) = input.split_first_chunk::<2>()?;
    Some((api_key.into(), version.into(), Bytes::copy_from_slice(body)))
}

pub(super) fn request_body(input: &[u8]) {
    let Some((api_key, version, body)) = addressed(input) else { return };
    let walked = schema::walk(Kind::Request, api_key, version, &body).is_ok();
    agree(walked, codec::decode_any_request(api_key, version, body));
}

pub(super) fn response_body(input: &[u8]) {
    let Some((api_key, version, body)) = addressed(input) else { return };
    let walked = schema::walk(Kind::Response, api_key, version, &body).is_ok();
    agree(walked, codec::decode_any_response(api_key, version, body));
}

/// What passes the walk decodes, if `kafka-protocol` knows the version at all.
fn agree(walked: bool, decoded: Result<(), CodecError>) {
    match decoded {
        Ok(()) => assert!(walked, "decoded without a walk"),
        Err(CodecError::UnsupportedVersion { .. } | CodecError::Malformed(_)) => {}
        Err(error) => panic!("passed the walk: {error}"),
    }
}

pub(super) fn request_header(input: &[u8]) {
    let mut rest = Bytes::copy_from_slice(input);
    let Ok(head) = codec::decode_request_header(&mut rest) else { return };
    assert!(rest.len() <= input.len());
    let again = codec::encode_request_header(
        head.api_key,
        head.api_version,
        head.correlation_id,
        head.client_id.as_deref(),
    );
    let mut again = [&again[..], &rest].concat().into();
    assert_eq!(codec::decode_request_header(&mut again), Ok(head), "there and back");
}

pub(super) fn response_header(input: &[u8]) {
    let Some((api_key, version, mut rest)) = addressed(input) else { return };
    let first = codec::peek_correlation_id(&rest);
    if let Ok(id) = codec::decode_response_header(api_key, version, &mut rest) {
        assert_eq!(first, Some(id));
    }
}

/// The first byte tears the stream.
pub(super) fn frame_splitter(input: &[u8]) {
    let Some((size, stream)) = input.split_first() else { return };
    let mut torn = FrameSplitter::new(LIMIT_BYTES);
    let mut whole = FrameSplitter::new(LIMIT_BYTES);
    whole.push(stream);
    for piece in stream.chunks(usize::from(*size).max(1)) {
        torn.read_buffer().extend_from_slice(piece);
        loop {
            match torn.next_frame() {
                Ok(Some(frame)) => assert_eq!(whole.next_frame(), Ok(Some(frame)), "however it is torn"),
                Ok(None) => break,
                Err(error) => return assert_eq!(whole.next_frame(), Err(error), "however it is torn"),
            }
        }
    }
    assert_eq!(whole.next_frame(), Ok(None));
    assert_eq!(torn.pending_bytes(), whole.pending_bytes());
}

pub(super) fn metadata_record(input: &[u8]) {
    if let Ok(record) = MetadataRecord::decode(input) {
        assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record), "there and back");
    }
}

/// The lowest bit of the first byte says of which half.
pub(super) fn schema_walk(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let Some((api_key, version, body)) = addressed(rest) else { return };
    let kind = if kind & 1 == 0 { Kind::Request } else { Kind::Response };
    if schema::walk(kind, api_key, version, &body).is_ok() {
        let longer = [&body[..], &[0]].concat();
        let taken = schema::walk(kind, api_key, version, &longer).is_ok();
        // Kafka ignores what follows a request; so there may be something of that kind already.
        if kind == Kind::Request {
            assert!(taken, "what follows a request is ignored");
            return;
        }
        assert!(!taken, "nothing may follow");
        let shorter = body.len().checked_sub(1).and_then(|end| body.get(..end));
        let refused = shorter.is_none_or(|shorter| schema::walk(kind, api_key, version, shorter).is_err());
        assert!(refused, "nothing may be missing");
    }
}
