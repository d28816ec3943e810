//! Turns the actions of a policy into drafts.

use std::time::Duration;

use chrono::NaiveDate;
use logline_core::Failure;
use logline_core::request::{self, CAUSE, Request};
use logline_core::roles::{self, Role};
use logline_core::trust::Authorities;
use logline_core::{COLUMNS, Draft, Rules, SignedSpan, Timestamp, VerifiedSpan, Visibility, ids, parse_draft};
use logline_kernels::HOST_COLUMNS;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::POLICY_DUE;
use crate::action::Action;

/// The most policies that may follow from each other. No policy acts on a span of this depth.
pub const MAX_DEPTH: u64 = 8;

/// The result of one action.
pub(super) enum Consequence {
    /// A span to write.
    Write(Box<Effect>),
    /// Something to count.
    Count(Tally),
}

/// A span to write, and whether it may exist already.
#[derive(Debug, Clone)]
pub(super) struct Effect {
    pub(super) draft: Draft,
    /// Whether its id comes from a key, so that an earlier span may already have caused it.
    pub(super) is_keyed: bool,
}

/// One value to count in a metric.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    pub(super) id: Uuid,
    pub(super) this: String,
    pub(super) key: String,
    pub(super) labels: Value,
    pub(super) value: f64,
}

/// The policy that decided, and the span that it decided about.
#[derive(Clone, Copy)]
pub(super) struct Cause<'a> {
    pub(super) policy: &'a SignedSpan,
    pub(super) span: &'a SignedSpan,
    /// How many policies `span` follows from.
    pub(super) depth: u64,
    /// The time of the decision. It becomes `at` of the effects.
    pub(super) now: Timestamp,
    /// How often the decision was put off.
    pub(super) put_off: u32,
}

/// How often a decision about this version of the span was put off before this request.
pub(super) const PUT_OFF: &str = "put_off";

/// The least time until a decision that was put off for the second time; it doubles each time.
const LEAST_DELAY: Duration = Duration::from_secs(1);

/// The longest that the least time grows to, for a decision that is put off over and over.
const LONGEST_LEAST_DELAY: Duration = Duration::from_secs(60 * 60);

/// How many policies a span follows from. Anybody can write metadata, so it counts only if a runtime key signed the span.
pub(super) fn depth(span: &SignedSpan, authorities: &Authorities) -> u64 {
    if !authorities.had_role(span, Role::Runtime) {
        return 0;
    }
    request::cause(span).and_then(|cause| cause.get("depth")).and_then(Value::as_u64).unwrap_or(0)
}

/// Checks whether a policy may emit these columns. Values that are expressions are checked after their evaluation.
pub(super) fn check_emitted(columns: &Value) -> Result<(), String> {
    let Value::Object(columns) = columns else { return Err("`emit` must be an object of columns".to_owned()) };
    if let Some(column) = HOST_COLUMNS.iter().find(|column| columns.contains_key(**column)) {
        return Err(format!("column `{column}` is set by the host: leave it out"));
    }
    if let Some(column) = columns.keys().find(|column| !COLUMNS.contains(&column.as_str())) {
        return Err(format!("`{column}` is not a column of spans: put members of your own into `content` or `metadata`"));
    }
    match columns.get("entity_type").and_then(Value::as_str) {
        None => Err("`emit` needs an `entity_type`".to_owned()),
        Some(entity_type) if !entity_type.contains("${") => check_type(entity_type),
        Some(_) => Ok(()),
    }
}

fn check_type(entity_type: &str) -> Result<(), String> {
    if entity_type == "request" {
        return Err("a policy cannot emit a request: submit it with `run`".to_owned());
    }
    if !roles::is_emitted_by_policies(entity_type) {
        return Err(format!("type `{entity_type}` cannot be emitted by a policy"));
    }
    Ok(())
}

