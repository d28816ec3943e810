//! Trials of the daily quotas: what claims, attempts and calls are charged.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::working::{HOUR, claim, claimable, is_claimable, open, request};
use super::{Expect as _, OTHER, TENANT, append, at, hold, id, next, note, same, seal};
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, LedgerError, Limit, Outcome, Retry, WorkQueue};
use crate::request::{CallKind, Charges};
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;

fn charged(before: &VerifiedSpan, charges: &Charges) -> VerifiedSpan {
    seal(claim(before, HOUR).meta("quota", charges.to_value()))
}

fn limit(key: &str, per_day: u64) -> Limit {
    Limit { tenant: TENANT.to_owned(), key: key.to_owned(), per_day }
}

async fn limited<Q: WorkQueue>(queue: &Q, claim: VerifiedSpan, limits: &[Limit]) -> Result<Outcome, LedgerError> {
    let options = AppendOptions::default().limits(limits.to_vec());
    let receipts = queue.append(&Scope::runtime(TENANT), vec![claim], &options).await?;
    Ok(receipts.first().or_fail("a receipt").outcome)
}

/// The ledger's UTC day. A trial can fail if midnight passes while it runs.
pub(super) async fn today<Q: WorkQueue>(queue: &Q) -> chrono::NaiveDate {
    queue.now().await.or_fail("now").day()
}

/// Many workers claim at once, and there are more claims than units. Exactly as many claims win as there are units.
pub async fn a_quota_holds_under_any_number_of_workers<Q: WorkQueue>(queue: &Q) {
    let mut waiting = Vec::new();
    for n in 0..24 {
        waiting.push(open(queue, request(TENANT, n)).await);
    }
    let day = today(queue).await;
    // The limits name two quotas in different order, so that a backend that locks in that order would deadlock.
    let limits = [limit("runs", 10), limit("cpu", 1000)];
    let reversed = [limit("cpu", 1000), limit("runs", 10)];
    let results = join_all((0..).zip(&waiting).map(|(n, span)| {
        let limits = if n % 2 == 0 { &limits } else { &reversed };
        limited(queue, charged(span, &Charges::new(day, ["runs", "cpu"])), limits)
    }))
    .await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    same(&won.len(), &10, "claims within the limit");
    for error in lost.into_iter().filter_map(Result::err) {
        hold(
            matches!(&error, LedgerError::QuotaExceeded { key, per_day: 10, .. } if key == "runs"),
            "the other claims must be refused with the name of the quota",
        );
        same(&error.retry(), &Retry::No, "whether a retry can help today");
    }
    for key in ["runs", "cpu"] {
        same(&queue.used(TENANT, key).await.or_fail("used"), &10, key);
    }
    same(&queue.used(OTHER, "runs").await.or_fail("used"), &0, "units of another tenant");
    same(&claimable(queue, 100, None).await.len(), &14, "requests that are still due");
}

/// Every stored claim uses one unit. Claims that are refused, repeated or lost to another use none.
pub async fn only_what_is_stored_uses_quota<Q: WorkQueue>(queue: &Q) {
    let charges = Charges::new(today(queue).await, ["runs"]);
    let used = async || queue.used(TENANT, "runs").await.or_fail("used");
    let waiting = open(queue, request(TENANT, 1).meta("quota", charges.to_value())).await;
    same(&used().await, &0, "units after a request that is not a claim");
    let limits = [limit("runs", 1)];
    let claimed = charged(&waiting, &charges);
    same(&limited(queue, claimed.clone(), &limits).await.or_fail("a claim"), &Outcome::Appended, "the first claim");
    same(&limited(queue, claimed.clone(), &limits).await.or_fail("again"), &Outcome::Existing, "the same claim again");
    same(&used().await, &1, "units after a repeated claim");
    let rival = charged(&waiting, &Charges::new(charges.day, ["runs", "more"]));
    hold(matches!(limited(queue, rival, &limits).await, Err(LedgerError::Conflict(_))), "a lost race must be a conflict");
    same(&used().await, &1, "units after a lost race");
    open(queue, next(&claimed).status("complete")).await;
    same(&used().await, &1, "units after the end of a request");

    // A batch that is refused uses no units, although its first claim was within the limit.
    let (a, b) = (open(queue, request(TENANT, 2)).await, open(queue, request(TENANT, 3)).await);
    let options = AppendOptions::default().limits(vec![limit("runs", 2)]);
    let batch = vec![charged(&a, &charges), charged(&b, &charges)];
    let refused = queue.append(&Scope::runtime(TENANT), batch, &options).await;
    hold(matches!(refused, Err(LedgerError::QuotaExceeded { .. })), "the second claim of the batch must exceed the limit");
    same(&used().await, &1, "units after a refused batch");
    hold(is_claimable(queue, &a).await, "the first request of a refused batch must still be due");
    limited(queue, charged(&a, &charges), &[limit("runs", 2)]).await.or_fail("append the first claim alone");
    // A claim without a limit is counted too.
    append(queue, charged(&b, &charges)).await;
    same(&used().await, &3, "units of all stored claims");
}

