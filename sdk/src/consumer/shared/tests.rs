//! Readers that must not wait for each other.

use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::consumer::Consumer;
use crate::consumer::tests::{builder, cluster::Cluster, tp};

/// Goal: decompressing a large batch of one partition delays no commit of another.
#[tokio::test(start_paused = true)]
async fn what_is_done_of_one_partition_does_not_wait_for_the_reader_of_another() {
    let cluster = Cluster::default();
    let consumer: Consumer = builder(&cluster).build().unwrap();
    consumer.assign([0, 1].map(|index| (tp(index), StartOffset::Beginning)));
    let _streams = [0, 1].map(|index| consumer.partition_stream(&tp(index)).unwrap());
    let shared = &consumer.shared;
    let other = shared.lane(&tp(1)).unwrap();
    let decoding = other.reader.lock();
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            shared.done_up_to(&[(tp(0), CommittedOffset::new(3))].into());
            tell.send(()).unwrap();
        });
        let told = told.recv_timeout(Duration::from_secs(10));
        drop(decoding);
        assert_eq!(told, Ok(()), "it was done while the other one was decoding");
    });
}
