//! Ends statements on the server whose caller no longer waits.
//!
//! The server does not notice that a client has gone before it has something to send. So a statement that was dropped would run
//! on, and its caller's next statement would take another connection: the number of busy backends would have no limit.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, PgPool, Postgres};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

/// How long to wait for a backend to end. Then its connection is given up, and the backend ends by itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait for an answer of the server, which may have gone without a word. Until then the connections of callers that
/// have gone count in the pool.
const SILENCE: Duration = Duration::from_secs(4);

/// A transaction on the server.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    /// The server's process.
    pub(crate) pid: i32,
    /// When the transaction began, as the server writes it. Another transaction of a process with the same number is not meant.
    pub(crate) began: String,
}

/// A connection whose state is unknown, and the transaction that it began.
struct Left {
    running: Running,
    connection: PoolConnection<Postgres>,
}

/// Takes connections whose callers have gone. Each counts in its pool until its process on the server has ended.
#[derive(Clone)]
pub(crate) struct Stopper(UnboundedSender<Left>);

impl Stopper {
    /// Starts the task. It ends when every handle is dropped.
    pub(crate) fn start(pool: &PgPool) -> Self {
        let (sender, left) = unbounded_channel();
        let options = (*pool.connect_options()).clone();
        tokio::spawn(run(options, left));
        Self(sender)
    }

    pub(crate) fn stop(&self, running: Running, connection: PoolConnection<Postgres>) {
        if let Err(unsent) = self.0.send(Left { running, connection }) {
            // The runtime is shutting down.
            drop(unsent.0.connection.detach());
        }
    }
}

async fn run(options: PgConnectOptions, mut left: UnboundedReceiver<Left>) {
    while let Some(first) = left.recv().await {
        let mut next = Some(first);
        let mut own = match timeout(SILENCE, PgConnection::connect_with(&options)).await {
            Ok(Ok(own)) => Some(own),
            Ok(Err(error)) => {
                tracing::debug!(%error, "statements of callers that have gone cannot be stopped; they run on");
                None
            }
            Err(_) => {
                tracing::debug!("the server does not answer; statements of callers that have gone run on");
                None
            }
        };
        while let Some(Left { running: Running { pid, began }, connection }) = next {
            if let Some(mut asking) = own.take() {
                let sql = "SELECT pg_terminate_backend(pid, $3) FROM pg_stat_activity
                    WHERE pid = $1 AND xact_start = $2::timestamptz";
                let stopping = sqlx::query_scalar::<_, bool>(sql)
                    .bind(pid)
                    .bind(began)
                    .bind(i64::try_from(PATIENCE.as_millis()).unwrap_or(i64::MAX))
                    .fetch_optional(&mut asking);
                // After an error or a silence this connection is of no more use. The others are given up then.
                if let Ok(Ok(ended)) = timeout(SILENCE, stopping).await {
                    tracing::debug!(pid, ?ended, "stopped a statement whose caller has gone");
                    own = Some(asking);
                }
            }
            drop(connection.detach());
            next = left.try_recv().ok();
        }
        if let Some(own) = own {
            let _ = timeout(SILENCE, own.close()).await;
        }
    }
}
