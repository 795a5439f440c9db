//! Requests along Kafka's schemas, and, if wanted, against them.

use serde_json::Value;

use super::records;
use super::schema::{Field, Message};

/// What is wrong on purpose at one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    /// Path of the field, indexes left out: `Topics.Name`. Its first occurrence is meant.
    pub field: String,
    /// What is written there.
    pub wrong: Wrong,
}

/// What stands in place of a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Null, where none may be.
    Null,
    /// 2,147,483,646: more than there are bytes.
    Endless,
    /// -2, in versions that are not flexible.
    Negative,
    /// A byte more than there is.
    OneMore,
}

/// Writes a request's body. Fields that are not given have their defaults; fields that the version lacks are left out.
///
/// # Errors
///
/// Where a value does not fit its field, or a name is no field.
pub(super) fn body(
    message: &Message,
    version: i16,
    value: &Value,
    flaw: Option<&Flaw>,
) -> Result<Vec<u8>, String> {
    // Versions without a schema are asked for with the body of the nearest one.
    let version = version.clamp(message.versions.0, message.versions.1);
    let mut writer = Writer { out: Vec::new(), version, flexible: version >= message.flexible, flaw };
    writer.structure(&message.fields, value, "")?;
    Ok(writer.out)
}

pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Writer<'a> {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    flaw: Option<&'a Flaw>,
}

impl Writer<'_> {
    fn wrong(&mut self, path: &str) -> Option<Wrong> {
        let wrong = self.flaw.filter(|flaw| flaw.field == path).map(|flaw| flaw.wrong);
        if wrong.is_some() {
            self.flaw = None;
        }
        wrong
    }

    fn length(&mut self, length: i64, short: bool) {
        match (self.flexible, short) {
            (true, _) => varint((length + 1) as u64 & 0xffff_ffff, &mut self.out),
            (false, true) => self.out.extend((length.min(i64::from(i16::MAX)) as i16).to_be_bytes()),
            (false, false) => self.out.extend((length as i32).to_be_bytes()),
        }
    }

    fn structure(&mut self, fields: &[Field], value: &Value, path: &str) -> Result<(), String> {
        let empty = serde_json::Map::new();
        let given = match value {
            Value::Object(given) => given,
            Value::Null => &empty,
            other => return Err(format!("{path}: {other} is no structure")),
        };
        if let Some(name) = given.keys().find(|name| fields.iter().all(|field| field.name != **name)) {
            return Err(format!("{path}: there is no field {name}"));
        }
        let below = |field: &Field| {
            if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) }
        };
        let mut tagged = Vec::new();
        let version = self.version;
        for field in fields.iter().filter(|field| field.versions.has(version)) {
            let value = given.get(&field.name);
            match field.tag {
                None => self.field(field, value, &below(field))?,
                Some(tag) => {
                    if let Some(value) = value {
                        let mut within =
                            Writer { out: Vec::new(), version: self.version, flexible: true, flaw: None };
                        within.field(field, Some(value), &below(field))?;
                        tagged.push((tag, within.out));
                    }
                }
            }
        }
        if self.flexible {
            tagged.sort_unstable_by_key(|(tag, _)| *tag);
            varint(tagged.len() as u64, &mut self.out);
            for (tag, content) in tagged {
                varint(tag.into(), &mut self.out);
                varint(content.len() as u64, &mut self.out);
                self.out.extend(content);
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, value: Option<&Value>, path: &str) -> Result<(), String> {
        let default = default(field);
        let value = value.unwrap_or(&default);
        let (kind, short) = (field.kind.as_str(), field.kind == "string");
        if let Some(element) = field.element() {
            let elements = match value {
                Value::Null => None,
                Value::Array(elements) => Some(elements.as_slice()),
                other => return Err(format!("{path}: {other} is no array")),
            };
            self.written_length(elements.map(<[Value]>::len), false, path);
            for value in elements.unwrap_or_default() {
                self.value(element, field, value, path)?;
            }
            return Ok(());
        }
        match kind {
            "string" | "bytes" | "records" => {
                let bytes = match (kind, value) {
                    (_, Value::Null) => None,
                    ("records", Value::Array(batches)) => Some(records::write(batches)?),
                    (_, Value::String(text)) => Some(text.clone().into_bytes()),
                    (_, other) => return Err(format!("{path}: {other} is no {kind}")),
                };
                self.written_length(bytes.as_ref().map(Vec::len), short, path);
                self.out.extend(bytes.unwrap_or_default());
                Ok(())
            }
            _ if !field.fields.is_empty() => {
                if field.may_be_null(self.version) {
                    self.out.push(if value.is_null() { 0xff } else { 1 });
                    if value.is_null() {
                        return Ok(());
                    }
                }
                self.structure(&field.fields, value, path)
            }
            _ => self.value(kind, field, value, path),
        }
    }

    fn written_length(&mut self, length: Option<usize>, short: bool, path: &str) {
        let right = length.map_or(-1, |length| length as i64);
        let length = match self.wrong(path) {
            None => right,
            Some(Wrong::Null) => -1,
            Some(Wrong::Endless) => i64::from(i32::MAX) - 1,
            Some(Wrong::Negative) => -2,
            Some(Wrong::OneMore) => right + 1,
        };
        self.length(length, short);
    }

    fn value(&mut self, kind: &str, field: &Field, value: &Value, path: &str) -> Result<(), String> {
        let misfit = || format!("{path}: {value} is no {kind}");
        let int = || value.as_i64().ok_or_else(misfit);
        match kind {
            "bool" => self.out.push(value.as_bool().ok_or_else(misfit)?.into()),
            "int8" => self.out.extend(i8::try_from(int()?).map_err(|_| misfit())?.to_be_bytes()),
            "int16" => self.out.extend(i16::try_from(int()?).map_err(|_| misfit())?.to_be_bytes()),
            "uint16" => self.out.extend(u16::try_from(int()?).map_err(|_| misfit())?.to_be_bytes()),
            "int32" => self.out.extend(i32::try_from(int()?).map_err(|_| misfit())?.to_be_bytes()),
            "int64" => self.out.extend(int()?.to_be_bytes()),
            "float64" => self.out.extend(value.as_f64().ok_or_else(misfit)?.to_be_bytes()),
            "uuid" => self.out.extend(uuid(value.as_str().ok_or_else(misfit)?).ok_or_else(misfit)?),
            "string" => {
                let text = value.as_str().ok_or_else(misfit)?;
                self.length(text.len() as i64, true);
                self.out.extend(text.as_bytes());
            }
            _ if !field.fields.is_empty() => self.structure(&field.fields, value, path)?,
            _ => return Err(misfit()),
        }
        Ok(())
    }
}

