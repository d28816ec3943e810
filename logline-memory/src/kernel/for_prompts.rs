//! Memories for a model: what a kernel that asks one may tell it.

use async_trait::async_trait;
use logline_core::contract::{Context, KernelError};
use logline_core::{Failure, VerifiedSpan};
use logline_kernels::recall::{Recall, Recalled, RecalledText};
use serde_json::Value;

use super::recall::{Permit, Search};
use super::{MemoryKernel, Refusal, believed, invalid};
use crate::form::Stored;
use crate::members::Members;

/// The members of `memory` in the input of a request.
const KNOWN: &[&str] = &["mode", "session_id", "consent", "limit", "tokens", "types", "tags"];

/// How many memories a model is told if the request does not say.
const USUAL: usize = 8;

#[async_trait]
impl Recall for MemoryKernel {
    async fn recall(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        asked: &Value,
        question: &str,
    ) -> Result<Result<Recalled, Failure>, KernelError> {
        match self.recalled(request, context, asked, question).await {
            Ok(recalled) => Ok(Ok(recalled)),
            Err(refusal) => refusal.told(),
        }
    }

    async fn still_permitted(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        recalled: &Recalled,
    ) -> Result<Result<(), Failure>, KernelError> {
        match self.is_permitted(request, context, recalled).await {
            Ok(()) => Ok(Ok(())),
            Err(refusal) => refusal.told(),
        }
    }
}

impl MemoryKernel {
    async fn recalled(
        &self,
        request: &VerifiedSpan,
        context: &Context<'_>,
        asked: &Value,
        question: &str,
    ) -> Result<Recalled, Refusal> {
        // What is recalled would stand in the clear in the records of what a model was told.
        if context.confidential.is_none() {
            return Err(invalid("memories are for confidential requests: send the request as one"));
        }
        let members = Members::of(Some(asked), "memory", KNOWN).map_err(invalid)?;
        let permit = Permit::read(&members, request)?;
        self.catch_up(&context.runtime, &context.trusted.authorities, &request.tenant_id).await?;
        permit.check(context).await?;
        let search = Search::read(&members, &permit, question.as_bytes())?.usually(USUAL, members.get("limit").is_none());
        let found = self.look(request, context, &permit, &search).await?;
        let texts = found.hits.into_iter().map(|hit| RecalledText::new(hit.key.id, hit.version, hit.scope, hit.text));
        Ok(Recalled::new(texts.collect(), asked.clone(), found.record))
    }

    async fn is_permitted(&self, request: &VerifiedSpan, context: &Context<'_>, recalled: &Recalled) -> Result<(), Refusal> {
        let members = Members::of(Some(&recalled.asked), "memory", KNOWN).map_err(invalid)?;
        Permit::read(&members, request)?.check(context).await?;
        for text in &recalled.texts {
            let tenant = text.version.get("tenant").and_then(Value::as_str).unwrap_or(&request.tenant_id);
            let last = believed(context, tenant, text.id).await?;
            let stands = last.filter(|last| {
                text.version.get("seq").and_then(Value::as_u64) == Some(last.seq.into())
                    && Stored::read(last).is_ok_and(|stored| stored.status.is_found())
            });
            if stands.is_none() {
                let message = "a memory that the answer would use was changed or forgotten meanwhile: ask again";
                return Err(Refusal::Failed(Failure::new("memory_changed", message)));
            }
        }
        Ok(())
    }
}
