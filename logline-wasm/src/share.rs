//! Who may run at the same time: every call waits for its tenant's share and for a place in the pool.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use logline_core::sandbox::{Job, Share};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Memory is counted in pages of WebAssembly.
const PAGE: u64 = 64 << 10;

/// Tenants that are remembered while none of their calls is under way.
const MAX_IDLE: usize = 1024;

/// A call's right to run; it ends when this is dropped.
pub(crate) struct Place {
    _permits: [OwnedSemaphorePermit; 3],
}

pub(crate) struct Shares {
    pool: Arc<Semaphore>,
    tenants: Mutex<HashMap<String, Tenant>>,
}

/// The calls of one tenant.
#[derive(Clone)]
pub(crate) struct Tenant {
    share: Share,
    calls: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    max_pages: u32,
    /// Compiling is one at a time.
    pub(crate) compiling: Arc<Semaphore>,
}

impl Tenant {
    fn new(share: Share) -> Self {
        let calls = (share.calls.max(1) as usize).min(Semaphore::MAX_PERMITS);
        let max_pages = u32::try_from((share.memory_bytes / PAGE).max(1)).unwrap_or(u32::MAX);
        Self {
            share,
            calls: Arc::new(Semaphore::new(calls)),
            pages: Arc::new(Semaphore::new((max_pages as usize).min(Semaphore::MAX_PERMITS))),
            max_pages,
            compiling: Arc::new(Semaphore::new(1)),
        }
    }

    fn is_idle(&self) -> bool {
        // Every call that waits or runs holds one of these.
        [&self.calls, &self.pages, &self.compiling].into_iter().all(|semaphore| Arc::strong_count(semaphore) == 1)
    }
}

impl Shares {
    pub(crate) fn new(calls: u32) -> Self {
        Self { pool: Arc::new(Semaphore::new(calls as usize)), tenants: Mutex::default() }
    }

    /// The tenant of a job. Where its share is another than before, calls that are under way are counted apart from new ones.
    pub(crate) fn tenant(&self, job: &Job<'_>) -> Tenant {
        let mut tenants = self.tenants.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(tenant) = tenants.get(job.tenant).filter(|tenant| tenant.share == job.share) {
            return tenant.clone();
        }
        if tenants.len() >= MAX_IDLE {
            tenants.retain(|_, tenant| !tenant.is_idle());
        }
        let tenant = Tenant::new(job.share);
        tenants.insert(job.tenant.to_owned(), tenant.clone());
        tenant
    }

    /// Waits for a place.
    pub(crate) async fn place(&self, tenant: &Tenant, memory_bytes: u64) -> Result<Place, AcquireError> {
        let pages = u32::try_from(memory_bytes.div_ceil(PAGE)).unwrap_or(u32::MAX).clamp(1, tenant.max_pages);
        let call = Arc::clone(&tenant.calls).acquire_owned().await?;
        let pages = Arc::clone(&tenant.pages).acquire_many_owned(pages).await?;
        let slot = Arc::clone(&self.pool).acquire_owned().await?;
        Ok(Place { _permits: [call, pages, slot] })
    }
}
