//! Rules that a module must follow before the compiler gets it.
//!
//! The compiler's time and memory grow faster than the size of the module. A function of 11 KiB with 500 locals that change in
//! 250 nested blocks takes ten seconds, and the time grows with the square. So the cost of each function is estimated first.
//! `tests/bombs.rs` compiles the most expensive modules that pass, and `docs/threat-model.md` says what they cost.

use logline_core::Failure;
use serde_json::{Value, json};
use wasmparser::{
    BlockType, ConstExpr, DataKind, ElementItems, ElementKind, ElementSectionReader, FunctionBody, Operator, Parser, Payload,
    TypeRef,
};

use crate::bounds::{HOST_CALL, MAX_MEMORY, MAX_TABLE, MODULE};

/// The most locals of one function, with its parameters and results.
const MAX_LOCALS: u64 = 500;

/// The largest body of one function, bytes.
const MAX_BODY: usize = 64 << 10;

/// The most functions of one module.
const MAX_FUNCTIONS: u32 = 10_000;

/// The most parameters and results of one type. The compiler makes values for them wherever a function or block has the type.
const MAX_PARAMS: usize = 32;
const MAX_RESULTS: usize = 8;

/// The most types of one module. The compiler makes code for calls to the host for each type.
const MAX_TYPES: u32 = 1_000;

/// The limits of a module's initialisation, which the compiler makes into one function: globals and segments of data and
/// elements together; functions in all elements; instructions in all constant expressions.
const MAX_SEGMENTS: u64 = 1_000;
const MAX_ELEMENTS: u64 = 10_000;
const MAX_CONSTANTS: u64 = 20_000;

/// For one function, the limit of its locals times the places where its control flow meets. The compiler may need a value of
/// each local at each of these places. The most complex guest in this repository has 12,400.
const MAX_MEETINGS: u64 = 40_000;

/// For one function, the limit of the parameters and results of its blocks times the places where its control flow meets. The
/// compiler keeps a variable for each of these values, and a list of all earlier places with it.
const MAX_BLOCK_VALUES: u64 = 2_000_000;

/// For one module, the limit of the sum of the squares of the products that `MAX_MEETINGS` limits. The compiler's time grows
/// with this sum.
const MAX_MEETINGS_SQUARED: u64 = 5 * MAX_MEETINGS * MAX_MEETINGS;

/// For one module, the limit of the sum of locals times instructions over its functions, plus a tenth of the products
/// that `MAX_BLOCK_VALUES` limits.
const MAX_VALUES: u64 = 20_000_000;

/// The most instances of modules in a component: that of the guest, and those that its toolchain adds.
#[cfg(feature = "component-model")]
pub(crate) const MAX_CORE_INSTANCES: u32 = 4;

/// The most bytes of a component besides its modules: types, imports and links between them.
#[cfg(feature = "component-model")]
const MAX_COMPONENT: usize = 64 << 10;

/// Added to the locals of every function, for values that the compiler keeps for itself.
const OWN_LOCALS: u64 = 8;

/// The size of a page of memory, bytes.
const PAGE: u64 = 64 << 10;

/// Which rules a module must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// The rules of the interface. The operating system limits the cost of compiling.
    Structure,
    /// Also the rules that limit the cost of compiling, because this process compiles the module.
    Cost,
}

/// The limits that decide which modules are refused, for the hash of the engine. Null if only the interface is checked.
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

