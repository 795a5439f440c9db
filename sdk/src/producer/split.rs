//! Smaller batches out of one that a broker finds too large.

use bytes::BytesMut;
use klamm_wire::batch::HEADER_BYTES;
use klamm_wire::planted::{Bug, planted};
use klamm_wire::{BatchBuilder, BatchError, SealedBatch};

/// The parts of a batch.
#[derive(Debug)]
pub(super) struct Split {
    /// All records of the batch, in order.
    pub(super) parts: Vec<SealedBatch>,
    /// What no part exceeds before it is compressed, unless a single record does.
    pub(super) limit_bytes: usize,
}

impl Split {
    /// Splits a batch of at least two records into at least two parts, packed as the batch was. They are filled up to
    /// `batch_size`, or up to half of the records if the batch is no larger than that, since it was too large all the same.
    ///
    /// Nothing comes back, and the cause is reported, if the batch cannot be read or a part not be packed.
    pub(super) fn of(whole: &SealedBatch, batch_size: usize, level: Option<i32>) -> Option<Self> {
        let parts = |error: BatchError| tracing::warn!(%error, "cannot split a batch");
        Self::try_of(whole, batch_size, level).inspect_err(|error| parts(error.clone())).ok()
    }

    fn try_of(whole: &SealedBatch, batch_size: usize, level: Option<i32>) -> Result<Self, BatchError> {
        // Our own records: there is no limit to what they may expand to.
        let records = whole.decode(usize::MAX)?;
        let body = records.body().len();
        let limit_bytes = if HEADER_BYTES + body > batch_size { batch_size } else { HEADER_BYTES + body / 2 };
        let new = || BatchBuilder::new(BytesMut::with_capacity(limit_bytes + BatchBuilder::SLACK_BYTES));
        let seal = |open: BatchBuilder| open.seal(whole.compression(), level);
        let (mut parts, mut open, mut headers) = (Vec::new(), new(), Vec::new());
        for record in &records {
            let record = record?;
            headers.clear();
            for header in record.headers() {
                headers.push((header.name, header.value));
            }
            let need = BatchBuilder::upper_bound(
                record.key.map(<[u8]>::len),
                record.value.map(<[u8]>::len),
                &headers,
            );
            if !open.is_empty() && open.len_bytes() + need > limit_bytes {
                parts.push(seal(std::mem::replace(&mut open, new()))?);
                if planted(Bug::SplitLosesRecord) {
                    continue;
                }
            }
            open.append(record.timestamp, record.key, record.value, &headers);
        }
        if !open.is_empty() {
            parts.push(seal(open)?);
        }
        Ok(Self { parts, limit_bytes })
    }

    /// Index of each part's first record in the batch.
    pub(super) fn firsts(&self) -> Vec<u32> {
        let firsts = self.parts.iter().scan(0, |next, part| {
            let first = *next;
            *next += part.count();
            Some(first)
        });
        firsts.collect()
    }
}

#[cfg(test)]
mod tests {
    use klamm_wire::Compression;
    use proptest::prelude::*;

    use super::*;

    type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    /// A record with everything it has.
    #[derive(Debug, Clone, PartialEq)]
    struct Whole {
        timestamp: i64,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        headers: Headers,
    }

    fn bytes(most: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
        prop::option::of(prop::collection::vec(any::<u8>(), 0..most))
    }

    fn whole() -> impl Strategy<Value = Whole> {
        let headers = prop::collection::vec((bytes(9).prop_map(Option::unwrap_or_default), bytes(9)), 0..3);
        (0_i64..1 << 40, bytes(20), bytes(600), headers).prop_map(|(timestamp, key, value, headers)| Whole {
            timestamp,
            key,
            value,
            headers,
        })
    }

    fn batch(records: &[Whole], codec: Compression) -> SealedBatch {
        let mut open = BatchBuilder::new(BytesMut::new());
        for record in records {
            open.append(record.timestamp, record.key.as_deref(), record.value.as_deref(), &record.headers);
        }
        open.seal(codec, None).unwrap()
    }

    fn records(batch: &SealedBatch) -> Vec<Whole> {
        let read = |record: klamm_wire::RecordRef<'_>| Whole {
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers().map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec))).collect(),
        };
        batch.decode(1 << 20).unwrap().iter().map(|record| read(record.unwrap())).collect()
    }

    proptest! {
        #[test]
        fn parts_hold_all_records_in_order_within_the_limit(
            all in prop::collection::vec(whole(), 2..40),
            batch_size in prop_oneof![Just(1_usize), 100_usize..5_000, Just(1 << 20)],
            lz4 in any::<bool>(),
        ) {
            let codec = if lz4 { Compression::Lz4 } else { Compression::None };
            let whole = batch(&all, codec);
            let split = Split::of(&whole, batch_size, None).unwrap();
            prop_assert!(split.parts.len() >= 2);
            let found: Vec<_> = split.parts.iter().flat_map(records).collect();
            prop_assert_eq!(&found, &all);
            let plain = HEADER_BYTES + whole.decode(1 << 20).unwrap().body().len();
            prop_assert!(split.limit_bytes <= batch_size && split.limit_bytes < plain);
            for (part, first) in split.parts.iter().zip(split.firsts()) {
                prop_assert_eq!(part.compression(), codec);
                prop_assert_eq!(&records(part)[0], &all[first as usize]);
                let size = HEADER_BYTES + part.decode(1 << 20).unwrap().body().len();
                prop_assert!(size <= split.limit_bytes || part.count() == 1, "{size} B");
            }
        }
    }
}
