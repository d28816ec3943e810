//! Who may run at the same time: every call waits for its tenant's share and for a place in the pool.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use logline_core::contract::Job;
use logline_core::trust::Share;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Memory is counted in pages of WebAssembly.
const PAGE: u64 = 64 << 10;

/// Tenants that are remembered while none of their calls is under way.
const MAX_IDLE: usize = 1024;

/// A call's right to run; it ends when this is dropped.
pub(crate) struct Permit {
    tenant: Tenant,
    call: Option<OwnedSemaphorePermit>,
    pages: Option<OwnedSemaphorePermit>,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.tenant.calls.release(self.call.take());
        self.tenant.pages.release(self.pages.take());
    }
}

pub(crate) struct Shares {
    pool: Arc<Semaphore>,
    tenants: Mutex<HashMap<String, Tenant>>,
}

/// A number of permits that may change while some are taken.
#[derive(Clone)]
struct Permits {
    semaphore: Arc<Semaphore>,
    state: Arc<Mutex<Number>>,
}

struct Number {
    /// How many there are to be.
    wanted: usize,
    /// How many there are beyond: they are taken, and go when they are given back.
    excess: usize,
}

impl Permits {
    fn new(number: usize) -> Self {
        let state = Number { wanted: number, excess: 0 };
        Self { semaphore: Arc::new(Semaphore::new(number)), state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, Number> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Makes it so many: at once where they are free, otherwise as they are given back.
    fn resize(&self, number: usize) {
        let mut state = self.state();
        let (more, fewer) = (number.saturating_sub(state.wanted), state.wanted.saturating_sub(number));
        state.wanted = number;
        let kept = more.min(state.excess);
        self.semaphore.add_permits(more - kept);
        state.excess = state.excess - kept + fewer;
        state.excess -= self.semaphore.forget_permits(state.excess);
    }

    fn release(&self, permit: Option<OwnedSemaphorePermit>) {
        let Some(mut permit) = permit else { return };
        let mut state = self.state();
        let gone = state.excess.min(permit.num_permits());
        if let Some(gone) = permit.split(gone) {
            state.excess -= gone.num_permits();
            gone.forget();
        }
    }

    fn number(&self) -> usize {
        self.state().wanted
    }
}

/// The calls of one tenant.
#[derive(Clone)]
pub(crate) struct Tenant {
    calls: Permits,
    pages: Permits,
    /// Compiling is one at a time.
    pub(crate) compiling: Arc<Semaphore>,
}

impl Tenant {
    fn new(share: Share) -> Self {
        let (calls, pages) = Self::numbers(share);
        Self { calls: Permits::new(calls), pages: Permits::new(pages), compiling: Arc::new(Semaphore::new(1)) }
    }

    /// Calls, and pages of memory.
    fn numbers(share: Share) -> (usize, usize) {
        let within = |number: u64| usize::try_from(number.max(1)).unwrap_or(usize::MAX).min(u32::MAX as usize);
        (within(share.calls.into()).min(Semaphore::MAX_PERMITS), within(share.memory_bytes / PAGE).min(Semaphore::MAX_PERMITS))
    }

    fn resize(&self, share: Share) {
        let (calls, pages) = Self::numbers(share);
        self.calls.resize(calls);
        self.pages.resize(pages);
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
        if let Some(tenant) = tenants.get(job.tenant) {
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
    pub(crate) async fn permit(&self, tenant: &Tenant, memory_bytes: u64) -> Result<Permit, AcquireError> {
        let call = Arc::clone(&tenant.calls.semaphore).acquire_owned().await?;
        let most = u32::try_from(tenant.pages.number()).unwrap_or(u32::MAX);
        let pages = u32::try_from(memory_bytes.div_ceil(PAGE)).unwrap_or(u32::MAX).clamp(1, most);
        let pages = Arc::clone(&tenant.pages.semaphore).acquire_many_owned(pages).await?;
        let slot = Arc::clone(&self.pool).acquire_owned().await?;
        Ok(Permit { tenant: tenant.clone(), call: Some(call), pages: Some(pages), _slot: slot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_that_are_to_go_go_when_they_are_given_back() {
        let permits = Permits::new(4);
        let take = |n| Arc::clone(&permits.semaphore).try_acquire_many_owned(n).ok();
        let (one, three) = (take(1), take(3));
        permits.resize(2);
        permits.release(one);
        assert_eq!(permits.semaphore.available_permits(), 0, "three are taken, of two");
        permits.release(three);
        assert_eq!(permits.semaphore.available_permits(), 2);
        // Grown again before all had gone.
        let two = take(2);
        permits.resize(1);
        permits.resize(3);
        permits.release(two);
        assert_eq!(permits.semaphore.available_permits(), 3);
        // A caller that gave up while it waited has given back without a word.
        drop(take(3));
        permits.resize(1);
        assert_eq!((permits.semaphore.available_permits(), permits.number()), (1, 1));
    }
}
