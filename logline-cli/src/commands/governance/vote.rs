//! Votes. Whoever votes is shown the content, which is hashed again; there is no way to approve a bare hash.

use std::path::PathBuf;

use clap::Args;
use logline_core::ledger::{Ledger as _, WorkQueue as _};
use logline_core::trust::governance::{Decision, Docket, Refusal};
use logline_core::{Clock as _, Draft, IdSource as _, KeyPair, Scope, SystemClock, SystemIds, VerifiedSpan};
use serde_json::json;
use uuid::Uuid;

use super::ballot::{Ballot, create};
use super::difference::difference;
use super::{OfProposal, replaced, show};
use crate::site::{HomeOptions, Site};
use crate::{Error, output};

#[derive(Args)]
pub(crate) struct DiffOptions {
    #[command(flatten)]
    of: OfProposal,
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Args)]
#[command(after_help = "On a machine without the ledger:\n  \
        logline approve PROPOSAL --tenant acme --out ballot.ndjson     (where the ledger is)\n  \
        logline approve --sign ballot.ndjson --key approver.key --out vote.ndjson\n  \
        logline import vote.ndjson --trust TRUST                       (where the ledger is)")]
pub(crate) struct VoteOptions {
    /// The id of the proposal, as `logline propose` has printed it.
    #[arg(required_unless_present = "sign")]
    proposal: Option<Uuid>,
    /// The tenant.
    #[arg(long, required_unless_present = "sign")]
    tenant: Option<String>,
    /// Writes what is to be decided to this file, to sign it elsewhere; with --sign, writes the signed vote.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Signs what `--out` has written. No ledger is needed.
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with_all = ["proposal", "tenant"])]
    sign: Option<PathBuf>,
    #[command(flatten)]
    home: HomeOptions,
}

pub(crate) async fn diff(options: &DiffOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let trusted = site.trusted().await?;
    let now = site.ledger.now().await?;
    let docket = trusted.docket(&site.ledger, &options.of.tenant, options.of.proposal, now).await?;
    let lines = difference(replaced(&site.ledger, &docket).await?.as_ref(), &docket.subject);
    if json {
        output::line(&json!({"proposal": docket.proposed.id, "difference": lines}).to_string());
        return Ok(true);
    }
    show(&docket, false);
    lines.iter().for_each(|line| output::line(line));
    Ok(true)
}

pub(crate) async fn approve(options: &VoteOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    vote(options, url, json, Decision::Approve).await
}

pub(crate) async fn reject(options: &VoteOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    vote(options, url, json, Decision::Reject).await
}

async fn vote(options: &VoteOptions, url: Option<&str>, json: bool, decision: Decision) -> Result<bool, Error> {
    if let (Some(file), Some(out)) = (&options.sign, &options.out) {
        let ballot = Ballot::read(file)?;
        output::shown(&format!("ledger     {}", ballot.ledger), json);
        let Some(span) = ask_and_sign(&ballot, options, decision, json).await? else { return Ok(false) };
        create(out, &[span.to_line(), b"\n".to_vec()].concat())?;
        output::line(&if json {
            json!({"vote": span.id, "file": out.display().to_string()}).to_string()
        } else {
            format!("signed: bring {} to the ledger with `logline import`", out.display())
        });
        return Ok(true);
    }
    let (Some(proposal), Some(tenant)) = (options.proposal, &options.tenant) else {
        return Err("name the proposal and --tenant, or a file with --sign".into());
    };
    let site = Site::open(url, &options.home).await?;
    let host = site.reader().await?;
    let trusted = host.trusted();
    let docket = trusted.docket(&site.ledger, tenant, proposal, site.ledger.now().await?).await?;
    check_open(&docket)?;
    let before = replaced(&site.ledger, &docket).await?;
    if let Some(out) = &options.out {
        let row = site.ledger.history(&Scope::runtime(tenant), tenant, proposal, 0, 1).await?.into_iter().next();
        let row = row.ok_or("the proposal is gone: run fsck")?;
        Ballot::write(out, trusted.ledger, &docket, &row, before.as_ref())?;
        output::note(&format!("`logline approve --sign {} --key KEYFILE --out VOTE` decides about it", out.display()));
        return Ok(true);
    }
    show(&docket, json);
    let ballot = Ballot {
        ledger: trusted.ledger,
        proposed: docket.proposed.clone(),
        subject: docket.subject.clone().into_signed(),
        replaced: before,
    };
    let Some(span) = ask_and_sign(&ballot, options, decision, json).await? else { return Ok(false) };
    let id = span.id;
    host.admit(&Scope::runtime(tenant), vec![span]).await?;
    let docket = trusted.docket(&site.ledger, tenant, proposal, site.ledger.now().await?).await?;
    let (found, needed) = (docket.tally.counted.len(), docket.tally.needed);
    let void = docket.tally.void.iter().find(|void| void.id == id);
    output::line(&if json {
        let reason = void.map(|void| void.reason.to_string());
        json!({"vote": id, "counted": found, "needed": needed, "void": reason}).to_string()
    } else {
        match void {
            Some(void) => format!("the vote is recorded ({id}) and does not count: {}", void.reason),
            None => format!("the vote is recorded ({id}): {found} of {needed} approvals"),
        }
    });
    Ok(void.is_none())
}

/// Refuses a vote on a proposal that no vote can carry any more.
fn check_open(docket: &Docket) -> Result<(), Error> {
    if docket.carried().is_some() {
        return Err("the proposal is carried out already: to go back, propose a rollback".into());
    }
    match &docket.tally.verdict {
        Ok(()) | Err(Refusal::Approvals { .. } | Refusal::Gate { .. } | Refusal::NotReviewed) => Ok(()),
        Err(refusal) => Err(format!("no vote can carry this proposal: {refusal}").into()),
    }
}

/// Shows what changes, asks, and signs. `None` if the answer is not `yes`.
async fn ask_and_sign(
    ballot: &Ballot,
    options: &VoteOptions,
    decision: Decision,
    json: bool,
) -> Result<Option<VerifiedSpan>, Error> {
    let show = |text: &str| output::shown(text, json);
    let key: KeyPair = options.home.approver()?;
    let lines = difference(ballot.replaced.as_ref(), &ballot.subject);
    let subject = &ballot.subject;
    show(&format!("content    {} version {}, signed by {}", subject.entity_type, subject.seq, subject.seal.public_key));
    show(&format!("hashes to  {} (computed from the content now)", subject.seal.curr_hash));
    lines.iter().for_each(|line| show(line));
    let proposal = &ballot.proposed.proposal;
    let what = match decision {
        Decision::Approve => "approve",
        Decision::Reject => "reject",
    };
    if !output::is_yes(&format!("{what} this change in {} until {}?", proposal.environment, proposal.expires))? {
        output::note("nothing was signed");
        return Ok(None);
    }
    let now = SystemClock.now();
    let signed = ballot.proposed.statement(ballot.ledger, decision).sign(&key).await?;
    let draft: Draft = signed.to_draft("approver").id(SystemIds.next_id(now)).at(now);
    Ok(Some(draft.seal(&key).await?))
}
