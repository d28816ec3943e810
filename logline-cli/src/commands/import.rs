//! `logline import`

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use async_trait::async_trait;
use clap::Args;
use logline_core::ndjson::{Import, import};
use logline_core::trust::{Logs, TrustRoot};
use logline_core::{KeyPair, PublicKey, Rules, SignError, Signature, Signer, SystemClock};
use serde_json::json;

use crate::open::Location;
use crate::site::logs_in;
use crate::{Error, output};

#[derive(Args)]
pub(crate) struct Options {
    /// The file with one span per line; `-` is standard input.
    file: PathBuf,
    /// The key file that seals unsigned lines. Default: the key beside the ledger's file, created on first use.
    #[arg(long, value_name = "KEYFILE")]
    key: Option<PathBuf>,
    /// The tenant of unsigned lines that name none.
    #[arg(long)]
    tenant: Option<String>,
    /// The owner of unsigned lines that name none.
    #[arg(long)]
    owner: Option<String>,
    /// The file of the pinned trust root. Without it signatures are checked, but authority is not.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// The folder of the tiles of transparency logs, if the manifest has ended a key: they say what is older.
    #[arg(long, value_name = "DIR", env = "LOGLINE_TILES")]
    tiles: Option<PathBuf>,
    /// Seal lines again if their own seal is not valid, and also the versions after them.
    #[arg(long)]
    reseal: bool,
    /// Move members that are not columns below `metadata.imported`, instead of refusing the line.
    #[arg(long)]
    keep_unknown: bool,
}

pub(crate) async fn run(options: &Options, url: Option<&str>, json: bool) -> Result<bool, Error> {
    let location = Location::of(url)?;
    let mut source = open_source(&options.file)?;
    let trust = options.trust.as_deref().map(TrustRoot::load).transpose()?;
    let ledger = location.for_writing().await?;
    let key = signing_key(options.key.as_deref(), &location)?;
    let logs = logs_in(options.tiles.as_ref());
    let settings = Import {
        signer: key.as_deref(),
        clock: &SystemClock,
        tenant: options.tenant.clone(),
        owner: options.owner.clone(),
        reseal: options.reseal,
        keep_unknown: options.keep_unknown,
        trust: trust.as_ref(),
        logs: logs.as_ref().map(|logs| logs as &dyn Logs),
        rules: Rules::default(),
    };
    let mut on_bad = |bad: logline_core::ndjson::BadLine| {
        if json {
            output::line(&format!("{}", json!({"line": bad.line, "error": bad.error.to_string()})));
        } else {
            output::note(&format!("{bad}"));
        }
    };
    let report =
        import(&ledger, source.as_mut(), &settings, &mut on_bad, &mut |lines| output::progress("lines", lines)).await?;
    output::end_progress();
    if report.void_promotions > 0 {
        output::note(&format!(
            "{} promotions in the ledger do not hold, and hosts do not obey them: `logline fsck --trust` names them",
            report.void_promotions
        ));
    }
    if report.after_end > 0 {
        output::note(&format!(
            "{} rows in the ledger do not count, because an imported manifest has ended their keys: `logline fsck --trust` names them",
            report.after_end
        ));
    }
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
        // Asking for the public key would create the key, so this asks only if lines were sealed.
        let sealed = match &key {
            Some(key) if report.sealed > 0 => format!("; {} sealed by {}", report.sealed, key.public_key()),
            _ => String::new(),
        };
        output::line(&format!(
            "{} lines: {} appended, {} there already, {} refused{sealed}; authority {authority}",
            report.lines, report.appended, report.existing, report.refused
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

/// The key beside the ledger's file. It is loaded, or created, when the first unsigned line needs it.
struct KeyBeside {
    path: PathBuf,
    key: OnceLock<Result<KeyPair, String>>,
}

impl KeyBeside {
    fn key(&self) -> Result<&KeyPair, &String> {
        let load = || {
            let (key, is_new) = KeyPair::load_or_create(&self.path).map_err(|e| e.to_string())?;
            if is_new {
                let path = self.path.display();
                output::note(&format!("made the key {path} for unsigned lines: its public key is {}", key.public_key()));
            }
            Ok(key)
        };
        self.key.get_or_init(load).as_ref()
    }
}

#[async_trait]
impl Signer for KeyBeside {
    fn public_key(&self) -> PublicKey {
        // If there is no key, this is nobody's key, and `sign` returns the reason.
        self.key().map_or(PublicKey([0; 32]), KeyPair::public_key)
    }

    async fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        let failed = |reason: &String| SignError { public_key: PublicKey([0; 32]), reason: reason.clone(), retryable: false };
        self.key().map(|key| key.sign_now(message)).map_err(failed)
    }

    fn local(&self) -> Option<&KeyPair> {
        self.key().ok()
    }
}

/// The given key, or the one beside the ledger's file. `None` for a database if no key is given.
fn signing_key(given: Option<&Path>, location: &Location) -> Result<Option<Box<dyn Signer>>, Error> {
    match (given, location) {
        (Some(file), _) => Ok(Some(Box::new(KeyPair::load(file)?))),
        (None, Location::Sqlite(ledger)) => {
            let mut name: OsString = ledger.into();
            name.push(".key");
            Ok(Some(Box::new(KeyBeside { path: name.into(), key: OnceLock::new() })))
        }
        (None, Location::Postgres(_)) => Ok(None),
    }
}
