//! The kernel `governance`: promotions, rollbacks and the gate `check`, as requests.

use std::sync::Arc;

use async_trait::async_trait;
use logline_core::contract::{AskedBy, Context, Effects, Kernel, KernelError, Meters, RequestKind, Sandbox};
use logline_core::trust::governance::{Act, Docket, Held, ReadError, Refusal};
use logline_core::{Failure, KernelSet, SignedSpan, VerifiedSpan};
use serde_json::{Value, json};
use uuid::Uuid;

use super::GOVERNANCE;
use super::gates::{self, GateTest};

/// The `this` of a request to carry out a proposal, which is its parent. Anybody may ask: the quorum decides.
pub const PROMOTE: &str = "governance.promote";

/// The `this` of a request to carry out a proposal of a rollback, which is its parent.
pub const ROLLBACK: &str = "governance.rollback";

/// The `this` of a request to find out whether a version passes a gate. Its parent is the span, its input `{"gate", "seq"}` and what
/// the gate needs.
pub const TEST: &str = "governance.test";

/// The kernel `governance`, version 1.
#[derive(Clone)]
pub struct Governor {
    pub(super) behaviours: KernelSet,
    pub(super) tests: Vec<Arc<dyn GateTest>>,
}

impl Governor {
    /// A kernel that asks `behaviours` whether they accept a version.
    #[must_use]
    pub fn new(behaviours: KernelSet) -> Self {
        Self { behaviours, tests: Vec::new() }
    }

    /// Adds a test for a gate that this crate has none for.
    #[must_use]
    pub fn test(mut self, test: impl GateTest + 'static) -> Self {
        self.tests.push(Arc::new(test));
        self
    }

    /// The kernel with its seed, to install.
    #[must_use]
    pub fn behaviour(self) -> KernelSet {
        KernelSet::new().kernel(self).seeds(crate::seeds::governance())
    }
}

#[async_trait]
impl Kernel for Governor {
    fn id(&self) -> Uuid {
        GOVERNANCE
    }

    fn name(&self) -> &'static str {
        "governance"
    }

    fn version(&self) -> u32 {
        1
    }

    fn requests(&self) -> &'static [RequestKind] {
        &[
            RequestKind { this: PROMOTE, asked_by: AskedBy::Anybody, meters: Meters::NONE },
            RequestKind { this: ROLLBACK, asked_by: AskedBy::Anybody, meters: Meters::NONE },
            RequestKind { this: TEST, asked_by: AskedBy::Anybody, meters: Meters { executions: true, fuel: false } },
        ]
    }

    fn lacks(&self, _: Option<&SignedSpan>, _: &[Arc<dyn Sandbox>]) -> Option<String> {
        None
    }

    async fn run(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, KernelError> {
        match request.this.as_str() {
            TEST => gates::test(self, request, context).await,
            this => carry_out(request, context, (this == ROLLBACK).then_some(Act::Rollback)).await,
        }
    }
}

async fn carry_out(request: &VerifiedSpan, context: &Context<'_>, only: Option<Act>) -> Result<Effects, KernelError> {
    let failed = |code: &str, message: String| Ok(Effects::new(Err(Failure::new(code, message))));
    let Some(id) = request.parent_id else {
        return failed("proposal_not_found", "the request names no proposal: set its parent_id".to_owned());
    };
    let now = context.attempt.started;
    let docket = match context.runtime.docket(context.trusted, &request.tenant_id, id, now).await {
        Ok(docket) => docket,
        Err(ReadError::Ledger(error)) => return Err(error.into()),
        Err(error @ ReadError::NoProposal { .. }) => return failed("proposal_not_found", error.to_string()),
        Err(error) => return failed("proposal_invalid", error.to_string()),
    };
    if only.is_some_and(|act| act != docket.proposed.proposal.act) {
        return failed("not_a_rollback", format!("proposal {id} is not one of a rollback: ask for `{PROMOTE}`"));
    }
    // Another host, or an earlier attempt, has done it.
    if let Some(held) = docket.carried() {
        return Ok(Effects::new(Ok(told(&docket, held.promotion.seq, Some(held)))));
    }
    match docket.carry_out(now) {
        Ok(carried) => {
            let output = told(&docket, carried.promotion.columns().seq, None);
            let mut emitted = vec![carried.promotion];
            emitted.extend(carried.others);
            Ok(Effects::new(Ok(output)).emitted(emitted).keep_existing())
        }
        Err(refusal) => failed(refusal.code(), why(&docket, &refusal)),
    }
}

/// What was done, for those who asked.
fn told(docket: &Docket, seq: u32, held: Option<&Held>) -> Value {
    let proposed = &docket.proposed;
    let proposal = &proposed.proposal;
    let approvals = held.map_or(&docket.tally.counted, |held| &held.approvals);
    json!({
        "promotion": {
            "tenant": proposed.tenant,
            "id": logline_core::trust::governance::pointer_id(
                &proposed.tenant,
                proposal.environment,
                proposal.class,
                proposal.subject.id,
            ),
            "seq": seq,
        },
        "act": proposal.act,
        "environment": proposal.environment,
        "class": proposal.class,
        "subject": proposal.subject,
        "approvals": approvals.iter().map(|vote| json!({"id": vote.id, "key": vote.key})).collect::<Vec<_>>(),
        "emergency": proposal.emergency.is_some(),
    })
}

/// Why a proposal is not carried out, with the votes that do not count.
fn why(docket: &Docket, refusal: &Refusal) -> String {
    let mut text = refusal.to_string();
    for void in &docket.tally.void {
        text.push_str(&format!("; {} by {} does not count: {}", void.id, void.key, void.reason));
    }
    text
}
