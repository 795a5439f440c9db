//! How a record is printed: kcat's format strings.
//!
//! In: `%t [%p] %o: %s\n`. Out: bytes. What kcat would refuse, or cannot write, is refused before anything is read.

use std::io::Write;
use std::str::FromStr;

use klamm::ConsumerRecord;

/// Parts one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyLength,
    Value,
    ValueLength,
    ValueLengthBinary,
    Headers,
}

impl Format {
    /// One value a line.
    pub(crate) fn lines() -> Self {
        Self(vec![Part::Value, Part::Text(b"\n".to_vec())])
    }

    /// Appends a record.
    pub(crate) fn write(&self, record: &ConsumerRecord, out: &mut Vec<u8>) {
        let length = |bytes: &Option<klamm::Bytes>| bytes.as_ref().map_or(-1, |bytes| bytes.len() as i64);
        for part in &self.0 {
            // Appending to a vector cannot fail.
            let _ = match part {
                Part::Text(text) => out.write_all(text),
                Part::Topic => out.write_all(record.topic.as_bytes()),
                Part::Partition => write!(out, "{}", record.partition),
                Part::Offset => write!(out, "{}", record.offset),
                Part::Timestamp => write!(out, "{}", record.timestamp_ms),
                Part::Key => out.write_all(record.key.as_deref().unwrap_or_default()),
                Part::KeyLength => write!(out, "{}", length(&record.key)),
                Part::Value => out.write_all(record.value.as_deref().unwrap_or_default()),
                Part::ValueLength => write!(out, "{}", length(&record.value)),
                Part::ValueLengthBinary => out.write_all(&(length(&record.value) as i32).to_be_bytes()),
                Part::Headers => {
                    write_headers(record, out);
                    Ok(())
                }
            };
        }
    }
}

fn write_headers(record: &ConsumerRecord, out: &mut Vec<u8>) {
    for (place, header) in record.headers.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&header.name);
        out.push(b'=');
        out.extend_from_slice(header.value.as_deref().unwrap_or(b"NULL"));
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(format: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut text = Vec::new();
        let mut rest = format.as_bytes();
        while let [first, after @ ..] = rest {
            rest = after;
            match first {
                b'%' => {
                    let [name, after @ ..] = rest else {
                        return Err("it ends with a single %; write %% for a percent sign".into());
                    };
                    rest = after;
                    let part = match name {
                        b't' => Part::Topic,
                        b'p' => Part::Partition,
                        b'o' => Part::Offset,
                        b'T' => Part::Timestamp,
                        b'k' => Part::Key,
                        b'K' => Part::KeyLength,
                        b's' => Part::Value,
                        b'S' => Part::ValueLength,
                        b'R' => Part::ValueLengthBinary,
                        b'h' => Part::Headers,
                        b'%' => {
                            text.push(b'%');
                            continue;
                        }
                        _ => {
                            let unknown = format[format.len() - rest.len() - 1..].chars().next();
                            let unknown = unknown.map(String::from).unwrap_or_default();
                            let known = "known are %t %p %o %T %k %K %s %S %R %h and %%";
                            return Err(format!("%{unknown} is not known; {known}"));
                        }
                    };
                    if !text.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut text)));
                    }
                    parts.push(part);
                }
                b'\\' => rest = escape(rest, &mut text)?,
                byte => text.push(*byte),
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self(parts))
    }
}

/// Reads what follows a backslash, as kcat does: `\x` with hexadecimal digits, digits that are octal after a 0 and decimal
/// else, and as many of them as there are.
fn escape<'a>(rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], String> {
    let (digits, radix) = match rest {
        // It stands for itself, also before a %.
        [] | [b'%', ..] => {
            text.push(b'\\');
            return Ok(rest);
        }
        [b't', after @ ..] => return Ok(one(b'\t', after, text)),
        [b'n', after @ ..] => return Ok(one(b'\n', after, text)),
        [b'r', after @ ..] => return Ok(one(b'\r', after, text)),
        [b'x', digits @ ..] => (digits, 16),
        [b'0', ..] => (rest, 8),
        [b'1'..=b'9', ..] => (rest, 10),
        [byte, after @ ..] => return Ok(one(*byte, after, text)),
    };
    let count = digits.iter().take_while(|byte| char::from(**byte).is_digit(radix)).count();
    let number = digits[..count].iter().try_fold(0_u8, |number, byte| {
        let digit = char::from(*byte).to_digit(radix)?;
        u8::try_from(u32::from(number) * radix + digit).ok()
    });
    let shown = String::from_utf8_lossy(&digits[..count]);
    match number {
        _ if count == 0 => Err("\\x must be followed by hexadecimal digits".into()),
        None => Err(format!("\\{}{shown} is more than a byte", if radix == 16 { "x" } else { "" })),
        Some(byte) => Ok(one(byte, &digits[count..], text)),
    }
}

fn one<'a>(byte: u8, after: &'a [u8], text: &mut Vec<u8>) -> &'a [u8] {
    text.push(byte);
    after
}

#[cfg(test)]
mod tests {
    use klamm::Bytes;

    use super::*;

    fn printed(format: &str, record: &ConsumerRecord) -> Vec<u8> {
        let mut out = Vec::new();
        format.parse::<Format>().expect("a format").write(record, &mut out);
        out
    }

    fn record() -> ConsumerRecord {
        ConsumerRecord::new("t", 3, 42).key("k").value("v\0\u{e9}").timestamp_ms(1_000)
    }

    #[test]
    fn every_part_of_a_record_can_be_printed() {
        let all = record().header("a", Bytes::from("1")).header("b", None).header("a", Bytes::new());
        let expected = "t [3] 42 1000 k(1) v\0\u{e9}(4) a=1,b=NULL,a=".as_bytes();
        assert_eq!(printed("%t [%p] %o %T %k(%K) %s(%S) %h", &all), expected);
        let null = ConsumerRecord::new("t", 0, 0);
        assert_eq!(printed("[%k%K|%s%S|%h|%T]%R", &null), b"[-1|-1||-1]\xff\xff\xff\xff");
        assert_eq!(printed("%R", &null.value("")), [0; 4]);
    }

    #[test]
    fn escapes_are_those_of_kcat() {
        assert_eq!(printed(r"a\t\n\r\q\\b\", &record()), b"a\t\n\rq\\b\\");
        assert_eq!(printed(r"\x41|\x0a|\65|\101|\012|\x00|\%p", &record()), b"A|\n|A|e|\n|\0|\\3");
        assert_eq!(printed("100%%\u{e9}", &record()), "100%\u{e9}".as_bytes());
        assert_eq!(printed("", &record()), b"");
    }

    #[test]
    fn what_cannot_be_printed_is_named() {
        let error = |format: &str| format.parse::<Format>().expect_err(format);
        assert!(error("%s%").contains("ends with a single %"));
        assert!(error("%z").starts_with("%z is not known; known are %t"));
        assert!(error("%\u{e9}").starts_with("%\u{e9} is not known"));
        assert!(error(r"\xg").contains("hexadecimal"));
        assert_eq!(error(r"\x100"), r"\x100 is more than a byte");
        assert_eq!(error(r"\256"), r"\256 is more than a byte");
    }
}
