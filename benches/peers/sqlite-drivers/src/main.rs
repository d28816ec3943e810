//! Inserts the same 30 text columns (about 1.2 KB) into the same table with rusqlite and with sqlx. Both use WAL and
//! `synchronous=FULL`.
//!
//! `cargo run --release` in this folder. Rounds alternate, and the medians are printed.

use std::path::Path;
use std::time::Instant;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

const ROUNDS: usize = 5;
const SECONDS: f64 = 1.5;

fn columns() -> Vec<String> {
    (0..30).map(|n| if n == 5 { "x".repeat(500) } else { format!("value of column {n:03} ....") }).collect()
}

fn ddl() -> String {
    let columns: Vec<_> = (0..30).map(|n| format!("c{n} TEXT")).collect();
    format!("CREATE TABLE t (pos INTEGER PRIMARY KEY AUTOINCREMENT, {}) STRICT", columns.join(", "))
}

fn insert() -> String {
    let columns: Vec<_> = (0..30).map(|n| format!("c{n}")).collect();
    format!("INSERT INTO t ({}) VALUES ({})", columns.join(", "), vec!["?"; 30].join(", "))
}

/// Rows per second with `batch` rows in each transaction.
fn rusqlite(path: &Path, batch: usize) -> f64 {
    let mut connection = rusqlite::Connection::open(path).expect("open");
    connection.pragma_update(None, "journal_mode", "wal").expect("wal");
    connection.pragma_update(None, "synchronous", "full").expect("full");
    connection.execute_batch(&ddl()).expect("ddl");
    let (columns, insert) = (columns(), insert());
    let (start, mut rows) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < SECONDS {
        let transaction = connection.transaction().expect("begin");
        {
            let mut statement = transaction.prepare_cached(&insert).expect("prepare");
            for _ in 0..batch {
                statement.execute(rusqlite::params_from_iter(&columns)).expect("insert");
            }
        }
        transaction.commit().expect("commit");
        rows += batch;
    }
    rows as f64 / start.elapsed().as_secs_f64()
}

async fn sqlx(path: &Path, batch: usize) -> f64 {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = options.connect().await.expect("open");
    sqlx::query(sqlx::AssertSqlSafe(ddl())).execute(&mut connection).await.expect("ddl");
    let (columns, insert) = (columns(), insert());
    let (start, mut rows) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < SECONDS {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.expect("begin");
        for _ in 0..batch {
            let mut query = sqlx::query(sqlx::AssertSqlSafe(insert.as_str()));
            for column in &columns {
                query = query.bind(column.as_str());
            }
            query.execute(&mut connection).await.expect("insert");
        }
        sqlx::query("COMMIT").execute(&mut connection).await.expect("commit");
        rows += batch;
    }
    rows as f64 / start.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    println!("| rows a transaction | rusqlite 0.39, rows/s | sqlx 0.9, rows/s | ratio |\n|---|---|---|---|");
    for batch in [1, 100, 1000] {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let folder = tempfile::tempdir().expect("a folder");
            a.push(rusqlite(&folder.path().join("a"), batch));
            b.push(runtime.block_on(sqlx(&folder.path().join("b"), batch)));
        }
        let (a, b) = (median(a), median(b));
        println!("| {batch} | {a:.0} | {b:.0} | {:.1} |", a / b);
    }
}
