//! Queries as SQL. The predicates are those of `Scope::may_read`, which the conformance suite compares them with.

use logline_core::ledger::{Cursor, LedgerError, Order, Page, Position, Query, Versions};
use logline_core::{SYSTEM_TENANT, Scope};
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, params_from_iter};

use crate::error::from_sqlite;
use crate::row::{self, COLUMNS};

/// Bytes in one page; a page always has at least one row.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// A statement in the making.
pub(crate) struct Select {
    conditions: Vec<String>,
    values: Vec<SqlValue>,
}

impl Select {
    /// Everything that `scope` may read, where `named` is the tenant that was asked for; `None` where it may read nothing.
    pub(crate) fn visible(scope: &Scope, named: Option<&str>) -> Option<Self> {
        if scope.is_nobody() {
            return None;
        }
        let mut select = Self { conditions: Vec::new(), values: Vec::new() };
        if let Some(named) = named {
            select.equals("tenant_id", named.to_owned());
        }
        let Some(tenant) = scope.tenant() else { return Some(select) };
        if named.is_some_and(|named| named != tenant) {
            select.conditions.push("visibility = 'public'".to_owned());
            return Some(select);
        }
        let own = match scope {
            Scope::User { user, .. } => {
                let user = select.bind(user.clone());
                format!("(owner_id = {user} OR visibility IN ('tenant', 'public'))")
            }
            _ => "1".to_owned(),
        };
        if named.is_some() {
            select.conditions.push(own);
        } else {
            let tenant = select.bind(tenant.to_owned());
            // `+` keeps the planner from an index per branch, whose rows it would have to sort: walking the primary key from
            // the cursor on reads each row once.
            select.conditions.push(format!(
                "((+tenant_id = {tenant} AND {own}) OR (+tenant_id = '{SYSTEM_TENANT}' AND visibility = 'public'))"
            ));
        }
        Some(select)
    }

    fn bind(&mut self, value: impl Into<SqlValue>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }

    pub(crate) fn equals(&mut self, column: &str, value: impl Into<SqlValue>) {
        let mark = self.bind(value);
        self.conditions.push(format!("{column} = {mark}"));
    }

    pub(crate) fn at_least(&mut self, column: &str, value: i64) {
        let mark = self.bind(value);
        self.conditions.push(format!("{column} >= {mark}"));
    }

    /// Leaves only last versions. The subquery sees every row, so a hidden or deleted head hides its id.
    pub(crate) fn latest(&mut self) {
        self.conditions.push(
            "is_deleted = 0 AND NOT EXISTS (SELECT 1 FROM universal_registry AS later
             WHERE later.tenant_id = r.tenant_id AND later.id = r.id AND later.seq > r.seq)"
                .to_owned(),
        );
    }

    /// The filters, versions and bounds of a query.
    pub(crate) fn query(&mut self, query: &Query, after: Option<&Position>) -> Result<(), LedgerError> {
        let filters = [
            ("id", query.id.map(|id| id.to_string())),
            ("entity_type", query.entity_type.clone()),
            ("parent_id", query.parent_id.map(|id| id.to_string())),
            ("owner_id", query.owner.clone()),
            ("status", query.status.clone()),
            ("trace_id", query.trace_id.clone()),
        ];
        for (column, value) in filters {
            if let Some(value) = value {
                self.equals(column, value);
            }
        }
        if query.versions == Versions::Latest {
            self.latest();
        }
        if let Some(until) = &query.until
            && let Position::Append(number) = Position::of(until, Order::Append)?
        {
            let mark = self.bind(number);
            self.conditions.push(format!("pos <= {mark}"));
        }
        match after {
            None => {}
            Some(Position::Append(number)) => {
                let mark = self.bind(*number);
                self.conditions.push(format!("pos {} {mark}", if query.order == Order::Newest { "<" } else { ">" }));
            }
            Some(Position::Chain { tenant_id, id, seq, number }) => {
                let tenant = self.bind(tenant_id.clone());
                let id = self.bind(id.clone());
                let seq = self.bind(*seq);
                let number = self.bind(*number);
                self.conditions.push(format!("(tenant_id, id, seq, pos) > ({tenant}, {id}, {seq}, {number})"));
            }
        }
        Ok(())
    }

    /// Reads up to `size` rows in `order`.
    pub(crate) fn page(self, connection: &Connection, order: Order, size: usize) -> Result<Page, LedgerError> {
        let order_by = match order {
            Order::Newest => "pos DESC",
            Order::Chain => "tenant_id, id, seq, pos",
            _ => "pos",
        };
        let conditions = if self.conditions.is_empty() { "1".to_owned() } else { self.conditions.join(" AND ") };
        // One more row than asked for tells whether there is a next page.
        let limit = size.saturating_add(1);
        let sql =
            format!("SELECT pos, {COLUMNS} FROM universal_registry AS r WHERE {conditions} ORDER BY {order_by} LIMIT {limit}");
        let reached = match order {
            Order::Append => last_position(connection)?,
            _ => None,
        };
        let mut statement = connection.prepare_cached(&sql).map_err(from_sqlite)?;
        let mut found = statement.query(params_from_iter(self.values)).map_err(from_sqlite)?;
        let mut rows = Vec::new();
        let mut bytes = 0;
        let mut more = false;
        while let Some(row) = found.next().map_err(from_sqlite)? {
            if rows.len() >= size || bytes >= MAX_PAGE_BYTES {
                more = true;
                break;
            }
            let (row, row_bytes) = row::decode(row, order)?;
            bytes += row_bytes;
            rows.push(row);
        }
        let next = rows.last().map(|row| row.cursor.clone()).filter(|_| more);
        let page = Page::new(rows, next);
        Ok(match reached {
            Some(reached) if !more => page.reached(reached),
            _ => page,
        })
    }
}

/// The last row's position. Read before the rows are, so that a scan sees at least everything up to it.
fn last_position(connection: &Connection) -> Result<Option<Cursor>, LedgerError> {
    let sql = "SELECT max(pos) FROM universal_registry";
    let last: Option<i64> =
        connection.prepare_cached(sql).and_then(|mut s| s.query_row([], |row| row.get(0))).map_err(from_sqlite)?;
    Ok(last.map(|number| Position::Append(number).to_cursor()))
}
