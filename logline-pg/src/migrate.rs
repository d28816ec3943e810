//! Migrates the schema. Migrations are embedded in the library, go forward only, and run in one transaction.

use logline_core::Hash;
use logline_core::ledger::LedgerError;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use crate::definitions;
use crate::error::from_sqlx;
use crate::options::PgOptions;

/// The migrations in order: version n is at index n - 1. A released migration never changes.
const MIGRATIONS: &[(&str, &str)] = &[
    ("registry", include_str!("../migrations/0001_registry.sql")),
    ("work", include_str!("../migrations/0002_work.sql")),
    ("search", include_str!("../migrations/0003_search.sql")),
    ("memory", include_str!("../migrations/0004_memory.sql")),
];

/// Creates the cluster's group roles, and lets some of them take others. Every statement also succeeds if nothing is left to
/// do.
const ROLES: &str = include_str!("../migrations/roles.sql");

/// Creates the extension, the schemas and the table of migrations, which must exist before a migration can run. Every statement
/// also succeeds if nothing is left to do.
const BOOTSTRAP: &str = include_str!("../migrations/bootstrap.sql");

/// Installs pgvector where the server has it.
const INSTALL_VECTORS: &str = include_str!("../migrations/vectors_install.sql");

/// Makes what needs pgvector, if it is installed.
const VECTORS: &str = include_str!("../migrations/vectors.sql");

/// Installs pg_trgm where the server has it.
const INSTALL_TRIGRAMS: &str = include_str!("../migrations/trigrams_install.sql");

/// Makes what needs pg_trgm, if it is installed.
const TRIGRAMS: &str = include_str!("../migrations/trigrams.sql");

/// Makes the login a member of `logline_owner`, unless it can already take that role, and notes whether it had to. (From
/// PostgreSQL 16 on, the creator of a role may grant it but may not take it.)
const BECOME_OWNER: &str = "
    SELECT set_config('logline.granted', 'no', true);
    DO $do$ BEGIN
      IF NOT pg_has_role(session_user, 'logline_owner',
        CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END) THEN
        EXECUTE format('GRANT logline_owner TO %I', session_user);
        PERFORM set_config('logline.granted', 'yes', true);
      END IF;
    END $do$";

/// Ends the membership that [`BECOME_OWNER`] granted: a login that migrates does not stay the owner.
const LEAVE_OWNER: &str = "
    RESET ROLE;
    DO $do$ BEGIN EXECUTE format('REVOKE logline_owner FROM %I', session_user); END $do$";

/// The advisory lock that every migration of this database takes. The transaction holds it, so a pooler cannot lose it.
const LOCK: i64 = 0x004c_4f47_4c49_4e45;

/// The result of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migrated {
    /// The schema version that was found; 0 if there was none.
    pub from: i32,
    /// The schema version now: the newest that this library knows.
    pub to: i32,
    /// The current epoch of append order. It is greater than before if the database was restored or promoted since, or if a new
    /// epoch was asked for.
    pub epoch: i32,
}

/// The newest schema version that this library knows.
fn newest() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Brings the database to this library's schema. Any number of hosts may call it at once: one migrates, the others wait and
/// find it done. The login must be a superuser, or own the database and have `CREATEROLE`.
///
/// # Errors
/// [`LedgerError::SchemaVersion`] if a newer library has migrated the database. Nothing is changed then, nor if a statement
/// fails.
pub async fn migrate(options: &PgOptions) -> Result<Migrated, LedgerError> {
    run(options, false, false).await
}

/// As [`migrate`], and opens a new epoch of append order even if the cluster is the same. Call it after a recovery to a point
/// in time: readers may then hold cursors of rows that no longer exist.
///
/// # Errors
/// As [`migrate`].
pub async fn migrate_to_new_epoch(options: &PgOptions) -> Result<Migrated, LedgerError> {
    run(options, true, false).await
}

/// As [`migrate`], and records the definitions of the schemas as they are now, so that `doctor` finds nothing wrong with them: after an
/// operator has changed a grant or an index on purpose, or the server was upgraded.
///
/// # Errors
/// As [`migrate`].
pub async fn accept_definitions(options: &PgOptions) -> Result<Migrated, LedgerError> {
    run(options, false, true).await
}

/// Creates the four roles in the cluster and nothing else. Call it before a dump is restored into a cluster that never held a
/// ledger: a dump names roles but does not contain them. It is harmless if they exist. The login needs `CREATEROLE`.
///
/// # Errors
/// [`LedgerError::Refused`] if the login may not create roles.
pub async fn create_roles(options: &PgOptions) -> Result<(), LedgerError> {
    let mut connection = PgConnection::connect_with(&options.connect).await.map_err(from_sqlx)?;
    let created = connection.execute(ROLES).await.map_err(from_sqlx);
    // As in `run`: the outcome is already known.
    let _ = connection.close().await;
    created.map(drop)
}

