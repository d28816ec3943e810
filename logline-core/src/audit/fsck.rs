//! The audit: checks hash, signature, link and signer of every row of a ledger, in constant memory.

use std::future::{Future as _, poll_fn};
use std::io::BufRead;
use std::pin::pin;
use std::task::Poll;

use thiserror::Error;

use crate::audit::ndjson::{SidecarError, SidecarHead, SidecarReader};
use crate::audit::parallel::{Checked, Verifiers};
use crate::audit::{promotions, ran};
use crate::ledger::scope::Scope;
use crate::ledger::{DamagedRow, Ledger, LedgerError, Query};
use crate::span::SignedSpan;
use crate::span::seal::VerifyError;
use crate::trust::{Authorities, NotAuthorised, Trusted};
use crate::value::hex::{Hash, PublicKey};

/// What a ledger is checked against.
#[derive(Default)]
#[non_exhaustive]
pub struct Audit<'a> {
    /// The authorities. If `None`, signatures are checked, but not whether the signer was allowed to sign.
    pub authorities: Option<&'a Authorities>,
    /// The manifest in force. If `None`, it is not checked whether a quorum has approved the promotions.
    pub trusted: Option<&'a Trusted>,
    /// A sidecar of an earlier export. Every head in it must still be in the ledger.
    pub against: Option<&'a mut (dyn BufRead + Send)>,
    /// The key that must have signed the sidecar. If `None`, any key may have signed it.
    pub sidecar_key: Option<PublicKey>,
}

impl<'a> Audit<'a> {
    /// An audit by what a host obeys: who was allowed to sign, and whether a quorum has approved what ran. [`Audit::default`] checks neither.
    #[must_use]
    pub fn of(trusted: &'a Trusted) -> Self {
        Self { authorities: Some(&trusted.authorities), trusted: Some(trusted), ..Self::default() }
    }
}

/// One thing that is wrong with a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{tenant_id}/{id}/{seq}: {kind}")]
#[non_exhaustive]
pub struct Problem {
    /// The row's tenant, as stored.
    pub tenant_id: String,
    /// The row's id, as stored.
    pub id: String,
    /// The row's version, as stored.
    pub seq: String,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// It cannot be read as a span.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Its content, hash or signature is invalid.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Versions are missing before it.
    #[error("versions {from} to {to} before it are missing")]
    Gap {
        /// The `seq` of the first missing version.
        from: u32,
        /// The `seq` of the last missing version.
        to: u32,
    },
    /// Another row has the same version.
    #[error("a second row with this version: the chain was forked")]
    Fork,
    /// Its `prev_hash` is not the hash of the version before it.
    #[error("prev_hash is {claimed}, the version before it hashes to {stored}")]
    Link {
        /// `prev_hash` of the row, or `absent`.
        claimed: String,
        /// `curr_hash` of the version before it.
        stored: Hash,
    },
    /// It is the first version in the ledger, but it names a version before it.
    #[error("it follows a version that is missing: prev_hash is {claimed}, but this is the first version in the ledger")]
    MissingPredecessor {
        /// `prev_hash` of the row.
        claimed: Hash,
    },
    /// It changes a column that must be the same in all versions.
    #[error("`{column}` differs from the version before it")]
    ChangedIdentity {
        /// The column that changed: `owner_id` or `entity_type`.
        column: &'static str,
    },
    /// Its signer may not sign a span of this type.
    #[error(transparent)]
    NotAuthorised(Box<NotAuthorised>),
    /// It is a promotion that no quorum has approved, or that does not follow from what was in force. Hosts do not obey it.
    #[error("the promotion does not hold: {reason}")]
    Promotion {
        /// Why not.
        reason: String,
    },
    /// It records that a version ran which was not in force.
    #[error("what ran was not in force: {reason}")]
    Ran {
        /// What ran, and why it was not in force.
        reason: String,
    },
    /// A head that the sidecar names is not in the ledger.
    #[error("the sidecar names this version with hash {expected}, and it is not there: a tail or an id was removed")]
    Removed {
        /// `curr_hash` in the sidecar.
        expected: Hash,
    },
    /// A head that the sidecar names has another hash in the ledger.
    #[error("the sidecar names this version with hash {expected}, the row has {found}: it was replaced")]
    Replaced {
        /// `curr_hash` in the sidecar.
        expected: Hash,
        /// `curr_hash` of the row.
        found: Hash,
    },
}

/// What an audit reports while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A row has a problem.
    Problem(Problem),
    /// The store has a problem that concerns no single row. It counts as a problem of the report.
    Store(String),
    /// A page of rows was checked.
    Progress {
        /// Rows checked so far.
        rows: u64,
    },
}

