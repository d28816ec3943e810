//! Following a ledger by scanning from a cursor and waiting for a signal: the watch of every backend whose append order is
//! final as soon as a row is visible.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;

use crate::ledger::scope::Scope;
use crate::ledger::{Cursor, Ledger, LedgerError, Order, Query, Row, Signal, Versions, Watch, WatchFrom, Watched};

/// Rows fetched at a time.
const PAGE: usize = 256;

/// Follows `ledger`, which notifies `signal` after every append that others can see.
///
/// # Errors
/// Where the starting point cannot be found.
pub async fn tail<L: Ledger>(ledger: L, scope: Scope, from: WatchFrom, signal: Arc<Signal>) -> Result<Watch, LedgerError> {
    let after = match from {
        WatchFrom::Beginning => None,
        WatchFrom::After(cursor) => {
            // A bad cursor is refused here, not in the middle of the stream.
            ledger.scan(&scope, &Query::timeline().limit(1), Some(&cursor)).await?;
            Some(cursor)
        }
        WatchFrom::Now => end(&ledger).await?,
    };
    let state = Tail { ledger, scope, after, signal, buffer: VecDeque::new(), end: None };
    Ok(Box::pin(stream::unfold(state, |mut tail| async move { Some((tail.next().await, tail)) })))
}

/// The position of the last row, whoever may see it: only the position is used, never the row.
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
    /// What comes after the buffer, once the end has been seen.
    end: Option<End>,
}

/// The end of the ledger as a page found it.
struct End {
    /// The generation of the signal before that page was read.
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
                // Rows of others are passed over once, not at every wake.
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
