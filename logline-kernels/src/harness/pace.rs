//! How loops wait: with chance, so that hosts do not move in step, and longer the longer something fails.

use std::time::Duration;

use logline_core::ledger::{LedgerError, Retry};
use logline_core::{Host, HostError, Timestamp};

/// Pauses between failures, each twice as long as the one before.
#[derive(Debug, Clone, Copy)]
pub struct Backoff(Duration);

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// The pause after one more failure.
    #[must_use]
    pub fn next(&mut self, host: &Host) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        jittered(host, pause)
    }
}

/// `duration`, a quarter more or less: hosts that were started together do not stay together. The chance is the host's, so that a
/// simulation can repeat it.
#[must_use]
pub fn jittered(host: &Host, duration: Duration) -> Duration {
    let chance = host.ids().next_id(Timestamp::EPOCH).as_u128() % 1000;
    #[allow(clippy::cast_precision_loss, reason = "below 1000")]
    duration.mul_f64(0.75 + chance as f64 / 2000.0)
}

/// Whether an error is about the ledger or the host as a whole, not about what a loop was doing.
#[must_use]
pub fn is_general(error: &HostError) -> bool {
    match error {
        HostError::Boot(_) | HostError::Trust(_) => true,
        error => error.ledger_error().is_some_and(|error| error.retry() == Retry::Later || is_over(error)),
    }
}

/// Whether the same may succeed later.
#[must_use]
pub fn may_pass(error: &HostError) -> bool {
    match error {
        // A claim boots kernels and reads the manifest again where either has changed.
        HostError::Boot(_) | HostError::Trust(_) => error.retry() == Retry::Later,
        // Of one request, not of the host.
        HostError::Admit(_) | HostError::Kernel(_) | HostError::Ledger(_) => !error.ledger_error().is_some_and(is_over),
        _ => false,
    }
}

/// Whether the ledger takes nothing any more.
fn is_over(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Closed | LedgerError::ReadOnly { .. })
}

#[cfg(test)]
mod tests {
    use logline_core::trust::TrustError;
    use logline_core::{AdmitError, BootError, ids};

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
