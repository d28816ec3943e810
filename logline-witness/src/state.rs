//! The folder in which a witness remembers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use logline_log::note::NoteKey;
use logline_log::store::{Directory, StoreError};
use logline_log::witness::StoredWitness;
use thiserror::Error;

/// The file that says whose state a folder is.
const OWNER: &str = "witness";

/// Why a witness does not start with a folder. A retry cannot help.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// The folder has no state. It may be the wrong one, or a disk that is not mounted.
    #[error(
        "{} has no state of a witness: is it the right folder, and is its disk there? A witness that forgets cosigns a second history. Only a new witness, with a new key, begins with an empty state (`--begin`)",
        folder.display()
    )]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder has a state already.
    #[error("{} has the state of a witness already: start without `--begin`", folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
    },
    /// The state is that of another witness.
    #[error("{} is the state of another witness, `{owner}`: each witness has a folder and a key of its own", folder.display())]
    Other {
        /// The folder.
        folder: PathBuf,
        /// The other's key, as it stands there.
        owner: String,
    },
    /// The folder cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Begins the state of a new witness in a folder that has none.
///
/// # Errors
/// [`StateError`].
pub fn begin_state(folder: &Path, key: &NoteKey) -> Result<StoredWitness, StateError> {
    let store = Directory::new(folder);
    if store.read_now(OWNER)?.is_some() {
        return Err(StateError::Exists { folder: folder.to_owned() });
    }
    store.create_now(OWNER, key.to_string().as_bytes())?;
    Ok(StoredWitness::new(Arc::new(store)))
}

/// The state that [`begin_state`] has begun for this key. Files are written beside, synced and renamed, and a file lock decides between
/// processes that use the same folder.
///
/// # Errors
/// [`StateError`]. A folder without state is not taken for an empty one.
pub fn open_state(folder: &Path, key: &NoteKey) -> Result<StoredWitness, StateError> {
    let store = Directory::new(folder);
    let owner = store.read_now(OWNER)?.ok_or_else(|| StateError::Missing { folder: folder.to_owned() })?;
    if owner != key.to_string().as_bytes() {
        let owner = String::from_utf8_lossy(&owner).chars().filter(|c| !c.is_control()).take(400).collect();
        return Err(StateError::Other { folder: folder.to_owned(), owner });
    }
    Ok(StoredWitness::new(Arc::new(store)))
}
