//! Translates queries into SQL. The conditions are those of `Scope::may_read`; the conformance suite compares the two.

use logline_core::ledger::{Cursor, LedgerError, Memories, Narrow, Order, Page, Position, Query, Versions};
use logline_core::{SYSTEM_TENANT, Scope};
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, params_from_iter};

use crate::error::from_sqlite;
use crate::row::{self, COLUMNS};

/// A page ends with the row that reaches this many bytes. It always has at least one row if there is one.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// A scan that is translated into SQL.
pub(crate) struct Select {
    branches: Vec<Branch>,
    order: Order,
    /// Whether the query names an id. Its few rows are then sorted, instead of reading the rows of a whole tenant in order.
    one_id: bool,
    /// The most rows and the most bytes of the page.
    size: (usize, usize),
    /// How many rows the page may look at, if the query limits it.
    visits: Option<usize>,
    /// The number of the row after which a page in append order begins.
    after: Option<i64>,
}

/// The part of a scan that reads one tenant. (An operator's scan of all tenants is one branch too.)
#[derive(Default)]
struct Branch {
    /// The index that SQLite must use, if its own choice could be another one.
    index: &'static str,
    /// The conditions that choose the rows to look at: those of [`Query::looks_at`], and the bounds of the page.
    looks: Vec<Condition>,
    /// The conditions that choose the rows to return.
    filters: Vec<Condition>,
}

/// An SQL condition, and the values of its question marks.
struct Condition(String, Vec<SqlValue>);

fn equals(column: &str, value: impl Into<SqlValue>) -> Condition {
    Condition(format!("{column} = ?"), vec![value.into()])
}

fn fixed(sql: &str) -> Condition {
    Condition(sql.to_owned(), Vec::new())
}

/// A statement with its values.
#[derive(Default)]
struct Statement {
    sql: String,
    values: Vec<SqlValue>,
}

impl Statement {
    fn push(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    fn all_of<'c>(&mut self, conditions: impl IntoIterator<Item = &'c Condition>) {
        self.push("1");
        for Condition(sql, values) in conditions {
            self.push(" AND ");
            self.push(sql);
            self.values.extend(values.iter().cloned());
        }
    }

    /// A select of `columns` of the rows of one branch.
    fn select(&mut self, columns: &str, branch: &Branch, is_filtered: bool) {
        self.push(&format!("SELECT {columns} FROM universal_registry AS r {} WHERE ", branch.index));
        self.all_of(branch.looks.iter().chain(branch.filters.iter().filter(|_| is_filtered)));
    }

    /// A select of the positions of the first `limit` rows of all branches together.
    fn positions(&mut self, branches: &[Branch], is_filtered: bool, order_by: &str, limit: usize) {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        for (index, branch) in branches.iter().enumerate() {
            self.push(if index == 0 { "SELECT pos FROM (" } else { " UNION ALL SELECT pos FROM (" });
            self.select("pos", branch, is_filtered);
            self.push(&format!(" ORDER BY {order_by} LIMIT {limit})"));
        }
        if branches.len() > 1 {
            self.push(&format!(" ORDER BY {} LIMIT {limit}", order_by.trim_start_matches('+')));
        }
    }
}

