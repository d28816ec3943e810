//! Checks a live database: whether all that protects the ledger is in place, and whether any setting will cause trouble.

use std::time::{SystemTime, UNIX_EPOCH};

use logline_core::ledger::LedgerError;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::error::from_sqlx;
use crate::options::PgOptions;
use crate::{definitions, migrate, search};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Severity {
    /// The check passed.
    Ok,
    /// The ledger works, but this will cause trouble.
    Warning,
    /// A guarantee of the ledger does not hold.
    Failure,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The name of the check, such as `row-level security`.
    pub check: &'static str,
    /// Whether the check passed, and if not, how bad the finding is.
    pub severity: Severity,
    /// What the check found, as text for an operator.
    pub found: String,
    /// What to do; empty if the check passed.
    pub advice: &'static str,
}

/// A check whose query lists what is wrong. No rows means that the check passes.
struct Check {
    name: &'static str,
    severity: Severity,
    /// Returns one text for each thing that is wrong.
    sql: &'static str,
    good: &'static str,
    advice: &'static str,
}

const CHECKS: &[Check] = &[
    Check {
        name: "server version",
        severity: Severity::Failure,
        sql: "SELECT current_setting('server_version') WHERE current_setting('server_version_num')::integer < 150000",
        good: "15 or newer",
        advice: "upgrade the server: views that respect row-level security need version 15",
    },
    Check {
        name: "row-level security",
        severity: Severity::Failure,
        sql: "SELECT relname::text FROM pg_class WHERE oid IN ('ledger.universal_registry'::regclass, 'ledger.work'::regclass,
                'ledger.quota'::regclass, 'ledger.active'::regclass, 'ledger.memories'::regclass, to_regclass('ledger.memory_vectors'))
              AND NOT (relrowsecurity AND relforcerowsecurity)",
        good: "enabled and forced",
        advice: "ALTER TABLE ledger.… ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    },
    Check {
        name: "policies",
        severity: Severity::Failure,
        sql: "SELECT 'policy ' || policyname || ' is not this library''s' FROM pg_policies
              WHERE schemaname = 'ledger' AND tablename = 'universal_registry' AND policyname NOT IN
                ('app_reads', 'runtime_reads', 'operator_reads', 'owner_reads', 'app_appends', 'runtime_appends', 'operator_appends')
              UNION ALL SELECT (7 - count(*))::text || ' of 7 are missing' FROM pg_policies
              WHERE schemaname = 'ledger' AND tablename = 'universal_registry' AND policyname IN
                ('app_reads', 'runtime_reads', 'operator_reads', 'owner_reads', 'app_appends', 'runtime_appends', 'operator_appends')
              HAVING count(*) < 7",
        good: "the seven policies of the migration",
        advice: "find out who changed them, drop unknown policies, and restore missing ones from the migration",
    },
    Check {
        name: "view",
        severity: Severity::Failure,
        sql: "SELECT relname::text FROM pg_class WHERE oid = 'ledger.visible_timeline'::regclass
              AND NOT coalesce(reloptions @> ARRAY['security_invoker=true'], false)",
        good: "reads with its caller's rights",
        advice: "ALTER VIEW ledger.visible_timeline SET (security_invoker = true)",
    },
    Check {
        name: "triggers",
        severity: Severity::Failure,
        sql: "SELECT wanted.name || CASE WHEN t.oid IS NULL THEN ' is missing' ELSE ' is disabled' END
              FROM (VALUES ('ur_no_change', 'A'), ('ur_link', 'O'), ('ur_work', 'O'), ('ur_counters', 'O'), ('ur_active', 'O'), ('ur_memories', 'O')) AS wanted(name, enabled)
              LEFT JOIN pg_trigger t ON t.tgname = wanted.name AND t.tgrelid = 'ledger.universal_registry'::regclass
              WHERE t.oid IS NULL OR t.tgenabled::text NOT IN (wanted.enabled, 'A')",
        good: "enabled",
        advice: "ALTER TABLE ledger.universal_registry ENABLE [ALWAYS] TRIGGER …, then run `logline fsck`: rows may have been changed",
    },
    Check {
        name: "indexes",
        severity: Severity::Failure,
        sql: "SELECT wanted.name || ' is missing or invalid'
              FROM (VALUES ('ur_version'), ('ur_first_version'), ('ur_order'), ('ur_by_tenant'), ('ur_by_type'), ('ur_by_parent'),
                ('ur_by_trace'), ('work_request'), ('work_ready'), ('quota_key'),
                ('active_span'), ('active_listed'), ('memories_span'), ('memories_place'), ('memories_session'), ('memories_words')) AS wanted(name)
              LEFT JOIN pg_index i ON i.indexrelid = to_regclass('ledger.' || wanted.name)
              WHERE i.indexrelid IS NULL OR NOT i.indisvalid",
        good: "all are valid",
        advice: "create it as the migration does, with CONCURRENTLY: without the unique indexes chains can fork",
    },
    Check {
        name: "group roles",
        severity: Severity::Failure,
        sql: "SELECT rolname || ' has SUPERUSER, BYPASSRLS or LOGIN' FROM pg_roles WHERE rolname IN
                ('logline_owner', 'logline_app', 'logline_runtime', 'logline_operator')
              AND (rolsuper OR rolbypassrls OR rolcanlogin)",
        good: "no login, no superuser, no bypass of row-level security",
        advice: "ALTER ROLE … NOSUPERUSER NOBYPASSRLS NOLOGIN",
    },
    Check {
        name: "members of the owner",
        severity: Severity::Failure,
        sql: "SELECT m.member::regrole::text FROM pg_auth_members m WHERE m.roleid = 'logline_owner'::regrole
              AND NOT (SELECT rolsuper FROM pg_roles r WHERE r.oid = m.member)
              AND coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)",
        good: "nobody but a superuser can act as the owner",
        advice: "REVOKE logline_owner: its members may change and remove rows",
    },
    Check {
        name: "role hierarchy",
        severity: Severity::Failure,
        sql: "SELECT below || ' may not become ' || above FROM (VALUES ('logline_runtime', 'logline_app'), ('logline_operator', 'logline_runtime'))
              AS wanted(below, above) WHERE NOT pg_has_role(below, above, 'MEMBER')",
        good: "an operator may act as the runtime, the runtime as a user",
        advice: "run `logline migrate`: until then operators cannot read the trust root, and workers cannot read for their guests",
    },
    Check {
        name: "grants",
        severity: Severity::Failure,
        // From the catalogue itself: the information schema shows a login only its own grants.
        sql: "WITH grants AS (
                SELECT c.relname AS name, NULL::name AS col, (aclexplode(c.relacl)).* FROM pg_class c
                WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'v', 'S')
                UNION ALL SELECT c.relname, a.attname, (aclexplode(a.attacl)).* FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                WHERE c.relnamespace = 'ledger'::regnamespace)
              SELECT CASE WHEN grantee = 0 THEN 'everybody' ELSE pg_get_userbyid(grantee)::text END || ' may ' || privilege_type
                || ' on ' || name || coalesce('.' || col, '') FROM grants
              WHERE grantee <> 'logline_owner'::regrole AND NOT (
                grantee IN ('logline_app'::regrole, 'logline_runtime'::regrole, 'logline_operator'::regrole) AND (
                  privilege_type = 'SELECT' AND name IN ('universal_registry', 'visible_timeline', 'epochs', 'migrations', 'definitions')
                  OR privilege_type = 'INSERT' AND name = 'universal_registry' AND col NOT IN ('epoch', 'xid', 'pos')))",
        good: "nobody may change or remove rows",
        advice: "REVOKE these privileges",
    },
    Check {
        name: "logins that bypass row-level security",
        severity: Severity::Warning,
        sql: "SELECT r.rolname::text FROM pg_roles r WHERE r.rolcanlogin AND (r.rolsuper OR r.rolbypassrls)
              AND EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                WHERE m.member = r.oid AND starts_with(g.rolname, 'logline_'))",
        good: "none has a role of the ledger",
        advice: "give hosts logins of their own, with NOSUPERUSER NOBYPASSRLS",
    },
    Check {
        name: "logins with several roles",
        severity: Severity::Warning,
        sql: "SELECT r.rolname::text FROM pg_roles r JOIN pg_auth_members m ON m.member = r.oid JOIN pg_roles g ON g.oid = m.roleid
              WHERE r.rolcanlogin AND g.rolname IN ('logline_app', 'logline_runtime', 'logline_operator')
              GROUP BY r.rolname HAVING count(*) > 1",
        good: "each has one",
        advice: "separate the logins of API, workers and operators: a login has the rights of all its roles",
    },
    Check {
        name: "functions with the owner's rights",
        severity: Severity::Failure,
        sql: "SELECT p.proname || ' has no fixed search_path' FROM pg_proc p WHERE p.pronamespace IN ('ledger'::regnamespace, 'app'::regnamespace)
              AND p.prosecdef AND NOT coalesce(p.proconfig::text LIKE '%search_path=%', false)
              UNION ALL SELECT p.proname || ' is not owned by logline_owner' FROM pg_proc p
              WHERE p.pronamespace IN ('ledger'::regnamespace, 'app'::regnamespace) AND pg_get_userbyid(p.proowner) <> 'logline_owner'",
        good: "each has a fixed search_path",
        advice: "restore it from the migration: otherwise a login that can create objects may run code as the owner",
    },
    Check {
        name: "who may create in the schemas",
        severity: Severity::Failure,
        sql: "SELECT r.rolname || ' may create in ' || s.name FROM pg_roles r, (VALUES ('ledger'), ('app'), ('memory')) AS s(name)
              WHERE r.rolname IN ('logline_app', 'logline_runtime', 'logline_operator') AND has_schema_privilege(r.oid, s.name, 'CREATE')",
        good: "the owner alone",
        advice: "REVOKE CREATE ON SCHEMA",
    },
    Check {
        name: "open work",
        severity: Severity::Failure,
        sql: "SELECT ledger.stray_work() || ' rows of open work do not agree with the registry' WHERE ledger.stray_work() > 0",
        good: "the tables agree with the registry",
        advice: "run `logline rebuild`, and find out who changed the tables",
    },
    Check {
        name: "index of memories",
        severity: Severity::Failure,
        sql: "SELECT ledger.stray_memories() || ' entries are not of a last version' WHERE ledger.stray_memories() > 0",
        good: "agrees with the registry",
        advice: "run `logline rebuild`, and find out who changed the table",
    },
    Check {
        name: "durability",
        severity: Severity::Warning,
        sql: "SELECT name || ' = ' || setting FROM pg_settings
              WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'",
        good: "an acknowledged append survives a crash",
        advice: "set it to on, unless you accept that a crash loses the last appends",
    },
    Check {
        name: "idle transactions",
        severity: Severity::Warning,
        sql: "SELECT 'idle_in_transaction_session_timeout is 0' WHERE current_setting('idle_in_transaction_session_timeout') IN ('0', '0ms')",
        good: "are ended by the server",
        advice: "set idle_in_transaction_session_timeout, for example to 60s: an idle transaction that has written delays every watch",
    },
    Check {
        name: "cluster",
        severity: Severity::Failure,
        sql: "SELECT 'the ledger last wrote in cluster ' || e.cluster || ', this is ' || ledger.cluster()
              FROM ledger.epochs e WHERE NOT pg_is_in_recovery() AND e.epoch = (SELECT max(epoch) FROM ledger.epochs)
              AND e.cluster <> ledger.cluster()",
        good: "the one that the current epoch began in",
        advice: "run `logline migrate`, or let any host connect: it opens a new epoch",
    },
    Check {
        name: "append order",
        severity: Severity::Warning,
        sql: "SELECT coalesce('backend ' || pid, 'a prepared transaction') || ' delays it (transaction ' || xid || ')' FROM ledger.holders()",
        good: "is final up to now",
        advice: "nothing if it ends soon; otherwise end that backend: watches wait for it",
    },
];

