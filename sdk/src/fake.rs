//! A peer for tests that answers what a test tells it to, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use klamm_wire::codec::{self, RequestHead};
use klamm_wire::framing::{FrameSplitter, length_prefix};
use klamm_wire::messages::api_versions_response::ApiVersion;
use klamm_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, BrokerId, MetadataRequest, MetadataResponse,
};
use klamm_wire::negotiation::CLIENT_RANGES;
use klamm_wire::{Frame, Request, StrBytes};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::rt::{Rt, Task};

/// What the peer does about one request.
pub(crate) enum Act {
    /// Sends these bytes as they are.
    Raw(Vec<u8>),
    /// Says nothing.
    Silence,
    /// Closes the connection.
    Close,
}

type Script = dyn Fn(&RequestHead, Bytes) -> Act + Send + Sync;

/// A listening peer; dropping it closes the port and all its connections.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) accepted: Arc<Mutex<usize>>,
    /// Connections that are open now.
    pub(crate) open: Arc<Mutex<usize>>,
    /// Heads of all requests, in order of arrival.
    pub(crate) heads: Arc<Mutex<Vec<RequestHead>>>,
    _task: Task,
}

impl Fake {
    pub(crate) async fn start(script: impl Fn(&RequestHead, Bytes) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, script)
    }

    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(&RequestHead, Bytes) -> Act + Send + Sync + 'static,
    ) -> Self {
        let rt = Rt::current().unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, heads) = (Arc::new(Mutex::new(0)), Arc::<Mutex<Vec<RequestHead>>>::default());
        let (count, seen, script) = (accepted.clone(), heads.clone(), Arc::new(script));
        let open = Arc::<Mutex<usize>>::default();
        let (spawn, opened) = (rt.clone(), open.clone());
        let task = rt.spawn(async move {
            let mut conversations = vec![];
            while let Ok((stream, _)) = listener.accept().await {
                *count.lock() += 1;
                let (served, opened) = (serve(stream, script.clone(), seen.clone()), opened.clone());
                *opened.lock() += 1;
                conversations.push(spawn.spawn(async move {
                    served.await;
                    *opened.lock() -= 1;
                }));
            }
        });
        Self { address, accepted, open, heads, _task: task }
    }

    pub(crate) fn count(&self, api_key: i16) -> usize {
        self.heads.lock().iter().filter(|head| head.api_key == api_key).count()
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, heads: Arc<Mutex<Vec<RequestHead>>>) {
    let mut splitter = FrameSplitter::new(1 << 20);
    loop {
        if stream.read_buf(splitter.read_buffer()).await.unwrap_or(0) == 0 {
            return;
        }
        while let Some(mut frame) = splitter.next_frame().unwrap() {
            let head = codec::decode_request_header(&mut frame).unwrap();
            heads.lock().push(head.clone());
            match script(&head, frame) {
                Act::Raw(bytes) => stream.write_all(&bytes).await.unwrap(),
                Act::Silence => {}
                Act::Close => return,
            }
        }
    }
}

/// The bytes of an answer to a request.
pub(crate) fn reply<R: Request>(head: &RequestHead, response: &R::Response) -> Act {
    let frame = codec::encode_response::<R>(head.api_version, response).unwrap();
    framed(head, frame)
}

pub(crate) fn framed(head: &RequestHead, frame: Frame) -> Act {
    let header = codec::encode_response_header(head.api_key, head.api_version, head.correlation_id);
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&length_prefix(header.len() + frame.len_bytes()).unwrap());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&frame.into_contiguous());
    Act::Raw(bytes.to_vec())
}

/// The answer to ApiVersions of a broker that speaks what this client speaks.
pub(crate) fn versions(head: &RequestHead) -> Act {
    let range = |&(api_key, min, max): &(i16, i16, i16)| {
        ApiVersion::default().with_api_key(api_key).with_min_version(min).with_max_version(max)
    };
    let keys = CLIENT_RANGES.iter().map(range).collect();
    reply::<ApiVersionsRequest>(head, &ApiVersionsResponse::default().with_api_keys(keys))
}

/// Metadata that names one broker for each address, with ids from 1, and these topics with one partition each.
pub(crate) fn metadata(addresses: &[SocketAddr], topics: Vec<MetadataResponseTopic>) -> MetadataResponse {
    let broker = |(index, address): (usize, &SocketAddr)| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(i32::try_from(index).unwrap() + 1))
            .with_host(StrBytes::from_string(address.ip().to_string()))
            .with_port(i32::from(address.port()))
    };
    MetadataResponse::default()
        .with_brokers(addresses.iter().enumerate().map(broker).collect())
        .with_controller_id(BrokerId(1))
        .with_topics(topics)
}

/// A topic of a Metadata answer, with one partition led by broker 1 unless there is an error.
pub(crate) fn topic(name: &str, error: i16) -> MetadataResponseTopic {
    let partitions = if error == 0 {
        vec![MetadataResponsePartition::default().with_leader_id(BrokerId(1)).with_leader_epoch(0)]
    } else {
        vec![]
    };
    MetadataResponseTopic::default()
        .with_name(Some(klamm_wire::messages::TopicName(StrBytes::from_string(name.to_owned()))))
        .with_error_code(error)
        .with_partitions(partitions)
}

/// The names a Metadata request asks for.
pub(crate) fn names(head: &RequestHead, body: Bytes) -> (Vec<String>, bool) {
    let frame = Frame::new(head.api_key, head.api_version, body);
    let request = codec::decode_request::<MetadataRequest>(frame).unwrap();
    let names = request.topics.unwrap_or_default().into_iter();
    let names = names.map(|topic| topic.name.unwrap().0.as_str().to_owned()).collect();
    (names, request.allow_auto_topic_creation)
}
