//! Trials of claims: who wins one, how its lease is extended, and what is appended for it.

use std::time::Duration;

use futures_util::future::{join, join_all};

use super::counters::today;
use super::working::{HOUR, claim, claimable, is_claimable, open, request};
use super::{Expect as _, OTHER, TENANT, USER, append, append_all, at, everything, hold, id, next, note, same, seal};
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, AppendReceipt, Conflict, HeldClaim, LedgerError, Limit, Outcome, Work, WorkQueue};
use crate::request::{CallKind, Charges};
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;

/// Many workers claim the same request at once. One wins.
pub async fn of_many_workers_one_claims<Q: WorkQueue>(queue: &Q) {
    let waiting = open(queue, request(TENANT, 1)).await;
    let claims = (0..16).map(|n| seal(claim(&waiting, HOUR).meta("worker", format!("w{n}"))));
    let results = join_all(claims.map(|claim| append_all(queue, vec![claim]))).await;
    same(&results.iter().filter(|r| r.is_ok()).count(), &1, "claims that won");
    for error in results.into_iter().filter_map(Result::err) {
        hold(matches!(error, LedgerError::Conflict(_)), "the other claims must get a conflict");
    }
    hold(claimable(queue, 10, None).await.is_empty(), "a claimed request must not be due");
}

/// A heartbeat extends the lease of the last claim. It has no effect for an older claim or a wrong one.
pub async fn a_heartbeat_keeps_the_lease_of_the_last_claim_only<Q: WorkQueue>(queue: &Q) {
    let waiting = open(queue, request(TENANT, 1)).await;
    hold(!queue.heartbeat(&Work::of(&waiting), HOUR).await.or_fail("heartbeat"), "a heartbeat without a claim must be false");
    hold(is_claimable(queue, &waiting).await, "the request must still be due");
    let claimed = open(queue, claim(&waiting, Duration::ZERO)).await;
    hold(is_claimable(queue, &claimed).await, "a request whose lease has ended must be due");
    let held = Work::of(&claimed);
    hold(queue.heartbeat(&held, HOUR).await.or_fail("heartbeat"), "a heartbeat for the last claim must be true");
    hold(claimable(queue, 10, None).await.is_empty(), "a request whose lease was extended must not be due");
    hold(queue.heartbeat(&held, Duration::ZERO).await.or_fail("heartbeat"), "a heartbeat for the last claim must be true");
    hold(is_claimable(queue, &claimed).await, "a request whose lease was set to zero must be due");
    // Another worker takes over. The heartbeat tells the first worker that it has lost the claim.
    let taken = open(queue, claim(&claimed, HOUR)).await;
    for stale in [
        held.clone(),
        Work { tenant_id: OTHER.to_owned(), ..Work::of(&taken) },
        Work { curr_hash: held.curr_hash, ..Work::of(&taken) },
    ] {
        hold(!queue.heartbeat(&stale, Duration::ZERO).await.or_fail("heartbeat"), "a heartbeat for a lost claim must be false");
    }
    hold(claimable(queue, 10, None).await.is_empty(), "a heartbeat for a lost claim must not end the lease of another");
    open(queue, next(&taken).status("complete")).await;
    hold(!queue.heartbeat(&Work::of(&taken), HOUR).await.or_fail("heartbeat"), "a heartbeat after the end must be false");
}

async fn append_for<Q: WorkQueue>(
    queue: &Q,
    running: &VerifiedSpan,
    lease: Duration,
    batch: Vec<VerifiedSpan>,
) -> Result<Vec<AppendReceipt>, LedgerError> {
    let options = AppendOptions::default().held(HeldClaim::of(running, lease));
    queue.append(&Scope::runtime(TENANT), batch, &options).await
}

fn is_lost(result: &Result<Vec<AppendReceipt>, LedgerError>, claim: &VerifiedSpan) -> bool {
    matches!(result, Err(LedgerError::Conflict(Conflict::ClaimLost { key })) if *key == claim.key())
}

