//! From a type of yours to the bytes of a record.

use bytes::Bytes;

use crate::record::Headers;

/// What a [`Serializer`] answers when a value has no encoding.
pub type SerializeError = Box<dyn std::error::Error + Send + Sync>;

/// Turns a key or value of type `T` into bytes. Runs in the task that calls `send`.
///
/// A record's null key or value is never shown to it; answering `Ok(None)` writes null.
pub trait Serializer<T>: Send + Sync + 'static {
    /// Serializes one key or value of a record for `topic`; it may add headers.
    ///
    /// Either writes into `scratch` (empty, reused from record to record) and returns a slice of it, or
    /// returns a slice of `data` itself, which saves a copy.
    ///
    /// # Errors
    ///
    /// Any error makes `send` fail with [`SendError::Serialize`](crate::SendError::Serialize).
    fn serialize<'a>(
        &self,
        topic: &str,
        headers: &mut Headers,
        data: &'a T,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, SerializeError>;

    /// Whether [`Self::serialize`] ever writes into its scratch. A `false` saves fetching one.
    fn uses_scratch(&self) -> bool {
        true
    }
}

pub use crate::deserializer::Plain;

macro_rules! as_bytes {
    ($($type:ty),*) => {$(
        impl Serializer<$type> for Plain {
            fn serialize<'a>(
                &self,
                _topic: &str,
                _headers: &mut Headers,
                data: &'a $type,
                _scratch: &'a mut Vec<u8>,
            ) -> Result<Option<&'a [u8]>, SerializeError> {
                let bytes: &[u8] = data.as_ref();
                Ok(Some(bytes))
            }

            fn uses_scratch(&self) -> bool {
                false
            }
        }
    )*};
}

as_bytes!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

macro_rules! big_endian {
    ($($type:ty),*) => {$(
        impl Serializer<$type> for Plain {
            fn serialize<'a>(
                &self,
                _topic: &str,
                _headers: &mut Headers,
                data: &'a $type,
                scratch: &'a mut Vec<u8>,
            ) -> Result<Option<&'a [u8]>, SerializeError> {
                scratch.extend_from_slice(&data.to_be_bytes());
                Ok(Some(scratch))
            }
        }
    )*};
}

big_endian!(i16, i32, i64, u16, u32, u64, f32, f64);

impl Serializer<()> for Plain {
    /// Always null.
    fn serialize<'a>(
        &self,
        _topic: &str,
        _headers: &mut Headers,
        _data: &'a (),
        _scratch: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, SerializeError> {
        Ok(None)
    }
}

impl<T> Serializer<Option<T>> for Plain
where
    Plain: Serializer<T>,
{
    /// `None` is null; `Some` of an empty value is empty.
    fn serialize<'a>(
        &self,
        topic: &str,
        headers: &mut Headers,
        data: &'a Option<T>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, SerializeError> {
        match data {
            Some(data) => self.serialize(topic, headers, data, scratch),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain<T>(data: &T) -> Option<Vec<u8>>
    where
        Plain: Serializer<T>,
    {
        let mut scratch = Vec::new();
        Plain.serialize("t", &mut Vec::new(), data, &mut scratch).unwrap().map(<[u8]>::to_vec)
    }

    #[test]
    fn null_and_empty_are_kept_apart() {
        assert_eq!(plain(&None::<String>), None);
        assert_eq!(plain(&()), None);
        assert_eq!(plain(&Some(String::new())), Some(vec![]));
        assert_eq!(plain(&Bytes::new()), Some(vec![]));
    }

    #[test]
    fn numbers_are_big_endian_as_in_java() {
        assert_eq!(plain(&258_i32), Some(vec![0, 0, 1, 2]));
        assert_eq!(plain(&-1_i64), Some(vec![0xff; 8]));
        assert_eq!(plain(&1.0_f64), Some(vec![0x3f, 0xf0, 0, 0, 0, 0, 0, 0]));
    }
}
