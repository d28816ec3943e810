//! Where guests compute: first on the caller's thread, then on threads of the sandbox.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use logline_core::Failure;
use logline_core::contract::HostCalls;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::abi;
use crate::channel::{HostChannel, Question};
use crate::state::SLICE;

type Outcome = Result<Value, Failure>;

/// What is left of a run's time.
pub(crate) struct Time {
    /// When the guest is stopped. What its calls to providers take is added.
    pub(crate) deadline: Instant,
    /// What is left for calls to providers.
    pub(crate) calls: Duration,
}

/// Threads for guests that compute for long. The guests take turns: each lets the others run after a slice of fuel.
pub(crate) struct Threads {
    /// INVARIANT: `Some` until `Threads` is dropped.
    runtime: Option<Runtime>,
}

impl Threads {
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("logline-guest").build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Runs a guest to its end and answers its questions. `None` if the time was over first. The guest has stopped when this
    /// returns. If this future is dropped, the guest stops at the end of its slice.
    pub(crate) async fn run(
        &self,
        guest: impl Future<Output = Outcome> + Send + 'static,
        channel: &HostChannel,
        host: &mut dyn HostCalls,
        mut time: Time,
    ) -> Option<Outcome> {
        // A run ends with a report even if wasmtime panics.
        let guest = AssertUnwindSafe(guest).catch_unwind();
        let guest = async move { guest.await.unwrap_or_else(|_| Err(failed())) };
        let mut guest: Pin<Box<dyn Future<Output = Outcome> + Send>> = Box::pin(guest);
        loop {
            let polled = std::future::poll_fn(|context| Poll::Ready(guest.as_mut().poll(context))).await;
            if let Poll::Ready(outcome) = polled {
                return Some(outcome);
            }
            // A guest that is pending without a question has used up its slice.
            let Some(question) = channel.take() else { break };
            if !answer(question, host, &mut time).await {
                return None;
            }
            if channel.fuel.load(Ordering::Relaxed) > SLICE {
                break;
            }
        }
        let runtime = self.runtime.as_ref()?;
        let mut guest = Guest(runtime.spawn(guest));
        loop {
            tokio::select! {
                biased;
                outcome = &mut guest.0 => return Some(outcome.unwrap_or_else(|_| Err(failed()))),
                () = channel.asked() => {
                    if let Some(question) = channel.take()
                        && !answer(question, host, &mut time).await
                    {
                        break;
                    }
                }
                () = tokio::time::sleep_until(time.deadline) => break,
            }
        }
        // The guest stops at the end of its slice. Only then its permit is given back and its fuel is known.
        guest.0.abort();
        let _ = (&mut guest.0).await;
        None
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Hosts drop their sandbox in asynchronous code, which must not wait for threads.
            runtime.shutdown_background();
        }
    }
}

/// A guest on a thread of the sandbox. It is stopped if the future that waits for it is dropped.
struct Guest(JoinHandle<Outcome>);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn failed() -> Failure {
    Failure::new("internal", "the engine failed: see the host's log, and report it")
}

/// Answers one question. Returns false if the time was over first.
async fn answer(question: Question, host: &mut dyn HostCalls, time: &mut Time) -> bool {
    let Question { op, argument, reply } = question;
    let answer = if op == abi::CALL {
        // Somebody outside takes this time, not the guest.
        let began = Instant::now();
        let answer = timeout_at(began + time.calls, abi::answer(host, op, argument)).await;
        let took = began.elapsed();
        time.calls = time.calls.saturating_sub(took);
        time.deadline += took;
        answer
    } else {
        timeout_at(time.deadline, abi::answer(host, op, argument)).await
    };
    let Ok(answer) = answer else { return false };
    // A guest that was stopped does not receive the answer.
    let _ = reply.send(answer);
    true
}