const CHANGED_DEFINITIONS: &str = "find out who changed a policy, function, trigger, index, view, owner or grant in the schemas ledger, app and memory. \
    If it was you, or the server was upgraded, record the new ones with `logline migrate --accept-definitions`";

/// If clocks differ by more than this, leases, schedules and quotas of different hosts disagree.
const MAX_SKEW_MS: i64 = 1000;

/// Checks the database. The login must be able to read the catalogues and must have one of the ledger's roles.
///
/// # Errors
/// If the database cannot be reached, or holds no ledger of this version. A problem of the database is a [`Finding`], not an
/// error.
pub async fn doctor(options: &PgOptions) -> Result<Vec<Finding>, LedgerError> {
    let mut connection = PgConnection::connect_with(&options.connect).await.map_err(from_sqlx)?;
    let found = migrate::version(&mut connection).await?;
    migrate::check_current(found)?;
    let mut findings = vec![Finding { check: "schema version", severity: Severity::Ok, found: found.to_string(), advice: "" }];
    for check in CHECKS {
        let wrong: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(check.sql)).fetch_all(&mut connection).await.map_err(from_sqlx)?;
        findings.push(if wrong.is_empty() {
            Finding { check: check.name, severity: Severity::Ok, found: check.good.to_owned(), advice: "" }
        } else {
            Finding { check: check.name, severity: check.severity, found: wrong.join(", "), advice: check.advice }
        });
    }
    let changed = definitions::differences(&mut connection).await?;
    findings.push(if changed.is_empty() {
        let digest = definitions::digest(&mut connection).await?;
        Finding { check: "definitions", severity: Severity::Ok, found: format!("as recorded, digest {digest}"), advice: "" }
    } else {
        Finding { check: "definitions", severity: Severity::Failure, found: changed.join(", "), advice: CHANGED_DEFINITIONS }
    });
    findings.push(vectors(&mut connection).await?);
    findings.push(trigrams(&mut connection).await?);
    findings.push(skew(&mut connection).await?);
    // The findings are complete. How the connection ends does not change them.
    let _ = connection.close().await;
    Ok(findings)
}

