//! The one thread that writes. It puts appends that wait at the same time into one transaction, so that one sync of the disk
//! acknowledges them all.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;

use futures_channel::oneshot;
use logline_core::ledger::chain::{self, Decision, Head};
use logline_core::ledger::quota::Uses;
use logline_core::ledger::{AppendOptions, AppendReceipt, Conflict, HeldClaim, LedgerError, Order, Outcome, Premise, Signal};
use logline_core::{Hash, SignedSpan, VerifiedSpan};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, TransactionBehavior, params};

use crate::error::from_sqlite;
use crate::row::{self, COLUMNS, EncodedRow, Text};
use crate::{search, work};

/// One append that waits for the writer.
pub(crate) struct Append {
    /// Shared with the caller, who frees it. If one thread allocates memory and another frees it, both wait for each other.
    pub(crate) batch: Arc<Vec<(VerifiedSpan, EncodedRow)>>,
    /// Whether no span of the batch depends on another one in it, so that all can be decided before the first is inserted.
    pub(crate) independent: bool,
    pub(crate) options: AppendOptions,
    pub(crate) bytes: usize,
    pub(crate) reply: oneshot::Sender<Result<Vec<AppendReceipt>, LedgerError>>,
}

/// Whether the batch has only one version of each id.
pub(crate) fn is_independent(batch: &[(VerifiedSpan, EncodedRow)]) -> bool {
    batch.len() == 1 || {
        let ids: HashSet<_> = batch.iter().map(|(span, _)| (span.id, span.tenant_id.as_str())).collect();
        ids.len() == batch.len()
    }
}

/// Work for the writer's thread.
pub(crate) enum Job {
    Append(Append),
    /// Any other work that needs the writing connection. It sends its answer by itself.
    Other(Box<dyn FnOnce(&mut Connection) + Send>),
}

/// The most appends in one transaction. More would only lengthen the wait of the first.
const MAX_GROUP: usize = 1024;

/// A transaction is complete with the append that reaches this many bytes.
const MAX_GROUP_BYTES: usize = 8 << 20;

