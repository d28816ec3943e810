//! Translates queries into SQL. Row-level security limits what they see. This module adds the filters, and shapes the
//! statements so that the planner uses an index.

use std::cmp::Ordering;

use logline_core::ledger::{LedgerError, Narrow, Order, Page, Position, Query, Row, Versions};
use logline_core::{SYSTEM_TENANT, Scope};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, AssertSqlSafe, PgConnection, Row as _};
use uuid::Uuid;

use crate::error::from_sqlx;
use crate::identity::Link;
use crate::position::{self, After, AppendPosition};
use crate::row::{self, COLUMNS};
use crate::types::Xid;

/// A page ends with the row that reaches this many bytes. It always has at least one row if there is one.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// The bytes of a row's long columns.
const BYTES: &str = "ledger.bytes(input, output, error, content, metadata, code, description)";

/// The most rows that the first statement of a page looks at. Each later one may look at twice as many: the server must unpack a row
/// to weigh it, so rows are not weighed by the thousand before the first of them is known to be small.
const FIRST_CHUNK: usize = 128;

/// A query, and the scope that sends it.
pub(crate) struct Select<'a> {
    query: &'a Query,
    scope: &'a Scope,
    until: Option<AppendPosition>,
    /// Rows from here on only: the last row that a page of the newest rows may look at.
    since: Option<AppendPosition>,
    /// Append order is known to be final below this transaction of this epoch.
    known: (i32, Xid),
    link: Link,
}

/// The first epoch. A ledger has only this one until it is restored or promoted.
const FIRST_EPOCH: i32 = 1;

/// The greatest transaction id that the type can hold.
const LAST_XID: &str = "'18446744073709551615'::xid8";

/// Where a chunk begins.
///
/// One statement reads one epoch. For the index, a comparison with the whole of (epoch, transaction, position) would be the
/// same. But the planner estimates it by its first column, which almost always has the same value, and then prefers any other
/// plan.
enum Start {
    /// At the first row of an epoch, in the query's order. `None` is the current epoch.
    Epoch(Option<i32>),
    After(AppendPosition),
    Chain(Option<Position>),
}

impl From<After> for Start {
    fn from(after: After) -> Self {
        match after {
            After::Position(position) => Self::After(position),
            After::Chain(position) => Self::Chain(Some(position)),
        }
    }
}

/// The arguments of one statement, collected while its text is built.
struct Statement {
    arguments: PgArguments,
    bound: usize,
}

impl Statement {
    fn bind<'q, T>(&mut self, value: T) -> Result<String, LedgerError>
    where
        T: sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let unfit = |e: sqlx::error::BoxDynError| LedgerError::Refused { reason: format!("a value cannot be encoded: {e}") };
        self.arguments.add(value).map_err(unfit)?;
        self.bound += 1;
        Ok(format!("${}", self.bound))
    }
}

/// How far a page may look.
struct Bound {
    /// How many rows it looks at.
    count: usize,
    /// The last of them, if there may be more.
    last: Option<AppendPosition>,
    /// The epoch, and the transaction below which append order was final.
    horizon: (i32, Xid),
}

/// The rows of a page that one statement has read.
struct Chunk {
    rows: Vec<(Row, After)>,
    bytes: usize,
    /// Whether the statement returned more rows than were read.
    is_cut: bool,
    /// The epoch, and the transaction below which append order was final.
    horizon: (i32, Xid),
}

impl<'a> Select<'a> {
    pub(crate) fn new(scope: &'a Scope, query: &'a Query, known: (i32, Xid), link: Link) -> Result<Self, LedgerError> {
        let until = query.until.as_ref().map(position::of_cursor).transpose()?;
        Ok(Self { query, scope, until, since: None, known, link })
    }

