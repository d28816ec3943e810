//! Trials of version chains, batches, idempotent appends and races.

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::{
    Expect as _, OTHER, TENANT, append, append_all, at, everything, fail, hold, id, next, note, same, seal, strategies,
};
use crate::keys::{KeyPair, Verifier};
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, Conflict, Ledger, LedgerError, Outcome, Retry};
use crate::span::DIGEST_KEY;
use crate::span::Visibility;
use crate::span::draft::Draft;

/// Every column is read back as it was appended, by `get`, `history` and a scan.
pub async fn what_is_appended_is_read_back_and_verifies<L: Ledger>(ledger: &L) {
    let draft = note(1)
        .did("wrote")
        .parent(id(90))
        .related([id(91), id(92)])
        .visibility(Visibility::Tenant)
        .status("open")
        .name("a name")
        .description("two\nlines \u{2028} \u{1f600}")
        .code("(module)")
        .language("wat")
        .runtime("wasm@1")
        .input(json!({"amount": 0.1, "big": 9_007_199_254_740_991_i64, "nested": [{"a": [1.0, -0.0]}]}))
        .output(json!([]))
        .error(json!({}))
        .content(json!("text"))
        .metadata(json!({"\u{10000}": 1, "\u{ffff}": 2, "": null}))
        .duration_ms(17)
        .trace("trace-1");
    let span = seal(draft);
    let receipt = append(ledger, span.clone()).await;
    same(&receipt.key, &span.key(), "receipt's key");
    same(&receipt.curr_hash, &span.seal.curr_hash, "receipt's hash");
    same(&receipt.outcome, &Outcome::Appended, "receipt's outcome");
    let read = ledger.get(&Scope::Operator, TENANT, id(1)).await.or_fail("get");
    same(&read, &span.clone().into_signed(), "get");
    let history = ledger.history(&Scope::Operator, TENANT, id(1), 0, 10).await.or_fail("history");
    same(&history, &vec![span.clone().into_signed()], "history");
    same(&everything(ledger).await, &vec![span.into_signed()], "scan");
    read.verify(&mut Verifier::new()).or_fail("verify what was read");
}

/// Random spans that the input rules allow are read back as they were appended.
pub async fn any_span_survives_the_round_trip<L: Ledger>(ledger: &L) {
    let mut runner = TestRunner::default();
    let strategy = strategies::draft();
    let mut verifier = Verifier::new();
    for _ in 0..64 {
        let draft = strategy.new_tree(&mut runner).or_fail("a draft").current();
        let span = seal(draft);
        let receipt = append(ledger, span.clone()).await;
        same(&receipt.outcome, &Outcome::Appended, "a new span is appended");
        let read = ledger.history(&Scope::Operator, &span.tenant_id, span.id, 0, 1).await.or_fail("history");
        let read = read.into_iter().next().or_fail("the span must be in its history");
        same(&read, &span.into_signed(), "round trip");
        read.verify(&mut verifier).or_fail("verify what was read");
    }
}

/// The first version of a span does not need `seq` 0. The seeds of some spans begin at 1, 2 and 9.
pub async fn the_first_version_may_have_any_seq<L: Ledger>(ledger: &L) {
    let first = seal(note(1).seq(9));
    append(ledger, first.clone()).await;
    let second = seal(next(&first));
    same(&second.seq, &10, "the next version's seq");
    append(ledger, second).await;
}

/// If the id exists, a first version (no `prev_hash`) is refused, whatever its `seq`.
pub async fn an_existing_id_cannot_begin_again<L: Ledger>(ledger: &L) {
    append(ledger, seal(note(1).seq(5))).await;
    for seq in [3, 5, 6, 9] {
        let again = append_all(ledger, vec![seal(note(1).seq(seq).name("again"))]).await;
        match again {
            Err(e @ LedgerError::Conflict(_)) => same(&e.retry(), &Retry::Rebase, "a conflict's retry"),
            other => fail(format_args!("a second beginning at seq {seq}: {other:?}")),
        }
    }
    same(&everything(ledger).await.len(), &1, "rows");
}

