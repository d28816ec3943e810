//! Trials of [`Premise`]: appends that rely on a version of another span.

use futures_util::future::{join, join_all};

use super::{Expect as _, TENANT, USER, append, at, everything, hold, id, next, note, same, seal};
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, AppendReceipt, Conflict, Ledger, LedgerError, Outcome, Premise};
use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;

fn consent(n: u128) -> Draft {
    Draft::new("consent").id(id(n)).tenant(TENANT).owner(USER).who("kernel:memory").this("memory").status("granted").at(at(n))
}

async fn relying<L: Ledger>(
    ledger: &L,
    on: &VerifiedSpan,
    batch: Vec<VerifiedSpan>,
) -> Result<Vec<AppendReceipt>, LedgerError> {
    let premise = Premise::of(on).or_fail("a consent must be something to rely on");
    // Some appends of the runtime are decided one by one, and some together with others.
    ledger.append(&Scope::runtime(TENANT), batch, &AppendOptions::default().premises(vec![premise])).await
}

fn is_broken(result: &Result<Vec<AppendReceipt>, LedgerError>, on: &VerifiedSpan) -> bool {
    matches!(result, Err(LedgerError::Conflict(Conflict::Premise { key })) if *key == on.key())
}

/// A batch that relies on a version is stored while that is the last one, and not at all afterwards; nor if there is no such version.
pub async fn what_relies_on_an_old_version_is_not_stored<L: Ledger>(ledger: &L) {
    let first = seal(consent(1));
    hold(is_broken(&relying(ledger, &first, vec![seal(note(5))]).await, &first), "there is nothing to rely on yet");
    append(ledger, first.clone()).await;
    relying(ledger, &first, vec![seal(note(10)), seal(note(11))]).await.or_fail("what holds must not be in the way");
    let second = seal(next(&first).status("revoked"));
    append(ledger, second.clone()).await;
    hold(is_broken(&relying(ledger, &first, vec![seal(note(12)), seal(note(13))]).await, &first), "the consent has changed");
    relying(ledger, &second, vec![seal(note(14))]).await.or_fail("the last version holds");
    // A reader may have found that the last version does not count, and rely on the one before it for as long as it is the last.
    let premise = Premise::of(&first).or_fail("a consent").followed_by(second.seq, second.seal.curr_hash);
    let options = AppendOptions::default().premises(vec![premise]);
    ledger.append(&Scope::runtime(TENANT), vec![seal(note(15))], &options).await.or_fail("what follows does not count");
    append(ledger, seal(next(&second))).await;
    hold(ledger.append(&Scope::runtime(TENANT), vec![seal(note(16))], &options).await.is_err(), "another one follows");
    same(&everything(ledger).await.len(), &7, "rows");
    hold(Premise::of(&seal(note(1))).is_err(), "a note changes too often to be relied on");
}

/// An append whose answer was lost is repeated after the premise has gone. It was stored, so it succeeds.
pub async fn a_retry_of_what_was_stored_needs_no_premise<L: Ledger>(ledger: &L) {
    let first = seal(consent(1));
    append(ledger, first.clone()).await;
    let stored = vec![seal(note(10)), seal(note(11))];
    relying(ledger, &first, stored.clone()).await.or_fail("append");
    append(ledger, seal(next(&first).status("revoked"))).await;
    let again = relying(ledger, &first, stored).await.or_fail("the same append again");
    hold(again.iter().all(|receipt| receipt.outcome == Outcome::Existing), "it was stored before");
}

/// Many writers rely on a consent while it is withdrawn. In append order, which is that of every reader, nothing that relies on it comes
/// after its end.
pub async fn nothing_that_relies_on_a_version_comes_after_the_next_one<L: Ledger>(ledger: &L) {
    for round in 1..=8_u128 {
        let first = seal(consent(round));
        append(ledger, first.clone()).await;
        let end = seal(next(&first).status("revoked"));
        let base = round * 1000;
        let early = join_all((0..12).map(|n| relying(ledger, &first, vec![seal(note(base + n)), seal(note(base + 100 + n))])));
        let late = join_all((12..24).map(|n| relying(ledger, &first, vec![seal(note(base + n)), seal(note(base + 100 + n))])));
        let ends = async { append(ledger, end.clone()).await };
        let ((early, _), late) = join(join(early, ends), late).await;
        for result in early.iter().chain(&late) {
            hold(result.is_ok() || is_broken(result, &first), "an append is stored, or its premise is gone");
        }
        let rows = everything(ledger).await;
        let at_end = rows.iter().position(|row| row.key() == end.key()).or_fail("the end must be stored");
        let is_of_round = |row: &crate::span::SignedSpan| (base..base + 1000).any(|n| row.id == id(n));
        let after = rows.iter().skip(at_end).filter(|row| is_of_round(row)).count();
        same(&after, &0, "rows that rely on a consent and come after its end");
        let stored = early.iter().chain(&late).filter(|result| result.is_ok()).count();
        same(&rows.iter().filter(|row| is_of_round(row)).count(), &(2 * stored), "rows of the appends that succeeded");
    }
}
