//! Decides about appends by reading first what is stored. Writers do so after a lost race or a lost connection, for appends
//! under limits, and for appends that keep what exists.

use std::collections::{BTreeSet, HashMap};

use chrono::NaiveDate;
use logline_core::ledger::chain::{self, Decision, Head};
use logline_core::ledger::quota::Uses;
use logline_core::ledger::{AppendOptions, AppendReceipt, Conflict, LedgerError, OnExisting, Outcome, Premise};
use logline_core::request::Charges;
use logline_core::{Hash, Scope, SignedSpan, SpanKey, VerifiedSpan};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use uuid::Uuid;

use crate::error::Failure;
use crate::identity::{self, Link};
use crate::row::{self, COLUMNS, EncodedRow};

/// The last version of an id. It holds only what the writer may know.
#[derive(Debug, Clone)]
struct KnownHead {
    seq: u32,
    /// `Err` says why the stored hash cannot be read.
    curr_hash: Result<Hash, String>,
    owner_id: String,
    entity_type: String,
}

/// Stands for an owner that the writer may not know. No span has it, because an owner is never empty.
const SOMEBODY_ELSE: &str = "";

/// What is stored under a span's key.
enum Existing {
    Nothing,
    /// A row that the writer may not see.
    Hidden,
    Row(Box<SignedSpan>),
}

/// What is known of the ledger while a group is decided: what was stored before, and what the group adds.
pub(crate) struct Admission {
    link: Link,
    heads: HashMap<(String, Uuid), KnownHead>,
    exists: HashMap<SpanKey, bool>,
    added: HashMap<SpanKey, SignedSpan>,
    /// `None` if [`Admission::hold_counters`] has read no counter.
    counters: Option<Counters>,
    /// The premises that hold, of those that [`Admission::hold_premises`] has read.
    held: Vec<Premise>,
}

/// What tenants have used today of the quotas that the group charges.
struct Counters {
    today: NaiveDate,
    used: HashMap<(String, String), i64>,
}