/// Refuses a module that breaks the rules of `scan`, and every import besides `logline.host_call`.
pub(crate) fn scan(binary: &[u8], scan: Scan) -> Result<(), Failure> {
    let (mut weight, mut start) = (Weight::default(), Start::default());
    // The imports of a component are checked when it is linked.
    let is_component = binary.get(6) == Some(&1);
    #[cfg(feature = "component-model")]
    let (mut beside, mut modules) = (binary.len(), 0);
    for payload in Parser::new(0).parse_all(binary) {
        match payload.map_err(malformed)? {
            #[cfg(feature = "component-model")]
            Payload::ModuleSection { unchecked_range, .. } => {
                modules += 1;
                if modules > MAX_CORE_INSTANCES {
                    return Err(invalid(format!("the component contains more than {MAX_CORE_INSTANCES} modules")));
                }
                beside -= unchecked_range.len().min(beside);
            }
            // For calls between components the compiler makes functions of its own.
            #[cfg(feature = "component-model")]
            Payload::ComponentSection { .. } => return Err(invalid("the component contains other components: compose them")),
            Payload::ImportSection(imports) if !is_component => {
                for import in imports.into_imports() {
                    let import = import.map_err(malformed)?;
                    let known = (import.module, import.name) == (MODULE, HOST_CALL);
                    if !known || !matches!(import.ty, TypeRef::Func(_)) {
                        return Err(invalid(format!(
                            "the module imports `{}.{}`: the only import it may have is the function `{}.{}`",
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
            // A module begins, alone or in a component.
            Payload::Version { .. } => weight.begin(),
            Payload::FunctionSection(functions) if scan == Scan::Cost => {
                for ty in functions {
                    weight.declared.push(ty.map_err(malformed)?);
                }
            }
            Payload::TypeSection(types) if scan == Scan::Cost => {
                if types.count() > MAX_TYPES {
                    return Err(invalid(format!("the module has {} types, the limit is {MAX_TYPES}", types.count())));
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
        return Err(invalid(format!("the component has {beside} bytes besides its modules, the limit is {MAX_COMPONENT}")));
    }
    Ok(())
}

/// Refuses a memory or table whose initial size is larger than any call may have.
fn within(what: &str, unit: &str, initial: u64, max: usize) -> Result<(), Failure> {
    if initial <= max as u64 {
        return Ok(());
    }
    Err(invalid(format!("its {what} starts with {initial} {unit}, the limit is {max}")))
}

/// The initialisation of an instance so far, which the compiler makes into one function.
#[derive(Default)]
struct Start {
    segments: u64,
    elements: u64,
    constants: u64,
}

impl Start {
    /// Adds a global, or a segment with this many elements. `expression` is its initial value or offset.
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
                return Err(invalid(format!(
                    "the module has more than {most} {what}: join them, or fill memory and tables in code"
                )));
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

/// The estimated cost of compiling the functions so far.
#[derive(Default)]
struct Weight {
    /// The numbers of parameters and results of each type of this module.
    types: Vec<(u64, u64)>,
    /// The type of each function of this module.
    declared: Vec<u32>,
    /// The functions of this module so far. `functions` counts those of all modules of a component.
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

    /// The numbers of parameters and results of a type. Both are 0 if there is no such type, which the validator refuses later.
    fn of_type(&self, ty: u32) -> (u64, u64) {
        self.types.get(ty as usize).copied().unwrap_or_default()
    }

    fn add(&mut self, body: &FunctionBody<'_>) -> Result<(), Failure> {
        self.functions += 1;
        let n = self.functions;
        if n > MAX_FUNCTIONS {
            return Err(invalid(format!("the module has more than {MAX_FUNCTIONS} functions")));
        }
        let bytes = body.range().len();
        if bytes > MAX_BODY {
            return Err(invalid(format!("function {n} has {bytes} bytes, the limit is {MAX_BODY}: split it")));
        }
        // Parameters and results count as locals.
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
                "the blocks of function {n} have {block_values} parameters and results, at {meeting} places where control flow \
                 meets; the limit of their product is {MAX_BLOCK_VALUES}: split it"
            )));
        }
        // This cannot overflow: a body of 64 KiB has at most 65,536 instructions.
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
            return Err(invalid("the functions together are too complex to compile here: make the module smaller"));
        }
        Ok(())
    }
}

/// How many places an instruction adds where control flow meets, in the module or in the machine code.
fn meetings(operator: &Operator<'_>) -> u64 {
    match operator {
        Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::If { .. }
        // These read a table that is filled lazily, or call the engine.
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
