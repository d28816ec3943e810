//! `memory_keeper`: the loop that ends what has passed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use logline_core::contract::Reader;
use logline_core::ledger::{Cursor, LedgerError, Query, Versions, WorkQueue as _};
use logline_core::request::Request;
use logline_core::{
    Host, HostError, KernelSet, Scope, Service, ServiceReport, Shutdown, Timestamp, VerifiedSpan, Verifier, ids,
};
use logline_kernels::harness::{Backoff, jittered};
use serde_json::json;
use uuid::Uuid;

use crate::belief::{Rows, accepted};
use crate::form::{MEMORY, Status};
use crate::kernel::{MEMORY_SEAL, MemoryKernel, RECEIPT, ttl_at};
use crate::memories::{MemoryError, close_epoch, expire, mend};
use crate::orphans::{GRACE, reap, unreadable_of};
use crate::results::{Receipt, ReceiptState};

const NAME: &str = "memory_keeper";
const VERSION: u32 = 1;
/// How many memories get a vector in one look.
const VECTORS: usize = 960;

/// How many new versions one look compares with the keys.
const LOOKED_AT: usize = 1000;

const SEEDS: &str = include_str!("../seeds/keeper.ndjson");

/// The id of the loop's function span.
#[must_use]
pub fn memory_keeper() -> Uuid {
    ids::derive("kernel", &[NAME])
}

/// The loop `memory_keeper`, version 1: it ends memories at their time, and epochs of tenants' keys, so that receipts get sealed. Any number
/// of hosts may run it for the same tenants.
#[derive(Debug, Clone)]
pub struct MemoryKeeper {
    tenants: Vec<String>,
    poll: Duration,
    epoch: Duration,
    grace: Duration,
    kernel: Option<MemoryKernel>,
}

impl MemoryKeeper {
    /// Keeps the memories of these tenants.
    pub fn new<T: Into<String>>(tenants: impl IntoIterator<Item = T>) -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            tenants: tenants.into_iter().map(Into::into).collect(),
            poll: Duration::from_secs(60),
            epoch: day,
            grace: GRACE,
            kernel: None,
        }
    }

    /// Also looks after keys and vectors, with those of this kernel: deletes keys whose text was never kept, ends memories that lost their
    /// keys while everything of their user was forgotten, and makes vectors of what is pending. Without it none of this is done.
    #[must_use]
    pub fn kernel(mut self, kernel: &MemoryKernel) -> Self {
        self.kernel = Some(kernel.clone());
        self
    }

    /// Sets for how long a key without a text is left alone, at least [`GRACE`], which is the default.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace.max(GRACE);
        self
    }

    /// Sets how often it looks for memories whose time has passed. Default one minute. (No search finds them meanwhile.)
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// Sets how long an epoch of a tenant's key lasts if something was forgotten in it. Default one day. The shorter it is, the sooner old
    /// backups become useless, and the more keys are made and destroyed.
    #[must_use]
    pub fn epoch(mut self, interval: Duration) -> Self {
        self.epoch = interval.max(Duration::from_secs(1));
        self
    }

    /// The loop with its seed, for [`HostBuilder::install`](logline_core::HostBuilder::install).
    #[must_use]
    pub fn all(&self) -> KernelSet {
        // The tests prove that the seed can be read.
        KernelSet::new().service(self.clone()).seeds(logline_kernels::parse_seeds(SEEDS).unwrap_or_default())
    }
}

/// What the loop did in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct KeeperReport {
    /// Memories that it ended.
    pub expired: u64,
    /// Epochs that it ended.
    pub epochs: u64,
    /// Keys without a text that it deleted.
    pub reaped: u64,
    /// Memories without a key that it ended, because everything of their user was forgotten when they were written.
    pub mended: u64,
    /// Memories without a key that it has seen and left as they are: the store of keys is older than the ledger, or was damaged.
    pub unreadable: u64,
    /// Public memories that got a vector.
    pub embedded: u64,
    /// Looks at a tenant that failed.
    pub failed: u64,
}

impl ServiceReport for KeeperReport {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("expired", self.expired),
            ("epochs", self.epochs),
            ("reaped", self.reaped),
            ("mended", self.mended),
            ("unreadable", self.unreadable),
            ("embedded", self.embedded),
            ("failed", self.failed),
        ]
    }
}

