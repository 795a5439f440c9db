//! What a rule does, and when.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use klamm_wire::codec::{CodecError, decode_request, decode_response, encode_response};
use klamm_wire::seam::Frame;
use klamm_wire::{ErrorCode, Request};

/// A point in the life of a request at its broker. In this order:
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// It has arrived, and nothing is done. What keeps it here keeps everything behind it on its connection.
    #[default]
    BeforeApply,
    /// What is done at once is done. A Produce request is in the leader's log, and neither replicated nor committed.
    AfterAppend,
    /// The answer is ready. A Produce request with `acks=all` is replicated to every in-sync replica, or was refused. The
    /// broker looks at the answers of a connection in order, so this may wait for earlier ones.
    AfterCommit,
    /// It is this answer's turn to be written.
    BeforeAnswer,
}

/// What happens to a request that a [rule](crate::Cluster::on) matches.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// The connection is closed at this moment, with everything that is on its way on it; nothing behind the request
    /// is taken in.
    ///
    /// Finds, after an append: retries that write twice; before: retries that never come.
    DropConnection,
    /// It is never answered. Answers leave in order, so those behind it on this connection wait, too; at
    /// [`Stage::BeforeApply`] neither it nor what is behind it is carried out. Ends with the connection.
    ///
    /// Finds: requests without a time limit.
    Silence,
    /// It goes on after this time.
    ///
    /// Finds: time limits, and what is done twice when one passes while the request is carried out.
    Delay(Duration),
    /// It is answered with this error for everything it names. At [`Stage::BeforeApply`] it is not carried out; at
    /// later stages it was, and the client is lied to. A request without an answer (`acks=0`), and one whose API has no
    /// room for an error, gets its connection closed. Metadata is answered as it is, with the error for each topic.
    ///
    /// Finds: errors that are not handled, or taken for final or passing wrongly.
    Error(ErrorCode),
    /// The real answer is changed: see [`Fault::edit`].
    Edit(Edit),
    /// Another answer is given: see [`Fault::answer`].
    Answer(Answers),
    /// The process of the node that has the request dies, as by [`Cluster::kill`](crate::Cluster::kill), before it
    /// writes another answer.
    ///
    /// Finds: records that were acknowledged too early; failovers that lose or double what was in flight.
    Kill,
    /// The power of the node that has the request fails, before it writes another answer.
    PowerOff,
    /// Something of your own: see [`Fault::call`].
    Call(Call),
}

type EditFn = dyn Fn(&Frame) -> Result<Option<Frame>, CodecError> + Send + Sync;

/// See [`Fault::edit`].
#[derive(Clone)]
pub struct Edit(pub(super) Arc<EditFn>);

/// See [`Fault::answer`].
#[derive(Clone)]
pub struct Answers(pub(super) Arc<EditFn>);

/// See [`Fault::call`].
#[derive(Clone)]
pub struct Call(pub(super) Arc<dyn Fn(&Frame) + Send + Sync>);

macro_rules! opaque {
    ($($name:ident)*) => {
        $(
            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(stringify!($name))
                }
            }
        )*
    };
}

opaque! { Edit Answers Call }

impl Fault {
    /// Changes the real answer, once there is one: at [`Stage::AfterCommit`] if the rule names an earlier stage.
    /// Requests of another API than `R`, and those that get no answer, are left as they are.
    ///
    /// Finds: clients that believe what they should check: offsets that move back, leaders that do not exist.
    pub fn edit<R: Request>(edit: impl Fn(&mut R::Response) + Send + Sync + 'static) -> Self {
        Self::Edit(Edit(Arc::new(move |answer| {
            if answer.api_key != R::KEY {
                return Ok(None);
            }
            let mut response = decode_response::<R>(answer.clone())?;
            edit(&mut response);
            encode_response::<R>(answer.api_version, &response).map(Some)
        })))
    }

    /// Answers in the broker's place. At [`Stage::BeforeApply`] the request is not carried out. Requests of another API
    /// than `R` are left as they are.
    ///
    /// Finds: what a real broker would answer only in rare moments.
    pub fn answer<R: Request>(answer: impl Fn(&R) -> R::Response + Send + Sync + 'static) -> Self {
        Self::Answer(Answers(Arc::new(move |request| {
            if request.api_key != R::KEY {
                return Ok(None);
            }
            let response = answer(&decode_request::<R>(request.clone())?);
            encode_response::<R>(request.api_version, &response).map(Some)
        })))
    }

    /// Calls `call` with the request, on the broker's own task: it must not wait. It may kill nodes, set other faults,
    /// and look at the cluster.
    pub fn call(call: impl Fn(&Frame) + Send + Sync + 'static) -> Self {
        Self::Call(Call(Arc::new(call)))
    }
}
