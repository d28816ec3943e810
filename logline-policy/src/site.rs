//! What the parts of the policy agent share: its options, its report, and the host.

use std::time::Duration;

use logline_core::{Host, ServiceReport};
use uuid::Uuid;

/// The options of a [`PolicyAgent`](crate::PolicyAgent).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AgentOptions {
    /// The time between polls. Each interval is up to a quarter shorter or longer. The ledger's signal of new requests causes
    /// an earlier poll. Default 1 second.
    pub poll: Duration,
    /// The most spans in one page. Default 500.
    pub page: usize,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { poll: Duration::from_secs(1), page: 500 }
    }
}

impl AgentOptions {
    /// Sets the time between polls.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// Sets the most spans in one page, at least 1.
    #[must_use]
    pub fn page(mut self, spans: usize) -> Self {
        self.page = spans.max(1);
        self
    }
}

/// What a policy agent did in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AgentReport {
    /// Spans that policies were asked about. A span counts once for each policy that concerns it.
    pub spans: u64,
    /// Spans that it wrote for policies, without cursors.
    pub effects: u64,
    /// Policies that it could not run.
    pub refused: u64,
    /// Batches that were not written because another agent had already written for the same policy.
    pub conflicts: u64,
}

impl AgentReport {
    pub(super) fn add(&mut self, other: Self) {
        self.spans += other.spans;
        self.effects += other.effects;
        self.refused += other.refused;
        self.conflicts += other.conflicts;
    }
}

impl ServiceReport for AgentReport {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![("spans", self.spans), ("effects", self.effects), ("refused", self.refused), ("conflicts", self.conflicts)]
    }
}

/// What all looks of an agent share.
pub(super) struct Site {
    pub(super) host: Host,
    pub(super) options: AgentOptions,
    /// A new id for each run of the loop. Cursors name it.
    pub(super) id: Uuid,
}
