//! Rows that are secret, and sessions of people who want them.

use logline_core::ledger::{AppendOptions, Ledger as _};
use logline_core::{Draft, KeyPair, Scope, SystemClock, SystemIds, VerifiedSpan, Visibility};
use logline_pg::PgLedger;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use uuid::Uuid;

use crate::server::{connection, ledger};

pub fn note(tenant: &str, owner: &str) -> Draft {
    Draft::new("note").tenant(tenant).owner(owner).who("w").this("note.secret").content("the secret".into())
}

pub fn seal(draft: Draft) -> VerifiedSpan {
    draft.stamp(&SystemClock, &SystemIds).seal_local(&KeyPair::from_seed(&[3; 32])).unwrap()
}

/// A ledger with a private and a tenant-wide row of alice's in acme.
pub async fn with_secrets() -> (String, PgLedger, [VerifiedSpan; 2]) {
    let (database, ledger) = ledger().await;
    let private = seal(note("acme", "alice"));
    let shared = seal(note("acme", "alice").visibility(Visibility::Tenant));
    ledger
        .append(&Scope::user("acme", "alice"), vec![private.clone(), shared.clone()], &AppendOptions::default())
        .await
        .unwrap();
    (database, ledger, [private, shared])
}

/// A session of a login, in the identity it was given.
pub async fn session(login: &str, database: &str, tenant: &str, user: &str) -> PgConnection {
    let mut connection = connection(login, database).await;
    let identity = "SELECT set_config('app.tenant_id', $1, false), set_config('app.user_id', $2, false)";
    sqlx::query(identity).bind(tenant).bind(user).execute(&mut connection).await.unwrap();
    connection
}

pub async fn refusal(connection: &mut PgConnection, sql: &str) -> String {
    match connection.execute(AssertSqlSafe(sql.to_owned())).await {
        Ok(done) => panic!("`{sql}` was allowed: {done:?}"),
        Err(error) => {
            let error = error.into_database_error().unwrap();
            format!("{} {}", error.code().unwrap_or_default(), error.message())
        }
    }
}

pub async fn count(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(connection).await.unwrap()
}

pub const ANY_HASH: &str = "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd";

/// An insert of a note with these columns, everything else filled in somehow.
pub fn insert(id: Uuid, seq: u32, entity_type: &str, owner: &str, tenant: &str, prev_hash: Option<&str>) -> String {
    // A hash that is none stands for any wrong one.
    let prev = prev_hash.map_or("NULL".to_owned(), |hash| format!("'{}'", if hash == "h" { &ANY_HASH } else { hash }));
    format!(
        "INSERT INTO ledger.universal_registry (id, seq, entity_type, who, this, at, owner_id, tenant_id, visibility,
            is_deleted, curr_hash, signature, public_key, prev_hash)
         VALUES ('{id}', {seq}, '{entity_type}', 'w', 't', now(), '{owner}', '{tenant}', 'private', false, repeat('a', 64),
            repeat('b', 128), repeat('c', 64), {prev})"
    )
}
