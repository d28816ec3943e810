//! How a ledger file is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a ledger file is opened. The default is the safe one: created where missing, every acknowledged append on disk.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// The file.
    pub path: PathBuf,
    /// Whether to create it where it is missing. Default true.
    pub create: bool,
    /// Whether to open it for reading only. Default false.
    pub read_only: bool,
    /// When an append is acknowledged. Default [`Synchronous::Full`].
    pub synchronous: Synchronous,
    /// How long to wait for another process's transaction. Default 5 seconds.
    pub busy_timeout: Duration,
    /// The size at which the file is full, bytes; unlimited where absent.
    pub max_bytes: Option<u64>,
    /// Connections for reading. Default 2.
    pub readers: usize,
    /// How often a watch looks for rows that other processes wrote. Default 25 ms.
    pub poll_interval: Duration,
}

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Synchronous {
    /// `PRAGMA synchronous=FULL`: once the log is synced to disk. Survives a crash of the machine.
    #[default]
    Full,
    /// `PRAGMA synchronous=NORMAL`: once the log is written. Survives a crash of the process; the last appends may be lost with
    /// the machine, never in part.
    Normal,
}

impl SqliteOptions {
    /// The defaults for this file.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            create: true,
            read_only: false,
            synchronous: Synchronous::Full,
            busy_timeout: Duration::from_secs(5),
            max_bytes: None,
            readers: 2,
            poll_interval: Duration::from_millis(25),
        }
    }

    /// Refuses to create the file.
    #[must_use]
    pub fn must_exist(mut self) -> Self {
        self.create = false;
        self
    }

    /// Opens for reading only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self.create = false;
        self
    }

    /// Sets when an append is acknowledged.
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets how long to wait for another process's transaction.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Sets the size at which the file is full.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }
}
