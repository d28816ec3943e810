//! The contents of the cursors of backends that number their rows.

use crate::ledger::{Cursor, LedgerError, Order};

/// A decoded cursor of a backend whose rows have ascending numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// A position in append order: the scan continues after the row with this number, or before it if newest first.
    Append(i64),
    /// A position in chain order: the scan continues after this row. The columns are those that are stored, valid or not, so
    /// that a scan can go on after a damaged row.
    Chain {
        /// The column `tenant_id` of the row.
        tenant_id: String,
        /// The column `id` of the row.
        id: String,
        /// The column `seq` of the row.
        seq: i64,
        /// The number of the row. It decides the order if a damaged store holds the same key twice.
        number: i64,
    },
}

impl Position {
    /// Encodes the position as a cursor.
    #[must_use]
    pub fn to_cursor(&self) -> Cursor {
        Cursor::from_text(match self {
            Self::Append(number) => format!("a:{number}"),
            Self::Chain { tenant_id, id, seq, number } => format!("c:{number}:{seq}:{}:{id}{tenant_id}", id.len()),
        })
    }

    /// Decodes a cursor that belongs to a scan in `order`.
    ///
    /// # Errors
    /// [`LedgerError::InvalidCursor`] if the cursor is malformed or belongs to another order.
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
