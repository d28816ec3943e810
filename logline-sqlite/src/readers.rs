//! The threads that read, so that no caller's executor blocks on a disk.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use futures_channel::oneshot;
use logline_core::ledger::LedgerError;
use rusqlite::Connection;

type Job = Box<dyn FnOnce(&Connection) + Send>;

pub(crate) struct Readers {
    /// `None` only while it is dropped.
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

    /// Runs `read` on one of the connections.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // A caller that has gone needs no answer, and no work.
            if !reply.is_canceled() {
                let _ = reply.send(read(connection));
            }
        });
        let jobs = self.jobs.as_ref().ok_or(LedgerError::Closed)?;
        jobs.send(job).map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
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
            // A reader that panicked has already reported it.
            let _ = thread.join();
        }
    }
}
