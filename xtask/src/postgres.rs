//! The PostgreSQL server and the pooler that tests start for themselves.

use crate::packages::install;
use crate::run::{Failed, command};

/// Installs what is not there: the server, looked for in `LOGLINE_PG_BIN`, in PATH, and where Debian puts it, and pgbouncer.
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
