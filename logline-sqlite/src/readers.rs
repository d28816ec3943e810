//! The threads that read. They keep disk access off the caller's executor.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use futures_channel::oneshot;
use logline_core::ledger::LedgerError;
use rusqlite::Connection;

type Job = Box<dyn FnOnce(&Connection) + Send>;

pub(crate) struct Readers {
    /// `None` only while this is being dropped.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts one thread per connection.
    pub(crate) fn start(connections: Vec<Connection>) -> Result<Self, LedgerError> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let threads = connections
            .into_iter()
            .map(|connection| {
                let queue = Arc::clone(&queue);
                std::thread::Builder::new().name("logline-sqlite-read".to_owned()).spawn(move || work(&connection, &queue))
            })
            .collect::<Result<_, _>>()
            .map_err(no_thread)?;
        Ok(Self { jobs: Some(jobs), threads })
    }

    /// Runs `read` on one of the reading connections.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
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
        let jobs = self.jobs.as_ref().ok_or(LedgerError::Closed)?;
        jobs.send(job).map_err(|_| LedgerError::Closed)?;
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

fn work(connection: &Connection, queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
        match job {
            Ok(job) => job(connection),
            Err(_) => return,
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            join(thread);
        }
    }
}
