//! Templates: JSON in which texts may contain expressions. `"${span.id}"` is the value of the expression and keeps its type.
//! `"of ${span.owner_id}"` is a text. `$${` is an escaped `${`.

use std::collections::BTreeMap;

use cel::Context;
use logline_core::Failure;
use serde_json::{Map, Value};

use crate::bound::Size;
use crate::expression::Expression;
use crate::value::from_cel;

#[derive(Debug)]
pub(super) enum Template {
    Constant(Value),
    Value(Expression),
    Text(Vec<Part>),
    List(Vec<Template>),
    Members(Vec<(String, Template)>),
}

#[derive(Debug)]
pub(super) enum Part {
    Constant(String),
    Value(Expression),
}

impl Template {
    /// Compiles every expression in `value`. `place` is its path in the policy, for error messages.
    ///
    /// # Errors
    /// Code `invalid_expression` for the first invalid expression, with its path.
    pub(super) fn compile(value: &Value, place: &str, variables: &[&str]) -> Result<Self, Failure> {
        Ok(match value {
            Value::String(text) => {
                let mut parts = split(text, place, variables)?;
                match (parts.pop(), parts.is_empty()) {
                    (None, _) => Self::Constant(Value::String(String::new())),
                    (Some(Part::Constant(text)), true) => Self::Constant(Value::String(text)),
                    (Some(Part::Value(expression)), true) => Self::Value(expression),
                    (Some(last), false) => {
                        parts.push(last);
                        Self::Text(parts)
                    }
                }
            }
            Value::Array(items) => {
                let item = |(n, item): (usize, &Value)| Self::compile(item, &format!("{place}[{n}]"), variables);
                Self::List(items.iter().enumerate().map(item).collect::<Result<_, _>>()?)
            }
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| {
                    Ok((name.clone(), Self::compile(value, &format!("{place}.{name}"), variables)?))
                };
                Self::Members(members.iter().map(member).collect::<Result<_, Failure>>()?)
            }
            constant => Self::Constant(constant.clone()),
        })
    }

    /// Every expression of the template.
    pub(super) fn expressions(&self) -> Vec<&Expression> {
        match self {
            Self::Constant(_) => Vec::new(),
            Self::Value(expression) => vec![expression],
            Self::Text(parts) => parts
                .iter()
                .filter_map(|part| match part {
                    Part::Value(expression) => Some(expression),
                    Part::Constant(_) => None,
                })
                .collect(),
            Self::List(items) => items.iter().flat_map(Self::expressions).collect(),
            Self::Members(members) => members.iter().flat_map(|(_, value)| value.expressions()).collect(),
        }
    }

    /// The worst-case cost of rendering, in units of [`bound`](crate::bound).
    pub(super) fn cost(&self, sizes: &BTreeMap<String, Size>) -> u64 {
        let of = |expression: &Expression| {
            let bound = expression.bound(sizes);
            // Copying the value out is added.
            bound.cost.saturating_add(bound.size.bytes / 64).saturating_add(bound.size.items)
        };
        self.expressions().into_iter().map(of).fold(1, u64::saturating_add)
    }

    /// Evaluates every expression and returns the value.
    ///
    /// # Errors
    /// The failure of the first expression that has no value.
    pub(super) fn render(&self, given: &Context<'_, '_>) -> Result<Value, Failure> {
        Ok(match self {
            Self::Constant(value) => value.clone(),
            Self::Value(expression) => from_cel(&expression.evaluate(given)?)?,
            Self::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Constant(constant) => text.push_str(constant),
                        Part::Value(expression) => match from_cel(&expression.evaluate(given)?)? {
                            Value::String(value) => text.push_str(&value),
                            value => text.push_str(&value.to_string()),
                        },
                    }
                }
                Value::String(text)
            }
            Self::List(items) => Value::Array(items.iter().map(|item| item.render(given)).collect::<Result<_, _>>()?),
            Self::Members(members) => {
                let member = |(name, value): &(String, Self)| Ok((name.clone(), value.render(given)?));
                Value::Object(members.iter().map(member).collect::<Result<Map<_, _>, Failure>>()?)
            }
        })
    }
}

/// Splits a text into constants and expressions.
fn split(text: &str, place: &str, variables: &[&str]) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::new();
    let mut constant = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, found) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            constant.push_str(before);
            constant.push_str("${");
            rest = found.get(2..).unwrap_or_default();
            continue;
        }
        constant.push_str(before);
        let source = found.get(2..).unwrap_or_default();
        let Some(end) = end_of(source) else {
            return Err(Failure::new(
                "invalid_expression",
                format!("{place}: a `${{` has no `}}`: close it, or write `$${{` for the text `${{`"),
            ));
        };
        if !constant.is_empty() {
            parts.push(Part::Constant(std::mem::take(&mut constant)));
        }
        parts.push(Part::Value(Expression::compile(source.get(..end).unwrap_or_default(), place, variables)?));
        rest = source.get(end + 1..).unwrap_or_default();
    }
    constant.push_str(rest);
    if !constant.is_empty() {
        parts.push(Part::Constant(constant));
    }
    Ok(parts)
}

/// The offset of the brace that ends an expression. Braces in string literals and braces of maps are skipped. A literal has one
/// quote on each side or three, and is raw after `r` or `R`: a backslash escapes nothing in it.
fn end_of(source: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => {
                at = end_of_literal(bytes, at, source.get(..at).is_some_and(ends_with_raw_prefix))?;
                continue;
            }
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Whether the text ends with the prefix of a raw literal: `r`, or `r` and `b` in any order. The end of a name is no prefix.
fn ends_with_raw_prefix(before: &str) -> bool {
    let name = before.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len();
    let prefix = before.get(name..).unwrap_or_default();
    ["r", "rb", "br"].iter().any(|raw| prefix.eq_ignore_ascii_case(raw))
}

/// The offset after the string literal whose first quote is at `start`.
fn end_of_literal(bytes: &[u8], start: usize, is_raw: bool) -> Option<usize> {
    let triple = [*bytes.get(start)?; 3];
    let is_at = |at: usize, quotes: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(quotes));
    let quotes = if is_at(start, &triple) { triple.as_slice() } else { triple.get(..1)? };
    let mut at = start + quotes.len();
    while at < bytes.len() {
        if !is_raw && bytes.get(at) == Some(&b'\\') {
            at += 2;
        } else if is_at(at, quotes) {
            return Some(at + quotes.len());
        } else {
            at += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_in_string_literals_end_no_expression() {
        for source in [
            "span.name",
            "'}'",
            r#""}" + '}'"#,
            r"'\'}'",
            r"r'\' + '}'",
            r#""""a "quoted" } text""""#,
            "'''it's a }'''",
            r#"R"""\}""" + b'}'"#,
            "{'a': {'b': 1}}.a",
            r#"br'\' + rb"}\""#,
        ] {
            assert_eq!(end_of(&format!("{source}}} and }}")), Some(source.len()), "{source}");
        }
        for open in ["'", "'''a'", r#"""" } "#, "{'a': 1", r"'\"] {
            assert_eq!(end_of(open), None, "{open}");
        }
    }
}
