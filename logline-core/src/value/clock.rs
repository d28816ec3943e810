//! The sources of time and of new ids. Both are traits, so that tests can replay and simulate a whole run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::Utc;
use uuid::Uuid;

use crate::value::timestamp::Timestamp;

/// A source of the current time.
pub trait Clock: Send + Sync {
    /// The current time. It may repeat or go backwards. Callers must not assume that it increases.
    fn now(&self) -> Timestamp;
}

/// Several owners can share one clock.
impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// A source of new span ids.
pub trait IdSource: Send + Sync {
    /// A new UUIDv7 for a span that is created at `now`. Ids that increase with time keep index inserts at one end of the tree.
    fn next_id(&self, now: Timestamp) -> Uuid;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // If the machine's clock is outside years 1 to 9999, the time is the epoch.
        Timestamp::new(Utc::now()).unwrap_or(Timestamp::EPOCH)
    }
}

/// UUIDv7 ids with random bits from the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    fn next_id(&self, now: Timestamp) -> Uuid {
        let mut random = [0; 10];
        if getrandom::fill(&mut random).is_err() {
            // There is no random source: hash values that differ between calls. Ids must be unique, but need not be secret.
            static CALLS: AtomicU64 = AtomicU64::new(0);
            let call = CALLS.fetch_add(1, Ordering::Relaxed);
            let entropy = format!("{:?}{:?}{call}", std::thread::current().id(), std::time::Instant::now());
            random.copy_from_slice(blake3::hash(entropy.as_bytes()).as_bytes().first_chunk().unwrap_or(&[0; 10]));
        }
        uuid_v7(now, &random)
    }
}

/// A clock that moves only when a test or a simulation sets it.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// A clock that shows `start` until it is moved.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self(Mutex::new(start))
    }

    /// Sets the clock to `time`, which may be earlier than its current time.
    pub fn set(&self, time: Timestamp) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = time;
    }

    /// Moves the clock forward by `by`, at most to the end of year 9999.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(|e| e.into_inner());
        *now = now.saturating_add(by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Ids for tests: the same seed and the same times give the same ids.
#[derive(Debug)]
pub struct SeededIds {
    seed: u64,
    calls: AtomicU64,
}

impl SeededIds {
    /// Begins the sequence of ids that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, calls: AtomicU64::new(0) }
    }
}

impl IdSource for SeededIds {
    fn next_id(&self, now: Timestamp) -> Uuid {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_be_bytes()).update(&call.to_be_bytes());
        let hash = hasher.finalize();
        uuid_v7(now, hash.as_bytes().first_chunk().unwrap_or(&[0; 10]))
    }
}

fn uuid_v7(now: Timestamp, random: &[u8; 10]) -> Uuid {
    let millis = now.unix_micros().div_euclid(1000).try_into().unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid()
}
