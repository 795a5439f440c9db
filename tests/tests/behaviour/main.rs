//! One behaviour suite, written once, run over every backend that can do what a behaviour needs.
//!
//! One behaviour, one backend:
//! `cargo test -p klamm-tests --test behaviour -- --backend memory,kafka what_is_sent`, or `BACKEND=memory cargo test …`.
//! `SEED=7` gives virtual time another history. Names of cells begin with the backend, so that a filter may be `virtual::surviving`.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests report by panicking")]

mod accumulating;
mod acknowledging;
mod administering;
mod assigning;
mod changing;
mod committing;
mod configuring;
mod connecting;
mod consuming;
mod delivering;
mod failing;
mod grouping;
mod growing;
mod limits;
mod matching;
mod members;
mod overseeing;
mod pacing;
mod partitioning;
mod presets;
mod producing;
mod rebalancing;
mod storing;
mod surviving;
mod tools;

use std::process::ExitCode;
use std::time::Duration;

use klamm_tests::backend::Can::{
    AlterConfigs, ControllerApart, CreatePartitions, CreateTopics, CreateTopicsInFull, Cut, DeleteRecords,
    DescribeLogs, DescribeQuorum, ElectLeaders, Freeze, Groups, KeepRecords, Kill, Pause, PowerOff,
    RealSockets, Reassign, Replicate, RestartQuickly, SeeLogs, Threads, UnregisterBroker,
};
use klamm_tests::backend::KINDS;
use klamm_tests::suite::{Arguments, Behaviour, Suite, run};

/// Lists behaviours with what they need; each function's name is its sentence.
macro_rules! behaviours {
    ($($module:ident :: $name:ident [$($need:expr),*]),* $(,)?) => {
        &[$(Behaviour {
            name: concat!(stringify!($module), "::", stringify!($name)),
            needs: &[$($need),*],
            run: |backend| Box::pin($module::$name(backend)),
        }),*]
    };
}

