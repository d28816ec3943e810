//! Active spans: schedules and policies, which take effect without a request.

use crate::span::Span;

/// The largest number of items that [`WorkQueue::active`](crate::ledger::WorkQueue::active) returns.
pub const MAX_ACTIVE: usize = 1000;

/// The kind of an active span. It decides which loop of a host acts on the span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ActiveKind {
    /// A `function` with status `scheduled`.
    Schedule,
    /// A `policy` with status `active`.
    Policy,
}

impl ActiveKind {
    /// The name of the kind in the tables of backends: `schedule` or `policy`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Policy => "policy",
        }
    }
}

/// Whether a span belongs on the list of active spans, as its last version says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Spans of its type are never active.
    Never,
    /// The span is not active. An earlier version may have been, so backends remove it from the list.
    Inactive,
    /// The span is active, as this kind.
    Active(ActiveKind),
}

impl Activity {
    /// The activity of the span whose last version is `span`. A tombstone is never active.
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
