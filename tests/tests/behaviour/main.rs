//! One behaviour suite, written once, run over every backend: broker-lite in process, broker-lite over TCP,
//! Apache Kafka. What a behaviour prints and which backends it ran on stands in the table at the end.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests report by printing and panicking"
)]

mod administering;
mod consuming;
mod failing;
mod producing;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use futures::FutureExt;
use klamm_tests::backend::Backend;
use klamm_tests::process::ApacheKafka;
use klamm_tests::skipped;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;
type Run = for<'a> fn(&'a Backend) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// A sentence and the code that proves it.
struct Behaviour {
    name: &'static str,
    run: Run,
}

/// Lists behaviours: each function's name is its sentence.
macro_rules! behaviours {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$(Behaviour { name: stringify!($name), run: |backend| Box::pin($module::$name(backend)) }),*]
    };
}

const BEHAVIOURS: &[Behaviour] = behaviours![
    producing::what_is_sent_comes_back_with_null_and_empty_kept_apart,
    producing::every_codec_round_trips,
    producing::records_of_one_key_stay_in_order_in_one_partition,
    producing::acks_none_and_leader_deliver_as_well,
    producing::an_explicit_partition_is_obeyed,
    producing::interceptors_see_every_record_twice_even_if_one_panics,
    producing::typed_records_are_serialized_and_deserialized,
    consuming::reading_starts_at_the_beginning_the_end_an_offset_or_a_time,
    consuming::the_stream_hands_out_each_record_once,
    consuming::a_paused_partition_is_silent_until_resumed,
    consuming::a_batch_larger_than_the_fetch_limit_still_makes_progress,
    administering::a_topic_is_created_described_and_deleted,
    administering::the_cluster_describes_itself,
    failing::an_unknown_topic_is_named_when_auto_creation_is_not_asked_for,
    failing::an_invalid_topic_name_is_refused_at_once,
    failing::a_record_over_max_request_size_is_refused_and_the_next_one_goes_through,
    failing::a_topic_cannot_be_created_twice,
    failing::an_offset_out_of_range_follows_the_policy,
];

/// Runs all behaviours one after the other on a cluster; gives the sentences that did not hold.
async fn run_all(backend: &Backend) -> Vec<String> {
    let mut broken = Vec::new();
    for behaviour in BEHAVIOURS {
        // A failed assertion ends one behaviour, not the list.
        let outcome = AssertUnwindSafe((behaviour.run)(backend)).catch_unwind().await;
        let error = match outcome {
            Ok(outcome) => outcome.err().map(|error| error.to_string()),
            Err(panic) => Some(
                panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked; see above".into()),
            ),
        };
        let verdict = match error {
            None => "ok".to_owned(),
            Some(error) => {
                broken.push(format!("{}: {error}", behaviour.name));
                format!("FAILED: {error}")
            }
        };
        println!("{backend}: {} ... {verdict}", behaviour.name);
    }
    println!("{backend}: {} passed, {} failed", BEHAVIOURS.len() - broken.len(), broken.len());
    broken
}

fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "{} behaviours failed:\n{}", broken.len(), broken.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_behaviours_hold_on_broker_lite_in_process() {
    let backend = Backend::in_process().await.expect("broker-lite starts");
    assert_none(&run_all(&backend).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_behaviours_hold_on_broker_lite_over_tcp() {
    let backend = Backend::tcp().await.expect("broker-lite starts");
    assert_none(&run_all(&backend).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_behaviours_hold_on_apache_kafka() {
    if let Some(reason) = ApacheKafka::missing() {
        return skipped("Apache Kafka", &reason);
    }
    let backend = Backend::kafka().expect("Apache Kafka starts");
    assert_none(&run_all(&backend).await);
}