impl Cause<'_> {
    /// The value of `metadata.policy` in every effect: the policy, the span that it decided about, and the new depth.
    pub(super) fn to_value(self) -> Value {
        let reference = |span: &SignedSpan| json!({"id": span.id.to_string(), "seq": span.seq, "curr_hash": span.seal.curr_hash.to_string()});
        let mut cause = reference(self.policy);
        if let Value::Object(members) = &mut cause {
            members.insert("depth".to_owned(), self.depth.saturating_add(1).into());
            members.insert("span".to_owned(), reference(self.span));
        }
        cause
    }

    fn id(self, kind: &str, key: Option<&str>, index: usize) -> Uuid {
        let (tenant, policy) = (&self.policy.tenant_id, self.policy.id.to_string());
        match key {
            Some(key) => ids::derive(kind, &[tenant, &policy, "key", key, &index.to_string()]),
            None => {
                let (span, seq) = (self.span.id.to_string(), self.span.seq.to_string());
                ids::derive(kind, &[tenant, &policy, &span, &seq, &index.to_string()])
            }
        }
    }

    /// Builds the result of one action. `index` is its position in the list of actions about the span.
    ///
    /// # Errors
    /// Code `invalid_draft` if the span could not be stored.
    pub(super) fn effect(self, action: Action, index: usize, rules: &Rules) -> Result<Consequence, Failure> {
        match action {
            Action::Emit { columns, key } => {
                let is_keyed = key.is_some();
                let draft = self.emitted(columns, key.as_deref(), index)?;
                draft.validate(rules).map_err(|e| Failure::new("invalid_draft", e.to_string()))?;
                Ok(Consequence::Write(Box::new(Effect { draft, is_keyed })))
            }
            Action::Run { function, input, key, priority, max_attempts, due_at } => {
                let is_keyed = key.is_some();
                let id = self.id("policy_request", key.as_deref(), index);
                let policy = self.policy;
                let mut request = Request::new(&policy.tenant_id, &policy.owner_id, function, input).cause(self.to_value());
                request.trace_id.clone_from(&self.span.trace_id);
                request.who = Some("kernel:policy_agent".to_owned());
                (request.terms.priority, request.terms.max_attempts, request.terms.due_at) = (priority, max_attempts, due_at);
                let draft = request.into_draft(id).at(self.now).related([self.span.id]).deterministic();
                draft.validate(rules).map_err(|e| Failure::new("invalid_draft", e.to_string()))?;
                Ok(Consequence::Write(Box::new(Effect { draft, is_keyed })))
            }
            Action::Count { this, key, labels, value } => {
                let id = ids::derive("policy_count", &[&self.policy.tenant_id, &self.policy.id.to_string(), &this, &key]);
                let tally = Tally { id, this, key, labels, value };
                // Validated now, because here it is known which span caused an invalid metric.
                tally.draft(1, value, None, self).validate(rules).map_err(|e| Failure::new("invalid_draft", e.to_string()))?;
                Ok(Consequence::Count(tally))
            }
        }
    }

    fn emitted(self, columns: Map<String, Value>, key: Option<&str>, index: usize) -> Result<Draft, Failure> {
        let invalid = |reason: String| Failure::new("invalid_draft", reason);
        // A column that is null counts as absent.
        let columns = Value::Object(columns.into_iter().filter(|(_, value)| !value.is_null()).collect());
        check_emitted(&columns).map_err(invalid)?;
        let has = |name: &str| columns.get(name).is_some();
        let (has_owner, has_visibility, has_parent, has_did) =
            (has("owner_id"), has("visibility"), has("parent_id"), has("did"));
        let mut draft = parse_draft(columns).map_err(|e| invalid(e.to_string()))?;
        check_type(&draft.columns().entity_type).map_err(invalid)?;
        let policy = self.policy;
        draft = draft
            .id(self.id("policy_effect", key, index))
            .at(self.now)
            .tenant(&policy.tenant_id)
            .who(format!("policy:{}", policy.id))
            .related([self.span.id]);
        let cause = self.to_value();
        let columns = draft.columns_mut();
        if !has_owner {
            columns.owner_id.clone_from(&policy.owner_id);
        }
        if !has_visibility {
            columns.visibility = Visibility::Private;
        }
        if !has_parent {
            columns.parent_id = Some(self.span.id);
        }
        if !has_did {
            columns.did = Some("decided".to_owned());
        }
        if columns.this.is_empty() {
            columns.this.clone_from(&columns.entity_type);
        }
        columns.trace_id.clone_from(&self.span.trace_id);
        Ok(draft.meta(CAUSE, cause).deterministic())
    }

    /// Builds the request to decide about the span again at `due`.
    pub(super) fn later(self, due: Timestamp) -> Effect {
        let policy = self.policy;
        // Each time it is put off again, it waits at least twice as long as the time before.
        let due = match self.put_off.checked_sub(1) {
            Some(again) => {
                let least = LEAST_DELAY.saturating_mul(1 << again.min(12)).min(LONGEST_LEAST_DELAY);
                due.max(self.now.saturating_add(least))
            }
            None => due,
        };
        let time = due.to_string();
        let id = ids::derive(
            "policy_due",
            &[&policy.tenant_id, &policy.id.to_string(), &self.span.id.to_string(), &self.span.seq.to_string(), &time],
        );
        let mut draft = Draft::new("request")
            .id(id)
            .at(self.now)
            .tenant(&policy.tenant_id)
            .owner(&policy.owner_id)
            .who("kernel:policy_agent")
            .did("requested")
            .this(POLICY_DUE)
            .parent(policy.id)
            .related([self.span.id])
            .status("scheduled")
            .metadata(json!({"attempt": 0, "due_at": time, PUT_OFF: self.put_off.saturating_add(1)}))
            .meta(CAUSE, self.to_value());
        draft.columns_mut().trace_id.clone_from(&self.span.trace_id);
        Effect { draft: draft.deterministic(), is_keyed: false }
    }

    /// Builds the violation that is recorded if the policy could not act. It is recorded once a day for each version of the
    /// policy. The whole tenant sees it. A message may quote the span, so it is left out if the tenant does not see the span.
    pub(super) fn violation(self, what: &str, failure: &Failure, day: NaiveDate) -> Effect {
        let policy = self.policy;
        let kept_back = Failure::new(
            failure.code.clone(),
            "the policy failed on a private span, which the message may quote: try the policy on that span (dry run) to see it",
        );
        let failure = if what == "error" && self.span.visibility == Visibility::Private { &kept_back } else { failure };
        let (id, hash, day) = (policy.id.to_string(), policy.seal.curr_hash.to_string(), day.to_string());
        let draft = Draft::new("policy_violation")
            .id(ids::derive("policy_violation", &[&policy.tenant_id, &id, &hash, what, &day]))
            .at(self.now)
            .tenant(&policy.tenant_id)
            .owner(&policy.owner_id)
            .visibility(Visibility::Tenant)
            .who("kernel:policy_agent")
            .did("stopped")
            .this(format!("policy.{what}"))
            .parent(policy.id)
            .related([policy.id, self.span.id])
            .status("open")
            .error(failure.to_value())
            .metadata(json!({"day": day}))
            .meta(CAUSE, self.to_value());
        Effect { draft: draft.deterministic(), is_keyed: true }
    }
}