/// A version that skips a `seq` is refused, and so is one whose predecessor does not exist.
pub async fn a_version_must_follow_the_last_one<L: Ledger>(ledger: &L) {
    let first = seal(note(1));
    append(ledger, first.clone()).await;
    let gap = append_all(ledger, vec![seal(next(&first).seq(2))]).await;
    hold(matches!(gap, Err(LedgerError::Conflict(Conflict::Gap { head: 0, .. }))), "a skipped seq must be refused as a gap");
    let orphan = append_all(ledger, vec![seal(next(&first).id(id(2)))]).await;
    hold(matches!(orphan, Err(LedgerError::Conflict(Conflict::NoPredecessor { .. }))), "a missing predecessor must be refused");
}

/// The `prev_hash` of a new version must be the `curr_hash` of the last version.
pub async fn a_fork_is_refused<L: Ledger>(ledger: &L) {
    let first = seal(note(1));
    let second = seal(next(&first));
    append_all(ledger, vec![first.clone(), second.clone()]).await.or_fail("two versions");
    let sibling = append_all(ledger, vec![seal(next(&first).name("sibling"))]).await;
    hold(matches!(sibling, Err(LedgerError::Conflict(Conflict::Exists { .. }))), "a second version of a seq must be refused");
    let fork = append_all(ledger, vec![seal(next(&second).follows(first.seal.curr_hash))]).await;
    hold(matches!(fork, Err(LedgerError::Conflict(Conflict::Fork { .. }))), "an old prev_hash must be refused as a fork");
}

/// A version cannot change the owner or the type of a span.
pub async fn versions_keep_their_owner_and_type<L: Ledger>(ledger: &L) {
    let first = seal(note(1));
    append(ledger, first.clone()).await;
    let mut retyped = next(&first);
    retyped.columns_mut().entity_type = "policy".to_owned();
    for draft in [next(&first).owner("bob"), retyped] {
        let changed = append_all(ledger, vec![seal(draft)]).await;
        hold(matches!(changed, Err(LedgerError::ChangedIdentity { .. })), "a change of owner or type must be refused");
    }
    let moved = append_all(ledger, vec![seal(next(&first).tenant(OTHER))]).await;
    hold(
        matches!(moved, Err(LedgerError::Conflict(Conflict::NoPredecessor { .. }))),
        "a version must not continue the chain of another tenant",
    );
}

/// If one span of a batch is refused, no span of the batch is stored.
pub async fn a_batch_is_stored_whole_or_not_at_all<L: Ledger>(ledger: &L) {
    append(ledger, seal(note(3))).await;
    let batch = vec![seal(note(1)), seal(note(2)), seal(note(3).name("conflict")), seal(note(4))];
    append_all(ledger, batch).await.err().or_fail("the batch must be refused");
    same(&everything(ledger).await.len(), &1, "rows");
    append_all(ledger, vec![seal(note(1)), seal(note(2))]).await.or_fail("append the valid spans of the batch afterwards");
}

/// A batch may hold several versions of one id. Each continues the one before it in the batch.
pub async fn a_batch_may_hold_several_versions_of_an_id<L: Ledger>(ledger: &L) {
    let first = seal(note(1));
    let second = seal(next(&first));
    let third = seal(next(&second));
    append_all(ledger, vec![first, second, third.clone()]).await.or_fail("three versions");
    let head = ledger.get(&Scope::Operator, TENANT, id(1)).await.or_fail("get");
    same(&head, &third.into_signed(), "the last version");
}

/// If an append that succeeded is repeated, it succeeds again and writes nothing.
pub async fn the_identical_append_is_stored_once<L: Ledger>(ledger: &L) {
    let first = seal(note(1));
    let second = seal(next(&first));
    let batch = vec![first.clone(), second.clone()];
    append_all(ledger, batch.clone()).await.or_fail("append");
    let receipts = append_all(ledger, batch).await.or_fail("the same append again");
    for (receipt, span) in receipts.iter().zip([&first, &second]) {
        same(&receipt.outcome, &Outcome::Existing, "outcome");
        same(&receipt.curr_hash, &span.seal.curr_hash, "hash");
    }
    same(&everything(ledger).await.len(), &2, "rows");
}

