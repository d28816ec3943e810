//! What an expression costs at most, told from the expression and the size of what it is given, before it is evaluated.
//!
//! CEL has no loops without an end, but loops within loops over one span can outlast patience, and its interpreter has no budget
//! to stop at. So the worst case is computed first: every node counts one unit, every 64 bytes that a call may read or copy one
//! more, and a macro (`all`, `exists`, `exists_one`, `map`, `filter`) its body as often as its range may have items.
//!
//! The items of a range share its bytes. What a body costs grows at least in proportion to its item, so the worst range has
//! everything in one item and next to nothing in the others.

use std::collections::BTreeMap;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use serde_json::Value;

/// The size of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size {
    /// Values within it, itself included: the most items that a loop over it, or over anything in it, can have.
    pub(super) items: u64,
    /// Bytes of its texts, and eight for every value.
    pub(super) bytes: u64,
}

/// What an expression comes to at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// Units.
    pub(super) cost: u64,
    /// Of its value.
    pub(super) size: Size,
}

/// The text of a number or a time has no more bytes.
const TEXT: u64 = 400;

/// Loops within loops, at most: three over a usual span are beyond the limit already.
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

    /// Units for making CEL's value of it.
    pub(super) fn conversion(self) -> u64 {
        self.items.saturating_add(self.pass())
    }

    /// Units for reading or copying it once.
    fn pass(self) -> u64 {
        self.bytes / 64 + 1
    }
}

/// The bound of `expr`; `variables` are the sizes of what it may name. Recursion is as deep as the expression, which is checked
/// when it is compiled.
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
        // What is within a value is no larger than it.
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
        // Refused when it is compiled.
        Expr::Struct(_) => Bound { cost: u64::MAX, size: SCALAR },
        Expr::Call(call) => {
            let args: Vec<_> = call.target.iter().map(AsRef::as_ref).chain(&call.args).map(bound).collect();
            let cost = args.iter().fold(1, |cost: u64, arg| cost.saturating_add(arg.cost));
            let read = args.iter().map(|arg| arg.size).fold(Size::default(), Size::plus);
            match call.func_name.as_str() {
                // Neither reads what it chooses.
                operators::CONDITIONAL => {
                    let size = args.iter().skip(1).map(|arg| arg.size).fold(SCALAR, Size::max);
                    Bound { cost, size }
                }
                operators::INDEX => {
                    let size = args.first().map_or(SCALAR, |arg| arg.size);
                    // A key is hashed, and copied where it is not found.
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
            // Cost and growth of one round, with an item of this size. The step is `result + [item]`, or chooses between that and
            // the result; the result itself is appended to in place, not read.
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
        // Built by copying.
        cost: sum.cost.saturating_add(part.cost).saturating_add(part.size.pass()),
        size: sum.size.plus(part.size),
    })
}