/// 2^53−1: up to here a double represents every whole number exactly. Sums stop here.
const EXACT: f64 = 9_007_199_254_740_991.0;

/// The JSON of a number. A whole number becomes an integer, as in the canonical form.
fn shown(number: f64) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "whole, and within ±2^53")]
    if number.fract() == 0.0 { json!(number.clamp(-EXACT, EXACT) as i64) } else { json!(number) }
}

impl Tally {
    /// Builds the next version of the metric, or the first. The counts of one batch are added to those of `before`. `cause` has
    /// the greatest depth of the counted spans.
    pub(super) fn draft(&self, count: u64, sum: f64, before: Option<&VerifiedSpan>, cause: Cause<'_>) -> Draft {
        let policy = cause.policy;
        let number = |name: &str| before.and_then(|span| span.output.as_ref()?.get(name)?.as_f64()).unwrap_or(0.0);
        #[allow(clippy::cast_precision_loss, reason = "counts are below 2^53")]
        let output = json!({"count": shown(number("count") + count as f64), "sum": shown(number("sum") + sum)});
        let draft = match before {
            Some(before) => Draft::next_version(before),
            None => Draft::new("metric")
                .id(self.id)
                .tenant(&policy.tenant_id)
                .owner(&policy.owner_id)
                .visibility(Visibility::Tenant)
                .who(format!("policy:{}", policy.id))
                .did("counted")
                .this(&self.this)
                .parent(policy.id)
                .metadata(json!({"key": self.key, "labels": self.labels})),
        };
        draft.at(cause.now).output(output).meta(CAUSE, cause.to_value())
    }
}
