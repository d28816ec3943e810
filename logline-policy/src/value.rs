//! Converts values between JSON and CEL.

use std::collections::HashMap;
use std::sync::Arc;

use cel::objects::{Key, Map};
use logline_core::Failure;
use logline_core::Timestamp;
use serde_json::{Number, Value};

/// Converts JSON to CEL. Integers become `int`, other numbers `double`.
pub(super) fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(b) => cel::Value::Bool(*b),
        Value::Number(n) => n.as_i64().map_or_else(|| cel::Value::Float(n.as_f64().unwrap_or(f64::NAN)), cel::Value::Int),
        Value::String(s) => cel::Value::String(Arc::new(s.clone())),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (Key::String(Arc::new(name.clone())), to_cel(value)));
            cel::Value::Map(Map { map: Arc::new(members.collect::<HashMap<_, _>>()) })
        }
    }
}

/// Converts CEL to JSON. Times become RFC 3339 texts, durations become numbers of seconds.
///
/// # Errors
/// Code `invalid_value` for what JSON cannot hold: other types, numbers that are not finite, map keys that are not strings.
pub(super) fn from_cel(value: &cel::Value) -> Result<Value, Failure> {
    let invalid = |what: String| Failure::new("invalid_value", format!("a span cannot hold {what}"));
    #[allow(clippy::cast_precision_loss, reason = "beyond it is refused when the span is checked")]
    let float = |n: f64| Number::from_f64(n).map(Value::Number).ok_or_else(|| invalid(format!("the number {n}")));
    Ok(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(b) => Value::Bool(*b),
        cel::Value::Int(n) => Value::from(*n),
        cel::Value::UInt(n) => Value::from(*n),
        cel::Value::Float(n) => float(*n)?,
        cel::Value::String(s) => Value::String(s.to_string()),
        cel::Value::Timestamp(t) => {
            let time = Timestamp::new(t.to_utc()).map_err(|e| invalid(format!("the time {t} ({e})")))?;
            Value::String(time.to_string())
        }
        cel::Value::Duration(d) => {
            let micros = d.num_microseconds().ok_or_else(|| invalid("a duration of more than 292,000 years".to_owned()))?;
            #[allow(clippy::cast_precision_loss, reason = "seconds as a number")]
            float(micros as f64 / 1e6)?
        }
        cel::Value::List(items) => Value::Array(items.iter().map(from_cel).collect::<Result<_, _>>()?),
        cel::Value::Map(map) => {
            let member = |(key, value): (&Key, &cel::Value)| match key {
                Key::String(name) => Ok((name.to_string(), from_cel(value)?)),
                _ => Err(invalid(format!("the key {key}"))),
            };
            Value::Object(map.map.iter().map(member).collect::<Result<_, _>>()?)
        }
        other => return Err(invalid(format!("a value of type {}", other.type_of()))),
    })
}
