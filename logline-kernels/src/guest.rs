//! What a function may ask of its host while it runs: log, now, query, emit.

use async_trait::async_trait;
use logline_core::kernel::Context;
use logline_core::ledger::{Cursor, LedgerError, Query};
use logline_core::request::{CAUSE, POLICY_DUE};
use logline_core::sandbox::{Failure, HostCalls};
use logline_core::{Draft, Scope, SignedSpan, Timestamp, canonical, ids, json, parse_draft, roles};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The most spans that one query answers.
const MAX_ROWS: usize = 100;

/// Columns that the host sets in whatever code of the ledger has it write. In what a guest emits, `owner_id` as well.
pub(crate) const HOST_COLUMNS: &[&str] = &[
    "id",
    "seq",
    "v",
    "who",
    "at",
    "tenant_id",
    "trace_id",
    "prev_hash",
    "curr_hash",
    "signature",
    "public_key",
    "is_deleted",
    "duration_ms",
    "code",
    "language",
    "runtime",
];

/// Answers one function's calls and collects what it emits.
pub(crate) struct Guest<'a> {
    context: &'a Context<'a>,
    request: &'a SignedSpan,
    function: Uuid,
    pub(crate) drafts: Vec<Draft>,
    emitted_bytes: usize,
    pub(crate) logs: Vec<Value>,
    log_bytes: usize,
    pub(crate) logs_dropped: u32,
    /// The stream of random bytes, once one was asked for, and its seed.
    random: Option<blake3::OutputReader>,
    pub(crate) seed: Option<[u8; 32]>,
    /// The ledger failed under a query: a reason of the host, not of the function.
    pub(crate) ledger_error: Option<LedgerError>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(context: &'a Context<'a>, request: &'a SignedSpan, function: Uuid) -> Self {
        Self {
            context,
            request,
            function,
            drafts: Vec::new(),
            emitted_bytes: 0,
            logs: Vec::new(),
            log_bytes: 0,
            logs_dropped: 0,
            random: None,
            seed: None,
            ledger_error: None,
        }
    }

    /// The draft of what a guest emits, as the request's owner would have written it.
    fn draft(&self, value: Value) -> Result<Draft, Failure> {
        let refuse = |message: String| Failure::new("not_permitted", message);
        let Value::Object(members) = &value else {
            return Err(Failure::new("invalid_draft", "emit takes an object"));
        };
        if let Some(column) = HOST_COLUMNS.iter().chain(&["owner_id"]).find(|c| members.get(**c).is_some_and(|v| !v.is_null()))
        {
            return Err(refuse(format!("column `{column}` is set by the host: leave it out")));
        }
        let draft = parse_draft(value).map_err(|e| Failure::new("invalid_draft", e.to_string()))?;
        let mut draft = draft
            .tenant(&self.request.tenant_id)
            .owner(&self.request.owner_id)
            .who(format!("function:{}", self.function))
            .at(self.context.attempt.started)
            .related([self.context.attempt.execution_id]);
        let columns = draft.columns_mut();
        columns.trace_id.clone_from(&self.request.trace_id);
        if columns.this.is_empty() {
            columns.this.clone_from(&columns.entity_type);
        }
        // What the host's key would sign must be what the owner may write: a guest records no executions, publishes no
        // functions, approves nothing.
        if columns.entity_type == "request" && columns.this == POLICY_DUE {
            return Err(refuse(format!("`{POLICY_DUE}` is asked by the runtime only")));
        }
        let scope = Scope::user(&self.request.tenant_id, &self.request.owner_id);
        scope.check_append(draft.columns()).map_err(|e| refuse(e.to_string()))?;
        if !roles::required(draft.columns()).contains(&roles::Role::Member) {
            return Err(refuse(format!("type `{}` cannot be emitted by a function", draft.columns().entity_type)));
        }
        // Each emission of an attempt has an id of its own, the same whenever the attempt is replayed.
        let index = self.drafts.len().to_string();
        // How many policies it follows from is the host's to say.
        let draft = match self.request.meta(CAUSE) {
            Some(cause) => draft.meta(CAUSE, cause.clone()),
            None => draft.without_meta(CAUSE),
        };
        let draft = draft.id(ids::derive("emitted", &[&self.context.attempt.execution_id.to_string(), &index]));
        draft.validate(&self.context.rules).map_err(|e| Failure::new("invalid_draft", e.to_string()))?;
        Ok(draft)
    }
}

