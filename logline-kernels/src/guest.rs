//! What a function may ask of its host while it runs: log, now, random, query, emit.

use async_trait::async_trait;
use logline_core::ledger::{Cursor, Query};
use logline_core::request::{self, CAUSE, POLICY_DUE};
use logline_core::sandbox::{Failure, HostCalls, Limits};
use logline_core::{Draft, Rules, Scope, SignedSpan, Timestamp, canonical, ids, json, parse_draft, roles};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::journal::Source;

/// Arrays and objects of all drafts that one run emits: they are kept until it ends.
const MAX_CONTAINERS: usize = json::MAX_CONTAINERS / 4;

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

/// What the host of a run knows about it.
pub(crate) struct Facts<'a> {
    /// The version of the request with which it was claimed.
    pub(crate) request: &'a SignedSpan,
    pub(crate) function: Uuid,
    pub(crate) execution: Uuid,
    pub(crate) started: Timestamp,
    pub(crate) limits: &'a Limits,
    pub(crate) rules: Rules,
}

/// Answers one function's calls and collects what it emits.
pub(crate) struct Guest<'a, S> {
    facts: Facts<'a>,
    pub(crate) source: S,
    /// Made so far.
    calls: u32,
    pub(crate) drafts: Vec<Draft>,
    emitted_bytes: usize,
    /// Arrays and objects in all drafts.
    emitted_containers: usize,
    pub(crate) logs: Vec<Value>,
    log_bytes: usize,
    pub(crate) logs_dropped: u32,
    /// The stream of random bytes, once one was asked for.
    random: Option<blake3::OutputReader>,
}

impl<'a, S: Source> Guest<'a, S> {
    pub(crate) fn new(facts: Facts<'a>, source: S) -> Self {
        Self {
            facts,
            source,
            calls: 0,
            drafts: Vec::new(),
            emitted_bytes: 0,
            emitted_containers: 0,
            logs: Vec::new(),
            log_bytes: 0,
            logs_dropped: 0,
            random: None,
        }
    }

    /// The number of this call.
    fn count(&mut self) -> u32 {
        self.calls = self.calls.saturating_add(1);
        self.calls
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
            .tenant(&self.facts.request.tenant_id)
            .owner(&self.facts.request.owner_id)
            .who(format!("function:{}", self.facts.function))
            .at(self.facts.started)
            .related([self.facts.execution]);
        let columns = draft.columns_mut();
        columns.trace_id.clone_from(&self.facts.request.trace_id);
        if columns.this.is_empty() {
            columns.this.clone_from(&columns.entity_type);
        }
        // What the host's key would sign must be what the owner may write: a guest records no executions, publishes no
        // functions, approves nothing.
        if columns.entity_type == "request" && columns.this == POLICY_DUE {
            return Err(refuse(format!("`{POLICY_DUE}` is asked by the runtime only")));
        }
        let scope = Scope::user(&self.facts.request.tenant_id, &self.facts.request.owner_id);
        scope.check_append(draft.columns()).map_err(|e| refuse(e.to_string()))?;
        if !roles::required(draft.columns()).contains(&roles::Role::Member) {
            return Err(refuse(format!("type `{}` cannot be emitted by a function", draft.columns().entity_type)));
        }
        // Each emission of an attempt has an id of its own, the same whenever the attempt is replayed.
        let index = self.drafts.len().to_string();
        // How many policies it follows from is the host's to say.
        let draft = match self.facts.request.meta(CAUSE) {
            Some(cause) => draft.meta(CAUSE, cause.clone()),
            None => draft.without_meta(CAUSE),
        };
        let draft = if draft.columns().entity_type == "request" { request::without_kept(draft) } else { draft };
        let draft = draft.id(ids::derive("emitted", &[&self.facts.execution.to_string(), &index]));
        draft.validate(&self.facts.rules).map_err(|e| Failure::new("invalid_draft", e.to_string()))?;
        Ok(draft)
    }

    /// The draft, if there is room for it.
    fn admit(&self, draft: Value, bytes: usize) -> Result<Draft, Failure> {
        let most = self.facts.limits.emitted;
        if self.drafts.len() >= most as usize {
            return Err(Failure::new("emit_limit", format!("more than {most} emitted spans")));
        }
        if self.emitted_bytes.saturating_add(bytes) > self.facts.rules.max_span_bytes {
            return Err(Failure::new("emit_limit", "all emitted spans together are larger than one span may be"));
        }
        if self.emitted_containers.saturating_add(json::containers(&draft)) > MAX_CONTAINERS {
            let message = format!("all emitted spans together have more than {MAX_CONTAINERS} arrays and objects");
            return Err(Failure::new("emit_limit", message));
        }
        self.draft(draft)
    }
}

#[async_trait]
impl<S: Source> HostCalls for Guest<'_, S> {
    fn log(&mut self, entry: Value) -> Result<(), Failure> {
        self.count();
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let (Some(level), Some(message)) = (text("level"), text("message")) else {
            return Err(Failure::new("invalid_log", "log takes an object of `level`, `message` and optional `fields`"));
        };
        tracing::debug!(target: "logline::guest", function = %self.facts.function, level = cut(level), message = cut(message));
        let mut stored = Map::from_iter([("level".to_owned(), level.into()), ("message".to_owned(), message.into())]);
        if let Some(fields) = entry.get("fields").filter(|f| !f.is_null()) {
            stored.insert("fields".to_owned(), fields.clone());
        }
        let stored = Value::Object(stored);
        let bytes = canonical::to_vec(&stored).len();
        if self.log_bytes.saturating_add(bytes) > self.facts.limits.log_bytes || depth(&stored) > 32 {
            self.logs_dropped = self.logs_dropped.saturating_add(1);
        } else {
            self.log_bytes += bytes;
            self.logs.push(stored);
        }
        Ok(())
    }

    fn now(&mut self) -> Timestamp {
        self.count();
        self.facts.started
    }

    fn random(&mut self, bytes: usize) -> Result<Vec<u8>, Failure> {
        self.count();
        let stream = match &mut self.random {
            Some(stream) => stream,
            None => {
                let seed = self.source.seed()?;
                self.random.insert(blake3::Hasher::new().update(&seed).finalize_xof())
            }
        };
        let mut drawn = vec![0; bytes];
        stream.fill(&mut drawn);
        Ok(drawn)
    }

    async fn query(&mut self, query: Value) -> Result<Value, Failure> {
        let call = self.count();
        let (query, cursor) = read_query(&query).map_err(|message| Failure::new("invalid_query", message))?;
        self.source.query(call, query, cursor).await
    }

    fn emit(&mut self, draft: Value) -> Result<Value, Failure> {
        let call = self.count();
        let (bytes, containers) = (canonical::to_vec(&draft).len(), json::containers(&draft));
        let draft = self.admit(draft, bytes);
        let draft = self.source.emitted(call, draft)?;
        let id = draft.columns().id;
        self.emitted_bytes += bytes;
        self.emitted_containers += containers;
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
