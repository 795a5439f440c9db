//! What becomes of one request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use klamm_wire::negotiation::ApiName;
use klamm_wire::{Frame, Request, codec};

/// What a request says about itself, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Head {
    /// Time since the first connection to the mock was made.
    pub at: Duration,
    /// The broker that was asked.
    pub broker: i32,
    /// Number of the connection, from 0 in the order in which they were made.
    pub connection: u64,
    /// `client.id` of whoever asks.
    pub client_id: Option<Arc<str>>,
    /// Api key, for example 1 for Fetch.
    pub api_key: i16,
    /// Version of the request, which the answer has to have as well.
    pub api_version: i16,
}

/// Decides about every request that reaches a [`MockConnector`](super::MockConnector).
///
/// Scripts are made of this; implement it where a test needs a broker with a mind of its own, and give it to
/// [`MockConnectorBuilder::responder`](super::MockConnectorBuilder::responder). It is asked once for each request,
/// in the order of the requests of a connection. `MockResponder` is one made by mockall:
///
/// ```
/// use klamm::mock::{Action, MockConnector, MockResponder};
/// use klamm::{Client, Recovery};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let mut responder = MockResponder::new();
/// responder.expect_respond().withf(|head, _| head.broker == 1).times(1..).returning(|_, _| Action::Default);
/// let mock = MockConnector::builder().responder(responder).build();
/// let client = Client::builder().bootstrap_servers(mock.bootstrap()).connector(mock).build().unwrap();
/// client.ready(std::time::Duration::from_secs(5)).await.unwrap();
/// # });
/// ```
#[mockall::automock]
pub trait Responder: Send + Sync + 'static {
    /// What to do about one request. [`Action::Default`] leaves it to the scripts, and to what the mock does by
    /// itself.
    fn respond(&self, head: &Head, request: Frame) -> Action;
}

/// What becomes of one request.
///
/// Answers leave a connection in the order of its requests, as a broker's do: one that is late, or does not come,
/// holds back those behind it.
#[non_exhaustive]
pub enum Action {
    /// What would have happened without this.
    Default,
    /// This answer, of the api and version of the request.
    Answer(Frame),
    /// The connection ends instead of an answer; the request is not carried out.
    DropConnection {
        /// What the error of the connection says.
        reason: String,
    },
    /// The request is carried out as by default, and then the connection ends instead of an answer.
    LoseAnswer,
    /// There is no answer, nor to whatever is asked on the same connection later.
    Silence,
    /// The same, but so much later.
    Delayed(Duration, Box<Action>),
    /// To be seen; in the end it must be an answer, or none.
    Later(BoxFuture<'static, Action>),
}

impl Action {
    /// A typed answer; ends the connection with the reason if the version of the request cannot carry it.
    ///
    /// ```
    /// use klamm::mock::{Action, Head, Responder};
    /// use klamm::mock::messages::{InitProducerIdRequest, InitProducerIdResponse};
    ///
    /// struct Busy;
    ///
    /// impl Responder for Busy {
    ///     fn respond(&self, head: &Head, _: klamm::Frame) -> Action {
    ///         match head.is::<InitProducerIdRequest>() {
    ///             true => {
    ///                 let busy = InitProducerIdResponse::default().with_error_code(14);
    ///                 Action::answer::<InitProducerIdRequest>(head, &busy)
    ///             }
    ///             false => Action::Default,
    ///         }
    ///     }
    /// }
    /// ```
    pub fn answer<R: Request>(head: &Head, response: &R::Response) -> Self {
        match codec::encode_response::<R>(head.api_version, response) {
            Ok(frame) => Self::Answer(frame),
            Err(error) => Self::DropConnection { reason: format!("the mock cannot say this: {error}") },
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("Default"),
            Self::Answer(frame) => f.debug_tuple("Answer").field(frame).finish(),
            Self::DropConnection { reason } => {
                f.debug_struct("DropConnection").field("reason", reason).finish()
            }
            Self::LoseAnswer => f.write_str("LoseAnswer"),
            Self::Silence => f.write_str("Silence"),
            Self::Delayed(by, action) => f.debug_tuple("Delayed").field(by).field(action).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

impl Head {
    /// `true` for a request of this type.
    pub fn is<R: Request>(&self) -> bool {
        self.api_key == R::KEY
    }
}

impl fmt::Display for Head {
    /// `Produce 12 (client "svc", broker 1)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.client_id.as_deref().unwrap_or_default();
        let api = api(self.api_key, self.api_version);
        write!(f, "{api} (client {client:?}, broker {})", self.broker)
    }
}

/// `Produce 12`
pub(super) fn api(api_key: i16, version: i16) -> String {
    format!("{} {version}", ApiName(api_key))
}
