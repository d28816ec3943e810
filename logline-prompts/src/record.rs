//! Records of prompts: drafts that the kernels hand to the host.

use std::collections::BTreeMap;

use logline_core::contract::{CipherError, Confidential, Context, KernelError};
use logline_core::request::{self, CAUSE, reference};
use logline_core::trust::governance::{PROMOTIONS, promotion_references};
use logline_core::{Draft, Failure, Hash, SignedSpan, ids};
use serde_json::{Map, Value, json};

use crate::build::Built;
use crate::load::Loaded;

/// How `metadata.compiled_hash` was made: it is the hash of the text.
const OF_TEXT: &str = "text";

/// How it was made if the variables are encrypted: see [`Built::keyed_hash`].
pub(crate) const KEYED: &str = "keyed";

/// Gives a draft the columns that follow from the request.
pub(crate) fn about(draft: Draft, request: &SignedSpan, who: &str) -> Draft {
    let mut draft = draft.tenant(&request.tenant_id).owner(&request.owner_id).visibility(request.visibility).who(who);
    draft.columns_mut().trace_id.clone_from(&request.trace_id);
    match request::cause(request) {
        Some(cause) => draft.meta(CAUSE, cause.clone()),
        None => draft,
    }
}

/// Refuses personal values that would stand in the clear.
pub(crate) fn check_personal(built: &Built, context: &Context<'_>) -> Result<(), String> {
    match (&built.personal, context.confidential) {
        (Some(name), None) => Err(format!("the variable `{name}` is personal: send the request as a confidential one")),
        _ => Ok(()),
    }
}

/// The record of a build, and the hash that it has there.
pub(crate) struct Recorded {
    pub(crate) draft: Draft,
    pub(crate) compiled_hash: Hash,
}

/// The hash under which records name what was built. The inner error is a failure of the request.
pub(crate) async fn compiled_hash(context: &Context<'_>, built: &Built) -> Result<Result<Hash, Failure>, KernelError> {
    let Some(key) = context.confidential else { return Ok(Ok(built.compiled_hash)) };
    match keyed(key, built).await {
        Ok(hash) => Ok(Ok(hash)),
        Err(error) => Ok(Err(error.into_failure()?)),
    }
}

/// Drafts the `prompt_build`: everything that is needed to build the prompt again. The inner error is a failure of the request.
pub(crate) async fn record(
    request: &SignedSpan,
    context: &Context<'_>,
    loaded: &Loaded,
    built: &Built,
    vars: &Value,
) -> Result<Result<Recorded, Failure>, KernelError> {
    let execution = context.attempt.execution_id;
    let id = ids::derive("prompt_build", &[&execution.to_string()]);
    let shown = match context.confidential {
        None => Shown { text: json!(built.text), vars: vars.clone(), compiled_hash: built.compiled_hash, hashed: OF_TEXT },
        Some(key) => match hide(key, id, built, vars).await {
            Ok(shown) => shown,
            Err(error) => return Ok(Err(error.into_failure()?)),
        },
    };
    let blocks: Vec<_> = loaded.block_spans.iter().map(|span| reference(span)).collect();
    let draft = Draft::new("prompt_build")
        .id(id)
        .did("built")
        .this(format!("prompt.{}", loaded.variant.family))
        .name(loaded.variant.name.as_str())
        .parent(loaded.variant_span.id)
        .related([request.id, execution])
        .status("complete")
        .content(shown.text)
        .input(shown.vars)
        .meta("compiled_hash", shown.compiled_hash.to_string())
        .meta("hashed", shown.hashed)
        .meta("variant", reference(&loaded.variant_span))
        .meta("blocks", blocks);
    let draft = match loaded.promotions.is_empty() {
        true => draft,
        false => draft.meta(PROMOTIONS, promotion_references(&request.tenant_id, loaded.promotions.clone())),
    };
    Ok(Ok(Recorded { draft: about(draft, request, "kernel:build_prompt"), compiled_hash: shown.compiled_hash }))
}

/// What a record shows of a build.
struct Shown {
    text: Value,
    vars: Value,
    compiled_hash: Hash,
    hashed: &'static str,
}

async fn hide(key: &Confidential, id: uuid::Uuid, built: &Built, vars: &Value) -> Result<Shown, CipherError> {
    Ok(Shown {
        text: key.seal(id, "content", &json!(built.text)).await?,
        vars: key.seal(id, "input", vars).await?,
        compiled_hash: keyed(key, built).await?,
        hashed: KEYED,
    })
}

async fn keyed(key: &Confidential, built: &Built) -> Result<Hash, CipherError> {
    Ok(built.keyed_hash(&hashes(key, &built.given).await?))
}

/// The keyed hash of each variable.
pub(crate) async fn hashes(key: &Confidential, vars: &Map<String, Value>) -> Result<BTreeMap<String, Hash>, CipherError> {
    let mut hashes = BTreeMap::new();
    for (name, value) in vars {
        let bytes = logline_core::canonical::to_vec(&json!({"name": name, "value": value}));
        hashes.insert(name.clone(), key.hash("logline.prompt_variable.v1", &bytes).await?);
    }
    Ok(hashes)
}