impl Branch {
    /// Reads the rows of `tenant` that `scope` may read, or of all tenants for the operator.
    fn new(scope: &Scope, tenant: Option<&str>, query: &Query) -> Self {
        let own = scope.tenant().is_none_or(|of_scope| Some(of_scope) == tenant);
        let mut branch = Self::default();
        if let Some(tenant) = tenant {
            branch.looks.push(equals("tenant_id", tenant.to_owned()));
        }
        if !own {
            branch.looks.push(fixed("visibility = 'public'"));
            if query.id.is_none() && query.order != Order::Chain {
                branch.index = "INDEXED BY ur_public";
            }
        }
        if let Some(id) = query.id {
            branch.looks.push(equals("id", id.to_string()));
            match (query.versions, tenant) {
                (Versions::Latest | Versions::Last, Some(tenant)) => branch.looks.push(Condition(
                    "seq = (SELECT max(seq) FROM universal_registry WHERE tenant_id = ? AND id = ?)".to_owned(),
                    vec![tenant.to_owned().into(), id.to_string().into()],
                )),
                (Versions::Latest | Versions::Last, None) => branch.looks.push(fixed(
                    "seq = (SELECT max(seq) FROM universal_registry AS l WHERE l.tenant_id = r.tenant_id AND l.id = r.id)",
                )),
                _ => {}
            }
        }
        let narrowest = query.narrowest().filter(|_| own && tenant.is_some() && query.id.is_none()).map(Narrow::column);
        let filters = [
            ("parent_id", query.parent_id.map(|id| id.to_string())),
            ("trace_id", query.trace_id.clone()),
            ("entity_type", query.entity_type.clone()),
            ("owner_id", query.owner.clone()),
            ("status", query.status.clone()),
        ];
        if query.shared {
            branch.filters.push(fixed("visibility <> 'private'"));
        }
        let own_index = narrowest.and_then(|_| query.of_memories());
        for (column, value) in filters {
            match value {
                // As the index says it, or SQLite would not use it.
                Some(_) if own_index.is_some() && column == "entity_type" => branch.looks.push(fixed("entity_type = 'memory'")),
                Some(value) if own_index == Some(Memories::OfOwner) && column == "owner_id" => {
                    branch.looks.push(equals(column, value));
                }
                Some(value) if narrowest == Some(column) => branch.looks.push(equals(column, value)),
                // `+` keeps the planner from using an index of this column.
                Some(value) => branch.filters.push(equals(&format!("+{column}"), value)),
                None => {}
            }
        }
        match own_index {
            Some(Memories::OfOwner) => branch.index = "INDEXED BY ur_memories",
            Some(Memories::Shared) => {
                branch.index = "INDEXED BY ur_shared";
                branch.looks.push(fixed("visibility <> 'private'"));
            }
            None => {}
        }
        if let Scope::User { user, .. } = scope
            && own
        {
            let visible = "(owner_id = ? OR visibility IN ('tenant', 'public'))";
            branch.filters.push(Condition(visible.to_owned(), vec![user.clone().into()]));
        }
        if query.versions == Versions::Latest {
            branch.filters.push(fixed("is_deleted = 0"));
        }
        if query.versions != Versions::All {
            // The subquery sees every row, so if the last version is hidden or deleted, no version of its id is shown.
            branch.filters.push(fixed(
                "NOT EXISTS (SELECT 1 FROM universal_registry AS later
                 WHERE later.tenant_id = r.tenant_id AND later.id = r.id AND later.seq > r.seq)",
            ));
        }
        branch
    }

    /// Keeps the rows after `after`, in the query's order, and those up to its `until`.
    fn between(&mut self, query: &Query, after: Option<&Position>) -> Result<(), LedgerError> {
        if let Some(until) = &query.until
            && let Position::Append(number) = Position::of(until, Order::Append)?
        {
            self.looks.push(Condition("pos <= ?".to_owned(), vec![number.into()]));
        }
        match after {
            None => {}
            Some(Position::Append(number)) => {
                let operator = if query.order == Order::Newest { "<" } else { ">" };
                self.looks.push(Condition(format!("pos {operator} ?"), vec![(*number).into()]));
            }
            // The columns before `seq` are given by the query.
            Some(Position::Chain { tenant_id, id, seq, number })
                if query.tenant.as_ref() == Some(tenant_id) && query.id.is_some_and(|of_query| of_query.to_string() == *id) =>
            {
                self.looks.push(Condition("(seq, pos) > (?, ?)".to_owned(), vec![(*seq).into(), (*number).into()]));
            }
            Some(Position::Chain { tenant_id, id, seq, number }) => {
                let values = vec![tenant_id.clone().into(), id.clone().into(), (*seq).into(), (*number).into()];
                self.looks.push(Condition("(tenant_id, id, seq, pos) > (?, ?, ?, ?)".to_owned(), values));
            }
        }
        Ok(())
    }
}

impl Select {
    /// Translates `query` as `scope` sends it, to go on after `after`. `None` if the scope may read nothing.
    pub(crate) fn new(
        scope: &Scope,
        query: &Query,
        after: Option<&Position>,
        max_page: usize,
    ) -> Result<Option<Self>, LedgerError> {
        if scope.is_nobody() {
            return Ok(None);
        }
        let mut tenants = vec![query.tenant.as_deref().or(scope.tenant())];
        if query.tenant.is_none() && scope.tenant().is_some_and(|tenant| tenant != SYSTEM_TENANT) {
            tenants.push(Some(SYSTEM_TENANT));
        }
        // Chain order is one tenant after the other.
        tenants.sort_unstable();
        let mut branches: Vec<_> = tenants.into_iter().map(|tenant| Branch::new(scope, tenant, query)).collect();
        for branch in &mut branches {
            branch.between(query, after)?;
        }
        Ok(Some(Self {
            branches,
            order: query.order,
            one_id: query.id.is_some(),
            size: (query.page_size(max_page), query.page_bytes(MAX_PAGE_BYTES)),
            visits: query.visits(),
            after: match after {
                Some(Position::Append(number)) if query.order == Order::Append => Some(*number),
                _ => None,
            },
        }))
    }

