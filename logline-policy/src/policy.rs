//! A policy, compiled, and its decisions. Pure: carrying them out is the agent's.

use std::collections::BTreeMap;

use logline_core::Failure;
use logline_core::contract::Validator;
use logline_core::{SignedSpan, Span, Timestamp, json as strict};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::action::{Action, MAX_ACTIONS};
use crate::bound::Size;
use crate::cursor::CURSOR;
use crate::expression::{Expression, MAX_COST, USUAL, context};
use crate::template::Template;
use crate::wasm::{self, Sandboxed};
use crate::{effects, value};

/// What a policy may bring about in a day, unless it says otherwise.
pub const DEFAULT_EFFECTS_PER_DAY: u64 = 10_000;

/// Bytes of all actions about one span, with eight for every value.
const MAX_ACTION_BYTES: u64 = 2 << 20;

/// The most that it may say.
const MAX_EFFECTS_PER_DAY: u64 = 10_000_000;

/// Variables of every expression.
const VARIABLES: &[&str] = &["span", "config", "now", "day", "facts"];

/// What a policy may know besides the span: the same for every span of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Facts {
    /// Attempts that the tenant has made today, and how many the manifest allows; zero for no limit.
    pub used: u64,
    /// See `used`.
    pub limit: u64,
}

impl Facts {
    /// Attempts made today, and how many are allowed.
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
    /// Nothing.
    Pass,
    /// These actions.
    Act(Vec<Action>),
    /// To look again at this time.
    Later(Timestamp),
}

/// A policy that can decide.
#[derive(Debug)]
pub struct Policy {
    /// Types of spans that it is about; empty for all.
    on: Vec<String>,
    /// Actions in a day.
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
    /// For the sandbox of this runtime.
    Sandboxed {
        runtime: String,
        code: String,
    },
}

/// The `content` of a policy.
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
    /// What is wrong with it, with line and column where it is an expression: codes `invalid_policy`, `invalid_expression`,
    /// `too_costly`.
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
            (Some("cel"), _, _) => return Err(invalid("a policy in cel has content.when and content.then".to_owned())),
            (Some("wasm"), None, None) if due.is_none() => {
                let (Some(runtime), Some(code)) = (span.runtime.clone(), span.code.clone()) else {
                    return Err(invalid("a policy in wasm has runtime and code, as a function".to_owned()));
                };
                Code::Sandboxed { runtime, code }
            }
            (Some("wasm"), _, _) => {
                return Err(invalid("a policy in wasm decides in its code: leave out content.when, due and then".to_owned()));
            }
            (language, _, _) => {
                return Err(invalid(format!(
                    "language `{}` is none of policies: use cel or wasm",
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

    /// Whether it is about spans of this type. Never about where policies have got to.
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
            // Fuel bounds it.
            Code::Sandboxed { .. } => 0,
        }
    }

    /// Decides about `span`, at its own time. The same for the same span, policy and facts, whenever it is asked.
    ///
    /// # Errors
    /// `too_costly` for a span so large that the evaluation could take too long, `evaluation_failed` where an expression has no
    /// value, and what the sandbox says.
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

    /// Whether it decides without a sandbox, so that many spans can be decided about at once.
    pub(crate) fn is_cel(&self) -> bool {
        matches!(self.code, Code::Cel { .. })
    }

    /// As [`Policy::decide`] for CEL, at whatever time.
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
                let message = format!("content.when is a {}, not true or false", other.type_of());
                return Err(Failure::new("evaluation_failed", message));
            }
        }
        if let Some(due) = due {
            let due = value::from_cel(&due.evaluate(&given)?)?;
            let time = due.as_str().and_then(|text| text.parse::<Timestamp>().ok());
            let time =
                time.ok_or_else(|| Failure::new("evaluation_failed", format!("content.due is {due}, which is no time")))?;
            if time > now {
                // Also where it has been put off.
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

/// A span as policies see it: every column that is there, by its name.
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
            "count" if due.is_some() => return Err(invalid(format!("{place}: `count` and content.due do not go together"))),
            "count" if action.get("key").is_none() => return Err(invalid(format!("{place} counts without a `key`"))),
            "emit" => effects::check_emitted(action.get("emit").unwrap_or(&Value::Null))
                .map_err(|reason| invalid(format!("{place}: {reason}")))?,
            _ => {}
        }
        templates.push(Template::compile(action, &place, variables)?);
    }
    Ok(Code::Cel { when, due, then: templates })
}

/// Refuses policies that do not compile.
#[derive(Debug, Clone, Copy, Default)]
pub struct PolicyValidator;

impl Validator for PolicyValidator {
    fn validate(&self, span: &Span) -> Result<(), Failure> {
        if span.entity_type != "policy" || span.is_deleted { Ok(()) } else { Policy::of(span).map(drop) }
    }
}
