//! The content of a cursor: a position in append order, which is (epoch, transaction, position).

use logline_core::ledger::{Cursor, LedgerError, Order, Position};

use crate::types::Xid;

/// A position in append order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AppendPosition {
    pub(crate) epoch: i32,
    pub(crate) xid: Xid,
    pub(crate) pos: i64,
    /// Append order was final below this transaction when the row was shown; `None` if the row itself was final. A reader that
    /// follows the ledger goes on from there, because rows that commit later may still come before this row.
    pub(crate) final_to: Option<Xid>,
}

impl AppendPosition {
    /// The position before every row of `xid`.
    pub(crate) fn before(epoch: i32, xid: Xid) -> Self {
        Self { epoch, xid: Xid(xid.0.saturating_sub(1)), pos: i64::MAX, final_to: None }
    }

    /// The position from which a reader in append order goes on.
    pub(crate) fn resume(self) -> Self {
        match self.final_to {
            Some(xid) => Self::before(self.epoch, xid),
            None => self,
        }
    }

    pub(crate) fn to_cursor(self) -> Cursor {
        let Self { epoch, xid, pos, final_to } = self;
        Cursor::from_text(match final_to {
            None => format!("p:{epoch}:{}:{pos}", xid.0),
            Some(final_to) => format!("p:{epoch}:{}:{pos}:{}", xid.0, final_to.0),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("p:")?.split(':');
        let epoch = parts.next()?.parse().ok()?;
        let xid = Xid(parts.next()?.parse().ok()?);
        let pos = parts.next()?.parse().ok()?;
        let final_to = parts.next().map(|n| n.parse().map(Xid)).transpose().ok()?;
        parts.next().is_none().then_some(Self { epoch, xid, pos, final_to })
    }
}

/// A decoded cursor.
pub(crate) enum After {
    Position(AppendPosition),
    Chain(Position),
}

impl After {
    /// Decodes a cursor that was given for `order`.
    pub(crate) fn of(cursor: &Cursor, order: Order) -> Result<Self, LedgerError> {
        if order == Order::Chain {
            return Position::of(cursor, order).map(Self::Chain);
        }
        of_cursor(cursor).map(Self::Position)
    }
}

pub(crate) fn of_cursor(cursor: &Cursor) -> Result<AppendPosition, LedgerError> {
    AppendPosition::parse(cursor.as_str())
        .ok_or_else(|| LedgerError::InvalidCursor { cursor: cursor.as_str().chars().take(120).collect() })
}
