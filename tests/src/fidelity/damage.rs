//! Requests that are wrong in their bytes, made from good ones.

use serde_json::Value;

use super::case::{Case, Raw, case};
use super::encode::{self, Flaw, Wrong};
use super::schema::Field;
use super::wire;

/// What is done to the bytes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Damage {
    None,
    Flaw(Flaw),
    /// So many bytes missing at the end.
    Cut(usize),
    /// The second half missing.
    Half,
    /// No body at all.
    Empty,
    /// Something behind the end.
    More(&'static [u8]),
    /// A tagged field that nobody knows, in the body.
    UnknownTag,
    /// A tagged field that nobody knows, in the header.
    HeaderTag,
    /// More tags announced than there are.
    MissingTag,
}

/// A body and the tags of the header before it.
pub(super) type Written = (Vec<u8>, Vec<u8>);

impl Damage {
    /// Body with the damage done, and the tags of the header; `None` where the version knows no such damage.
    pub(super) fn apply(&self, api: i16, version: i16, body: &Value) -> Result<Option<Written>, String> {
        let request = &super::api(api).request;
        let flaw = if let Self::Flaw(flaw) = self { Some(flaw) } else { None };
        let good = encode::body(request, version, body, None)?;
        let flexible = version >= request.flexible;
        let mut bytes = encode::body(request, version, body, flaw)?;
        let mut tags = vec![0];
        match self {
            Self::None => return Ok(Some((bytes, tags))),
            Self::Flaw(flaw) if flaw.wrong == Wrong::Negative && flexible => return Ok(None),
            Self::Flaw(_) => {}
            Self::Cut(count) => bytes.truncate(bytes.len().saturating_sub(*count)),
            Self::Half => bytes.truncate(bytes.len() / 2),
            Self::Empty => bytes.clear(),
            Self::More(more) => bytes.extend(*more),
            Self::HeaderTag if flexible => {
                tags = vec![1, 0xc8, 0x01, 2, 1, 2];
                return Ok(Some((bytes, tags)));
            }
            Self::UnknownTag | Self::MissingTag if flexible && bytes.last() == Some(&0) => {
                bytes.pop();
                bytes.extend(if *self == Self::UnknownTag { &[1, 0xc8, 0x01, 2, 1, 2][..] } else { &[1] });
            }
            Self::UnknownTag | Self::MissingTag | Self::HeaderTag => return Ok(None),
        }
        Ok((bytes != good).then_some((bytes, tags)))
    }
}

/// Everything that can be wrong with the bytes of one good request, which must be harmless when repeated.
#[allow(clippy::needless_pass_by_value, reason = "as the other makers of cases take it")]
pub fn damaged(api: i16, body: Value) -> Case {
    let mut out = case(api, "damaged bytes");
    let whole = [
        ("a byte missing", Damage::Cut(1)),
        ("half the body", Damage::Half),
        ("no body", Damage::Empty),
        ("a byte too many", Damage::More(&[0])),
        ("nine bytes too many", Damage::More(&[1, 2, 3, 4, 5, 6, 7, 8, 9])),
        ("an unknown tag", Damage::UnknownTag),
        ("an unknown tag in the header", Damage::HeaderTag),
        ("a tag announced and missing", Damage::MissingTag),
    ];
    for (label, damage) in whole {
        out = out.ask_damaged(label, body.clone(), damage);
    }
    for (path, nullable) in lengths(&super::api(api).request.fields, &body, "") {
        for (what, wrong) in [
            ("null", Wrong::Null),
            ("an endless length", Wrong::Endless),
            ("a negative length", Wrong::Negative),
            ("a length of one more", Wrong::OneMore),
        ] {
            if wrong == Wrong::Null && nullable {
                continue;
            }
            let damage = Damage::Flaw(Flaw { field: path.clone(), wrong });
            out = out.ask_damaged(&format!("{what} in {path}"), body.clone(), damage);
        }
    }
    out
}

/// Paths of fields with a length that are written for `body`, and whether they may be null in any version.
fn lengths(fields: &[Field], body: &Value, above: &str) -> Vec<(String, bool)> {
    let mut out = Vec::new();
    for field in fields.iter().filter(|field| field.tag.is_none()) {
        let path = if above.is_empty() { field.name.clone() } else { format!("{above}.{}", field.name) };
        if field.has_length() {
            out.push((path.clone(), field.nullable.is_some()));
        }
        let first = match &body[&field.name] {
            Value::Array(elements) => elements.first(),
            Value::Null => None,
            value => Some(value),
        };
        if let Some(first) = first.filter(|_| !field.fields.is_empty()) {
            out.extend(lengths(&field.fields, first, &path));
        }
    }
    out
}

