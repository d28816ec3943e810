//! Executions, by how long they took.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use logline_core::ledger::{Ledger as _, LedgerError, Page, Query, Row};

use crate::identity::Permission;
use crate::params::Params;
use crate::problem::Problem;
use crate::routes::spans::ROW;
use crate::rows;
use crate::service::{Service, caller};

/// The executions, or those that took longer than `slower_than`: from a bucket of `logline_attempt_seconds` to what is in it.
#[utoipa::path(get, path = "/api/executions", tag = "executions", params(
    crate::wire::Filters,
    crate::wire::Paging,
    ("slower_than" = Option<u32>, Query, description = "Only those that took longer, milliseconds"),
), responses(
    (status = 200, description = "A page of executions", body = crate::wire::SpanPage),
    crate::refusals::Refused,
))]
pub(crate) async fn list(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request)?;
    caller.identity.need(Permission::Read)?;
    let scope = caller.read_scope();
    let own = ["id", "status", "owner_id", "tenant_id", "parent_id", "trace_id", "slower_than"];
    let params = Params::read(request.uri().query(), &[&own[..], &rows::PAGING[..]].concat())?;
    let expected = "milliseconds, a whole number up to 2147483647";
    let least = params.parsed::<u32>("slower_than", expected)?;
    // No row has more.
    if least.is_some_and(|least| i32::try_from(least).is_err()) {
        return Err(Problem::parameter("slower_than", expected));
    }
    let query = rows::filter(Query::timeline(), &params, &caller.identity)?.entity_type("execution");
    let (query, mut cursor) = rows::paging(query, &params, &scope, &service.options.key, service.options.max_page)?;
    let limit = query.limit;
    let query = query.limit(service.options.max_page);
    let is_wanted = |row: &Row| match (&row.span, least) {
        (Ok(span), Some(least)) => span.duration_ms.is_some_and(|took| took > least),
        _ => true,
    };
    let read = async {
        let (mut found, mut left) = (Vec::new(), service.options.max_visited);
        loop {
            let query = query.clone().max_visited(left);
            let mut page = service.ledger().scan(&scope, &query, cursor.as_ref()).await?;
            left = left.saturating_sub(page.visited.unwrap_or(page.rows.len()));
            found.extend(std::mem::take(&mut page.rows).into_iter().filter(&is_wanted));
            if found.len() > limit {
                // The next page begins after the last row that has room.
                found.truncate(limit);
                (page.next, page.reached) = (found.last().map(|row| row.cursor.clone()), None);
            }
            if found.len() == limit || page.next.is_none() || left == 0 {
                page.rows = found;
                return Ok::<Page, LedgerError>(page);
            }
            cursor = page.next;
        }
    };
    let page = service.reading(caller.tenant(), read).await?;
    let (key, size) = (service.options.key.clone(), page.rows.len() * ROW);
    service.work(caller.tenant(), size, move || rows::page(&key, &scope, page)).await
}
