//! Refused tokens, counted for each address that they come from.
//!
//! To check a token costs a read of the ledger or a signature, so an address that sends many wrong ones has to wait. Tokens that were
//! accepted lately are let through all the same: behind a proxy or one address of many users, nobody is shut out by others.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use http::{HeaderMap, HeaderName};

use crate::options::Rate;

/// The most addresses, and the most tokens, that are remembered in one generation. There are two generations.
const KEPT: usize = 10_000;

/// The address of the other end of a connection, among the extensions of its requests. [`serve`](crate::serve) sets it; an application
/// that serves the router otherwise sets it in a layer of its own, so that refused tokens are counted for each address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The address from which a call comes: the last of the header that the operator's proxy sets, or that of the connection. Unknown if the
/// application serves the router by a server that does not tell.
pub(crate) fn address(request: &Request, proxy: Option<&HeaderName>) -> Option<IpAddr> {
    let connection = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    proxy.map_or(connection, |name| forwarded(request.headers(), name).or(connection)).map(network)
}

fn forwarded(headers: &HeaderMap, name: &HeaderName) -> Option<IpAddr> {
    let last = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

/// Whoever has one address of version 6 has the other 2^64 of its network as well.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
        v4 => v4,
    }
}

/// What is remembered of refused and of accepted tokens.
pub(crate) struct Peers {
    rate: Rate,
    buckets: Mutex<Generations<HashMap<IpAddr, Bucket>>>,
    accepted: Mutex<Generations<HashSet<[u8; 32]>>>,
}

/// Tries that are left at a time.
#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// The present generation takes what is new. When it is full, it becomes the past one, and the past one is forgotten.
#[derive(Default)]
struct Generations<C> {
    present: C,
    past: C,
}

impl<C: Default> Generations<C> {
    fn turn_if(&mut self, is_full: bool) {
        if is_full {
            self.past = std::mem::take(&mut self.present);
        }
    }
}

impl Peers {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::default(), accepted: Mutex::default() }
    }

    /// Takes one of the tries of an address; the pause until the next if there is none.
    pub(crate) fn take(&self, address: IpAddr) -> Result<(), Duration> {
        self.take_at(address, Instant::now())
    }

    fn take_at(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let (rate, burst) = (f64::from(self.rate.per_second.get()), f64::from(self.rate.burst.get()));
        let mut buckets = lock(&self.buckets);
        let had = buckets.present.get(&address).or_else(|| buckets.past.get(&address)).copied();
        let had = had.unwrap_or(Bucket { left: burst, at: now });
        let left = (had.left + now.saturating_duration_since(had.at).as_secs_f64() * rate).min(burst);
        if left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left) / rate));
        }
        let is_full = buckets.present.len() >= KEPT && !buckets.present.contains_key(&address);
        buckets.turn_if(is_full);
        buckets.present.insert(address, Bucket { left: left - 1.0, at: now });
        Ok(())
    }

    /// Gives a try back, because the token was not refused.
    pub(crate) fn give_back(&self, address: IpAddr) {
        let burst = f64::from(self.rate.burst.get());
        if let Some(bucket) = lock(&self.buckets).present.get_mut(&address) {
            bucket.left = (bucket.left + 1.0).min(burst);
        }
    }

    /// Whether this token was accepted lately. `digest` is a keyed digest of it.
    pub(crate) fn knows(&self, digest: &[u8; 32]) -> bool {
        let accepted = lock(&self.accepted);
        accepted.present.contains(digest) || accepted.past.contains(digest)
    }

    pub(crate) fn accept(&self, digest: [u8; 32]) {
        let mut accepted = lock(&self.accepted);
        let is_full = accepted.present.len() >= KEPT && !accepted.present.contains(&digest);
        accepted.turn_if(is_full);
        accepted.present.insert(digest);
    }

    /// It was refused: it counts again as any other.
    pub(crate) fn forget(&self, digest: &[u8; 32]) {
        let mut accepted = lock(&self.accepted);
        accepted.present.remove(digest);
        accepted.past.remove(digest);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_tries_back_with_time() {
        let (peers, here, now) = (Peers::new(Rate::new(2, 3)), IpAddr::from([10, 0, 0, 1]), Instant::now());
        for _ in 0..3 {
            peers.take_at(here, now).unwrap();
        }
        assert_eq!(peers.take_at(here, now), Err(Duration::from_millis(500)));
        assert_eq!(peers.take_at(IpAddr::from([10, 0, 0, 2]), now), Ok(()), "another address");
        assert_eq!(peers.take_at(here, now + Duration::from_millis(600)), Ok(()));
        assert!(peers.take_at(here, now + Duration::from_millis(600)).is_err());
    }

    #[test]
    fn a_million_addresses_take_no_more_memory_than_the_table_has_room_for() {
        let (peers, now) = (Peers::new(Rate::new(1, 1)), Instant::now());
        for number in 0..1_000_000_u32 {
            peers.take_at(IpAddr::from(number.to_be_bytes()), now).unwrap();
        }
        let buckets = lock(&peers.buckets);
        assert!(buckets.present.len() + buckets.past.len() <= 2 * KEPT);
    }

    #[test]
    fn a_network_of_version_6_counts_as_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[test]
    fn only_the_proxys_own_entry_counts() {
        let name = HeaderName::from_static("x-forwarded-for");
        let mut headers = HeaderMap::new();
        headers.append(&name, "1.1.1.1".parse().unwrap());
        headers.append(&name, "2.2.2.2, 3.3.3.3".parse().unwrap());
        assert_eq!(forwarded(&headers, &name), Some([3, 3, 3, 3].into()));
        headers.append(&name, "nonsense".parse().unwrap());
        assert_eq!(forwarded(&headers, &name), None);
    }
}