    fn start(&self, after: Option<After>) -> Start {
        match (self.query.order, after) {
            (Order::Append, Some(After::Position(position))) => Start::After(position.resume()),
            (_, Some(after)) => after.into(),
            (Order::Append, None) => Start::Epoch(Some(FIRST_EPOCH)),
            (Order::Newest, None) => Start::Epoch(self.until.map(|until| until.epoch)),
            (_, None) => Start::Chain(None),
        }
    }

    /// The epoch in which the page goes on; `None` if there is no other.
    fn next_epoch(&self, start: &Start, current: i32) -> Option<i32> {
        let epoch = match start {
            Start::Chain(_) => return None,
            Start::Epoch(epoch) => epoch.unwrap_or(current),
            Start::After(position) => position.epoch,
        };
        // A cursor may name any epoch, so the next one is kept between the first and the current epoch.
        let last = self.until.map_or(current, |until| until.epoch.min(current));
        match self.query.order {
            Order::Append if epoch < last => Some(epoch.saturating_add(1).max(FIRST_EPOCH)),
            Order::Newest if epoch > self.since.map_or(FIRST_EPOCH, |since| since.epoch) => Some((epoch - 1).min(current)),
            _ => None,
        }
    }

    /// Finds the last row that the page may look at, and ends the page there: at that row, or where append order is final now.
    /// Rows that become final later are not counted, so the page must not return them.
    async fn bound(
        &mut self,
        connection: &mut PgConnection,
        after: Option<AppendPosition>,
        most: usize,
    ) -> Result<Bound, LedgerError> {
        const START: AppendPosition = AppendPosition { epoch: 0, xid: Xid(0), pos: 0, final_to: None };
        const END: AppendPosition = AppendPosition { epoch: i32::MAX, xid: Xid(u64::MAX), pos: i64::MAX, final_to: None };
        let query = self.query;
        let after = after.map_or(START, AppendPosition::resume);
        let until = self.until.unwrap_or(END);
        let narrowest = query.narrowest();
        let value = narrowest.map(|narrow| match narrow {
            Narrow::Parent(id) => id.to_string(),
            Narrow::Trace(text) | Narrow::Type(text) => text.to_owned(),
        });
        let sql = "SELECT epoch, xid::text, pos, visited, last_epoch, horizon::text
            FROM ledger.bound($1, $2, $3, $4, $5, $6, $7::xid8, $8, $9, $10::xid8, $11, $12)";
        let found = sqlx::query(sql)
            .persistent(self.link.keeps_statements())
            .bind(query.tenant.as_deref())
            .bind(narrowest.map_or("", Narrow::column))
            .bind(value)
            .bind(query.id)
            .bind(query.versions != Versions::All)
            .bind(after.epoch)
            .bind(after.xid)
            .bind(after.pos)
            .bind(until.epoch)
            .bind(until.xid)
            .bind(until.pos)
            .bind(i64::try_from(most).unwrap_or(i64::MAX));
        let Some(row) = found.fetch_optional(connection).await.map_err(from_sqlx)? else {
            return Ok(Bound { count: 0, last: None, horizon: (0, Xid(0)) });
        };
        let count = usize::try_from(row.try_get::<i64, _>(3).map_err(from_sqlx)?).unwrap_or(most);
        let horizon = (row.try_get(4).map_err(from_sqlx)?, row.try_get(5).map_err(from_sqlx)?);
        if count < most {
            let end = AppendPosition::before(horizon.0, horizon.1);
            let key = |position: AppendPosition| (position.epoch, position.xid, position.pos);
            self.until = Some(if key(end) < key(until) { end } else { until });
            return Ok(Bound { count, last: None, horizon });
        }
        let (epoch, xid) = (row.try_get(0).map_err(from_sqlx)?, row.try_get(1).map_err(from_sqlx)?);
        let last = AppendPosition { epoch, xid, pos: row.try_get(2).map_err(from_sqlx)?, final_to: None };
        self.until = Some(last);
        Ok(Bound { count, last: Some(last), horizon })
    }

