//! The threads that read. They keep disk access off the caller's executor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use futures_channel::oneshot;
use logline_core::ledger::LedgerError;
use rusqlite::Connection;

use crate::turns::{Party, Turn, Turns};

type Job = Box<dyn FnOnce(&Connection) + Send>;

pub(crate) struct Readers {
    turns: Arc<Turns<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts one thread per connection.
    pub(crate) fn start(connections: Vec<Connection>) -> Result<Self, LedgerError> {
        // One thread is left for the others, whatever one tenant reads.
        let turns = Arc::new(Turns::new(connections.len().saturating_sub(1).max(1)));
        // Made before the first thread, so that threads end if a later one cannot be started.
        let mut readers = Self { turns, threads: Vec::with_capacity(connections.len()) };
        for connection in connections {
            let turns = Arc::clone(&readers.turns);
            let thread = std::thread::Builder::new().name("logline-sqlite-read".to_owned());
            readers.threads.push(thread.spawn(move || work(&connection, &turns)).map_err(no_thread)?);
        }
        Ok(readers)
    }

    /// Runs `read` on one of the reading connections, for the host itself.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.read_for(None, read).await
    }

    /// Runs `read` on one of the reading connections. Tenants take turns.
    pub(crate) async fn read_for<T: Send + 'static>(
        &self,
        tenant: Option<&str>,
        read: impl FnOnce(&Connection) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        // Set when this future ends or is dropped. A caller that no longer waits needs no answer, so the work is skipped or
        // stopped.
        let gone = Gone(Arc::default());
        let is_gone = Arc::clone(&gone.0);
        let job: Job = Box::new(move |connection| {
            if is_gone.load(Ordering::Relaxed) {
                return;
            }
            let stop = Some(move || is_gone.load(Ordering::Relaxed));
            // If the handler cannot be set, the work of a caller that has gone only stops later. The result stays correct.
            let _ = connection.progress_handler(STEPS, stop);
            let result = read(connection);
            let _ = connection.progress_handler(0, None::<fn() -> bool>);
            let _ = reply.send(result);
        });
        self.turns.push(tenant, job);
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

/// How many steps SQLite's virtual machine runs between two checks whether the caller still waits. They take a fraction of a
/// millisecond.
const STEPS: i32 = 10_000;

struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for a thread to end, unless it is the current one: a task that a thread of the ledger has woken may drop the last
/// handle. A thread that panicked has already reported it.
pub(crate) fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != std::thread::current().id() {
        let _ = thread.join();
    }
}

pub(crate) fn no_thread(error: std::io::Error) -> LedgerError {
    LedgerError::Unavailable { reason: format!("cannot start a thread: {error}"), source: Some(Box::new(error)) }
}

fn work(connection: &Connection, turns: &Turns<Job>) {
    while let Some(Turn { job, of }) = turns.next() {
        // Also if the job panics, or the tenant would have a thread less for ever.
        let _end = Ends { turns, of };
        job(connection);
    }
}

struct Ends<'t> {
    turns: &'t Turns<Job>,
    of: Party,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.turns.end(self.of.take());
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.turns.close();
        for thread in self.threads.drain(..) {
            join(thread);
        }
    }
}