/// Frames and headers that are wrong, whatever is asked; and requests one behind the other.
pub fn framing() -> Vec<Case> {
    let ask = |api: i16, version: i16, id: i32| wire::frame(&wire::header(api, version, id, Some("f"), &[0]));
    let api_versions = |id| ask(18, 0, id);
    let metadata = |id| {
        let mut bytes = wire::header(3, 1, id, Some("f"), &[0]);
        bytes.extend([0, 0, 0, 0]);
        wire::frame(&bytes)
    };
    let with = |label: &str, bytes: Vec<u8>, answers: &[(i16, i16)]| Raw {
        label: label.to_owned(),
        bytes,
        half_closed: false,
        answers: answers.to_vec(),
    };
    let ending = |label: &str, bytes: Vec<u8>, answers: &[(i16, i16)]| Raw {
        half_closed: true,
        ..with(label, bytes, answers)
    };
    let flexible = |tags: &[u8]| {
        let mut bytes = wire::header(18, 3, 1, Some("f"), tags);
        bytes.extend([2, b'a', 2, b'1', 0]);
        wire::frame(&bytes)
    };
    let mut long_client_id = vec![0, 18, 0, 0, 0, 0, 0, 1, 0x7f, 0xff];
    long_client_id.extend([b'x'; 40]);
    let good: &[(i16, i16)] = &[(18, 0)];
    let frames = case(18, "frames")
        .raw(with("a frame of length 0", vec![0; 4], &[(18, 0)]))
        .raw(with("a frame of length 0 before a good one", [vec![0; 4], api_versions(1)].concat(), good))
        .raw(with("a frame of length -1", vec![0xff; 4], good))
        .raw(with("the smallest number as length", vec![0x80, 0, 0, 0], good))
        .raw(with(
            "a frame a byte larger than may be",
            (100 * 1024 * 1024_i32 + 1).to_be_bytes().to_vec(),
            good,
        ))
        .raw(with("the largest number as length", i32::MAX.to_be_bytes().to_vec(), good))
        .raw(with("a frame of one byte", wire::frame(&[0]), good))
        .raw(with("a frame of seven bytes", wire::frame(&[0, 18, 0, 0, 0, 0, 0]), good))
        .raw(with("a header without a client id", wire::frame(&[0, 18, 0, 0, 0, 0, 0, 1]), good))
        .raw(with("a client id that is null", wire::frame(&wire::header(18, 0, 1, None, &[0])), good))
        .raw(with("an empty client id", wire::frame(&wire::header(18, 0, 1, Some(""), &[0])), good))
        .raw(with("a client id longer than the frame", wire::frame(&long_client_id), good))
        .raw(with(
            "a client id of length -2",
            wire::frame(&[0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xfe, 0, 0]),
            good,
        ))
        .raw(with(
            "a client id that is no text",
            wire::frame(&[0, 18, 0, 0, 0, 0, 0, 1, 0, 2, 0xff, 0xfe]),
            good,
        ))
        .raw(with("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), good))
        .raw(with("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], good))
        .raw(ending("an end within a length", vec![0, 0], good))
        .raw(ending("an end within a frame", api_versions(1)[..9].to_vec(), good))
        .raw(ending("an end at once", Vec::new(), good))
        .raw(with("a header with tags", flexible(&[1, 5, 1, 9]), &[(18, 3)]))
        .raw(with("a header with a tag that is cut", flexible(&[1, 5, 90, 9]), &[(18, 3)]))
        .versions(0..=0);
    let headers = case(18, "versions and keys")
        .raw(with("an api key that nobody knows", ask(1000, 0, 1), good))
        .raw(with("a negative api key", ask(-1, 0, 1), good))
        .raw(with("an api key that is gone (4)", ask(4, 0, 1), good))
        .raw(with("ApiVersions in version -1", ask(18, -1, 1), good))
        .raw(with("ApiVersions in version 5", flexible_of(18, 5), good))
        .raw(with("ApiVersions in version 99", flexible_of(18, 99), good))
        .raw(with("ApiVersions in version 32767", flexible_of(18, i16::MAX), good))
        .raw(with("ApiVersions in version 99 without a body", ask(18, 99, 1), good))
        .raw(with("a negative correlation id", ask(18, 0, -7), good))
        .versions(0..=0);
    let order = case(18, "order")
        .raw(with("a request before ApiVersions", metadata(1), &[(3, 1)]))
        .raw(with(
            "three at once",
            [api_versions(1), metadata(2), api_versions(3)].concat(),
            &[(18, 0), (3, 1), (18, 0)],
        ))
        .raw(with("the same correlation id twice", [metadata(5), metadata(5)].concat(), &[(3, 1), (3, 1)]))
        .raw(with(
            "a bad one between two good ones",
            [api_versions(1), ask(1000, 0, 2), api_versions(3)].concat(),
            &[(18, 0), (18, 0)],
        ))
        .unordered("Brokers", "NodeId")
        .vague("ControllerId", "some broker")
        .raw(ending("two and an end", [api_versions(1), metadata(2)].concat(), &[(18, 0), (3, 1)]))
        .versions(0..=0);
    vec![frames, headers, order]
}

/// A request with a flexible header and ApiVersions' body.
fn flexible_of(api: i16, version: i16) -> Vec<u8> {
    let mut bytes = wire::header(api, version, 1, Some("f"), &[0]);
    bytes.extend([2, b'a', 2, b'1', 0]);
    wire::frame(&bytes)
}

/// One version below and above what is advertised, and the ends of what can be written.
pub(super) fn beyond(api: i16, min: i16, max: i16) -> Case {
    let mut out = case(api, "versions beyond");
    // Produce is advertised in versions that have no schema any more.
    let refused = min..super::api(api).request.versions.0;
    for version in [i16::MIN, -1, min - 1].into_iter().chain(refused.clone()).chain([max + 1, i16::MAX]) {
        if (min..=max).contains(&version) && !refused.contains(&version) {
            continue;
        }
        let body = encode::body(&super::api(api).request, version, &Value::Null, None).unwrap_or_default();
        let mut bytes = wire::header(api, version, 1, Some("f"), &[0]);
        bytes.extend(body);
        out = out.raw(Raw {
            label: format!("version {version}"),
            bytes: wire::frame(&bytes),
            half_closed: false,
            answers: vec![(api, version)],
        });
    }
    out.versions = max..=max;
    out
}
