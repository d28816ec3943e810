//! The kernel `build_prompt`: a request that builds a prompt and records it.

use std::sync::Arc;

use async_trait::async_trait;
use logline_core::contract::{AskedBy, Context, Effects, Kernel, KernelError, Meters, Publishing, RequestKind, Sandbox};
use logline_core::{Failure, SignedSpan, Span, VerifiedSpan};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::block::Block;
use crate::build::build;
use crate::ids::build_prompt;
use crate::load::{LoadError, Versions, load};
use crate::record::{Recorded, check_personal, record};
use crate::render::Compiled;
use crate::variant::Variant;

/// The `this` of a request that builds a prompt. Its parent is the variant, its input `{"vars"?: {…}}`.
pub const PROMPT_BUILD: &str = "prompt.build";

/// The kernel `build_prompt`, version 1.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct BuildPrompt;

#[async_trait]
impl Kernel for BuildPrompt {
    fn id(&self) -> Uuid {
        build_prompt()
    }

    fn name(&self) -> &'static str {
        "build_prompt"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        const METERS: Meters = Meters { executions: true, fuel: false };
        &[RequestKind { this: PROMPT_BUILD, asked_by: AskedBy::Anybody, meters: METERS }]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        None
    }

    fn keeps_confidential(&self) -> bool {
        true
    }

    /// Blocks and variants that could never be built are not published.
    async fn check(&self, span: &Span, publishing: &Publishing<'_>) -> Result<(), KernelError> {
        let refused = |reason: String| KernelError::Refused(Failure::new("prompt_invalid", reason));
        if span.is_deleted {
            return Ok(());
        }
        match span.entity_type.as_str() {
            "prompt_block" => {
                let block = Block::read(span).map_err(refused)?;
                let template = Compiled::new(&block.template);
                let template = template.map_err(|f| refused(format!("content, line {}: {}", f.line, f.reason)))?;
                let used = template.names();
                let known: std::collections::BTreeSet<_> = block.variables.keys().cloned().collect();
                if let Some(name) = used.symmetric_difference(&known).next() {
                    let what = if used.contains(name) { "is used and not among" } else { "is not used, and is among" };
                    return Err(refused(format!("`{name}` {what} metadata.vars")));
                }
                Ok(())
            }
            "prompt_variant" => {
                let variant = Variant::read(span).map_err(refused)?;
                for id in &variant.blocks {
                    let found = publishing.reader.find(&span.tenant_id, *id).await?;
                    if found.is_none_or(|found| found.entity_type != "prompt_block") {
                        return Err(refused(format!("metadata.block_ids: there is no prompt_block {id}: publish it first")));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        let failed = |code: &str, reason: String| Ok(Effects::new(Err(Failure::new(code, reason))));
        let Some(variant) = request.parent_id else {
            return failed("prompt_invalid", "the request names no variant: set its parent_id".to_owned());
        };
        let vars = match vars(context.input) {
            Ok(vars) => vars,
            Err(reason) => return failed("prompt_invalid", reason),
        };
        let loaded = match load(&context.owner, Versions::of(context), &request.tenant_id, variant).await {
            Ok(loaded) => loaded,
            Err(LoadError::Ledger(error)) => return Err(error.into()),
            Err(error) => return failed("prompt_invalid", error.to_string()),
        };
        let built = match build(&loaded.variant, &loaded.blocks, &vars) {
            Ok(built) => built,
            Err(error) => return failed("prompt_invalid", error.to_string()),
        };
        if let Err(reason) = check_personal(&built, context) {
            return failed("prompt_invalid", reason);
        }
        let Recorded { draft, compiled_hash } = match record(request, context, &loaded, &built, &vars).await? {
            Ok(recorded) => recorded,
            Err(failure) => return Ok(Effects::new(Err(failure))),
        };
        let output = json!({
            "build": draft.columns().id,
            "compiled_hash": compiled_hash.to_string(),
            "bytes": built.text.len(),
        });
        Ok(Effects::new(Ok(output)).emitted(vec![draft.at(context.attempt.started)]))
    }
}

/// Reads the input of a request.
fn vars(input: Option<&Value>) -> Result<Value, String> {
    let Some(input) = input.filter(|input| !input.is_null()) else { return Ok(Value::Null) };
    Ok(logline_core::json::members(Some(input), "the input", &["vars"])?.get("vars").cloned().unwrap_or_default())
}