    /// Reads a page of up to `size` rows. Also returns the epoch, and the transaction below which append order was final.
    pub(crate) async fn page(
        mut self,
        connection: &mut PgConnection,
        after: Option<After>,
        size: usize,
    ) -> Result<(Page, (i32, Xid)), LedgerError> {
        let Some(most) = self.query.visits() else { return self.rows(connection, after, size).await };
        let position = match &after {
            Some(After::Position(position)) => Some(*position),
            _ => None,
        };
        if self.query.order == Order::Newest {
            return self.newest(connection, position, size, most).await;
        }
        let Bound { count, last, horizon } = self.bound(connection, position, most).await?;
        // The horizon may go back between two statements: a transaction of another database that ends meanwhile counts as one of this
        // database. What was final before is still final, and a page that left it out would go on behind it.
        self.known = self.known.max(horizon);
        let (page, _) = self.rows(connection, after, size).await?;
        // The rows were read later, but only those before this horizon.
        let reached = match position {
            Some(after) if (after.epoch, after.xid) >= horizon => after,
            _ => AppendPosition::before(horizon.0, horizon.1),
        };
        let page = if page.next.is_none() { page.reached(reached.to_cursor()) } else { page };
        Ok((page.visited(count, last.map(AppendPosition::to_cursor)), horizon))
    }

    /// Reads a page of the newest rows that looks at `most` rows.
    async fn newest(
        mut self,
        connection: &mut PgConnection,
        before: Option<AppendPosition>,
        size: usize,
        most: usize,
    ) -> Result<(Page, (i32, Xid)), LedgerError> {
        let known = self.known;
        let (count, ends) = self.bound_back(connection, before, most).await?;
        let Some((top, last)) = ends else { return Ok((Page::new(Vec::new(), None).visited(0, None), known)) };
        (self.until, self.since) = (Some(top), Some(last));
        // Rows that were stored after the rows were counted may be among them, so the page has no more rows than were counted.
        let (page, horizon) = self.rows(connection, before.map(After::Position), size.min(count)).await?;
        Ok((page.visited(count, (count >= most).then(|| last.to_cursor())), horizon))
    }

    /// Finds how many rows a page of the newest rows looks at, and the first and the last of them.
    async fn bound_back(
        &self,
        connection: &mut PgConnection,
        before: Option<AppendPosition>,
        most: usize,
    ) -> Result<(usize, Option<(AppendPosition, AppendPosition)>), LedgerError> {
        const END: AppendPosition = AppendPosition { epoch: i32::MAX, xid: Xid(u64::MAX), pos: i64::MAX, final_to: None };
        let query = self.query;
        let (before, until) = (before.unwrap_or(END), self.until.unwrap_or(END));
        let narrowest = query.narrowest();
        let value = narrowest.map(|narrow| match narrow {
            Narrow::Parent(id) => id.to_string(),
            Narrow::Trace(text) | Narrow::Type(text) => text.to_owned(),
        });
        let sql = "SELECT visited, epoch, xid::text, pos, top_epoch, top_xid::text, top_pos
            FROM ledger.bound_back($1, $2, $3, $4, $5, $6, $7::xid8, $8, $9, $10::xid8, $11, $12)";
        let found = sqlx::query(sql)
            .persistent(self.link.keeps_statements())
            .bind(query.tenant.as_deref())
            .bind(narrowest.map_or("", Narrow::column))
            .bind(value)
            .bind(query.id)
            .bind(query.versions != Versions::All)
            .bind(before.epoch)
            .bind(before.xid)
            .bind(before.pos)
            .bind(until.epoch)
            .bind(until.xid)
            .bind(until.pos)
            .bind(i64::try_from(most).unwrap_or(i64::MAX));
        let Some(row) = found.fetch_optional(connection).await.map_err(from_sqlx)? else { return Ok((0, None)) };
        let count = usize::try_from(row.try_get::<i64, _>(0).map_err(from_sqlx)?).unwrap_or(most);
        if count == 0 {
            return Ok((0, None));
        }
        let position = |column: usize| {
            Ok::<_, LedgerError>(AppendPosition {
                epoch: row.try_get(column).map_err(from_sqlx)?,
                xid: row.try_get(column + 1).map_err(from_sqlx)?,
                pos: row.try_get(column + 2).map_err(from_sqlx)?,
                final_to: None,
            })
        };
        Ok((count, Some((position(4)?, position(1)?))))
    }

