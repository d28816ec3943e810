//! What a policy wants done, as JSON of one form whatever language it is written in.

use logline_core::request::{MAX_ATTEMPTS, MAX_PRIORITY};
use logline_core::{Failure, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

/// Actions about one span, at most.
pub const MAX_ACTIONS: usize = 16;

/// The longest key, bytes.
const MAX_KEY: usize = 512;

/// One thing that a policy wants done.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Append a span.
    Emit {
        /// Its columns, as a guest would write them.
        columns: Map<String, Value>,
        /// Once for this key, ever; without one, once for the span that the policy saw.
        key: Option<String>,
    },
    /// Submit a request.
    Run {
        /// Of this function, on behalf of the policy's owner.
        function: Uuid,
        /// What the function gets.
        input: Value,
        /// Once for this key.
        key: Option<String>,
        /// 0 to 9.
        priority: Option<u8>,
        /// Attempts in all.
        max_attempts: Option<u32>,
        /// Not before.
        due_at: Option<Timestamp>,
    },
    /// Count in a `metric` that has one span for each key, and one version of it for each page of spans that the policy read.
    Count {
        /// The metric's `this`.
        this: String,
        /// What is counted apart.
        key: String,
        /// What the key is made of, for whoever reads the metric.
        labels: Value,
        /// Added to the metric's sum.
        value: f64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionText {
    key: Option<String>,
    emit: Option<Map<String, Value>>,
    run: Option<RunText>,
    count: Option<CountText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunText {
    function: String,
    #[serde(default)]
    input: Value,
    priority: Option<u8>,
    max_attempts: Option<u32>,
    due_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CountText {
    this: String,
    #[serde(default)]
    labels: Value,
    value: Option<f64>,
}

impl Action {
    /// Reads an action.
    ///
    /// # Errors
    /// What is wrong with it: code `invalid_action`.
    pub fn of(value: &Value) -> Result<Self, Failure> {
        let invalid = |reason: String| Failure::new("invalid_action", reason);
        let written = ActionText::deserialize(value).map_err(|e| invalid(format!("an action is malformed: {e}")))?;
        if let Some(key) = written.key.as_ref().filter(|key| key.is_empty() || key.len() > MAX_KEY) {
            return Err(invalid(format!("a key has {} bytes: it must have 1 to {MAX_KEY}", key.len())));
        }
        match (written.emit, written.run, written.count) {
            (Some(columns), None, None) => Ok(Self::Emit { columns, key: written.key }),
            (None, Some(run), None) => {
                let function = run.function.parse().map_err(|_| invalid(format!("`{}` is no function's id", run.function)))?;
                let due_at =
                    run.due_at.map(|text| text.parse().map_err(|e| invalid(format!("run.due_at: {e}")))).transpose()?;
                if run.priority.is_some_and(|priority| priority > MAX_PRIORITY) {
                    return Err(invalid(format!("run.priority must be 0 to {MAX_PRIORITY}")));
                }
                if run.max_attempts.is_some_and(|attempts| !(1..=MAX_ATTEMPTS).contains(&attempts)) {
                    return Err(invalid(format!("run.max_attempts must be 1 to {MAX_ATTEMPTS}")));
                }
                let RunText { input, priority, max_attempts, .. } = run;
                Ok(Self::Run { function, input, key: written.key, priority, max_attempts, due_at })
            }
            (None, None, Some(count)) => {
                let key = written.key.ok_or_else(|| invalid("`count` needs a `key`: what to count apart".to_owned()))?;
                let value = count.value.unwrap_or(1.0);
                if !value.is_finite() || value.abs() > 1e12 {
                    return Err(invalid(format!("count.value is {value}: it must be a number up to 1e12")));
                }
                Ok(Self::Count { this: count.this, key, labels: count.labels, value })
            }
            _ => Err(invalid("an action has one of `emit`, `run` and `count`".to_owned())),
        }
    }

    /// Reads the actions that code has answered: a list, or `null` for none.
    ///
    /// # Errors
    /// The first that is wrong, or that they are too many.
    pub(super) fn list(value: &Value) -> Result<Vec<Self>, Failure> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) if items.len() > MAX_ACTIONS => {
                Err(Failure::new("invalid_action", format!("{} actions, the limit is {MAX_ACTIONS}", items.len())))
            }
            Value::Array(items) => items.iter().map(Self::of).collect(),
            _ => Err(Failure::new("invalid_action", "a policy answers a list of actions, or null")),
        }
    }
}
