use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as theirs;
use proptest::prelude::*;

use super::*;
use crate::compression::Compression;

const LIMIT: usize = 1 << 20;
const STAMP: ProducerStamp = ProducerStamp { producer_id: 4000, producer_epoch: 7, base_sequence: 90 };

#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn build(records: &[Owned]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(BytesMut::new());
    for (index, r) in (0..).zip(records) {
        let before = builder.len_bytes();
        let delta = builder.append(r.timestamp, r.key.as_deref(), r.value.as_deref(), &r.headers);
        assert_eq!(delta, index);
        let bound = BatchBuilder::upper_bound(
            r.key.as_ref().map(Vec::len),
            r.value.as_ref().map(Vec::len),
            &r.headers,
        );
        assert!(builder.len_bytes() - before <= bound, "upper bound");
    }
    builder
}

fn whole(sealed: &SealedBatch, stamp: ProducerStamp) -> Bytes {
    let bytes = Bytes::from([&sealed.header(stamp)[..], sealed.records()].concat());
    assert_eq!(bytes.len(), sealed.len_bytes());
    bytes
}

fn batch(records: &[Owned], compression: Compression) -> Bytes {
    whole(&build(records).seal(compression, None).unwrap(), STAMP)
}

fn own(record: &RecordRef<'_>) -> Owned {
    let headers = record
        .headers()
        .map(|h| (String::from_utf8(h.name.to_vec()).unwrap(), h.value.map(<[u8]>::to_vec)))
        .collect();
    Owned {
        timestamp: record.timestamp,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers,
    }
}

fn read(raw: &RawBatch) -> Result<Vec<Owned>, BatchError> {
    raw.records(LIMIT)?.iter().map(|record| record.map(|r| own(&r))).collect()
}

fn simple(value: &[u8]) -> Owned {
    Owned { timestamp: 1000, key: None, value: Some(value.to_vec()), headers: vec![] }
}

fn field() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..150))
}

fn records(timestamps: impl Strategy<Value = i64>) -> impl Strategy<Value = Vec<Owned>> {
    // names are unique within a record, as the peer under comparison keeps them in a map
    let headers =
        prop::collection::btree_map("[a-zé]{0,4}", field(), 0..4).prop_map(|m| m.into_iter().collect());
    let record = (timestamps, field(), field(), headers).prop_map(|(timestamp, key, value, headers)| Owned {
        timestamp,
        key,
        value,
        headers,
    });
    prop::collection::vec(record, 1..20)
}

/// Far apart enough for long varints, near enough for arithmetic without wrapping.
fn plausible() -> impl Strategy<Value = i64> {
    -(1i64 << 45)..1 << 45
}

fn codecs() -> impl Strategy<Value = Compression> {
    let all = Compression::ALL.into_iter().filter(|c| *c != Compression::Zstd || cfg!(feature = "zstd"));
    prop::sample::select(all.collect::<Vec<_>>())
}

fn their_record(offset: i64, r: &Owned) -> theirs::Record {
    let headers: IndexMap<_, _> = r
        .headers
        .iter()
        .map(|(name, value)| (StrBytes::from_string(name.clone()), value.clone().map(Bytes::from)))
        .collect();
    theirs::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: STAMP.producer_id,
        producer_epoch: STAMP.producer_epoch,
        timestamp_type: theirs::TimestampType::Creation,
        offset,
        sequence: STAMP.base_sequence + offset as i32,
        timestamp: r.timestamp,
        key: r.key.clone().map(Bytes::from),
        value: r.value.clone().map(Bytes::from),
        headers,
    }
}

