//! Wakes futures that wait for new rows. Works with every async runtime.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// A counter of appends that futures can wait on.
///
/// First call [`Signal::seen`], then read rows, then wait with [`Signal::changed`]. In this order no append is missed.
#[derive(Debug, Default)]
pub struct Signal {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    wakers: BTreeMap<u64, Waker>,
    waiters: u64,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The current generation: the number of calls of [`Signal::notify`] so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.lock().generation
    }

    /// Starts a new generation and wakes all futures that wait.
    pub fn notify(&self) {
        let wakers = {
            let mut state = self.lock();
            state.generation += 1;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }

    /// Waits until the generation differs from `seen`. Returns at once if it already does.
    pub fn changed(&self, seen: u64) -> impl Future<Output = ()> + Send + '_ {
        Changed { signal: self, seen, waiter: None }
    }
}

struct Changed<'a> {
    signal: &'a Signal,
    seen: u64,
    /// The key of this future in `wakers`. `None` until it is polled and has to wait.
    waiter: Option<u64>,
}

impl Future for Changed<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let signal = self.signal;
        let mut state = signal.lock();
        if state.generation != self.seen {
            return Poll::Ready(());
        }
        let waiter = *self.waiter.get_or_insert_with(|| {
            state.waiters += 1;
            state.waiters
        });
        state.wakers.insert(waiter, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.signal.lock().wakers.remove(&waiter);
        }
    }
}
