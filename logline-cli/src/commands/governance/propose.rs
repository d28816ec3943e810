//! Proposals: to promote, to roll back, and to take a proposal back.

use std::time::Duration;

use clap::Args;
use logline::home::KeyOf;
use logline_core::Signer as _;
use logline_core::ledger::{LedgerError, LedgerExt as _, WorkQueue as _};
use logline_core::roles::Role;
use logline_core::trust::governance::{Act, Proposed, Wish};
use logline_core::{AdmitError, HostError, Scope, SignedSpan};
use serde_json::json;

use super::{OfProposal, Subject, version};
use crate::site::{HomeOptions, Site, check_tenant};
use crate::{Error, output};

/// What proposals have in common.
#[derive(Args)]
struct Common {
    /// How many days it may be approved.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=366))]
    days: u32,
    /// Why, for those who approve.
    #[arg(long)]
    reason: Option<String>,
    /// Makes it an emergency, and says why: fewer approvals, a short time in force, and a review before the next one.
    #[arg(long, value_name = "REASON")]
    emergency: Option<String>,
    #[command(flatten)]
    home: HomeOptions,
}

#[derive(Args)]
#[command(after_help = "Example: logline propose function fee --tenant acme --environment production --reason 'new rate'")]
pub(crate) struct ProposeOptions {
    #[command(flatten)]
    subject: Subject,
    /// The version. Without it: the last one.
    #[arg(long, value_name = "SEQ")]
    version: Option<u32>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
#[command(after_help = "It makes a proposal. When it is approved, `logline promote` carries it out.")]
pub(crate) struct RollbackOptions {
    #[command(flatten)]
    subject: Subject,
    /// The version to go back to. It must have been in force.
    #[arg(long, value_name = "SEQ")]
    to: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(crate) struct WithdrawOptions {
    #[command(flatten)]
    of: OfProposal,
    /// Why.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    home: HomeOptions,
}

pub(crate) async fn propose(options: &ProposeOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.common.home).await?;
    let Subject { kind, name, tenant } = &options.subject;
    let id = site.named(tenant, kind, name).await?;
    let subject = match options.version {
        Some(seq) => version(&site.ledger, tenant, id, seq).await?,
        None => site.ledger.find(&Scope::runtime(tenant), tenant, id).await?,
    };
    let subject = subject.ok_or_else(|| format!("there is no such version of {id}"))?;
    make(&site, &subject, Wish::promote(options.common.home.environment()), &options.common, json).await
}

pub(crate) async fn rollback(options: &RollbackOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.common.home).await?;
    let Subject { kind, name, tenant } = &options.subject;
    let id = site.named(tenant, kind, name).await?;
    let subject = version(&site.ledger, tenant, id, options.to).await?;
    let subject = subject.ok_or_else(|| format!("there is no version {} of {id}", options.to))?;
    make(&site, &subject, Wish::roll_back(options.common.home.environment()), &options.common, json).await
}

async fn make(site: &Site, subject: &SignedSpan, mut wish: Wish, common: &Common, json: bool) -> Result<bool, Error> {
    wish.lasts = Duration::from_secs(u64::from(common.days) * 24 * 60 * 60);
    wish.reason.clone_from(&common.reason);
    wish.emergency.clone_from(&common.emergency);
    let publisher = site.key(KeyOf::Publisher)?;
    let host = site.host(KeyOf::Publisher).await?;
    let tenant = &subject.tenant_id;
    check_tenant(&host, &publisher.public_key(), Role::Publisher, tenant)?;
    let now = site.ledger.now().await?;
    let drafted = host.trusted().draft_proposal(&site.ledger, subject, &wish, now).await?;
    let proposal = drafted.map_err(|refusal| format!("{refusal} (the manifest's `governance` says what is governed)"))?;
    if proposal.replaces == Some(proposal.subject.curr_hash) && wish.act == Act::Rollback {
        return Err(format!("version {} is in force already", proposal.subject.seq).into());
    }
    let draft = proposal.to_draft(tenant, &subject.owner_id, &publisher.public_key());
    let id = draft.columns().id;
    match host.publish(draft, &publisher).await {
        Ok(span) => drop(Proposed::of(&span)?),
        // The same proposal again is the same.
        Err(HostError::Admit(AdmitError::Ledger(LedgerError::Conflict(_)))) => {}
        Err(error) => return Err(error.into()),
    }
    output::line(&if json {
        json!({
            "proposal": id, "tenant": tenant, "environment": proposal.environment, "class": proposal.class,
            "act": proposal.act, "subject": proposal.subject, "replaces": proposal.replaces, "expires": proposal.expires,
        })
        .to_string()
    } else {
        id.to_string()
    });
    if !json {
        output::note(&format!("`logline approve {id} --tenant {tenant} --key KEYFILE` approves it, for each approver"));
    }
    Ok(true)
}

pub(crate) async fn withdraw(options: &WithdrawOptions, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let publisher = site.key(KeyOf::Publisher)?;
    let host = site.host(KeyOf::Publisher).await?;
    let OfProposal { proposal, tenant } = &options.of;
    let now = site.ledger.now().await?;
    let docket = host.trusted().docket(&site.ledger, tenant, *proposal, now).await?;
    if docket.carried().is_some() {
        return Err("it is carried out already: propose a rollback".into());
    }
    let draft = docket.proposed.withdrawal(&docket.subject.owner_id, options.reason.as_deref());
    let span = host.publish_if_changed(draft, &publisher).await?;
    output::line(&if json { json!({"withdrawal": span.id}).to_string() } else { format!("withdrawn ({})", span.id) });
    Ok(true)
}