proptest! {
    #[test]
    fn the_peer_reads_what_we_write(records in records(plausible()), codec in codecs()) {
        let mut bytes = batch(&records, codec);
        let unpack = |packed: &mut Bytes, id: theirs::Compression| {
            let codec = Compression::from_attributes(id as i16).unwrap();
            Ok(Bytes::from(codec.decompress(packed, LIMIT).unwrap()))
        };
        let set = theirs::RecordBatchDecoder::decode_with_custom_compression(&mut bytes, Some(unpack)).unwrap();
        prop_assert_eq!(set.compression as i16, codec.id());
        let expected: Vec<_> = (0..).zip(&records).map(|(offset, r)| their_record(offset, r)).collect();
        prop_assert_eq!(set.records, expected);
    }

    #[test]
    fn we_read_what_the_peer_writes(records in records(plausible()), base in 0i64..1 << 40) {
        let list: Vec<_> = (0..).zip(&records).map(|(offset, r)| {
            let mut record = their_record(offset, r);
            record.offset += base;
            record.partition_leader_epoch = 12;
            record
        }).collect();
        let mut bytes = BytesMut::new();
        let options = theirs::RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
        theirs::RecordBatchEncoder::encode(&mut bytes, &list, &options).unwrap();

        let mut bytes = bytes.freeze();
        let raw = RawBatch::split(&mut bytes).unwrap().unwrap();
        prop_assert!(bytes.is_empty());
        prop_assert_eq!(raw.verify_crc(), Ok(()));
        prop_assert_eq!(raw.validate_records(LIMIT), Ok(()));
        let header = raw.header();
        prop_assert_eq!((header.base_offset, header.partition_leader_epoch), (base, 12));
        prop_assert_eq!(header.last_offset(), base + records.len() as i64 - 1);
        prop_assert_eq!(&header.encode()[..], &raw.bytes()[..HEADER_BYTES]);
        prop_assert_eq!(read(&raw).unwrap(), records);
    }

    #[test]
    fn any_timestamps_survive(records in records(any::<i64>()), codec in codecs()) {
        let raw = RawBatch::parse(batch(&records, codec)).unwrap();
        prop_assert_eq!(raw.header().max_timestamp, records.iter().map(|r| r.timestamp).max().unwrap());
        prop_assert_eq!(read(&raw).unwrap(), records);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_whatever(Bytes::from(bytes));
    }

    /// Mutations get past the magic byte, and past the record lengths that random bytes never satisfy.
    #[test]
    fn mutated_batches_never_panic_and_never_pass_the_crc(
        records in records(any::<i64>()), codec in codecs(),
        at in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let valid = batch(&records, codec);
        let mut bytes = valid.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let bytes = Bytes::from(bytes);
        read_whatever(bytes.clone());
        if let Ok(raw) = RawBatch::parse(bytes) {
            let outside = (0..8).contains(&at) || (12..16).contains(&at);
            prop_assert_eq!(raw.verify_crc().is_ok(), outside, "byte {}", at);
        }
    }

    #[test]
    fn a_truncated_tail_is_no_error(records in records(plausible()), cut in any::<prop::sample::Index>()) {
        let one = batch(&records, Compression::None);
        let tail = one.slice(..cut.index(one.len()));
        let mut bytes = Bytes::from([&one[..], &one, &tail].concat());
        for _ in 0..2 {
            let raw = RawBatch::split(&mut bytes).unwrap().unwrap();
            prop_assert_eq!(raw.bytes(), &one);
        }
        prop_assert!(RawBatch::split(&mut bytes).is_none());
        prop_assert_eq!(RawBatch::parse(tail.clone()).unwrap_err(), BatchError::Truncated {
            need: if tail.len() < 12 { HEADER_BYTES } else { one.len() },
            have: tail.len(),
        });
    }
}

/// Everything a peer's bytes can reach.
fn read_whatever(mut bytes: Bytes) {
    let _ = RawBatch::parse(bytes.clone());
    while let Some(Ok(raw)) = RawBatch::split(&mut bytes) {
        let _ = raw.verify_crc();
        let _ = raw.validate_records(LIMIT);
        let _ = (raw.header().last_offset(), raw.header().last_sequence(), raw.header().next_offset());
        let _ = raw.assigned_with_append_time(1, 2, 3);
        if let Ok(records) = raw.records(LIMIT) {
            for record in records.iter().flatten() {
                let _ = record.headers().count();
            }
        }
    }
}

#[test]
fn null_and_empty_are_kept_apart() {
    let fields = [None, Some(vec![]), Some(b"x".to_vec())];
    let mut records = vec![];
    for key in &fields {
        for value in &fields {
            let headers = vec![("h".to_owned(), key.clone()), (String::new(), value.clone())];
            records.push(Owned { timestamp: 5, key: key.clone(), value: value.clone(), headers });
        }
    }
    let raw = RawBatch::parse(batch(&records, Compression::None)).unwrap();
    assert_eq!(read(&raw).unwrap(), records);
}

#[test]
fn one_header_name_may_occur_twice() {
    let headers: Vec<_> = [1, 2, 3].map(|n| ("same".to_owned(), Some(vec![n]))).to_vec();
    let records = [Owned { headers, ..simple(b"v") }];
    let raw = RawBatch::parse(batch(&records, Compression::None)).unwrap();
    assert_eq!(read(&raw).unwrap(), records);
}

