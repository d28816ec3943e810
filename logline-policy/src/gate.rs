//! The gate `dry_run`: a policy that has decided about recent spans without a failure.

use async_trait::async_trait;
use logline_core::contract::{Context, KernelError};
use logline_core::trust::governance::Gate;
use logline_core::{Failure, VerifiedSpan};
use logline_kernels::governance::GateTest;
use serde_json::Value;

use crate::dry_run::{DryRunOptions, foresee};
use crate::policy::Policy;
use crate::wasm::Sandboxed;

/// How many of the newest spans a version is tried on.
const SPANS: usize = 1000;

/// The test of the gate `dry_run`, for [`Governor::test`](logline_kernels::governance::Governor::test). A version passes if it has decided
/// about the newest 1,000 spans of its tenant that the request's owner can see, if at least one of them concerned it, and if no decision has
/// failed. Nothing is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct DryRunTest;

#[async_trait]
impl GateTest for DryRunTest {
    fn gate(&self) -> Gate {
        Gate::DryRun
    }

    async fn test(
        &self,
        subject: &VerifiedSpan,
        expect: Option<&Value>,
        context: &Context<'_>,
    ) -> Result<Result<(), String>, KernelError> {
        if expect.is_some() {
            return Ok(Err("a dry run expects nothing of the request: anybody may ask for it".to_owned()));
        }
        if subject.entity_type != "policy" {
            return Ok(Err(format!("a dry run is of a policy, not of a {}", subject.entity_type)));
        }
        let policy = match Policy::of(subject) {
            Ok(policy) => policy,
            Err(failure) => return Ok(Err(failure.to_string())),
        };
        let sandbox = Sandboxed { sandboxes: context.sandboxes, manifest: &context.trusted.manifest };
        let options = DryRunOptions::default().spans(SPANS);
        let (concerned, foreseen) = foresee(&context.owner, &subject.tenant_id, &policy, sandbox, &options).await?;
        let failed: Option<(String, &Failure)> =
            foreseen.iter().find_map(|one| one.decision.as_ref().err().map(|failure| (one.span.to_string(), failure)));
        Ok(match failed {
            Some((span, failure)) => Err(format!("the decision about {span} fails: {failure}")),
            None if concerned == 0 => Err(format!("none of the newest {SPANS} spans concerns it, so it has shown nothing")),
            None => Ok(()),
        })
    }
}
