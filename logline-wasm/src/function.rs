//! The draft of a function's span.

use logline_core::{Draft, Visibility, ids};
use uuid::Uuid;

use crate::RUNTIME;

/// The id of the function `name` of `tenant`, if it was published as [`function`] drafts it.
#[must_use]
pub fn function_id(tenant: &str, name: &str) -> Uuid {
    ids::derive("function", &[tenant, name])
}

/// Drafts the function `name` of `tenant` for the runtime [`RUNTIME`]. Its owner is `publisher`, and every user of the tenant may
/// ask for it. The caller sets the code.
///
/// ```
/// let fee = logline_wasm::function("acme", "fee").code(logline_wasm::encode_binary(b"\0asm\x01\0\0\0"));
/// assert_eq!(fee.columns().id, logline_wasm::function_id("acme", "fee"));
/// ```
#[must_use]
pub fn function(tenant: &str, name: &str) -> Draft {
    Draft::new("function")
        .id(function_id(tenant, name))
        .tenant(tenant)
        .owner("publisher")
        .who("publisher")
        .did("published")
        .this(format!("function.{name}"))
        .name(name)
        .visibility(Visibility::Tenant)
        .status("active")
        .language("wasm")
        .runtime(RUNTIME)
}
