//! A loop of a host: what works without being asked, for as long as the host runs.

use std::any::Any;
use std::fmt;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, Shared};
use uuid::Uuid;

use crate::host::{Host, HostError};

/// Done when the host is to shut down. Clones are the same signal.
pub type Shutdown<'a> = Shared<BoxFuture<'a, ()>>;

/// A loop that a function span can name: the span allows it to run, and shows an auditor that it may.
///
/// # Contract
/// `run` boots the loop's own span first ([`Host::boot`]), works until `shutdown` is done, and then ends what it has begun, or gives it
/// back. Failures that may pass are waited out within it. It ends with an error only where the host may not run it at all, or where the
/// ledger refuses for a reason that does not pass; nothing that a tenant has written is such a reason.
#[async_trait]
pub trait Service: Send + Sync {
    /// The id of its function span in tenant `system`.
    fn id(&self) -> Uuid;

    /// The name in the `code` of its function span, before the `@`.
    fn name(&self) -> &'static str;

    /// The version in the `code` of its function span, after the `@`.
    fn version(&self) -> u32;

    /// Works until `shutdown` is done, and says what it did.
    ///
    /// # Errors
    /// Where it cannot go on.
    async fn run(&self, host: &Host, shutdown: Shutdown<'_>) -> Result<Box<dyn ServiceReport>, HostError>;
}

/// What a loop did.
pub trait ServiceReport: Any + fmt::Debug + Send + Sync {
    /// Its counts by name, for logs and tools.
    fn counts(&self) -> Vec<(&'static str, u64)>;
}
