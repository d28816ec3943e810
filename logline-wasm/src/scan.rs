//! What a module must keep to before the compiler sees it.
//!
//! The compiler's time and memory grow faster than the module: a function of 11 KiB, 500 locals that change in 250 nested blocks, takes
//! it ten seconds, and the time grows with the square. So functions are weighed before. `tests/bombs.rs` compiles the worst that
//! pass; `docs/threat-model.md` has what they cost.

use logline_core::Failure;
use serde_json::{Value, json};
use wasmparser::{
    BlockType, ConstExpr, DataKind, ElementItems, ElementKind, ElementSectionReader, FunctionBody, Operator, Parser, Payload,
    TypeRef,
};

use crate::bounds::{HOST_CALL, MAX_MEMORY, MAX_TABLE, MODULE};

/// Locals of one function.
const MAX_LOCALS: u64 = 500;

/// Bytes of one function's body.
const MAX_BODY: usize = 64 << 10;

/// Functions of one module.
const MAX_FUNCTIONS: u32 = 10_000;

/// Parameters and results of one function or block type: the compiler makes values of them wherever the type is used.
const MAX_PARAMS: usize = 32;
const MAX_RESULTS: usize = 8;

/// Types of one module: the compiler makes a way to the host for each.
const MAX_TYPES: u32 = 1_000;

/// Of one module, what its beginning consists of: globals, segments of data and elements; functions in all elements; instructions of
/// constant expressions. The compiler makes one function of them.
const MAX_SEGMENTS: u64 = 1_000;
const MAX_ELEMENTS: u64 = 10_000;
const MAX_CONSTANTS: u64 = 20_000;

/// Of one function, the product of its locals and the places where its control flow meets: the compiler may have a value of each local
/// at each of them. The most involved of the guests here comes to 12,400.
const MAX_MEETINGS: u64 = 40_000;

/// Of one function, the product of what its blocks take and leave and the places where control flow meets: the compiler keeps a variable
/// of each, with a row of all places before it.
const MAX_BLOCK_VALUES: u64 = 2_000_000;

/// Of one module, the sum of the squares of that product: with it the compiler's time grows.
const MAX_MEETINGS_SQUARED: u64 = 5 * MAX_MEETINGS * MAX_MEETINGS;

/// Of one module, the sum over its functions of locals times instructions.
const MAX_VALUES: u64 = 20_000_000;

/// Instances of modules in a component: the guest's own and what its toolchain puts beside it.
#[cfg(feature = "component-model")]
pub(crate) const MAX_CORE_INSTANCES: u32 = 4;

/// Bytes of a component besides its modules: types, imports and how they are put together.
#[cfg(feature = "component-model")]
const MAX_COMPONENT: usize = 64 << 10;

/// Counted as locals in every function: what the compiler keeps besides.
const OWN_LOCALS: u64 = 8;

/// Bytes of a page of memory.
const PAGE: u64 = 64 << 10;

/// How much a module is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// To its interface: the operating system limits what compiling it costs.
    Structure,
    /// To what compiling it may cost this process as well.
    Cost,
}