async fn run(options: &PgOptions, new_epoch: bool, accepts: bool) -> Result<Migrated, LedgerError> {
    let mut connection = PgConnection::connect_with(&options.connect).await.map_err(from_sqlx)?;
    let migrated = apply(&mut connection, new_epoch, accepts).await;
    // The transaction is committed or not. How the connection ends does not change that.
    let _ = connection.close().await;
    migrated
}

async fn apply(connection: &mut PgConnection, new_epoch: bool, accepts: bool) -> Result<Migrated, LedgerError> {
    let mut transaction = connection.begin().await.map_err(from_sqlx)?;
    // While this waits for a lock on the registry, it also blocks those that wait behind it. So the wait is limited.
    transaction.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s'").await.map_err(from_sqlx)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await.map_err(from_sqlx)?;
    transaction.execute(ROLES).await.map_err(from_sqlx)?;
    transaction.execute(BECOME_OWNER).await.map_err(from_sqlx)?;
    let granted = transaction.fetch_one("SELECT current_setting('logline.granted') = 'yes'").await;
    let granted: bool = granted.and_then(|row| row.try_get(0)).map_err(from_sqlx)?;
    // As a member of the owner the login has the right to read the version, whatever its other roles.
    let from = version(&mut transaction).await?;
    check(from)?;
    if from < newest() {
        transaction.execute(BOOTSTRAP).await.map_err(from_sqlx)?;
    }
    transaction.execute(INSTALL_VECTORS).await.map_err(from_sqlx)?;
    transaction.execute(INSTALL_TRIGRAMS).await.map_err(from_sqlx)?;
    transaction.execute("SET LOCAL ROLE logline_owner").await.map_err(from_sqlx)?;
    // Definitions that somebody has changed are not recorded because an extension has come.
    let is_as_recorded = from == newest() && definitions::differences(&mut transaction).await?.is_empty();
    let pending = MIGRATIONS.iter().zip(1_i32..).filter(|(_, number)| *number > from);
    for ((name, sql), number) in pending {
        transaction.execute(AssertSqlSafe(*sql)).await.map_err(from_sqlx)?;
        let record = "INSERT INTO ledger.migrations (version, name, hash) VALUES ($1, $2, $3)";
        let hash = Hash::of(sql.as_bytes()).to_string();
        let record = sqlx::query(record).bind(number).bind(*name).bind(hash);
        record.execute(&mut *transaction).await.map_err(from_sqlx)?;
        tracing::info!(version = number, name, "ledger schema migrated");
    }
    transaction.execute(VECTORS).await.map_err(from_sqlx)?;
    transaction.execute(TRIGRAMS).await.map_err(from_sqlx)?;
    let made = "SELECT 'made' IN (current_setting('logline.vectors'), current_setting('logline.trigrams'))";
    let made = transaction.fetch_one(made).await;
    let has_more: bool = made.and_then(|row| row.try_get(0)).map_err(from_sqlx)?;
    // Not if there was nothing to migrate: that would accept whatever somebody has changed since.
    if from < newest() || accepts || (has_more && is_as_recorded) {
        definitions::record(&mut transaction).await?;
    }
    let row = sqlx::query("SELECT ledger.open_epoch($1)").bind(new_epoch).fetch_one(&mut *transaction).await;
    let epoch = row.and_then(|row| row.try_get(0)).map_err(from_sqlx)?;
    if granted {
        transaction.execute(LEAVE_OWNER).await.map_err(from_sqlx)?;
    }
    transaction.commit().await.map_err(from_sqlx)?;
    Ok(Migrated { from, to: newest(), epoch })
}

/// The version of the schema; 0 if there is none.
pub(crate) async fn version(connection: &mut PgConnection) -> Result<i32, LedgerError> {
    // A statement without parameters is sent as one message, which a pooler cannot split.
    let there = connection.fetch_one("SELECT to_regclass('ledger.migrations') IS NOT NULL").await;
    if !there.and_then(|row| row.try_get::<bool, _>(0)).map_err(from_sqlx)? {
        return Ok(0);
    }
    let newest = connection.fetch_one("SELECT coalesce(max(version), 0) FROM ledger.migrations").await;
    newest.and_then(|row| row.try_get(0)).map_err(from_sqlx)
}

/// Refuses a schema that is newer than this library.
fn check(found: i32) -> Result<(), LedgerError> {
    if found <= newest() {
        return Ok(());
    }
    Err(LedgerError::SchemaVersion { found: found.into(), supported: newest().into(), advice: "upgrade this library" })
}

/// Refuses a schema of another version than this library's.
pub(crate) fn check_current(found: i32) -> Result<(), LedgerError> {
    check(found)?;
    if found == newest() {
        return Ok(());
    }
    let advice = "run `logline migrate`, or call `logline_pg::migrate`";
    Err(LedgerError::SchemaVersion { found: found.into(), supported: newest().into(), advice })
}
