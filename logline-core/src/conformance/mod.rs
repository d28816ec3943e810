//! The contract of [`Ledger`] as tests. Every backend runs them, those of this project and those of others.
//!
//! ```ignore
//! mod memory {
//!     async fn open() -> ((), logline_core::MemoryLedger) {
//!         ((), logline_core::MemoryLedger::new())
//!     }
//!     logline_core::conformance_suite!(open, block_on);
//! }
//! ```
//!
//! `open` returns a guard and a new, empty ledger. The guard owns what the ledger needs while the test runs, for example a
//! temporary directory. `block_on` runs a future to its end. Every trial becomes a test with the name of the trial. A trial
//! that fails panics with a message. Trials are not covered by this crate's semantic versioning: later versions may check more.

pub mod active;
pub mod chains;
pub mod claiming;
pub mod counters;
pub mod isolation;
pub mod keeping;
pub mod model;
pub mod providing;
pub mod reading;
pub mod relying;
pub mod searching;
pub mod strategies;
pub mod vectors;
pub mod watching;
pub mod working;

use uuid::Uuid;

use crate::keys::KeyPair;
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, AppendReceipt, Ledger, LedgerError, LedgerExt as _};
use crate::span::SignedSpan;
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;
use crate::value::timestamp::Timestamp;

/// Makes a `#[test]` from every trial of [`Ledger`](crate::ledger::Ledger). The arguments are the paths of the functions `open`
/// and `block_on`, see [`conformance`](crate::conformance).
#[macro_export]
macro_rules! conformance_suite {
    ($open:path, $block_on:path) => {
        $crate::conformance_suite! { @tests $open, $block_on,
            chains::what_is_appended_is_read_back_and_verifies,
            chains::any_span_survives_the_round_trip,
            chains::the_first_version_may_have_any_seq,
            chains::an_existing_id_cannot_begin_again,
            chains::a_version_must_follow_the_last_one,
            chains::a_fork_is_refused,
            chains::versions_keep_their_owner_and_type,
            chains::a_batch_is_stored_whole_or_not_at_all,
            chains::a_batch_may_hold_several_versions_of_an_id,
            chains::the_identical_append_is_stored_once,
            chains::keep_leaves_what_a_racing_host_wrote,
            chains::keep_does_not_believe_a_squatters_digest,
            chains::one_of_many_writers_of_a_version_wins,
            relying::what_relies_on_an_old_version_is_not_stored,
            relying::a_retry_of_what_was_stored_needs_no_premise,
            relying::nothing_that_relies_on_a_version_comes_after_the_next_one,
            reading::memories_are_found_by_owner_and_by_who_may_read_them,
            chains::concurrent_appends_all_land,
            chains::a_dropped_append_is_stored_whole_or_not_at_all,
            chains::an_oversized_batch_is_refused,
            isolation::another_tenant_cannot_read_my_rows,
            isolation::the_same_user_name_in_another_tenant_is_somebody_else,
            isolation::a_colleague_cannot_read_my_private_rows,
            isolation::a_scope_without_identity_sees_and_writes_nothing,
            isolation::public_rows_of_another_tenant_show_only_when_it_is_named,
            isolation::a_hidden_last_version_hides_the_id,
            isolation::another_tenant_cannot_publish_my_next_version,
            isolation::a_user_cannot_write_as_another_owner,
            isolation::a_user_cannot_write_what_only_the_runtime_may,
            isolation::a_user_cannot_squat_on_derived_ids,
            isolation::the_same_id_in_another_tenant_changes_nothing,
            isolation::every_scope_sees_exactly_what_the_predicate_says,
            reading::a_tombstone_hides_the_id_but_not_its_history,
            reading::pages_resume_where_they_ended,
            reading::a_page_ends_with_the_row_that_reaches_its_bytes,
            reading::filters_match_the_last_version,
            reading::newest_first_is_append_order_reversed,
            reading::chain_order_yields_whole_chains,
            reading::until_shows_what_was_there,
            reading::a_page_ends_with_the_last_row_that_it_may_look_at,
            reading::a_page_returns_no_more_rows_than_it_looked_at,
            reading::the_last_version_of_a_long_chain_is_one_row,
            reading::a_foreign_cursor_is_refused,
            reading::history_starts_where_asked,
            watching::a_watch_yields_every_version_in_order,
            watching::a_watch_from_now_yields_what_comes,
            watching::a_watch_resumes_after_a_cursor,
            watching::a_watch_never_skips_under_concurrent_writers,
            watching::a_watch_shows_only_what_its_scope_may_see,
            model::random_histories_match_the_model,
        }
    };
    (@tests $open:path, $block_on:path, $($module:ident::$trial:ident),* $(,)?) => {
        $(#[test]
        fn $trial() {
            $block_on(async {
                let (guard, ledger) = $open().await;
                $crate::conformance::$module::$trial(&ledger).await;
                drop(ledger);
                drop(guard);
            });
        })*
    };
}

