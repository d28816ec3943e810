//! The log of a tenant whose ledger is in PostgreSQL: late committers, a restored database, and two hosts.
#![cfg(feature = "integrator")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")]

mod setup;

use std::sync::Arc;

use logline_core::ledger::{AppendOptions, Ledger as _, LedgerExt as _, Query};
use logline_core::{Scope, SystemClock, SystemIds};
use logline_log::store::Directory;
use logline_log::tile::{Bundle, TileKind, TilePath};
use logline_log::{Entry, IntegrateError, Integrator, Leaf, LogSite, Step, last_signed};
use logline_pg::{PgLedger, PgOptions, migrate};
use logline_pg_testing::{PrivateServer, ServerOptions};
use setup::{TENANT, key, note};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

async fn open(server: &PrivateServer, database: &str) -> PgLedger {
    PgLedger::connect(PgOptions::new(&server.url("host", database)).unwrap()).await.unwrap()
}

async fn sql(server: &PrivateServer, sql: &str) {
    let mut postgres = PgConnection::connect(&server.url("postgres", "postgres")).await.unwrap();
    postgres.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    postgres.close().await.unwrap();
}

/// Copies the database, once nobody is connected to it.
async fn copy(server: &PrivateServer) {
    let mut postgres = PgConnection::connect(&server.url("postgres", "postgres")).await.unwrap();
    for _ in 0..50 {
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'logs'").await.unwrap();
        if postgres.execute("CREATE DATABASE yesterday TEMPLATE logs").await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("somebody is always connected");
}

async fn append(ledger: &PgLedger, count: usize) {
    for n in 0..count {
        let span = note(n).stamp(&SystemClock, &SystemIds).seal_local(&key(7)).unwrap();
        ledger.append(&Scope::Operator, vec![span], &AppendOptions::default()).await.unwrap();
    }
}

struct Site {
    _folder: tempfile::TempDir,
    tiles: Directory,
    locks: Directory,
}

impl Site {
    fn integrator(&self, ledger: &PgLedger) -> Integrator {
        let site = LogSite::new(Arc::new(self.tiles.clone()), Arc::new(self.locks.clone()), Arc::new(key(1))).batch(64);
        Integrator::new(Arc::new(ledger.clone()), site, TENANT)
    }

    /// Every entry of the published log.
    async fn entries(&self) -> Vec<Entry> {
        let note = last_signed(&self.locks, TENANT).await.unwrap().unwrap();
        let checkpoint = logline_log::Checkpoint::of(&note).unwrap();
        let mut entries = Vec::new();
        for path in TilePath::added(0, checkpoint.size).filter(|path| path.kind == TileKind::Entries) {
            let bytes = self.tiles.read_now(&format!("{}/{path}", checkpoint.origin)).unwrap().unwrap();
            entries.extend(Bundle::parse(path, &bytes).unwrap().entries().iter().map(|entry| Entry::parse(entry).unwrap()));
        }
        entries
    }
}

async fn settle(integrator: &mut Integrator) -> Result<(), IntegrateError> {
    while integrator.step().await? != Step::Idle {}
    Ok(())
}

#[test]
fn each_row_is_entered_once_while_many_append_and_a_restored_database_is_refused() {
    let server = PrivateServer::start(&ServerOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        sql(&server, "CREATE DATABASE logs").await;
        sql(&server, "CREATE ROLE host LOGIN").await;
        migrate(&PgOptions::new(&server.url("postgres", "logs")).unwrap()).await.unwrap();
        sql(&server, "GRANT logline_operator TO host").await;
        let folder = tempfile::tempdir().unwrap();
        let site = Site {
            tiles: Directory::new(folder.path().join("tiles")),
            locks: Directory::new(folder.path().join("locks")),
            _folder: folder,
        };
        let ledger = open(&server, "logs").await;
        append(&ledger, 30).await;
        // Two integrators, while four connections append, each in transactions of their own.
        let writers: Vec<_> = futures_util::future::join_all((0..4).map(|_| open(&server, "logs"))).await;
        let appending: Vec<_> =
            writers.into_iter().map(|ledger| tokio::spawn(async move { append(&ledger, 60).await })).collect();
        let (mut one, mut two) = (site.integrator(&ledger), site.integrator(&ledger));
        while !appending.iter().all(|writer| writer.is_finished()) {
            let (a, b) = tokio::join!(one.step(), two.step());
            a.unwrap();
            b.unwrap();
        }
        for writer in appending {
            writer.await.unwrap();
        }
        settle(&mut one).await.unwrap();
        let rows = ledger.collect(&Scope::runtime(TENANT), &Query::timeline().tenant(TENANT), usize::MAX).await.unwrap();
        assert_eq!(rows.len(), 270);
        let expected: Vec<_> = rows.iter().map(|row| Entry::Span(Leaf::of(row))).collect();
        assert_eq!(site.entries().await, expected, "in the order of appends, with nothing left out");

        // A copy from now is the database of tomorrow, after a restore.
        drop((one, two));
        drop(ledger);
        copy(&server).await;
        let ledger = open(&server, "logs").await;
        append(&ledger, 10).await;
        settle(&mut site.integrator(&ledger)).await.unwrap();
        let restored = open(&server, "yesterday").await;
        for more in [0, 25] {
            append(&restored, more).await;
            let refused = settle(&mut site.integrator(&restored)).await;
            assert!(matches!(refused, Err(IntegrateError::Restored { .. })), "{refused:?}");
        }
        let signed = last_signed(&site.locks, TENANT).await.unwrap().unwrap();
        assert_eq!(logline_log::Checkpoint::of(&signed).unwrap().size, 280, "nothing more was signed");
    });
}
