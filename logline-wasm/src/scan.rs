//! What a module must keep to before the compiler sees it: the compiler's time and memory grow faster than the module.

use logline_core::sandbox::Failure;
use serde_json::{Value, json};
use wasmparser::{Parser, Payload, TypeRef};

use crate::abi;

/// Locals of one function.
const MAX_LOCALS: u64 = 500;

/// Bytes of one function's body.
const MAX_BODY: usize = 64 << 10;

/// Functions of one module.
const MAX_FUNCTIONS: u32 = 10_000;

/// Parameters and results of one function or block type: the compiler makes values of them wherever the type is used.
const MAX_PARAMS: usize = 32;
const MAX_RESULTS: usize = 8;

/// The limits that decide which modules are refused.
pub(crate) fn limits() -> Value {
    json!({
        "locals": MAX_LOCALS, "body_bytes": MAX_BODY, "functions": MAX_FUNCTIONS,
        "params": MAX_PARAMS, "results": MAX_RESULTS,
    })
}

pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new("invalid_module", message)
}

/// Refuses what would cost the compiler too much, and every import but the one there is.
pub(crate) fn scan(binary: &[u8]) -> Result<(), Failure> {
    let mut functions = 0_u32;
    for payload in Parser::new(0).parse_all(binary) {
        match payload.map_err(|e| invalid(e.to_string()))? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(|e| invalid(e.to_string()))?;
                    let known = (import.module, import.name) == (abi::MODULE, abi::HOST_CALL);
                    if !known || !matches!(import.ty, TypeRef::Func(_)) {
                        return Err(invalid(format!(
                            "it imports `{}.{}`: the only import there is is the function `{}.{}`",
                            import.module,
                            import.name,
                            abi::MODULE,
                            abi::HOST_CALL
                        )));
                    }
                }
            }
            Payload::TypeSection(types) => {
                for ty in types.into_iter_err_on_gc_types() {
                    let ty = ty.map_err(|e| invalid(e.to_string()))?;
                    if ty.params().len() > MAX_PARAMS || ty.results().len() > MAX_RESULTS {
                        return Err(invalid(format!(
                            "a type has {} parameters and {} results, the limits are {MAX_PARAMS} and {MAX_RESULTS}",
                            ty.params().len(),
                            ty.results().len()
                        )));
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                functions += 1;
                if functions > MAX_FUNCTIONS {
                    return Err(invalid(format!("it has more than {MAX_FUNCTIONS} functions")));
                }
                let bytes = body.range().len();
                if bytes > MAX_BODY {
                    return Err(invalid(format!("a function has {bytes} bytes, the limit is {MAX_BODY}: split it")));
                }
                let mut locals = 0_u64;
                for local in body.get_locals_reader().map_err(|e| invalid(e.to_string()))? {
                    locals += u64::from(local.map_err(|e| invalid(e.to_string()))?.0);
                }
                if locals > MAX_LOCALS {
                    return Err(invalid(format!("a function has {locals} locals, the limit is {MAX_LOCALS}")));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
