//! What a value is, for messages about it.

use logline_guest::Value;

/// What was found in place of the expected value, for messages. It names the type and never repeats the value:
/// messages end up in ledgers and logs, and a payment event holds personal data.
pub(crate) fn found(value: Option<&Value>) -> &'static str {
    match value {
        None => "nothing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(n)) if n.is_f64() => "a number with a fraction",
        Some(Value::Number(n)) if n.is_i64() && !n.is_u64() => "a negative number",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(s)) if s.is_empty() => "an empty string",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "an array",
        Some(Value::Object(_)) => "an object",
    }
}
