//! Compiled policies and their decisions. Nothing is written here: the agent carries decisions out.

use std::collections::BTreeMap;

use logline_core::Failure;
use logline_core::contract::Validator;
use logline_core::roles::{is_near, similar};
use logline_core::{SignedSpan, Span, Timestamp, json as strict};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::action::{Action, MAX_ACTIONS};
use crate::bound::Size;
use crate::cursor::CURSOR;
use crate::expression::{Expression, MAX_COST, USUAL, context};
use crate::template::Template;
use crate::wasm::{self, Sandboxed};
use crate::{effects, value};

/// The most spans that a policy may write in a UTC day, if `content.effects_per_day` is absent.
pub const DEFAULT_EFFECTS_PER_DAY: u64 = 10_000;

/// The most bytes of all actions about one span: the bytes of their texts, plus eight for every value.
const MAX_ACTION_BYTES: u64 = 2 << 20;

/// The largest valid `content.effects_per_day`.
const MAX_EFFECTS_PER_DAY: u64 = 10_000_000;

/// The variables of an expression. With `content.due` there is no `facts`.
const VARIABLES: &[&str] = &["span", "config", "now", "day", "facts"];

/// What a policy gets besides the span, as `facts`. It is the same for every span of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Facts {
    /// How many attempts the tenant has made today (UTC).
    pub used: u64,
    /// How many attempts a day the manifest allows. Zero means no limit.
    pub limit: u64,
}

impl Facts {
    /// Creates facts from the attempts of today and the daily limit (zero for none).
    #[must_use]
    pub fn new(used: u64, limit: u64) -> Self {
        Self { used, limit }
    }

    fn to_value(self) -> Value {
        json!({"used": self.used, "limit": self.limit})
    }
}

/// What a policy decided about a span.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Decision {
    /// Nothing follows.
    Pass,
    /// These actions follow, at least one.
    Act(Vec<Action>),
    /// The policy decides again at this time.
    Later(Timestamp),
}

/// A policy that is compiled and can decide.
#[derive(Debug)]
pub struct Policy {
    /// The entity types of spans that it concerns. Empty means all.
    on: Vec<String>,
    /// The most spans that it may write in a UTC day.
    pub(crate) effects_per_day: u64,
    config: Value,
    code: Code,
}

#[derive(Debug)]
enum Code {
    Cel {
        when: Expression,
        due: Option<Expression>,
        then: Vec<Template>,
    },
    /// Code that runs in the sandbox for `runtime`.
    Sandboxed {
        runtime: String,
        code: String,
    },
}

/// The column `content` of a policy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyText {
    on: Vec<String>,
    when: Option<String>,
    due: Option<String>,
    then: Option<Vec<Value>>,
    effects_per_day: Option<u64>,
}

