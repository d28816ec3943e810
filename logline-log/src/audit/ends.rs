//! Keys that have ended: which rows of an export they may have signed.

use std::cell::Cell;
use std::collections::HashMap;

use logline_core::trust::Ended;
use logline_core::{PublicKey, SignedSpan, roles};

use crate::audit::report::{CheckKind, Findings};
use crate::checkpoint::Checkpoint;
use crate::hash::TreeHash;

/// The ends of keys, as far as they concern the log that is audited.
pub(super) struct Ends<'a> {
    log: &'a Checkpoint,
    by_key: HashMap<PublicKey, Vec<&'a Ended>>,
    /// Rows whose keys end, and rows of which another log decides.
    checked: Cell<u64>,
    elsewhere: Cell<u64>,
}

impl<'a> Ends<'a> {
    pub(super) fn of(ended: &'a [Ended], log: &'a Checkpoint) -> Self {
        let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
        ended.iter().for_each(|end| by_key.entry(end.key).or_default().push(end));
        Self { log, by_key, checked: Cell::new(0), elsewhere: Cell::new(0) }
    }

    /// The trees at which keys end in this log: it must have as many leaves, and had these roots then.
    pub(super) fn checkpoints(&self) -> Vec<Checkpoint> {
        let ends = self.by_key.values().flatten().flat_map(|ended| &ended.logs);
        let here = ends.filter(|end| end.origin == self.log.origin.as_str());
        here.map(|end| Checkpoint { origin: self.log.origin.clone(), size: end.size, root: TreeHash(end.root.0) }).collect()
    }

    /// Checks a row by its leaf; `None` if it is not in the log.
    pub(super) fn check(&self, row: &SignedSpan, line: u64, leaf: Option<u64>, findings: &mut Findings<'_>) {
        let Some(ended) = self.by_key.get(&row.seal.public_key) else { return };
        let roles = roles::required(row);
        // Where another right of the key may still allow the row, only an audit of authority can say.
        for end in ended.iter().filter(|end| roles.iter().all(|role| end.ends(*role, &row.tenant_id))) {
            let Some(here) = end.logs.iter().find(|log| log.origin == self.log.origin.as_str()) else {
                self.elsewhere.set(self.elsewhere.get() + 1);
                continue;
            };
            self.checked.set(self.checked.get() + 1);
            if leaf.is_none_or(|leaf| leaf >= here.size) {
                let place = leaf.map_or_else(|| "is not in the log".to_owned(), |leaf| format!("is leaf {leaf}"));
                let text = format!(
                    "line {line}: {} {place}, and its key {} ended at {} leaves: it does not count",
                    row.key(),
                    row.seal.public_key,
                    here.size
                );
                findings.problem(CheckKind::KeyEnds, text);
            }
        }
    }

    pub(super) fn report(&self, findings: &mut Findings<'_>) {
        if self.elsewhere.get() > 0 {
            let text = "some keys have ended at places in other logs: audit those, or run `logline fsck --trust`";
            findings.not_possible(CheckKind::KeyEnds, text);
        } else {
            findings.passed(CheckKind::KeyEnds, self.checked.get());
        }
    }
}