/// Makes a `#[test]` from every trial of [`KeyStore`](crate::contract::KeyStore). The arguments are those of
/// [`conformance_suite!`].
#[macro_export]
macro_rules! key_store_suite {
    ($open:path, $block_on:path) => {
        $crate::conformance_suite! { @tests $open, $block_on,
            keeping::epochs_begin_one_after_the_other_and_end_in_order,
            keeping::an_epoch_that_still_wraps_a_key_is_not_dropped,
            keeping::a_key_under_an_old_epoch_is_not_added,
            keeping::a_subject_has_one_key,
            keeping::another_tenant_finds_nothing,
            keeping::a_record_under_a_key_that_is_gone_is_not_added,
            keeping::what_is_forgotten_is_gone_and_what_stays_is_there,
            keeping::a_record_that_comes_in_between_stops_the_forgetting,
            keeping::of_two_forgettings_one_is_stale,
            keeping::a_forgetting_that_is_stale_destroys_nothing_of_the_others,
            keeping::receipts_are_remembered,
            keeping::records_come_in_pages,
            keeping::what_is_too_large_is_refused,
            keeping::records_are_listed_by_their_age,
            keeping::a_record_that_is_too_young_is_not_dropped,
        }
    };
}

/// Makes a `#[test]` from every trial of [`WorkQueue`](crate::ledger::WorkQueue). The arguments are those of
/// [`conformance_suite!`].
#[macro_export]
macro_rules! work_queue_suite {
    ($open:path, $block_on:path) => {
        $crate::conformance_suite! { @tests $open, $block_on,
            working::a_request_is_claimable_until_somebody_claims_it,
            working::a_request_that_ends_leaves_the_queue,
            working::a_poll_tells_the_last_version_of_the_function,
            working::what_is_taken_is_held_for_a_while,
            working::a_due_time_is_what_the_library_reads,
            working::a_request_that_is_dated_back_waits_behind_the_others,
            working::a_poll_sees_only_its_tenants,
            working::a_poll_takes_no_more_of_a_tenant_than_it_may,
            active::a_refused_span_is_not_listed,
            active::touched_tenants_are_told,
            working::a_parked_request_is_not_offered,
            working::open_requests_are_listed_in_pages,
            working::a_poll_reads_a_few_large_requests_and_every_small_one,
            working::an_arrival_wakes_whoever_waits,
            working::the_queue_changes_with_the_batch_or_not_at_all,
            working::a_request_is_claimable_when_it_is_due,
            working::a_request_without_a_successor_is_never_offered,
            working::a_higher_priority_comes_first,
            working::tenants_take_turns,
            claiming::of_many_workers_one_claims,
            claiming::a_heartbeat_keeps_the_lease_of_the_last_claim_only,
            claiming::what_is_appended_for_a_lost_claim_is_not_stored,
            claiming::appends_for_one_claim_run_beside_each_other_until_it_is_lost,
            counters::a_quota_holds_under_any_number_of_workers,
            counters::only_what_is_stored_uses_quota,
            counters::a_claim_uses_the_ledgers_day,
            counters::what_an_attempt_has_used_counts_when_it_ends,
            counters::what_a_call_reserves_counts_until_its_outcome,
            counters::a_budget_holds_under_any_number_of_calls,
            active::schedules_and_policies_are_active_until_their_last_version_says_otherwise,
            working::a_rebuild_finds_what_was_there,
        }
    };
}