    async fn rows(
        &self,
        connection: &mut PgConnection,
        after: Option<After>,
        size: usize,
    ) -> Result<(Page, (i32, Xid)), LedgerError> {
        let mut start = self.start(after);
        let max_bytes = self.query.page_bytes(MAX_PAGE_BYTES);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let mut most = FIRST_CHUNK;
        loop {
            let wanted = if bytes < max_bytes { size.saturating_sub(rows.len()).min(most) } else { 0 };
            most *= 2;
            let chunk = self.chunk(connection, &start, wanted.saturating_add(1), max_bytes.saturating_sub(bytes)).await?;
            let more = chunk.rows.len() > wanted || chunk.is_cut;
            bytes += chunk.bytes;
            for (row, position) in chunk.rows.into_iter().take(wanted) {
                rows.push(row);
                start = position.into();
            }
            if more && !chunk.is_cut && rows.len() < size && bytes < max_bytes {
                continue;
            }
            if let Some(epoch) = self.next_epoch(&start, chunk.horizon.0).filter(|_| !more) {
                start = Start::Epoch(Some(epoch));
                continue;
            }
            let next = rows.last().map(|row: &Row| row.cursor.clone()).filter(|_| more);
            let page = Page::new(rows, next);
            let (epoch, xid) = chunk.horizon;
            let at_end = !more && self.query.order == Order::Append;
            // This replica may lag behind the one that was read before. A reader must never go back.
            let reached = match &start {
                Start::After(position)
                    if (position.epoch, position.xid, position.pos) > (epoch, Xid(xid.0.saturating_sub(1)), i64::MAX) =>
                {
                    *position
                }
                _ => AppendPosition::before(epoch, xid),
            };
            let page = if at_end { page.reached(reached.to_cursor()) } else { page };
            return Ok((page, chunk.horizon));
        }
    }

