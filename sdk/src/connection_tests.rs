use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use klamm_core::backoff::Backoff;
use klamm_wire::Connector;
use klamm_wire::messages::ApiVersionsResponse;
use tower::service_fn;

use super::*;

/// A link that is ready when it is told to be, and never says so by itself.
#[derive(Clone, Default)]
struct Stubborn {
    ready: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<i16>>>,
    wakers: Arc<Mutex<Vec<Waker>>>,
}

impl Service<Frame> for Stubborn {
    type Response = Frame;
    type Error = LinkError;
    type Future = BoxFuture<Result<Frame, LinkError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.ready.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        *self.wakers.lock() = vec![cx.waker().clone()];
        Poll::Pending
    }

    fn call(&mut self, frame: Frame) -> Self::Future {
        if frame.api_key == ApiKey::ApiVersions as i16 {
            let response = ApiVersionsResponse::default();
            let frame = codec::encode_response::<ApiVersionsRequest>(frame.api_version, &response).unwrap();
            return Box::pin(async { Ok(frame) });
        }
        self.seen.lock().push(frame.api_key);
        Box::pin(async move { Ok(frame) })
    }
}

fn connection(connector: impl Connector) -> (Rt, Arc<Connection>) {
    let rt = Rt::current().unwrap();
    let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    let dialling = Dialling {
        rt: rt.clone(),
        connector: connector.erase(),
        reconnect: Mutex::new(Reconnect::new(backoff, rt.rng("test"))),
        setup_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(5),
        max_queued: 10,
    };
    (rt, Connection::new(Arc::new(dialling), Peer::Broker(1), Endpoint::new("h", 1)))
}

fn frame(api_key: i16) -> Frame {
    Frame::new(api_key, 0, Bytes::new())
}

const LATER: Tick = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_frame_does_not_overtake_those_that_wait_for_a_full_pipe() {
    let link = Stubborn::default();
    link.ready.store(true, Ordering::Relaxed);
    let opened = link.clone();
    let (rt, connection) = connection(service_fn(move |_| {
        let link = Link::new(opened.clone());
        async move { Ok::<_, LinkError>(link) }
    }));
    connection.connected(LATER).await.unwrap();
    link.ready.store(false, Ordering::Relaxed);
    let first = connection.send(frame(1), LATER);
    rt.sleep(Duration::from_millis(10)).await;
    // Looking at the connection must not take away the worker's wake-up.
    assert_eq!(connection.in_flight(), Some(0));
    link.ready.store(true, Ordering::Relaxed);
    let second = connection.send(frame(2), LATER);
    let third = connection.send(frame(3), LATER);
    link.wakers.lock().drain(..).for_each(Waker::wake);
    third.await.unwrap();
    second.await.unwrap();
    first.await.unwrap();
    assert_eq!(*link.seen.lock(), [1, 2, 3]);
}

/// Goal: who has sent is not idle, however late the task is that waits for the answer.
#[tokio::test(start_paused = true)]
async fn a_connection_with_a_request_that_nobody_has_looked_after_yet_is_not_idle() {
    let link = Stubborn::default();
    link.ready.store(true, Ordering::Relaxed);
    let opened = link.clone();
    let (rt, connection) = connection(service_fn(move |_| {
        let link = Link::new(opened.clone());
        async move { Ok::<_, LinkError>(link) }
    }));
    let queued = connection.send(frame(1), LATER);
    connection.connected(LATER).await.unwrap();
    rt.sleep(Duration::from_millis(10)).await;
    assert_eq!(*link.seen.lock(), [1], "the worker has sent it");
    assert!(!connection.close_if_idle(LATER));
    queued.await.unwrap();
    let direct = connection.send(frame(2), LATER);
    assert_eq!(connection.in_flight(), Some(1));
    assert!(!connection.close_if_idle(LATER));
    direct.await.unwrap();
    drop(connection.send(frame(3), LATER));
    assert_eq!(connection.in_flight(), Some(0));
    assert!(connection.close_if_idle(LATER));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_caller_has_gone_before_it_was_sent_is_never_sent() {
    let link = Stubborn::default();
    link.ready.store(true, Ordering::Relaxed);
    let opened = link.clone();
    let (_, connection) = connection(service_fn(move |_| {
        let link = Link::new(opened.clone());
        async move { Ok::<_, LinkError>(link) }
    }));
    drop(connection.send(frame(1), LATER));
    connection.send(frame(2), LATER).await.unwrap();
    assert_eq!(*link.seen.lock(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_cannot_be_dialled_is_left_alone_for_the_back_off() {
    let dials = Arc::new(Mutex::new(vec![]));
    let rt = Rt::current().unwrap();
    let (seen, clock) = (dials.clone(), rt.clone());
    let (_, connection) = connection(service_fn(move |_| {
        seen.lock().push(clock.now());
        async { Err::<Link, _>(LinkError::closed()) }
    }));
    for _ in 0..6 {
        let error = connection.connected(LATER).await.unwrap_err();
        assert!(matches!(error, RequestError::Unreachable { .. }), "{error}");
    }
    let dials = dials.lock();
    let pauses: Vec<_> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] >= Duration::from_millis(40) && pauses[0] <= Duration::from_millis(62), "{pauses:?}");
    assert!(pauses.windows(2).all(|pair| pair[1] > pair[0]), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_never_ends_is_given_up() {
    let (rt, connection) = connection(service_fn(|_| std::future::pending::<Result<Link, LinkError>>()));
    let error = connection.connected(LATER).await.unwrap_err();
    assert!(error.to_string().contains("no connection within 5s"), "{error}");
    assert!(rt.now() < Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn closing_tells_everybody_who_waits() {
    let (_, connection) = connection(service_fn(|_| std::future::pending::<Result<Link, LinkError>>()));
    let sent = connection.send(frame(1), LATER);
    let closing = connection.clone();
    let (connected, sent, ()) = tokio::join!(connection.connected(LATER), sent, async move {
        tokio::task::yield_now().await;
        closing.close(&RequestError::Closed);
    });
    assert!(matches!(connected, Err(RequestError::Closed)), "{connected:?}");
    assert!(matches!(sent, Err(RequestError::Closed)), "{sent:?}");
    assert!(matches!(connection.send(frame(1), LATER).await, Err(RequestError::Closed)));
}
