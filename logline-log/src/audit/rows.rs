//! The rows of an export against the leaves of the log, and the leaves against the rows.

use std::io::{self, BufRead};
use std::num::NonZeroUsize;
use std::thread;

use logline_core::ndjson::{Line, LineReader};
use logline_core::{InvalidSpan, ParsedSpan, Rules, SignedSpan, Verifier, VerifyError, parse_line};

use crate::audit::LogAudit;
use crate::audit::ends::Ends;
use crate::audit::entries::{Entries, follows};
use crate::audit::report::{CheckKind, Findings};
use crate::leaf::Leaf;

/// Lines, and bytes of lines, that are verified together.
const PAGE: usize = 4096;
const PAGE_BYTES: usize = 32 << 20;

/// The most rows that are named one by one where many may be wrong in one way.
const MAX_NAMED: usize = 100;

/// Compares both. Returns the number of rows at the end that are newer than the checkpoint.
pub(super) fn compare(
    audit: &LogAudit<'_>,
    entries: Entries,
    ends: Option<&Ends<'_>>,
    export: &mut (dyn BufRead + Send),
    findings: &mut Findings<'_>,
) -> io::Result<u64> {
    let mut comparison = Comparison { audit, entries, ends, last: None, outside: Vec::new(), outside_count: 0, rows: 0 };
    let rules = Rules::default();
    let mut lines = LineReader::new(export, rules.max_line_bytes());
    loop {
        let (mut page, mut bytes) = (Vec::new(), 0);
        while page.len() < PAGE && bytes < PAGE_BYTES {
            match lines.next_line()? {
                None => break,
                Some(Line::TooLong(number)) => {
                    findings.problem(CheckKind::Seals, format!("line {number}: it is too long to be a row"))
                }
                Some(Line::Whole(_, [])) => {}
                Some(Line::Whole(number, line)) => {
                    bytes += line.len();
                    page.push((number, line.to_vec()));
                }
            }
        }
        if page.is_empty() {
            break;
        }
        for (number, read) in verify(&page) {
            comparison.row(number, read, findings);
        }
    }
    Ok(comparison.end(findings))
}

/// A line that was read: the row, and what is wrong with its seal.
type Read = Result<(Box<SignedSpan>, Option<VerifyError>), String>;

