//! The tasks that write. Each takes the appends that wait, of any scopes, and commits them with one statement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use logline_core::ledger::{AppendOptions, AppendReceipt, HeldClaim, LedgerError, OnExisting, Outcome};
use logline_core::request::Charges;
use logline_core::{Hash, Scope};
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, PgConnection, PgPool, Postgres};
use tokio::sync::{Mutex, mpsc, oneshot};
use uuid::Uuid;

use crate::admit::Admission;
use crate::error::{Failure, Setback, from_sqlx, same_again, setback};
use crate::identity::{self, Link};
use crate::row::{self, EncodedRow};
use crate::tail::Tail;

/// One append that waits for a writer.
pub(crate) struct Append {
    pub(crate) scope: Scope,
    pub(crate) batch: Vec<EncodedRow>,
    pub(crate) options: AppendOptions,
    pub(crate) bytes: usize,
    pub(crate) reply: oneshot::Sender<Verdict>,
}

impl Append {
    /// Whether something must be locked before the insert: premises, or quota counters if limits apply, or if an attempt that has
    /// used units ends. This way all hosts lock in one order.
    fn is_limited(&self) -> bool {
        let ends = |row: &EncodedRow| row.span.status.as_deref() != Some("running") && Charges::of(&row.span).is_some();
        !self.options.limits.is_empty() || !self.options.premises.is_empty() || self.batch.iter().any(ends)
    }
}

/// The result of one append.
type Verdict = Result<Vec<AppendReceipt>, LedgerError>;

/// The most appends in one group. More would only lengthen the wait of the first.
const MAX_GROUP: usize = 1024;

/// A group is complete with the append that reaches this many bytes.
const MAX_GROUP_BYTES: usize = 8 << 20;

/// How many times a group is tried while other writers are faster. Then its appends fail as `Unavailable`.
const MAX_TRIES: u32 = 12;

/// The queue that all writers share.
pub(crate) type Jobs = Arc<Mutex<mpsc::UnboundedReceiver<Append>>>;

/// The loop of one writer. It ends when every handle of the ledger is dropped and all waiting appends are written.
pub(crate) async fn run(pool: PgPool, link: Link, jobs: Jobs, queued: Arc<AtomicUsize>, tail: Arc<Tail>) {
    let mut writer = Writer { pool, link, connection: None };
    loop {
        let mut group = {
            let mut jobs = jobs.lock().await;
            let Some(first) = jobs.recv().await else { return };
            let mut bytes = first.bytes;
            let mut group = vec![first];
            while group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
                let Ok(next) = jobs.try_recv() else { break };
                bytes += next.bytes;
                group.push(next);
            }
            group
        };
        let bytes = group.iter().map(|append| append.bytes).sum();
        // Limited appends may wait for counters, so the others are written first. The sort is stable: each part keeps its
        // order.
        group.sort_by_key(Append::is_limited);
        let limited = group.split_off(group.partition_point(|append| !append.is_limited()));
        for part in [group, limited] {
            writer.write(part, &tail).await;
        }
        queued.fetch_sub(bytes, Ordering::Relaxed);
    }
}

struct Writer {
    pool: PgPool,
    link: Link,
    /// Kept between groups; dropped if it fails.
    connection: Option<PoolConnection<Postgres>>,
}

impl Writer {
    /// Writes a group and tells each member the result. If one member may have stopped the whole group, each half is tried by
    /// itself. So a refusal of one member, or its wait for a lock, does not fail the others.
    async fn write(&mut self, mut group: Vec<Append>, tail: &Tail) {
        if group.is_empty() {
            return;
        }
        let verdicts = match self.write_whole(&group).await {
            Ok(verdicts) => verdicts,
            Err(Stop { apart: true, .. }) if group.len() > 1 => {
                let second = group.split_off(group.len() / 2);
                Box::pin(self.write(group, tail)).await;
                return Box::pin(self.write(second, tail)).await;
            }
            Err(Stop { error, .. }) => all(&group, error),
        };
        let appended = |verdict: &Verdict| verdict.iter().flatten().any(|receipt| receipt.outcome == Outcome::Appended);
        if verdicts.iter().any(appended) {
            let waits = |row: &EncodedRow| row.span.entity_type == "request" && row.span.status.as_deref() == Some("scheduled");
            tail.wrote(
                group.iter().zip(&verdicts).any(|(append, verdict)| appended(verdict) && append.batch.iter().any(waits)),
            );
        }
        for (append, verdict) in group.into_iter().zip(verdicts) {
            // The caller may no longer wait for the result.
            let _ = append.reply.send(verdict);
        }
    }

