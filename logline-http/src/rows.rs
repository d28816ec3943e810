//! Rows and pages of rows as clients see them: canonical JSON, byte for byte what was hashed, with the seal.

use http::StatusCode;
use logline_core::ledger::{Cursor, DamagedRow, Order, Page, Query};
use logline_core::{Scope, SignedSpan, json as strict};
use serde_json::{Value, json};

use crate::cursor::ServiceKey;
use crate::identity::{Identity, Permission};
use crate::params::Params;
use crate::problem::Problem;
use crate::service::json_bytes;

/// The filters of lists and streams.
pub(crate) const FILTERS: [&str; 7] = ["id", "type", "status", "owner_id", "tenant_id", "parent_id", "trace_id"];

/// What lists take besides.
pub(crate) const PAGING: [&str; 3] = ["after", "limit", "order"];

const DEFAULT_LIMIT: usize = 50;

/// Reads the filters into `query`. A tenant or an owner that is named must be the token's, except that a token for the whole tenant
/// may name any owner of it.
pub(crate) fn filter(mut query: Query, params: &Params, identity: &Identity) -> Result<Query, Problem> {
    let owner = params.text("owner_id");
    let is_confined = !identity.permissions.contains(&Permission::ReadTenant);
    identity.check_named(params.text("tenant_id"), owner.filter(|_| is_confined))?;
    query.id = params.parsed("id", "a UUID")?;
    query.parent_id = params.parsed("parent_id", "a UUID")?;
    query.tenant = params.text("tenant_id").map(str::to_owned);
    query.owner = owner.map(str::to_owned);
    query.entity_type = params.text("type").map(str::to_owned);
    query.status = params.text("status").map(str::to_owned);
    query.trace_id = params.text("trace_id").map(str::to_owned);
    Ok(query)
}

/// Reads `limit` and `order` into `query`, and the cursor.
pub(crate) fn paging(
    mut query: Query,
    params: &Params,
    scope: &Scope,
    key: &ServiceKey,
    max_page: usize,
) -> Result<(Query, Option<Cursor>), Problem> {
    let limit = params.parsed::<usize>("limit", "a whole number")?.unwrap_or(DEFAULT_LIMIT);
    if limit == 0 || limit > max_page {
        return Err(Problem::parameter("limit", &format!("from 1 to {max_page}")));
    }
    query.limit = limit;
    query.order = match params.text("order") {
        None | Some("newest") => Order::Newest,
        Some("oldest") => Order::Append,
        Some(_) => return Err(Problem::parameter("order", "`newest` or `oldest`")),
    };
    let cursor = params.text("after").map(|text| key.open(scope, text)).transpose()?;
    Ok((query, cursor))
}

/// A row that cannot be read.
pub(crate) fn damage(row: &DamagedRow) -> Value {
    json!({"id": row.id, "seq": row.seq, "reason": row.reason})
}

/// A page as `{"spans": [...], "damaged": [...], "next": CURSOR or null}`. A page that read to the end of the ledger, oldest first,
/// has `reached` besides: a stream can go on from there.
pub(crate) fn page(key: &ServiceKey, scope: &Scope, page: Page) -> axum::response::Response {
    let mut body = b"{\"damaged\":".to_vec();
    let (mut spans, mut damaged) = (Vec::new(), Vec::new());
    for row in page.rows {
        match row.span {
            Ok(span) => spans.push(span),
            Err(row) => damaged.push(damage(&row)),
        }
    }
    let cursor = |cursor: Option<&Cursor>| cursor.map_or(Value::Null, |cursor| key.seal(scope, cursor).into());
    body.extend(Value::from(damaged).to_string().into_bytes());
    body.extend(
        format!(",\"next\":{},\"reached\":{},\"spans\":", cursor(page.next.as_ref()), cursor(page.reached.as_ref()))
            .into_bytes(),
    );
    write_list(&mut body, &spans);
    body.push(b'}');
    json_bytes(StatusCode::OK, body)
}

/// Writes rows as a JSON array.
pub(crate) fn write_list(body: &mut Vec<u8>, spans: &[SignedSpan]) {
    body.push(b'[');
    for (index, span) in spans.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend(span.to_line());
    }
    body.push(b']');
}

/// A row as a value. What is sent as a whole is written with [`SignedSpan::to_line`] instead.
pub(crate) fn value(span: &SignedSpan) -> Value {
    strict::parse(&span.to_line()).unwrap_or_default()
}