impl Admission {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, heads: HashMap::new(), exists: HashMap::new(), added: HashMap::new(), counters: None, held: Vec::new() }
    }

    /// Reads the last versions of the ids in `rows`, with the identity of `scope`, in the connection's transaction.
    pub(crate) async fn read(
        &mut self,
        connection: &mut PgConnection,
        scope: &Scope,
        rows: &[&EncodedRow],
    ) -> Result<(), Failure> {
        self.identify(connection, scope).await?;
        let sql = "SELECT n, head, exists_already, same_owner, entity_type, curr_hash FROM ledger.heads($1, $2, $3, $4)";
        let found = sqlx::query(sql)
            .persistent(self.link.keeps_statements())
            .bind(rows.iter().map(|row| row.span.tenant_id.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.span.id).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| i32::try_from(row.span.seq).unwrap_or(i32::MAX)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.span.owner_id.as_str()).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
        for head in &found {
            let number: i64 = head.try_get(0)?;
            let Some(row) = usize::try_from(number - 1).ok().and_then(|index| rows.get(index)) else { continue };
            let span = &row.span;
            let seq: i32 = head.try_get(1)?;
            self.exists.insert(span.key(), head.try_get(2)?);
            let same_owner: bool = head.try_get(3)?;
            let curr_hash: Option<String> = head.try_get(5)?;
            let curr_hash = match &curr_hash {
                Some(text) => text.parse().map_err(|e| format!("curr_hash {e}")),
                None => Ok(Hash([0; 32])),
            };
            let known = KnownHead {
                seq: u32::try_from(seq).unwrap_or(0),
                curr_hash,
                owner_id: if same_owner { span.owner_id.clone() } else { SOMEBODY_ELSE.to_owned() },
                entity_type: head.try_get::<Option<String>, _>(4)?.unwrap_or_default(),
            };
            // Several scopes may have asked for this id. The answer to its owner says more, so it replaces the others.
            let place = self.heads.entry((span.tenant_id.clone(), span.id)).or_insert_with(|| known.clone());
            if same_owner {
                *place = known;
            }
        }
        Ok(())
    }

    /// Reads which premises hold, and locks them until the transaction ends.
    pub(crate) async fn hold_premises(
        &mut self,
        connection: &mut PgConnection,
        scope: &Scope,
        premises: &[&Premise],
    ) -> Result<(), Failure> {
        self.identify(connection, scope).await?;
        let found = sqlx::query("SELECT n FROM ledger.hold_premises($1, $2, $3) WHERE holds")
            .persistent(self.link.keeps_statements())
            .bind(premises.iter().map(|premise| premise.key().tenant_id.as_str()).collect::<Vec<_>>())
            .bind(premises.iter().map(|premise| premise.key().id).collect::<Vec<_>>())
            .bind(premises.iter().map(|premise| premise.curr_hash().to_string()).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
        for row in &found {
            let number: i64 = row.try_get(0)?;
            let premise = usize::try_from(number - 1).ok().and_then(|index| premises.get(index));
            self.held.extend(premise.map(|premise| (*premise).clone()));
        }
        Ok(())
    }

    /// The first premise that does not hold. An earlier member of the group may have added the next version.
    fn broken(&self, premises: &[Premise]) -> Option<Conflict> {
        premises.iter().find_map(|premise| {
            let key = premise.key();
            let is_later = |span: &&SignedSpan| span.tenant_id == key.tenant_id && span.id == key.id && span.seq > key.seq;
            let hash = premise.curr_hash();
            let is_held = self.held.contains(premise) && !self.added.values().any(|span| is_later(&span));
            premise.check(is_held.then_some(hash)).err()
        })
    }

    /// Reads the quota counters that `rows` charge, and locks them until the transaction ends.
    pub(crate) async fn hold_counters(
        &mut self,
        connection: &mut PgConnection,
        scope: &Scope,
        rows: &[&EncodedRow],
    ) -> Result<(), Failure> {
        let named = rows.iter().filter_map(|row| Some((row.span.tenant_id.as_str(), Charges::of(&row.span)?)));
        let named = named.flat_map(|(tenant, charges)| charges.units.into_keys().map(move |key| (tenant.to_owned(), key)));
        let named: BTreeSet<(String, String)> = named.collect();
        self.identify(connection, scope).await?;
        let found = sqlx::query("SELECT n, used, day FROM ledger.hold_counters($1, $2)")
            .persistent(self.link.keeps_statements())
            .bind(named.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
            .bind(named.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
        let named: Vec<_> = named.into_iter().collect();
        for row in &found {
            let (number, used): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let day: &str = row.try_get(2)?;
            let today =
                day.parse().map_err(|e| LedgerError::Refused { reason: format!("invalid server date `{day}`: {e}") })?;
            let counters = self.counters.get_or_insert_with(|| Counters { today, used: HashMap::new() });
            if let Some(name) = usize::try_from(number - 1).ok().and_then(|index| named.get(index)) {
                counters.used.insert(name.clone(), used);
            }
        }
        Ok(())
    }

    /// Decides about one append as a whole. If it is admitted, later decisions see what it adds.
    pub(crate) async fn decide(
        &mut self,
        connection: &mut PgConnection,
        scope: &Scope,
        batch: &[EncodedRow],
        options: &AppendOptions,
    ) -> Result<Vec<AppendReceipt>, Failure> {
        let mut receipts = Vec::with_capacity(batch.len());
        let mut before: Vec<((String, Uuid), Option<KnownHead>)> = Vec::new();
        let mut added = Vec::new();
        let mut uses = self.counters.as_ref().map(|counters| Uses::on(counters.today));
        let broken = self.broken(&options.premises);
        for row in batch {
            let decided = self.decide_one(connection, scope, &row.span, options, &mut uses).await;
            let decided = decided.and_then(|receipt| match &broken {
                Some(broken) if receipt.outcome == Outcome::Appended => Err(LedgerError::from(broken.clone()).into()),
                _ => Ok(receipt),
            });
            match decided {
                Ok(receipt) => {
                    if receipt.outcome == Outcome::Appended {
                        let id = (row.span.tenant_id.clone(), row.span.id);
                        before.push((id.clone(), self.heads.insert(id, KnownHead::of(&row.span))));
                        self.added.insert(row.span.key(), (*row.span).clone());
                        added.push(row.span.key());
                    }
                    receipts.push(receipt);
                }
                Err(error) => {
                    // Nothing of this append is stored, so later decisions must not see its rows.
                    for (id, head) in before.into_iter().rev() {
                        match head {
                            Some(head) => self.heads.insert(id, head),
                            None => self.heads.remove(&id),
                        };
                    }
                    added.iter().for_each(|key| drop(self.added.remove(key)));
                    return Err(error);
                }
            }
        }
        if let (Some(counters), Some(uses)) = (&mut self.counters, uses) {
            for (name, units) in uses.units() {
                let used = counters.used.entry(name.clone()).or_default();
                *used = used.saturating_add(*units);
            }
        }
        Ok(receipts)
    }

    async fn decide_one(
        &self,
        connection: &mut PgConnection,
        scope: &Scope,
        span: &VerifiedSpan,
        options: &AppendOptions,
        uses: &mut Option<Uses>,
    ) -> Result<AppendReceipt, Failure> {
        let head = self.heads.get(&(span.tenant_id.clone(), span.id));
        let view = head.map(|known| known.view(span)).transpose()?;
        if chain::decide(span, view)? == Decision::Insert {
            if let (Some(counters), Some(uses)) = (&self.counters, uses) {
                let used = |key: &str| counters.used.get(&(span.tenant_id.clone(), key.to_owned())).copied();
                uses.add(span, &options.limits, |key| Ok(used(key).and_then(|used| used.try_into().ok()).unwrap_or(0)))?;
            }
            return Ok(AppendReceipt::new(span.key(), span.seal.curr_hash, Outcome::Appended));
        }
        let last = head.map_or(0, |known| known.seq);
        let existing = match self.existing(connection, scope, span).await? {
            Existing::Nothing => None,
            Existing::Row(row) => Some(*row),
            Existing::Hidden if options.on_existing == OnExisting::Keep => {
                return Err(LedgerError::KeepMismatch { key: span.key() }.into());
            }
            Existing::Hidden => return Err(LedgerError::from(Conflict::Exists { key: span.key() }).into()),
        };
        let outcome = chain::decide_existing(span, last, existing.as_ref(), options)?;
        let hash = existing.map_or(span.seal.curr_hash, |row| row.seal.curr_hash);
        Ok(AppendReceipt::new(span.key(), hash, outcome))
    }

    async fn existing(&self, connection: &mut PgConnection, scope: &Scope, span: &VerifiedSpan) -> Result<Existing, Failure> {
        if let Some(row) = self.added.get(&span.key()) {
            return Ok(Existing::Row(Box::new(row.clone())));
        }
        if !self.exists.get(&span.key()).copied().unwrap_or(false) {
            return Ok(Existing::Nothing);
        }
        self.identify(connection, scope).await?;
        // With this order the planner uses the primary key, even if the table has no statistics yet.
        let sql = format!(
            "SELECT {COLUMNS} FROM ledger.universal_registry WHERE tenant_id = $1 AND id = $2 AND seq >= $3 ORDER BY seq LIMIT 1"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).persistent(self.link.keeps_statements());
        let query = query.bind(&span.tenant_id).bind(span.id).bind(i32::try_from(span.seq).unwrap_or(i32::MAX));
        match query.fetch_optional(connection).await? {
            None => Ok(Existing::Hidden),
            Some(found) => match row::decode(&found, 0)?.1.map_err(LedgerError::from)? {
                row if row.seq == span.seq => Ok(Existing::Row(Box::new(row))),
                // This is a later version: the writer may not see the one that was asked for.
                _ => Ok(Existing::Hidden),
            },
        }
    }

    async fn identify(&self, connection: &mut PgConnection, scope: &Scope) -> Result<(), Failure> {
        let identity = sqlx::query("SELECT ledger.identify($1, $2, $3, '')").persistent(self.link.keeps_statements());
        let identity =
            identity.bind(identity::role(scope)).bind(scope.tenant().unwrap_or_default()).bind(identity::user(scope));
        Ok(identity.execute(connection).await.map(drop)?)
    }
}

impl KnownHead {
    fn of(span: &VerifiedSpan) -> Self {
        Self {
            seq: span.seq,
            curr_hash: Ok(span.seal.curr_hash),
            owner_id: span.owner_id.clone(),
            entity_type: span.entity_type.clone(),
        }
    }

    fn view(&self, span: &VerifiedSpan) -> Result<Head<'_>, LedgerError> {
        let damaged = |reason: &String| LedgerError::Damaged {
            row: format!("{}/{}/{}", span.tenant_id, span.id, self.seq),
            reason: reason.clone(),
        };
        Ok(Head {
            seq: self.seq,
            curr_hash: self.curr_hash.as_ref().map_err(damaged)?,
            owner_id: &self.owner_id,
            entity_type: &self.entity_type,
        })
    }
}
