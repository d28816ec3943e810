//! What is inside the cursors of backends that number their rows.

use crate::ledger::{Cursor, LedgerError, Order};

/// A decoded cursor of a backend whose rows have ascending numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// After (or, newest first, before) the row of this number.
    Append(i64),
    /// After this row of chain order. The columns are as stored, so that a scan can pass a damaged row.
    Chain {
        /// `tenant_id`.
        tenant_id: String,
        /// `id`.
        id: String,
        /// `seq`.
        seq: i64,
        /// The row's number, should a damaged store hold one key twice.
        number: i64,
    },
}

impl Position {
    /// Its cursor.
    #[must_use]
    pub fn to_cursor(&self) -> Cursor {
        Cursor::from_text(match self {
            Self::Append(number) => format!("a:{number}"),
            Self::Chain { tenant_id, id, seq, number } => format!("c:{number}:{seq}:{}:{id}{tenant_id}", id.len()),
        })
    }

    /// Reads a cursor that was given for `order`.
    ///
    /// # Errors
    /// [`LedgerError::InvalidCursor`] for one that was not.
    pub fn of(cursor: &Cursor, order: Order) -> Result<Self, LedgerError> {
        let position = match order {
            Order::Append | Order::Newest => cursor.as_str().strip_prefix("a:").and_then(|n| n.parse().ok()).map(Self::Append),
            Order::Chain => Self::chain(cursor.as_str()),
        };
        position.ok_or_else(|| LedgerError::InvalidCursor { cursor: cursor.as_str().chars().take(120).collect() })
    }

    fn chain(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("c:")?.splitn(4, ':');
        let number = parts.next()?.parse().ok()?;
        let seq = parts.next()?.parse().ok()?;
        let id_len = parts.next()?.parse().ok()?;
        let (id, tenant_id) = parts.next()?.split_at_checked(id_len)?;
        Some(Self::Chain { tenant_id: tenant_id.to_owned(), id: id.to_owned(), seq, number })
    }
}
