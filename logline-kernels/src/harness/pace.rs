//! How long loops wait. Pauses are random, so that hosts do not poll at the same moment, and grow while something fails.

use std::time::Duration;

use logline_core::ledger::{LedgerError, Retry};
use logline_core::{BootError, Host, HostError, Timestamp};

/// Pauses after failures. The first is 100 ms, each is twice as long as the one before, and the longest is 10 s.
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
    /// Returns the pause after a failure, and doubles the next one. The pause is [`jittered`].
    #[must_use]
    pub fn next(&mut self, host: &Host) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        jittered(host, pause)
    }
}

/// Returns `duration` with up to a quarter added or removed at random, so that hosts that were started together do not poll
/// together. The randomness comes from the host's ids, so that a simulation can repeat it.
#[must_use]
pub fn jittered(host: &Host, duration: Duration) -> Duration {
    let chance = host.ids().next_id(Timestamp::EPOCH).as_u128() % 1000;
    #[allow(clippy::cast_precision_loss, reason = "below 1000")]
    duration.mul_f64(0.75 + chance as f64 / 2000.0)
}

/// Whether an error concerns the ledger or the host as a whole, and not the item that a loop was working on.
#[must_use]
pub fn is_general(error: &HostError) -> bool {
    match error {
        HostError::Boot(_) | HostError::Trust(_) => true,
        error => error.ledger_error().is_some_and(|error| error.retry() == Retry::Later || is_over(error)),
    }
}

/// Whether the same operation may succeed later.
#[must_use]
pub fn may_pass(error: &HostError) -> bool {
    match error {
        // During a rolling upgrade the ledger has a kernel that is newer than this host's code.
        HostError::Boot(BootError::NotRegistered { .. }) => true,
        // A claim boots kernels and reads the manifest again if they have changed.
        HostError::Boot(_) | HostError::Trust(_) => error.retry() == Retry::Later,
        // These concern one request, not the host.
        HostError::Admit(_) | HostError::Kernel(_) | HostError::Ledger(_) => !error.ledger_error().is_some_and(is_over),
        _ => false,
    }
}

/// Whether the ledger no longer accepts writes.
fn is_over(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Closed | LedgerError::ReadOnly { .. })
}

#[cfg(test)]
mod tests {
    use logline_core::trust::TrustError;
    use logline_core::{AdmitError, ids};

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
