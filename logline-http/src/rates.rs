//! Rate limits per tenant and per key, and the headers that tell of them (draft-ietf-httpapi-ratelimit-headers-11).

use std::time::Duration;

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderValue};

use crate::identity::Identity;
use crate::options::Rate;
use crate::problem::{Code, Problem};

type Limiter = RateLimiter<String, HashMapStateStore<String>, MonotonicClock, StateInformationMiddleware>;

/// After so many different keys, those that are at rest are forgotten.
const KEPT: usize = 10_000;

/// The limits of one router.
pub(crate) struct Rates {
    tenants: Limit,
    keys: Limit,
}

struct Limit {
    name: &'static str,
    rate: Rate,
    limiter: Limiter,
}

/// What is left of the limits for a caller.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    policy: String,
    left: String,
}

impl Left {
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in [("ratelimit-policy", &self.policy), ("ratelimit", &self.left)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }
}

impl Limit {
    fn new(name: &'static str, rate: Rate) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        let limiter = RateLimiter::hashmap_with_clock(quota, MonotonicClock).with_middleware();
        Self { name, rate, limiter }
    }

    /// The calls that are left, or the pause until the next.
    fn take(&self, key: &str) -> Result<u32, Duration> {
        if self.limiter.len() > KEPT {
            self.limiter.retain_recent();
        }
        match self.limiter.check_key(&key.to_owned()) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(not_until) => Err(not_until.wait_time_from(MonotonicClock.now())),
        }
    }

    /// The seconds in which the whole burst comes back.
    fn window(&self) -> u32 {
        self.rate.burst.get().div_ceil(self.rate.per_second.get())
    }

    fn policy(&self) -> String {
        format!("\"{}\";q={};w={}", self.name, self.rate.burst, self.window())
    }

    fn left(&self, left: u32, pause: u64) -> String {
        format!("\"{}\";r={left};t={pause}", self.name)
    }
}

impl Rates {
    pub(crate) fn new(tenant: Rate, key: Rate) -> Self {
        Self { tenants: Limit::new("tenant", tenant), keys: Limit::new("key", key) }
    }

    /// Counts a call. The key comes first, so that a key that calls too often does not use up what its tenant has.
    pub(crate) fn take(&self, identity: &Identity) -> Result<Left, (Problem, Left)> {
        let policy = format!("{}, {}", self.keys.policy(), self.tenants.policy());
        let key = format!("{}\n{}", identity.tenant, identity.credential);
        let refuse = |limit: &Limit, pause: Duration| {
            let seconds = (pause.as_secs() + u64::from(pause.subsec_nanos() > 0)).max(1);
            metrics::counter!("logline_http_rate_limited_total", "limit" => limit.name).increment(1);
            let problem =
                Problem::new(Code::RateLimited, format!("this {} calls too often: wait, then go on more slowly", limit.name));
            (problem.retry_after(pause), Left { policy: policy.clone(), left: limit.left(0, seconds) })
        };
        let of_key = self.keys.take(&key).map_err(|pause| refuse(&self.keys, pause))?;
        let of_tenant = self.tenants.take(&identity.tenant).map_err(|pause| refuse(&self.tenants, pause))?;
        let window = |limit: &Limit, left: u32| {
            let used = limit.rate.burst.get().saturating_sub(left);
            u64::from(used.div_ceil(limit.rate.per_second.get()))
        };
        let left = format!(
            "{}, {}",
            self.keys.left(of_key, window(&self.keys, of_key)),
            self.tenants.left(of_tenant, window(&self.tenants, of_tenant))
        );
        Ok(Left { policy, left })
    }
}