/// Whether memories are found in spite of typing errors. That they are not is no fault.
async fn trigrams(connection: &mut PgConnection) -> Result<Finding, LedgerError> {
    let is_there: bool = sqlx::query_scalar("SELECT ledger.has_trigrams()").fetch_one(connection).await.map_err(from_sqlx)?;
    let (found, advice) = if is_there { ("pg_trgm", "") } else { ("none: the database has no pg_trgm", search::NO_TRIGRAMS) };
    Ok(Finding { check: "trigrams", severity: Severity::Ok, found: found.to_owned(), advice })
}

/// Whether memories are found by vectors. That they are not is no fault: they are found by their words.
async fn vectors(connection: &mut PgConnection) -> Result<Finding, LedgerError> {
    let sql =
        "SELECT extversion FROM pg_extension WHERE extname = 'vector' AND to_regclass('ledger.memory_vectors') IS NOT NULL";
    let version: Option<String> = sqlx::query_scalar(sql).fetch_optional(connection).await.map_err(from_sqlx)?;
    let (found, advice) = match version {
        Some(version) => (format!("pgvector {version}"), ""),
        None => ("none: the server has no pgvector".to_owned(), search::NO_VECTORS),
    };
    Ok(Finding { check: "vectors", severity: Severity::Ok, found, advice })
}

/// How far this host's clock is from the server's.
async fn skew(connection: &mut PgConnection) -> Result<Finding, LedgerError> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
    let before = now();
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let server: i64 = sqlx::query_scalar(sql).fetch_one(connection).await.map_err(from_sqlx)?;
    let after = now();
    // The server read its clock at some time between `before` and `after`.
    let skew = if server < before { before - server } else { (server - after).max(0) };
    let within = skew <= MAX_SKEW_MS;
    Ok(Finding {
        check: "clocks",
        severity: if within { Severity::Ok } else { Severity::Warning },
        found: format!("this host and the server are {skew} ms apart"),
        advice: if within { "" } else { "synchronise both with NTP" },
    })
}
