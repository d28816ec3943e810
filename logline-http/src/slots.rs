//! Counts what is held, in all and for each holder: streams, waits and bytes of bodies of a tenant, connections of an address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places.
pub(crate) struct Slots {
    most: usize,
    most_of_holder: usize,
    /// Counts those who have places.
    gauge: Option<&'static str>,
    taken: Mutex<Taken>,
}

/// INVARIANT: `all` is the sum of what the holders have, and none of them has nothing.
#[derive(Default)]
struct Taken {
    all: usize,
    by: HashMap<String, usize>,
}

/// A place that is taken until this is dropped.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    holder: String,
    count: usize,
}

impl Slots {
    pub(crate) fn new(most: usize, most_of_holder: usize, gauge: Option<&'static str>) -> Arc<Self> {
        Arc::new(Self { most, most_of_holder, gauge, taken: Mutex::default() })
    }

    /// Takes a place; `None` if there is none.
    pub(crate) fn take(self: &Arc<Self>, holder: &str) -> Option<Slot> {
        self.take_many(holder, 1)
    }

    /// Takes so many places; `None` if there are fewer.
    pub(crate) fn take_many(self: &Arc<Self>, holder: &str, count: usize) -> Option<Slot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_holder = taken.by.get(holder).copied().unwrap_or(0);
        if of_holder + count > self.most_of_holder || taken.all + count > self.most {
            return None;
        }
        taken.all += count;
        taken.by.insert(holder.to_owned(), of_holder + count);
        drop(taken);
        if let Some(gauge) = self.gauge {
            metrics::gauge!(gauge).increment(1.0);
        }
        Some(Slot { slots: Arc::clone(self), holder: holder.to_owned(), count })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(self.count);
        if let Some(count) = taken.by.get_mut(&self.holder) {
            *count = count.saturating_sub(self.count);
            if *count == 0 {
                taken.by.remove(&self.holder);
            }
        }
        drop(taken);
        if let Some(gauge) = self.slots.gauge {
            metrics::gauge!(gauge).decrement(1.0);
        }
    }
}

/// Turns of each holder: so many at the same time, the others wait.
pub(crate) struct Turns {
    most: usize,
    holders: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A turn that lasts until this is dropped.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    /// Others of the holder find the same one as long as somebody has it.
    _turns: Arc<Semaphore>,
}

impl Turns {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, holders: Mutex::default() }
    }

    pub(crate) async fn take(&self, holder: &str) -> Option<Turn> {
        let turns = {
            let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
            holders.get(holder).and_then(Weak::upgrade).unwrap_or_else(|| {
                holders.retain(|_, turns| turns.strong_count() > 0);
                let turns = Arc::new(Semaphore::new(self.most));
                holders.insert(holder.to_owned(), Arc::downgrade(&turns));
                turns
            })
        };
        let permit = Arc::clone(&turns).acquire_owned().await.ok()?;
        Some(Turn { _permit: permit, _turns: turns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_cannot_take_the_places_of_all() {
        let slots = Slots::new(3, 2, None);
        let held: Vec<_> = (0..2).map(|_| slots.take("acme").unwrap()).collect();
        assert!(slots.take("acme").is_none());
        let other = slots.take("beta").unwrap();
        assert!(slots.take("beta").is_none(), "there are three in all");
        drop((held, other));
        assert!(slots.take("beta").is_some());
        let taken = slots.taken.lock().unwrap();
        assert!(taken.all == 0 && taken.by.is_empty());
    }

    #[tokio::test]
    async fn a_tenant_that_reads_much_does_not_keep_others_waiting() {
        use futures_util::FutureExt as _;

        let turns = Turns::new(2);
        let (first, second) = (turns.take("acme").await, turns.take("acme").await);
        assert!(turns.take("acme").now_or_never().is_none(), "it waits");
        assert!(turns.take("beta").now_or_never().is_some_and(|turn| turn.is_some()));
        drop(first);
        assert!(turns.take("acme").now_or_never().is_some());
        drop(second);
    }
}