impl Policy {
    /// Reads and compiles a policy.
    ///
    /// # Errors
    /// Codes `invalid_policy`, `invalid_expression` (with line and column) and `too_costly`.
    pub fn of(span: &Span) -> Result<Self, Failure> {
        let invalid = |reason: String| Failure::new("invalid_policy", reason);
        let content = span.content.as_ref().ok_or_else(|| {
            invalid(r#"content is missing: give it `{"on": ["execution"], "when": "…", "then": […]}`"#.to_owned())
        })?;
        let PolicyText { on, when, due, then, effects_per_day } =
            PolicyText::deserialize(content).map_err(|e| invalid(format!("content is malformed: {e}")))?;
        if on.is_empty() {
            return Err(invalid("content.on names no types: list them, or `*` for all".to_owned()));
        }
        let effects_per_day = effects_per_day.unwrap_or(DEFAULT_EFFECTS_PER_DAY);
        if effects_per_day == 0 || effects_per_day > MAX_EFFECTS_PER_DAY {
            return Err(invalid(format!(
                "content.effects_per_day is {effects_per_day}: it must be 1 to {MAX_EFFECTS_PER_DAY}"
            )));
        }
        let config = span.input.clone().unwrap_or_else(|| json!({}));
        let code = match (span.language.as_deref(), when, then) {
            (Some("cel"), Some(when), Some(then)) => cel(&when, due.as_deref(), &then)?,
            (Some("cel"), _, _) => return Err(invalid("a policy in cel must have content.when and content.then".to_owned())),
            (Some("wasm"), None, None) if due.is_none() => {
                let (Some(runtime), Some(code)) = (span.runtime.clone(), span.code.clone()) else {
                    return Err(invalid("a policy in wasm must have runtime and code, as a function has".to_owned()));
                };
                Code::Sandboxed { runtime, code }
            }
            (Some("wasm"), _, _) => {
                return Err(invalid("a policy in wasm decides in its code: leave out content.when, due and then".to_owned()));
            }
            (language, _, _) => {
                return Err(invalid(format!(
                    "language `{}` is not supported for policies: use cel or wasm",
                    language.unwrap_or_default()
                )));
            }
        };
        let on = if on.iter().any(|entity_type| entity_type == "*") { Vec::new() } else { on };
        let policy = Self { on, effects_per_day, config, code };
        let cost = policy.cost(&sizes(USUAL, &policy.config));
        if cost > MAX_COST {
            let message =
                format!("a span of {} values could cost {cost} units, the limit is {MAX_COST}: nest fewer loops", USUAL.items);
            return Err(Failure::new("too_costly", message));
        }
        Ok(policy)
    }

    /// Whether it concerns spans of this type. No policy concerns cursors of policies.
    pub(crate) fn concerns(&self, entity_type: &str) -> bool {
        entity_type != CURSOR && (self.on.is_empty() || self.on.iter().any(|on| on == entity_type))
    }

    fn cost(&self, sizes: &BTreeMap<String, Size>) -> u64 {
        match &self.code {
            Code::Cel { when, due, then } => {
                let conditions = std::iter::once(when).chain(due).map(|expression| expression.bound(sizes).cost);
                let given = sizes.values().map(|size| size.conversion());
                given.chain(conditions).chain(then.iter().map(|template| template.cost(sizes))).fold(0, u64::saturating_add)
            }
            // The sandbox limits the fuel of a run.
            Code::Sandboxed { .. } => 0,
        }
    }

    /// Decides about `span`. `now` is the span's `at`, so the decision is always the same for the same span, policy and facts.
    ///
    /// # Errors
    /// `too_costly` if the span is so large that the evaluation could take too long, `evaluation_failed` if an expression has
    /// no value, `invalid_action`, or the failure of the sandbox.
    pub async fn decide(&self, span: &SignedSpan, facts: Facts, sandbox: Sandboxed<'_>) -> Result<Decision, Failure> {
        match &self.code {
            Code::Cel { .. } => self.decide_cel(span, facts, span.at),
            Code::Sandboxed { runtime, code } => {
                let input = json!({"span": columns(span)?, "now": span.at.to_string(), "facts": facts.to_value()});
                let answer = wasm::run((runtime, code), &span.tenant_id, &self.config, &input, sandbox).await?;
                let actions = Action::list(&answer)?;
                Ok(if actions.is_empty() { Decision::Pass } else { Decision::Act(actions) })
            }
        }
    }

    /// Whether it is written in CEL. Such a policy needs no sandbox and decides about many spans in one task.
    pub(crate) fn is_cel(&self) -> bool {
        matches!(self.code, Code::Cel { .. })
    }

    /// As [`Policy::decide`], for CEL only and with any `now`.
    pub(crate) fn decide_cel(&self, span: &SignedSpan, facts: Facts, now: Timestamp) -> Result<Decision, Failure> {
        let Code::Cel { when, due, then } = &self.code else { return Ok(Decision::Pass) };
        let value = columns(span)?;
        let cost = self.cost(&sizes(Size::of(&value), &self.config));
        if cost > MAX_COST {
            let message = format!("span {} could cost {cost} units, the limit is {MAX_COST}", span.key());
            return Err(Failure::new("too_costly", message));
        }
        let facts = facts.to_value();
        let given = context(&[("span", &value), ("config", &self.config), ("facts", &facts)], now);
        match when.evaluate(&given)? {
            cel::Value::Bool(true) => {}
            cel::Value::Bool(false) => return Ok(Decision::Pass),
            other => {
                let message = format!("content.when is of type {}: it must be true or false", other.type_of());
                return Err(Failure::new("evaluation_failed", message));
            }
        }
        if let Some(due) = due {
            let due = value::from_cel(&due.evaluate(&given)?)?;
            let time = due.as_str().and_then(|text| text.parse::<Timestamp>().ok());
            let time =
                time.ok_or_else(|| Failure::new("evaluation_failed", format!("content.due is `{due}`: it must be a time")))?;
            if time > now {
                // This is also reached if `due` has moved to a later time since.
                return Ok(Decision::Later(time));
            }
        }
        let mut actions = Vec::with_capacity(then.len());
        let mut bytes = 0_u64;
        for template in then {
            let rendered = template.render(&given)?;
            bytes = bytes.saturating_add(Size::of(&rendered).bytes);
            if bytes > MAX_ACTION_BYTES {
                let message = format!("its actions have more than {MAX_ACTION_BYTES} bytes: emit less");
                return Err(Failure::new("invalid_action", message));
            }
            actions.push(Action::of(&rendered)?);
        }
        Ok(Decision::Act(actions))
    }
}

/// A span as policies see it: every column that has a value, by its name.
fn columns(span: &SignedSpan) -> Result<Value, Failure> {
    strict::parse(&span.to_line()).map_err(|e| Failure::new("internal", e.to_string()))
}

fn sizes(span: Size, config: &Value) -> BTreeMap<String, Size> {
    let small = Size { items: 3, bytes: 64 };
    [("span", span), ("config", Size::of(config)), ("now", small), ("day", small), ("facts", small)]
        .into_iter()
        .map(|(name, size)| (name.to_owned(), size))
        .collect()
}

fn cel(when: &str, due: Option<&str>, then: &[Value]) -> Result<Code, Failure> {
    let invalid = |reason: String| Failure::new("invalid_policy", reason);
    if then.is_empty() || then.len() > MAX_ACTIONS {
        return Err(invalid(format!("content.then has {} actions: it must have 1 to {MAX_ACTIONS}", then.len())));
    }
    let variables = if due.is_some() { &["span", "config", "now", "day"] } else { VARIABLES };
    let when = Expression::compile(when, "content.when", variables)?;
    let due = due.map(|due| Expression::compile(due, "content.due", variables)).transpose()?;
    let mut templates = Vec::with_capacity(then.len());
    for (n, action) in then.iter().enumerate() {
        let place = format!("content.then[{n}]");
        let kinds = ["emit", "run", "count"].into_iter().filter(|kind| action.get(kind).is_some()).collect::<Vec<_>>();
        let [kind] = kinds.as_slice() else {
            return Err(invalid(format!("{place} must have one of `emit`, `run` and `count`")));
        };
        match *kind {
            "count" if due.is_some() => return Err(invalid(format!("{place}: `count` does not work with content.due"))),
            "count" if action.get("key").is_none() => return Err(invalid(format!("{place} counts without a `key`: add one"))),
            "emit" => effects::check_emitted(action.get("emit").unwrap_or(&Value::Null))
                .map_err(|reason| invalid(format!("{place}: {reason}")))?,
            "run" => {
                let function =
                    action.get("run").and_then(|run| run.get("function")).and_then(Value::as_str).unwrap_or_default();
                if !function.contains("${") && function.parse::<Uuid>().is_err() {
                    return Err(invalid(format!(
                        "{place}.run.function is `{function}`: give the id of a function (`logline function ls` lists them)"
                    )));
                }
            }
            _ => {}
        }
        templates.push(Template::compile(action, &place, variables)?);
    }
    Ok(Code::Cel { when, due, then: templates })
}

/// Refuses to publish policies that do not compile.
#[derive(Debug, Clone, Copy, Default)]
pub struct PolicyValidator;

impl Validator for PolicyValidator {
    fn validate(&self, span: &Span) -> Result<(), Failure> {
        if span.entity_type != "policy" || span.is_deleted {
            return Ok(());
        }
        let invalid = |reason: String| Err(Failure::new("invalid_policy", reason));
        let policy = Policy::of(span)?;
        let status = span.status.as_deref().unwrap_or_default();
        if status.is_empty() || (status != "active" && is_near(&status.to_lowercase(), "active")) {
            return invalid(format!("its status is `{status}`: `active` puts it to work, any other such as `draft` does not"));
        }
        if let Some((on, meant)) = policy.on.iter().find_map(|on| Some((on, similar(on)?))) {
            return invalid(format!(
                "content.on names `{on}`, a type that the library does not write: did you mean `{meant}`?"
            ));
        }
        if let Code::Cel { when, .. } = &policy.code
            && when.is_never_a_condition()
        {
            return invalid("content.when is a value, not a condition: compare it, as in `span.status == 'error'`".to_owned());
        }
        Ok(())
    }
}
