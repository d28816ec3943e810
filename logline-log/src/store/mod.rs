//! Where a log lies: a public store of tiles, and a private store that decides who signs next.
//!
//! They are two stores because they fail in different ways. Tiles are read by everybody. If some are lost, the log stands until they are put
//! back from any copy that is as new as the last signed checkpoint; with an older copy it stands still, and nothing wrong is signed. The lock store holds the last checkpoint that was signed. If it is set back, the log could sign a second history. So it lies
//! outside the ledger's database, whose restore must not take it along.

mod directory;
#[cfg(feature = "object-store")]
mod objects;

use async_trait::async_trait;
use thiserror::Error;

pub use directory::Directory;
#[cfg(feature = "object-store")]
pub use objects::Bucket;

/// The most bytes of an object: a full bundle of the largest entries is 16 MiB.
pub const MAX_OBJECT: u64 = 17 << 20;

/// Why a store did not do what it was asked to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It cannot be reached, or its disk is full. A retry may help. A write may have happened all the same.
    #[error("log store: {name}: {reason}; try again")]
    Unavailable {
        /// The object.
        name: String,
        /// What happened.
        reason: String,
    },
    /// What lies in the place of an object is something else, such as a pipe. A retry cannot help.
    #[error("log store: {name}: {reason}; somebody has put it there: restore the file from a copy")]
    Unreadable {
        /// The object.
        name: String,
        /// What it is.
        reason: String,
    },
    /// An object that never changes exists already with other bytes. A retry cannot help.
    #[error(
        "log store: {name} exists with other content: two logs write to one place, or somebody changed it; do not delete it before you know"
    )]
    Different {
        /// The object.
        name: String,
    },
    /// The store cannot do what a log needs. A retry cannot help.
    #[error("log store: {name}: {reason}; take a store that creates and replaces objects on conditions")]
    Unfit {
        /// The object.
        name: String,
        /// What it cannot do.
        reason: String,
    },
    /// The name of an object is not one that the store accepts. A retry cannot help.
    #[error("log store: `{name}` cannot be the name of an object: parts may have letters, digits, `.`, `-` and `_`")]
    Name {
        /// The name.
        name: String,
    },
}

/// A store of tiles, bundles and checkpoints: a folder, or a bucket behind a web server.
///
/// # Contract
/// Names are paths with `/`. A write that returned survives a crash. A reader sees an object whole or not at all. What was written is
/// seen by every later read.
#[async_trait]
pub trait TileStore: Send + Sync {
    /// The bytes of an object; `None` if there is none.
    async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes an object that never changes. If it exists with the same bytes, that is success; with others it is
    /// [`StoreError::Different`], and nothing is written. So a writer that comes too late cannot replace anything.
    async fn create(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Writes an object in the place of an earlier one. Only for the checkpoint, and for a file that was damaged.
    async fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// The names of the objects and folders directly below a folder, without the folder's own; empty if there is none.
    async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError>;

    /// Removes a folder and all that is below it. If there is none, that is success.
    async fn remove(&self, folder: &str) -> Result<(), StoreError>;
}

/// The store that decides which of several integrators signs next: it holds one small record for each log.
///
/// # Contract
/// `swap` compares and replaces in one step, for all processes that use the store, and what it stored survives a crash. **It is never
/// restored from a copy**: begin a new log instead ([`Integrator::begin_again`](crate::Integrator::begin_again)).
#[async_trait]
pub trait LockStore: Send + Sync {
    /// The record under this name; `None` if there is none.
    async fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Whether it has no record.
    async fn is_empty(&self) -> Result<bool, StoreError>;

    /// Stores `new` if the record is still `old`; `None` stands for no record. Returns false if it is not. After an error it may be
    /// stored or not.
    async fn swap(&self, name: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, StoreError>;
}

/// Refuses names that would leave the store, or that differ between file systems.
fn check_name(name: &str) -> Result<(), StoreError> {
    let is_part = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    if name.len() <= 512 && name.split('/').all(is_part) {
        Ok(())
    } else {
        Err(StoreError::Name { name: name.chars().take(120).collect() })
    }
}
