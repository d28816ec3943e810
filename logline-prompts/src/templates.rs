//! The templates that were compiled last, for this process.
//!
//! A host builds the same blocks for every run. Checking and compiling a template takes several times as long as rendering it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::language::Fault;
use crate::render::Compiled;

/// The most bytes of templates that are kept. Compiled, one takes up to about 64 times its bytes.
const MAX_BYTES: usize = 256 << 10;

/// A template may have at most this fraction (1/4) of the bytes. A longer one is compiled each time.
const LARGEST: usize = 4;

static RECENT: LazyLock<Mutex<Recent>> = LazyLock::new(|| Mutex::new(Recent::new(MAX_BYTES)));

/// The template, checked and compiled. A fault is found again each time.
pub(crate) fn compiled(template: &str) -> Result<Arc<Compiled>, Fault> {
    let recent = || RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = recent().get(template) {
        return Ok(found);
    }
    // Others may use the cache meanwhile.
    let compiled = Arc::new(Compiled::new(template)?);
    recent().insert(template, &compiled);
    Ok(compiled)
}

/// Values by text, bounded in the bytes of the texts. If it is full, it loses what was not used for the longest time.
struct Recent<T = Compiled> {
    most: usize,
    bytes: usize,
    clock: u64,
    entries: HashMap<Box<str>, (u64, Arc<T>)>,
}

impl<T> Recent<T> {
    fn new(most: usize) -> Self {
        Self { most, bytes: 0, clock: 0, entries: HashMap::new() }
    }

    fn get(&mut self, text: &str) -> Option<Arc<T>> {
        self.clock += 1;
        let (used, value) = self.entries.get_mut(text)?;
        *used = self.clock;
        Some(Arc::clone(value))
    }

    fn insert(&mut self, text: &str, value: &Arc<T>) {
        if text.len() > self.most / LARGEST {
            return;
        }
        self.clock += 1;
        if self.entries.insert(text.into(), (self.clock, Arc::clone(value))).is_none() {
            self.bytes += text.len();
        }
        while self.bytes > self.most {
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(text, _)| text.clone());
            let Some(oldest) = oldest else { break };
            self.entries.remove(&oldest);
            self.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_were_not_used_for_the_longest_time_make_room() {
        let mut recent = Recent::new(40);
        let value = Arc::new(());
        let text = |n: usize| format!("{n:010}");
        (0..4).for_each(|n| recent.insert(&text(n), &value));
        assert!(recent.get(&text(0)).is_some());
        recent.insert(&text(4), &value);
        let kept: Vec<_> = (0..5).map(|n| recent.get(&text(n)).is_some()).collect();
        assert_eq!(kept, [true, false, true, true, true]);
        assert_eq!(recent.bytes, 40);
    }

    #[test]
    fn a_text_is_counted_once_and_a_long_one_is_not_kept() {
        let mut recent = Recent::new(40);
        let value = Arc::new(());
        recent.insert("twice", &value);
        recent.insert("twice", &value);
        recent.insert("this text is long", &value);
        assert_eq!((recent.bytes, recent.entries.len()), (5, 1));
    }
}
