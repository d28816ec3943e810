//! Where time and ids come from. Both are traits, so that a whole run can be replayed and simulated.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::Utc;
use uuid::Uuid;

use crate::value::timestamp::Timestamp;

/// The current time.
pub trait Clock: Send + Sync {
    /// Now. May stand still or go backwards; nothing may rely on more.
    fn now(&self) -> Timestamp;
}

/// A shared clock is a clock.
impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// Source of new span ids.
pub trait IdSource: Send + Sync {
    /// A new UUIDv7 for something created at `now`. (Ids that grow keep index inserts at one end of the tree.)
    fn next_id(&self, now: Timestamp) -> Uuid;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A machine whose clock is outside years 1 to 9999 gets the epoch.
        Timestamp::new(Utc::now()).unwrap_or(Timestamp::EPOCH)
    }
}

/// UUIDv7 with random bits from the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    fn next_id(&self, now: Timestamp) -> Uuid {
        let mut random = [0; 10];
        if getrandom::fill(&mut random).is_err() {
            // No random source: hash what differs between calls. Ids need to be unique, not secret.
            static CALLS: AtomicU64 = AtomicU64::new(0);
            let call = CALLS.fetch_add(1, Ordering::Relaxed);
            let entropy = format!("{:?}{:?}{call}", std::thread::current().id(), std::time::Instant::now());
            random.copy_from_slice(blake3::hash(entropy.as_bytes()).as_bytes().first_chunk().unwrap_or(&[0; 10]));
        }
        uuid_v7(now, &random)
    }
}

/// A clock that a test or a simulation moves.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self(Mutex::new(start))
    }

    /// Sets it to `time`, which may be before what it was.
    pub fn set(&self, time: Timestamp) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = time;
    }

    /// Moves it forward.
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

/// Ids that repeat for the same seed.
#[derive(Debug)]
pub struct SeededIds {
    seed: u64,
    calls: AtomicU64,
}

impl SeededIds {
    /// The sequence of `seed`.
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
