//! From the bytes of a record to a type of yours.

use bytes::Bytes;

/// What a [`Deserializer`] answers when the bytes are not what it expects.
pub type DeserializeError = Box<dyn std::error::Error + Send + Sync>;

/// Turns the bytes of a key or value into a `T`. It never sees null: a null key or value is `None` in the record.
///
/// Runs in the task that reads, never on the task that fetches. Closures of the same shape implement it:
///
/// ```
/// use klamm::{Bytes, Deserializer};
/// fn takes(_: impl Deserializer<usize>) {}
/// takes(|_topic: &str, data: Bytes| Ok(data.len()));
/// ```
pub trait Deserializer<T>: Send + Sync + 'static {
    /// Deserializes one key or value of `topic`.
    ///
    /// # Errors
    ///
    /// The consumer wraps the error with topic, partition and offset of the record.
    fn deserialize(&self, topic: &str, data: Bytes) -> Result<T, DeserializeError>;
}

impl<T, F> Deserializer<T> for F
where
    F: Fn(&str, Bytes) -> Result<T, DeserializeError> + Send + Sync + 'static,
{
    fn deserialize(&self, topic: &str, data: Bytes) -> Result<T, DeserializeError> {
        self(topic, data)
    }
}

/// Kafka's own encodings: bytes as they are, UTF-8, big-endian integers and floats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plain;

impl Deserializer<Bytes> for Plain {
    /// A slice of the fetched buffer, without copying.
    fn deserialize(&self, _topic: &str, data: Bytes) -> Result<Bytes, DeserializeError> {
        Ok(data)
    }
}

impl Deserializer<Vec<u8>> for Plain {
    fn deserialize(&self, _topic: &str, data: Bytes) -> Result<Vec<u8>, DeserializeError> {
        Ok(data.to_vec())
    }
}

impl Deserializer<String> for Plain {
    fn deserialize(&self, _topic: &str, data: Bytes) -> Result<String, DeserializeError> {
        Ok(std::str::from_utf8(&data)?.to_owned())
    }
}

impl Deserializer<()> for Plain {
    /// Ignores whatever there is.
    fn deserialize(&self, _topic: &str, _data: Bytes) -> Result<(), DeserializeError> {
        Ok(())
    }
}

macro_rules! big_endian {
    ($($number:ty),*) => {$(
        impl Deserializer<$number> for Plain {
            fn deserialize(&self, _topic: &str, data: Bytes) -> Result<$number, DeserializeError> {
                let bytes = data.as_ref().try_into().map_err(|_| {
                    format!(
                        concat!("{} bytes where ", stringify!($number), " needs {}"),
                        data.len(),
                        size_of::<$number>()
                    )
                })?;
                Ok(<$number>::from_be_bytes(bytes))
            }
        }
    )*};
}

big_endian!(i8, u8, i16, u16, i32, u32, i64, u64, f32, f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_very_same_memory() {
        let data = Bytes::from(vec![1, 2, 3]);
        let out: Bytes = Plain.deserialize("t", data.clone()).unwrap();
        assert_eq!(out.as_ptr(), data.as_ptr());
    }

    #[test]
    fn integers_are_big_endian_and_of_exact_length() {
        let long: i64 = Plain.deserialize("t", Bytes::from_static(&[0, 0, 0, 0, 0, 0, 1, 2])).unwrap();
        assert_eq!(long, 258);
        let short: Result<i64, _> = Plain.deserialize("t", Bytes::from_static(&[1, 2]));
        assert_eq!(short.unwrap_err().to_string(), "2 bytes where i64 needs 8");
    }

    #[test]
    fn text_that_is_not_utf8_is_an_error() {
        let text: Result<String, _> = Plain.deserialize("t", Bytes::from_static(&[0xff]));
        assert!(text.is_err());
        let text: String = Plain.deserialize("t", Bytes::from_static("ü".as_bytes())).unwrap();
        assert_eq!(text, "ü");
    }
}