#[test]
fn values_can_be_kept_without_copying() {
    let raw = RawBatch::parse(batch(&[simple(b"keep me")], Compression::None)).unwrap();
    let records = raw.records(LIMIT).unwrap();
    let value = records.iter().next().unwrap().unwrap().value.unwrap();
    let kept = records.body().slice_ref(value);
    assert_eq!(kept.as_ptr(), raw.bytes()[raw.bytes().len() - 8..].as_ptr(), "still the batch's memory");
}

#[test]
fn reading_can_be_interrupted_and_resumed() {
    let list: Vec<_> = [b"a", b"b", b"c"].map(|v| simple(v)).to_vec();
    let records = RawBatch::parse(batch(&list, Compression::Gzip)).unwrap().records(LIMIT).unwrap();
    let mut iter = records.iter();
    assert_eq!(iter.next().unwrap().unwrap().value, Some(&b"a"[..]));
    let rest: Vec<_> = records.iter_from(iter.position()).map(|r| r.unwrap().offset).collect();
    assert_eq!(rest, [1, 2]);
}

#[test]
fn a_header_can_be_made_twice_for_one_batch() {
    let sealed = build(&[simple(b"a"), simple(b"b")]).seal(Compression::Gzip, None).unwrap();
    for base_sequence in [0, 41] {
        let raw = RawBatch::parse(whole(&sealed, ProducerStamp { base_sequence, ..STAMP })).unwrap();
        assert_eq!(raw.verify_crc(), Ok(()));
        assert_eq!(
            (raw.header().base_sequence, raw.header().last_sequence()),
            (base_sequence, base_sequence + 1)
        );
        assert!(
            raw.header().has_producer() && !raw.header().is_transactional() && !raw.header().is_control()
        );
    }
    let raw = RawBatch::parse(whole(&sealed, NO_PRODUCER)).unwrap();
    assert_eq!((raw.header().last_sequence(), raw.header().has_producer()), (-1, false));
}

#[test]
fn a_sealed_batch_can_be_read_back_to_split_it() {
    let list = [simple(b"a"), simple(b"b")];
    let sealed = build(&list).seal(Compression::Lz4, None).unwrap();
    let records = sealed.decode(LIMIT).unwrap();
    assert_eq!(records.iter().map(|r| own(&r.unwrap())).collect::<Vec<_>>(), list);
}

#[test]
fn memory_comes_back_when_nobody_holds_it() {
    for codec in [Compression::None, Compression::Gzip] {
        let mut builder = BatchBuilder::new(BytesMut::with_capacity(16_384));
        builder.append(1, None, Some(&[0; 1000]), NO_HEADERS);
        let sealed = builder.seal(codec, None).unwrap();
        let held = sealed.clone();
        assert!(sealed.reclaim().is_none(), "{codec}: a request in flight still holds it");
        let memory = held.reclaim().unwrap();
        assert!(memory.is_empty() && memory.capacity() == 16_384, "{codec}: {}", memory.capacity());
    }
}

#[test]
fn sequences_wrap_to_zero() {
    let sealed = build(&[simple(b"a"), simple(b"b"), simple(b"c")]).seal(Compression::None, None).unwrap();
    for (base_sequence, last) in [(i32::MAX - 2, i32::MAX), (i32::MAX - 1, 0), (i32::MAX, 1)] {
        let raw = RawBatch::parse(whole(&sealed, ProducerStamp { base_sequence, ..STAMP })).unwrap();
        assert_eq!(raw.header().last_sequence(), last);
    }
}

#[test]
fn a_broker_places_a_batch_without_touching_its_crc() {
    let list = [simple(b"a"), simple(b"b")];
    let raw = RawBatch::parse(batch(&list, Compression::None)).unwrap();
    let [header, records] = raw.assigned(500, 3);
    assert_eq!(records.as_ptr(), raw.bytes()[HEADER_BYTES..].as_ptr(), "shared");
    let placed = RawBatch::parse(Bytes::from([header, records].concat())).unwrap();
    assert_eq!(placed.verify_crc(), Ok(()));
    assert_eq!(placed.header().crc, raw.header().crc);
    assert_eq!((placed.header().partition_leader_epoch, placed.header().next_offset()), (3, 502));
    let offsets: Vec<_> = placed.records(LIMIT).unwrap().iter().map(|r| r.unwrap().offset).collect();
    assert_eq!(offsets, [500, 501]);
}

