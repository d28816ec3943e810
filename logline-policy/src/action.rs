//! Actions: what a policy wants done, as JSON. CEL and WebAssembly policies use the same form.

use std::fmt;

use logline_core::request::{MAX_ATTEMPTS, MAX_PRIORITY};
use logline_core::{Failure, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::bound::Size;

/// The most actions that a policy may take about one span.
pub const MAX_ACTIONS: usize = 16;

/// The longest `key` of an action, in bytes.
const MAX_KEY: usize = 512;

/// One thing that a policy wants done.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Append a span.
    Emit {
        /// The columns of the span, by name. Columns that the host sets ([`HOST_COLUMNS`](logline_kernels::HOST_COLUMNS)) are
        /// not allowed.
        columns: Map<String, Value>,
        /// The policy takes this action once for each key. If `None`, it takes it once for each span version that it decides
        /// about.
        key: Option<String>,
    },
    /// Submit a request.
    Run {
        /// The id of the function to run, on behalf of the policy's owner.
        function: Uuid,
        /// The input of the function. Null if the policy gives none.
        input: Value,
        /// As for [`Action::Emit`].
        key: Option<String>,
        /// The priority of the request, 0 to 9. If `None`, the default of requests applies.
        priority: Option<u8>,
        /// The most attempts, 1 to [`MAX_ATTEMPTS`]. If `None`, the default of requests applies.
        max_attempts: Option<u32>,
        /// The first attempt does not begin before this time. If `None`, it may begin at once.
        due_at: Option<Timestamp>,
    },
    /// Count in a `metric`. There is one span for each `this` and `key`. Each batch that the agent writes adds at most one
    /// version to it.
    Count {
        /// The column `this` of the metric.
        this: String,
        /// What is counted separately: each key has its own metric. 1 to 512 bytes.
        key: String,
        /// What the key stands for. It is stored in the metric's metadata for its readers.
        labels: Value,
        /// The number that is added to the metric's sum. Its count grows by 1.
        value: f64,
    },
}

/// For people, on one line: what would happen.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self {
            Self::Emit { columns, key } => {
                let text = |name: &str| columns.get(name).and_then(Value::as_str).unwrap_or("span");
                write!(f, "emit a `{}`: {}", text("entity_type"), Value::Object(columns.clone()))?;
                key.as_ref()
            }
            Self::Run { function, input, key, priority, max_attempts, due_at } => {
                write!(f, "run {function} with {input}")?;
                priority.map_or(Ok(()), |priority| write!(f, ", priority {priority}"))?;
                max_attempts.map_or(Ok(()), |attempts| write!(f, ", at most {attempts} attempts"))?;
                due_at.map_or(Ok(()), |at| write!(f, ", not before {at}"))?;
                key.as_ref()
            }
            Self::Count { this, key, value, .. } => return write!(f, "count {value} in `{this}` for `{key}`"),
        };
        key.map_or(Ok(()), |key| write!(f, ", once for `{key}`"))
    }
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
    /// About how many bytes its values have.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Emit { columns, .. } => columns.values().map(|value| Size::of(value).bytes).sum(),
            Self::Run { input, .. } => Size::of(input).bytes,
            Self::Count { .. } => 0,
        }
    }

    /// Reads an action from JSON.
    ///
    /// # Errors
    /// Code `invalid_action` if the action is malformed or a value is out of range.
    pub fn of(value: &Value) -> Result<Self, Failure> {
        let invalid = |reason: String| Failure::new("invalid_action", reason);
        let written = ActionText::deserialize(value).map_err(|e| invalid(format!("an action is malformed: {e}")))?;
        if let Some(key) = written.key.as_ref().filter(|key| key.is_empty() || key.len() > MAX_KEY) {
            return Err(invalid(format!("a key has {} bytes: it must have 1 to {MAX_KEY}", key.len())));
        }
        match (written.emit, written.run, written.count) {
            (Some(columns), None, None) => Ok(Self::Emit { columns, key: written.key }),
            (None, Some(run), None) => {
                let function =
                    run.function.parse().map_err(|_| invalid(format!("`{}` is not the id of a function", run.function)))?;
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
                let key = written.key.ok_or_else(|| invalid("`count` needs a `key`: name what is counted".to_owned()))?;
                let value = count.value.unwrap_or(1.0);
                if !value.is_finite() || value.abs() > 1e12 {
                    return Err(invalid(format!("count.value is {value}: it must be a number up to 1e12")));
                }
                Ok(Self::Count { this: count.this, key, labels: count.labels, value })
            }
            _ => Err(invalid("an action must have exactly one of `emit`, `run` and `count`".to_owned())),
        }
    }

    /// The action as [`Action::of`] reads it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        // What is absent stays away, so that what was read and what is written are the same.
        let mut value = match self {
            Self::Emit { columns, .. } => json!({"emit": columns}),
            Self::Run { function, input, priority, max_attempts, due_at, .. } => {
                let mut run = Map::from_iter([("function".to_owned(), json!(function)), ("input".to_owned(), input.clone())]);
                run.extend(priority.map(|priority| ("priority".to_owned(), json!(priority))));
                run.extend(max_attempts.map(|attempts| ("max_attempts".to_owned(), json!(attempts))));
                run.extend(due_at.map(|at| ("due_at".to_owned(), json!(at.to_string()))));
                json!({"run": run})
            }
            Self::Count { this, labels, value, .. } => json!({"count": {"this": this, "labels": labels, "value": value}}),
        };
        let key = match self {
            Self::Emit { key, .. } | Self::Run { key, .. } => key.as_ref(),
            Self::Count { key, .. } => Some(key),
        };
        if let Some((members, key)) = value.as_object_mut().zip(key) {
            members.insert("key".to_owned(), json!(key));
        }
        value
    }

    /// Reads the actions that a WebAssembly policy returned: a list, or `null` for none.
    ///
    /// # Errors
    /// Code `invalid_action` for the first action that is invalid, or if there are more than [`MAX_ACTIONS`].
    pub(super) fn list(value: &Value) -> Result<Vec<Self>, Failure> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) if items.len() > MAX_ACTIONS => {
                Err(Failure::new("invalid_action", format!("{} actions, the limit is {MAX_ACTIONS}", items.len())))
            }
            Value::Array(items) => items.iter().map(Self::of).collect(),
            _ => Err(Failure::new("invalid_action", "a policy must return a list of actions, or null")),
        }
    }
}
