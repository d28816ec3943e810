//! The index of public memories. The SQL functions in `migrations/0003_search.sql` keep and search it; this module calls them. They take
//! the identity from the transaction, not from their arguments.

use async_trait::async_trait;
use logline_core::Scope;
use logline_core::ledger::LedgerError;
use logline_core::ledger::search::{
    Hit, MAX_PENDING, Pending, Search, SearchQuery, SearchScope, Searched, Vector, VectorModel, VectorSupport, runtime_of,
    words,
};
use sqlx::postgres::PgRow;
use sqlx::{Row as _, postgres::PgArguments, query::Query};
use uuid::Uuid;

use crate::PgLedger;
use crate::error::from_sqlx;
use crate::identity::Access;
use crate::types::Micros;

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Search for PgLedger {
    async fn search_text(&self, scope: &Scope, query: &SearchQuery) -> Result<Vec<Hit>, LedgerError> {
        let words = words(&query.text);
        let Some(asked) = query.searched(scope)?.and_then(|searched| Asked::new(&searched, query)) else {
            return Ok(Vec::new());
        };
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.read(scope, None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let sql = "SELECT tenant_id, id, seq, curr_hash, score FROM ledger.search_text($1, $2, $3, $9, $4, $5, $6, $7, $8)";
        let statement = asked.clone().bind(sqlx::query(sql).persistent(self.link().keeps_statements())).bind(words.clone());
        let mut rows = statement.fetch_all(&mut *connection).await.map_err(from_sqlx)?;
        if rows.is_empty() && query.similar {
            let sql =
                "SELECT tenant_id, id, seq, curr_hash, score FROM ledger.search_similar($1, $2, $3, $9, $4, $5, $6, $7, $8)";
            let statement = asked.bind(sqlx::query(sql).persistent(self.link().keeps_statements())).bind(words);
            rows = statement.fetch_all(connection).await.map_err(from_sqlx)?;
        }
        session.commit().await.map_err(from_sqlx)?;
        rows.iter().map(hit).collect()
    }

    async fn search_vector(&self, scope: &Scope, query: &SearchQuery, vector: &Vector) -> Result<Vec<Hit>, LedgerError> {
        let Some(asked) = query.searched(scope)?.and_then(|searched| Asked::new(&searched, query)) else {
            return Ok(Vec::new());
        };
        let mut session = self.read(scope, None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let sql = "SELECT tenant_id, id, seq, curr_hash, score
            FROM ledger.search_vector($1, $2, $3, $9, $10, $11, $12, $4, $5, $6, $7, $8)";
        let statement = asked.bind(sqlx::query(sql).persistent(self.link().keeps_statements()));
        let statement = bind_model(statement, vector.model()).bind(vector.values());
        let rows = statement.fetch_all(connection).await.map_err(vectors_missing)?;
        session.commit().await.map_err(from_sqlx)?;
        rows.iter().map(hit).collect()
    }

    async fn put_vector(&self, scope: &Scope, id: Uuid, seq: u32, vector: &Vector) -> Result<bool, LedgerError> {
        runtime_of(scope)?;
        let mut session = self.begin(Access::ReadWrite, scope, None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let statement =
            sqlx::query("SELECT ledger.put_vector($1, $2, $3, $4, $5, $6)").persistent(self.link().keeps_statements());
        let statement = statement.bind(id).bind(i32::try_from(seq).unwrap_or(i32::MAX));
        let statement = bind_model(statement, vector.model()).bind(vector.values());
        let row = statement.fetch_one(connection).await.map_err(vectors_missing)?;
        session.commit().await.map_err(from_sqlx)?;
        row.try_get(0).map_err(from_sqlx)
    }

    async fn pending(
        &self,
        scope: &Scope,
        model: &VectorModel,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Pending>, LedgerError> {
        let tenant = runtime_of(scope)?;
        let mut session = self.read(scope, None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let statement = sqlx::query("SELECT id, seq, curr_hash FROM ledger.pending_vectors($1, $2, $3, $4, $5)");
        let statement = bind_model(statement.persistent(self.link().keeps_statements()), model);
        let statement =
            statement.bind(after.unwrap_or_default()).bind(i32::try_from(limit.min(MAX_PENDING)).unwrap_or(i32::MAX));
        let rows = statement.fetch_all(connection).await.map_err(vectors_missing)?;
        session.commit().await.map_err(from_sqlx)?;
        let decode = |row: &PgRow| {
            let (id, seq) = (row.try_get(0).map_err(from_sqlx)?, row.try_get(1).map_err(from_sqlx)?);
            Ok(Pending { id, seq: sequence(seq), curr_hash: hash(tenant, id, row, 2)? })
        };
        rows.iter().map(decode).collect()
    }

    async fn vector_support(&self) -> Result<VectorSupport, LedgerError> {
        let mut session = self.read(&Scope::runtime(""), None).await?;
        let connection = session.connection().map_err(from_sqlx)?;
        let statement = sqlx::query_scalar("SELECT to_regclass('ledger.memory_vectors') IS NOT NULL");
        let is_there = statement.persistent(self.link().keeps_statements()).fetch_one(connection).await.map_err(from_sqlx)?;
        session.commit().await.map_err(from_sqlx)?;
        Ok(if is_there { VectorSupport::Indexed } else { VectorSupport::Missing { advice: NO_VECTORS } })
    }
}

/// What to do if there are no vectors.
pub(crate) const NO_VECTORS: &str =
    "install pgvector 0.8 or newer on the server and run `logline migrate`; until then memories are found by their words";

/// What to do if typing errors are not forgiven.
pub(crate) const NO_TRIGRAMS: &str =
    "install pg_trgm (Debian: it comes with the server) and run `logline migrate`; until then a query finds whole words only";

/// The SQLSTATE of a function that does not exist.
const NO_FUNCTION: &str = "42883";

fn vectors_missing(error: sqlx::Error) -> LedgerError {
    match error.as_database_error().and_then(|error| error.code()) {
        Some(code) if code == NO_FUNCTION => {
            LedgerError::Refused { reason: format!("this ledger keeps no vectors: {NO_VECTORS}") }
        }
        _ => from_sqlx(error),
    }
}

/// What the functions are asked, beside words and vectors.
#[derive(Clone)]
struct Asked {
    scope: &'static str,
    session: Option<String>,
    owner: String,
    at: Micros,
    most: i32,
    kinds: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    tenants: Option<Vec<String>>,
}

impl Asked {
    /// `None` if nothing can be found: the database cannot store what is asked for.
    fn new(searched: &Searched, query: &SearchQuery) -> Option<Self> {
        let (scope, session) = match &query.scope {
            SearchScope::Session { id } => ("session", Some(id.clone())),
            SearchScope::Private => ("private", None),
            SearchScope::Tenant => ("tenant", None),
            SearchScope::Public => ("public", None),
        };
        let cannot_be = |text: &String| text.contains('\0');
        if session.as_ref().is_some_and(cannot_be) || cannot_be(&searched.owner) || query.tags.iter().any(cannot_be) {
            return None;
        }
        let possible = |texts: Vec<String>| texts.into_iter().filter(|text| !cannot_be(text)).collect::<Vec<_>>();
        let tenants = query.tenants.names().map(|names| names.into_iter().map(str::to_owned).collect());
        Some(Self {
            scope,
            session,
            owner: searched.owner.clone(),
            at: query.now.into(),
            most: i32::try_from(query.most()).unwrap_or(i32::MAX),
            kinds: (!query.kinds.is_empty()).then(|| possible(query.kinds.iter().cloned().collect())),
            tags: (!query.tags.is_empty()).then(|| query.tags.iter().cloned().collect()),
            tenants: tenants.map(possible),
        })
    }

    /// Binds the first eight parameters.
    fn bind<'q>(self, query: Query<'q, sqlx::Postgres, PgArguments>) -> Query<'q, sqlx::Postgres, PgArguments> {
        let query = query.bind(self.scope).bind(self.session).bind(self.owner).bind(self.at);
        query.bind(self.most).bind(self.kinds).bind(self.tags).bind(self.tenants)
    }
}

fn bind_model<'q>(
    query: Query<'q, sqlx::Postgres, PgArguments>,
    model: &'q VectorModel,
) -> Query<'q, sqlx::Postgres, PgArguments> {
    query.bind(model.name()).bind(model.version()).bind(i32::try_from(model.dimensions()).unwrap_or(i32::MAX))
}

fn sequence(seq: i32) -> u32 {
    seq.try_into().unwrap_or(0)
}

fn hash(tenant: &str, id: Uuid, row: &PgRow, column: usize) -> Result<logline_core::Hash, LedgerError> {
    let text: String = row.try_get(column).map_err(from_sqlx)?;
    text.parse().map_err(|e| LedgerError::Damaged {
        row: format!("ledger.memories {tenant}/{id}"),
        reason: format!("curr_hash {e}; `logline rebuild` makes the index again"),
    })
}

fn hit(row: &PgRow) -> Result<Hit, LedgerError> {
    let (tenant_id, id): (String, Uuid) = (row.try_get(0).map_err(from_sqlx)?, row.try_get(1).map_err(from_sqlx)?);
    let curr_hash = hash(&tenant_id, id, row, 3)?;
    let seq = sequence(row.try_get(2).map_err(from_sqlx)?);
    Ok(Hit { tenant_id, id, seq, curr_hash, score: row.try_get(4).map_err(from_sqlx)? })
}