/// Reads and verifies lines on all cores. The result is in their order.
fn verify(page: &[(u64, Vec<u8>)]) -> Vec<(u64, Read)> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = page.len().div_ceil(cores).max(64);
    thread::scope(|scope| {
        let parts: Vec<_> = page.chunks(share).map(|part| scope.spawn(move || verify_part(part))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

fn verify_part(part: &[(u64, Vec<u8>)]) -> Vec<(u64, Read)> {
    let (rules, mut verifier) = (Rules::default(), Verifier::new());
    let mut read = |line: &[u8]| match parse_line(line, &rules) {
        Ok(ParsedSpan::Signed(row)) => {
            let wrong = row.check(&mut verifier).err();
            Ok((row, wrong))
        }
        Ok(_) => Err("it is not signed".to_owned()),
        Err(error) => Err(InvalidSpan::to_string(&error)),
    };
    part.iter().map(|(number, line)| (*number, read(line))).collect()
}

struct Comparison<'a, 'b> {
    audit: &'a LogAudit<'b>,
    entries: Entries,
    ends: Option<&'a Ends<'a>>,
    /// The leaf of the last row that is in the log.
    last: Option<u64>,
    /// Rows without a leaf since then: newer than the checkpoint, unless a row of the log follows.
    outside: Vec<String>,
    outside_count: u64,
    rows: u64,
}

impl Comparison<'_, '_> {
    fn row(&mut self, line: u64, read: Read, findings: &mut Findings<'_>) {
        let (row, wrong) = match read {
            Ok(read) => read,
            Err(reason) => return findings.problem(CheckKind::Seals, format!("line {line}: {reason}")),
        };
        if self.audit.tenant.is_some_and(|tenant| tenant != row.tenant_id) {
            return;
        }
        self.rows += 1;
        let key = row.key();
        if let Some(error) = wrong {
            findings.problem(CheckKind::Seals, format!("line {line}: {key}: {error}"));
        }
        let leaf = Leaf::of(&row);
        let found = self.entries.slots.get_mut(&(leaf.id, leaf.seq));
        if let Some(ends) = self.ends {
            ends.check(&row, line, found.as_ref().map(|slot| slot.index), findings);
        }
        let Some(slot) = found else {
            return self.outside(line, &leaf, &key.to_string(), findings);
        };
        if slot.hash != leaf.hash() {
            let text =
                format!("line {line}: {key} is not the row that was entered as leaf {}: it was edited or replaced", slot.index);
            findings.problem(CheckKind::Rows, text);
        }
        if std::mem::replace(&mut slot.is_seen, true) {
            return findings.problem(CheckKind::Order, format!("line {line}: {key} is there twice"));
        }
        let index = slot.index;
        if self.last.is_some_and(|last| index < last) {
            findings.problem(
                CheckKind::Order,
                format!("line {line}: {key} is leaf {index}, and comes after a row that was entered later"),
            );
        }
        self.last = self.last.max(Some(index));
        self.flush(findings);
    }

    /// A row without a leaf.
    fn outside(&mut self, line: u64, leaf: &Leaf, key: &str, findings: &mut Findings<'_>) {
        // A newer row follows the last version that is known. One that does not was never going to be entered.
        if let Err(text) = follows(self.entries.heads.get(&leaf.id), leaf)
            && self.entries.is_whole
            && !self.audit.is_partial
        {
            return findings.problem(CheckKind::Rows, format!("line {line}: {key} is not in the log: {text}"));
        }
        self.entries.heads.insert(leaf.id, (leaf.seq, leaf.curr_hash));
        self.outside_count += 1;
        if self.outside.len() < MAX_NAMED {
            self.outside.push(format!("line {line}: {key}"));
        }
    }

    /// A row of the log follows: what was outside before it is not newer, but was inserted.
    fn flush(&mut self, findings: &mut Findings<'_>) {
        for named in std::mem::take(&mut self.outside) {
            findings.problem(CheckKind::Rows, format!("{named} is not in the log, and rows after it are: it was inserted"));
        }
        let more = std::mem::take(&mut self.outside_count).saturating_sub(MAX_NAMED as u64);
        if more > 0 {
            findings.problem(CheckKind::Rows, format!("{more} more rows were inserted there"));
        }
    }

    fn end(self, findings: &mut Findings<'_>) -> u64 {
        let Self { entries, audit, rows, outside_count, .. } = self;
        findings.passed(CheckKind::Seals, rows);
        findings.passed(CheckKind::Rows, rows - outside_count);
        findings.passed(CheckKind::Order, rows);
        if audit.is_partial {
            findings.not_checked(CheckKind::Complete, "the export is only a part of the tenant's rows");
        } else if !entries.is_whole {
            findings.not_checked(CheckKind::Complete, "not all entries of the log could be read");
        } else {
            let mut missing: Vec<_> =
                entries.slots.iter().filter(|(_, slot)| !slot.is_seen).map(|(key, slot)| (slot.index, key)).collect();
            missing.sort_unstable();
            let count = missing.len() as u64;
            let is_tail = missing.first().is_some_and(|(first, _)| first + count == entries.size);
            if let Some((first, _)) = missing.first().filter(|_| is_tail) {
                let text = format!("the export ends before leaf {first}: its last {count} rows were cut off");
                findings.problem(CheckKind::Complete, text);
            } else {
                for (index, (id, seq)) in missing.iter().take(MAX_NAMED) {
                    findings.problem(CheckKind::Complete, format!("leaf {index}: row {id}/{seq} was removed"));
                }
                if let Some(more) = count.checked_sub(MAX_NAMED as u64).filter(|more| *more > 0) {
                    findings.problem(CheckKind::Complete, format!("{more} more rows were removed"));
                }
            }
            findings.passed(CheckKind::Complete, entries.slots.len() as u64);
        }
        outside_count
    }
}
