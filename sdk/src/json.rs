//! Keys and values as JSON (feature `json`).

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::deserializer::{DeserializeError, Deserializer};
use crate::record::Headers;
use crate::serializer::{SerializeError, Serializer};

/// Keys and values as JSON, of every type that serde knows.
///
/// A null key or value stays null, and is not the JSON text `null`: that is what a `None` within a value becomes.
///
/// ```
/// use klamm::{Consumer, Json, Plain, Producer, Record};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Order {
///     fruit: String,
///     count: u32,
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let producer: Producer<String, Order> = Producer::builder()
///     .bootstrap_servers("localhost:9092")
///     .key_serializer(Plain)
///     .value_serializer(Json)
///     .build()?;
/// let order = Order { fruit: "apple".into(), count: 3 };
/// producer.send_and_wait(Record::new("orders").key("customer-7").value(order)).await?;
///
/// let consumer: Consumer<String, Order> = Consumer::builder()
///     .bootstrap_servers("localhost:9092")
///     .key_deserializer(Plain)
///     .value_deserializer(Json)
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json;

impl<T: Serialize> Serializer<T> for Json {
    fn serialize<'a>(
        &self,
        _topic: &str,
        _headers: &mut Headers,
        data: &'a T,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, SerializeError> {
        serde_json::to_writer(&mut *scratch, data)?;
        Ok(Some(scratch))
    }
}

impl<T: DeserializeOwned> Deserializer<T> for Json {
    fn deserialize(&self, _topic: &str, data: Bytes) -> Result<T, DeserializeError> {
        Ok(serde_json::from_slice(&data)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Order {
        fruit: Option<String>,
        count: u32,
    }

    #[test]
    fn a_value_comes_back_as_it_was_and_its_bytes_are_plain_json() {
        for order in [
            Order { fruit: Some("apple \"Boskoop\"".into()), count: 3 },
            Order { fruit: None, count: u32::MAX },
        ] {
            let mut scratch = Vec::new();
            let bytes = Json.serialize("t", &mut Vec::new(), &order, &mut scratch).unwrap().unwrap().to_vec();
            let text = std::str::from_utf8(&bytes).unwrap();
            assert!(text.starts_with("{\"fruit\":") && !text.contains('\n'), "{text}");
            let back: Order = Json.deserialize("t", bytes.into()).unwrap();
            assert_eq!(back, order);
        }
    }

    #[test]
    fn what_has_no_json_and_what_is_no_json_are_errors_that_say_why() {
        let keyed: BTreeMap<Vec<u8>, u8> = [(vec![1], 1)].into();
        let error = Json.serialize("t", &mut Vec::new(), &keyed, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "key must be a string");
        let order = |text: &'static str| -> Result<Order, _> {
            Json.deserialize("t", Bytes::from_static(text.as_bytes()))
        };
        assert!(order("{\"fruit\":null}").unwrap_err().to_string().contains("missing field `count`"));
        assert!(order("{\"fruit\":null,\"count\":1} x").is_err(), "nothing may follow");
        assert!(order("").is_err());
    }
}
