//! Which topics and partitions a request names.

use klamm_wire::codec::{CodecError, decode_offset_commit, decode_request};
use klamm_wire::messages::{
    AlterPartitionRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, DescribeProducersRequest, FetchRequest, ListOffsetsRequest, MetadataRequest,
    OffsetDeleteRequest, OffsetForLeaderEpochRequest, ProduceRequest,
};
use klamm_wire::seam::Frame;
use uuid::Uuid;

/// Resource type code of topics.
const TOPIC: i8 = 2;

/// Something that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// Every topic there is.
    All,
    /// A topic, and one of its partitions if the API is about partitions.
    Topic(String, Option<i32>),
}

impl Named {
    /// Whether this is the topic, or the partition of it, if one is wanted.
    pub(super) fn includes(&self, topic: &str, partition: Option<i32>) -> bool {
        match self {
            Self::All => true,
            Self::Topic(name, number) => {
                name == topic && (partition.is_none() || number.is_none() || *number == partition)
            }
        }
    }
}

/// What a request names; `name_of` tells the name of a topic by its id. An id without a topic is named by itself.
pub(crate) fn named(request: &Frame, name_of: &impl Fn(Uuid) -> Option<String>) -> Vec<Named> {
    // What cannot be read names nothing: the handler refuses it.
    decode(request.clone(), name_of).unwrap_or_default()
}

fn decode(frame: Frame, name_of: &impl Fn(Uuid) -> Option<String>) -> Result<Vec<Named>, CodecError> {
    let named = |name: &str, id: Uuid| match name {
        "" => name_of(id).unwrap_or_else(|| id.to_string()),
        name => name.to_owned(),
    };
    let mut all = Vec::new();
    let mut add = |name: &str, id: Uuid, partitions: &mut dyn Iterator<Item = i32>| {
        let name = named(name, id);
        all.extend(partitions.map(|number| Named::Topic(name.clone(), Some(number))));
    };
    match frame.api_key {
        0 => {
            for topic in decode_request::<ProduceRequest>(frame)?.topic_data {
                add(&topic.name, topic.topic_id, &mut topic.partition_data.iter().map(|data| data.index));
            }
        }
        1 => {
            for topic in decode_request::<FetchRequest>(frame)?.topics {
                add(
                    &topic.topic,
                    topic.topic_id,
                    &mut topic.partitions.iter().map(|wanted| wanted.partition),
                );
            }
        }
        2 => {
            for topic in decode_request::<ListOffsetsRequest>(frame)?.topics {
                let mut partitions = topic.partitions.iter().map(|wanted| wanted.partition_index);
                add(&topic.name, Uuid::nil(), &mut partitions);
            }
        }
        8 => {
            for topic in decode_offset_commit(frame)?.topics {
                let mut partitions = topic.partitions.iter().map(|part| part.partition_index);
                add(&topic.name, topic.topic_id, &mut partitions);
            }
        }
        47 => {
            for topic in decode_request::<OffsetDeleteRequest>(frame)?.topics {
                let mut partitions = topic.partitions.iter().map(|part| part.partition_index);
                add(&topic.name, Uuid::nil(), &mut partitions);
            }
        }
        21 => {
            for topic in decode_request::<DeleteRecordsRequest>(frame)?.topics {
                let mut partitions = topic.partitions.iter().map(|wanted| wanted.partition_index);
                add(&topic.name, Uuid::nil(), &mut partitions);
            }
        }
        23 => {
            for topic in decode_request::<OffsetForLeaderEpochRequest>(frame)?.topics {
                add(&topic.topic, Uuid::nil(), &mut topic.partitions.iter().map(|wanted| wanted.partition));
            }
        }
        61 => {
            for topic in decode_request::<DescribeProducersRequest>(frame)?.topics {
                add(&topic.name, Uuid::nil(), &mut topic.partition_indexes.iter().copied());
            }
        }
        56 => {
            for topic in decode_request::<AlterPartitionRequest>(frame)?.topics {
                let mut partitions = topic.partitions.iter().map(|data| data.partition_index);
                add("", topic.topic_id, &mut partitions);
            }
        }
        _ => return whole_topics(frame, named),
    }
    Ok(all)
}

/// APIs that name topics, and no partitions.
fn whole_topics(frame: Frame, named: impl Fn(&str, Uuid) -> String) -> Result<Vec<Named>, CodecError> {
    let topic = |name: &str, id| Named::Topic(named(name, id), None);
    let found = match frame.api_key {
        3 => {
            let version = frame.api_version;
            match decode_request::<MetadataRequest>(frame)?.topics {
                // Version 0 has no other way to say it.
                Some(topics) if version == 0 && topics.is_empty() => vec![Named::All],
                None => vec![Named::All],
                Some(topics) => {
                    let name = |wanted: &klamm_wire::messages::metadata_request::MetadataRequestTopic| {
                        topic(wanted.name.as_deref().map_or("", |name| &**name), wanted.topic_id)
                    };
                    topics.iter().map(name).collect()
                }
            }
        }
        19 => {
            let topics = decode_request::<CreateTopicsRequest>(frame)?.topics;
            topics.iter().map(|created| topic(&created.name, Uuid::nil())).collect()
        }
        20 => {
            let request = decode_request::<DeleteTopicsRequest>(frame)?;
            let by_name = request.topic_names.iter().map(|name| topic(name, Uuid::nil()));
            let either = request
                .topics
                .iter()
                .map(|state| topic(state.name.as_deref().map_or("", |name| &**name), state.topic_id));
            by_name.chain(either).collect()
        }
        32 => {
            let resources = decode_request::<DescribeConfigsRequest>(frame)?.resources;
            let topics = resources.iter().filter(|resource| resource.resource_type == TOPIC);
            topics.map(|resource| topic(&resource.resource_name, Uuid::nil())).collect()
        }
        _ => Vec::new(),
    };
    Ok(found)
}
