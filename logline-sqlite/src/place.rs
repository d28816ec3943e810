//! Whether the file that is open still is the one with its path. SQLite goes on writing into a file that was moved away or replaced, and
//! what it acknowledges would be lost.

use std::path::{Path, PathBuf};

use logline_core::ledger::LedgerError;

/// The path of a ledger, and the file that was there when it was opened.
pub(crate) struct Place {
    path: PathBuf,
    /// `None` where the system does not tell.
    file: Option<(u64, u64)>,
}

impl Place {
    /// The place of a ledger that was just opened.
    pub(crate) fn of(path: &Path) -> Self {
        // The process may change its working directory.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { file: identity(&path), path }
    }

    /// Checks that the same file is still there. It takes one call of the system.
    ///
    /// # Errors
    /// [`LedgerError::Moved`].
    pub(crate) fn check(&self) -> Result<(), LedgerError> {
        if self.file.is_none() || identity(&self.path) == self.file {
            return Ok(());
        }
        Err(LedgerError::Moved { place: self.path.display().to_string() })
    }
}

/// What tells a file from every other.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Path) -> Option<(u64, u64)> {
    None
}