/// What a receipt waits for.
enum Unsealed {
    /// The end of an epoch, since it was given out.
    Since(Timestamp),
    /// The deletion of the key, at this time.
    Until(Timestamp),
}

/// What the loop knows of a tenant.
#[derive(Default)]
struct Tenant {
    /// Up to where memories and receipts were read.
    memories: Option<Cursor>,
    receipts: Option<Cursor>,
    /// Memories with an end, and their owners.
    due: HashMap<Uuid, (Timestamp, String)>,
    /// Receipts that are not sealed.
    unsealed: HashMap<Uuid, Unsealed>,
    /// Up to where keys were looked at.
    reaped: Option<(Timestamp, Uuid)>,
    /// Memories whose keys are to be looked at.
    changed: BTreeSet<Uuid>,
    backoff: Backoff,
    rests_until: Option<tokio::time::Instant>,
}

#[async_trait]
impl Service for MemoryKeeper {
    fn id(&self) -> Uuid {
        memory_keeper()
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        VERSION
    }

    async fn run(&self, host: &Host, mut shutdown: Shutdown<'_>) -> Result<Box<dyn ServiceReport>, HostError> {
        host.boot(memory_keeper()).await?;
        let mut report = KeeperReport::default();
        let mut tenants: HashMap<&str, Tenant> = self.tenants.iter().map(|name| (name.as_str(), Tenant::default())).collect();
        loop {
            for (name, tenant) in &mut tenants {
                if (&mut shutdown).now_or_never().is_some() {
                    return Ok(Box::new(report));
                }
                let now = tokio::time::Instant::now();
                if tenant.rests_until.is_some_and(|until| now < until) || !host.works_for(name) {
                    continue;
                }
                // What fails for one tenant does not delay the others, and ends no loop.
                match self.look(host, name, tenant, &mut report).await {
                    Ok(()) => (tenant.backoff, tenant.rests_until) = (Backoff::default(), None),
                    Err(error) => {
                        report.failed += 1;
                        tracing::warn!(tenant = name, %error, "the memories of a tenant could not be looked after; trying again");
                        tenant.rests_until = Some(now + tenant.backoff.next(host));
                    }
                }
            }
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(Box::new(report)),
                () = tokio::time::sleep(jittered(host, self.poll)) => {}
            }
        }
    }
}

impl MemoryKeeper {
    async fn look(&self, host: &Host, name: &str, tenant: &mut Tenant, report: &mut KeeperReport) -> Result<(), MemoryError> {
        tenant.follow(host, name, self.kernel.is_some()).await?;
        if let Some(kernel) = &self.kernel {
            self.look_after_keys(host, kernel, name, tenant, report).await?;
            let now = host.ledger().now().await?;
            match kernel.embed_pending(&host.trusted().authorities, name, now, VECTORS).await {
                Ok(filled) => report.embedded += u64::try_from(filled.filled).unwrap_or(u64::MAX),
                // Nothing else waits for an embedder.
                Err(error) => tracing::debug!(tenant = name, %error, "some memories wait for their vectors"),
            }
        }
        let now = host.ledger().now().await?;
        let mut owners: Vec<_> = tenant.due.values().filter(|(at, _)| *at <= now).map(|(_, owner)| owner.clone()).collect();
        owners.sort_unstable();
        owners.dedup();
        for owner in owners {
            // A batch has a limit: what is left over is ended in the next look.
            report.expired += expire(host, name, &owner).await?;
        }
        if tenant.has_unsealed(self.epoch, now) {
            // Many hosts ask, and it is one request.
            let micros = i64::try_from(self.epoch.as_micros()).unwrap_or(i64::MAX).max(1);
            let slot = now.unix_micros() - now.unix_micros().rem_euclid(micros);
            let slot = Timestamp::from_unix_micros(slot).unwrap_or(now);
            let about = ids::derive("memory_epochs", &[name]);
            let request = Request::new(name, "system", about, json!({})).this(MEMORY_SEAL).who("host").slot(slot);
            let output = host.execute(request).await?.result?;
            if output.get("more").and_then(serde_json::Value::as_bool) == Some(true) {
                // A batch has a limit: the rest is sealed now, not tomorrow.
                close_epoch(host, name).await?;
            }
            report.epochs += 1;
        }
        Ok(())
    }

