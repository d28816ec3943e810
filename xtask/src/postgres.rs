//! Installs the PostgreSQL server and the pooler that tests start for themselves.

use crate::packages::install;
use crate::run::{Failed, command};

/// Installs the server and pgbouncer if they are missing. The server may be in `LOGLINE_PG_BIN`, in PATH, or where Debian
/// installs it.
pub(crate) fn ensure_installed() -> Result<(), Failed> {
    let has_pooler =
        || std::path::Path::new("/usr/sbin/pgbouncer").exists() || command("pgbouncer").arg("--version").succeeds();
    if !has_pooler() {
        install("pgbouncer", &["pgbouncer"])?;
    }
    if is_installed() {
        return Ok(());
    }
    install("the PostgreSQL server", &["postgresql"])?;
    if is_installed() {
        Ok(())
    } else {
        Err(Failed("PostgreSQL was installed, but initdb was not found: set LOGLINE_PG_BIN to its folder".to_owned()))
    }
}

fn is_installed() -> bool {
    let set = std::env::var_os("LOGLINE_PG_BIN").is_some_and(|folder| std::path::Path::new(&folder).join("initdb").exists());
    let packaged = || {
        std::fs::read_dir("/usr/lib/postgresql")
            .is_ok_and(|entries| entries.filter_map(Result::ok).any(|entry| entry.path().join("bin/initdb").exists()))
    };
    set || packaged() || command("initdb").arg("--version").succeeds()
}
