//! Queries of a guest: operation 4 of the ABI. They are read strictly.

use logline_core::ledger::{Cursor, Query};
use serde_json::Value;
use uuid::Uuid;

/// The most spans in the answer to one query.
const MAX_ROWS: usize = 100;

/// The most rows that one query looks at. The sandbox charges for each of them.
const MAX_VISITED: usize = 1000;

/// Reads a guest's query. Unknown members and values of the wrong type are errors.
pub(super) fn read_query(value: &Value) -> Result<(Query, Option<Cursor>), String> {
    let Value::Object(members) = value else { return Err("query takes an object".to_owned()) };
    let mut query = Query::new().limit(MAX_ROWS).max_visited(MAX_VISITED);
    let mut cursor = None;
    for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        if name == "limit" {
            let limit = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=MAX_ROWS).contains(n));
            query = query.limit(limit.ok_or_else(|| format!("`limit` must be a number from 1 to {MAX_ROWS}"))?);
            continue;
        }
        let text = value.as_str().ok_or_else(|| format!("`{name}` must be a string"))?;
        let uuid = || text.parse::<Uuid>().map_err(|_| format!("`{name}` must be a uuid"));
        query = match name.as_str() {
            "tenant" => query.tenant(text),
            "id" => query.id(uuid()?),
            "entity_type" => query.entity_type(text),
            "parent_id" => query.parent_id(uuid()?),
            "status" => query.status(text),
            "cursor" => {
                cursor = Some(Cursor::from_text(text));
                query
            }
            _ => {
                return Err(format!(
                    "`{name}` is unknown: a query has tenant, id, entity_type, parent_id, status, limit, cursor"
                ));
            }
        };
    }
    Ok((query, cursor))
}
