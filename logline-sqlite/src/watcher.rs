//! Notices what other processes append.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use logline_core::ledger::{LedgerError, Signal};
use rusqlite::Connection;

use crate::options::SqliteOptions;
use crate::{readers, schema};

/// One thread per ledger that asks SQLite whether the file has changed. The first watch or worker starts it.
pub(crate) struct Watcher {
    signal: Arc<Signal>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watcher {
    pub(crate) fn new(signal: Arc<Signal>) -> Self {
        Self { signal, stop: Arc::default(), thread: Mutex::new(None) }
    }

    /// Starts the thread if it is not running.
    pub(crate) fn start(&self, options: &SqliteOptions) -> Result<(), LedgerError> {
        let mut thread = self.thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if thread.is_some() {
            return Ok(());
        }
        let connection = schema::open_reader(options)?;
        let (signal, stop, interval) = (Arc::clone(&self.signal), Arc::clone(&self.stop), options.poll_interval);
        // `data_version` changes when another connection has committed; reading it costs an access to shared memory. It is read
        // for the first time here, before the caller's first scan. Otherwise a commit between the two would wake nobody.
        let version = |c: &Connection| c.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0));
        let mut seen = version(&connection).ok();
        let run = move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::park_timeout(interval);
                match version(&connection) {
                    Ok(now) if seen == Some(now) => {}
                    Ok(now) => {
                        seen = Some(now);
                        signal.notify();
                    }
                    // Waking for nothing is harmless; missing a row is not.
                    Err(error) => {
                        tracing::warn!(%error, "cannot check whether the ledger file has changed");
                        signal.notify();
                    }
                }
            }
        };
        *thread =
            Some(std::thread::Builder::new().name("logline-sqlite-watch".to_owned()).spawn(run).map_err(readers::no_thread)?);
        Ok(())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(thread) = thread {
            thread.thread().unpark();
            readers::join(thread);
        }
    }
}
