//! The effects of one policy that are written in one batch.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use logline_core::{Host, SignedSpan};
use uuid::Uuid;

use crate::action::Action;
use crate::effects::{Cause, Consequence, Effect, Tally};

/// Effects of one policy that are not written yet.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) effects: Vec<Effect>,
    pub(super) tallies: BTreeMap<Uuid, Counted>,
    /// About how many bytes the effects have.
    pub(super) bytes: u64,
}

pub(super) struct Counted {
    pub(super) tally: Tally,
    pub(super) count: u64,
    pub(super) sum: f64,
    /// The counted span with the greatest depth, and that depth.
    pub(super) deepest: (SignedSpan, u64),
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.effects.len() + self.tallies.len()
    }

    /// Adds all actions about a span. If one of them is invalid, adds none of them but a violation.
    pub(super) fn act(&mut self, cause: Cause<'_>, actions: Vec<Action>, host: &Host, today: NaiveDate) {
        let mut effects = Vec::with_capacity(actions.len());
        let mut tallies = Vec::new();
        for (index, action) in actions.into_iter().enumerate() {
            self.bytes = self.bytes.saturating_add(action.bytes());
            match cause.effect(action, index, host.rules()) {
                Ok(Consequence::Write(effect)) => effects.push(*effect),
                Ok(Consequence::Count(tally)) => tallies.push(tally),
                Err(failure) => {
                    self.effects.push(cause.violation("error", &failure, today));
                    return;
                }
            }
        }
        self.effects.extend(effects);
        for tally in tallies {
            let value = tally.value;
            let counted = self.tallies.entry(tally.id).or_insert_with(|| Counted {
                tally,
                count: 0,
                sum: 0.0,
                deepest: (cause.span.clone(), cause.depth),
            });
            counted.count += 1;
            counted.sum += value;
            if cause.depth > counted.deepest.1 {
                counted.deepest = (cause.span.clone(), cause.depth);
            }
        }
    }
}