    /// Reads up to `limit` rows, until they have `max_bytes`.
    async fn chunk(
        &self,
        connection: &mut PgConnection,
        start: &Start,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Chunk, LedgerError> {
        let mut statement = Statement { arguments: PgArguments::default(), bound: 0 };
        let sql = self.sql(&mut statement, start, limit, max_bytes)?;
        let query = sqlx::query_with(AssertSqlSafe(sql), statement.arguments).persistent(self.link.keeps_statements());
        let found = query.fetch_all(connection).await.map_err(from_sqlx)?;
        let mut chunk = Chunk { rows: Vec::with_capacity(found.len()), bytes: 0, is_cut: false, horizon: (0, Xid(0)) };
        for row in &found {
            let in_all: Option<i64> = row.try_get(5).map_err(from_sqlx)?;
            // The server has left out rows because of their size.
            chunk.is_cut |= in_all.is_some_and(|in_all| usize::try_from(in_all).unwrap_or(0).min(limit) > found.len());
            if chunk.bytes >= max_bytes && !chunk.rows.is_empty() {
                chunk.is_cut = true;
                break;
            }
            chunk.horizon = (row.try_get(0).map_err(from_sqlx)?, row.try_get(1).map_err(from_sqlx)?);
            if row.try_get::<Option<i64>, _>(4).map_err(from_sqlx)?.is_some() {
                let (decoded, after, bytes) = self.decode(row, chunk.horizon)?;
                chunk.bytes += bytes;
                chunk.rows.push((decoded, after));
            }
        }
        Ok(chunk)
    }

    fn decode(&self, row: &PgRow, (current, horizon): (i32, Xid)) -> Result<(Row, After, usize), LedgerError> {
        let (epoch, xid) = (row.try_get(2).map_err(from_sqlx)?, row.try_get(3).map_err(from_sqlx)?);
        let pos = row.try_get(4).map_err(from_sqlx)?;
        let (key, span, bytes) = row::decode(row, 6)?;
        let is_final = epoch < current || xid < horizon;
        let position = AppendPosition { epoch, xid, pos, final_to: (!is_final).then_some(horizon) };
        Ok(match self.query.order {
            Order::Chain => {
                let id = key.id.to_string();
                let position = Position::Chain { tenant_id: key.tenant_id, id, seq: key.seq.into(), number: pos };
                (Row { cursor: position.to_cursor(), span }, After::Chain(position), bytes)
            }
            _ => (Row { cursor: position.to_cursor(), span }, After::Position(position), bytes),
        })
    }

    /// Columns: current epoch and horizon, then epoch, xid and pos of the row, then how many rows there are up to the limit of
    /// rows, then [`COLUMNS`]. The horizon is the transaction below which append order is final. If no row matches, there is one
    /// row with nulls after the horizon. The last row that is returned is the one that reaches `max_bytes`.
    fn sql(&self, statement: &mut Statement, start: &Start, limit: usize, max_bytes: usize) -> Result<String, LedgerError> {
        let (known_epoch, known) = (statement.bind(self.known.0)?, statement.bind(self.known.1)?);
        let bounds = self.bounds(statement, start)?;
        let filters = Filters::of(self.query, statement)?;
        let epoch = self.epoch_column();
        let order = match self.query.order {
            Order::Newest => format!("{epoch} DESC, xid DESC, pos DESC"),
            Order::Chain => "tenant_id, id, seq".to_owned(),
            _ => format!("{epoch}, xid, pos"),
        };
        let is_bounded = self.query.visits().is_some();
        let select = |tenant: &str, own: bool| {
            let (looks, rest) = filters.split(own, tenant);
            let (looks, rest) = (all_of(looks.iter().chain(&bounds)), all_of(rest));
            let columns = format!("epoch, xid, pos, {BYTES} AS bytes, {COLUMNS}");
            let table = filters.table(tenant);
            if is_bounded {
                // `OFFSET 0` keeps the planner from using the other conditions to choose an index, in which the page could look
                // at more rows than were counted.
                format!(
                    "(SELECT {columns} FROM (SELECT * FROM {table} l WHERE {looks} ORDER BY {order} OFFSET 0) r
                      WHERE {rest} LIMIT {limit})"
                )
            } else {
                format!("(SELECT {columns} FROM {table} r WHERE {looks} AND {rest} ORDER BY {order} LIMIT {limit})")
            }
        };
        let system = format!("'{SYSTEM_TENANT}'");
        let rows = match (self.scope.tenant(), &self.query.tenant) {
            (own, Some(named)) => select(&statement.bind(named.clone())?, own.is_none_or(|own| own == named)),
            (None, None) => select("", true),
            (Some(SYSTEM_TENANT), None) => select(&system, true),
            // One branch per tenant, so that each is read in the order of its index.
            (Some(own), None) => {
                let own = select(&statement.bind(own.to_owned())?, true);
                format!("{own} UNION ALL {}", select(&system, false))
            }
        };
        // A replica does not use the known horizon, because another replica may have replayed more. Transactions below the
        // horizon have ended before this statement's snapshot is taken, so it sees all that they wrote.
        Ok(format!(
            "WITH h AS MATERIALIZED (SELECT e.epoch AS epoch_now,
                CASE WHEN e.epoch = {known_epoch} AND NOT pg_is_in_recovery()
                  THEN greatest(ledger.horizon(), {known}::xid8) ELSE ledger.horizon() END AS horizon
                FROM ledger.epochs e ORDER BY e.epoch DESC LIMIT 1)
             SELECT h.epoch_now, h.horizon::text, found.epoch, found.xid::text, found.pos, found.in_all, {COLUMNS} FROM h
             LEFT JOIN LATERAL (SELECT * FROM (
               SELECT *, count(*) OVER () AS in_all,
                 sum(bytes) OVER (ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
               FROM ({rows}) u ORDER BY {order} LIMIT {limit}) w
             WHERE coalesce(before, 0) < {max_bytes}) found ON true"
        ))
    }