    fn order_by(&self) -> &'static str {
        match self.order {
            // `+` keeps the planner from an index that has the order but not the id.
            Order::Newest if self.one_id => "+pos DESC",
            Order::Newest => "pos DESC",
            Order::Chain => "tenant_id, id, seq, pos",
            _ if self.one_id => "+pos",
            _ => "pos",
        }
    }

    /// The statements that read the page, one after the other.
    fn statements(&self) -> Vec<Statement> {
        // One row more than the page has tells whether there is a next page.
        let limit = self.size.0.saturating_add(1);
        let order_by = self.order_by();
        let one = |branch| {
            let mut statement = Statement::default();
            statement.select(&format!("pos, {COLUMNS}"), branch, true);
            statement.push(&format!(" ORDER BY {order_by} LIMIT {limit}"));
            statement
        };
        if self.branches.len() == 1 || self.order == Order::Chain {
            return self.branches.iter().map(one).collect();
        }
        // Each branch is read in the order of its index, and only the positions are merged.
        let mut merged = Statement::default();
        merged.push(&format!("SELECT pos, {COLUMNS} FROM universal_registry AS r WHERE pos IN ("));
        merged.positions(&self.branches, true, order_by, limit);
        merged.push(&format!(") ORDER BY {}", order_by.trim_start_matches('+')));
        vec![merged]
    }

    /// Finds the last row that the page may look at, and ends the page there. Returns how many rows it looks at, and the
    /// position of the last if there may be more.
    fn bound(&mut self, connection: &Connection, most: usize) -> Result<(usize, Option<Cursor>), LedgerError> {
        let Statement { sql, values } = self.bound_statement(most);
        let mut statement = connection.prepare_cached(&sql).map_err(from_sqlite)?;
        let found = statement.query_row(params_from_iter(values), |row| Ok((row.get(0)?, row.get(1)?)));
        let (count, last): (i64, Option<i64>) = found.map_err(from_sqlite)?;
        let count = usize::try_from(count).unwrap_or(most);
        let Some(last) = last.filter(|_| count >= most) else { return Ok((count, None)) };
        let up_to = if self.order == Order::Newest { "pos >= ?" } else { "pos <= ?" };
        for branch in &mut self.branches {
            branch.looks.push(Condition(up_to.to_owned(), vec![last.into()]));
        }
        Ok((count, Some(Position::Append(last).to_cursor())))
    }

    fn bound_statement(&self, most: usize) -> Statement {
        let mut statement = Statement::default();
        let last = if self.order == Order::Newest { "min(pos)" } else { "max(pos)" };
        statement.push(&format!("SELECT count(*), {last} FROM ("));
        statement.positions(&self.branches, false, self.order_by(), most);
        statement.push(")");
        statement
    }

    /// Reads the page.
    pub(crate) fn page(mut self, connection: &Connection) -> Result<Page, LedgerError> {
        // One snapshot: a row that is stored after the rows were counted is not returned either.
        let _snapshot = self.visits.is_some().then(|| connection.unchecked_transaction()).transpose().map_err(from_sqlite)?;
        let reached = match self.order {
            Order::Append => reached(connection, self.after)?,
            _ => None,
        };
        let visited = self.visits.map(|most| self.bound(connection, most)).transpose()?;
        let (size, max_bytes) = self.size;
        let (mut rows, mut bytes, mut more) = (Vec::new(), 0, false);
        for Statement { sql, values } in self.statements() {
            let mut statement = connection.prepare_cached(&sql).map_err(from_sqlite)?;
            let mut found = statement.query(params_from_iter(values)).map_err(from_sqlite)?;
            while let Some(row) = found.next().map_err(from_sqlite)? {
                if rows.len() >= size || bytes >= max_bytes {
                    more = true;
                    break;
                }
                let (row, row_bytes) = row::decode(row, self.order)?;
                bytes += row_bytes;
                rows.push(row);
            }
            if more {
                break;
            }
        }
        let last = rows.last().map(|row| row.cursor.clone());
        let page = Page::new(rows, last.clone().filter(|_| more));
        // A row may have been stored between the two statements. If it was read, a reader that goes on from here must not see
        // it again.
        let page = match last.or(reached) {
            Some(reached) if !more && self.order == Order::Append => page.reached(reached),
            _ => page,
        };
        Ok(match visited {
            Some((count, end)) => page.visited(count, end),
            None => page,
        })
    }
}

