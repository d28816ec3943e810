//! What a guest may emit: operation 5 of the ABI.
//!
//! INVARIANT: the host's key signs only what the request's owner may write.

use logline_core::request::{self, CAUSE, FUNCTION_RUN, Within};
use logline_core::{Draft, Failure, Scope, ids, json, parse_draft, roles};
use serde_json::Value;

use crate::run_code::guest::Guest;
use crate::run_code::journal::Source;

/// The most arrays and objects in all drafts of one run. The drafts stay in memory until the run ends.
const MAX_CONTAINERS: usize = json::MAX_CONTAINERS / 4;

/// The columns that neither a guest nor a policy may set, because the host sets them. A guest may not set `owner_id` either.
pub const HOST_COLUMNS: &[&str] = &[
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

impl<S: Source> Guest<'_, S> {
    /// Builds the draft of what a guest emits, as if the request's owner had written it.
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
        let is_request = columns.entity_type == "request";
        if columns.this.is_empty() {
            columns.this = if is_request { FUNCTION_RUN.to_owned() } else { columns.entity_type.clone() };
        }
        // The host's key signs the draft, and some kinds of requests are carried out only because a host has signed them.
        if is_request && columns.this != FUNCTION_RUN {
            return Err(refuse(format!("a function may submit `{FUNCTION_RUN}` only, not `{}`", columns.this)));
        }
        // A model decides how often a tool runs. If tools could ask for themselves, nobody would.
        if is_request && Within::of(self.facts.request).is_some() {
            return Err(refuse("a function that runs as a tool may not submit requests".to_owned()));
        }
        let scope = Scope::user(&self.facts.request.tenant_id, &self.facts.request.owner_id);
        scope.check_append(draft.columns()).map_err(|e| refuse(e.to_string()))?;
        if !roles::required(draft.columns()).contains(&roles::Role::Member) {
            return Err(refuse(format!("type `{}` cannot be emitted by a function", draft.columns().entity_type)));
        }
        // Each emitted span of an attempt has its own id. It is the same when the attempt is replayed.
        let index = self.drafts.len().to_string();
        // Only the host says how many policies a span follows from.
        let draft = match request::cause(self.facts.request) {
            Some(cause) => draft.meta(CAUSE, cause.clone()),
            None => draft.without_meta(CAUSE),
        };
        let draft = if is_request { request::without_host_only(draft) } else { draft };
        let draft = draft.id(ids::derive("emitted", &[&self.facts.execution.to_string(), &index]));
        draft.validate(&self.facts.rules).map_err(|e| Failure::new("invalid_draft", e.to_string()))?;
        Ok(draft)
    }

    /// Builds the draft, unless the run has reached a limit of what it may emit.
    pub(super) fn admit(&self, draft: Value, bytes: usize) -> Result<Draft, Failure> {
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