    async fn write_whole(&mut self, group: &[Append]) -> Result<Vec<Verdict>, Stop> {
        let mut careful = group.iter().any(|append| append.options.on_existing == OnExisting::Keep || append.is_limited());
        let mut reconnected = false;
        for tries in 1..=MAX_TRIES {
            let result = if careful { self.decide_and_insert(group).await } else { self.insert_all(group).await };
            let error = match result {
                Ok(verdicts) => return Ok(verdicts),
                Err(Failure::Ledger(error)) => return Err(Stop { error, apart: true }),
                Err(Failure::Database(error)) => error,
            };
            match setback(&error) {
                Setback::Raced => careful = true,
                // What was stored already needs no claim any more, so what is stored is read first.
                Setback::ClaimLost if group.len() == 1 && !careful => careful = true,
                Setback::ClaimLost => {
                    let lost = group.first().and_then(|append| append.options.held.as_ref()).map(HeldClaim::lost);
                    let error = lost.filter(|_| group.len() == 1).map_or_else(|| from_sqlx(error), LedgerError::from);
                    return Err(Stop { error, apart: true });
                }
                Setback::Again => {}
                Setback::Lost => {
                    // The connection is closed, not given back to the pool: its server may be alive but take no writes.
                    let had = self.connection.take().map(|connection| drop(connection.detach()));
                    if had.is_none() || reconnected {
                        return Err(Stop { error: from_sqlx(error), apart: false });
                    }
                    // It is unknown whether the group was stored. Identical bytes are stored only once, so a retry is safe.
                    tracing::debug!(%error, "the writing connection was lost; trying another");
                    (reconnected, careful) = (true, true);
                    continue;
                }
                setback => return Err(Stop { error: from_sqlx(error), apart: setback == Setback::Apart }),
            }
            tracing::debug!(%error, tries, "a group of appends lost a race; trying again");
        }
        let reason = format!("other writers were faster {MAX_TRIES} times");
        Err(Stop { error: LedgerError::Unavailable { reason, source: None }, apart: false })
    }

    async fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => identity::acquire(&self.pool).await?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Inserts everything without reading first. It trusts that each version follows the last one, and the database checks it.
    async fn insert_all(&mut self, group: &[Append]) -> Result<Vec<Verdict>, Failure> {
        let rows: Vec<_> = group.iter().flat_map(|append| append.batch.iter().map(|row| (&append.scope, row))).collect();
        self.insert(rows, Held::of(group, |_| true)).await?;
        let appended = |row: &EncodedRow| AppendReceipt::new(row.span.key(), row.span.seal.curr_hash, Outcome::Appended);
        Ok(group.iter().map(|append| Ok(append.batch.iter().map(appended).collect())).collect())
    }

