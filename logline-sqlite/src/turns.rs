//! A queue in which tenants take turns.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Whose job it is: a tenant's, or the host's own.
pub(crate) type Party = Option<Arc<str>>;

/// Jobs of one party are done in their order, and the parties take turns. A tenant has at most `most` jobs running, so that its slow
/// ones leave room for those of the others.
pub(crate) struct Turns<J> {
    most: usize,
    inner: Mutex<Inner<J>>,
    changed: Condvar,
}

struct Inner<J> {
    /// The jobs of each party that has some. None of the queues is empty.
    waiting: HashMap<Party, VecDeque<J>>,
    /// The same parties, the next one first.
    order: VecDeque<Party>,
    running: HashMap<Party, usize>,
    is_closed: bool,
}

/// A job that may run now. [`Turns::end`] must follow.
pub(crate) struct Turn<J> {
    pub(crate) job: J,
    pub(crate) of: Party,
}

impl<J> Turns<J> {
    pub(crate) fn new(most: usize) -> Self {
        let inner = Inner { waiting: HashMap::new(), order: VecDeque::new(), running: HashMap::new(), is_closed: false };
        Self { most, inner: Mutex::new(inner), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<J>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, tenant: Option<&str>, job: J) {
        self.lock().push(tenant.map(Arc::from), job);
        self.changed.notify_one();
    }

    /// Waits for a job that may run. `None` once this is closed and nothing waits.
    pub(crate) fn next(&self) -> Option<Turn<J>> {
        let mut inner = self.lock();
        loop {
            if let Some(turn) = inner.take(self.most) {
                return Some(turn);
            }
            if inner.is_closed && inner.order.is_empty() {
                return None;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says that a job has ended.
    pub(crate) fn end(&self, of: Party) {
        let mut inner = self.lock();
        if let Some(running) = inner.running.get_mut(&of) {
            *running -= 1;
            if *running == 0 {
                inner.running.remove(&of);
            }
        }
        // The thread that says so looks for a job itself. Others wait for the end only if this is closed.
        if inner.is_closed {
            self.changed.notify_all();
        }
    }

    /// Ends the threads that wait in [`Turns::next`], after the jobs that wait.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }
}

impl<J> Inner<J> {
    fn push(&mut self, of: Party, job: J) {
        let jobs = self.waiting.entry(of.clone()).or_default();
        if jobs.is_empty() {
            self.order.push_back(of);
        }
        jobs.push_back(job);
    }

    fn take(&mut self, most: usize) -> Option<Turn<J>> {
        let may_run = |of: &Party| of.is_none() || self.running.get(of).is_none_or(|running| *running < most);
        let at = self.order.iter().position(may_run)?;
        let of = self.order.remove(at)?;
        let jobs = self.waiting.get_mut(&of)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.waiting.remove(&of);
        } else {
            self.order.push_back(of.clone());
        }
        *self.running.entry(of.clone()).or_default() += 1;
        Some(Turn { job, of })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(turns: &Turns<&'static str>) -> Option<Turn<&'static str>> {
        turns.lock().take(turns.most)
    }

    #[test]
    fn a_tenant_with_many_jobs_waits_for_those_of_the_others() {
        let turns = Turns::new(9);
        for job in ["a1", "a2", "a3"] {
            turns.push(Some("a"), job);
        }
        turns.push(Some("b"), "b1");
        turns.push(None, "host");
        let order: Vec<_> = std::iter::from_fn(|| taken(&turns)).map(|turn| turn.job).collect();
        assert_eq!(order, ["a1", "b1", "host", "a2", "a3"]);
    }

    #[test]
    fn the_slow_jobs_of_one_tenant_leave_a_thread_for_the_others() {
        let turns = Turns::new(1);
        for job in ["a1", "a2"] {
            turns.push(Some("a"), job);
        }
        let slow = taken(&turns).unwrap();
        assert!(taken(&turns).is_none());
        turns.push(Some("b"), "b1");
        turns.push(None, "host");
        assert_eq!(taken(&turns).unwrap().job, "b1");
        assert_eq!(taken(&turns).unwrap().job, "host");
        turns.end(slow.of);
        assert_eq!(taken(&turns).unwrap().job, "a2");
    }

    #[test]
    fn what_waits_is_done_before_the_threads_end() {
        let turns = Turns::new(1);
        turns.push(Some("a"), "a1");
        turns.push(Some("a"), "a2");
        turns.close();
        std::thread::scope(|scope| {
            let work = || std::iter::from_fn(|| turns.next().inspect(|turn| turns.end(turn.of.clone()))).count();
            let threads = [scope.spawn(work), scope.spawn(work)];
            assert_eq!(threads.map(|thread| thread.join().unwrap()).iter().sum::<usize>(), 2);
        });
    }
}