/// The limits that decide which modules are refused.
pub(crate) fn limits(scan: Scan) -> Value {
    match scan {
        Scan::Structure => Value::Null,
        Scan::Cost => json!({
            "locals": MAX_LOCALS, "body_bytes": MAX_BODY, "functions": MAX_FUNCTIONS, "types": MAX_TYPES, "params": MAX_PARAMS,
            "results": MAX_RESULTS, "segments": MAX_SEGMENTS, "elements": MAX_ELEMENTS, "constants": MAX_CONSTANTS, "meetings": MAX_MEETINGS, "block_values": MAX_BLOCK_VALUES, "meetings_squared": MAX_MEETINGS_SQUARED, "values": MAX_VALUES,
        }),
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new("invalid_module", message)
}

fn malformed(error: wasmparser::BinaryReaderError) -> Failure {
    invalid(error.to_string())
}

/// Refuses what would cost the compiler too much, and every import but the one there is.
pub(crate) fn scan(binary: &[u8], scan: Scan) -> Result<(), Failure> {
    let (mut weight, mut start) = (Weight::default(), Start::default());
    // What is imported within a component is checked when it is linked.
    let is_component = binary.get(6) == Some(&1);
    #[cfg(feature = "component-model")]
    let (mut beside, mut modules) = (binary.len(), 0);
    for payload in Parser::new(0).parse_all(binary) {
        match payload.map_err(malformed)? {
            #[cfg(feature = "component-model")]
            Payload::ModuleSection { unchecked_range, .. } => {
                modules += 1;
                if modules > MAX_CORE_INSTANCES {
                    return Err(invalid(format!("a component has more than {MAX_CORE_INSTANCES} modules within")));
                }
                beside -= unchecked_range.len().min(beside);
            }
            // Between components the compiler makes functions of its own.
            #[cfg(feature = "component-model")]
            Payload::ComponentSection { .. } => return Err(invalid("a component has components within: compose it into one")),
            Payload::ImportSection(imports) if !is_component => {
                for import in imports.into_imports() {
                    let import = import.map_err(malformed)?;
                    let known = (import.module, import.name) == (MODULE, HOST_CALL);
                    if !known || !matches!(import.ty, TypeRef::Func(_)) {
                        return Err(invalid(format!(
                            "it imports `{}.{}`: the only import there is is the function `{}.{}`",
                            import.module, import.name, MODULE, HOST_CALL
                        )));
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    within("memory", "bytes", memory.map_err(malformed)?.initial.saturating_mul(PAGE), MAX_MEMORY)?;
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    within("table", "elements", table.map_err(malformed)?.ty.initial, MAX_TABLE)?;
                }
            }
            // A module, within a component or by itself.
            Payload::Version { .. } => weight.begin(),
            Payload::FunctionSection(functions) if scan == Scan::Cost => {
                for ty in functions {
                    weight.declared.push(ty.map_err(malformed)?);
                }
            }
            Payload::TypeSection(types) if scan == Scan::Cost => {
                if types.count() > MAX_TYPES {
                    return Err(invalid(format!("it has {} types, the limit is {MAX_TYPES}", types.count())));
                }
                for ty in types.into_iter_err_on_gc_types() {
                    let ty = ty.map_err(malformed)?;
                    weight.types.push((ty.params().len() as u64, ty.results().len() as u64));
                    if ty.params().len() > MAX_PARAMS || ty.results().len() > MAX_RESULTS {
                        return Err(invalid(format!(
                            "a type has {} parameters and {} results, the limits are {MAX_PARAMS} and {MAX_RESULTS}",
                            ty.params().len(),
                            ty.results().len()
                        )));
                    }
                }
            }
            Payload::GlobalSection(globals) if scan == Scan::Cost => {
                for global in globals {
                    start.segment(Some(global.map_err(malformed)?.init_expr), 0)?;
                }
            }
            Payload::ElementSection(elements) if scan == Scan::Cost => start.elements(elements)?,
            Payload::DataSection(segments) if scan == Scan::Cost => {
                for segment in segments {
                    start.segment(offset_of_data(segment.map_err(malformed)?.kind), 0)?;
                }
            }
            Payload::CodeSectionEntry(body) if scan == Scan::Cost => weight.add(&body)?,
            _ => {}
        }
    }
    #[cfg(feature = "component-model")]
    if is_component && beside > MAX_COMPONENT {
        return Err(invalid(format!("it has {beside} bytes besides its modules, the limit is {MAX_COMPONENT}")));
    }
    Ok(())
}

/// Refuses what no call could have, from the start.
fn within(what: &str, unit: &str, initial: u64, max: usize) -> Result<(), Failure> {
    if initial <= max as u64 {
        return Ok(());
    }
    Err(invalid(format!("its {what} begins with {initial} {unit}, the most is {max}")))
}

/// What an instance begins with, of which the compiler makes one function.
#[derive(Default)]
struct Start {
    segments: u64,
    elements: u64,
    constants: u64,
}

impl Start {
    /// A global, or a segment with so many elements.
    fn segment(&mut self, expression: Option<ConstExpr<'_>>, elements: u64) -> Result<(), Failure> {
        self.segments += 1;
        self.elements += elements;
        if let Some(expression) = expression {
            self.expression(&expression)?;
        }
        for (what, found, most) in [
            ("globals and segments", self.segments, MAX_SEGMENTS),
            ("elements", self.elements, MAX_ELEMENTS),
            ("instructions in constant expressions", self.constants, MAX_CONSTANTS),
        ] {
            if found > most {
                return Err(invalid(format!("it has more than {most} {what}: join them, or fill memory and table in code")));
            }
        }
        Ok(())
    }

    fn elements(&mut self, elements: ElementSectionReader<'_>) -> Result<(), Failure> {
        for element in elements {
            let element = element.map_err(malformed)?;
            let offset = match element.kind {
                ElementKind::Active { offset_expr, .. } => Some(offset_expr),
                ElementKind::Passive | ElementKind::Declared => None,
            };
            let count = match element.items {
                ElementItems::Functions(functions) => functions.count().into(),
                ElementItems::Expressions(_, expressions) => {
                    for expression in expressions.clone() {
                        self.expression(&expression.map_err(malformed)?)?;
                    }
                    expressions.count().into()
                }
            };
            self.segment(offset, count)?;
        }
        Ok(())
    }

    fn expression(&mut self, expression: &ConstExpr<'_>) -> Result<(), Failure> {
        for operator in expression.get_operators_reader() {
            operator.map_err(malformed)?;
            self.constants += 1;
        }
        Ok(())
    }
}

fn offset_of_data(kind: DataKind<'_>) -> Option<ConstExpr<'_>> {
    match kind {
        DataKind::Active { offset_expr, .. } => Some(offset_expr),
        DataKind::Passive => None,
    }
}

/// What compiling the functions so far will cost.
#[derive(Default)]
struct Weight {
    /// Parameters and results of each type, and the type of each function, of this module.
    types: Vec<(u64, u64)>,
    declared: Vec<u32>,
    bodies: usize,
    functions: u32,
    meetings_squared: u64,
    values: u64,
}

impl Weight {
    fn begin(&mut self) {
        self.types.clear();
        self.declared.clear();
        self.bodies = 0;
    }

    /// Parameters and results of a type; the validator refuses what is none.
    fn of_type(&self, ty: u32) -> (u64, u64) {
        self.types.get(ty as usize).copied().unwrap_or_default()
    }

    fn add(&mut self, body: &FunctionBody<'_>) -> Result<(), Failure> {
        self.functions += 1;
        let n = self.functions;
        if n > MAX_FUNCTIONS {
            return Err(invalid(format!("it has more than {MAX_FUNCTIONS} functions")));
        }
        let bytes = body.range().len();
        if bytes > MAX_BODY {
            return Err(invalid(format!("function {n} has {bytes} bytes, the limit is {MAX_BODY}: split it")));
        }
        // Parameters are locals as well, and so is what is returned at the end.
        let own = self.declared.get(self.bodies).map(|ty| self.of_type(*ty)).unwrap_or_default();
        self.bodies += 1;
        let mut locals = own.0 + own.1;
        for local in body.get_locals_reader().map_err(malformed)? {
            locals += u64::from(local.map_err(malformed)?.0);
        }
        if locals > MAX_LOCALS {
            return Err(invalid(format!("function {n} has {locals} locals, the limit is {MAX_LOCALS}")));
        }
        let (mut meeting, mut instructions, mut block_values) = (0_u64, 0_u64, 0_u64);
        for operator in body.get_operators_reader().map_err(malformed)? {
            let operator = operator.map_err(malformed)?;
            instructions += 1;
            meeting += meetings(&operator);
            if let Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } = operator {
                block_values += match blockty {
                    BlockType::Empty => 0,
                    BlockType::Type(_) => 1,
                    BlockType::FuncType(ty) => {
                        let (params, results) = self.of_type(ty);
                        params + results
                    }
                };
            }
        }
        if block_values * meeting > MAX_BLOCK_VALUES {
            return Err(invalid(format!(
                "the blocks of function {n} take and leave {block_values} values, at {meeting} places where control flow meets; the limit \
                 of their product is {MAX_BLOCK_VALUES}: split it"
            )));
        }
        // No overflow: a body of 64 KiB has at most as many instructions.
        let meetings = (locals + OWN_LOCALS) * meeting;
        if meetings > MAX_MEETINGS {
            return Err(invalid(format!(
                "function {n} has {locals} locals and {meeting} places where control flow meets, the limit of their product is \
                 {MAX_MEETINGS}: split it"
            )));
        }
        self.meetings_squared += meetings * meetings;
        self.values += (locals + OWN_LOCALS) * instructions + block_values * meeting / 10;
        if self.meetings_squared > MAX_MEETINGS_SQUARED || self.values > MAX_VALUES {
            return Err(invalid("all functions together are too involved to be compiled here: make the module smaller"));
        }
        Ok(())
    }
}

/// How many places an instruction makes at which control flow meets, in the module or in what the compiler makes of it.
fn meetings(operator: &Operator<'_>) -> u64 {
    match operator {
        Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::If { .. }
        // A look into a table that is filled lazily, and calls of the engine.
        | Operator::CallIndirect { .. }
        | Operator::TableGet { .. }
        | Operator::TableSet { .. }
        | Operator::TableFill { .. }
        | Operator::TableCopy { .. }
        | Operator::TableInit { .. }
        | Operator::TableGrow { .. }
        | Operator::MemoryGrow { .. }
        | Operator::MemoryFill { .. }
        | Operator::MemoryCopy { .. }
        | Operator::MemoryInit { .. }
        | Operator::DataDrop { .. }
        | Operator::ElemDrop { .. } => 1,
        Operator::BrTable { targets } => u64::from(targets.len()) + 1,
        _ => 0,
    }
}
