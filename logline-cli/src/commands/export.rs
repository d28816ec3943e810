//! `logline export`

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use logline_core::ndjson::{export, write_sidecar};
use logline_core::{KeyPair, SystemClock};
use serde_json::json;

use crate::open::Identity;
use crate::output::Output;
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
    // Both files are opened before the export, so that one that cannot be written is noticed at once.
    let file = if to_stdout { None } else { Some(Output::create(&options.file)?) };
    let sidecar = options.sidecar.as_deref().map(Output::create).transpose()?;
    if let (Some(file), Some(sidecar)) = (&file, &sidecar)
        && file.is_same(sidecar)
    {
        return Err("the sidecar cannot be the same file as the export: choose another file".into());
    }
    let mut out: Box<dyn Write + Send> = match &file {
        Some(file) => Box::new(BufWriter::new(file.file().try_clone()?)),
        None => Box::new(BufWriter::new(io::stdout())),
    };
    let tenant = options.identity.tenant();
    let exported = export(&ledger, &scope, tenant, out.as_mut(), &mut |spans| output::progress("spans", spans)).await?;
    out.flush()?;
    drop(out);
    output::end_progress();
    let mut chains = None;
    if let (Some(sidecar), Some(key)) = (&sidecar, &key) {
        let mut out = BufWriter::new(sidecar.file());
        chains = Some(write_sidecar(&ledger, &scope, &exported, key, &SystemClock, &mut out).await?);
        out.flush()?;
    }
    // An export and its sidecar belong together: neither is replaced before both are whole.
    for output in [file, sidecar].into_iter().flatten() {
        output.finish()?;
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
