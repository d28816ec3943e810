//! The kernel `prompt_bandit`: chooses variants, and renews what choices are made by.

use std::sync::Arc;

use async_trait::async_trait;
use logline_core::contract::{AskedBy, Context, Effects, Kernel, KernelError, Meters, Publishing, RequestKind, Sandbox};
use logline_core::{Failure, SignedSpan, Span, VerifiedSpan};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::family::Family;
use crate::ids::prompt_bandit;
use crate::learn::{Learnt, learn};
use crate::load::{LoadError, Versions, find};
use crate::select::select;

/// The `this` of a request that chooses a variant. Its parent is the family, its input `{"session"?: TEXT}`.
pub const PROMPT_SELECT: &str = "prompt.select";

/// The `this` of a request that renews the shares of a family. Its parent is the family; it has no input.
pub const PROMPT_LEARN: &str = "prompt.learn";

/// The entity type of families.
pub(crate) const FAMILY: &str = "prompt_family";

/// The kernel `prompt_bandit`, version 1.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct PromptBandit;

#[async_trait]
impl Kernel for PromptBandit {
    fn id(&self) -> Uuid {
        prompt_bandit()
    }

    fn name(&self) -> &'static str {
        "prompt_bandit"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        const METERS: Meters = Meters { executions: true, fuel: false };
        &[
            RequestKind { this: PROMPT_SELECT, asked_by: AskedBy::Anybody, meters: METERS },
            RequestKind { this: PROMPT_LEARN, asked_by: AskedBy::Anybody, meters: METERS },
        ]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        None
    }

    /// A family whose variants are not there, or are of another family, is not published.
    async fn check(&self, span: &Span, publishing: &Publishing<'_>) -> Result<(), KernelError> {
        if span.entity_type != FAMILY || span.is_deleted {
            return Ok(());
        }
        let refused = |reason: String| KernelError::Refused(Failure::new("prompt_invalid", reason));
        let family = Family::read(span).map_err(refused)?;
        for id in &family.variants {
            let found = publishing.reader.find(&span.tenant_id, *id).await?;
            let found = found.filter(|found| found.entity_type == "prompt_variant");
            let found = found
                .ok_or_else(|| refused(format!("metadata.variants: there is no prompt_variant {id}: publish it first")))?;
            let of = found.meta("family").and_then(Value::as_str).unwrap_or_default();
            if of != family.name {
                return Err(refused(format!("metadata.variants: {id} is of the family `{}`", of.escape_debug())));
            }
        }
        Ok(())
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        match self.answer(request, context).await? {
            Ok(effects) => Ok(effects),
            Err(failure) => Ok(Effects::new(Err(failure))),
        }
    }
}

impl PromptBandit {
    async fn answer(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Result<Effects, Failure>, KernelError> {
        let invalid = |reason: String| Ok(Err(Failure::new("prompt_invalid", reason)));
        let Some(id) = request.parent_id else {
            return invalid("the request names no family: set its parent_id".to_owned());
        };
        let found = find(&context.owner, Versions::of(context), &request.tenant_id, (FAMILY, id)).await;
        let span = match found {
            Ok(span) => span,
            Err(LoadError::Ledger(error)) => return Err(error.into()),
            Err(error) => return invalid(error.to_string()),
        };
        if request.this == PROMPT_LEARN {
            let family = match Family::read(&span) {
                Ok(family) => family,
                Err(reason) => return invalid(format!("prompt_family {id}: {reason}")),
            };
            return Ok(match learn(request, context, &span, &family).await? {
                Ok(Learnt::Renewed(draft, all)) => {
                    // The counts are of the tenant; the asker is told of what the asker may see.
                    let mut seen = Vec::new();
                    for known in all {
                        let id = known.variant.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
                        let found = match id {
                            Some(id) => context.owner.find(&request.tenant_id, id).await?,
                            None => None,
                        };
                        seen.extend(found.map(|_| known));
                    }
                    let told = json!({"posterior": draft.columns().id, "variants": seen});
                    Ok(Effects::new(Ok(told)).emitted(vec![*draft]))
                }
                Ok(Learnt::TooLittle(new)) => Ok(Effects::new(Ok(json!({"posterior": null, "new": new})))),
                Err(failure) => Err(failure),
            });
        }
        let session = match session(request.input.as_ref()) {
            Ok(session) => session,
            Err(reason) => return invalid(reason),
        };
        Ok(select(request, context, &span, session).await?.map(|selected| {
            let told = json!({
                "variant": selected.variant,
                "version": selected.reference,
                "selection": selected.selection,
                "propensity": selected.propensity,
            });
            Effects::new(Ok(told)).emitted(selected.record.into_iter().collect())
        }))
    }
}

/// Reads the input of a request.
fn session(input: Option<&Value>) -> Result<Option<&str>, String> {
    let Some(input) = input.filter(|input| !input.is_null()) else { return Ok(None) };
    match logline_core::json::members(Some(input), "the input", &["session"])?.get("session") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(session)) => Ok(Some(session)),
        Some(_) => Err("`session` must be a text".to_owned()),
    }
}
