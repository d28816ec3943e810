//! The worst-case cost of an expression. It is computed from the expression and the size of its variables, before the
//! evaluation.
//!
//! CEL has no endless loops, but nested loops over one span can take too long, and the interpreter has no budget at which it
//! stops. So the worst case is computed first. Every node costs one unit. Every 64 bytes that a call may read or copy cost one
//! more. A macro (`all`, `exists`, `exists_one`, `map`, `filter`) costs its body times the number of items that its range may
//! have.
//!
//! The items of a range share its bytes. The cost of a body grows at least in proportion to the size of its item. So the worst
//! range has everything in one item and almost nothing in the others.

use std::collections::BTreeMap;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use serde_json::Value;

/// The size of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size {
    /// The number of values in it, itself included. No loop over it, or over anything in it, can have more items.
    pub(super) items: u64,
    /// The bytes of its texts, plus eight for every value.
    pub(super) bytes: u64,
}

/// The upper bounds of an expression.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// The cost of its evaluation, in units.
    pub(super) cost: u64,
    /// The size of its value.
    pub(super) size: Size,
}

/// The most bytes that the text of a number or a time can have.
const TEXT: u64 = 400;

/// The most nested loops. Three over a typical span already exceed the cost limit.
const MAX_LOOPS: usize = 5;

const SCALAR: Size = Size { items: 1, bytes: 8 };

impl Size {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => SCALAR,
            Value::String(text) => SCALAR.with(text.len() as u64),
            Value::Array(items) => items.iter().map(Self::of).fold(SCALAR, Self::plus),
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| SCALAR.with(name.len() as u64).plus(Self::of(value));
                members.iter().map(member).fold(SCALAR, Self::plus)
            }
        }
    }

    fn with(self, bytes: u64) -> Self {
        Self { bytes: self.bytes.saturating_add(bytes), ..self }
    }

    fn plus(self, other: Self) -> Self {
        Self { items: self.items.saturating_add(other.items), bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn times(self, n: u64) -> Self {
        Self { items: self.items.saturating_mul(n), bytes: self.bytes.saturating_mul(n) }
    }

    fn max(self, other: Self) -> Self {
        Self { items: self.items.max(other.items), bytes: self.bytes.max(other.bytes) }
    }

    /// The units for converting it to a CEL value.
    pub(super) fn conversion(self) -> u64 {
        self.items.saturating_add(self.pass())
    }

    /// The units for reading or copying it once.
    fn pass(self) -> u64 {
        self.bytes / 64 + 1
    }
}

/// Computes the bound of `expr`. `variables` has the sizes of the variables that it may name. The recursion is as deep as the
/// expression, and compilation limits that depth.
pub(super) fn bound(expr: &IdedExpr, variables: &BTreeMap<String, Size>) -> Bound {
    within(expr, variables, 0)
}

fn within(expr: &IdedExpr, variables: &BTreeMap<String, Size>, loops_around: usize) -> Bound {
    let bound = |expr: &IdedExpr| within(expr, variables, loops_around);
    let leaf = |size| Bound { cost: 1, size };
    match &expr.expr {
        Expr::Unspecified => leaf(SCALAR),
        Expr::Literal(literal) => leaf(match literal {
            LiteralValue::String(text) => SCALAR.with(text.inner().len() as u64),
            LiteralValue::Bytes(bytes) => SCALAR.with(bytes.inner().len() as u64),
            _ => SCALAR,
        }),
        Expr::Ident(name) => leaf(variables.get(name).copied().unwrap_or(SCALAR)),
        // A member is not larger than the value that contains it.
        Expr::Select(select) => {
            let operand = bound(&select.operand);
            Bound { cost: operand.cost.saturating_add(1), size: if select.test { SCALAR } else { operand.size } }
        }
        Expr::List(list) => together(list.elements.iter().map(bound)),
        Expr::Map(map) => {
            let parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => [&entry.key, &entry.value],
                EntryExpr::StructField(field) => [&field.value, &field.value],
            });
            together(parts.map(bound))
        }
        // Compilation refuses these.
        Expr::Struct(_) => Bound { cost: u64::MAX, size: SCALAR },
        Expr::Call(call) => {
            let args: Vec<_> = call.target.iter().map(AsRef::as_ref).chain(&call.args).map(bound).collect();
            let cost = args.iter().fold(1, |cost: u64, arg| cost.saturating_add(arg.cost));
            let read = args.iter().map(|arg| arg.size).fold(Size::default(), Size::plus);
            match call.func_name.as_str() {
                // A condition and an index do not read the value that they select.
                operators::CONDITIONAL => {
                    let size = args.iter().skip(1).map(|arg| arg.size).fold(SCALAR, Size::max);
                    Bound { cost, size }
                }
                operators::INDEX => {
                    let size = args.first().map_or(SCALAR, |arg| arg.size);
                    // A key is hashed, and copied if it is not found.
                    let key = args.get(1).map_or(1, |arg| arg.size.pass().saturating_add(arg.size.items));
                    Bound { cost: cost.saturating_add(key), size }
                }
                operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE => {
                    Bound { cost, size: SCALAR }
                }
                operators::ADD => Bound { cost: cost.saturating_add(read.pass()), size: read.plus(SCALAR) },
                "dyn" => Bound { cost, size: read },
                "string" | "bytes" => Bound { cost: cost.saturating_add(read.pass()), size: read.with(TEXT) },
                // Comparisons, tests, conversions to numbers and times, parts of times.
                _ => Bound { cost: cost.saturating_add(read.pass()), size: SCALAR },
            }
        }
        Expr::Comprehension(_) if loops_around == MAX_LOOPS => Bound { cost: u64::MAX, size: SCALAR },
        Expr::Comprehension(loops) => {
            let (range, init) = (bound(&loops.iter_range), bound(&loops.accu_init));
            let rounds = range.size.items;
            let mut inner = variables.clone();
            // The cost and growth of one round with an item of this size. The step is `result + [item]`, or it selects between
            // that and the result. The result is appended to in place and is not read.
            let mut round = |item: Size| {
                for name in std::iter::once(&loops.iter_var).chain(&loops.iter_var2) {
                    inner.insert(name.clone(), item);
                }
                inner.insert(loops.accu_var.clone(), Size::default());
                let step = within(&loops.loop_step, &inner, loops_around + 1);
                let condition = within(&loops.loop_cond, &inner, loops_around + 1);
                (step.cost.saturating_add(condition.cost).saturating_add(2), step.size)
            };
            let ((most, largest), (least, smallest)) = (round(range.size), round(SCALAR));
            let others = rounds.saturating_sub(1);
            let total = init.size.plus(largest).plus(smallest.times(others));
            inner.insert(loops.accu_var.clone(), total);
            let result = within(&loops.result, &inner, loops_around + 1);
            let parts =
                [range.cost, init.cost, range.size.pass(), most, least.saturating_mul(others), total.pass(), result.cost];
            Bound { cost: parts.into_iter().fold(1, u64::saturating_add), size: result.size }
        }
    }
}

fn together(parts: impl Iterator<Item = Bound>) -> Bound {
    parts.fold(Bound { cost: 1, size: SCALAR }, |sum, part| Bound {
        // The parts are copied into the new value.
        cost: sum.cost.saturating_add(part.cost).saturating_add(part.size.pass()),
        size: sum.size.plus(part.size),
    })
}
