//! A watch that scans from a cursor and then waits for a signal. It is correct for every backend in which the position of a row
//! is final as soon as the row is visible.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;

use crate::ledger::scope::Scope;
use crate::ledger::{Cursor, Ledger, LedgerError, Order, Query, Row, Signal, Versions, Watch, WatchFrom, Watched};

/// Rows in one page.
const PAGE: usize = 256;

/// Follows `ledger`. The ledger must notify `signal` after every append, when its rows are visible to readers.
///
/// # Errors
/// [`LedgerError::InvalidCursor`] if `from` has an invalid cursor. Errors of the scan that finds the starting position.
pub async fn tail<L: Ledger>(ledger: L, scope: Scope, from: WatchFrom, signal: Arc<Signal>) -> Result<Watch, LedgerError> {
    let after = match from {
        WatchFrom::Beginning => None,
        WatchFrom::After(cursor) => {
            // Refuse an invalid cursor here, not later in the stream.
            ledger.scan(&scope, &Query::timeline().limit(1), Some(&cursor)).await?;
            Some(cursor)
        }
        WatchFrom::Now => end(&ledger).await?,
    };
    let state = Tail { ledger, scope, after, signal, buffer: VecDeque::new(), end: None };
    Ok(Box::pin(stream::unfold(state, |mut tail| async move { Some((tail.next().await, tail)) })))
}

/// The position of the last row of all tenants. It is read as the operator, but only the position is used, not the row.
async fn end<L: Ledger>(ledger: &L) -> Result<Option<Cursor>, LedgerError> {
    let newest = Query::new().versions(Versions::All).order(Order::Newest).limit(1);
    let page = ledger.scan(&Scope::Operator, &newest, None).await?;
    Ok(page.rows.into_iter().next().map(|row| row.cursor))
}

struct Tail<L> {
    ledger: L,
    scope: Scope,
    after: Option<Cursor>,
    signal: Arc<Signal>,
    buffer: VecDeque<Row>,
    /// The end of the ledger. Set if the page in `buffer` was the last one.
    end: Option<End>,
}

/// The end of the ledger, as the last page found it.
struct End {
    /// The generation of the signal before the page was read, so that an append during the read is not missed.
    seen: u64,
    reached: Option<Cursor>,
}

impl<L: Ledger> Tail<L> {
    async fn next(&mut self) -> Result<Watched, LedgerError> {
        loop {
            if let Some(Row { cursor, span }) = self.buffer.pop_front() {
                self.after = Some(cursor.clone());
                return Ok(Watched { span: span?, cursor });
            }
            if let Some(end) = self.end.take() {
                // Continue after the rows that this scope may not see, so that the next scan does not read them again.
                self.after = end.reached.or(self.after.take());
                self.signal.changed(end.seen).await;
            }
            let seen = self.signal.seen();
            let page = self.ledger.scan(&self.scope, &Query::timeline().limit(PAGE), self.after.as_ref()).await?;
            self.end = page.next.is_none().then_some(End { seen, reached: page.reached });
            self.buffer.extend(page.rows);
        }
    }
}
