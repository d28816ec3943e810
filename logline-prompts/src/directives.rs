//! Directives: what a policy tells the next runs of a family for a while, such as to answer without further tools.

use logline_core::contract::{Context, KernelError};
use logline_core::ledger::Query;
use logline_core::request::reference;
use logline_core::{SignedSpan, Timestamp, VerifiedSpan};
use serde_json::Value;

use crate::load::Loaded;

/// The entity type. Only hosts sign such spans, and policies may have them written.
pub(crate) const DIRECTIVE: &str = "prompt_directive";

/// How many of the newest directives of a tenant are looked at, of those that a host has signed.
const MAX_LOOKED_AT: usize = 50;

/// How many of them one run obeys.
const MAX_OBEYED: usize = 4;

/// The most bytes of a directive. A longer one is not obeyed.
const MAX_TEXT: usize = 1_000;

/// A directive that a run obeys.
pub(crate) struct Directive {
    pub(crate) text: String,
    pub(crate) reference: Value,
}

/// The directives for runs of this variant, the newest first, as they were in force when the run was asked for: so a later attempt asks the
/// same question, and takes the answer that is recorded.
pub(crate) async fn directives(
    request: &VerifiedSpan,
    context: &Context<'_>,
    loaded: &Loaded,
) -> Result<Vec<Directive>, KernelError> {
    let tenant = request.tenant_id.as_str();
    let query = Query::new().tenant(tenant).entity_type(DIRECTIVE).status("active").max_visited(10 * MAX_LOOKED_AT);
    let mut newest = Vec::new();
    let take = |span: VerifiedSpan| {
        newest.push(span);
        true
    };
    context.owner.newest_that_count(&context.trusted.authorities, query, MAX_LOOKED_AT, take).await?;
    if newest.is_empty() {
        return Ok(Vec::new());
    }
    let first = context.runtime.version(tenant, request.id, 0).await?;
    let asked = first.map_or(request.at, |first| first.at);
    let mut obeyed = Vec::new();
    for span in newest {
        if obeyed.len() == MAX_OBEYED {
            break;
        }
        if let Some(text) = text(&span, asked)
            && is_for(&span, context, loaded).await?
        {
            obeyed.push(Directive { text, reference: reference(&span) });
        }
    }
    Ok(obeyed)
}

/// What a directive says, if it was in force at `asked`. It must say until when it is.
fn text(span: &SignedSpan, asked: Timestamp) -> Option<String> {
    let until: Timestamp = span.meta("ttl_at")?.as_str()?.parse().ok()?;
    (span.at <= asked && asked < until).then(|| said(span))?
}

/// What a directive says to models.
pub(crate) fn said(directive: &SignedSpan) -> Option<String> {
    let text = directive.content.as_ref()?.get("text")?.as_str()?;
    let is_short = !text.trim().is_empty() && text.len() <= MAX_TEXT;
    is_short.then(|| text.to_owned())
}

/// Whether a directive is about the family or variant that runs: its parent is one of them, or one of their runs.
async fn is_for(directive: &SignedSpan, context: &Context<'_>, loaded: &Loaded) -> Result<bool, KernelError> {
    let Some(parent) = directive.parent_id else { return Ok(false) };
    if parent == loaded.variant_span.id {
        return Ok(true);
    }
    let Some(parent) = context.runtime.find(&directive.tenant_id, parent).await? else { return Ok(false) };
    let family = loaded.variant.family.as_str();
    Ok(match parent.entity_type.as_str() {
        "prompt_run" => parent.this.strip_prefix("prompt.") == Some(family),
        "prompt_family" => parent.name.as_deref() == Some(family),
        _ => false,
    })
}
