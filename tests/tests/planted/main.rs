//! Every bug that can be planted is harmful: with it a schedule written by hand breaks a promise, and the very same
//! schedule keeps it without.

mod clients;
mod elections;
mod frame;
mod logs;
mod replication;

use broker_lite::sim;
use frame::{Run, Schedule, Verdict};
use klamm_tests::history::Rule;
use klamm_wire::planted::{Bug, plant};

/// What proves a bug harmful.
struct Proof {
    bug: Bug,
    /// What falls with the bug, and nothing else.
    breaks: &'static [Rule],
    schedule: Schedule,
}

/// A bug in this thread until this is dropped.
struct Planted;

impl Planted {
    fn new(bug: Option<Bug>) -> Self {
        plant(bug);
        Self
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        plant(None);
    }
}

/// Chance decides how long messages and disks take; a schedule must not depend on it.
const SEEDS: std::ops::Range<u64> = 0..3;

fn run(seed: u64, schedule: Schedule, bug: Option<Bug>) -> Result<Verdict, String> {
    let _planted = Planted::new(bug);
    let ended = sim::run(seed, |sim| async move { Run::start(sim).await?.play(schedule).await });
    ended
        .map_err(|error| format!("seed {seed}, with {bug:?}: the schedule could not be carried out: {error}"))
}

impl Proof {
    fn holds(&self) -> Result<(), String> {
        let Self { bug, breaks, schedule } = *self;
        for seed in sim::seeds(SEEDS) {
            let without = run(seed, schedule, None)?;
            assert!(without.is_ok(), "seed {seed}: the schedule of {bug:?} without the bug: {without}");
            let with = run(seed, schedule, Some(bug))?;
            assert_eq!(with.seen.broken(), *breaks, "seed {seed}: {bug:?}: {with}");
        }
        Ok(())
    }
}

macro_rules! proofs {
    ($($name:ident: $bug:ident breaks $($rule:ident)|+ in $schedule:path;)*) => {
        const PROOFS: &[Proof] = &[$(Proof {
            bug: Bug::$bug,
            breaks: &[$(Rule::$rule),+],
            schedule: |run| Box::pin($schedule(run)),
        }),*];

        $(
            #[test]
            fn $name() -> Result<(), String> {
                PROOFS.iter().filter(|proof| proof.bug == Bug::$bug).try_for_each(Proof::holds)
            }
        )*
    };
}

proofs! {
    what_was_never_synced_goes_with_the_power: SkipFsync breaks Lost in logs::power_fails_after_the_answer;
    what_a_dead_process_left_unsynced_goes_with_the_power:
        TrustUnsyncedTail breaks Lost in logs::power_fails_after_a_restart;
    what_lies_behind_a_torn_batch_cannot_be_read: KeepTornBatch breaks Lost in logs::power_fails_within_a_write;
    what_no_directory_names_durably_goes_with_the_power:
        NoDirectoryFsync breaks Lost in logs::power_fails_after_the_answer;
    what_an_old_recovery_point_vouches_for_goes_with_the_power:
        LoweredRecoveryPointLate breaks WrongOffset in logs::a_deposed_leader_is_killed_while_it_catches_up;
    a_log_that_is_not_truncated_differs: NoTruncation breaks LogsDiffer in logs::a_deposed_leader_returns;
    what_is_cut_at_the_high_watermark_is_lost_with_the_next_leader:
        TruncateToHighWatermark breaks Lost in logs::two_leaders_die_in_turn;
    a_high_watermark_ahead_of_everybody_is_lost_with_the_leader:
        HighWatermarkOffByOne breaks Lost in replication::the_leader_dies_with_what_only_it_has;
    an_answer_before_the_commit_is_lost_with_the_leader:
        AnswerBeforeCommit breaks Lost in replication::the_leader_dies_with_what_only_it_has;
    what_one_follower_lacks_is_lost_with_the_others:
        FastestFollowerDecides breaks Lost in replication::one_follower_lags_and_survives;
    a_shrink_that_was_never_agreed_on_loses_records:
        StaleIsr breaks Lost in replication::a_shrink_waits_and_the_lagging_one_survives;
    an_old_expansion_brings_a_lagging_replica_to_lead:
        NoCompareAndSet breaks Lost in replication::an_expansion_comes_late_and_the_lagging_one_survives;
    a_refused_expansion_brings_a_lagging_replica_to_lead:
        RefusedProposalStands breaks Lost in replication::a_refused_expansion_comes_late_and_the_lagging_one_survives;
    an_answer_of_an_earlier_leader_cuts_what_is_committed:
        NoEpochCheck breaks Lost in replication::an_earlier_leader_answers_late;
    whoever_is_elected_out_of_sync_lacks_records:
        UncleanElection breaks Lost in replication::the_one_out_of_sync_survives;
    a_leader_that_forgets_producers_appends_again:
        ForgetProducers breaks Duplicated in clients::the_leader_dies_before_its_answer;
    whoever_reads_beyond_the_high_watermark_reads_what_never_was:
        ReadUncommitted breaks ReadUncommitted | MovedBack | DifferentReads in clients::a_reader_of_a_leader_without_followers;
    a_retry_with_another_sequence_is_appended_again:
        NewSequenceOnRetry breaks Duplicated in clients::an_answer_is_lost;
    a_second_request_in_flight_overtakes_the_first:
        IgnoreInFlightLimit breaks Reordered in clients::the_first_of_two_requests_is_refused;
    an_error_taken_for_success_loses_the_record:
        ErrorTakenForSuccess breaks Lost in clients::a_deposed_leader_refuses;
    a_record_at_the_seam_of_a_split_batch_is_lost:
        SplitLosesRecord breaks Lost in clients::a_batch_of_two_is_too_large;
    parts_of_a_batch_in_the_wrong_order_are_records_in_the_wrong_order:
        SplitSwapsParts breaks Reordered in clients::a_batch_of_two_is_too_large;
    a_consumer_that_skips_after_its_connection_broke_misses_a_record:
        SkipAfterReconnect breaks Skipped in clients::a_connection_breaks_under_a_fetch;
    a_consumer_that_rereads_after_an_election_goes_back:
        RereadAfterLeaderChange breaks MovedBack in clients::a_reader_follows_an_election;
}

#[test]
fn every_bug_has_its_proof() {
    let proven: Vec<_> = PROOFS.iter().map(|proof| proof.bug).collect();
    // Whatever else has a directory synced meanwhile hides that one from most schedules; broker-lite's test of a directory finds it.
    let elsewhere = [Bug::NamesAfterTheirFsync];
    let all = || Bug::ALL.iter().chain(Bug::OF_POWER).chain(Bug::RARE).filter(|bug| !elsewhere.contains(bug));
    let missing: Vec<_> =
        all().filter(|bug| !proven.contains(bug) && !elections::FOUND.contains(bug)).collect();
    assert!(missing.is_empty(), "no schedule shows that these are harmful: {missing:?}");
    assert_eq!(proven.len() + elections::FOUND.len(), all().count(), "one schedule for each");
}

#[test]
fn without_a_bug_every_schedule_keeps_every_promise() {
    for Proof { bug, schedule, .. } in PROOFS {
        for seed in sim::seeds(SEEDS) {
            let verdict = run(seed, *schedule, None).unwrap();
            assert!(verdict.is_ok(), "seed {seed}: the schedule of {bug:?}: {verdict}");
        }
    }
}
