//! Conditions: parsed once with an exact place for every mistake, then evaluated without a way to fail on the event.

use crate::alerts::OpenAlerts;
use crate::event::Event;
use crate::found::found;
use crate::rules::invalid;
use core::cmp::Ordering;
use logline_guest::Failure;
use logline_guest::Host;
use serde_json::{Map, Value};

/// When a rule hits.
#[derive(Debug)]
pub(crate) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Exists { field: String, expected: bool },
    Compare { field: String, op: Comparison, with: Operand },
    Member { field: String, of: Vec<Value>, expected: bool },
    OpenAlerts { at_least: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
}

/// The right-hand side of a comparison.
#[derive(Debug)]
pub(crate) enum Operand {
    Literal(Value),
    /// Another field of the same event.
    Field(String),
}

impl Condition {
    /// Reads a condition; `at` is its place in the table, for messages.
    pub(crate) fn parse(value: Option<&Value>, at: &str) -> Result<Self, Failure> {
        let Some(Value::Object(object)) = value else {
            return Err(invalid(at, "a condition as an object", value));
        };
        if object.contains_key("all") {
            only(object, &["all"], at)?;
            return parse_list(object.get("all"), &format!("{at}.all")).map(Self::All);
        }
        if object.contains_key("any") {
            only(object, &["any"], at)?;
            return parse_list(object.get("any"), &format!("{at}.any")).map(Self::Any);
        }

        let op_at = format!("{at}.op");
        let Some(op) = object.get("op").and_then(Value::as_str) else {
            return Err(invalid(&op_at, "the name of an operator", object.get("op")));
        };
        let value = object.get("value");
        let value_at = format!("{at}.value");
        if op == "open_alerts_gte" {
            only(object, &["op", "value"], at)?;
            return match value.and_then(Value::as_u64) {
                Some(at_least) if at_least > 0 => Ok(Self::OpenAlerts { at_least }),
                _ => Err(invalid(&value_at, "an integer, 1 or more", value)),
            };
        }

        let comparison = match op {
            "exists" => {
                only(object, &["field", "op", "value"], at)?;
                let field = path(object.get("field"), &format!("{at}.field"))?;
                return match value {
                    None => Ok(Self::Exists { field, expected: true }),
                    Some(Value::Bool(expected)) => Ok(Self::Exists { field, expected: *expected }),
                    Some(_) => Err(invalid(&value_at, "true or false", value)),
                };
            }
            "in" | "not_in" => {
                only(object, &["field", "op", "value"], at)?;
                let field = path(object.get("field"), &format!("{at}.field"))?;
                return match value {
                    Some(Value::Array(of)) if !of.is_empty() && of.iter().all(is_scalar) => {
                        Ok(Self::Member { field, of: of.clone(), expected: op == "in" })
                    }
                    _ => Err(invalid(&value_at, "a non-empty array of strings, numbers or booleans", value)),
                };
            }
            "eq" => Comparison::Eq,
            "ne" => Comparison::Ne,
            "gt" => Comparison::Gt,
            "gte" => Comparison::Gte,
            "lt" => Comparison::Lt,
            "lte" => Comparison::Lte,
            _ => return Err(Failure::new("invalid_config", format!("`{op_at}`: unknown operator `{op}`"))),
        };

        only(object, &["field", "op", "value", "value_from"], at)?;
        let field = path(object.get("field"), &format!("{at}.field"))?;
        let with = match (value, object.get("value_from")) {
            (Some(literal), None) => Operand::Literal(comparable(literal, comparison, &value_at)?.clone()),
            (None, Some(other)) => Operand::Field(path(Some(other), &format!("{at}.value_from"))?),
            _ => {
                let message = format!("`{at}`: expected exactly one of `value` and `value_from`");
                return Err(Failure::new("invalid_config", message));
            }
        };
        Ok(Self::Compare { field, op: comparison, with })
    }

    /// Whether the event meets the condition. A field that is absent meets only `exists: false`, so that a rule
    /// about a card never hits a bank transfer.
    ///
    /// # Errors
    /// Only those of the host, from `open_alerts_gte`.
    pub(crate) fn holds(&self, event: &Event<'_>, alerts: &mut OpenAlerts<'_>, host: &mut dyn Host) -> Result<bool, Failure> {
        Ok(match self {
            Self::All(conditions) => {
                for condition in conditions {
                    if !condition.holds(event, alerts, host)? {
                        return Ok(false);
                    }
                }
                true
            }
            Self::Any(conditions) => {
                for condition in conditions {
                    if condition.holds(event, alerts, host)? {
                        return Ok(true);
                    }
                }
                false
            }
            Self::Exists { field, expected } => event.field(field).is_some() == *expected,
            Self::Member { field, of, expected } => {
                event.field(field).is_some_and(|value| of.iter().any(|member| same(value, member)) == *expected)
            }
            Self::Compare { field, op, with } => {
                let right = match with {
                    Operand::Literal(value) => Some(value),
                    Operand::Field(path) => event.field(path),
                };
                match (event.field(field), right) {
                    (Some(left), Some(right)) => op.holds(left, right),
                    _ => false,
                }
            }
            Self::OpenAlerts { at_least } => alerts.at_least(*at_least, host)?,
        })
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        match self {
            Self::Eq => same(left, right),
            Self::Ne => !same(left, right),
            Self::Gt => order(left, right) == Some(Ordering::Greater),
            Self::Gte => matches!(order(left, right), Some(Ordering::Greater | Ordering::Equal)),
            Self::Lt => order(left, right) == Some(Ordering::Less),
            Self::Lte => matches!(order(left, right), Some(Ordering::Less | Ordering::Equal)),
        }
    }
}

/// Equality in which `1` and `1.0` are one number, as they are in canonical JSON.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(_), Value::Number(_)) => order(left, right) == Some(Ordering::Equal),
        _ => left == right,
    }
}

/// The order of two numbers, None for anything else. Exact: the ledger refuses numbers that an `f64` cannot hold.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    left.as_f64()?.partial_cmp(&right.as_f64()?)
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))
}

fn comparable<'a>(value: &'a Value, op: Comparison, at: &str) -> Result<&'a Value, Failure> {
    match op {
        Comparison::Eq | Comparison::Ne if is_scalar(value) => Ok(value),
        Comparison::Eq | Comparison::Ne => Err(invalid(at, "a string, number or boolean", Some(value))),
        _ if value.is_number() => Ok(value),
        _ => Err(invalid(at, "a number", Some(value))),
    }
}

/// An empty list is refused: `all` of nothing would hit every payment.
fn parse_list(value: Option<&Value>, at: &str) -> Result<Vec<Condition>, Failure> {
    match value {
        Some(Value::Array(items)) if !items.is_empty() => {
            items.iter().enumerate().map(|(index, item)| Condition::parse(Some(item), &format!("{at}[{index}]"))).collect()
        }
        _ => Err(invalid(at, "a non-empty array of conditions", value)),
    }
}

fn path(value: Option<&Value>, at: &str) -> Result<String, Failure> {
    match value.and_then(Value::as_str) {
        Some(path) if path.split('.').all(|key| !key.is_empty()) => Ok(path.into()),
        _ => Err(invalid(at, "a field name or dotted path", value)),
    }
}

/// Refuses members that nothing reads, because a misspelt one would silently weaken a rule.
pub(crate) fn only(object: &Map<String, Value>, known: &[&str], at: &str) -> Result<(), Failure> {
    match object.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some((key, value)) => Err(Failure::new(
            "invalid_config",
            format!("`{at}`: expected only `{}`, found `{key}` with {}", known.join("`, `"), found(Some(value))),
        )),
    }
}
