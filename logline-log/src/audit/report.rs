//! What an audit found: for each check whether it passed, failed, or was not made.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::checkpoint::Checkpoint;

/// One of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CheckKind {
    /// A log that the policy trusts has signed the checkpoint, and its quorum of witnesses has cosigned it.
    Checkpoint,
    /// Witnesses that the policy names have cosigned.
    Witnesses,
    /// All tiles and bundles of the tree are there, and have the root of the checkpoint.
    Tiles,
    /// Each entry is a record of a span, once, and follows the version before it.
    Entries,
    /// Other checkpoints of the log are of the same history.
    Consistency,
    /// Each row has the hash and the signature that it claims.
    Seals,
    /// Each row is in the log, as it is.
    Rows,
    /// Rows are in the order of the log, each once.
    Order,
    /// Each leaf has its row.
    Complete,
    /// The signer of each row was allowed to sign it.
    Authority,
    /// No row is signed by a key after the key's end.
    KeyEnds,
}

impl CheckKind {
    /// The name of the check, for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Witnesses => "witnesses",
            Self::Tiles => "tiles",
            Self::Entries => "entries",
            Self::Consistency => "consistency",
            Self::Seals => "seals",
            Self::Rows => "rows",
            Self::Order => "order",
            Self::Complete => "complete",
            Self::Authority => "authority",
            Self::KeyEnds => "key_ends",
        }
    }
}

/// All checks, in the order in which they are made.
const ALL: [CheckKind; 11] = [
    CheckKind::Checkpoint,
    CheckKind::Witnesses,
    CheckKind::Tiles,
    CheckKind::Entries,
    CheckKind::Consistency,
    CheckKind::Seals,
    CheckKind::Rows,
    CheckKind::Order,
    CheckKind::Complete,
    CheckKind::Authority,
    CheckKind::KeyEnds,
];

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It holds for so many things.
    Passed(u64),
    /// It does not hold in so many places.
    Failed(u64),
    /// It was not made, for this reason. That is never the same as passed.
    NotChecked(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(count) => write!(f, "passed ({count})"),
            Self::Failed(count) => write!(f, "FAILED ({count})"),
            Self::NotChecked(reason) => write!(f, "not checked: {reason}"),
        }
    }
}

/// A check and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The check.
    pub kind: CheckKind,
    /// How it ended.
    pub verdict: Verdict,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The check that failed.
    pub kind: CheckKind,
    /// What is wrong, and where.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.text)
    }
}

/// The result of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditReport {
    /// Every check, in a fixed order.
    pub checks: Vec<Check>,
    /// The checkpoint, if the policy accepts it.
    pub checkpoint: Option<Checkpoint>,
    /// Rows at the end of the export that are newer than the checkpoint. Nothing was checked of them but their seals and links.
    pub newer: u64,
    /// Checks that were asked for, by known checkpoints or a manifest, and could not be made.
    pub not_possible: Vec<CheckKind>,
}

impl AuditReport {
    /// The verdict of a check.
    #[must_use]
    pub fn verdict(&self, kind: CheckKind) -> Option<&Verdict> {
        self.checks.iter().find(|check| check.kind == kind).map(|check| &check.verdict)
    }

    /// Whether no check failed, and each one that was asked for was made. Checks that nobody asked for do not count: look at them.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.not_possible.is_empty() && !self.checks.iter().any(|check| matches!(check.verdict, Verdict::Failed(_)))
    }
}

/// What was found so far.
pub(super) struct Findings<'a> {
    verdicts: BTreeMap<CheckKind, Verdict>,
    not_possible: BTreeSet<CheckKind>,
    on_problem: &'a mut dyn FnMut(&Problem),
}

impl<'a> Findings<'a> {
    pub(super) fn new(on_problem: &'a mut dyn FnMut(&Problem)) -> Self {
        Self { verdicts: BTreeMap::new(), not_possible: BTreeSet::new(), on_problem }
    }

    pub(super) fn problem(&mut self, kind: CheckKind, text: String) {
        (self.on_problem)(&Problem { kind, text });
        let failed = match self.verdicts.get(&kind) {
            Some(Verdict::Failed(count)) => count + 1,
            _ => 1,
        };
        self.verdicts.insert(kind, Verdict::Failed(failed));
    }

    /// Nothing was found in `count` things, unless something was.
    pub(super) fn passed(&mut self, kind: CheckKind, count: u64) {
        self.verdicts.entry(kind).or_insert(Verdict::Passed(count));
    }

    pub(super) fn not_checked(&mut self, kind: CheckKind, reason: &str) {
        self.verdicts.entry(kind).or_insert_with(|| Verdict::NotChecked(reason.to_owned()));
    }

    /// A check was asked for, and what was given for it does not decide it. A caller who reads only the result must not take that for a pass.
    pub(super) fn not_possible(&mut self, kind: CheckKind, reason: &str) {
        self.not_possible.insert(kind);
        self.not_checked(kind, reason);
    }

    pub(super) fn report(mut self, checkpoint: Option<Checkpoint>, newer: u64) -> AuditReport {
        let mut verdict =
            |kind| self.verdicts.remove(&kind).unwrap_or_else(|| Verdict::NotChecked("an earlier check failed".to_owned()));
        let checks = ALL.into_iter().map(|kind| Check { kind, verdict: verdict(kind) }).collect();
        AuditReport { checks, checkpoint, newer, not_possible: self.not_possible.into_iter().collect() }
    }
}