/// The loop of the writer's thread. It ends when every handle of the ledger is dropped.
pub(crate) fn run(mut connection: Connection, jobs: &Receiver<Job>, queued: &AtomicUsize, signal: &Arc<Signal>) {
    let mut put_back = None;
    while let Some(job) = put_back.take().or_else(|| jobs.recv().ok()) {
        let first = match job {
            Job::Append(append) => append,
            Job::Other(work) => {
                work(&mut connection);
                continue;
            }
        };
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
            match jobs.try_recv() {
                Ok(Job::Append(append)) => {
                    bytes += append.bytes;
                    group.push(append);
                }
                Ok(other) => {
                    put_back = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        commit(&mut connection, group, signal);
        queued.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Copies the ledger to a new file and syncs that file, which SQLite does not do by itself.
pub(crate) fn copy(connection: &Connection, path: &str) -> Result<(), LedgerError> {
    connection.execute("VACUUM INTO ?1", [path]).map_err(from_sqlite)?;
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(|e| LedgerError::Unavailable {
        reason: format!("the copy `{path}` could not be synced: {e}"),
        source: Some(Box::new(e)),
    })
}

/// Writes a group in one transaction and sends each member its result.
fn commit(connection: &mut Connection, mut group: Vec<Append>, signal: &Signal) {
    match write(connection, &group) {
        Ok(results) => {
            signal.notify();
            for (append, result) in group.into_iter().zip(results) {
                drop(append.batch);
                // The caller may no longer wait for the result.
                let _ = append.reply.send(result);
            }
        }
        // Nothing of the transaction is stored. There was no room for all members, but there may be room for some.
        Err(LedgerError::Full { .. }) if group.len() > 1 => {
            for append in group {
                commit(connection, vec![append], signal);
            }
        }
        Err(error) => {
            tracing::warn!(%error, appends = group.len(), "a group of appends was not stored");
            let last = group.pop();
            for append in group {
                let _ = append.reply.send(Err(same_again(&error)));
            }
            if let Some(append) = last {
                let _ = append.reply.send(Err(error));
            }
        }
    }
}

/// A copy of a transaction's error for another of its members. Only one member gets the source.
fn same_again(error: &LedgerError) -> LedgerError {
    let reason = match error {
        LedgerError::Corrupt { reason, .. } => return LedgerError::Corrupt { reason: reason.clone(), source: None },
        LedgerError::ReadOnly { reason } => return LedgerError::ReadOnly { reason: reason.clone() },
        LedgerError::Full { reason } => return LedgerError::Full { reason: reason.clone() },
        LedgerError::Unavailable { reason, .. } => reason.clone(),
        other => other.to_string(),
    };
    LedgerError::Unavailable { reason, source: None }
}

fn write(connection: &mut Connection, group: &[Append]) -> Result<Vec<Result<Vec<AppendReceipt>, LedgerError>>, LedgerError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(from_sqlite)?;
    let run = |sql: &str| transaction.prepare_cached(sql).and_then(|mut s| s.execute([])).map(drop).map_err(from_sqlite);
    let mut results = Vec::with_capacity(group.len());
    for append in group {
        let result = if group.len() == 1 || append.independent {
            append_batch(&transaction, append)
        } else {
            // A savepoint makes SQLite copy every page that changes after it, so it is used only if it is needed.
            run("SAVEPOINT member")?;
            let result = append_batch(&transaction, append);
            match &result {
                Ok(_) => run("RELEASE member")?,
                Err(error) if error.is_verdict() => run("ROLLBACK TO member").and_then(|()| run("RELEASE member"))?,
                // SQLite may already have rolled back the whole transaction, and the savepoint with it.
                Err(_) => {}
            }
            result
        };
        match result {
            // A full disk, an I/O error and the like end the whole transaction, whichever member caused them.
            Err(error) if !error.is_verdict() => return Err(error),
            result => results.push(result),
        }
    }
    if results.iter().any(Result::is_ok) {
        transaction.commit().map_err(from_sqlite)?;
    }
    Ok(results)
}

/// Decides about every span and inserts the admitted ones. If the spans are independent, all are decided before the first is
/// inserted.
fn append_batch(connection: &Connection, append: &Append) -> Result<Vec<AppendReceipt>, LedgerError> {
    let mut head = connection.prepare_cached(HEAD).map_err(from_sqlite)?;
    let mut insert = connection.prepare_cached(insert_sql()).map_err(from_sqlite)?;
    let options = &append.options;
    let now = work::now();
    let mut uses = Uses::on(now.day());
    let broken = match broken(connection, &options.premises)? {
        None => lost(connection, options.held.as_ref())?,
        broken => broken,
    };
    let mut admit = |span: &VerifiedSpan, row: &EncodedRow| {
        let receipt = decide(connection, &mut head, span, row, options)?;
        if receipt.outcome == Outcome::Appended {
            if let Some(broken) = &broken {
                return Err(broken.clone().into());
            }
            work::admit(connection, &mut uses, span, &options.limits)?;
        }
        Ok(receipt)
    };
    let mut store = |span: &VerifiedSpan, row: &EncodedRow, receipt: &AppendReceipt| -> Result<(), LedgerError> {
        if receipt.outcome == Outcome::Appended {
            row.insert(span, &mut insert)?;
            work::update(connection, span, now)?;
            search::update(connection, span)?;
        }
        Ok(())
    };
    let rows = append.batch.iter();
    let receipts: Vec<_> = if append.independent {
        let receipts: Vec<_> = rows.clone().map(|(span, row)| admit(span, row)).collect::<Result<_, LedgerError>>()?;
        rows.zip(&receipts).try_for_each(|((span, row), receipt)| store(span, row, receipt))?;
        receipts
    } else {
        let one_by_one = rows.map(|(span, row)| {
            let receipt = admit(span, row)?;
            store(span, row, &receipt)?;
            Ok(receipt)
        });
        one_by_one.collect::<Result<_, LedgerError>>()?
    };
    work::charge(connection, &uses)?;
    Ok(receipts)
}

/// The first premise that does not hold. No other connection adds a version before this transaction ends.
fn broken(connection: &Connection, premises: &[Premise]) -> Result<Option<Conflict>, LedgerError> {
    for premise in premises {
        let key = premise.key();
        let mut head = connection.prepare_cached(HEAD).map_err(from_sqlite)?;
        let found = head.query_row(params![key.tenant_id, key.id.to_string()], |row| row.get::<_, String>(1));
        // A hash that cannot be read is not the one that is relied on.
        let found: Option<Hash> = found.optional().map_err(from_sqlite)?.and_then(|hash| hash.parse().ok());
        if let Err(broken) = premise.check(found.as_ref()) {
            return Ok(Some(broken));
        }
    }
    Ok(None)
}

/// Extends the lease of a claim, or says that it is lost.
fn lost(connection: &Connection, claim: Option<&HeldClaim>) -> Result<Option<Conflict>, LedgerError> {
    let Some(claim) = claim else { return Ok(None) };
    let is_held = work::heartbeat(connection, claim.work(), claim.lease())?;
    Ok((!is_held).then(|| claim.lost()))
}

const HEAD: &str = "SELECT seq, curr_hash, owner_id, entity_type FROM universal_registry
    WHERE tenant_id = ?1 AND id = ?2 ORDER BY seq DESC LIMIT 1";

struct StoredHead {
    seq: u32,
    curr_hash: String,
    owner_id: String,
    entity_type: String,
}

/// Decides about `span`, given what is stored. The outcome is [`Outcome::Appended`] if the span is to be inserted.
fn decide(
    connection: &Connection,
    head: &mut CachedStatement<'_>,
    span: &VerifiedSpan,
    encoded: &EncodedRow,
    options: &AppendOptions,
) -> Result<AppendReceipt, LedgerError> {
    let id = encoded.id();
    let read = |row: &Row<'_>| {
        Ok(StoredHead { seq: row.get(0)?, curr_hash: row.get(1)?, owner_id: row.get(2)?, entity_type: row.get(3)? })
    };
    let head = head.query_row(params![span.tenant_id, id], read).optional().map_err(from_sqlite)?;
    let head_hash = match &head {
        None => Hash([0; 32]),
        Some(stored) => stored.curr_hash.parse().map_err(|e| LedgerError::Damaged {
            row: format!("{}/{}/{}", span.tenant_id, span.id, stored.seq),
            reason: format!("curr_hash {e}"),
        })?,
    };
    let view = head.as_ref().map(|stored| Head {
        seq: stored.seq,
        curr_hash: &head_hash,
        owner_id: &stored.owner_id,
        entity_type: &stored.entity_type,
    });
    match chain::decide(span, view)? {
        Decision::Insert => Ok(AppendReceipt::new(span.key(), span.seal.curr_hash, Outcome::Appended)),
        Decision::LookUp => {
            let existing = version(connection, span, &id)?;
            let outcome = chain::decide_existing(span, head.map_or(0, |h| h.seq), existing.as_ref(), options)?;
            let hash = existing.map_or(span.seal.curr_hash, |row| row.seal.curr_hash);
            Ok(AppendReceipt::new(span.key(), hash, outcome))
        }
    }
}

fn version(connection: &Connection, span: &VerifiedSpan, id: &Text<'_>) -> Result<Option<SignedSpan>, LedgerError> {
    let sql = format!("SELECT pos, {COLUMNS} FROM universal_registry WHERE tenant_id = ?1 AND id = ?2 AND seq = ?3");
    let mut statement = connection.prepare_cached(&sql).map_err(from_sqlite)?;
    let mut rows = statement.query(params![span.tenant_id, id, span.seq]).map_err(from_sqlite)?;
    match rows.next().map_err(from_sqlite)? {
        None => Ok(None),
        Some(found) => Ok(Some(row::decode(found, Order::Append)?.0.span?)),
    }
}

fn insert_sql() -> &'static str {
    static SQL: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    SQL.get_or_init(|| {
        let marks = vec!["?"; 30].join(", ");
        format!("INSERT INTO universal_registry ({COLUMNS}) VALUES ({marks})")
    })
}