    /// Reads what is stored, decides about each member, and inserts what is admitted. If limits apply, or a member relies on something,
    /// counters and premises are read first and stay locked to the end, so all of it is one transaction.
    async fn decide_and_insert(&mut self, group: &[Append]) -> Result<Vec<Verdict>, Failure> {
        let link = self.link;
        let connection = self.connection().await?;
        let mut admission = Admission::new(link);
        let mut verdicts = Vec::with_capacity(group.len());
        let limited = group.iter().any(Append::is_limited);
        let mut transaction = connection.begin_with(if limited { "BEGIN READ WRITE" } else { "BEGIN READ ONLY" }).await?;
        let mut scopes = by_scope(group.iter().map(|append| (&append.scope, append)));
        if limited {
            // Premises come first: what changes a counter gives the transaction its number, and with it its place in append order.
            let premises: Vec<_> = group.iter().flat_map(|append| &append.options.premises).collect();
            if let (Some((scope, _)), false) = (scopes.first(), premises.is_empty()) {
                admission.hold_premises(&mut transaction, scope, &premises).await?;
            }
            // Every host locks counters in the order of tenants, so that hosts do not deadlock.
            scopes.sort_by_key(|(scope, _)| scope.tenant());
            for (scope, members) in &scopes {
                let rows: Vec<_> = members.iter().flat_map(|append| &append.batch).collect();
                admission.hold_counters(&mut transaction, scope, &rows).await?;
            }
        }
        for (scope, members) in scopes {
            let rows: Vec<_> = members.iter().flat_map(|append| &append.batch).collect();
            admission.read(&mut transaction, scope, &rows).await?;
        }
        for append in group {
            let verdict = admission.decide(&mut transaction, &append.scope, &append.batch, &append.options).await;
            match verdict {
                Err(Failure::Ledger(error)) if error.is_verdict() => verdicts.push(Err(error)),
                Err(failure) => return Err(failure),
                Ok(receipts) => verdicts.push(Ok(receipts)),
            }
        }
        let held = {
            let appended = |verdict: &Verdict| verdict.iter().flatten().any(|receipt| receipt.outcome == Outcome::Appended);
            Held::of(group, |index| verdicts.get(index).is_some_and(appended))
        };
        let admitted = group.iter().zip(&verdicts).filter_map(|(append, verdict)| Some((append, verdict.as_ref().ok()?)));
        let rows: Vec<_> = admitted
            .flat_map(|(append, receipts)| {
                append.batch.iter().zip(receipts).map(|(row, receipt)| (&append.scope, row, receipt))
            })
            .filter(|(_, _, receipt)| receipt.outcome == Outcome::Appended)
            .map(|(scope, row, _)| (scope, row))
            .collect();
        if limited {
            insert(&mut transaction, rows, &held, link).await?;
            transaction.commit().await?;
        } else {
            transaction.commit().await?;
            self.insert(rows, held).await?;
        }
        Ok(verdicts)
    }

    /// Inserts the rows in their own transaction.
    async fn insert(&mut self, rows: Vec<(&Scope, &EncodedRow)>, held: Held<'_>) -> Result<(), sqlx::Error> {
        let link = self.link;
        let connection = self.connection().await?;
        match link {
            // A single statement is a transaction by itself.
            Link::Direct => insert(connection, rows, &held, link).await,
            Link::Pooled => {
                let mut transaction = connection.begin().await?;
                insert(&mut transaction, rows, &held, link).await?;
                transaction.commit().await
            }
        }
    }
}

/// Why a group was not written.
struct Stop {
    error: LedgerError,
    /// Whether one member alone may have caused it.
    apart: bool,
}

/// The same error for every member of a group.
fn all(group: &[Append], error: LedgerError) -> Vec<Verdict> {
    tracing::warn!(%error, appends = group.len(), "a group of appends was not stored");
    let mut verdicts: Vec<Verdict> = group.iter().skip(1).map(|_| Err(same_again(&error))).collect();
    verdicts.push(Err(error));
    verdicts
}

/// Groups items by scope, in order of first appearance. Within a scope the order stays.
fn by_scope<'a, T>(items: impl Iterator<Item = (&'a Scope, T)>) -> Vec<(&'a Scope, Vec<T>)> {
    let mut index = std::collections::HashMap::new();
    let mut groups: Vec<(&Scope, Vec<T>)> = Vec::new();
    for (scope, item) in items {
        let at = *index.entry(scope).or_insert(groups.len());
        match groups.get_mut(at) {
            Some((_, group)) => group.push(item),
            None => groups.push((scope, vec![item])),
        }
    }
    groups
}

/// Rows that are inserted together: for one scope, or for the runtimes of several tenants.
struct Together<'a> {
    scope: &'a Scope,
    /// The tenants of the runtimes, in order of first appearance. Empty for other scopes.
    tenants: Vec<&'a str>,
    rows: Vec<&'a EncodedRow>,
}

