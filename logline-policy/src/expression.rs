//! CEL expressions. They are compiled and checked when a policy is published. None is evaluated before its cost bound is known.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::{CelDuration, CelString};
use cel::parser::Macro;
use cel::{Context, Env, ExecutionError, Program};
use logline_core::{COLUMNS, Failure, Timestamp};
use serde_json::Value;

use crate::bound::{Bound, Size, bound};
use crate::value::to_cel;

/// The longest expression, in bytes.
const MAX_SOURCE: usize = 4096;

/// The deepest nesting of nodes in an expression.
const MAX_DEPTH: usize = 100;

/// The most that all expressions of a policy together may cost, in units of [`bound`]. It is about a tenth of a second.
pub(super) const MAX_COST: u64 = 1_000_000;

/// The size of a typical span. A policy that is too costly even for that is refused at publication.
pub(super) const USUAL: Size = Size { items: 80, bytes: 4096 };

/// Everything that an expression may call. Each call takes time linear in the size of its arguments. Others (regular
/// expressions, joins) are left out.
const FUNCTIONS: &[&str] = &[
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::NOT_STRICTLY_FALSE,
    operators::IN,
    "bool",
    WHOLE_DURATION,
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
];

/// The standard functions, except that a duration must be understood as a whole. The standard one ignores what follows the part that
/// it understands: `1h 30m` would be an hour.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let strict = Macro::global("duration", 1, |helper, _, args| {
        let call = |name: &str, args| Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args });
        let checked = helper.next_expr(call(WHOLE_DURATION, std::mem::take(args)));
        Ok(Some(helper.next_expr(call("duration", vec![checked]))))
    });
    #[allow(elided_lifetimes_in_paths, reason = "the macro takes types without lifetimes")]
    let added = [
        env.add_macro(strict),
        cel::add_overload!(env, fn whole_duration: (CelString) -> Result<CelString>, name = WHOLE_DURATION, id = "whole_duration_string"),
        cel::add_overload!(env, fn same_duration: (CelDuration) -> CelDuration, name = WHOLE_DURATION, id = "whole_duration_duration"),
    ];
    #[allow(clippy::panic, reason = "every test that compiles an expression would find it")]
    if let Some(error) = added.into_iter().find_map(Result::err) {
        panic!("a function is declared twice: {error:?}");
    }
    Arc::new(env)
});

/// The function that passes on the argument of `duration` if it is a duration.
const WHOLE_DURATION: &str = "@whole_duration";

/// Returns the text of a duration, if all of it is one.
fn whole_duration<'a>(text: &CelString<'a>) -> Result<CelString<'static>, ExecutionError> {
    let source = text.inner();
    let mut rest = source.strip_prefix('-').unwrap_or(source);
    let mut is_whole = rest == "0";
    while !is_whole {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let unit = ["ns", "us", "ms", "s", "m", "h"].into_iter().find_map(|unit| number.strip_prefix(unit));
        let Some(after) = unit.filter(|_| number.len() < rest.len()) else { break };
        rest = after;
        is_whole = rest.is_empty();
    }
    if !is_whole {
        let message = format!("`{source}` is not a duration such as `1h30m`, without spaces");
        return Err(ExecutionError::function_error("duration", message));
    }
    Ok(CelString::from(source.to_owned()))
}

fn same_duration(duration: &CelDuration) -> CelDuration {
    *duration
}

/// A compiled expression. It uses only permitted variables and functions.
pub(super) struct Expression {
    program: Program,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.program.source_info().source).finish()
    }
}

impl Expression {
    /// Compiles `source`. It may name `variables`. `place` is its path in the policy, for error messages.
    ///
    /// # Errors
    /// Code `invalid_expression`. The message has line and column where they are known, and the reason.
    pub(super) fn compile(source: &str, place: &str, variables: &[&str]) -> Result<Self, Failure> {
        let invalid = |reason: String| Failure::new("invalid_expression", format!("{place}: {reason}"));
        if source.len() > MAX_SOURCE {
            return Err(invalid(format!("the expression has {} bytes, the limit is {MAX_SOURCE}", source.len())));
        }
        // The parser is a dependency. If it panics on an input, that input is refused.
        let compiled = catch_unwind(AssertUnwindSafe(|| ENV.compile(source)));
        let program = compiled.map_err(|_| invalid("the expression cannot be read".to_owned()))?.map_err(|errors| {
            let first = errors.errors.first();
            let reason = first
                .map_or_else(|| "it cannot be read".to_owned(), |e| format!("line {}, column {}: {}", e.pos.0, e.pos.1, e.msg));
            invalid(reason)
        })?;
        let expression = Self { program };
        let mut known: Vec<String> = variables.iter().map(|name| (*name).to_owned()).collect();
        expression
            .check(expression.program.expression(), &mut known, 0)
            .map_err(|(id, reason)| invalid(format!("{}{reason}", expression.position(id))))?;
        Ok(expression)
    }

    /// Whether it is a number, text, list or map as it stands, and so never true.
    pub(super) fn is_never_a_condition(&self) -> bool {
        match &self.program.expression().expr {
            Expr::Literal(value) => !matches!(value, LiteralValue::Boolean(_)),
            Expr::List(_) | Expr::Map(_) => true,
            _ => false,
        }
    }