    /// `epoch + 0` keeps the planner from an index that has the order but not the id.
    fn epoch_column(&self) -> &'static str {
        if self.query.id.is_some() { "epoch + 0" } else { "epoch" }
    }

    /// The conditions that limit the rows to those of the page.
    fn bounds(&self, statement: &mut Statement, start: &Start) -> Result<Vec<String>, LedgerError> {
        let query = self.query;
        let mut all = Vec::new();
        let epoch = match start {
            Start::Epoch(epoch) => *epoch,
            Start::After(position) => Some(position.epoch),
            Start::Chain(after) => {
                self.chain_bounds(statement, after.as_ref(), &mut all)?;
                return Ok(all);
            }
        };
        let this_epoch = epoch.map_or_else(|| Ok("h.epoch_now".to_owned()), |epoch| statement.bind(epoch))?;
        all.push(format!("{} = {this_epoch}", self.epoch_column()));
        if let Start::After(position) = start {
            let operator = if query.order == Order::Newest { "<" } else { ">" };
            all.push(format!("(xid, pos) {operator} {}", bind_position(statement, *position)?));
        }
        // `epoch` is `None` only if there is no bound: a scan with a bound names its epoch.
        if let (Some(epoch), Some(until)) = (epoch, self.until) {
            match epoch.cmp(&until.epoch) {
                Ordering::Less => {}
                Ordering::Equal => all.push(format!("(xid, pos) <= {}", bind_position(statement, until)?)),
                Ordering::Greater => all.push("false".to_owned()),
            }
        }
        if let (Some(epoch), Some(since)) = (epoch, self.since)
            && epoch == since.epoch
        {
            all.push(format!("(xid, pos) >= {}", bind_position(statement, since)?));
        }
        if query.order == Order::Append {
            all.push(format!("xid < CASE WHEN {this_epoch} = h.epoch_now THEN h.horizon ELSE {LAST_XID} END"));
        }
        Ok(all)
    }

    fn chain_bounds(
        &self,
        statement: &mut Statement,
        after: Option<&Position>,
        all: &mut Vec<String>,
    ) -> Result<(), LedgerError> {
        if let Some(until) = self.until {
            let (epoch, position) = (statement.bind(until.epoch)?, bind_position(statement, until)?);
            all.push(format!("(epoch < {epoch} OR epoch = {epoch} AND (xid, pos) <= {position})"));
        }
        if let Some(Position::Chain { tenant_id, id, seq, .. }) = after {
            let id: Uuid = id.parse().map_err(|_| LedgerError::InvalidCursor { cursor: id.clone() })?;
            let seq = i32::try_from(*seq).map_err(|_| LedgerError::InvalidCursor { cursor: seq.to_string() })?;
            let (tenant, id, seq) = (statement.bind(tenant_id.clone())?, statement.bind(id)?, statement.bind(seq)?);
            all.push(format!("(tenant_id, id, seq) > ({tenant}, {id}, {seq})"));
        }
        Ok(())
    }
}

/// A statement for the last version of an id, if the identity may see it. With this order and limit the planner uses the primary key, also
/// while the table is empty and every index seems as good: a connection keeps its plans until the server has statistics.
fn last_version(tenant: &str, id: &str) -> String {
    format!(
        "SELECT * FROM ledger.universal_registry WHERE tenant_id = {tenant} AND id = {id}
           AND seq >= (SELECT ledger.last_seq({tenant}, {id})) ORDER BY seq LIMIT 1"
    )
}