/// Two hosts derive the same id, and write it at different times and with different keys. The row that was stored first is
/// kept.
pub async fn keep_leaves_what_a_racing_host_wrote<L: Ledger>(ledger: &L) {
    let draft = || note(1).content(json!({"slot": 1})).deterministic();
    let first = seal(draft());
    append(ledger, first.clone()).await;
    let host = KeyPair::from_seed(&[9; 32]);
    let late = draft().at(at(99)).duration_ms(5).seal_local(&host).or_fail("seal");
    let batch = vec![late, seal(note(2))];
    let receipts = ledger.append(&Scope::Operator, batch, &AppendOptions::keep()).await.or_fail("keep");
    let outcomes: Vec<_> = receipts.iter().map(|r| r.outcome).collect();
    same(&outcomes, &vec![Outcome::Kept, Outcome::Appended], "the outcome for each span");
    same(&receipts.first().map(|r| r.curr_hash), &Some(first.seal.curr_hash), "the receipt's hash, that of the row it kept");
    let other = seal(note(1).content(json!({"slot": 2})).deterministic());
    let refused = ledger.append(&Scope::Operator, vec![other], &AppendOptions::keep()).await;
    hold(matches!(refused, Err(LedgerError::KeepMismatch { .. })), "other content under the same id must be refused");
}

/// Somebody writes other content first and copies the expected digest into it. The ledger computes the digest itself and
/// refuses the honest append instead of keeping that row.
pub async fn keep_does_not_believe_a_squatters_digest<L: Ledger>(ledger: &L) {
    let honest = note(1).content(json!({"pay": 1})).deterministic();
    let digest = honest.columns().meta(DIGEST_KEY).cloned().or_fail("a digest");
    let squat: Draft = note(1).content(json!({"pay": 1_000_000})).meta(DIGEST_KEY, digest);
    append(ledger, seal(squat)).await;
    let refused = ledger.append(&Scope::Operator, vec![seal(honest)], &AppendOptions::keep()).await;
    hold(matches!(refused, Err(LedgerError::KeepMismatch { .. })), "a row with a copied digest must not be kept as ours");
}

/// Many writers append the same version at once. One wins, and the others get a conflict.
pub async fn one_of_many_writers_of_a_version_wins<L: Ledger>(ledger: &L) {
    let first = seal(note(1));
    append(ledger, first.clone()).await;
    let rivals: Vec<_> = (0..32).map(|n| seal(next(&first).name(format!("rival {n}")))).collect();
    let results = join_all(rivals.into_iter().map(|rival| append_all(ledger, vec![rival]))).await;
    let won = results.iter().filter(|r| r.is_ok()).count();
    same(&won, &1, "winners");
    let lost = results.iter().filter(|r| matches!(r, Err(LedgerError::Conflict(_)))).count();
    same(&lost, &31, "conflicts");
}

/// Many appends at once: none is lost, and the failure of one does not affect the others.
pub async fn concurrent_appends_all_land<L: Ledger>(ledger: &L) {
    append(ledger, seal(note(1000))).await;
    let good = (0..200_u128).map(|n| append_all(ledger, vec![seal(note(n))]));
    let bad = (0..20).map(|n| append_all(ledger, vec![seal(note(1000).name(format!("conflict {n}")))]));
    let (good, bad) = futures_util::future::join(join_all(good), join_all(bad)).await;
    hold(good.iter().all(Result::is_ok), "every valid append must succeed");
    hold(bad.iter().all(Result::is_err), "every conflicting append must fail");
    same(&everything(ledger).await.len(), &201, "rows");
}

/// An append that is cancelled leaves no part of a batch and does not block a retry.
pub async fn a_dropped_append_is_stored_whole_or_not_at_all<L: Ledger>(ledger: &L) {
    for n in 0..20_u128 {
        let batch = vec![seal(note(2 * n)), seal(note(2 * n + 1))];
        // Polls the future once, which starts the append, and then drops it.
        let _ = append_all(ledger, batch.clone()).now_or_never();
        append_all(ledger, batch).await.or_fail("a retry must succeed, whether the first append was stored or not");
    }
    same(&everything(ledger).await.len(), &40, "rows");
}

/// A batch with more spans than `max_batch` is refused with an error of its own.
pub async fn an_oversized_batch_is_refused<L: Ledger>(ledger: &L) {
    let max = ledger.capability().max_batch;
    let batch = vec![seal(note(1)); max + 1];
    let refused = append_all(ledger, batch).await;
    hold(matches!(refused, Err(LedgerError::BatchTooLarge { .. })), "a batch over the limit must be refused");
}
