//! What takes effect by standing in the ledger, without a request: schedules and policies.

use crate::span::Span;

/// Items that [`WorkQueue::standing`](crate::ledger::WorkQueue::standing) returns, at most.
pub const MAX_STANDING: usize = 1000;

/// Why a host attends to a span that nobody has asked it about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// A `function` with status `scheduled`.
    Schedule,
    /// A `policy` with status `active`.
    Policy,
}

impl Standing {
    /// Its name in the tables of backends.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Policy => "policy",
        }
    }

    /// What a last version stands for. `None`: hosts need not know of its type. `Some(None)`: they could have, and need not now.
    #[must_use]
    #[allow(clippy::option_option, reason = "two questions: whether the type matters, and whether this version does")]
    pub fn of(span: &Span) -> Option<Option<Self>> {
        let (kind, status) = match span.entity_type.as_str() {
            "function" => (Self::Schedule, "scheduled"),
            "policy" => (Self::Policy, "active"),
            _ => return None,
        };
        Some((!span.is_deleted && span.status.as_deref() == Some(status)).then_some(kind))
    }
}