/// A limited claim must name the ledger's day. Claims for the day before or after are refused, and so are invalid charges.
pub async fn a_claim_uses_the_ledgers_day<Q: WorkQueue>(queue: &Q) {
    let waiting = open(queue, request(TENANT, 1)).await;
    let day = today(queue).await;
    for other in [day.pred_opt(), day.succ_opt()].into_iter().flatten() {
        let error = limited(queue, charged(&waiting, &Charges::new(other, ["runs"])), &[limit("runs", 5)]).await;
        let error = error.err().or_fail("a claim for another day must be refused");
        hold(matches!(error, LedgerError::WrongDay { claimed, .. } if claimed == other), "the error must name that day");
        same(&error.retry(), &Retry::Rebase, "whether a new claim can help");
    }
    // If the claim has no valid charge for the limit, the limit would have no effect. That is an error of the host.
    let many: Vec<_> = (0..17).map(|n| format!("k{n}")).collect();
    let none = [
        json!(null),
        json!({"day": day.to_string()}),
        json!({"day": "today", "keys": ["runs"]}),
        json!({"day": format!("+{day}"), "keys": ["runs"]}),
        json!({"day": day.to_string(), "keys": ["runs", 5]}),
        json!({"day": day.to_string(), "keys": ["runs".repeat(40)]}),
        json!({"day": day.to_string(), "keys": many}),
        Charges::new(day, ["other"]).to_value(),
    ];
    for value in none {
        let odd = seal(claim(&waiting, HOUR).meta("quota", value));
        hold(matches!(limited(queue, odd, &[limit("runs", 5)]).await, Err(LedgerError::Refused { .. })), "must be refused");
    }
    // Claims of other days come with imports. Without a limit they are stored, but they are not counted.
    let mut last = waiting;
    for other in [day.pred_opt(), day.succ_opt()].into_iter().flatten() {
        last = charged(&last, &Charges::new(other, ["runs"]));
        append(queue, last.clone()).await;
    }
    same(&queue.used(TENANT, "runs").await.or_fail("used"), &0, "units of today after claims of other days");
}

/// Some units are known only when an attempt ends. They are counted once for each version that ends an attempt.
pub async fn what_an_attempt_has_used_counts_when_it_ends<Q: WorkQueue>(queue: &Q) {
    let day = today(queue).await;
    let used = async || queue.used(TENANT, "fuel").await.or_fail("used");
    let ended = |before: &VerifiedSpan, did: &str, status: &str, quota: serde_json::Value| {
        seal(next(before).did(did).status(status).meta("quota", quota))
    };
    let mut total = 0;
    for (n, (did, status, units)) in (0..).zip([
        ("completed", "complete", 5),
        ("failed", "error", 7),
        ("gave_up", "dead", 1 << 40),
        ("failed", "scheduled", 0),
        ("cancelled", "cancelled", 11),
    ]) {
        let claimed = charged(&open(queue, request(TENANT, n)).await, &Charges::new(day, ["runs"]));
        append(queue, claimed.clone()).await;
        let end = ended(&claimed, did, status, Charges::of_attempt(day, "fuel", units).to_used());
        append(queue, end.clone()).await;
        total += units;
        same(&used().await, &total, did);
        append(queue, end.clone()).await;
        same(&used().await, &total, "units after the same version again");
        // The next version keeps the metadata, but it does not end an attempt.
        open(queue, next(&end).did("revived").status("scheduled")).await;
        same(&used().await, &total, "units after a version that does not end an attempt");
    }
    let claimed = charged(&open(queue, request(TENANT, 20)).await, &Charges::new(day, ["runs"]));
    append(queue, claimed.clone()).await;
    let text = day.to_string();
    let many: serde_json::Map<_, _> = (0..17).map(|n| (format!("k{n}"), json!(1))).collect();
    let mut last = claimed;
    for none in [
        json!({"day": text, "units": {"fuel": -1}}),
        json!({"day": text, "units": {"fuel": 1.5}}),
        json!({"day": text, "units": {"fuel": "1"}}),
        json!({"day": text, "units": {"fuel": 1, "cpu": null}}),
        json!({"day": text, "units": {"": 1}}),
        json!({"day": text, "units": many}),
        json!({"day": text, "units": ["fuel"]}),
        json!({"day": text, "keys": ["fuel"]}),
        Charges::of_attempt(day.pred_opt().or_fail("a day before"), "fuel", 9).to_used(),
    ] {
        last = ended(&last, "failed", "error", none);
        append(queue, last.clone()).await;
    }
    same(&used().await, &total, "units after invalid charges and those of another day");
    queue.rebuild().await.or_fail("rebuild");
    same(&used().await, &total, "units after a rebuild");
    same(&queue.used(TENANT, "runs").await.or_fail("used"), &6, "units of claims after a rebuild");
}

