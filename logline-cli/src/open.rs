//! Ledgers by URL, scopes by flags, trust roots by file.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use logline_core::Scope;
use logline_core::trust::TrustRoot;
use logline_sqlite::{SqliteLedger, SqliteOptions};

use crate::Error;

/// The file in a ledger's URL.
pub(crate) fn path(url: Option<&str>) -> Result<PathBuf, Error> {
    let url = url.filter(|url| !url.is_empty()).ok_or("no ledger: pass --ledger sqlite:FILE, or set LOGLINE_LEDGER")?;
    let Some(file) = url.strip_prefix("sqlite:") else {
        return Err(format!("ledger `{url}` is not supported by this version: use sqlite:FILE").into());
    };
    let file = file.strip_prefix("//").unwrap_or(file);
    if file.is_empty() {
        return Err("the ledger's URL names no file: use sqlite:FILE".into());
    }
    Ok(PathBuf::from(file))
}

/// Opens an existing ledger for reading.
pub(crate) fn for_reading(url: Option<&str>) -> Result<SqliteLedger, Error> {
    let path = path(url)?;
    if path.is_dir() {
        return Err(format!("{} is a folder, not a ledger", path.display()).into());
    }
    if !path.exists() {
        return Err(format!("there is no ledger {}: check the path, or make it with `logline import`", path.display()).into());
    }
    Ok(SqliteLedger::open_with(SqliteOptions::new(path).read_only())?)
}

/// Reads a pinned trust root, a JSON object of `manifest_id`, `keys` and `threshold`.
pub(crate) fn trust_root(file: &Path) -> Result<TrustRoot, Error> {
    let text = fs::read(file).map_err(|e| format!("trust root {}: {e}", file.display()))?;
    let root: TrustRoot = serde_json::from_slice(&text).map_err(|e| format!("trust root {}: {e}", file.display()))?;
    root.check().map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(root)
}

/// As whom to read. Without either flag: as operator, who sees everything.
#[derive(Args)]
pub(crate) struct Identity {
    /// Read as this tenant's runtime, or with --user as that user of it.
    #[arg(long)]
    tenant: Option<String>,
    /// Read as this user of --tenant.
    #[arg(long, requires = "tenant")]
    user: Option<String>,
}

impl Identity {
    pub(crate) fn scope(&self) -> Scope {
        match (&self.tenant, &self.user) {
            (Some(tenant), Some(user)) => Scope::user(tenant, user),
            (Some(tenant), None) => Scope::runtime(tenant),
            (None, _) => Scope::Operator,
        }
    }

    pub(crate) fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }
}
