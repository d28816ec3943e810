//! The files of the example: a copy of them, and a look at every byte.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// The ledger, its store of keys, and the logs beside both. (The tenants' keys are in a folder of their own, which no backup holds.)
fn files(ledger: &Path) -> Result<Vec<PathBuf>> {
    let folder = ledger.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = ledger.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name)) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Copies the files, as a backup does.
pub(crate) fn copy(ledger: &Path, to: &Path) -> Result<()> {
    for file in files(ledger)? {
        fs::copy(&file, to.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Fails if a file has `text` in the clear.
pub(crate) fn nowhere(ledger: &Path, text: &str) -> Result<()> {
    for file in files(ledger)? {
        let bytes = fs::read(&file)?;
        if bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes()) {
            return Err(format!("{} has the text in the clear", file.display()).into());
        }
    }
    Ok(())
}