impl Together<'_> {
    /// The tenant; empty if there are several, or if the scope has none.
    fn tenant(&self) -> &str {
        if self.tenants.len() > 1 { "" } else { self.scope.tenant().unwrap_or_default() }
    }

    /// The tenants as a JSON array if there are several, otherwise empty.
    fn many(&self) -> String {
        if self.tenants.len() > 1 { serde_json::json!(self.tenants).to_string() } else { String::new() }
    }
}

/// Groups rows so that the fewest statements insert them. The runtimes of all tenants become one group: a host may write for
/// each of its tenants, and starting a statement costs more than a row.
fn together<'a>(rows: Vec<(&'a Scope, &'a EncodedRow)>) -> Vec<Together<'a>> {
    let mut groups: Vec<Together<'_>> = Vec::new();
    for (scope, rows) in by_scope(rows.into_iter()) {
        let runtime = match scope {
            // A runtime without a tenant has no identity. It gets a group of its own, and row-level security refuses its rows.
            Scope::Runtime { tenant } if !tenant.is_empty() => Some(tenant.as_str()),
            _ => None,
        };
        let open = groups.iter_mut().find(|group| runtime.is_some() && !group.tenants.is_empty());
        match open {
            Some(group) => {
                group.tenants.extend(runtime);
                group.rows.extend(rows);
            }
            None => groups.push(Together { scope, tenants: runtime.into_iter().collect(), rows }),
        }
    }
    groups
}

/// The claims for which the appends of a group are made, each once.
struct Held<'a> {
    claims: BTreeMap<(&'a str, Uuid, u32, &'a Hash), Duration>,
    /// Whether the group is one append. Only such an append waits long for a claim that another transaction holds.
    alone: bool,
}

impl<'a> Held<'a> {
    /// `counts` says of the number of an append whether its claim must be held.
    fn of(group: &'a [Append], counts: impl Fn(usize) -> bool) -> Self {
        let mut claims = BTreeMap::new();
        let counted = group.iter().enumerate().filter(|(index, _)| counts(*index));
        for claim in counted.filter_map(|(_, append)| append.options.held.as_ref()) {
            let work = claim.work();
            let lease: &mut Duration = claims.entry((work.tenant_id.as_str(), work.id, work.seq, &work.curr_hash)).or_default();
            *lease = claim.lease().max(*lease);
        }
        Self { claims, alone: group.len() == 1 }
    }
}

/// Inserts the rows of several scopes with one call of `ledger.append`.
async fn insert(
    connection: &mut PgConnection,
    rows: Vec<(&Scope, &EncodedRow)>,
    held: &Held<'_>,
    link: Link,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let groups = together(rows);
    let mut end = 0_i32;
    let ends = groups.iter().map(|group| {
        end = end.saturating_add(i32::try_from(group.rows.len()).unwrap_or(i32::MAX));
        end
    });
    let query = sqlx::query(append_sql())
        .persistent(link.keeps_statements())
        .bind(groups.iter().map(|group| identity::role(group.scope)).collect::<Vec<_>>())
        .bind(groups.iter().map(Together::tenant).collect::<Vec<_>>())
        .bind(groups.iter().map(|group| identity::user(group.scope)).collect::<Vec<_>>())
        .bind(ends.collect::<Vec<_>>())
        .bind(groups.iter().map(Together::many).collect::<Vec<_>>());
    let rows: Vec<&EncodedRow> = groups.iter().flat_map(|group| group.rows.iter().copied()).collect();
    let claims = || held.claims.keys();
    row::bind(query, &rows)
        .bind(claims().map(|(tenant, ..)| *tenant).collect::<Vec<_>>())
        .bind(claims().map(|(_, id, ..)| *id).collect::<Vec<_>>())
        .bind(claims().map(|(_, _, seq, _)| i32::try_from(*seq).unwrap_or(i32::MAX)).collect::<Vec<_>>())
        .bind(claims().map(|(.., hash)| hash.to_string()).collect::<Vec<_>>())
        .bind(held.claims.values().map(|lease| i64::try_from(lease.as_millis()).unwrap_or(i64::MAX)).collect::<Vec<_>>())
        .bind(held.alone)
        .execute(connection)
        .await
        .map(drop)
}

fn append_sql() -> &'static str {
    "SELECT ledger.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, \
     $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41)"
}
