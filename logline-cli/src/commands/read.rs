//! `logline get` and `logline history`

use std::collections::BTreeSet;

use clap::Args;
use logline_core::Verifier;
use logline_core::ledger::{Ledger, LedgerExt as _, Query, Versions};
use uuid::Uuid;

use crate::open::Identity;
use crate::site::any_id;
use crate::{Error, open, output};

#[derive(Args)]
pub(crate) struct Options {
    /// The span's id. An id that is not a UUID is mapped as an import maps it.
    id: String,
    #[command(flatten)]
    identity: Identity,
    /// The tenant that the span is in, if it is not --tenant (public spans).
    #[arg(long, value_name = "TENANT")]
    r#in: Option<String>,
}

impl Options {
    fn id(&self) -> Result<Uuid, Error> {
        any_id(&self.id)
    }

    async fn tenant(&self, ledger: &dyn Ledger) -> Result<String, Error> {
        tenant_of(ledger, &self.identity, self.r#in.as_deref(), self.id()?).await
    }
}

/// The tenant to read from: the one that is named, else the only one that has the id.
pub(crate) async fn tenant_of(
    ledger: &dyn Ledger,
    identity: &Identity,
    named: Option<&str>,
    id: Uuid,
) -> Result<String, Error> {
    if let Some(tenant) = named.or(identity.tenant()) {
        return Ok(tenant.to_owned());
    }
    let query = Query::new().id(id).versions(Versions::All);
    let spans = ledger.collect(&identity.scope(), &query, 1000).await?;
    let tenants: BTreeSet<_> = spans.into_iter().map(|span| span.span.tenant_id).collect();
    let mut tenants = tenants.into_iter();
    match (tenants.next(), tenants.next()) {
        (Some(tenant), None) => Ok(tenant),
        (None, _) => Err(format!("no span {id} in any tenant").into()),
        (Some(a), Some(b)) => Err(format!("id {id} is in tenants `{a}`, `{b}`, …: name one with --in").into()),
    }
}

pub(crate) async fn get(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let ledger = open::for_reading(url).await?;
    let tenant = options.tenant(ledger.as_ref()).await?;
    let span = ledger.get(&options.identity.scope(), &tenant, options.id()?).await?;
    if json {
        output::span(&span, true)?
    } else {
        output::columns(&span)?
    }
    match span.check(&mut Verifier::new()) {
        Ok(()) => Ok(true),
        Err(e) => {
            output::note(&format!("this row is not valid: {e}"));
            Ok(false)
        }
    }
}

pub(crate) async fn history(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let ledger = open::for_reading(url).await?;
    let tenant = options.tenant(ledger.as_ref()).await?;
    let scope = options.identity.scope();
    let mut verifier = Verifier::new();
    let (mut from_seq, mut found, mut all_hold) = (0, false, true);
    loop {
        let versions = ledger.history(&scope, &tenant, options.id()?, from_seq, 1000).await?;
        let Some(last) = versions.last() else { break };
        from_seq = last.seq.saturating_add(1);
        found = true;
        for span in &versions {
            output::span(span, json)?;
            if let Err(e) = span.check(&mut verifier) {
                output::note(&format!("{} is not valid: {e}", span.key()));
                all_hold = false;
            }
        }
    }
    if found {
        Ok(all_hold)
    } else {
        Err(format!("no span {} in tenant `{tenant}` that this scope can see", options.id()?).into())
    }
}
