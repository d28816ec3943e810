//! The documentation pages of LogLine. Every Rust example in them is compiled as a doctest.

#[doc = include_str!("../README.md")]
pub mod readme {}
#[doc = include_str!("first-steps.md")]
pub mod first_steps {}
#[doc = include_str!("glossary.md")]
pub mod glossary {}
#[doc = include_str!("canonical-form.md")]
pub mod canonical_form {}
#[doc = include_str!("trust.md")]
pub mod trust {}
#[doc = include_str!("execution.md")]
pub mod execution {}
#[doc = include_str!("policies.md")]
pub mod policies {}
#[doc = include_str!("providers.md")]
pub mod providers {}
#[doc = include_str!("prompts.md")]
pub mod prompts {}
#[doc = include_str!("bandit.md")]
pub mod bandit {}
#[doc = include_str!("memory.md")]
pub mod memory {}
#[doc = include_str!("retrieval.md")]
pub mod retrieval {}
#[doc = include_str!("metrics.md")]
pub mod metrics {}
#[doc = include_str!("operations.md")]
pub mod operations {}
#[doc = include_str!("http.md")]
pub mod http {}
#[doc = include_str!("page.md")]
pub mod page {}
#[doc = include_str!("wasm-abi.md")]
pub mod wasm_abi {}
#[doc = include_str!("writing-functions.md")]
pub mod writing_functions {}
#[doc = include_str!("threat-model.md")]
pub mod threat_model {}
#[doc = include_str!("sqlite.md")]
pub mod sqlite {}
#[doc = include_str!("postgres.md")]
pub mod postgres {}
#[doc = include_str!("export.md")]
pub mod export {}
#[doc = include_str!("log.md")]
pub mod log {}
#[doc = include_str!("governance.md")]
pub mod governance {}
#[doc = include_str!("releases.md")]
pub mod releases {}
#[doc = include_str!("cli.md")]
pub mod cli {}