/// The position of the last row. It is read before the rows are, so that a scan sees at least everything up to it. A cursor behind it was
/// made before an older copy of the file was put back, and rows would be skipped.
fn reached(connection: &Connection, after: Option<i64>) -> Result<Option<Cursor>, LedgerError> {
    let sql = "SELECT max(pos) FROM universal_registry";
    let last: Option<i64> =
        connection.prepare_cached(sql).and_then(|mut s| s.query_row([], |row| row.get(0))).map_err(from_sqlite)?;
    match after {
        Some(after) if after > last.unwrap_or(0) => {
            Err(LedgerError::InvalidCursor { cursor: Position::Append(after).to_cursor().as_str().to_owned() })
        }
        _ => Ok(last.map(|number| Position::Append(number).to_cursor())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SqliteOptions, schema};

    fn plan(statements: Vec<Statement>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let connection = schema::open_writer(&SqliteOptions::new(folder.path().join("ledger"))).unwrap();
        let explain = |Statement { sql, values }| {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let rows = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
            rows.collect::<Result<Vec<_>, _>>().unwrap().join("; ")
        };
        statements.into_iter().map(explain).collect::<Vec<_>>().join("; ")
    }

    fn select(scope: &Scope, query: &Query, after: Option<&Position>) -> Select {
        Select::new(scope, query, after, 50).unwrap().unwrap()
    }

    /// The queries of the kernels and of the library stay cheap, however many rows there are: an index finds the rows in its
    /// own order.
    #[test]
    fn no_query_of_the_library_sorts_or_walks_a_whole_tenant() {
        let user = Scope::user("acme", "alice");
        let id = uuid::Uuid::from_u128(7);
        let after = Position::Append(5);
        let version = Position::Chain { tenant_id: "acme".to_owned(), id: id.to_string(), seq: 3, number: i64::MAX };
        let named = || Query::new().tenant("acme");
        let foreign = || Query::new().tenant("globex");
        let cases = [
            (named().id(id), None, "(tenant_id=? AND id=? AND seq=?)"),
            (named().id(id).order(Order::Newest).versions(Versions::All), None, "(tenant_id=? AND id=?)"),
            (named(), None, "ur_by_tenant (tenant_id=?)"),
            (named().order(Order::Newest), Some(&after), "ur_by_tenant (tenant_id=? AND pos<?)"),
            (named().entity_type("note"), Some(&after), "ur_by_type (tenant_id=? AND entity_type=? AND pos>?)"),
            (named().parent_id(id), None, "ur_by_parent (tenant_id=? AND parent_id=?)"),
            (named().parent_id(id).entity_type("note"), None, "ur_by_parent (tenant_id=? AND parent_id=?)"),
            (named().trace_id("t"), None, "ur_by_trace (tenant_id=? AND trace_id=?)"),
            (Query::chains().tenant("acme").id(id), Some(&version), "(tenant_id=? AND id=? AND seq>?)"),
            (foreign().entity_type("note"), Some(&after), "ur_public (tenant_id=? AND pos>?)"),
            (foreign().parent_id(id), None, "ur_public (tenant_id=?)"),
            (named().entity_type("memory").owner("alice"), Some(&after), "ur_memories (tenant_id=? AND owner_id=? AND pos>?)"),
            (
                named().entity_type("memory").owner("alice").order(Order::Newest),
                None,
                "ur_memories (tenant_id=? AND owner_id=?)",
            ),
            (named().entity_type("memory").shared(), Some(&after), "ur_shared (tenant_id=? AND pos>?)"),
            (Query::timeline(), Some(&after), "ur_by_tenant (tenant_id=? AND pos>?)"),
            (Query::timeline(), Some(&after), "ur_public (tenant_id=? AND pos>?)"),
        ];
        for (query, after, expected) in cases {
            let select = select(&user, &query, after);
            let plan = plan(select.statements());
            assert!(plan.contains(expected), "{query:?}\n{plan}");
            let merges = query.tenant.is_none();
            assert!(query.id.is_some() || merges || !plan.contains("TEMP B-TREE"), "{query:?}\n{plan}");
            if query.visits().is_none() && query.order != Order::Chain {
                let bound = self::plan(vec![select.bound_statement(10)]);
                assert!(bound.contains(expected), "{query:?}\n{bound}");
            }
        }
        let audit = plan(select(&Scope::Operator, &Query::chains(), None).statements());
        assert!(!audit.contains("TEMP B-TREE FOR ORDER BY"), "{audit}");
    }
}
