//! A loop of a host: work that the host does without being asked, as long as it runs.

use std::any::Any;
use std::fmt;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, Shared};
use uuid::Uuid;

use crate::host::{Host, HostError};

/// The signal to shut down: a future that completes when the host is to stop. All clones share one signal.
pub type Shutdown<'a> = Shared<BoxFuture<'a, ()>>;

/// A loop of a host. Its function span allows it to run, and shows an auditor that it may.
///
/// # Contract
/// `run` first boots the loop's own span ([`Host::boot`]) and then works until `shutdown` completes. After that it finishes
/// what it has begun, or gives it back. It retries after temporary failures. It returns an error only if the host may not run
/// it at all, or if the ledger refuses permanently. Nothing that a tenant has written may make it return an error.
#[async_trait]
pub trait Service: Send + Sync {
    /// The id of its function span in tenant `system`.
    fn id(&self) -> Uuid;

    /// The name in the `code` of its function span, before the `@`.
    fn name(&self) -> &'static str;

    /// The version in the `code` of its function span, after the `@`.
    fn version(&self) -> u32;

    /// Works until `shutdown` completes, and reports what it did.
    ///
    /// # Errors
    /// If it cannot go on.
    async fn run(&self, host: &Host, shutdown: Shutdown<'_>) -> Result<Box<dyn ServiceReport>, HostError>;
}

/// The report of what a loop did.
pub trait ServiceReport: Any + fmt::Debug + Send + Sync {
    /// Its counts by name, for logs and tools.
    fn counts(&self) -> Vec<(&'static str, u64)>;
}