/// Sixteen bytes from 32 digits; dashes do not count.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits = text.replace('-', "");
    let bytes = (0..16).map(|place| u8::from_str_radix(digits.get(2 * place..2 * place + 2)?, 16).ok());
    bytes.collect::<Option<Vec<_>>>()?.try_into().ok().filter(|_| digits.len() == 32)
}

/// Kafka's default of a field.
fn default(field: &Field) -> Value {
    let told = field.default.as_deref();
    if told == Some("null") {
        return Value::Null;
    }
    match field.kind.as_str() {
        _ if field.element().is_some() => Value::Array(Vec::new()),
        "bool" => Value::Bool(told == Some("true")),
        "string" | "bytes" => Value::String(told.unwrap_or_default().to_owned()),
        "records" => Value::Null,
        "uuid" => Value::String("0".repeat(32)),
        "float64" => Value::from(0.0),
        _ if !field.fields.is_empty() => Value::Object(serde_json::Map::new()),
        _ => {
            let text = told.unwrap_or("0");
            let hexadecimal = text.strip_prefix("0x").and_then(|digits| i64::from_str_radix(digits, 16).ok());
            Value::from(hexadecimal.or_else(|| text.parse().ok()).unwrap_or(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fidelity::tree::Node;
    use crate::fidelity::{apis, decode};

    #[test]
    fn every_request_with_its_defaults_reads_back_in_every_version() {
        for api in apis() {
            for version in api.request.versions.0..=api.request.versions.1 {
                let bytes = body(&api.request, version, &json!({}), None).unwrap();
                decode::body(&api.request, version, &bytes)
                    .unwrap_or_else(|error| panic!("{} v{version}: {error}", api.name));
            }
        }
    }

    #[test]
    fn what_is_given_reads_back() {
        let metadata = &crate::fidelity::api(3).request;
        let id = "00112233445566778899aabbccddeeff";
        let asked = json!({ "Topics": [{ "TopicId": id, "Name": null }], "AllowAutoTopicCreation": false });
        let read = decode::body(metadata, 12, &body(metadata, 12, &asked, None).unwrap()).unwrap();
        assert_eq!(read.at("Topics[0].Name"), Some(&Node::Null));
        assert_eq!(read.at("AllowAutoTopicCreation"), Some(&Node::Bool(false)));
        assert!(matches!(read.at("Topics[0].TopicId"), Some(Node::Uuid([0, 0x11, .., 0xff]))));
        assert!(body(metadata, 12, &json!({ "Topic": [] }), None).unwrap_err().contains("Topic"));
    }

    #[test]
    fn a_flaw_is_written_where_it_is_wanted() {
        let metadata = &crate::fidelity::api(3).request;
        let asked = json!({ "Topics": [{ "Name": "a" }] });
        let flaw = Flaw { field: "Topics.Name".into(), wrong: Wrong::Null };
        let bytes = body(metadata, 1, &asked, Some(&flaw)).unwrap();
        assert_eq!(bytes, [0, 0, 0, 1, 0xff, 0xff, b'a']);
        assert!(decode::body(metadata, 1, &bytes).is_err());
    }
}
