//! Compares two records of the same attempt, member by member.

use std::collections::BTreeSet;

use logline_core::{Draft, PublicKey, SignedSpan, Span, canonical, json as strict};
use serde_json::Value;

use super::Difference;

/// Objects that are compared member by member. Everything else is compared as one value.
const OBJECTS: &[&str] = &["", "metadata", "metadata.receipt", "metadata.journal"];

/// Lists where `recorded` differs from `again`, the record of the replay.
pub(crate) fn differences(recorded: &SignedSpan, again: &Draft, is_same_engine: bool) -> Vec<Difference> {
    let again = match again.clone().into_span() {
        Ok(span) => members(&span),
        Err(e) => e.to_string().into(),
    };
    let (mut recorded, mut again) = (members(&recorded.span), again);
    if !is_same_engine {
        // Another engine may word its errors differently. The words of a guest's own error must be the same.
        for record in [&mut recorded, &mut again] {
            let error = record.get_mut("error").and_then(Value::as_object_mut);
            if let Some(error) = error.filter(|error| !is_of_guest(error.get("code"))) {
                error.remove("message");
            }
        }
    }
    let mut found = Vec::new();
    compare("", &recorded, &again, &mut found);
    found
}

fn is_of_guest(code: Option<&Value>) -> bool {
    code.and_then(Value::as_str).is_some_and(|code| code.starts_with("guest:"))
}

/// The columns in canonical form, so that 1.0 and 1 are equal. The key that sealed them is left out.
fn members(span: &Span) -> Value {
    strict::parse(&canonical::payload(span, &PublicKey([0; 32]))).unwrap_or_default()
}

fn compare(path: &str, recorded: &Value, repeated: &Value, found: &mut Vec<Difference>) {
    match (recorded, repeated) {
        (Value::Object(a), Value::Object(b)) if OBJECTS.contains(&path) => {
            let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for name in names {
                let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let of = |members: &serde_json::Map<String, Value>| members.get(name).cloned().unwrap_or_default();
                compare(&inner, &of(a), &of(b), found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(Difference { what: path.to_owned(), recorded: a.clone(), repeated: b.clone() }),
    }
}
