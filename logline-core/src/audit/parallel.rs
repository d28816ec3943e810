//! Verifies the rows of a page on all cores, in their order.

use std::num::NonZeroUsize;
use std::thread;

use crate::keys::Verifier;
use crate::ledger::{DamagedRow, Row};
use crate::span::SignedSpan;
use crate::span::seal::{Rejected, VerifiedSpan};

/// A row after its hash and its signature were checked.
pub(super) enum Checked {
    /// They are valid.
    Valid(Box<VerifiedSpan>),
    /// They are not.
    Rejected(Box<Rejected>),
    /// The row cannot be read.
    Damaged(DamagedRow),
}

impl Checked {
    /// The row as it is stored.
    pub(super) fn stored(&self) -> Result<&SignedSpan, &DamagedRow> {
        match self {
            Self::Valid(verified) => Ok(verified),
            Self::Rejected(rejected) => Ok(&rejected.span),
            Self::Damaged(damaged) => Err(damaged),
        }
    }
}

/// The most threads of one audit.
const MAX_THREADS: usize = 16;

/// The fewest rows for which a thread pays.
const LEAST: usize = 32;

/// Verifies pages of rows. Each thread keeps its cache of keys.
pub(super) struct Verifiers(Vec<Verifier>);

impl Verifiers {
    /// As many as the machine has cores.
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self((0..cores.min(MAX_THREADS)).map(|_| Verifier::new()).collect())
    }

    /// Verifies the rows of a page. The result is in their order.
    pub(super) fn check(&mut self, rows: Vec<Row>) -> Vec<Checked> {
        let share = rows.len().div_ceil(self.0.len().max(1)).max(LEAST);
        let mut parts = Vec::new();
        let mut rows = rows.into_iter();
        loop {
            let part: Vec<_> = rows.by_ref().take(share).collect();
            if part.is_empty() {
                break;
            }
            parts.push(part);
        }
        let mut verifiers = self.0.iter_mut();
        let (Some(own), Some(last)) = (verifiers.next(), parts.pop()) else { return Vec::new() };
        thread::scope(|scope| {
            // The caller's thread takes the last part, the others as many of those before it.
            let begun: Vec<_> =
                parts.into_iter().zip(verifiers).map(|(part, verifier)| scope.spawn(move || verify(part, verifier))).collect();
            let last = verify(last, own);
            let mut checked = Vec::new();
            for thread in begun {
                match thread.join() {
                    Ok(part) => checked.extend(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            checked.extend(last);
            checked
        })
    }
}

fn verify(rows: Vec<Row>, verifier: &mut Verifier) -> Vec<Checked> {
    let check = |row: Row| match row.span {
        Ok(span) => match span.try_verify(verifier) {
            Ok(verified) => Checked::Valid(Box::new(verified)),
            Err(rejected) => Checked::Rejected(rejected),
        },
        Err(damaged) => Checked::Damaged(damaged),
    };
    rows.into_iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyPair;
    use crate::ledger::Cursor;
    use crate::span::draft::Draft;
    use crate::value::clock::{SystemClock, SystemIds};

    #[test]
    fn rows_come_back_in_their_order_however_many_there_are() {
        let key = KeyPair::from_seed(&[1; 32]);
        let row = |n: usize| {
            let draft = Draft::new("note").tenant("acme").owner("a").who("a").this("note").name(n.to_string());
            let mut span = draft.stamp(&SystemClock, &SystemIds).seal_local(&key).unwrap().into_signed();
            if n.is_multiple_of(7) {
                span.span.name = Some(format!("{n}!"));
            }
            Row { cursor: Cursor::from_text(n.to_string()), span: Ok(span) }
        };
        for threads in [1, 2, 3, 16] {
            let mut verifiers = Verifiers((0..threads).map(|_| Verifier::new()).collect());
            for count in [0, 1, 31, 32, 33, 64, 65, 200] {
                let checked = verifiers.check((0..count).map(row).collect());
                let names = checked.iter().map(|checked| checked.stored().unwrap().name.clone().unwrap());
                let expected = (0..count).map(|n| if n.is_multiple_of(7) { format!("{n}!") } else { n.to_string() });
                assert!(names.eq(expected), "{count} rows on {threads} threads");
                let rejected = checked.iter().filter(|checked| matches!(checked, Checked::Rejected(_))).count();
                assert_eq!(rejected, count.div_ceil(7));
            }
        }
    }
}
