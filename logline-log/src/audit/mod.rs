//! The audit without a database: an export, a checkpoint and the files of the log, compared in both directions.
//!
//! It trusts only the policy that it is given. A row that was edited, removed, inserted, duplicated or reordered shows as a difference
//! between rows and leaves; leaves that were changed show as another root; and a second history shows as a checkpoint that does not have
//! the root that this tree had at its size.

mod ends;
mod entries;
mod report;
mod rows;

use std::io::{self, BufRead};

pub use report::{AuditReport, Check, CheckKind, Problem, Verdict};

use crate::audit::ends::Ends;
use crate::audit::entries::Entries;
use crate::audit::report::Findings;
use crate::checkpoint::Checkpoint;
use crate::index::ReadFile;
use crate::note::Note;
use crate::policy::Policy;
use logline_core::trust::Ended;

/// What is audited, and against what.
#[non_exhaustive]
pub struct LogAudit<'a> {
    /// The logs and witnesses that are trusted.
    pub policy: &'a Policy,
    /// Rows of other tenants in the export are left out. `None` if all rows of the export belong to the log's tenant.
    pub tenant: Option<&'a str>,
    /// The ends of keys, from a manifest that the auditor trusts. `None`: whether a key was used after its end is not checked.
    pub ended: Option<&'a [Ended]>,
    /// Checkpoints of the same log that others were shown, or that were seen before.
    pub known: Vec<Note>,
    /// Whether the export is only a part of the tenant's rows, such as those that one user may see. Then nobody can say from it that a
    /// row was removed.
    pub is_partial: bool,
}

impl<'a> LogAudit<'a> {
    /// An audit of a whole export against this policy.
    #[must_use]
    pub fn new(policy: &'a Policy) -> Self {
        Self { policy, tenant: None, ended: None, known: Vec::new(), is_partial: false }
    }

    /// Audits the log of `checkpoint`, and the rows of `export` against it. Each problem is given to `on_problem` when it is found.
    ///
    /// Memory grows with the number of leaves (about 120 bytes for each), because a row may be anywhere.
    ///
    /// # Errors
    /// If the export cannot be read. What is wrong with the log is in the report.
    pub fn run(
        &self,
        checkpoint: &Note,
        read: &mut ReadFile<'_>,
        export: Option<&mut (dyn BufRead + Send)>,
        on_problem: &mut dyn FnMut(&Problem),
    ) -> io::Result<AuditReport> {
        let mut findings = Findings::new(on_problem);
        let accepted = match self.policy.verify(checkpoint) {
            Ok(accepted) => accepted,
            Err(error) => {
                findings.problem(CheckKind::Checkpoint, error.to_string());
                // Without a checkpoint nothing says what the leaves should be.
                return Ok(findings.report(None, 0));
            }
        };
        findings.passed(CheckKind::Checkpoint, 1);
        match accepted.cosigned.len() {
            0 if self.policy.witnesses().is_empty() => {
                findings.not_checked(CheckKind::Witnesses, "the policy names no witnesses")
            }
            0 => findings.not_checked(CheckKind::Witnesses, "no witness has cosigned, and the policy asks for none"),
            cosigned => findings.passed(CheckKind::Witnesses, cosigned as u64),
        }
        let mut known = self.known(&accepted.checkpoint, &mut findings);
        let ends = self.ended.map(|ended| Ends::of(ended, &accepted.checkpoint));
        for end in ends.iter().flat_map(Ends::checkpoints) {
            keep_or_refuse(end, "the end of a key in the manifest", &accepted.checkpoint, &mut known, &mut findings);
        }
        let entries = Entries::read(&accepted.checkpoint, known, read, &mut findings);
        let mut newer = 0;
        match export {
            None => {
                for kind in [CheckKind::Seals, CheckKind::Rows, CheckKind::Order, CheckKind::Complete] {
                    findings.not_checked(kind, "no export was given");
                }
            }
            Some(export) => newer = rows::compare(self, entries, ends.as_ref(), export, &mut findings)?,
        }
        findings.not_checked(CheckKind::Authority, "who was allowed to sign is checked by `logline fsck --trust`");
        match &ends {
            None => findings.not_checked(CheckKind::KeyEnds, "no manifest was given"),
            Some(ends) => ends.report(&mut findings),
        }
        Ok(findings.report(Some(accepted.checkpoint), newer))
    }

    /// The roots that other checkpoints of the log claim, by size.
    fn known(&self, checkpoint: &Checkpoint, findings: &mut Findings<'_>) -> Vec<Checkpoint> {
        if self.known.is_empty() {
            findings.not_checked(CheckKind::Consistency, "no other checkpoint of the log was given");
        }
        let mut known = Vec::new();
        for note in &self.known {
            // Whether enough witnesses have cosigned it is not asked here: the log's signature alone proves a second history.
            let verified = Checkpoint::of(note).and_then(|claimed| {
                let keys = self.policy.logs().iter().filter(|log| *log.name() == claimed.origin);
                let mut refused = Err(crate::checkpoint::CheckpointError::NotByLog { origin: claimed.origin.clone() });
                for key in keys {
                    refused = Checkpoint::verify(note, key, &[]).map(|(checkpoint, _)| checkpoint);
                    if refused.is_ok() {
                        break;
                    }
                }
                refused
            });
            match verified {
                Err(error) => findings.problem(CheckKind::Consistency, format!("another checkpoint is not valid: {error}")),
                Ok(other) if other.origin != checkpoint.origin => {
                    findings.not_possible(CheckKind::Consistency, "a checkpoint of another log says nothing about this one");
                }
                Ok(other) => keep_or_refuse(other, "another checkpoint", checkpoint, &mut known, findings),
            }
        }
        known
    }
}

/// Keeps what this tree must have had at some size. A log never shrinks: whoever has seen a larger tree is shown a part of it.
fn keep_or_refuse(
    other: Checkpoint,
    what: &str,
    checkpoint: &Checkpoint,
    known: &mut Vec<Checkpoint>,
    findings: &mut Findings<'_>,
) {
    if other.size <= checkpoint.size {
        return known.push(other);
    }
    let text = format!(
        "rows were withdrawn, or this copy of the log is old: {what} has {} leaves, and this checkpoint has {}. Get the newest copy of \
         the log; if that has no more leaves, keep both as evidence",
        other.size, checkpoint.size
    );
    findings.problem(CheckKind::Consistency, text);
}
