use bytes::{Bytes, BytesMut};

use kafka_protocol::protocol::Message;
use proptest::prelude::*;

use super::any::{Visit, dispatch};
use super::*;
use crate::schema::generate::{Entropy, TagsToWrite, body};

/// Decodes by kafka-protocol alone, and encodes again.
struct Again {
    kind: Kind,
    version: i16,
    body: Bytes,
}

impl Visit for Again {
    type Out = Bytes;

    fn visit<R: Request>(self) -> Bytes {
        let layout = layout_version(R::KEY, self.version);
        match self.kind {
            Kind::Request => again::<R>(layout, self.body),
            Kind::Response => again::<R::Response>(layout, self.body),
        }
    }
}

fn again<M: Encodable + Decodable>(version: i16, mut body: Bytes) -> Bytes {
    let message = M::decode(&mut body, version).unwrap();
    assert!(body.is_empty(), "kafka-protocol left {} B", body.len());
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap();
    out.freeze()
}

/// The versions that kafka-protocol and the schema both have.
struct Known(Kind);

impl Visit for Known {
    type Out = (i16, i16);

    fn visit<R: Request>(self) -> (i16, i16) {
        let known = match self.0 {
            Kind::Request => R::VERSIONS,
            Kind::Response => R::Response::VERSIONS,
        };
        let (min, max) = schema::versions(self.0, R::KEY).unwrap();
        let max = (known.max..=max).take_while(|v| layout_version(R::KEY, *v) <= known.max).last().unwrap();
        (min.max(known.min), max)
    }
}

/// Every message that both sides know, in every version.
fn messages() -> Vec<(Kind, i16, i16)> {
    let mut all = Vec::new();
    for key in schema::api_keys() {
        for kind in [Kind::Request, Kind::Response] {
            if let Some((min, max)) = dispatch(key, Known(kind)) {
                all.extend((min..=max).map(|version| (kind, key, version)));
            }
        }
    }
    all
}

#[test]
fn what_this_project_speaks_is_covered() {
    let all = messages();
    for &(key, min, max) in crate::negotiation::CLIENT_RANGES {
        for version in min..=max {
            assert!(all.contains(&(Kind::Request, key, version)), "{key} {version}");
            assert!(all.contains(&(Kind::Response, key, version)), "{key} {version}");
        }
    }
    assert!(all.len() > 550, "{}", all.len());
}

fn entropy() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever kafka-protocol encodes, of any api in any version, passes the walk; and whatever the
    /// tables say a message looks like, kafka-protocol reads to the last byte and writes back alike.
    #[test]
    fn tables_and_kafka_protocol_agree_on_every_version(entropy in entropy()) {
        for (kind, key, version) in messages() {
            for tags in [TagsToWrite::None, TagsToWrite::Unknown, TagsToWrite::Known] {
                let original = body(kind, key, version, tags, &mut Entropy(&entropy)).freeze();
                prop_assert_eq!(schema::walk(kind, key, version, &original), Ok(()), "{:?} {} {}", kind, key, version);
                let first = dispatch(key, Again { kind, version, body: original.clone() }).unwrap();
                prop_assert_eq!(schema::walk(kind, key, version, &first), Ok(()), "{:?} {} {}", kind, key, version);
                if tags == TagsToWrite::Known {
                    // Tagged defaults are left out when written again.
                    let second = dispatch(key, Again { kind, version, body: first.clone() }).unwrap();
                    prop_assert_eq!(first, second, "{:?} {} {}", kind, key, version);
                } else {
                    prop_assert_eq!(&first, &original, "{:?} {} {}", kind, key, version);
                }
            }
        }
    }

    /// Cut anywhere, no message passes the walk.
    #[test]
    fn a_cut_message_is_refused(entropy in entropy(), cut in any::<prop::sample::Index>()) {
        for (kind, key, version) in messages() {
            let whole = body(kind, key, version, TagsToWrite::Known, &mut Entropy(&entropy));
            if !whole.is_empty() {
                let part = &whole[..cut.index(whole.len())];
                prop_assert!(schema::walk(kind, key, version, part).is_err(), "{:?} {} {}", kind, key, version);
            }
        }
    }
}