/// Makes a `#[test]` from every trial of [`Search`](crate::ledger::Search) by words. The arguments are those of
/// [`conformance_suite!`].
#[macro_export]
macro_rules! search_suite {
    ($open:path, $block_on:path) => {
        $crate::conformance_suite! { @tests $open, $block_on,
            searching::a_memory_is_found_by_its_words,
            searching::rare_words_count_more_than_common_ones,
            searching::what_is_not_public_is_never_indexed,
            searching::another_tenant_finds_nothing_of_mine,
            searching::a_colleague_finds_only_what_is_shared,
            searching::a_session_memory_is_found_in_its_session_only,
            searching::public_memories_are_found_across_tenants,
            searching::a_search_needs_somebody_who_searches,
            searching::superseded_memories_take_no_places,
            searching::expired_memories_take_no_places,
            searching::better_matches_of_others_take_no_places,
            searching::texts_of_others_do_not_move_my_results,
            searching::a_memory_leaves_the_index_with_its_next_version,
            searching::a_refused_batch_leaves_no_entry,
            searching::operators_and_quotes_in_a_query_are_words,
            searching::a_query_without_words_finds_nothing,
            searching::filters_apply_before_the_best_are_taken,
            searching::a_search_returns_no_more_than_its_limit,
            searching::words_of_every_script_are_found,
            searching::every_memory_is_found_where_its_last_version_says,
            searching::a_rebuild_finds_the_memories_that_were_there,
            searching::a_user_cannot_write_what_others_will_find,
        }
    };
}

/// Makes a `#[test]` from every trial of [`Search`](crate::ledger::Search) by vectors, for ledgers that keep them. The arguments are
/// those of [`conformance_suite!`].
#[macro_export]
macro_rules! vector_suite {
    ($open:path, $block_on:path) => {
        $crate::conformance_suite! { @tests $open, $block_on,
            vectors::the_nearest_vectors_come_first,
            vectors::vectors_are_searched_within_the_scope,
            vectors::a_vector_goes_with_its_version,
            vectors::vectors_of_another_model_are_not_compared,
            vectors::a_memory_without_a_vector_is_pending_and_found_by_text,
        }
    };
}

/// Fails the trial with `message`.
#[allow(clippy::panic, reason = "a trial that fails panics, like every test")]
pub(crate) fn fail(message: impl std::fmt::Display) -> ! {
    std::panic::panic_any(message.to_string())
}

/// Unwraps a value that a trial needs, or fails the trial with `what`.
pub(crate) trait Expect<T> {
    fn or_fail(self, what: &str) -> T;
}

impl<T, E: std::fmt::Debug> Expect<T> for Result<T, E> {
    fn or_fail(self, what: &str) -> T {
        self.unwrap_or_else(|e| fail(format_args!("{what}: {e:?}")))
    }
}

impl<T> Expect<T> for Option<T> {
    fn or_fail(self, what: &str) -> T {
        self.unwrap_or_else(|| fail(what))
    }
}

/// Fails the trial if the two values differ. `what` names the value that was compared.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T, what: &str) {
    if found != expected {
        fail(format_args!("{what}:\n   found {found:?}\nexpected {expected:?}"));
    }
}

/// Fails the trial with `what` if `claim` is false. So `what` says what must be true.
pub(crate) fn hold(claim: bool, what: &str) {
    if !claim {
        fail(what);
    }
}

pub(crate) const TENANT: &str = "acme";
pub(crate) const OTHER: &str = "globex";
pub(crate) const USER: &str = "alice";

pub(crate) fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + n)
}

pub(crate) fn key() -> KeyPair {
    KeyPair::from_seed(&[7; 32])
}

/// The first version of a note that `USER` owns in `TENANT`.
pub(crate) fn note(n: u128) -> Draft {
    Draft::new("note").id(id(n)).tenant(TENANT).owner(USER).who("user:alice").this("note.trial").at(at(n))
}

pub(crate) fn at(n: u128) -> Timestamp {
    Timestamp::EPOCH.saturating_add(std::time::Duration::from_secs(1_800_000_000 + n as u64))
}

pub(crate) fn seal(draft: Draft) -> VerifiedSpan {
    draft.seal_local(&key()).or_fail("seal a draft of the trial")
}

pub(crate) fn next(previous: &SignedSpan) -> Draft {
    Draft::next_version(previous).at(at(u128::from(previous.seq) + 1000))
}

pub(crate) async fn append<L: Ledger>(ledger: &L, span: VerifiedSpan) -> AppendReceipt {
    ledger.append_one(&Scope::Operator, span).await.or_fail("append")
}

pub(crate) async fn append_all<L: Ledger>(ledger: &L, spans: Vec<VerifiedSpan>) -> Result<Vec<AppendReceipt>, LedgerError> {
    ledger.append(&Scope::Operator, spans, &AppendOptions::default()).await
}

/// Every row of every tenant, as the operator sees them.
pub(crate) async fn everything<L: Ledger>(ledger: &L) -> Vec<SignedSpan> {
    let query = crate::ledger::Query::timeline();
    ledger.collect(&Scope::Operator, &query, usize::MAX).await.or_fail("scan everything")
}