#[async_trait]
impl HostCalls for Guest<'_> {
    fn log(&mut self, entry: Value) -> Result<(), Failure> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let (Some(level), Some(message)) = (text("level"), text("message")) else {
            return Err(Failure::new("invalid_log", "log takes an object of `level`, `message` and optional `fields`"));
        };
        tracing::debug!(target: "logline::guest", function = %self.function, level = cut(level), message = cut(message));
        let mut stored = Map::from_iter([("level".to_owned(), level.into()), ("message".to_owned(), message.into())]);
        if let Some(fields) = entry.get("fields").filter(|f| !f.is_null()) {
            stored.insert("fields".to_owned(), fields.clone());
        }
        let stored = Value::Object(stored);
        let bytes = canonical::to_vec(&stored).len();
        if self.log_bytes.saturating_add(bytes) > self.context.trusted.manifest.limits.log_bytes || depth(&stored) > 32 {
            self.logs_dropped = self.logs_dropped.saturating_add(1);
        } else {
            self.log_bytes += bytes;
            self.logs.push(stored);
        }
        Ok(())
    }

    fn now(&mut self) -> Timestamp {
        self.context.attempt.started
    }

    fn random(&mut self, bytes: usize) -> Result<Vec<u8>, Failure> {
        let stream = match &mut self.random {
            Some(stream) => stream,
            None => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed)
                    .map_err(|e| Failure::new("unavailable", format!("the host has no random numbers now: {e}")))?;
                self.seed = Some(seed);
                self.random.insert(blake3::Hasher::new().update(&seed).finalize_xof())
            }
        };
        let mut drawn = vec![0; bytes];
        stream.fill(&mut drawn);
        Ok(drawn)
    }

    async fn query(&mut self, query: Value) -> Result<Value, Failure> {
        let (query, cursor) = read_query(&query).map_err(|message| Failure::new("invalid_query", message))?;
        let page = self.context.owner.scan(&query, cursor.as_ref()).await.and_then(|page| {
            let next = page.next.clone();
            page.into_spans().map(|spans| (spans, next))
        });
        match page {
            Ok((spans, next)) => {
                let rows = spans.iter().map(|span| json::parse(&span.to_line())).collect::<Result<Vec<_>, _>>();
                let rows = rows.map_err(|e| Failure::new("internal", e.to_string()))?;
                Ok(json!({"spans": rows, "cursor": next.map(|c| c.to_string())}))
            }
            Err(LedgerError::InvalidCursor { cursor }) => {
                Err(Failure::new("invalid_query", format!("cursor `{cursor}` is none of this query's")))
            }
            Err(error) => {
                let failure = Failure::new("unavailable", "the ledger could not be read");
                self.ledger_error.get_or_insert(error);
                Err(failure)
            }
        }
    }

    fn emit(&mut self, draft: Value) -> Result<Value, Failure> {
        let limits = &self.context.trusted.manifest.limits;
        if self.drafts.len() >= limits.emitted as usize {
            return Err(Failure::new("emit_limit", format!("more than {} emitted spans", limits.emitted)));
        }
        let bytes = canonical::to_vec(&draft).len();
        if self.emitted_bytes.saturating_add(bytes) > self.context.rules.max_span_bytes {
            return Err(Failure::new("emit_limit", "all emitted spans together are larger than one span may be"));
        }
        let draft = self.draft(draft)?;
        let id = draft.columns().id;
        self.emitted_bytes += bytes;
        self.drafts.push(draft);
        Ok(json!({"id": id.to_string()}))
    }
}

/// The beginning of a guest's text, for the host's own log.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(512)).unwrap_or_default()
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Reads a guest's query: only known members, only texts that are what they should be.
fn read_query(value: &Value) -> Result<(Query, Option<Cursor>), String> {
    let Value::Object(members) = value else { return Err("query takes an object".to_owned()) };
    let mut query = Query::new().limit(MAX_ROWS);
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
