//! What one address may take of a witness: connections at once, and calls per second.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use governor::clock::MonotonicClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

type Limiter = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// After so many different addresses, those that are at rest are forgotten.
const KEPT: usize = 10_000;

/// The addresses that are connected, and how often they call.
pub(crate) struct Peers {
    most: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    calls: Limiter,
}

/// The place of an open connection.
pub(crate) struct Place {
    peer: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Peers {
    pub(crate) fn new(most: usize, per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self { most, open: Arc::default(), calls: RateLimiter::hashmap_with_clock(quota, MonotonicClock) }
    }

    /// A place for a connection; `None` if the address has as many as it may have.
    pub(crate) fn connect(&self, peer: IpAddr) -> Option<Place> {
        let peer = network(peer);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(peer).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { peer, open: Arc::clone(&self.open) })
    }

    /// Whether the address may call now.
    pub(crate) fn may_call(&self, peer: IpAddr) -> bool {
        if self.calls.len() > KEPT {
            self.calls.retain_recent();
        }
        self.calls.check_key(&network(peer)).is_ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// One customer of an internet provider has a whole /64 of IPv6 addresses.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}