/// The result of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Rows checked.
    pub rows: u64,
    /// Version chains checked.
    pub chains: u64,
    /// Problems found.
    pub problems: u64,
    /// Whether it was checked that each signer was allowed to sign. False is not a pass: it was not checked.
    pub authority_checked: bool,
    /// Promotions whose approvals were counted; `None` if that was not checked.
    pub promotions_checked: Option<u64>,
    /// Executions of functions that were compared with what was promoted; `None` if that was not checked.
    pub executions_checked: Option<u64>,
    /// Heads of the sidecar that were checked; `None` if there was no sidecar.
    pub heads_checked: Option<u64>,
    /// The key that signed the sidecar; `None` if there was no sidecar.
    pub sidecar_key: Option<PublicKey>,
    /// Whether that key was compared with the key that the caller named. If false, anybody may have made the sidecar.
    pub sidecar_key_checked: bool,
}

impl Report {
    /// Whether no problem was found in what was checked.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems == 0
    }
}

/// Why an audit could not be completed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FsckError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The sidecar cannot be used.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
}

/// Rows between two progress events, and the size of a page.
const PAGE: usize = 500;

/// Audits every row of `ledger`, on all cores of the machine. It passes each problem and the progress to `on_event`, page by page.
/// Memory does not grow with the ledger. Dropping the future stops the audit.
///
/// # Errors
/// If the ledger or the sidecar cannot be read. A bad row is not an error: it is reported and counted.
pub async fn fsck(
    ledger: &dyn Ledger,
    audit: Audit<'_>,
    on_event: &mut (dyn FnMut(Event) + Send),
) -> Result<Report, FsckError> {
    let sidecar_key_checked = audit.sidecar_key.is_some();
    let trusted = audit.trusted;
    let mut heads = audit.against.map(|source| Heads::new(source, audit.sidecar_key)).transpose()?;
    let mut verifiers = Verifiers::new();
    let mut checker = Checker {
        authorities: audit.authorities,
        previous: None,
        report: Report { authority_checked: audit.authorities.is_some(), ..Report::default() },
        on_event,
    };
    let inspection = ledger.inspect().await?;
    for problem in inspection.problems {
        checker.store(problem);
    }
    let query = Query::chains().limit(PAGE);
    let mut page = ledger.scan(&Scope::Operator, &query, None).await?;
    loop {
        let cursor = page.next.take();
        // The ledger reads the next page while this one is verified.
        let mut next = pin!(ledger.scan(&Scope::Operator, &query, cursor.as_ref()));
        let mut early = None;
        if cursor.is_some() {
            poll_fn(|context| {
                if let Poll::Ready(page) = next.as_mut().poll(context) {
                    early = Some(page);
                }
                Poll::Ready(())
            })
            .await;
        }
        for row in verifiers.check(page.rows) {
            if let Some(heads) = &mut heads {
                heads.pass(&row, &mut checker)?;
            }
            checker.row(row);
        }
        (checker.on_event)(Event::Progress { rows: checker.report.rows });
        if cursor.is_none() {
            break;
        }
        page = match early {
            Some(page) => page?,
            None => next.await?,
        };
    }
    let (shown, rows) = (checker.report.rows, inspection.rows);
    if shown < rows {
        checker.store(format!("{} of {rows} rows are hidden from the audit, and may be shown to others", rows - shown));
    }
    if let Some(trusted) = trusted {
        let mut void = Vec::new();
        let checked = promotions::check(ledger, trusted, &mut |key, reason| void.push((key, reason))).await?;
        for (key, reason) in void {
            let (id, seq) = (key.id.to_string(), key.seq.to_string());
            checker.problem((&key.tenant_id, &id, &seq), ProblemKind::Promotion { reason });
        }
        checker.report.promotions_checked = Some(checked);
        let mut wrong = Vec::new();
        let checked = ran::check(ledger, trusted, &mut |key, reason| wrong.push((key, reason))).await?;
        for (key, reason) in wrong {
            let (id, seq) = (key.id.to_string(), key.seq.to_string());
            checker.problem((&key.tenant_id, &id, &seq), ProblemKind::Ran { reason });
        }
        checker.report.executions_checked = Some(checked);
    }
    if let Some(mut heads) = heads {
        heads.finish(&mut checker)?;
        checker.report.heads_checked = Some(heads.checked);
        checker.report.sidecar_key = Some(heads.reader.signer()?);
        checker.report.sidecar_key_checked = sidecar_key_checked;
    }
    Ok(checker.report)
}

/// The last row, with which the next row is compared.
struct Previous {
    tenant_id: String,
    id: String,
    /// `None` if the row could not be read: the link of the next row cannot be checked then.
    span: Option<SignedSpan>,
}

struct Checker<'a> {
    authorities: Option<&'a Authorities>,
    previous: Option<Previous>,
    report: Report,
    on_event: &'a mut (dyn FnMut(Event) + Send),
}

