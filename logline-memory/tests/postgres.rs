//! Memories on PostgreSQL: other roles and tenants, an old dump, and the bytes in the data folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod site;

use std::path::PathBuf;
use std::process::Stdio;

use logline_core::contract::{KeyError, KeyProvider as _, KeyStore as _};
use logline_core::{Host, SystemClock};
use logline_memory::{
    LocalKeys, Memories, MemoryError, MemoryKernel, Mode, Sensitivity, Vault, VaultError, Wanted, What, close_epoch,
    verify_erasure,
};
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use site::{HOST, TENANT, contains, fact, key, opened, read};

const SECRET: &str = "allergic to penicillin";

async fn run(server: &PrivateServer, login: &str, sql: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(&server.url(login, "memories")).await?;
    let outcome = connection.execute(AssertSqlSafe(sql.to_owned())).await.map(drop);
    connection.close().await?;
    outcome
}

/// A program of the server's version, with this text as its input. Returns what it prints.
fn program(server: &PrivateServer, name: &str, args: &[&str], input: Option<&std::path::Path>) -> Vec<u8> {
    let mut command = server.program(name);
    command.args(args).arg(server.url("postgres", "memories"));
    if let Some(input) = input {
        command.stdin(std::fs::File::open(input).unwrap());
    }
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{name} failed");
    output.stdout
}

#[test]
fn memories_are_kept_found_and_forgotten_in_a_database() {
    let server = PrivateServer::start(&ServerOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut postgres = PgConnection::connect(&server.url("postgres", "postgres")).await.unwrap();
        for sql in ["CREATE DATABASE memories", "CREATE ROLE host LOGIN", "CREATE ROLE api LOGIN"] {
            postgres.execute(sql).await.unwrap();
        }
        migrate(&PgOptions::new(&server.url("postgres", "memories")).unwrap()).await.unwrap();
        postgres.execute("GRANT logline_operator TO host; GRANT logline_app TO api").await.unwrap();
        let data: PathBuf = postgres.fetch_one("SHOW data_directory").await.unwrap().get::<String, _>(0).into();

        let folder = tempfile::tempdir().unwrap();
        let ledger = PgLedger::connect(PgOptions::new(&server.url("host", "memories")).unwrap()).await.unwrap();
        let keys = folder.path().join("tenant-keys");
        let vault = Vault::new(LocalKeys::open(&keys).unwrap(), ledger.clone());
        let kernel = MemoryKernel::new(vault).search_in(ledger.clone());
        let set = logline_kernels::all().and(kernel.all());
        let trust = site::begin(&ledger, &set, &SystemClock).await;
        let host = Host::builder().ledger(ledger.clone()).trust(trust).key(key(HOST)).install(set).build().await.unwrap();
        let of = |tenant: &str, owner: &str| Memories::new(&host, kernel.vault(), tenant, owner, Mode::On);
        let (alice, carol) = (of(TENANT, "alice"), of("globex", "alice"));
        alice.grant(None).await.unwrap();
        carol.grant(None).await.unwrap();
        let goes = alice.remember(&fact(SECRET).key("health/allergy")).await.unwrap();
        let stays = alice.remember(&fact("likes tea").key("drink")).await.unwrap();
        alice.remember(&fact("green tea is sold here").sensitivity(Sensitivity::Public)).await.unwrap();
        for (query, text) in [("penicillin", SECRET), ("likes", "likes tea"), ("sold", "green tea is sold here")] {
            let found = alice.search(query, &Wanted::default()).await.unwrap();
            assert_eq!(found.hits.iter().map(|hit| hit.memory.body.text.as_str()).collect::<Vec<_>>(), [text]);
        }
        assert!(carol.search("penicillin tea", &Wanted::default()).await.unwrap().hits.is_empty());

        site::revoke_races_upserts(&host, kernel.vault(), &ledger, 12).await;

        // No login but a host's reads the keys, and a host's transaction those of one tenant only.
        assert!(run(&server, "api", "SELECT * FROM memory.record_keys").await.is_err());
        assert!(run(&server, "host", "SET ROLE logline_operator; SELECT * FROM memory.record_keys").await.is_err());
        let mut foreign = PgConnection::connect(&server.url("host", "memories")).await.unwrap();
        foreign.execute("SET ROLE logline_runtime; SELECT set_config('app.tenant_id', 'globex', false)").await.unwrap();
        let seen: i64 = foreign.fetch_one("SELECT count(*) FROM memory.record_keys").await.unwrap().get(0);
        assert_eq!(seen, 0);
        let changed = foreign.execute("DELETE FROM memory.subject_keys WHERE tenant_id = 'acme'").await.unwrap();
        assert_eq!(changed.rows_affected(), 0);
        foreign.close().await.unwrap();

        let dump = folder.path().join("memory.sql");
        std::fs::write(&dump, program(&server, "pg_dump", &["--data-only", "--schema=memory"], None)).unwrap();
        let old = ledger.subject_key(TENANT, "alice").await.unwrap().unwrap();
        assert!(opened(kernel.vault(), &ledger, goes.id).await.unwrap().contains(SECRET));
        alice.forget(&What::One(goes.id)).await.unwrap();
        assert_eq!(alice.get(goes.id).await.unwrap(), None);
        close_epoch(&host, TENANT).await.unwrap();
        assert_eq!(alice.get(stays.id).await.unwrap().unwrap().body.text, "likes tea");
        let erased = verify_erasure(&ledger, &host.trusted().authorities, kernel.vault(), TENANT).await.unwrap();
        assert!(erased.is_clean() && erased.versions == 1 && erased.sealed == 1, "{erased:?}");

        // Every byte that the server has on the disk: tables, indexes, the log.
        run(&server, "postgres", "CHECKPOINT").await.unwrap();
        let mut bytes = Vec::new();
        read(&data, &mut bytes);
        for hidden in [SECRET, "penicillin", "penicil", "health/allergy", "likes tea"] {
            assert!(!contains(&bytes, hidden), "`{hidden}` is on the disk");
        }
        assert!(contains(&bytes, "green tea is sold here"), "it would have been found");

        // The old dump comes back, as after a restore, and today's keys open nothing of it.
        let empty = "TRUNCATE memory.receipts, memory.record_keys, memory.subject_keys, memory.epochs";
        run(&server, "postgres", empty).await.unwrap();
        program(&server, "psql", &["--quiet", "--set=ON_ERROR_STOP=1"], Some(&dump));
        assert_eq!(ledger.epoch(TENANT).await.unwrap().unwrap().newest, 1);
        let read = alice.get(stays.id).await;
        assert!(matches!(read, Err(MemoryError::Vault(VaultError::Key(KeyError::Destroyed { .. })))), "{read:?}");
        for memory in [goes.id, stays.id] {
            let opened = opened(kernel.vault(), &ledger, memory).await;
            assert!(matches!(opened, Err(VaultError::Key(KeyError::Destroyed { .. }))), "{opened:?}");
        }
        // Nor does any key that is left open the wrap that the dump has.
        let context = format!("logline.subject.v1:{}:{}", old.id, logline_core::Hash::of(b"alice"));
        let provider = LocalKeys::open(&keys).unwrap();
        for epoch in 1..=3 {
            assert!(provider.unwrap(TENANT, epoch, &context, &old.wrapped).await.is_err());
        }
        let verified = verify_erasure(&ledger, &host.trusted().authorities, kernel.vault(), TENANT).await;
        assert!(matches!(verified, Err(MemoryError::Vault(VaultError::Key(KeyError::Destroyed { .. })))), "{verified:?}");
    });
}