    /// Looks for keys without a text, and for texts without a key.
    async fn look_after_keys(
        &self,
        host: &Host,
        kernel: &MemoryKernel,
        name: &str,
        tenant: &mut Tenant,
        report: &mut KeeperReport,
    ) -> Result<(), MemoryError> {
        let reaped = reap(host.ledger().as_ref(), kernel.vault(), name, self.grace, tenant.reaped).await?;
        (tenant.reaped, report.reaped) = (reaped.reached, report.reaped + reaped.dropped);
        let ids: Vec<_> = tenant.changed.iter().take(LOOKED_AT).copied().collect();
        let (ledger, trusted) = (host.ledger().as_ref(), host.trusted());
        let rows = unreadable_of(ledger, &trusted.authorities, kernel.vault(), name, ids.iter().copied()).await?;
        let owners: BTreeSet<_> = rows.iter().map(|row| row.owner_id.clone()).collect();
        let (lost, mut mended) = (u64::try_from(rows.len()).unwrap_or(u64::MAX), 0);
        for owner in owners {
            mended += mend(host, name, &owner).await?;
        }
        if lost > mended {
            let first = rows.first().map(|row| row.id.to_string()).unwrap_or_default();
            tracing::error!(
                tenant = name,
                memories = lost - mended,
                first,
                "memories have no key, and nobody has forgotten them: restore the store of keys"
            );
            metrics::counter!("logline_memory_unreadable_total").increment(lost - mended);
        }
        (report.mended, report.unreadable) = (report.mended + mended, report.unreadable + lost.saturating_sub(mended));
        ids.iter().for_each(|id| {
            tenant.changed.remove(id);
        });
        Ok(())
    }
}

impl Tenant {
    /// Whether a receipt waits for an epoch that may end now: it was given out before the last turn of the clock by
    /// [`MemoryKeeper::epoch`], or its key is deleted by now.
    fn has_unsealed(&self, epoch: Duration, now: Timestamp) -> bool {
        self.unsealed.values().any(|waits| match waits {
            Unsealed::Since(at) => at.saturating_add(epoch) <= now,
            Unsealed::Until(at) => *at <= now,
        })
    }

    /// Reads which memories have an end, and which receipts wait for one.
    async fn follow(&mut self, host: &Host, name: &str, keeps_keys: bool) -> Result<(), LedgerError> {
        let Self { memories, receipts, due, unsealed, changed, .. } = self;
        follow(host, name, MEMORY, memories, |row| {
            if keeps_keys && row.status.as_deref().is_some_and(|status| status.parse().is_ok_and(Status::is_found)) {
                changed.insert(row.id);
            }
            match ttl_at(&row) {
                Some(at) => due.insert(row.id, (at, row.owner_id.clone())),
                None => due.remove(&row.id),
            };
        })
        .await?;
        follow(host, name, RECEIPT, receipts, |row| {
            match Receipt::of(&row).map(|receipt| receipt.state) {
                Some(ReceiptState::Shredded) => unsealed.insert(row.id, Unsealed::Since(row.at)),
                Some(ReceiptState::Sealing(at)) => unsealed.insert(row.id, Unsealed::Until(at)),
                Some(ReceiptState::Sealed) | None => unsealed.remove(&row.id),
            };
        })
        .await
    }
}

/// Reads the versions of a type that were appended after `place`. A row that does not count changes nothing.
async fn follow(
    host: &Host,
    name: &str,
    entity_type: &str,
    place: &mut Option<Cursor>,
    mut take: impl FnMut(VerifiedSpan),
) -> Result<(), LedgerError> {
    let (reader, trusted) = (Reader::new(host.ledger().as_ref(), Scope::runtime(name)), host.trusted());
    let query = Query::new().tenant(name).entity_type(entity_type).versions(Versions::All);
    let (mut rows, mut verifier) = (Rows::after(&reader, query, place.take()), Verifier::new());
    let read = loop {
        match rows.next().await {
            Ok(Some(row)) => accepted(&trusted.authorities, &mut verifier, row).map_or((), &mut take),
            end => break end.map(drop),
        }
    };
    *place = rows.reached();
    read
}