/// The filters of a query as SQL conditions.
struct Filters {
    /// The bound id, and whether only its last version is wanted.
    id: Option<(String, bool)>,
    /// The filter that chooses the index in a tenant of the scope's own.
    narrowest: Option<String>,
    rest: Vec<String>,
}

impl Filters {
    fn of(query: &Query, statement: &mut Statement) -> Result<Self, LedgerError> {
        let is_last = query.versions != Versions::All;
        let id = query.id.map(|id| Ok::<_, LedgerError>((statement.bind(id)?, is_last))).transpose()?;
        let chooses_index = query.narrowest().map(Narrow::column);
        let (mut narrowest, mut rest) = (None, Vec::new());
        let mut add = |column: &str, mark: String| {
            let condition = format!("{column} = {mark}");
            if chooses_index == Some(column) { narrowest = Some(condition) } else { rest.push(condition) }
        };
        if let Some(parent) = query.parent_id {
            add("parent_id", statement.bind(parent)?);
        }
        let texts = [
            ("entity_type", &query.entity_type),
            ("owner_id", &query.owner),
            ("status", &query.status),
            ("trace_id", &query.trace_id),
        ];
        for (column, value) in texts {
            if let Some(value) = value {
                add(column, statement.bind(value.clone())?);
            }
        }
        if query.shared {
            rest.push("visibility <> 'private'".to_owned());
        }
        // As the index says it, whatever the plan knows of the parameters.
        if query.of_memories().is_some() {
            rest.push("entity_type = 'memory'".to_owned());
        }
        if query.versions == Versions::Latest {
            rest.push("NOT is_deleted".to_owned());
        }
        if is_last {
            rest.push("seq = ledger.last_seq(tenant_id, id)".to_owned());
        }
        Ok(Self { id, narrowest, rest })
    }

    /// What the rows of one tenant are selected from: if one last version is wanted, from that.
    fn table(&self, tenant: &str) -> String {
        match &self.id {
            Some((id, true)) if !tenant.is_empty() => format!("({})", last_version(tenant, id)),
            _ => "ledger.universal_registry".to_owned(),
        }
    }

    /// The conditions for the rows of one tenant: those that choose the rows to look at ([`Query::looks_at`]), and the others.
    /// `tenant` is an SQL expression, or empty for all tenants.
    fn split(&self, own: bool, tenant: &str) -> (Vec<String>, Vec<&str>) {
        let mut looks = Vec::new();
        if !tenant.is_empty() {
            looks.push(format!("tenant_id = {tenant}"));
        }
        if !own {
            looks.push("visibility = 'public'".to_owned());
        }
        if let Some((id, _)) = &self.id {
            looks.push(format!("id = {id}"));
        }
        let mut rest: Vec<_> = self.rest.iter().map(String::as_str).collect();
        if let Some(narrowest) = &self.narrowest {
            if own && !tenant.is_empty() && self.id.is_none() {
                looks.push(narrowest.clone());
            } else {
                rest.push(narrowest);
            }
        }
        (looks, rest)
    }
}

fn all_of<T: AsRef<str>>(conditions: impl IntoIterator<Item = T>) -> String {
    let mut all = String::from("true");
    for condition in conditions {
        all.push_str(" AND ");
        all.push_str(condition.as_ref());
    }
    all
}

/// Binds a position within an epoch, as a pair of transaction id and `pos`.
fn bind_position(statement: &mut Statement, position: AppendPosition) -> Result<String, LedgerError> {
    let (xid, pos) = (statement.bind(position.xid)?, statement.bind(position.pos)?);
    Ok(format!("({xid}::xid8, {pos})"))
}
