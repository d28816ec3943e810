//! Records of prompts: drafts that the kernels hand to the host.

use logline_core::request::{self, CAUSE, reference};
use logline_core::{Draft, SignedSpan, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::build::Built;
use crate::load::Loaded;

/// Gives a draft the columns that follow from the request.
pub(crate) fn about(draft: Draft, request: &SignedSpan, who: &str) -> Draft {
    let mut draft = draft.tenant(&request.tenant_id).owner(&request.owner_id).visibility(request.visibility).who(who);
    draft.columns_mut().trace_id.clone_from(&request.trace_id);
    match request::cause(request) {
        Some(cause) => draft.meta(CAUSE, cause.clone()),
        None => draft,
    }
}

/// Drafts the `prompt_build`: everything that is needed to build the prompt again.
pub(crate) fn record(request: &SignedSpan, execution: Uuid, loaded: &Loaded, built: &Built, vars: &Value) -> Draft {
    let blocks: Vec<_> = loaded.block_spans.iter().map(|span| reference(span)).collect();
    let draft = Draft::new("prompt_build")
        .id(ids::derive("prompt_build", &[&execution.to_string()]))
        .did("built")
        .this(format!("prompt.{}", loaded.variant.family))
        .name(loaded.variant.name.as_str())
        .parent(loaded.variant_span.id)
        .related([request.id, execution])
        .status("complete")
        .content(json!(built.text))
        .input(vars.clone())
        .meta("compiled_hash", built.compiled_hash.to_string())
        .meta("hashed", "text")
        .meta("variant", reference(&loaded.variant_span))
        .meta("blocks", blocks);
    about(draft, request, "kernel:build_prompt")
}
