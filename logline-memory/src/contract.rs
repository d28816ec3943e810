//! Contracts: JSON schemas that memories keep. A publisher publishes them, and a memory names one.

use logline_core::contract::Validator;
use logline_core::{Draft, Failure, Span, Visibility, canonical, ids};
use serde_json::Value;
use uuid::Uuid;

/// The `entity_type` of contracts.
pub(crate) const CONTRACT: &str = "memory_contract";

/// The most bytes of a contract's schema.
const MAX_SCHEMA: usize = 32 << 10;

/// The id of the contract with this name. Memories find it nowhere else.
#[must_use]
pub fn contract_id(tenant: &str, name: &str) -> Uuid {
    ids::derive(CONTRACT, &[tenant, name])
}

/// A draft of a contract that memories can keep: a JSON schema of `{"text": …, "data": …}`. A publisher publishes it.
#[must_use]
pub fn contract(tenant: &str, owner: &str, name: &str, schema: Value) -> Draft {
    Draft::new(CONTRACT)
        .id(contract_id(tenant, name))
        .tenant(tenant)
        .owner(owner)
        .visibility(Visibility::Tenant)
        .who(format!("user:{owner}"))
        .did("defined")
        .this("memory.contract")
        .name(name)
        .status("active")
        .content(schema)
}

/// The schema of a contract.
pub(crate) fn schema(span: &Span) -> Result<jsonschema::Validator, String> {
    let schema = span.content.as_ref().filter(|schema| schema.is_object());
    let schema = schema.ok_or("content: a memory_contract has a JSON schema there, an object")?;
    if canonical::to_vec(schema).len() > MAX_SCHEMA {
        return Err(format!("content: the schema has more than {MAX_SCHEMA} bytes"));
    }
    // Patterns take time in proportion to what they check.
    jsonschema::options()
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .should_validate_formats(true)
        .build(schema)
        .map_err(|e| format!("content: it is not a JSON schema: {e}"))
}

/// Checks contracts before they are published: that the schema is one, and that memories will find it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ContractValidator;

impl Validator for ContractValidator {
    fn validate(&self, span: &Span) -> Result<(), Failure> {
        if span.entity_type != CONTRACT || span.is_deleted {
            return Ok(());
        }
        let refused = |reason: String| Failure::new(CONTRACT, reason);
        let name = span.name.as_deref().unwrap_or_default();
        let id = contract_id(&span.tenant_id, name);
        if span.id != id {
            let advice = "leave `id` out, and publish the draft with `logline publish`";
            return Err(refused(format!("id: no memory finds it there, but at {id}, which follows from its name: {advice}")));
        }
        schema(span).map(drop).map_err(refused)
    }
}
