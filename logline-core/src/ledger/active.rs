//! What takes effect by being active, without a request: schedules and policies.

use crate::span::Span;

/// Items that [`WorkQueue::active`](crate::ledger::WorkQueue::active) returns, at most.
pub const MAX_ACTIVE: usize = 1000;

/// Why a host attends to a span that nobody has asked it about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ActiveKind {
    /// A `function` with status `scheduled`.
    Schedule,
    /// A `policy` with status `active`.
    Policy,
}

impl ActiveKind {
    /// Its name in the tables of backends.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Policy => "policy",
        }
    }
}

/// What the last version of a span means to the list of active spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Spans of its type are never active.
    Never,
    /// It is not active now; an earlier version may have been.
    Inactive,
    /// It is active.
    Active(ActiveKind),
}

impl Activity {
    /// The activity of a last version.
    #[must_use]
    pub fn of(span: &Span) -> Self {
        let (kind, status) = match span.entity_type.as_str() {
            "function" => (ActiveKind::Schedule, "scheduled"),
            "policy" => (ActiveKind::Policy, "active"),
            _ => return Self::Never,
        };
        match !span.is_deleted && span.status.as_deref() == Some(status) {
            true => Self::Active(kind),
            false => Self::Inactive,
        }
    }
}
