//! Keeping the lease of an attempt that waits for something else than its code.

use std::time::Duration;

use logline_core::contract::{Context, KernelError};
use logline_core::ledger::Retry;

/// How often the lease of an attempt is extended while it waits.
const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// Waits for `work`, and extends the lease of the attempt meanwhile: waiting may take longer than a lease.
///
/// # Errors
/// Those of `work`; [`KernelError::LostClaim`] if another attempt has begun.
pub async fn holding<T>(context: &Context<'_>, work: impl Future<Output = Result<T, KernelError>>) -> Result<T, KernelError> {
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(EXTEND_EVERY, &mut work).await {
            Ok(done) => return done,
            Err(_) => match context.outside.extend().await {
                Ok(true) => {}
                Ok(false) => return Err(KernelError::LostClaim),
                // The work goes on: it is paid for, and the lease lasts for a while yet.
                Err(error) if error.retry() == Retry::Later => tracing::warn!(%error, "the lease could not be extended"),
                Err(error) => return Err(error.into()),
            },
        }
    }
}
