//! What bodies may take: their bytes, and the threads on which they are worked on.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::problem::{Code, Problem};
use crate::slots::{Slot, Slots, Turns};

/// The most bytes of bodies that are held, in all and of a tenant.
const HELD: (usize, usize) = (256 << 20, 64 << 20);

/// How much work of one tenant is done at the same time.
const OF_TENANT: usize = 2;

/// The bodies of all calls.
pub(crate) struct Bodies {
    pub(crate) held: Arc<Slots>,
    pub(crate) threads: Threads,
}

/// A body that has arrived. Its bytes count until it is dropped.
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    pub(crate) _held: Vec<Slot>,
}

impl Bodies {
    pub(crate) fn new() -> Self {
        Self { held: Slots::new(HELD.0, HELD.1, None), threads: Threads::new() }
    }
}

/// Work on threads of its own: as much at the same time as there are processors, and of one tenant not more than [`OF_TENANT`].
pub(crate) struct Threads {
    places: Arc<Semaphore>,
    turns: Turns,
}

impl Threads {
    fn new() -> Self {
        let count = std::thread::available_parallelism().map_or(2, usize::from);
        Self { places: Arc::new(Semaphore::new(count)), turns: Turns::new(OF_TENANT) }
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        tenant: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = self.turns.take(tenant).await;
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        // The places stay taken if the client leaves: the work goes on.
        let done = tokio::task::spawn_blocking(move || {
            let _held = (turn, place);
            work()
        });
        done.await.map_err(|_| Problem::new(Code::Internal, "the call broke off"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// On one thread, the work ends only if the call beside it goes on.
    #[tokio::test]
    async fn a_large_body_does_not_hold_up_the_calls_beside_it() {
        let (other, heard) = std::sync::mpsc::channel();
        let threads = Threads::new();
        let large = threads.run("acme", move || heard.recv_timeout(std::time::Duration::from_secs(30)).is_ok());
        let beside = async { other.send(()) };
        let (large, _) = tokio::join!(large, beside);
        assert!(large.unwrap());
    }

    #[tokio::test]
    async fn the_large_bodies_of_one_tenant_are_worked_on_two_at_a_time() {
        let threads = Threads { places: Arc::new(Semaphore::new(64)), turns: Turns::new(OF_TENANT) };
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (now, most) = (Arc::new(now), Arc::new(most));
        let all = (0..20).map(|_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            threads.run("acme", move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
            })
        });
        futures_util::future::join_all(all).await;
        assert!((1..=OF_TENANT).contains(&most.load(Ordering::SeqCst)));
    }
}
