//! Counts open streams and waits, in all and for each tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Places for streams.
pub(crate) struct Slots {
    most: usize,
    most_of_tenant: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// A place that is taken until this is dropped.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    tenant: String,
}

impl Slots {
    pub(crate) fn new(most: usize, most_of_tenant: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_tenant, taken: Mutex::default() })
    }

    /// Takes a place; `None` if there is none.
    pub(crate) fn take(self: &Arc<Self>, tenant: &str) -> Option<Slot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = taken.get(tenant).copied().unwrap_or(0);
        if of_tenant >= self.most_of_tenant || taken.values().sum::<usize>() >= self.most {
            return None;
        }
        taken.insert(tenant.to_owned(), of_tenant + 1);
        drop(taken);
        metrics::gauge!("logline_http_streams").increment(1.0);
        Some(Slot { slots: Arc::clone(self), tenant: tenant.to_owned() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.tenant);
            }
        }
        drop(taken);
        metrics::gauge!("logline_http_streams").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_cannot_take_the_places_of_all() {
        let slots = Slots::new(3, 2);
        let held: Vec<_> = (0..2).map(|_| slots.take("acme").unwrap()).collect();
        assert!(slots.take("acme").is_none());
        let other = slots.take("beta").unwrap();
        assert!(slots.take("beta").is_none(), "there are three in all");
        drop((held, other));
        assert!(slots.take("beta").is_some() && slots.taken.lock().unwrap().is_empty());
    }
}
