//! What `close` promises, whoever else uses the producer and wherever it is called.

use std::sync::mpsc as blocking;

use tokio::runtime::Handle;

use super::*;
use crate::interceptor::{Extensions, Interceptor};

/// Longer than anything here takes, so that a test that hangs fails.
const HANG: Duration = Duration::from_secs(20);

fn rt() -> Rt {
    Rt::current().unwrap()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    rt().before(rt().now() + HANG, future).await.unwrap_or_else(|| panic!("{what} hangs"))
}

#[tokio::test(start_paused = true)]
async fn a_close_that_nobody_waits_for_goes_on_whether_or_not_other_clones_live() {
    for others in [0, 1] {
        let broker = Broker::default();
        let producer: Producer = builder(&broker).linger_ms(60 * S).build().unwrap();
        let clones = vec![producer.clone(); others];
        let delivery = producer.send(line("sent")).await.unwrap();
        assert!(producer.close(10 * S).now_or_never().is_none(), "{others}: the future is dropped");
        assert_eq!(delivery.await.unwrap().offset, Some(0), "{others}");
        for clone in clones {
            assert!(matches!(clone.send(line("late")).await, Err(SendError::Closed { .. })));
            clone.close(S).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_nobody_waits_for_ends_at_its_time() {
    for others in [0, 1] {
        let broker = Broker::default();
        broker.0.lock().always = Some(Produced::Silence);
        let producer: Producer = builder(&broker).build().unwrap();
        let clones = vec![producer.clone(); others];
        let delivery = producer.send(line("stuck")).await.unwrap();
        let (rt, began) = (producer.inner.accumulator.client.rt().clone(), now(&producer));
        assert!(producer.close(10 * S).now_or_never().is_none());
        assert!(matches!(delivery.await, Err(SendError::Closed { maybe_written: true })), "{others}");
        let waited = rt.now() - began;
        assert!((10 * S..11 * S).contains(&waited), "{others}: {waited:?}");
        drop(clones);
    }
}

#[tokio::test(start_paused = true)]
async fn everyone_who_closes_hears_the_same_verdict_and_the_shortest_time_counts() {
    let broker = Broker::default();
    broker.0.lock().always = Some(Produced::Silence);
    let producer: Producer = builder(&broker).build().unwrap();
    let clone = producer.clone();
    let delivery = producer.send(line("stuck")).await.unwrap();
    let (rt, began) = (producer.inner.accumulator.client.rt().clone(), now(&producer));
    let verdicts = tokio::join!(producer.close(30 * S), clone.close(2 * S));
    assert!(
        matches!(verdicts.0, Err(SendError::TimedOut { waited, .. }) if waited == 30 * S),
        "{verdicts:?}"
    );
    assert!(matches!(verdicts.1, Err(SendError::TimedOut { waited, .. }) if waited == 2 * S), "{verdicts:?}");
    assert!(rt.now() - began < 4 * S);
    assert!(delivery.await.is_err());

    broker.0.lock().always = None;
    let producer: Producer = builder(&broker).build().unwrap();
    let clones = [producer.clone(), producer.clone()];
    drop(producer.send(line("fine")).await.unwrap());
    let verdicts = tokio::join!(producer.close(30 * S), clones[0].clone().close(2 * S));
    assert!(matches!(verdicts, (Ok(()), Ok(()))), "{verdicts:?}");
    clones[1].clone().close(Duration::ZERO).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_without_time_is_fine_if_nothing_is_left() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    drop(producer.send(line("x")).await.unwrap());
    producer.flush().await.unwrap();
    producer.close(Duration::ZERO).await.unwrap();
}

/// Goal: all is acknowledged in time, and the callback ends within the second that callbacks have beyond it.
#[tokio::test]
async fn callbacks_that_end_in_the_second_beyond_the_time_are_in_time() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    let (go_on, wait) = blocking::channel::<()>();
    let (started, runs) = oneshot::channel();
    let callback = move |_| {
        let _ = started.send(());
        let _ = wait.recv();
    };
    producer.send_with_callback(line("slow to tell"), callback).await.unwrap();
    soon("the callback", runs).await.unwrap();
    let limit = 50 * MS;
    let release = async {
        rt().sleep(2 * limit).await;
        go_on.send(()).unwrap();
    };
    let (closed, ()) = tokio::join!(producer.close(limit), release);
    closed.unwrap();
}

/// Goal: what is accepted is sent if there is time; so what comes too late for the last flush is not accepted.
#[tokio::test(start_paused = true)]
async fn no_batch_is_opened_behind_the_last_flush() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    producer.send_and_wait(line("known")).await.unwrap();
    let accumulator = producer.inner.accumulator.clone();
    // Someone has found the producer open, and has room.
    let topic = accumulator.topics.get(&"t".into()).unwrap();
    let encoded = Encoded { key: None, value: Some(b"x"), headers: &[], timestamp: None, need: 100 };
    let mut room = accumulator.memory.try_take(accumulator.memory.price(HEADER_BYTES + encoded.need));
    assert!(room.is_some());
    let mut closing = Box::pin(producer.close(30 * S));
    assert!((&mut closing).now_or_never().is_none());
    let appended = accumulator.append(topic, Pick::Index(0), encoded, &mut None, &mut room);
    assert!(matches!(appended, Appended::Closed));
    closing.await.unwrap();
    assert_eq!(accumulator.memory.available(), accumulator.memory.total());
}

/// Runs `call` in a callback, and returns what it returns.
async fn in_a_callback<T: Send + 'static>(
    producer: &Producer,
    call: impl FnOnce(&Handle) -> T + Send + 'static,
) -> T {
    let (tell, told) = oneshot::channel();
    let callback = move |_| drop(tell.send(call(&Handle::current())));
    producer.send_with_callback(line("calls"), callback).await.unwrap();
    soon("the callback", told).await.unwrap()
}

