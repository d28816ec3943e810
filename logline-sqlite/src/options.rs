//! Options for opening a ledger file.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How to open a ledger file. The defaults are the safe ones: the file is created if it does not exist, and every acknowledged
/// append is on the disk.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// The path of the ledger file. SQLite keeps files with the endings `-wal` and `-shm` beside it.
    pub path: PathBuf,
    /// Whether to create the file if it does not exist. Default true.
    pub create: bool,
    /// Whether to open it for reading only. Appends then fail as `ReadOnly`. Default false.
    pub read_only: bool,
    /// When an append is acknowledged. Default [`Synchronous::Full`].
    pub synchronous: Synchronous,
    /// How long to wait for a transaction of another process. Default 5 seconds.
    pub busy_timeout: Duration,
    /// The size in bytes at which appends fail as `Full`. It is not stored in the file. Default `None`: no limit.
    pub max_bytes: Option<u64>,
    /// How many connections read, each on a thread of its own; at least one. One of them is left free by each tenant.
    /// Default 4.
    pub readers: usize,
    /// How often a watch polls for rows that other processes wrote. Default 25 ms.
    pub poll_interval: Duration,
}

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Synchronous {
    /// `PRAGMA synchronous=FULL`: when the log is synced to disk. The append survives a crash of the machine.
    #[default]
    Full,
    /// `PRAGMA synchronous=NORMAL`: when the log is written. The append survives a crash of the process. A crash of the machine
    /// may lose the last appends, but never part of one.
    Normal,
}

impl SqliteOptions {
    /// The default options for the file at this path.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            create: true,
            read_only: false,
            synchronous: Synchronous::Full,
            busy_timeout: Duration::from_secs(5),
            max_bytes: None,
            readers: 4,
            poll_interval: Duration::from_millis(25),
        }
    }

    /// Sets `create` to false: opening fails if the file does not exist.
    #[must_use]
    pub fn must_exist(mut self) -> Self {
        self.create = false;
        self
    }

    /// Sets `read_only` to true and `create` to false.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self.create = false;
        self
    }

    /// Sets when an append is acknowledged. Default [`Synchronous::Full`].
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets how long to wait for a transaction of another process. Default 5 seconds.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Sets the size in bytes at which appends fail as `Full`.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }
}
