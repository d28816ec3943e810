//! Which tenants have no log, and whether one may be begun for them.

use crate::checkpoint::Checkpoint;
use crate::integrator::{IntegrateError, LogSite, last_signed};
use crate::store::StoreError;

/// The folder of all logs, which is the first part of each origin.
const LOGS: &str = "log.invalid";

/// The most logs that an error names.
const MAX_NAMED: usize = 10;

/// Which of some tenants have no last signed checkpoint. In stores that are in use no log is begun for them: a disk may not be mounted, or a
/// record is lost, and a second log would be begun beside the first one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Missing {
    /// The tenants.
    pub tenants: Vec<String>,
    /// Whether there is any log, or any last signed checkpoint.
    pub is_in_use: bool,
    /// Logs of none of the tenants that were asked about.
    pub unclaimed: Vec<String>,
}

impl LogSite {
    /// Looks which of these tenants have no last signed checkpoint. Ask once for all tenants that may be begun together.
    ///
    /// # Errors
    /// If a store fails.
    pub async fn missing<T: AsRef<str>>(&self, tenants: impl IntoIterator<Item = T>) -> Result<Missing, IntegrateError> {
        // Looked at before the locks: a log that another process begins meanwhile then has its lock.
        let logs = self.tiles.list(LOGS).await?;
        let is_in_use = !logs.is_empty() || !self.locks.is_empty().await?;
        let (mut missing, mut claimed) = (Vec::new(), Vec::new());
        for tenant in tenants {
            match last_signed(self.locks.as_ref(), tenant.as_ref()).await {
                Ok(None) => missing.push(tenant.as_ref().to_owned()),
                Ok(Some(note)) => claimed.extend(Checkpoint::of(&note).map(|checkpoint| checkpoint.origin.to_string())),
                Err(IntegrateError::Store(error @ StoreError::Unavailable { .. })) => return Err(error.into()),
                // It is there. What is wrong with it is said by the step that needs it.
                Err(_) => {}
            }
        }
        let unclaimed = logs.iter().map(|name| format!("{LOGS}/{name}")).filter(|origin| !claimed.contains(origin));
        Ok(Missing { tenants: missing, is_in_use, unclaimed: unclaimed.take(MAX_NAMED).collect() })
    }
}

impl Missing {
    /// Refuses a tenant for which no log may be begun.
    ///
    /// # Errors
    /// [`IntegrateError::Missing`].
    pub fn refuse(&self, tenant: &str) -> Result<(), IntegrateError> {
        if self.is_in_use && self.tenants.iter().any(|missing| missing == tenant) {
            return Err(IntegrateError::Missing { tenant: tenant.to_owned(), unclaimed: self.unclaimed.clone() });
        }
        Ok(())
    }
}