#[tokio::test]
async fn a_callback_may_send_again_and_flush_another_producer() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    let (tell, told) = oneshot::channel();
    let (clone, other): (_, Producer) = (producer.clone(), builder(&broker).build().unwrap());
    let flushed = in_a_callback(&producer, move |handle| {
        let sent = handle.block_on(clone.send(line("by send"))).unwrap();
        let note = move |outcome| drop(tell.send(outcome));
        clone.try_send_with_callback(line("by try_send"), note).unwrap();
        (sent, handle.block_on(other.flush()))
    });
    let (sent, flushed) = flushed.await;
    flushed.unwrap();
    assert_eq!(soon("send", sent).await.unwrap().offset, Some(1));
    assert_eq!(soon("try_send", told).await.unwrap().unwrap().offset, Some(2));
    soon("close", producer.close(S)).await.unwrap();
}

#[tokio::test]
async fn a_flush_in_a_callback_fails_at_once_instead_of_waiting_for_itself() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    let clone = producer.clone();
    let flushed = in_a_callback(&producer, move |handle| handle.block_on(clone.flush())).await;
    let error = flushed.unwrap_err();
    assert!(matches!(error, SendError::InCallback), "{error:?}");
    assert_eq!((error.recovery(), error.maybe_written()), (Recovery::Fix, false));
    // Elsewhere it still works.
    soon("flush", producer.flush()).await.unwrap();
    soon("close", producer.close(S)).await.unwrap();
}

#[tokio::test]
async fn an_interceptor_that_flushes_on_acknowledgement_hears_the_same() {
    type Given = (Option<Producer>, Option<oneshot::Sender<Result<(), SendError>>>);
    #[derive(Default)]
    struct Flushing(Arc<Mutex<Given>>);
    impl Interceptor for Flushing {
        fn on_acknowledgement(
            &self,
            _: &str,
            _: i32,
            _: Result<&RecordMetadata, &SendError>,
            _: &mut Extensions,
        ) {
            if let (Some(producer), Some(tell)) = std::mem::take(&mut *self.0.lock()) {
                let _ = tell.send(Handle::current().block_on(producer.flush()));
            }
        }
    }
    let broker = Broker::default();
    let flushing = Flushing::default();
    let given = flushing.0.clone();
    let producer: Producer = builder(&broker).interceptor(flushing).build().unwrap();
    let (tell, told) = oneshot::channel();
    *given.lock() = (Some(producer.clone()), Some(tell));
    drop(producer.send(line("x")).await.unwrap());
    assert!(matches!(soon("flush", told).await.unwrap(), Err(SendError::InCallback)));
    soon("close", producer.close(S)).await.unwrap();
}

#[tokio::test]
async fn a_close_in_a_callback_goes_on_without_it() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    producer.send_and_wait(line("known")).await.unwrap();
    let clone = producer.clone();
    let (open, closed) = in_a_callback(&producer, move |handle| {
        let open = handle.block_on(clone.send(line("open").partition(1))).unwrap();
        (open, handle.block_on(clone.close(30 * S)))
    })
    .await;
    assert!(matches!(closed, Err(SendError::InCallback)), "{closed:?}");
    assert!(matches!(producer.send(line("late")).await, Err(SendError::Closed { .. })));
    assert_eq!(soon("what was sent before", open).await.unwrap().offset, Some(0));
    soon("close", producer.close(10 * S)).await.unwrap();
}

#[tokio::test]
async fn a_callback_may_drop_the_last_producer() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).linger_ms(60 * S).build().unwrap();
    let accumulator = producer.inner.accumulator.clone();
    let (give, given) = blocking::channel::<Producer>();
    let (started, runs) = oneshot::channel();
    let (dropped, told) = oneshot::channel();
    let drops = move |_| {
        let _ = started.send(());
        let producer = given.recv().unwrap();
        assert!(Arc::strong_count(&producer.inner) == 1, "the last one");
        drop(producer);
        let _ = dropped.send(());
    };
    producer.send_with_callback(line("drops"), drops).await.unwrap();
    producer.inner.accumulator.inbox.leave(Note::NoRoom); // ends its lingering
    soon("the callback", runs).await.unwrap();
    let (tell, last) = oneshot::channel();
    let note = move |outcome| drop(tell.send(outcome));
    producer.send_with_callback(line("lingers").partition(1), note).await.unwrap();
    give.send(producer).unwrap();
    soon("the drop", told).await.unwrap();
    let last = soon("the next callback", last).await.unwrap();
    assert!(matches!(last, Err(SendError::Closed { maybe_written: false })), "{last:?}");
    let memory = &accumulator.memory;
    let all = async {
        while memory.available() < memory.total() {
            rt().sleep(MS).await;
        }
    };
    soon("memory", all).await;
}

/// Goal: what nobody tells any more holds no memory either.
#[tokio::test(start_paused = true)]
async fn memory_comes_back_without_the_teller() {
    let broker = Broker::default();
    let producer: Producer = builder(&broker).build().unwrap();
    producer.send_and_wait(line("known")).await.unwrap();
    if let Tasks::Running(_, teller) = &mut *producer.inner.tasks.lock() {
        drop(std::mem::replace(teller, rt().spawn(async {})));
    }
    rt().sleep(MS).await;
    let (tell, told) = oneshot::channel();
    producer.send_with_callback(line("untold"), move |outcome| drop(tell.send(outcome))).await.unwrap();
    assert!(matches!(soon("the callback", told).await, Ok(Err(SendError::Closed { maybe_written: true }))));
    check_memory(&producer).await;
}