/// The intent of a call reserves units, and its outcome gives back what was not used. Only first versions count.
pub async fn what_a_call_reserves_counts_until_its_outcome<Q: WorkQueue>(queue: &Q) {
    let day = today(queue).await;
    let used = async || queue.used(TENANT, "tokens").await.or_fail("used");
    let span = |n: u128, entity_type: &str, quota: Value| {
        let mut draft = note(n).status("open").meta("quota", quota);
        draft.columns_mut().entity_type = entity_type.to_owned();
        seal(draft)
    };
    let units = |units: i64| json!({"day": day.to_string(), "units": {"tokens": units}});
    let budget = [limit("tokens", 1000)];
    for (n, kind) in [(0, CallKind::Outside), (10, CallKind::Provider)] {
        let before = used().await;
        let intent = span(n, kind.intent(), Charges::of_call(day, [("tokens", 600)]).to_used());
        same(&limited(queue, intent.clone(), &budget).await.or_fail("an intent"), &Outcome::Appended, "the first reservation");
        same(&used().await, &(before + 600), "units while the call lasts");
        let more = span(n + 1, kind.intent(), units(401));
        hold(
            matches!(limited(queue, more, &budget).await, Err(LedgerError::QuotaExceeded { per_day: 1000, .. })),
            "what is more than what is left must be refused",
        );
        let outcome = span(n + 2, kind.outcome(), units(-550));
        append(queue, outcome.clone()).await;
        append(queue, outcome.clone()).await;
        same(&used().await, &(before + 50), "units after the call has used 50 of 600");
        append(queue, seal(next(&outcome).meta("quota", units(-50)))).await;
        append(queue, seal(next(&intent).meta("quota", units(70)))).await;
        same(&used().await, &(before + 50), "units after later versions of intent and outcome");
        // An intent cannot give back, and units are whole numbers.
        for (m, none) in (3..).zip([
            units(-1),
            json!({"day": day.to_string(), "units": {"tokens": 0.5}}),
            json!({"day": day.to_string(), "keys": ["tokens"]}),
        ]) {
            append(queue, span(n + m, kind.intent(), none)).await;
        }
        append(queue, span(n + 8, kind.outcome(), json!({"day": day.to_string(), "units": {"tokens": "-1"}}))).await;
        same(&used().await, &(before + 50), "units after charges that are not valid");
    }
    let fits = span(30, CallKind::Provider.intent(), units(900));
    limited(queue, fits, &budget).await.or_fail("exactly what is left");
    same(&used().await, &1000, "units when nothing is left");
    queue.rebuild().await.or_fail("rebuild");
    same(&used().await, &1000, "units after a rebuild");
    // Given back without a reservation, as after an import of a part: nothing is left to use below zero.
    append(queue, span(31, CallKind::Provider.outcome(), units(-5000))).await;
    same(&used().await, &0, "units after more was given back than used");
}

/// Of many calls at once, as many begin as the budget covers.
pub async fn a_budget_holds_under_any_number_of_calls<Q: WorkQueue>(queue: &Q) {
    let day = today(queue).await;
    let budget = [limit("tokens", 1000)];
    let intents = (0..24).map(|n| {
        let draft =
            Draft::new(CallKind::Provider.intent()).id(id(n)).tenant(TENANT).owner("alice").who("host").this("call").at(at(n));
        seal(draft.status("open").meta("quota", Charges::of_call(day, [("tokens", 99)]).to_used()))
    });
    let results = join_all(intents.map(|intent| limited(queue, intent, &budget))).await;
    same(&results.iter().filter(|result| result.is_ok()).count(), &10, "calls within the budget");
    same(&queue.used(TENANT, "tokens").await.or_fail("used"), &990, "units of the calls that began");
}
