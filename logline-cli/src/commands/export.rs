//! `logline export`

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use logline_core::ndjson::{export, write_sidecar};
use logline_core::{KeyPair, SystemClock};
use serde_json::json;

use crate::open::Identity;
use crate::{Error, open, output};

#[derive(Args)]
pub(crate) struct Options {
    /// The file to write; `-` is standard output.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Also write a signed sidecar to this file, for `fsck --against`.
    #[arg(long, value_name = "FILE", requires = "key")]
    sidecar: Option<PathBuf>,
    /// The key that signs the sidecar.
    #[arg(long, value_name = "KEYFILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    identity: Identity,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let key = options.key.as_ref().map(KeyPair::load).transpose()?;
    let ledger = open::for_reading(url).await?;
    let scope = options.identity.scope();
    let to_stdout = options.file.as_os_str() == "-";
    let mut out: Box<dyn Write + Send> = if to_stdout {
        Box::new(BufWriter::new(io::stdout()))
    } else {
        let file = output::create(&options.file)?;
        Box::new(BufWriter::new(file))
    };
    // Both files are created before the export, so that a sidecar that cannot be written is noticed at once.
    if options.sidecar.as_ref() == Some(&options.file) {
        return Err("the sidecar cannot be the same file as the export: choose another file".into());
    }
    let sidecar = options.sidecar.as_deref().map(output::create).transpose()?;
    let tenant = options.identity.tenant();
    let exported = export(&ledger, &scope, tenant, out.as_mut(), &mut |spans| output::progress("spans", spans)).await?;
    output::end_progress();
    let mut chains = None;
    if let (Some(file), Some(key)) = (sidecar, &key) {
        let mut out = BufWriter::new(file);
        chains = Some(write_sidecar(&ledger, &scope, &exported, key, &SystemClock, &mut out).await?);
    }
    let summary = if json {
        json!({"spans": exported.spans, "bytes": exported.bytes, "blake3": exported.hash.to_string(), "chains": chains})
            .to_string()
    } else {
        let chains = chains.map(|n| format!("; the sidecar names the heads of {n} chains")).unwrap_or_default();
        format!("{} spans, {} bytes, blake3 {}{chains}", exported.spans, exported.bytes, exported.hash)
    };
    if to_stdout {
        output::note(&summary);
    } else {
        output::line(&summary);
    }
    Ok(true)
}
