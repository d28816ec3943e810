//! A digest of everything in the schemas that protects the ledger: row-level security, policies, functions, triggers, indexes,
//! constraints, views, owners and grants.
//!
//! A migration records the digest of what it has made. `doctor` computes it again. Whoever can change the schema can also change the
//! record, so an operator keeps the digest elsewhere and compares it ([`definitions`]).

use logline_core::Hash;
use logline_core::ledger::LedgerError;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use crate::error::from_sqlx;
use crate::options::PgOptions;

/// One line for each object, with its whole definition. Objects of extensions are left out, and so is the default of the column
/// `epoch`, which each new epoch changes. The catalogues are read, never a function of the schemas.
const LINES: &str = r#"
    WITH schemas AS (SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('ledger', 'app', 'memory')),
    relations AS (SELECT c.*, s.nspname FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace)
    SELECT 'schema ' || concat_ws(' ', nspname, nspowner::regrole, (SELECT string_agg(x::text, ',' ORDER BY x::text) FROM unnest(coalesce(nspacl, acldefault('n', nspowner))) x)) FROM pg_namespace WHERE nspname IN ('ledger', 'app', 'memory')
    UNION ALL SELECT 'relation ' || concat_ws(' ', nspname, relname, relkind, relowner::regrole, (SELECT string_agg(x::text, ',' ORDER BY x::text) FROM unnest(coalesce(relacl, acldefault((CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", relowner))) x), reloptions, relrowsecurity,
        relforcerowsecurity, relpersistence, relispartition) FROM relations WHERE relkind <> 'i'
    UNION ALL SELECT 'column ' || concat_ws(' ', r.nspname, r.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        (SELECT string_agg(x::text, ',' ORDER BY x::text) FROM unnest(a.attacl) x), a.attidentity, a.attgenerated, CASE WHEN r.relname = 'universal_registry' AND a.attname = 'epoch' THEN 'epoch' ELSE pg_get_expr(d.adbin, d.adrelid) END)
      FROM pg_attribute a JOIN relations r ON r.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attnum > 0 AND NOT a.attisdropped AND r.relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION ALL SELECT 'policy ' || concat_ws(' ', schemaname, tablename, policyname, permissive, (SELECT string_agg(x, ',' ORDER BY x) FROM unnest(roles) x), cmd, qual, with_check)
      FROM pg_policies WHERE schemaname IN ('ledger', 'app', 'memory')
    UNION ALL SELECT 'function ' || concat_ws(' ', p.oid::regprocedure, p.proowner::regrole, (SELECT string_agg(x::text, ',' ORDER BY x::text) FROM unnest(coalesce(p.proacl, acldefault('f', p.proowner))) x), pg_get_functiondef(p.oid))
      FROM pg_proc p JOIN schemas s ON s.oid = p.pronamespace WHERE p.prokind IN ('f', 'p')
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    UNION ALL SELECT 'trigger ' || concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
      FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal
    UNION ALL SELECT 'rule ' || concat_ws(' ', pg_get_ruledef(w.oid), w.ev_enabled) FROM pg_rewrite w JOIN relations r ON r.oid = w.ev_class
    UNION ALL SELECT 'index ' || concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready)
      FROM pg_index i JOIN relations r ON r.oid = i.indrelid
    UNION ALL SELECT 'constraint ' || concat_ws(' ', r.nspname, r.relname, c.conname, pg_get_constraintdef(c.oid), c.convalidated)
      FROM pg_constraint c JOIN relations r ON r.oid = c.conrelid"#;

/// The digest of the definitions as they are now: 64 hexadecimal digits.
pub(crate) async fn digest(connection: &mut PgConnection) -> Result<Hash, LedgerError> {
    // How definitions are printed depends on the search path.
    let mut transaction = connection.begin().await.map_err(from_sqlx)?;
    transaction.execute("SET LOCAL search_path = pg_catalog, pg_temp").await.map_err(from_sqlx)?;
    let rows = transaction.fetch_all(LINES).await.map_err(from_sqlx)?;
    transaction.rollback().await.map_err(from_sqlx)?;
    let mut lines = rows.iter().map(|row| row.try_get::<String, _>(0)).collect::<Result<Vec<_>, _>>().map_err(from_sqlx)?;
    lines.sort_unstable();
    Ok(Hash::of(lines.join("\n").as_bytes()))
}

/// Records the digest, as the owner.
pub(crate) async fn record(connection: &mut PgConnection) -> Result<Hash, LedgerError> {
    let digest = digest(connection).await?;
    let sql = "INSERT INTO ledger.definitions (digest) VALUES ($1)";
    sqlx::query(sql).bind(digest.to_string()).execute(connection).await.map_err(from_sqlx)?;
    Ok(digest)
}

/// What is wrong: nothing, if the digest is the last one that was recorded.
pub(crate) async fn differences(connection: &mut PgConnection) -> Result<Vec<String>, LedgerError> {
    let now = digest(connection).await?.to_string();
    let sql = "SELECT digest FROM ledger.definitions ORDER BY number DESC LIMIT 1";
    let recorded: Option<String> = sqlx::query_scalar(sql).fetch_optional(connection).await.map_err(from_sqlx)?;
    Ok(match recorded {
        Some(recorded) if recorded == now => Vec::new(),
        Some(recorded) => vec![format!("they have the digest {now}, {recorded} was recorded")],
        None => vec![format!("they have the digest {now}, none was recorded")],
    })
}

/// The digest of the database's definitions: row-level security, policies, functions, triggers, indexes, constraints, views, owners and
/// grants. `logline migrate` prints it. An operator who keeps it outside the database can tell later whether any of them has changed;
/// `doctor` compares with the record in the database only. An upgrade of the server may change it without anybody's doing.
///
/// # Errors
/// If the database cannot be reached.
pub async fn definitions(options: &PgOptions) -> Result<Hash, LedgerError> {
    let mut connection = PgConnection::connect_with(&options.connect).await.map_err(from_sqlx)?;
    let digest = digest(&mut connection).await;
    // The digest is known. How the connection ends does not change it.
    let _ = connection.close().await;
    digest
}
