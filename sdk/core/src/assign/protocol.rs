//! The consumer protocol: subscriptions and assignments as bytes, versions 0 to 3 of each.
//!
//! The coordinator passes them on unread. A later version is read as the latest known one, and what follows is ignored;
//! that is the promise by which members of different age share a group.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Assignment, Subscription};
use crate::TopicPartition;

/// Latest version of both schemas.
const LATEST: i16 = 3;

/// Another member's subscription, or the leader's assignment, is not what the consumer protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedMetadata {
    /// It ends too early, or a length in it is longer than the rest.
    #[error("consumer protocol data ends before its {0}")]
    Short(&'static str),
    /// A length or count is negative where that means nothing.
    #[error("consumer protocol data claims a negative length of its {0}")]
    Negative(&'static str),
    /// A name is not UTF-8.
    #[error("consumer protocol data has a {0} that is not UTF-8")]
    NotText(&'static str),
    /// There is no such version.
    #[error("consumer protocol data has version {0}, and versions begin at 0")]
    Version(i16),
}

/// Encodes a subscription in `version`, at most 3.
pub fn write_subscription(subscription: &Subscription, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    let version = version.clamp(0, LATEST);
    out.put_i16(version);
    let mut topics = subscription.topics.clone();
    topics.sort();
    out.put_i32(topics.len() as i32);
    for topic in &topics {
        put_string(&mut out, topic);
    }
    put_bytes(&mut out, subscription.user_data.as_ref());
    if version >= 1 {
        let mut owned = subscription.owned.clone();
        owned.sort();
        put_partitions(&mut out, &owned);
    }
    if version >= 2 {
        out.put_i32(subscription.generation.unwrap_or(-1));
    }
    if version >= 3 {
        match &subscription.rack {
            Some(rack) => put_string(&mut out, rack),
            None => out.put_i16(-1),
        }
    }
    out.freeze()
}

/// Decodes a subscription.
///
/// # Errors
///
/// [`MalformedMetadata`] says what is wrong with the bytes.
pub fn read_subscription(mut bytes: Bytes) -> Result<Subscription, MalformedMetadata> {
    let version = read_version(&mut bytes)?;
    let mut subscription = Subscription::default();
    for _ in 0..count(&mut bytes, "topics")? {
        subscription.topics.push(string(&mut bytes, "topic")?.ok_or(MalformedMetadata::Negative("topic"))?);
    }
    subscription.user_data = nullable_bytes(&mut bytes)?;
    if version >= 1 {
        subscription.owned = partitions(&mut bytes)?;
    }
    if version >= 2 {
        subscription.generation =
            Some(int32(&mut bytes, "generation")?).filter(|generation| *generation >= 0);
    }
    if version >= 3 {
        subscription.rack = string(&mut bytes, "rack")?.filter(|rack| !rack.is_empty());
    }
    Ok(subscription)
}

/// Encodes an assignment in `version`, at most 3.
pub fn write_assignment(assignment: &Assignment, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(version.clamp(0, LATEST));
    let mut sorted = assignment.partitions.clone();
    sorted.sort();
    put_partitions(&mut out, &sorted);
    put_bytes(&mut out, assignment.user_data.as_ref());
    out.freeze()
}

/// Decodes an assignment. No bytes at all, as a coordinator sends to a member that the leader forgot, are an empty one.
///
/// # Errors
///
/// [`MalformedMetadata`] says what is wrong with the bytes.
pub fn read_assignment(mut bytes: Bytes) -> Result<Assignment, MalformedMetadata> {
    if bytes.is_empty() {
        return Ok(Assignment::default());
    }
    read_version(&mut bytes)?;
    let partitions = partitions(&mut bytes)?;
    Ok(Assignment { partitions, user_data: nullable_bytes(&mut bytes)? })
}

/// Appends topics with their partitions; `sorted` has those of one topic together.
pub(super) fn put_partitions(out: &mut BytesMut, sorted: &[TopicPartition]) {
    let topics = || sorted.chunk_by(|a, b| a.topic == b.topic);
    out.put_i32(topics().count() as i32);
    for of_topic in topics() {
        put_string(out, &of_topic[0].topic);
        out.put_i32(of_topic.len() as i32);
        for partition in of_topic {
            out.put_i32(partition.partition);
        }
    }
}

/// Reads topics with their partitions.
pub(super) fn partitions(bytes: &mut Bytes) -> Result<Vec<TopicPartition>, MalformedMetadata> {
    let mut all = Vec::new();
    for _ in 0..count(bytes, "topics")? {
        let topic = string(bytes, "topic")?.ok_or(MalformedMetadata::Negative("topic"))?;
        for _ in 0..count(bytes, "partitions")? {
            all.push(TopicPartition { topic: topic.clone(), partition: int32(bytes, "partition")? });
        }
    }
    Ok(all)
}

pub(super) fn int32(bytes: &mut Bytes, what: &'static str) -> Result<i32, MalformedMetadata> {
    bytes.try_get_i32().map_err(|_| MalformedMetadata::Short(what))
}

fn put_string(out: &mut BytesMut, text: &str) {
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

fn put_bytes(out: &mut BytesMut, bytes: Option<&Bytes>) {
    match bytes {
        Some(bytes) => {
            out.put_i32(bytes.len() as i32);
            out.put_slice(bytes);
        }
        None => out.put_i32(-1),
    }
}

fn read_version(bytes: &mut Bytes) -> Result<i16, MalformedMetadata> {
    let version = bytes.try_get_i16().map_err(|_| MalformedMetadata::Short("version"))?;
    if version < 0 { Err(MalformedMetadata::Version(version)) } else { Ok(version.min(LATEST)) }
}

/// A count of elements of at least four bytes each, but for topics, whose names may be empty: two.
fn count(bytes: &mut Bytes, what: &'static str) -> Result<usize, MalformedMetadata> {
    let count = int32(bytes, what)?;
    let count = usize::try_from(count).map_err(|_| MalformedMetadata::Negative(what))?;
    if count > bytes.len() / 2 { Err(MalformedMetadata::Short(what)) } else { Ok(count) }
}

fn string(bytes: &mut Bytes, what: &'static str) -> Result<Option<Arc<str>>, MalformedMetadata> {
    let length = bytes.try_get_i16().map_err(|_| MalformedMetadata::Short(what))?;
    let Ok(length) = usize::try_from(length) else {
        return Ok(None);
    };
    if length > bytes.len() {
        return Err(MalformedMetadata::Short(what));
    }
    let text = bytes.split_to(length);
    let text = std::str::from_utf8(&text).map_err(|_| MalformedMetadata::NotText(what))?;
    Ok(Some(text.into()))
}

fn nullable_bytes(bytes: &mut Bytes) -> Result<Option<Bytes>, MalformedMetadata> {
    let length = int32(bytes, "user data")?;
    let Ok(length) = usize::try_from(length) else {
        return Ok(None);
    };
    if length > bytes.len() {
        Err(MalformedMetadata::Short("user data"))
    } else {
        Ok(Some(bytes.split_to(length)))
    }
}
