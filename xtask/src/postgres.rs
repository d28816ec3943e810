//! The PostgreSQL server that tests start for themselves.

use crate::packages::install;
use crate::run::{Failed, command};

/// Installs the server unless its binaries are there: in `LOGLINE_PG_BIN`, in PATH, or where Debian puts them.
pub(crate) fn ensure_installed() -> Result<(), Failed> {
    if is_installed() {
        return Ok(());
    }
    install("the PostgreSQL server", &["postgresql"])?;
    if is_installed() {
        Ok(())
    } else {
        Err(Failed("PostgreSQL was installed, but initdb and pg_ctl are not where they should be".to_owned()))
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
