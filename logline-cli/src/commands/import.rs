//! `logline import`

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use logline_core::ndjson::{Import, import};
use logline_core::{KeyPair, Rules, Signer as _, SystemClock};
use logline_sqlite::SqliteLedger;
use serde_json::json;

use crate::{Error, open, output};

#[derive(Args)]
pub(crate) struct Options {
    /// The lines, one span each; `-` reads standard input.
    file: PathBuf,
    /// Seals unsigned lines. Default: the key beside the ledger, made on first use.
    #[arg(long, value_name = "KEYFILE")]
    key: Option<PathBuf>,
    /// The tenant of unsigned lines that name none.
    #[arg(long)]
    tenant: Option<String>,
    /// The owner of unsigned lines that name none.
    #[arg(long)]
    owner: Option<String>,
    /// The pinned trust root; without it signatures are checked and authority is not.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Seal lines anew whose own seal does not hold, and the versions after them.
    #[arg(long)]
    reseal: bool,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let path = open::path(url)?;
    let mut source = open_source(&options.file)?;
    let trust = options.trust.as_deref().map(open::trust_root).transpose()?;
    let ledger = SqliteLedger::open(&path)?;
    let key = signing_key(options.key.as_deref(), &path)?;
    let settings = Import {
        signer: Some(&key),
        clock: &SystemClock,
        tenant: options.tenant.clone(),
        owner: options.owner.clone(),
        reseal: options.reseal,
        trust: trust.as_ref(),
        rules: Rules::default(),
    };
    let mut on_bad = |bad: logline_core::ndjson::BadLine| {
        if json {
            output::line(&format!("{}", json!({"line": bad.line, "error": bad.error.to_string()})));
        } else {
            eprintln!("{bad}");
        }
    };
    let report =
        import(&ledger, source.as_mut(), &settings, &mut on_bad, &mut |lines| output::progress("lines", lines)).await?;
    output::end_progress();
    let authority = if report.authority_checked { "checked" } else { "not checked" };
    if json {
        output::line(&format!(
            "{}",
            json!({
                "lines": report.lines, "appended": report.appended, "existing": report.existing,
                "sealed": report.sealed, "refused": report.refused, "authority": authority,
            })
        ));
    } else {
        output::line(&format!(
            "{} lines: {} appended, {} there already, {} refused; {} sealed by {}; authority {authority}",
            report.lines,
            report.appended,
            report.existing,
            report.refused,
            report.sealed,
            key.public_key()
        ));
    }
    Ok(report.refused == 0)
}

fn open_source(file: &Path) -> Result<Box<dyn BufRead + Send>, Error> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let opened = File::open(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(Box::new(BufReader::with_capacity(1 << 16, opened)))
}

/// The given key, or the one beside the ledger.
fn signing_key(given: Option<&Path>, ledger: &Path) -> Result<KeyPair, Error> {
    if let Some(file) = given {
        return Ok(KeyPair::load(file)?);
    }
    let mut name: OsString = ledger.into();
    name.push(".key");
    let (key, is_new) = KeyPair::load_or_create(&name)?;
    if is_new {
        eprintln!("made the key {} for unsigned lines: its public key is {}", Path::new(&name).display(), key.public_key());
    }
    Ok(key)
}
