//! How loops wait: with chance, so that hosts do not move in step, and longer the longer something fails.

use std::time::Duration;

use logline_core::ledger::{LedgerError, Retry};
use logline_core::trust::TrustError;
use logline_core::{AdmitError, BootError, Host, HostError, Timestamp};

/// Pauses between failures, each twice as long as the one before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff(Duration);

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// The pause after one more failure.
    pub(crate) fn next(&mut self, host: &Host) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        jittered(host, pause)
    }
}

/// `duration`, a quarter more or less: hosts that were started together do not stay together. The chance is the host's, so that a
/// simulation can repeat it.
pub(crate) fn jittered(host: &Host, duration: Duration) -> Duration {
    let chance = host.ids().next_id(Timestamp::EPOCH).as_u128() % 1000;
    #[allow(clippy::cast_precision_loss, reason = "below 1000")]
    duration.mul_f64(0.75 + chance as f64 / 2000.0)
}

/// Whether an error is about the ledger or the host as a whole, not about what was being looked at.
pub(crate) fn is_general(error: &HostError) -> bool {
    match error {
        HostError::Ledger(error) | HostError::Admit(AdmitError::Ledger(error)) => {
            error.retry() == Retry::Later || matches!(error, LedgerError::Closed | LedgerError::ReadOnly { .. })
        }
        HostError::Boot(_) | HostError::Trust(_) => true,
        _ => false,
    }
}

/// Whether the same may succeed later.
pub(crate) fn may_pass(error: &HostError) -> bool {
    match error {
        HostError::Ledger(error) | HostError::Admit(AdmitError::Ledger(error)) => {
            !matches!(error, LedgerError::Closed | LedgerError::ReadOnly { .. })
        }
        // A claim boots kernels and looks at the manifest again where either has changed.
        HostError::Boot(BootError::Ledger(error)) | HostError::Trust(TrustError::Ledger(error)) => {
            error.retry() == Retry::Later
        }
        // Of one request, not of the host.
        HostError::Admit(_) | HostError::Kernel(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use logline_core::ids;

    use super::*;

    #[test]
    fn a_ledger_that_is_away_for_a_moment_does_not_end_a_loop_and_one_that_is_closed_does() {
        let away = || LedgerError::Unavailable { reason: "restarting".to_owned(), source: None };
        for error in [
            HostError::Ledger(away()),
            HostError::Admit(AdmitError::Ledger(away())),
            HostError::Boot(BootError::Ledger(away())),
            HostError::Trust(TrustError::Ledger(away())),
        ] {
            assert!(may_pass(&error), "{error:?}");
        }
        for error in [
            HostError::Ledger(LedgerError::Closed),
            HostError::Boot(BootError::Ledger(LedgerError::Closed)),
            HostError::Boot(BootError::NotAllowed { id: ids::RUN_CODE }),
            HostError::Trust(TrustError::Flooded),
        ] {
            assert!(!may_pass(&error), "{error:?}");
        }
    }
}
