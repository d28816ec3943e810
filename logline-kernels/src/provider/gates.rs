//! How many calls of a provider this host makes at the same time, and in a minute.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use logline_core::Hash;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::spec::ProviderLimits;

/// How many providers a host remembers. Those that were not used for longest are forgotten, and with them what they had used.
const MAX_GATES: usize = 4096;

struct Gate {
    calls: Arc<Semaphore>,
    rate: Option<DefaultDirectRateLimiter>,
}

/// The gates of all providers, each by the hash of the span that set its limits.
#[derive(Default)]
pub(crate) struct Gates(Mutex<Vec<(Hash, Arc<Gate>)>>);

impl Gates {
    fn of(&self, span: Hash, limits: &ProviderLimits) -> Arc<Gate> {
        let mut gates = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(place) = gates.iter().position(|(known, _)| *known == span) {
            let found = gates.remove(place);
            gates.push(found.clone());
            return found.1;
        }
        if gates.len() >= MAX_GATES {
            gates.remove(0);
        }
        let per_minute = limits.calls_per_minute.and_then(NonZeroU32::new);
        let gate = Arc::new(Gate {
            calls: Arc::new(Semaphore::new(
                usize::try_from(limits.concurrent).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS),
            )),
            rate: per_minute.map(|calls| RateLimiter::direct(Quota::per_minute(calls))),
        });
        gates.push((span, Arc::clone(&gate)));
        gate
    }

    /// Waits until the limits allow a call, at most until `deadline`. The permit is given back when it is dropped. `None` if the time
    /// is over.
    pub(crate) async fn pass(&self, span: Hash, limits: &ProviderLimits, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let gate = self.of(span, limits);
        let permit = tokio::time::timeout_at(deadline, Arc::clone(&gate.calls).acquire_owned()).await.ok()?.ok()?;
        let Some(rate) = &gate.rate else { return Some(permit) };
        loop {
            match rate.check() {
                Ok(()) => return Some(permit),
                Err(not_yet) => {
                    let until = Instant::now() + not_yet.wait_time_from(DefaultClock::default().now());
                    if until > deadline {
                        return None;
                    }
                    tokio::time::sleep_until(until).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn within(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_calls_are_open_than_the_limit_says() {
        let (gates, provider, other) = (Gates::default(), Hash::of(b"a"), Hash::of(b"b"));
        let limits = ProviderLimits { concurrent: 2, ..ProviderLimits::default() };
        let first = gates.pass(provider, &limits, within(10)).await.unwrap();
        let _second = gates.pass(provider, &limits, within(10)).await.unwrap();
        assert!(gates.pass(provider, &limits, within(10)).await.is_none());
        assert!(gates.pass(other, &limits, within(10)).await.is_some(), "another provider has its own");
        drop(first);
        assert!(gates.pass(provider, &limits, within(10)).await.is_some());
    }

    #[tokio::test]
    async fn a_call_that_would_wait_longer_than_its_deadline_is_refused_at_once() {
        let (gates, provider) = (Gates::default(), Hash::of(b"a"));
        let limits = ProviderLimits { calls_per_minute: Some(2), ..ProviderLimits::default() };
        for _ in 0..2 {
            assert!(gates.pass(provider, &limits, within(1000)).await.is_some());
        }
        assert!(gates.pass(provider, &limits, within(1000)).await.is_none());
    }
}