    /// The line and column of a node in the source; empty if they are not known.
    fn position(&self, id: u64) -> String {
        let info = self.program.source_info();
        let Some((start, _)) = info.offset_for(id) else { return String::new() };
        let before = info.source.get(..start as usize).unwrap_or(&info.source);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("line {line}, column {column}: ")
    }

    fn check(&self, node: &IdedExpr, known: &mut Vec<String>, depth: usize) -> Result<(), (u64, String)> {
        if depth > MAX_DEPTH {
            return Err((node.id, format!("the expression has more than {MAX_DEPTH} levels: split it")));
        }
        let each = |parts: Vec<&IdedExpr>, known: &mut Vec<String>| {
            parts.into_iter().try_for_each(|part| self.check(part, known, depth + 1))
        };
        match &node.expr {
            Expr::Unspecified => Err((node.id, "an expression is missing".to_owned())),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                if known.iter().any(|known| known == name) || TYPES.contains(&name.as_str()) {
                    return Ok(());
                }
                let named: Vec<_> = known.iter().filter(|name| !name.starts_with('@')).map(String::as_str).collect();
                Err((node.id, format!("`{name}` is unknown: use one of {}", named.join(", "))))
            }
            Expr::Select(select) => {
                let is_of_span = matches!(&select.operand.expr, Expr::Ident(name) if name == "span");
                if is_of_span && !COLUMNS.contains(&select.field.as_str()) {
                    return Err((node.id, format!("`{}` is not a column of spans", select.field)));
                }
                self.check(&select.operand, known, depth + 1)
            }
            Expr::List(list) if list.optional_indices.is_empty() => each(list.elements.iter().collect(), known),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) if !entry.optional => each(vec![&entry.key, &entry.value], known),
                _ => Err((node.id, "optional entries are not supported".to_owned())),
            }),
            Expr::List(_) => Err((node.id, "optional elements are not supported".to_owned())),
            Expr::Struct(_) => Err((node.id, "types cannot be constructed here".to_owned())),
            Expr::Call(call) => {
                if !FUNCTIONS.contains(&call.func_name.as_str()) {
                    return Err((node.id, format!("`{}` cannot be called here", call.func_name)));
                }
                each(call.target.iter().map(AsRef::as_ref).chain(&call.args).collect(), known)
            }
            Expr::Comprehension(loops) => {
                self.check(&loops.iter_range, known, depth + 1)?;
                self.check(&loops.accu_init, known, depth + 1)?;
                let outer = known.len();
                known.extend([&loops.iter_var, &loops.accu_var].into_iter().chain(&loops.iter_var2).cloned());
                let inner = each(vec![&loops.loop_cond, &loops.loop_step, &loops.result], known);
                known.truncate(outer);
                inner
            }
        }
    }

    /// The upper bounds if the variables have these sizes.
    pub(super) fn bound(&self, sizes: &BTreeMap<String, Size>) -> Bound {
        bound(self.program.expression(), sizes)
    }

    /// Evaluates the expression.
    ///
    /// # Errors
    /// Code `evaluation_failed` if it has no value. The message has the beginning of the source and the reason.
    pub(super) fn evaluate(&self, given: &Context<'_, '_>) -> Result<cel::Value, Failure> {
        self.program.execute(given).map_err(|error| {
            let source: String = self.program.source_info().source.chars().take(80).collect();
            Failure::new("evaluation_failed", format!("`{source}`: {error}"))
        })
    }
}

/// The names of types. `type(x)` can be compared with them.
const TYPES: &[&str] = &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// Builds the context of an evaluation: `variables`, `now`, and `day`, the UTC day of `now`.
pub(super) fn context(variables: &[(&str, &Value)], now: Timestamp) -> Context<'static, 'static> {
    let mut context = Context::with_env(Arc::clone(&ENV));
    for (name, value) in variables {
        context.add_variable_from_value(*name, to_cel(value));
    }
    context.add_variable_from_value("day", cel::Value::String(Arc::new(now.day().to_string())));
    context.add_variable_from_value("now", cel::Value::Timestamp(now.to_utc().fixed_offset()));
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<String, Failure> {
        let expression = Expression::compile("string(duration(config.ttl))", "content.when", &["config"]).unwrap();
        let config = serde_json::json!({"ttl": text});
        let value = expression.evaluate(&context(&[("config", &config)], Timestamp::EPOCH))?;
        Ok(crate::value::from_cel(&value)?.as_str().unwrap().to_owned())
    }

    #[test]
    fn a_duration_is_understood_as_a_whole_or_not_at_all() {
        for (text, expected) in [("1h30m", "5400s"), ("-1.5s", "-1.5s"), ("0", "0s"), ("90m", "5400s"), ("2ms", "0.002s")] {
            assert_eq!(of(text).unwrap(), expected, "{text}");
        }
        for text in ["1h 30m", "1h30", "1d", "", "-", "h", "1h,", "1h30m ", " 1h", "1.2.3s"] {
            assert_eq!(of(text).unwrap_err().code, "evaluation_failed", "{text}");
        }
        let literal = Expression::compile("duration('1h 30m') > duration('1h')", "content.when", &[]).unwrap();
        assert!(literal.evaluate(&context(&[], Timestamp::EPOCH)).unwrap_err().message.contains("1h 30m"));
        assert!(Expression::compile("duration(duration('1h')) == duration('60m')", "x", &[]).is_ok());
    }
}
