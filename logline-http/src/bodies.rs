//! Bodies: received within limits of bytes and time, and worked on where they hold up no other call.

use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;

use crate::problem::{Code, Problem};
use crate::service::Service;
use crate::slots::{Slot, Slots, Turns};

/// The most bytes of bodies that are held, in all and of a tenant.
const HELD: (usize, usize) = (256 << 20, 64 << 20);

/// Bytes are counted in steps of this many.
const STEP: usize = 64 << 10;

/// What has up to this many bytes is worked on at once: it takes less time than another thread would.
const AT_ONCE: usize = 64 << 10;

/// How much work of one tenant is done at the same time.
const OF_TENANT: usize = 2;

/// The bodies of all calls.
pub(crate) struct Bodies {
    held: Arc<Slots>,
    threads: Threads,
}

/// A body that has arrived. Its bytes count until it is dropped.
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _held: Vec<Slot>,
}

impl Bodies {
    pub(crate) fn new() -> Self {
        Self { held: Slots::new(HELD.0, HELD.1, None), threads: Threads::new() }
    }
}

impl Service {
    /// Receives a body, within the limits of bytes and time.
    pub(crate) async fn body(&self, tenant: &str, headers: &HeaderMap, body: Body) -> Result<Received, Problem> {
        let most = self.options.max_body;
        let too_large = || Problem::new(Code::TooLarge, format!("it may have {most} bytes: send it in parts"));
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > most as u64) {
            return Err(too_large());
        }
        let read = async {
            let (mut body, mut bytes) = (body, BytesMut::new());
            let (mut held, mut reserved) = (Vec::new(), 0);
            let full = || Problem::new(Code::Unavailable, "too many bodies are arriving: try again");
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| Problem::new(Code::InvalidBody, "it broke off"))?;
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > most {
                    return Err(too_large());
                }
                while bytes.len() + data.len() > reserved {
                    held.push(self.bodies.held.take_many(tenant, STEP).ok_or_else(full)?);
                    reserved += STEP;
                }
                bytes.extend_from_slice(&data);
            }
            Ok(Received { bytes: bytes.freeze(), _held: held })
        };
        let late = |_| Problem::new(Code::Timeout, "the body did not arrive in time: send it faster, or less of it");
        tokio::time::timeout(self.options.body_timeout, read).await.map_err(late)?
    }

    /// Does work on `size` bytes that waits for nothing: parsing, hashing, checking signatures, writing JSON. If it takes long, it is
    /// done on a thread of its own, so that other calls and streams go on.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        tenant: &str,
        size: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        if size <= AT_ONCE {
            return Ok(work());
        }
        self.bodies.threads.run(tenant, work).await
    }
}

/// Work on threads of its own: as much at the same time as there are processors, and of one tenant not more than [`OF_TENANT`].
struct Threads {
    places: Arc<Semaphore>,
    turns: Turns,
}

impl Threads {
    fn new() -> Self {
        let count = std::thread::available_parallelism().map_or(2, usize::from);
        Self { places: Arc::new(Semaphore::new(count)), turns: Turns::new(OF_TENANT) }
    }

    async fn run<T: Send + 'static>(&self, tenant: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
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
