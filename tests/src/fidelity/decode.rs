//! Answers along Kafka's schemas, whatever our own codec would make of them.

use super::records;
#[cfg(test)]
use super::schema::Message;
use super::schema::{Api, Field};
use super::tree::Node;

/// What is wrong with the bytes of an answer.
pub(super) type Malformed = String;

/// Reads an answer without its length: correlation id and body.
///
/// # Errors
///
/// Where bytes are missing, left over, or against the protocol.
pub(super) fn answer(api: &Api, version: i16, bytes: &[u8]) -> Result<(i32, Node), Malformed> {
    let mut reader = Reader { bytes, version, flexible: version >= api.response.flexible };
    let correlation_id = i32::from_be_bytes(reader.array()?);
    // Whoever does not know the version of an ApiVersions answer must be able to read its header (KIP-511).
    if reader.flexible && api.key != 18 {
        let tags = reader.tags()?;
        if !tags.is_empty() {
            return Err(format!("{} tags in the header", tags.len()));
        }
    }
    let body = reader.structure(&api.response.fields)?;
    match reader.bytes.len() {
        0 => Ok((correlation_id, body)),
        rest => Err(format!("{rest} bytes left over")),
    }
}

/// Reads a message's body that is written in the given version.
///
/// # Errors
///
/// As [`answer`].
#[cfg(test)]
pub(super) fn body(message: &Message, version: i16, bytes: &[u8]) -> Result<Node, Malformed> {
    let mut reader = Reader { bytes, version, flexible: version >= message.flexible };
    let body = reader.structure(&message.fields)?;
    if reader.bytes.is_empty() { Ok(body) } else { Err("bytes left over".into()) }
}

struct Reader<'a> {
    bytes: &'a [u8],
    version: i16,
    flexible: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        if count > self.bytes.len() {
            return Err(format!("{count} bytes wanted, {} left", self.bytes.len()));
        }
        let (taken, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| "length".into())
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err("a varint longer than needed".into())
                } else {
                    Ok(value)
                };
            }
        }
        Err("a varint that does not end".into())
    }

    /// A length, `None` for null.
    fn length(&mut self, short: bool) -> Result<Option<usize>, Malformed> {
        let length = match (self.flexible, short) {
            (true, _) => self.varint()? as i64 - 1,
            (false, true) => i64::from(i16::from_be_bytes(self.array()?)),
            (false, false) => i64::from(i32::from_be_bytes(self.array()?)),
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| format!("length {length}")),
        }
    }

    fn tags(&mut self) -> Result<Vec<(u32, &'a [u8])>, Malformed> {
        let count = self.varint()?;
        let mut tags: Vec<(u32, &[u8])> = Vec::new();
        for _ in 0..count {
            let tag = self.varint()? as u32;
            if tags.last().is_some_and(|(last, _)| *last >= tag) {
                return Err(format!("tag {tag} out of order"));
            }
            let length = self.varint()? as usize;
            tags.push((tag, self.take(length)?));
        }
        Ok(tags)
    }

    fn structure(&mut self, fields: &[Field]) -> Result<Node, Malformed> {
        let present: Vec<_> = fields.iter().filter(|field| field.versions.has(self.version)).collect();
        let mut values = Vec::new();
        for field in present.iter().filter(|field| field.tag.is_none()) {
            let value = self.field(field).map_err(|error| format!("{}: {error}", field.name))?;
            values.push((field.name.clone(), value));
        }
        if !self.flexible {
            return Ok(Node::Struct(values));
        }
        let tags = self.tags()?;
        for field in present.iter().filter(|field| field.tag.is_some()) {
            let sent = tags.iter().find(|(tag, _)| Some(*tag) == field.tag);
            let value = match sent {
                Some((_, bytes)) => {
                    let mut within = Reader { bytes, ..*self };
                    let value = within.field(field).map_err(|error| format!("{}: {error}", field.name))?;
                    if !within.bytes.is_empty() {
                        return Err(format!(
                            "{}: {} bytes left over in its tag",
                            field.name,
                            within.bytes.len()
                        ));
                    }
                    value
                }
                None => Node::Absent,
            };
            values.push((field.name.clone(), value));
        }
        for (tag, bytes) in tags {
            if !present.iter().any(|field| field.tag == Some(tag)) {
                values.push((format!("tag {tag}"), Node::Bytes(bytes.to_vec())));
            }
        }
        Ok(Node::Struct(values))
    }

    fn field(&mut self, field: &Field) -> Result<Node, Malformed> {
        let value = match field.element() {
            Some(element) => match self.length(false)? {
                None => Node::Null,
                Some(count) => {
                    let elements = (0..count).map(|index| {
                        self.value(element, field).map_err(|error| format!("[{index}]: {error}"))
                    });
                    Node::List(elements.collect::<Result<_, _>>()?)
                }
            },
            None => self.value(&field.kind, field)?,
        };
        if value == Node::Null && !field.may_be_null(self.version) {
            return Err("null where none may be".into());
        }
        Ok(value)
    }

    fn value(&mut self, kind: &str, field: &Field) -> Result<Node, Malformed> {
        Ok(match kind {
            "bool" => match self.array()? {
                [0] => Node::Bool(false),
                [1] => Node::Bool(true),
                [other] => return Err(format!("bool {other}")),
            },
            "int8" => Node::Int(i8::from_be_bytes(self.array()?).into()),
            "int16" => Node::Int(i16::from_be_bytes(self.array()?).into()),
            "uint16" => Node::Int(u16::from_be_bytes(self.array()?).into()),
            "int32" => Node::Int(i32::from_be_bytes(self.array()?).into()),
            "int64" => Node::Int(i64::from_be_bytes(self.array()?)),
            "float64" => Node::Float(f64::from_be_bytes(self.array()?)),
            "uuid" => Node::Uuid(self.array()?),
            "string" => match self.length(true)? {
                None => Node::Null,
                Some(length) => {
                    let text = String::from_utf8(self.take(length)?.to_vec());
                    Node::Text(text.map_err(|error| error.to_string())?)
                }
            },
            "bytes" => match self.length(false)? {
                None => Node::Null,
                Some(length) => Node::Bytes(self.take(length)?.to_vec()),
            },
            "records" => match self.length(false)? {
                None => Node::Null,
                Some(length) => records::read(self.take(length)?),
            },
            _ if field.element().is_none() && field.may_be_null(self.version) => {
                match i8::from_be_bytes(self.array()?) {
                    -1 => Node::Null,
                    1 => self.structure(&field.fields)?,
                    other => return Err(format!("{other} instead of -1 or 1 before a structure")),
                }
            }
            _ => self.structure(&field.fields)?,
        })
    }
}