#[test]
fn log_append_time_replaces_every_timestamp_and_the_crc() {
    let list = [simple(b"a"), Owned { timestamp: 77, ..simple(b"b") }];
    let raw = RawBatch::parse(batch(&list, Compression::Gzip)).unwrap();
    assert_eq!(raw.header().timestamp_type(), TimestampType::CreateTime);
    let placed = Bytes::from(raw.assigned_with_append_time(500, 3, 9_999).concat());
    let placed = RawBatch::parse(placed).unwrap();
    assert_eq!(placed.verify_crc(), Ok(()));
    assert_eq!(placed.header().timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(placed.header().compression(), Ok(Compression::Gzip));
    let times: Vec<_> = placed.records(LIMIT).unwrap().iter().map(|r| r.unwrap().timestamp).collect();
    assert_eq!(times, [9_999, 9_999]);
}

/// A valid batch with one header field replaced.
fn with(change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let bytes = batch(&[simple(b"a"), simple(b"b")], Compression::None);
    let mut header = BatchHeader::parse(&bytes).unwrap();
    change(&mut header);
    Bytes::from([&header.encode()[..], &bytes[HEADER_BYTES..]].concat())
}

#[test]
fn old_formats_are_refused_by_name() {
    for magic in [0, 1, 3, -1] {
        let bytes = with(|h| h.magic = magic);
        assert_eq!(RawBatch::parse(bytes.clone()).unwrap_err(), BatchError::UnsupportedMagic { magic });
        let mut buf = bytes.slice(..40); // old formats are shorter than this header
        assert_eq!(RawBatch::split(&mut buf).unwrap().unwrap_err(), BatchError::UnsupportedMagic { magic });
        assert!(buf.is_empty() && RawBatch::split(&mut buf).is_none(), "no endless loop over an error");
    }
}

#[test]
fn impossible_lengths_are_refused() {
    for length in [-1, i32::MIN, 0, 48] {
        let bytes = with(|h| h.length = length);
        assert_eq!(RawBatch::parse(bytes.clone()).unwrap_err(), BatchError::Length { length });
        assert!(RawBatch::split(&mut bytes.slice(..30)).unwrap().is_err());
    }
    assert_eq!(
        RawBatch::parse(with(|h| h.length += 1)).unwrap_err(),
        BatchError::Truncated { need: 62 + 16, have: 61 + 16 }
    );
    assert_eq!(RawBatch::parse(with(|h| h.length -= 1)).unwrap_err(), BatchError::Trailing { extra: 1 });
    assert!(RawBatch::split(&mut with(|h| h.length = i32::MAX)).is_none(), "a tail, as far as one can tell");
}

#[test]
fn counts_are_held_against_bytes_and_offsets() {
    for count in [-1, i32::MIN, i32::MAX, 3] {
        let raw = RawBatch::parse(with(|h| h.count = count)).unwrap();
        assert_eq!(raw.records(LIMIT).unwrap_err(), BatchError::Count { count });
    }
    let fewer = RawBatch::parse(with(|h| h.count = 1)).unwrap();
    assert!(matches!(read(&fewer), Err(BatchError::Record { index: 1, .. })), "bytes are left over");
    let raw = RawBatch::parse(with(|h| h.last_offset_delta = 5)).unwrap();
    assert!(raw.records(LIMIT).is_ok(), "compaction leaves such gaps");
    assert_eq!(raw.validate_records(LIMIT), Err(BatchError::Count { count: 2 }), "a producer does not");
    let unknown = RawBatch::parse(with(|h| h.attributes = 5)).unwrap();
    assert_eq!(unknown.records(LIMIT).unwrap_err(), BatchError::UnknownCodec { attributes: 5 });
}

/// A batch of one record with the given bytes.
fn one_record(record: &[u8]) -> RawBatch {
    let mut header = BatchHeader::parse(&batch(&[simple(b"")], Compression::None)).unwrap();
    header.length = (HEADER_BYTES - 12 + record.len()) as i32;
    RawBatch::parse(Bytes::from([&header.encode()[..], record].concat())).unwrap()
}

#[test]
fn malformed_records_are_told_by_what_is_wrong() {
    let cases: [(&[u8], &str); 12] = [
        (&[12, 0, 0, 0, 1, 1, 0], ""),
        (&[13, 0, 0, 0, 1, 1, 0], "length is negative"),
        (&[14, 0, 0, 0, 1, 1, 0], "longer than the batch"),
        (&[0x80; 8], "length is truncated"),
        (&[12, 0, 0x80, 0x80, 0x80, 0x80, 0x80], "bad timestamp delta"),
        (&[12, 0, 0, 0x80, 0x80, 0x80, 0x80], "bad offset delta"),
        (&[12, 0, 0, 0, 3, 1, 0], "bad key"),
        (&[12, 0, 0, 0, 1, 40, 0], "bad value"),
        (&[12, 0, 0, 0, 1, 1, 1], "negative header count"),
        (&[12, 0, 0, 0, 1, 1, 2], "bad header"),
        (&[16, 0, 0, 0, 1, 1, 2, 1, 0], "bad header"),
        (&[14, 0, 0, 0, 1, 1, 0, 0], "bytes are left over in the record"),
    ];
    for (bytes, wanted) in cases {
        match read(&one_record(bytes)) {
            Ok(_) => assert_eq!(wanted, "", "{bytes:?} passed"),
            Err(BatchError::Record { index: 0, reason, .. }) => assert_eq!(reason, wanted, "{bytes:?}"),
            Err(other) => panic!("{bytes:?}: {other}"),
        }
    }
    let shifted = one_record(&[12, 0, 0, 2, 1, 1, 0]);
    assert!(read(&shifted).is_ok() && shifted.validate_records(LIMIT).is_err(), "offset delta 1 comes first");
}

#[test]
fn a_compressed_batch_is_bounded_by_the_callers_limit() {
    let raw = RawBatch::parse(batch(&[simple(&[0; 100_000])], Compression::Gzip)).unwrap();
    assert!(raw.bytes().len() < 1000);
    assert!(matches!(
        raw.records(50_000),
        Err(BatchError::Compression(crate::CompressionError::Limit { limit_bytes: 50_000, .. }))
    ));
    assert!(raw.records(101_000).is_ok());
}

/// Goal: a number for the log of a build machine. Asserts nothing about speed, as machines differ.
#[test]
#[ignore = "prints timings: cargo test --release -p klamm-wire -- --ignored --nocapture nanoseconds"]
#[allow(clippy::disallowed_types)]
fn nanoseconds_per_record() {
    const N: u32 = 20_000_000;
    let value = [7u8; 100];
    let clock = std::time::Instant::now();
    let mut batches = 0;
    let mut builder = BatchBuilder::new(BytesMut::with_capacity(17_000));
    for n in 0..N {
        builder.append(1_700_000_000_000 + i64::from(n / 1000), None, Some(&value), NO_HEADERS);
        if builder.len_bytes() > 16_000 {
            batches += 1;
            let sealed = builder.seal(Compression::None, None).unwrap();
            builder = BatchBuilder::new(sealed.reclaim().unwrap());
        }
    }
    println!("append: {:.1} ns ({batches} batches)", clock.elapsed().as_nanos() as f64 / f64::from(N));

    let mut builder = BatchBuilder::new(BytesMut::new());
    while builder.len_bytes() < 1_000_000 {
        builder.append(1_700_000_000_000, Some(&value[..8]), Some(&value), NO_HEADERS);
    }
    let clock = std::time::Instant::now();
    let sealed = builder.seal(Compression::None, None).unwrap();
    println!("seal 1 MB: {:?}", clock.elapsed());
    let clock = std::time::Instant::now();
    for sequence in 0..1000 {
        std::hint::black_box(sealed.header(ProducerStamp { base_sequence: sequence, ..STAMP }));
    }
    println!("header: {:?}", clock.elapsed() / 1000);

    let raw = RawBatch::parse(whole(&sealed, STAMP)).unwrap();
    let clock = std::time::Instant::now();
    let mut seen = 0u32;
    for _ in 0..100 {
        for record in &raw.records(LIMIT).unwrap() {
            seen += std::hint::black_box(record.unwrap()).value.map_or(0, |_| 1);
        }
    }
    println!("iterate: {:.1} ns", clock.elapsed().as_nanos() as f64 / f64::from(seen));
    let clock = std::time::Instant::now();
    raw.verify_crc().unwrap();
    println!("verify 1 MB: {:?}", clock.elapsed());
}
