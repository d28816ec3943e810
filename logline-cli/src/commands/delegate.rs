//! `logline delegate`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use logline_core::trust::{Delegation, TrustRoot};
use logline_core::{Clock as _, KeyPair, PublicKey, SystemClock};
use serde_json::json;

use crate::open::Location;
use crate::{Error, output};

#[derive(Args)]
pub(crate) struct Options {
    /// The host's public key, as `keygen` prints it on the host.
    host: PublicKey,
    /// The tenants that the host records for, by name, or `*` for all but `system`. A host that runs functions needs `system`
    /// as well.
    #[arg(long, required = true, value_delimiter = ',', value_name = "TENANT,…")]
    tenants: Vec<String>,
    /// How many days the key is valid, from now.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=366))]
    days: u64,
    /// The key file of a runtime authority that the manifest names.
    #[arg(long, value_name = "KEYFILE")]
    key: PathBuf,
    /// The file of the pinned trust root.
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let authority = KeyPair::load(&options.key)?;
    let trust = TrustRoot::load(&options.trust)?;
    let location = Location::of(url)?;
    location.check_exists()?;
    let ledger = location.for_writing().await?;
    let now = SystemClock.now();
    let expires = now.saturating_add(Duration::from_secs(options.days * 24 * 60 * 60));
    let delegation = Delegation::new(options.host, options.tenants.iter().map(String::as_str), now, expires);
    let span = trust.delegate(&ledger, &delegation, &authority, &SystemClock).await?;
    output::line(&if json {
        json!({"id": span.id.to_string(), "host": options.host.to_string(), "expires": expires.to_string()}).to_string()
    } else {
        format!("key {} is a runtime key of {} until {expires}", options.host, options.tenants.join(", "))
    });
    Ok(true)
}
