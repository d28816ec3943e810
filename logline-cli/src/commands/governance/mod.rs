//! `logline propose`, `rollback`, `withdraw`, `diff`, `approve`, `reject`, `promote`, `test` and `explain`

mod ballot;
mod difference;
mod explain;
mod promote;
mod propose;
mod vote;

use clap::Args;
use logline_core::ledger::Ledger;
use logline_core::trust::governance::{Docket, Held, Version};
use logline_core::{Scope, SignedSpan, Verifier};
use uuid::Uuid;

pub(crate) use difference::difference;
pub(crate) use explain::{Options as ExplainOptions, explain};
pub(crate) use promote::{PromoteOptions, TestOptions, promote, test};
pub(crate) use propose::{ProposeOptions, RollbackOptions, WithdrawOptions, propose, rollback, withdraw};
pub(crate) use vote::{DiffOptions, VoteOptions, approve, diff, reject};

use crate::Error;
use crate::output;

/// A span that is governed.
#[derive(Args)]
pub(crate) struct Subject {
    /// Its type: `function`, `policy`, `provider`, `prompt_block`, `prompt_variant` or `prompt_family`.
    kind: String,
    /// Its name or id.
    name: String,
    /// The tenant.
    #[arg(long)]
    tenant: String,
}

/// A proposal.
#[derive(Args)]
pub(crate) struct OfProposal {
    /// The id of the proposal, as `logline propose` has printed it.
    proposal: Uuid,
    /// The tenant.
    #[arg(long)]
    tenant: String,
}

/// One version of a span, whose content is what was hashed and signed.
async fn version(ledger: &dyn Ledger, tenant: &str, id: Uuid, seq: u32) -> Result<Option<SignedSpan>, Error> {
    let found = ledger.history(&Scope::runtime(tenant), tenant, id, seq, 1).await?.into_iter().next();
    let Some(found) = found.filter(|found| found.seq == seq) else { return Ok(None) };
    Ok(Some(found.verify(&mut Verifier::new())?.into_signed()))
}

/// The version that is in force and that a proposal would replace.
async fn replaced(ledger: &dyn Ledger, docket: &Docket) -> Result<Option<SignedSpan>, Error> {
    let proposal = &docket.proposed.proposal;
    let Some(replaces) = proposal.replaces else { return Ok(None) };
    let held = docket.pointer.held().iter().rev().find(|held| held.subject.curr_hash == replaces);
    let Some(Held { subject: Version { id, seq, .. }, .. }) = held else {
        return Err(format!("what the proposal would replace ({replaces}) was never in force here: do not approve it").into());
    };
    let found = version(ledger, &docket.proposed.tenant, *id, *seq).await?;
    let found = found.filter(|found| found.seal.curr_hash == replaces);
    found.map(Some).ok_or_else(|| format!("version {seq} of {id}, which is in force, is not in the ledger: run fsck").into())
}

/// Prints what a proposal says and how its vote stands.
fn show(docket: &Docket, json: bool) {
    let line = |text: &str| output::shown(text, json);
    let proposed = &docket.proposed;
    let proposal = &proposed.proposal;
    line(&format!("proposal   {} in tenant {}, by {}", proposed.id, proposed.tenant, proposed.proposer));
    let act = match proposal.act {
        logline_core::trust::governance::Act::Rollback => "go back",
        _ => "promote",
    };
    line(&format!("act        {act} in {}: {} {}", proposal.environment, proposal.class, proposal.subject.id));
    line(&format!("version    {} ({})", proposal.subject.seq, proposal.subject.curr_hash));
    match proposal.replaces {
        Some(hash) => line(&format!("replaces   {hash}")),
        None => line("replaces   nothing: no version is in force"),
    }
    line(&format!("until      {}", proposal.expires));
    if let Some(reason) = &proposal.emergency {
        line(&format!("EMERGENCY  {reason}"));
    }
    if let Some(reason) = &proposal.reason {
        line(&format!("reason     {reason}"));
    }
    let tally = &docket.tally;
    for vote in &tally.counted {
        line(&format!("approved   by {} ({})", vote.key, vote.id));
    }
    for vote in &tally.rejected {
        line(&format!("rejected   by {} ({})", vote.key, vote.id));
    }
    for void in &tally.void {
        line(&format!("void       by {} ({}): {}", void.key, void.id, void.reason));
    }
    match (docket.carried(), &tally.verdict) {
        (Some(held), _) => line(&format!("state      carried out at {}", held.at)),
        (None, Ok(())) => line("state      approved: `logline promote` carries it out"),
        (None, Err(refusal)) => line(&format!("state      {refusal}")),
    }
}
