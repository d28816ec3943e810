//! Says who has allowed what ran, or how a vote stands.

use clap::Args;
use logline_core::ledger::{LedgerExt as _, WorkQueue as _};
use logline_core::trust::Trusted;
use logline_core::trust::governance::{Class, Environment, Held, Version, promotion_of, promotions_of};
use logline_core::{Scope, SignedSpan, Verifier};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{show, version};
use crate::site::{HomeOptions, Site};
use crate::{Error, output};

#[derive(Args)]
pub(crate) struct Options {
    /// The id of an execution, a call of a provider (`provider_request`), a build of a prompt, a proposal or a promotion.
    id: Uuid,
    /// The tenant.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    home: HomeOptions,
}

pub(crate) async fn explain(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let site = Site::open(url, &options.home).await?;
    let trusted = site.trusted().await?;
    let tenant = &options.tenant;
    let span = site.ledger.find(&Scope::runtime(tenant), tenant, options.id).await?;
    let span = span.ok_or_else(|| format!("no span {} in tenant `{}`", options.id, output::plain(tenant)))?;
    match span.entity_type.as_str() {
        "proposal" => {
            let docket = trusted.docket(&site.ledger, tenant, options.id, site.ledger.now().await?).await?;
            if json {
                let void = docket
                    .tally
                    .void
                    .iter()
                    .map(|void| json!({"id": void.id, "key": void.key, "reason": void.reason.to_string()}));
                let is_carried = docket.carried().is_some();
                let refusal = docket.tally.verdict.as_ref().err().filter(|_| !is_carried).map(ToString::to_string);
                output::line(
                    &json!({
                        "proposal": options.id, "counted": docket.tally.counted.len(), "needed": docket.tally.needed,
                        "void": void.collect::<Vec<_>>(), "approved": refusal.is_none(), "refusal": refusal,
                        "carried_out": is_carried,
                    })
                    .to_string(),
                );
            } else {
                show(&docket, false);
            }
            Ok(true)
        }
        "promotion" => Box::pin(promotion(&site, &trusted, tenant, Version::of(&span), json)).await,
        _ => {
            // The first version of a record is the record.
            let record = version(&site.ledger, tenant, options.id, 0).await?.unwrap_or(span);
            let named: Vec<_> = promotion_of(&record).into_iter().chain(promotions_of(&record).into_values()).collect();
            if named.is_empty() {
                output::line(&if json {
                    json!({"span": options.id, "promotion": null}).to_string()
                } else {
                    format!("{} names no promotion: nothing had to be promoted for it", record.key())
                });
            }
            let mut hold = true;
            for named in named {
                hold &= promotion(&site, &trusted, tenant, named, json).await?;
            }
            Ok(hold)
        }
    }
}

/// Says which approvals a promotion has, after they are counted again.
async fn promotion(site: &Site, trusted: &Trusted, tenant: &str, named: Version, json: bool) -> Result<bool, Error> {
    let row = version(&site.ledger, tenant, named.id, named.seq).await?;
    let row = row
        .filter(|row| row.seal.curr_hash == named.curr_hash)
        .ok_or("the promotion is not in the ledger as it is named: run fsck")?;
    let pointer = pointer(site, trusted, tenant, &row).await?;
    let held = pointer.0.iter().find(|held| held.promotion == named);
    let Some(held) = held else {
        let reason = pointer.1.iter().find(|(version, _)| *version == named).map(|(_, reason)| reason.clone());
        let reason = reason.unwrap_or_default();
        output::line(&if json {
            json!({"promotion": named, "holds": false, "reason": reason}).to_string()
        } else {
            format!("promotion {}/{} does not hold: {reason}", named.id, named.seq)
        });
        return Ok(false);
    };
    if json {
        let approvals: Vec<_> = held.approvals.iter().map(|vote| json!({"id": vote.id, "key": vote.key})).collect();
        output::line(
            &json!({
                "promotion": named, "holds": true, "act": held.act, "subject": held.subject, "proposal": held.proposal,
                "approvals": approvals, "at": held.at, "emergency": held.is_emergency, "manifest_version": held.manifest,
            })
            .to_string(),
        );
        return Ok(true);
    }
    output::line(&format!("promotion  {}/{} at {}, under manifest version {}", named.id, named.seq, held.at, held.manifest));
    output::line(&format!("version    {} of {} ({})", held.subject.seq, held.subject.id, held.subject.curr_hash));
    output::line(&format!("proposal   {}", held.proposal));
    for vote in &held.approvals {
        output::line(&format!("approved   by {} ({})", vote.key, vote.id));
    }
    if held.is_emergency {
        output::line("EMERGENCY  it was promoted with fewer approvals, and needs a review");
    }
    output::line(&format!("carried out by host {}", row.seal.public_key));
    Ok(true)
}

/// The promotions of the pointer that a row belongs to: those that hold, and those that do not.
async fn pointer(
    site: &Site,
    trusted: &Trusted,
    tenant: &str,
    row: &SignedSpan,
) -> Result<(Vec<Held>, Vec<(Version, String)>), Error> {
    row.check(&mut Verifier::new())?;
    let text = |name: &str| row.meta("promotion").and_then(|said| said.get(name)).and_then(Value::as_str).map(str::to_owned);
    let (environment, class) = (text("environment").unwrap_or_default(), text("class").unwrap_or_default());
    let (environment, class): (Environment, Class) = (environment.parse()?, class.parse()?);
    let subject = row.parent_id.ok_or("the promotion names no span")?;
    let pointer = trusted.pointer(&site.ledger, tenant, environment, class, subject).await?;
    Ok((pointer.held().to_vec(), pointer.skipped().to_vec()))
}
