//! Translates queries into SQL. The conditions are those of `Scope::may_read`; the conformance suite compares the two.

use logline_core::ledger::{Cursor, LedgerError, Order, Page, Position, Query, Versions};
use logline_core::{SYSTEM_TENANT, Scope};
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, params_from_iter};

use crate::error::from_sqlite;
use crate::row::{self, COLUMNS};

/// A page ends with the row that reaches this many bytes. It always has at least one row if there is one.
pub(crate) const MAX_PAGE_BYTES: usize = 4 << 20;

/// A statement that is being built.
pub(crate) struct Select {
    conditions: Vec<String>,
    values: Vec<SqlValue>,
    /// Whether the query names an id. Its few rows are then sorted, instead of reading the rows of a whole tenant in order.
    one_id: bool,
}

impl Select {
    /// Selects everything that `scope` may read. `named` is the tenant that the query names. `None` if the scope may read
    /// nothing.
    pub(crate) fn visible(scope: &Scope, named: Option<&str>) -> Option<Self> {
        if scope.is_nobody() {
            return None;
        }
        let mut select = Self { conditions: Vec::new(), values: Vec::new(), one_id: false };
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
            // `+` keeps the planner from using an index for each branch, whose rows it would have to sort. Instead it reads the
            // primary key from the cursor on, each row once.
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
        self.one_id |= column == "id";
        let mark = self.bind(value);
        self.conditions.push(format!("{column} = {mark}"));
    }

    pub(crate) fn at_least(&mut self, column: &str, value: i64) {
        let mark = self.bind(value);
        self.conditions.push(format!("{column} >= {mark}"));
    }

    /// Keeps only last versions. The subquery sees every row, so if the last version is hidden or deleted, no version of its id
    /// is shown.
    pub(crate) fn latest(&mut self) {
        self.conditions.push(
            "is_deleted = 0 AND NOT EXISTS (SELECT 1 FROM universal_registry AS later
             WHERE later.tenant_id = r.tenant_id AND later.id = r.id AND later.seq > r.seq)"
                .to_owned(),
        );
    }

    /// Adds the filters, versions and bounds of a query.
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

    /// The statement that reads up to `size` rows in `order`.
    fn sql(&self, order: Order, size: usize) -> String {
        let order_by = match order {
            // `+` keeps the planner from an index that has the order but not the id.
            Order::Newest if self.one_id => "+pos DESC",
            Order::Newest => "pos DESC",
            Order::Chain => "tenant_id, id, seq, pos",
            _ if self.one_id => "+pos",
            _ => "pos",
        };
        let conditions = if self.conditions.is_empty() { "1".to_owned() } else { self.conditions.join(" AND ") };
        // One row more than `size` tells whether there is a next page.
        let limit = size.saturating_add(1);
        format!("SELECT pos, {COLUMNS} FROM universal_registry AS r WHERE {conditions} ORDER BY {order_by} LIMIT {limit}")
    }

    /// Reads up to `size` rows in `order`, until they have `max_bytes`.
    pub(crate) fn page(
        self,
        connection: &Connection,
        order: Order,
        (size, max_bytes): (usize, usize),
    ) -> Result<Page, LedgerError> {
        let sql = self.sql(order, size);
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
            if rows.len() >= size || bytes >= max_bytes {
                more = true;
                break;
            }
            let (row, row_bytes) = row::decode(row, order)?;
            bytes += row_bytes;
            rows.push(row);
        }
        let last = rows.last().map(|row| row.cursor.clone());
        let page = Page::new(rows, last.clone().filter(|_| more));
        // A row may have been stored between the two statements. If it was read, a reader that goes on from here must not see
        // it again.
        Ok(match last.or(reached) {
            Some(reached) if !more && order == Order::Append => page.reached(reached),
            _ => page,
        })
    }
}

/// The position of the last row. It is read before the rows are, so that a scan sees at least everything up to it.
fn last_position(connection: &Connection) -> Result<Option<Cursor>, LedgerError> {
    let sql = "SELECT max(pos) FROM universal_registry";
    let last: Option<i64> =
        connection.prepare_cached(sql).and_then(|mut s| s.query_row([], |row| row.get(0))).map_err(from_sqlite)?;
    Ok(last.map(|number| Position::Append(number).to_cursor()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SqliteOptions, schema};

    fn plan(select: &Select, order: Order) -> String {
        let folder = tempfile::tempdir().unwrap();
        let connection = schema::open_writer(&SqliteOptions::new(folder.path().join("ledger"))).unwrap();
        let sql = format!("EXPLAIN QUERY PLAN {}", select.sql(order, 50));
        let mut statement = connection.prepare(&sql).unwrap();
        let rows = statement.query_map(params_from_iter(&select.values), |row| row.get::<_, String>(3)).unwrap();
        rows.collect::<Result<Vec<_>, _>>().unwrap().join("; ")
    }

    fn select(scope: &Scope, query: &Query, after: Option<&Position>) -> Select {
        let mut select = Select::visible(scope, query.tenant.as_deref()).unwrap();
        select.query(query, after).unwrap();
        select
    }

    /// The queries of the kernels and of the library stay cheap, however many rows there are: an index finds the rows in its
    /// own order.
    #[test]
    fn no_query_of_the_library_sorts_or_walks_a_whole_tenant() {
        let user = Scope::user("acme", "alice");
        let id = uuid::Uuid::from_u128(7);
        let after = Position::Append(5);
        let named = || Query::new().tenant("acme");
        let cases = [
            (named().id(id), None, "(tenant_id=? AND id=?)"),
            (named().id(id).order(Order::Newest).versions(Versions::All), None, "(tenant_id=? AND id=?)"),
            (named(), None, "ur_by_tenant (tenant_id=?)"),
            (named().order(Order::Newest), Some(&after), "ur_by_tenant (tenant_id=? AND pos<?)"),
            (named().entity_type("note"), Some(&after), "ur_by_type (tenant_id=? AND entity_type=? AND pos>?)"),
            (named().parent_id(id), None, "ur_by_parent (tenant_id=? AND parent_id=?)"),
            (named().trace_id("t"), None, "ur_by_trace (tenant_id=? AND trace_id=?)"),
            (Query::timeline(), Some(&after), "INTEGER PRIMARY KEY (rowid>?)"),
        ];
        for (query, after, expected) in cases {
            let plan = plan(&select(&user, &query, after), query.order);
            assert!(plan.contains(expected), "{query:?}\n{plan}");
            assert!(query.id.is_some() || !plan.contains("TEMP B-TREE"), "{query:?}\n{plan}");
        }
        let audit = plan(&select(&Scope::Operator, &Query::chains(), None), Order::Chain);
        assert!(!audit.contains("TEMP B-TREE FOR ORDER BY"), "{audit}");
    }
}