impl Checker<'_> {
    fn problem(&mut self, (tenant_id, id, seq): (&str, &str, &str), kind: ProblemKind) {
        self.report.problems += 1;
        let problem = Problem { tenant_id: tenant_id.to_owned(), id: id.to_owned(), seq: seq.to_owned(), kind };
        (self.on_event)(Event::Problem(problem));
    }

    fn store(&mut self, problem: String) {
        self.report.problems += 1;
        (self.on_event)(Event::Store(problem));
    }

    fn row(&mut self, row: Checked) {
        self.report.rows += 1;
        let (span, invalid) = match row {
            Checked::Valid(verified) => {
                let unauthorised = self.authorities.and_then(|authorities| authorities.check(&verified).err());
                (verified.into_signed(), unauthorised.map(ProblemKind::NotAuthorised))
            }
            Checked::Rejected(rejected) => (rejected.span, Some(rejected.error.into())),
            Checked::Damaged(DamagedRow { tenant_id, id, seq, reason }) => {
                self.problem((&tenant_id, &id, &seq), ProblemKind::Damaged(reason));
                self.begin(&tenant_id, &id);
                self.previous = Some(Previous { tenant_id, id, span: None });
                return;
            }
        };
        let (id, seq) = (span.id.to_string(), span.seq.to_string());
        let is_first = self.begin(&span.tenant_id, &id);
        for kind in self.link(&span, is_first).into_iter().chain(invalid) {
            self.problem((&span.tenant_id, &id, &seq), kind);
        }
        self.previous = Some(Previous { tenant_id: span.tenant_id.clone(), id, span: Some(span) });
    }

    /// Counts a chain if the row begins one, and returns whether it does.
    fn begin(&mut self, tenant_id: &str, id: &str) -> bool {
        let is_first = !self.previous.as_ref().is_some_and(|p| p.tenant_id == tenant_id && p.id == id);
        self.report.chains += u64::from(is_first);
        is_first
    }

    /// What is wrong with the row's link to the version before it.
    fn link(&self, span: &SignedSpan, is_first: bool) -> Vec<ProblemKind> {
        if is_first {
            return span.prev_hash.map(|claimed| ProblemKind::MissingPredecessor { claimed }).into_iter().collect();
        }
        let Some(previous) = self.previous.as_ref().and_then(|p| p.span.as_ref()) else { return Vec::new() };
        if span.seq == previous.seq {
            return vec![ProblemKind::Fork];
        }
        let mut problems = Vec::new();
        let next = previous.seq.saturating_add(1);
        if span.seq != next {
            problems.push(ProblemKind::Gap { from: next, to: span.seq.saturating_sub(1) });
        } else if span.prev_hash != Some(previous.seal.curr_hash) {
            let claimed = span.prev_hash.map_or_else(|| "absent".to_owned(), |h| h.to_string());
            problems.push(ProblemKind::Link { claimed, stored: previous.seal.curr_hash });
        }
        for (column, ours, theirs) in
            [("owner_id", &span.owner_id, &previous.owner_id), ("entity_type", &span.entity_type, &previous.entity_type)]
        {
            if ours != theirs {
                problems.push(ProblemKind::ChangedIdentity { column });
            }
        }
        problems
    }
}

/// The sidecar's heads, read in step with the scan: both are in the order of (tenant, id, seq).
struct Heads<'a> {
    reader: SidecarReader<'a>,
    next: Option<SidecarHead>,
    checked: u64,
}

impl<'a> Heads<'a> {
    fn new(source: &'a mut (dyn BufRead + Send), key: Option<PublicKey>) -> Result<Self, SidecarError> {
        let mut reader = SidecarReader::new(source, key);
        let next = reader.next_head()?;
        Ok(Self { reader, next, checked: 0 })
    }

    /// Compares the heads up to the key of `row`.
    fn pass(&mut self, row: &Checked, checker: &mut Checker<'_>) -> Result<(), SidecarError> {
        let (tenant, id, seq) = match row.stored() {
            Ok(span) => (span.tenant_id.as_str(), span.id.to_string(), u64::from(span.seq)),
            // The row is reported as damaged. A head with its key is not reported as missing as well.
            Err(damaged) => (damaged.tenant_id.as_str(), damaged.id.clone(), damaged.seq.parse().unwrap_or(0)),
        };
        while let Some(head) = &self.next {
            let head_key = (head.tenant_id.as_str(), head.id.to_string(), u64::from(head.seq));
            match head_key.cmp(&(tenant, id.clone(), seq)) {
                std::cmp::Ordering::Greater => return Ok(()),
                std::cmp::Ordering::Less => self.missing(checker)?,
                std::cmp::Ordering::Equal => {
                    if let Ok(span) = row.stored()
                        && span.seal.curr_hash != head.curr_hash
                    {
                        let kind = ProblemKind::Replaced { expected: head.curr_hash, found: span.seal.curr_hash };
                        checker.problem((tenant, &id, &seq.to_string()), kind);
                    }
                    self.advance()?;
                }
            }
        }
        Ok(())
    }

    fn missing(&mut self, checker: &mut Checker<'_>) -> Result<(), SidecarError> {
        if let Some(head) = &self.next {
            let kind = ProblemKind::Removed { expected: head.curr_hash };
            checker.problem((&head.tenant_id, &head.id.to_string(), &head.seq.to_string()), kind);
        }
        self.advance()
    }

    fn advance(&mut self) -> Result<(), SidecarError> {
        self.checked += 1;
        self.next = self.reader.next_head()?;
        Ok(())
    }

    fn finish(&mut self, checker: &mut Checker<'_>) -> Result<(), SidecarError> {
        while self.next.is_some() {
            self.missing(checker)?;
        }
        Ok(())
    }
}