const BEHAVIOURS: &[Behaviour] = behaviours![
    producing::what_is_sent_comes_back_with_null_and_empty_kept_apart[KeepRecords],
    producing::every_codec_round_trips[KeepRecords],
    producing::topics_are_stored_by_the_codec_of_each[RealSockets, KeepRecords],
    producing::records_of_one_key_stay_in_order_in_one_partition[KeepRecords],
    producing::acks_none_and_leader_deliver_as_well[KeepRecords],
    producing::an_explicit_partition_is_obeyed[],
    producing::interceptors_see_every_record_twice_even_if_one_panics[KeepRecords],
    producing::typed_records_are_serialized_and_deserialized[KeepRecords],
    partitioning::keys_land_where_the_named_client_puts_them[KeepRecords],
    partitioning::a_partitioner_that_panics_or_errs_fails_its_record_only[KeepRecords],
    partitioning::records_without_a_key_spread_evenly[],
    partitioning::records_without_a_key_go_mostly_to_leaders_that_answer[CreateTopics, Replicate],
    partitioning::without_adaption_records_without_a_key_go_to_a_silent_leader_as_well[CreateTopics, Replicate],
    partitioning::a_leader_that_takes_nothing_for_the_availability_timeout_gets_nothing[CreateTopics, Replicate],
    delivering::a_callback_runs_once_for_every_record_in_the_order_of_its_partition[KeepRecords],
    delivering::a_callback_that_blocks_delays_no_batch_but_holds_its_share_of_the_buffer[Threads],
    delivering::after_a_callback_that_panics_the_next_ones_run[],
    delivering::callbacks_hear_of_time_limits_a_close_in_haste_and_a_drop[Freeze, KeepRecords],
    delivering::interceptors_remember_each_record_until_its_fate_is_known_and_are_closed_once[KeepRecords],
    delivering::a_record_goes_where_an_interceptor_sends_it_and_nowhere_if_it_is_refused[KeepRecords],
    delivering::a_stream_is_poured_into_a_sink_and_each_failure_reported_once[KeepRecords],
    delivering::json_comes_back_as_it_was_sent_and_what_has_no_json_is_kept_out[KeepRecords],
    delivering::without_room_try_send_gives_the_record_back_and_send_waits_as_long_as_max_block[
        Freeze,
        KeepRecords
    ],
    delivering::try_send_asks_for_a_topic_that_is_not_known_and_takes_the_record_later[],
    presets::topics_have_the_settings_of_their_preset[RealSockets, CreateTopics],
    presets::high_throughput_is_acknowledged_by_the_leader_alone_or_by_nobody[
        Pause,
        CreateTopics,
        Replicate,
        KeepRecords
    ],
    presets::reliable_survives_the_kill_of_a_leader[Pause, Kill, CreateTopics, Replicate, KeepRecords],
    presets::highly_reliable_survives_the_kill_of_a_leader[Pause, Kill, CreateTopics, Replicate, KeepRecords],
    presets::highly_reliable_survives_a_loss_of_power_of_all[PowerOff, CreateTopics, KeepRecords],
    presets::ordered_keeps_order_over_a_leader_change_even_without_idempotence[
        Pause,
        CreateTopics,
        Replicate,
        KeepRecords
    ],
    presets::without_retries_order_is_kept_by_leaving_out_what_failed[KeepRecords],
    consuming::reading_starts_at_the_beginning_the_end_an_offset_or_a_time[KeepRecords],
    consuming::the_stream_hands_out_each_record_once[KeepRecords],
    consuming::a_paused_partition_is_silent_until_resumed[KeepRecords],
    consuming::a_batch_larger_than_the_fetch_limit_still_makes_progress[KeepRecords],
    consuming::a_new_assignment_hands_out_nothing_of_the_old_one[KeepRecords],
    consuming::every_partition_is_read_however_many_there_are[KeepRecords],
    consuming::batches_are_read_where_they_lie[KeepRecords],
    consuming::partitions_are_read_by_tasks_of_their_own_and_a_slow_one_holds_up_no_other[KeepRecords],
    consuming::a_poison_record_does_what_the_policy_says[KeepRecords],
    consuming::lag_and_watermarks_are_those_of_the_last_fetch[KeepRecords],
    storing::a_consumer_goes_on_where_its_own_store_says[KeepRecords],
    storing::an_offset_of_a_topic_that_was_created_anew_is_not_believed[CreateTopics, KeepRecords],
    storing::a_stored_leader_epoch_tells_that_the_log_was_truncated[CreateTopics, KeepRecords],
    storing::a_store_that_cannot_load_leaves_the_assignment_as_it_was[KeepRecords],
    assigning::an_assignor_of_ones_own_shares_out_what_it_likes_and_hears_what_came[Groups],
    assigning::members_change_over_to_another_assignor_one_by_one[Groups, KeepRecords],
    assigning::each_strategy_shares_out_evenly_and_the_sticky_ones_move_only_what_they_must[Groups],
    assigning::a_member_too_many_gets_nothing_stays_and_takes_over[Groups, KeepRecords],
    assigning::members_are_given_the_partitions_of_their_racks[Groups, CreateTopics, Replicate],
    assigning::others_take_over_from_who_unsubscribes[Groups, KeepRecords],
    assigning::who_names_no_group_is_a_member_of_the_group_default[Groups, KeepRecords],
    grouping::two_members_share_and_one_takes_over_when_the_other_leaves[Groups, KeepRecords],
    grouping::cooperative_members_share_and_one_takes_over_when_the_other_leaves[Groups, KeepRecords],
    grouping::a_group_outlives_its_coordinator[Groups, KeepRecords, Replicate, Kill],
    grouping::others_take_over_from_a_member_that_vanished[Groups, KeepRecords],
    grouping::a_listener_hears_of_every_change_and_commits_while_it_can[Groups, KeepRecords],
    grouping::a_reader_that_waits_polls_and_one_that_keeps_a_record_too_long_stalls_its_member[Groups, KeepRecords],
    grouping::new_partitions_are_shared_out[Groups, CreatePartitions],
    grouping::whoever_cannot_be_a_member_is_told_why[Groups, KeepRecords],
    grouping::a_member_that_is_dropped_leaves_and_commits_what_is_done[Groups, KeepRecords],
    grouping::a_member_that_subscribes_to_other_topics_gives_up_the_former[Groups, KeepRecords],
    rebalancing::a_member_whose_network_is_silent_loses_its_partitions_and_is_back_when_it_heals[Groups, KeepRecords],
    rebalancing::a_member_whose_connections_break_loses_its_partitions_and_is_back_when_it_heals[
        Groups,
        KeepRecords
    ],
    rebalancing::a_coordinator_that_moves_while_it_is_alive_changes_nothing[
        Groups,
        KeepRecords,
        Replicate,
        Reassign,
        ElectLeaders
    ],
    rebalancing::a_deleted_topic_is_given_up_and_joined_in_again_when_it_is_back[Groups, CreateTopics, KeepRecords],
    rebalancing::cooperatively_a_deleted_topic_is_given_up_and_joined_in_again[Groups, CreateTopics, KeepRecords],
    matching::topics_that_match_are_read_as_they_come_and_given_up_as_they_go[Groups, CreateTopics, KeepRecords],
    matching::cooperatively_topics_that_match_come_and_go_as_well[Groups, CreateTopics, KeepRecords],
    matching::members_by_pattern_and_by_name_share_a_group[Groups, CreateTopics],
    matching::kafkas_own_topics_match_only_if_that_is_asked_for[Groups, CreateTopics],
    matching::a_pattern_that_is_none_is_refused_and_what_was_subscribed_to_is_read_on[Groups, KeepRecords],
    committing::a_group_goes_on_where_it_committed[Groups, KeepRecords],
    committing::an_assigned_consumer_commits_for_its_group_and_another_goes_on_there[Groups, KeepRecords],
    committing::what_a_reader_is_at_work_on_is_not_done_because_others_ask[Groups, KeepRecords],
    committing::a_listener_that_commits_leaves_out_what_a_reader_is_at_work_on[Groups, KeepRecords],
    committing::without_a_group_nothing_is_committed_and_beside_members_it_is_refused[Groups, KeepRecords],
    committing::a_committed_leader_epoch_tells_that_the_log_was_truncated[Groups, KeepRecords],
    administering::a_topic_is_created_described_and_deleted[CreateTopics],
    administering::the_cluster_describes_itself[CreateTopics],
    administering::what_is_only_validated_is_not_done[CreateTopicsInFull],
    administering::topics_are_placed_by_hand_listed_and_described_by_id[CreateTopicsInFull],
    administering::a_topic_deleted_by_its_id_spares_the_next_one_of_that_name[CreateTopicsInFull],
    administering::offsets_are_listed_and_records_deleted[DeleteRecords, CreateTopics, KeepRecords],
    administering::brokers_tell_of_their_disks_and_of_who_produces[DescribeLogs, CreateTopics, Replicate],
    administering::the_quorum_and_the_features_describe_themselves[DescribeQuorum],
    administering::a_broker_that_is_gone_is_unregistered_and_comes_back_when_it_starts[
        Kill,
        UnregisterBroker,
        CreateTopics,
        Replicate
    ],
    overseeing::groups_are_listed_described_and_deleted[Groups, KeepRecords],
    overseeing::offsets_of_groups_are_listed_altered_and_deleted[Groups, CreateTopics, KeepRecords],
    overseeing::lag_is_what_is_left_between_commit_and_end[Groups, KeepRecords],
    overseeing::members_are_removed_by_name_or_all_together[Groups, KeepRecords],
    configuring::settings_change_and_tell_where_they_come_from[AlterConfigs, CreateTopics],
    configuring::a_wrong_value_is_refused_and_its_resource_stays_as_it_was[AlterConfigs, CreateTopics],
    configuring::lists_grow_and_shrink[AlterConfigs, CreateTopics],
    configuring::settings_of_all_brokers_give_way_to_those_of_one[AlterConfigs],
    growing::a_topic_gets_more_partitions_while_it_is_written_to[CreatePartitions, CreateTopics, KeepRecords],
    growing::one_replica_becomes_three_and_the_records_are_kept[Reassign, CreateTopics, Replicate, KeepRecords],
    growing::a_reassignment_to_a_silent_broker_waits_and_can_be_cancelled[Pause, Reassign, CreateTopics, Replicate],
    growing::the_preferred_leader_leads_again_when_it_is_asked_for[Pause, ElectLeaders, CreateTopics, Replicate],
    growing::a_broker_is_drained_of_a_topic_under_load[Reassign, CreateTopics, Replicate, KeepRecords],
    failing::an_unknown_topic_is_named_when_auto_creation_is_not_asked_for[CreateTopics],
    failing::an_invalid_topic_name_is_refused_at_once[CreateTopics],
    failing::a_record_over_max_request_size_is_refused_and_the_next_one_goes_through[],
    failing::a_topic_cannot_be_created_twice[CreateTopics],
    failing::an_offset_out_of_range_follows_the_policy[KeepRecords],
    accumulating::no_partition_starves_while_another_one_is_hammered[],
    accumulating::memory_comes_back_in_full[],
    accumulating::what_is_dropped_while_it_waits_takes_nothing_along[KeepRecords],
    acknowledging::flush_returns_once_everything_accepted_before_is_acknowledged[],
    acknowledging::after_a_record_that_was_given_up_amid_attempts_the_next_ones_are_written_once_each[
        KeepRecords
    ],
    acknowledging::close_sends_what_lingers[],
    acknowledging::send_and_wait_dropped_before_it_is_accepted_is_never_sent_and_after_that_is_sent[KeepRecords],
    acknowledging::what_was_acknowledged_to_a_client_that_vanishes_is_kept[KeepRecords],
    acknowledging::two_consumers_of_one_partition_both_read_everything[KeepRecords],
    acknowledging::a_consumer_at_the_end_hears_of_new_records_in_the_middle_of_its_long_poll[KeepRecords],
    limits::the_largest_record_allowed_arrives_and_one_byte_more_is_refused[KeepRecords],
    limits::a_record_over_the_topics_limit_is_refused_and_the_next_one_goes_through[CreateTopics],
    limits::a_batch_over_the_topics_limit_is_split_and_all_of_it_arrives_in_order[CreateTopics, KeepRecords],
    limits::create_time_is_the_producers_and_log_append_time_the_brokers[CreateTopics, KeepRecords],
    limits::a_timestamp_too_far_in_the_future_is_refused[CreateTopics],
    limits::reading_can_start_in_the_middle_of_a_compressed_batch[KeepRecords],
    limits::headers_come_back_as_they_were_sent[KeepRecords],
    pacing::a_producer_obeys_a_brokers_throttle_time[],
    pacing::a_throttled_broker_holds_up_no_other_one[CreateTopics, Replicate],
    pacing::a_consumer_obeys_a_brokers_throttle_time[KeepRecords],
    changing::a_producer_goes_on_in_a_topic_that_was_created_again[CreateTopics, KeepRecords],
    changing::a_consumer_begins_anew_in_a_topic_that_was_created_again[CreateTopics, KeepRecords, Groups],
    changing::a_member_begins_anew_in_a_topic_that_was_created_again[CreateTopics, KeepRecords, Groups],
    changing::producing_to_a_deleted_topic_fails_by_name_and_other_topics_go_on[CreateTopics],
    changing::records_accepted_for_a_topic_that_is_deleted_fail_by_name_and_later_ones_reach_the_new_one[
        CreateTopics,
        KeepRecords
    ],
    changing::a_record_that_waits_for_replicas_fails_when_its_topic_is_deleted[Pause, CreateTopics, Replicate],
    changing::a_topic_deleted_and_created_again_under_a_stream_of_records_takes_the_later_ones[
        CreateTopics,
        KeepRecords
    ],
    connecting::idle_connections_are_closed_and_the_next_record_is_sent_on_a_new_one[KeepRecords],
    connecting::a_connection_in_use_is_not_idle[],
    connecting::a_connection_on_which_an_answer_is_awaited_is_not_idle[KeepRecords],
    connecting::tiny_socket_buffers_let_everything_through[RealSockets, KeepRecords],
    connecting::buffer_sizes_reach_the_sockets_of_producers_and_consumers[RealSockets, KeepRecords],
    surviving::records_survive_the_kill_of_their_leader_once_each_and_in_order[Kill, Replicate, KeepRecords],
    surviving::what_was_acknowledged_is_there_after_every_broker_was_killed_in_turn[
        Kill,
        RestartQuickly,
        Replicate,
        KeepRecords
    ],
    surviving::what_was_acknowledged_is_there_after_all_brokers_were_dead_at_once[
        Kill,
        RestartQuickly,
        Replicate,
        KeepRecords
    ],
    surviving::what_a_leader_without_its_cluster_takes_is_acknowledged_by_its_successor[Cut, KeepRecords],
    surviving::what_was_synced_before_its_acknowledgement_survives_a_loss_of_power_of_all[PowerOff, KeepRecords],
    surviving::a_record_is_written_once_although_its_answers_come_too_late[Pause, Replicate, KeepRecords],
    surviving::a_retry_is_recognized_by_the_leader_that_has_the_record_from_the_one_before[
        Pause,
        Kill,
        ControllerApart,
        Replicate,
        KeepRecords
    ],
    surviving::nothing_is_acknowledged_or_shown_that_only_the_leader_has[Pause, Kill, Replicate, KeepRecords],
    surviving::without_idempotence_nothing_is_lost_although_it_may_come_twice[Pause, Replicate, KeepRecords],
    surviving::a_producer_goes_on_when_its_leader_pauses_and_comes_back[Pause, KeepRecords],
    surviving::five_requests_in_flight_keep_their_order_while_leadership_moves[Pause, Replicate, KeepRecords],
    surviving::a_consumer_reads_on_across_a_leader_change_without_gap_or_repetition[
        Pause,
        Replicate,
        KeepRecords
    ],
    surviving::below_min_insync_replicas_acks_all_is_refused_and_nothing_is_shown[
        Pause,
        Replicate,
        KeepRecords
    ],
    surviving::close_with_a_time_limit_tells_what_is_lost_when_the_cluster_is_silent[Freeze, KeepRecords],
    surviving::a_silent_cluster_is_heard_again_without_a_new_client[Freeze, KeepRecords],
    surviving::all_logs_agree_in_the_end[SeeLogs],
];

/// What chance comes from in virtual time, unless `SEED` says otherwise.
const SEED: u64 = 4;
/// Only turns a hang into a failure.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let backend = std::env::var("BACKEND").ok();
    let known: Vec<_> = KINDS.iter().map(|kind| kind.id).collect();
    let arguments = match Arguments::parse(std::env::args().skip(1), backend.as_deref(), &known) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("behaviour: {error}");
            return ExitCode::from(2);
        }
    };
    let require_all = std::env::var("REQUIRE").is_ok_and(|value| value == "all");
    let Ok(seed) = std::env::var("SEED").map_or(Ok(SEED), |seed| seed.parse()) else {
        eprintln!("behaviour: SEED is not a number");
        return ExitCode::from(2);
    };
    let suite = Suite { behaviours: BEHAVIOURS, kinds: KINDS, limit: LIMIT, require_all, seed };
    if run(suite, &arguments) { ExitCode::SUCCESS } else { ExitCode::from(101) }
}