/// A batch for a claim is stored while the claim is the last version, and extends its lease. Afterwards nothing of it is stored, whoever
/// holds the request then. What was stored before may be repeated.
pub async fn what_is_appended_for_a_lost_claim_is_not_stored<Q: WorkQueue>(queue: &Q) {
    let waiting = open(queue, request(TENANT, 1)).await;
    let early = append_for(queue, &waiting, HOUR, vec![seal(note(10))]).await;
    hold(is_lost(&early, &waiting), "a request that nobody has claimed is no claim");
    let claimed = open(queue, claim(&waiting, Duration::ZERO)).await;
    hold(is_claimable(queue, &claimed).await, "a request whose lease has ended must be due");
    let stored = vec![seal(note(11)), seal(note(12))];
    append_for(queue, &claimed, HOUR, stored.clone()).await.or_fail("an append for a claim that is held");
    hold(claimable(queue, 10, None).await.is_empty(), "the append must extend the lease");
    for scope in [Scope::user(TENANT, USER), Scope::runtime(OTHER), Scope::Operator] {
        let options = AppendOptions::default().held(HeldClaim::of(&claimed, Duration::ZERO));
        let refused = queue.append(&scope, vec![seal(note(13))], &options).await;
        hold(
            matches!(refused, Err(LedgerError::Refused { .. } | LedgerError::Forbidden(_))),
            "only the runtime of the tenant holds claims",
        );
    }
    let taken = open(queue, claim(&claimed, HOUR)).await;
    let late = append_for(queue, &claimed, Duration::ZERO, vec![seal(note(14)), seal(note(15))]).await;
    hold(is_lost(&late, &claimed), "another attempt has begun");
    hold(claimable(queue, 10, None).await.is_empty(), "a lost claim must not end the lease of another");
    let again = append_for(queue, &claimed, HOUR, stored).await.or_fail("the same append again");
    hold(again.iter().all(|receipt| receipt.outcome == Outcome::Existing), "it was stored before");
    let reserved = Charges::of_call(today(queue).await, [("tokens", 600)]);
    let intent =
        Draft::new(CallKind::Provider.intent()).id(id(16)).tenant(TENANT).owner(USER).who("host").this("call").at(at(16));
    let limit = Limit { tenant: TENANT.to_owned(), key: "tokens".to_owned(), per_day: 1000 };
    let limited = AppendOptions::default().held(HeldClaim::of(&claimed, HOUR)).limits(vec![limit]);
    let intent = seal(intent.status("open").meta("quota", reserved.to_used()));
    let late = queue.append(&Scope::runtime(TENANT), vec![intent], &limited).await;
    hold(is_lost(&late, &claimed), "a call that reserves units needs its claim too");
    same(&queue.used(TENANT, "tokens").await.or_fail("used"), &0, "units of a call that is not stored");
    open(queue, next(&taken).status("complete")).await;
    let ended = append_for(queue, &taken, HOUR, vec![seal(note(17))]).await;
    hold(is_lost(&ended, &taken), "the request has ended");
    let notes = everything(queue).await.into_iter().filter(|row| row.entity_type == "note").count();
    same(&notes, &2, "notes");
}

/// Many appends for the claims of two requests run beside each other, and one request ends meanwhile. All appends for the other one are
/// stored. When the end is acknowledged, nothing is added any more for the claim that it ended.
pub async fn appends_for_one_claim_run_beside_each_other_until_it_is_lost<Q: WorkQueue>(queue: &Q) {
    let mut claims = Vec::new();
    for n in 1..=2 {
        let waiting = open(queue, request(TENANT, n)).await;
        claims.push(open(queue, claim(&waiting, HOUR)).await);
    }
    let [lost, kept] = claims.as_slice() else { return };
    let appends = |from: u128| {
        join_all((from..from + 20).map(async |n| {
            let claim = if n % 2 == 0 { lost } else { kept };
            (n, append_for(queue, claim, HOUR, vec![seal(note(n))]).await)
        }))
    };
    let end = seal(next(lost).status("cancelled"));
    let of_lost = async || {
        let rows = everything(queue).await;
        rows.iter().filter(|row| (100..400).step_by(2).any(|n| row.id == id(n))).count()
    };
    let ends = async {
        append(queue, end.clone()).await;
        of_lost().await
    };
    let ((early, at_end), late) = join(join(appends(100), ends), appends(200)).await;
    let after = appends(300).await;
    for (n, result) in early.iter().chain(&late).chain(&after) {
        match n % 2 {
            0 => hold(result.is_ok() || is_lost(result, lost), "an append is stored, or its claim is lost"),
            _ => hold(result.is_ok(), "the claim of the other request is held"),
        }
    }
    hold(after.iter().all(|(n, result)| n % 2 != 0 || is_lost(result, lost)), "the claim has ended");
    same(&of_lost().await, &at_end, "rows for the lost claim, now and when its end was acknowledged");
}
