//! Starts, kills and stops the worker processes.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use logline_core::{IdSource as _, SystemIds, Timestamp};
use logline_kernels::{Run as _, Worker, WorkerOptions, WorkerReport};

use crate::Result;
use crate::setup::{self, Site};

/// How long after the last heartbeat of a killed worker another worker takes over its attempts. In production this is longer;
/// here it is short so that nobody has to wait.
const LEASE: Duration = Duration::from_secs(2);

/// Runs a worker process until its standard input ends.
pub(crate) async fn work(number: usize, url: &str, keys: &Path) -> Result<()> {
    let host = setup::host(url, keys, &number.to_string()).await?;
    let options = WorkerOptions::default().lease(LEASE).poll(Duration::from_millis(500));
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Standard input ends when the process that started this worker ends, for whatever reason.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    let worked = host.run(Worker::new(options), async move { drop(end.await) }).await?.report::<WorkerReport>();
    tracing::info!(?worked, "worker {number} is done");
    Ok(())
}

/// The worker processes. They are killed when the fleet is dropped.
pub(crate) struct Fleet {
    program: PathBuf,
    url: String,
    keys: PathBuf,
    workers: Vec<Child>,
}

impl Fleet {
    pub(crate) fn start(site: &Site, workers: usize) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut fleet = Self { program, url: site.url.clone(), keys: site.keys().to_owned(), workers: Vec::new() };
        for number in 0..workers {
            let worker = fleet.spawn(number)?;
            fleet.workers.push(worker);
        }
        Ok(fleet)
    }

    fn spawn(&self, number: usize) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(["--worker", &number.to_string(), "--ledger", &self.url, "--keys"]).arg(&self.keys);
        Ok(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?)
    }

    /// The time until the next kill: between 100 ms and one second, at random.
    pub(crate) fn next_kill(&self) -> Duration {
        Duration::from_millis(100 + chance(900) as u64)
    }

    /// Kills a random worker without a warning, as a crash would, and starts another with the same key.
    pub(crate) fn kill_one(&mut self) -> Result<()> {
        let number = chance(self.workers.len().max(1));
        if let Some(worker) = self.workers.get_mut(number) {
            worker.kill()?;
            worker.wait()?;
        }
        let next = self.spawn(number)?;
        if let Some(worker) = self.workers.get_mut(number) {
            *worker = next;
        }
        Ok(())
    }

    /// Asks the workers to stop and waits until all have ended.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.workers.iter_mut().for_each(|worker| drop(worker.stdin.take()));
        for worker in &mut self.workers {
            let status = worker.wait()?;
            if !status.success() {
                return Err(format!("a worker ended with {status}").into());
            }
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // The worker may have ended by itself.
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

/// A random number below `below`.
fn chance(below: usize) -> usize {
    let random = SystemIds.next_id(Timestamp::EPOCH).as_u128() & u128::from(u32::MAX);
    usize::try_from(random).unwrap_or(0) % below
}
