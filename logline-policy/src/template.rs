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

/// The offset of the brace that ends an expression. Braces in string literals and braces of maps are skipped.
fn end_of(source: &str) -> Option<usize> {
    let (mut depth, mut quote, mut is_escaped) = (0_usize, None, false);
    for (at, c) in source.char_indices() {
        match (quote, c) {
            (Some(_), _) if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth == 0 => return Some(at),
            (None, '}') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}
