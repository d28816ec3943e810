//! Limits how many calls run at once. Each call waits for permits from its tenant's share, and for a permit from the pool.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use logline_core::contract::Job;
use logline_core::trust::Share;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Memory is counted in pages of WebAssembly, which have this many bytes.
const PAGE: u64 = 64 << 10;

/// If this many tenants are remembered, those without a running or waiting call are forgotten before another is added.
const MAX_IDLE: usize = 1024;

/// A call may run while it holds this. Dropping it gives back the call's permits.
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

/// Permits whose number may change while some of them are taken.
#[derive(Clone)]
struct Permits {
    semaphore: Arc<Semaphore>,
    state: Arc<Mutex<Number>>,
}

struct Number {
    /// How many permits there should be.
    wanted: usize,
    /// How many permits there are above `wanted`. They are removed when they are given back.
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

    /// Changes the number of permits. Free permits are removed at once, taken ones when they are given back.
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
    /// One permit: a tenant compiles one module at a time.
    pub(crate) compiling: Arc<Semaphore>,
}

impl Tenant {
    fn new(share: Share) -> Self {
        let (calls, pages) = Self::numbers(share);
        Self { calls: Permits::new(calls), pages: Permits::new(pages), compiling: Arc::new(Semaphore::new(1)) }
    }

    /// The numbers of calls and of memory pages in a share, each at least 1.
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
        // Every call that waits or runs holds a reference to one of these semaphores.
        [&self.calls.semaphore, &self.pages.semaphore, &self.compiling]
            .into_iter()
            .all(|semaphore| Arc::strong_count(semaphore) == 1)
    }
}

impl Shares {
    pub(crate) fn new(calls: u32) -> Self {
        Self { pool: Arc::new(Semaphore::new(calls as usize)), tenants: Mutex::default() }
    }

    /// The tenant of a job. From now on its share is that of the job.
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

    /// The semaphore that lets the tenant of a job compile one module at a time. It does not change the tenant's share.
    pub(crate) fn compiling(&self, job: &Job<'_>) -> Arc<Semaphore> {
        let tenants = self.tenants.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = tenants.get(job.tenant).map(|tenant| Arc::clone(&tenant.compiling));
        drop(tenants);
        known.unwrap_or_else(|| self.tenant(job).compiling)
    }

    /// Waits until the tenant's share and the pool have room for a call with `memory_bytes`, and takes the permits.
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
        assert_eq!(permits.semaphore.available_permits(), 0, "three permits are taken, two should exist");
        permits.release(three);
        assert_eq!(permits.semaphore.available_permits(), 2);
        // The number grows again before all excess permits are removed.
        let two = take(2);
        permits.resize(1);
        permits.resize(3);
        permits.release(two);
        assert_eq!(permits.semaphore.available_permits(), 3);
        // A caller that gives up while it waits drops its permits without `release`.
        drop(take(3));
        permits.resize(1);
        assert_eq!((permits.semaphore.available_permits(), permits.number()), (1, 1));
    }
}
