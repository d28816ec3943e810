//! Whether the ledger answers: found out by a read of a row, and kept for a moment, so that probes cost little.

use std::time::Duration;

use logline_core::ledger::{Query, WorkQueue};
use logline_core::{SYSTEM_TENANT, Scope};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::problem::{Code, Problem};

/// How long the ledger may take to give a row.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an answer stands.
const KEPT: Duration = Duration::from_secs(1);

/// What the last read of the ledger has found. Probes that come together wait for one read.
#[derive(Default)]
pub(crate) struct Readiness {
    last: Mutex<Option<(Instant, Result<(), Problem>)>>,
}

impl Readiness {
    /// Reads the manifest's tenant, from which every start reads as well, unless that was done just now.
    pub(crate) async fn of(&self, ledger: &dyn WorkQueue) -> Result<(), Problem> {
        let mut last = self.last.lock().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < KEPT
        {
            return found.clone();
        }
        let found = read(ledger).await;
        *last = Some((Instant::now(), found.clone()));
        found
    }
}

async fn read(ledger: &dyn WorkQueue) -> Result<(), Problem> {
    let unavailable = |detail| Problem::new(Code::Unavailable, detail);
    let (scope, one) = (Scope::runtime(SYSTEM_TENANT), Query::timeline().limit(1));
    let page = match tokio::time::timeout(PATIENCE, ledger.scan(&scope, &one, None)).await {
        // Whatever the fault is, this instance cannot serve calls. The log says which.
        Ok(page) => page.map_err(|error| {
            tracing::warn!(%error, "the ledger cannot be read: this instance is not ready");
            unavailable("the ledger cannot be read; the service's log says why")
        })?,
        Err(_) => return Err(unavailable("the ledger does not answer in time")),
    };
    match page.rows.first() {
        Some(row) if row.span.is_ok() => Ok(()),
        Some(_) => Err(unavailable("the first row of the ledger is damaged")),
        // A host does not start without the rows of `system`.
        None => Err(unavailable("the ledger is empty")),
    }
}
