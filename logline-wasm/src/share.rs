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

/// A number of permits that may change while some are taken.
#[derive(Clone)]
struct Permits {
    semaphore: Arc<Semaphore>,
    /// How many there are: those that were to go and are taken still count.
    number: usize,
}

impl Permits {
    fn new(number: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(number)), number }
    }

    /// Makes it so many, as far as those that are taken allow.
    fn resize(&mut self, number: usize) {
        if number >= self.number {
            self.semaphore.add_permits(number - self.number);
            self.number = number;
        } else {
            self.number -= self.semaphore.forget_permits(self.number - number);
        }
    }
}

/// The calls of one tenant.
#[derive(Clone)]
pub(crate) struct Tenant {
    calls: Permits,
    pages: Permits,
    max_pages: u32,
    /// Compiling is one at a time.
    pub(crate) compiling: Arc<Semaphore>,
}

impl Tenant {
    fn new(share: Share) -> Self {
        let (calls, max_pages) = Self::numbers(share);
        let (calls, pages) = (Permits::new(calls), Permits::new(max_pages as usize));
        Self { calls, pages, max_pages, compiling: Arc::new(Semaphore::new(1)) }
    }

    /// Calls, and pages of memory.
    fn numbers(share: Share) -> (usize, u32) {
        let calls = (share.calls.max(1) as usize).min(Semaphore::MAX_PERMITS);
        let pages = u32::try_from((share.memory_bytes / PAGE).max(1)).unwrap_or(u32::MAX);
        (calls, pages.min(Semaphore::MAX_PERMITS.try_into().unwrap_or(u32::MAX)))
    }

    fn resize(&mut self, share: Share) {
        let (calls, pages) = Self::numbers(share);
        self.calls.resize(calls);
        self.pages.resize(pages as usize);
        self.max_pages = pages;
    }

    fn is_idle(&self) -> bool {
        // Every call that waits or runs holds one of these.
        [&self.calls.semaphore, &self.pages.semaphore, &self.compiling]
            .into_iter()
            .all(|semaphore| Arc::strong_count(semaphore) == 1)
    }
}

impl Shares {
    pub(crate) fn new(calls: u32) -> Self {
        Self { pool: Arc::new(Semaphore::new(calls as usize)), tenants: Mutex::default() }
    }

    /// The tenant of a job, with the job's share from now on.
    pub(crate) fn tenant(&self, job: &Job<'_>) -> Tenant {
        let mut tenants = self.tenants.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(tenant) = tenants.get_mut(job.tenant) {
            tenant.resize(job.share);
            return tenant.clone();
        }
        if tenants.len() >= MAX_IDLE {
            tenants.retain(|_, tenant| !tenant.is_idle());
        }
        let tenant = Tenant::new(job.share);
        tenants.insert(job.tenant.to_owned(), tenant.clone());
        tenant
    }

    /// Whose turn it is to compile for a tenant.
    pub(crate) fn compiling(&self, job: &Job<'_>) -> Arc<Semaphore> {
        let tenants = self.tenants.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = tenants.get(job.tenant).map(|tenant| Arc::clone(&tenant.compiling));
        drop(tenants);
        known.unwrap_or_else(|| self.tenant(job).compiling)
    }

    /// Waits for a place.
    pub(crate) async fn place(&self, tenant: &Tenant, memory_bytes: u64) -> Result<Place, AcquireError> {
        let pages = u32::try_from(memory_bytes.div_ceil(PAGE)).unwrap_or(u32::MAX).clamp(1, tenant.max_pages);
        let call = Arc::clone(&tenant.calls.semaphore).acquire_owned().await?;
        let pages = Arc::clone(&tenant.pages.semaphore).acquire_many_owned(pages).await?;
        let slot = Arc::clone(&self.pool).acquire_owned().await?;
        Ok(Place { _permits: [call, pages, slot] })
    }
}
