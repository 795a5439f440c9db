//! What `close` promises, whoever else uses the producer and wherever it is called.

use std::sync::mpsc as blocking;

use super::*;

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
