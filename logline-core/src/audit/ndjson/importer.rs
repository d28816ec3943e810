//! An import, line by line: what is sealed, held back, refused and appended.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit::ndjson::import::{BadLine, Import, ImportError, Imported, LineError};
use crate::audit::promotions;
use crate::keys::Verifier;
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, AppendReceipt, Ledger, LedgerError, Order, Outcome, Query, Versions};
use crate::span::SYSTEM_TENANT;
use crate::span::draft::Draft;
use crate::span::parse::{ParsedSpan, Unknown, parse_imported, unsealed};
use crate::span::rules::InvalidSpan;
use crate::span::seal::VerifiedSpan;
use crate::trust::governance::Promoted;
use crate::trust::{Authorities, NotAuthorised, TrustError, TrustRoot};
use crate::value::ids;
use crate::value::json;

/// The number of spans, and of bytes, at which a batch is appended.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 4 << 20;

/// The most ids of refused lines that are kept in memory, and the most of lines that were sealed again.
pub(super) const MAX_REFUSED: usize = 100_000;

type ChainKey = (String, Uuid);

/// A line that can be appended.
struct Pending {
    line: u64,
    span: VerifiedSpan,
    /// Whether this import sealed it. Otherwise the line was signed.
    sealed: bool,
    /// The length of the line.
    bytes: usize,
}

impl Pending {
    fn chain(&self) -> ChainKey {
        (self.span.tenant_id.clone(), self.span.id)
    }
}

/// Lines whose signer may not sign yet, and the later versions of their chains. A manifest, an approval or a delegation that
/// follows may change that.
#[derive(Default)]
struct Held {
    lines: Vec<Pending>,
    bytes: usize,
    chains: HashSet<ChainKey>,
}

impl Held {
    /// The most lines, and the most bytes of them.
    /// (A span of many small values takes 16 times as much memory as its line.)
    const MAX: (usize, usize) = (10_000, 4 << 20);

    fn is_full(&self) -> bool {
        self.lines.len() >= Self::MAX.0 || self.bytes >= Self::MAX.1
    }

    fn push(&mut self, pending: Pending) {
        self.bytes += pending.bytes;
        self.chains.insert(pending.chain());
        self.lines.push(pending);
    }
}

/// An import, line by line.
pub(super) struct Importer<'a> {
    ledger: &'a dyn Ledger,
    import: &'a Import<'a>,
    verifier: Verifier,
    pending: Vec<Pending>,
    pending_bytes: usize,
    /// Chains with a refused line, and the number of that line. Later versions of these chains are refused as well.
    refused: HashMap<ChainKey, u64>,
    /// Chains with a version that was sealed again. Its next versions link to the old seal, so they are sealed again as well.
    resealed: HashSet<ChainKey>,
    /// The last refused line whose id could not be read. It may belong to any chain.
    unattributed: Option<u64>,
    /// Which key may sign what, according to the ledger so far. `None` if there is no trust root.
    authorities: Option<Authorities>,
    held: Held,
    has_promotions: bool,
    /// How many ends of keys the manifest had before the import, and has now.
    ends: (usize, usize),
    pub(super) report: Imported,
    on_bad: &'a mut (dyn FnMut(BadLine) + Send),
}

/// The result of completing an unsigned line.
enum Completed {
    /// It has every column that it needs, and a seal.
    Sealed(Box<VerifiedSpan>),
    /// It cannot be imported. The chain that it belongs to, if known, and the reason.
    Refused(Option<ChainKey>, LineError),
}

impl<'a> Importer<'a> {
    pub(super) fn new(ledger: &'a dyn Ledger, import: &'a Import<'a>, on_bad: &'a mut (dyn FnMut(BadLine) + Send)) -> Self {
        Self {
            ledger,
            import,
            verifier: Verifier::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            refused: HashMap::new(),
            resealed: HashSet::new(),
            unattributed: None,
            authorities: None,
            held: Held::default(),
            has_promotions: false,
            ends: (0, 0),
            report: Imported { authority_checked: import.trust.is_some(), ..Imported::default() },
            on_bad,
        }
    }

    /// Whether there are enough spans for a batch.
    pub(super) fn has_batch(&self) -> bool {
        self.pending.len() >= BATCH || self.pending_bytes >= BATCH_BYTES
    }

    pub(super) fn refuse(&mut self, line: u64, chain: Option<ChainKey>, error: LineError) -> Result<(), ImportError> {
        self.report.refused += 1;
        if chain.is_none() {
            self.unattributed = Some(line);
        }
        if let Some(chain) = chain {
            if self.refused.len() >= MAX_REFUSED {
                return Err(ImportError::TooManyRefused { line });
            }
            self.refused.entry(chain).or_insert(line);
        }
        (self.on_bad)(BadLine { line, error });
        Ok(())
    }

    /// Refuses a line that is not a valid span. It remembers the chain that the line belongs to, if tenant and id can be read.
    fn refuse_text(&mut self, line: u64, bytes: &[u8], error: InvalidSpan) -> Result<(), ImportError> {
        let value = json::parse(bytes).ok();
        let text = |name: &str| value.as_ref().and_then(|v| v.get(name)).and_then(Value::as_str).map(str::to_owned);
        let chain = text("tenant_id").or_else(|| self.import.tenant.clone()).zip(text("id").map(|id| ids::from_text(&id)));
        let error = match &error {
            InvalidSpan::Hex { .. } | InvalidSpan::IncompleteSeal { .. } if !self.import.reseal => LineError::OtherSeal(error),
            InvalidSpan::UnknownColumn { .. } if !self.import.keep_unknown => LineError::UnknownColumn(error),
            _ => error.into(),
        };
        self.refuse(line, chain, error)
    }

    pub(super) async fn line(&mut self, number: u64, bytes: &[u8]) -> Result<(), ImportError> {
        self.report.lines += 1;
        let unknown = if self.import.keep_unknown { Unknown::Keep } else { Unknown::Refuse };
        let parsed = match parse_imported(bytes, unknown, &self.import.rules) {
            Ok(parsed) => parsed,
            Err(_) if self.import.reseal => match unsealed(bytes, unknown, &self.import.rules) {
                Ok(draft) => return self.unsigned(number, draft, "resealed", bytes.len()).await,
                Err(e) => return self.refuse_text(number, bytes, e),
            },
            Err(e) => return self.refuse_text(number, bytes, e),
        };
        match parsed {
            ParsedSpan::Unsigned(draft) => self.unsigned(number, *draft, "unsigned", bytes.len()).await,
            ParsedSpan::Signed(span) => {
                let chain = (span.tenant_id.clone(), span.id);
                let inherits = self.import.reseal && self.resealed.contains(&chain);
                let mut columns = match span.try_verify(&mut self.verifier) {
                    Ok(span) if !inherits => {
                        return self.queue(Pending { line: number, span, sealed: false, bytes: bytes.len() }).await;
                    }
                    Ok(span) => span.into_signed().span,
                    Err(rejected) if self.import.reseal => rejected.span.span,
                    Err(rejected) => return self.refuse(number, Some(chain), rejected.error.into()),
                };
                columns.prev_hash = None;
                self.unsigned(number, Draft::from_columns(columns), "resealed", bytes.len()).await
            }
        }
    }

    async fn unsigned(&mut self, line: u64, draft: Draft, was: &str, bytes: usize) -> Result<(), ImportError> {
        let sealed = self.seal(line, draft, was).await?;
        match sealed {
            Completed::Sealed(span) => {
                if was == "resealed" {
                    if self.resealed.len() >= MAX_REFUSED {
                        return Err(ImportError::TooManyRefused { line });
                    }
                    self.resealed.insert((span.tenant_id.clone(), span.id));
                }
                self.queue(Pending { line, span: *span, sealed: true, bytes }).await
            }
            Completed::Refused(chain, error) => self.refuse(line, chain, error),
        }
    }

    /// Completes and seals an unsigned line. An error stops the import.
    async fn seal(&mut self, line: u64, mut draft: Draft, was: &str) -> Result<Completed, ImportError> {
        let import = self.import;
        let columns = draft.columns_mut();
        if let Some(tenant) = import.tenant.as_ref().filter(|_| columns.tenant_id.is_empty()) {
            columns.tenant_id.clone_from(tenant);
        }
        if let Some(owner) = import.owner.as_ref().filter(|_| columns.owner_id.is_empty()) {
            columns.owner_id.clone_from(owner);
        }
        if columns.tenant_id.is_empty() {
            return Ok(Completed::Refused(None, LineError::MissingScope { column: "tenant_id", flag: "tenant" }));
        }
        if columns.owner_id.is_empty() {
            let chain = (columns.tenant_id.clone(), columns.id);
            return Ok(Completed::Refused(Some(chain), LineError::MissingScope { column: "owner_id", flag: "owner" }));
        }
        if columns.id.is_nil() {
            return Ok(Completed::Refused(None, InvalidSpan::Missing { column: "id" }.into()));
        }
        let chain = (columns.tenant_id.clone(), columns.id);
        let seq = columns.seq;
        if let Some(refused) = self.refused.get(&chain) {
            return Ok(Completed::Refused(Some(chain), LineError::PredecessorRefused { line: *refused }));
        }
        let Some(signer) = import.signer else { return Ok(Completed::Refused(Some(chain), LineError::NoKey)) };
        let head = self.head(&chain).await.map_err(|source| ImportError::Ledger { line, source })?;
        if let Some((head_seq, hash)) = head {
            if seq == head_seq.saturating_add(1) {
                draft = draft.follows(hash);
            } else if seq > head_seq {
                return Ok(Completed::Refused(Some(chain), LineError::Order { seq, head: head_seq }));
            }
            // A version that exists already is compared by its digest when it is appended.
        } else if let Some(line) = self.unattributed.filter(|_| seq > 0) {
            return Ok(Completed::Refused(Some(chain), LineError::MaybePredecessorRefused { line }));
        }
        if draft.columns().seq == 0 {
            draft.columns_mut().prev_hash = None;
        }
        let origin = match draft.columns().meta("origin") {
            // The span was imported before. Its earlier origin is kept in the new one.
            Some(previous) => json!({"by": "import", "was": was, "previous": previous}),
            None => json!({"by": "import", "was": was}),
        };
        let draft = draft.stamp(import.clock, &crate::value::clock::SystemIds).meta("origin", origin);
        let sealed = draft.deterministic().seal_within(signer, &import.rules).await;
        Ok(match sealed {
            Ok(span) => Completed::Sealed(Box::new(span)),
            Err(error) => Completed::Refused(Some(chain), error.into()),
        })
    }

    /// The last version of a chain, among the spans that wait or in the ledger. Tombstones are included.
    async fn head(&self, chain: &ChainKey) -> Result<Option<(u32, crate::value::hex::Hash)>, LedgerError> {
        let waiting = self.pending.iter().chain(&self.held.lines).rev();
        let waiting = waiting.into_iter().find(|p| p.span.id == chain.1 && p.span.tenant_id == chain.0);
        if let Some(pending) = waiting {
            return Ok(Some((pending.span.seq, pending.span.seal.curr_hash)));
        }
        let query = Query::new().tenant(chain.0.clone()).id(chain.1).versions(Versions::All).order(Order::Newest).limit(1);
        let page = self.ledger.scan(&Scope::Operator, &query, None).await?;
        Ok(page.into_spans()?.first().map(|span| (span.seq, span.seal.curr_hash)))
    }

    /// Why its signer may not sign it, as far as is known now.
    fn refusal(&self, pending: &Pending) -> Option<Box<NotAuthorised>> {
        self.authorities.as_ref().and_then(|authorities| authorities.check(&pending.span).err())
    }

    /// Takes a line that is well-formed and sealed. If its signer may not sign yet, it waits.
    async fn queue(&mut self, pending: Pending) -> Result<(), ImportError> {
        if pending.span.entity_type == "promotion"
            && self.authorities.is_some()
            && let Err(reason) = Promoted::of(&pending.span)
        {
            return self.refuse(pending.line, Some(pending.chain()), LineError::Promotion { reason });
        }
        let refusal = self.refusal(&pending);
        if refusal.is_none() && !self.held.chains.contains(&pending.chain()) {
            if self.accept(pending).await? {
                self.release(false).await?;
            }
            return Ok(());
        }
        if self.held.is_full() {
            let chain = pending.chain();
            let before = self.held.lines.iter().find(|held| held.chain() == chain).map_or(0, |held| held.line);
            let error = refusal.map_or(LineError::PredecessorRefused { line: before }, LineError::from);
            return self.refuse(pending.line, Some(chain), error);
        }
        self.held.push(pending);
        Ok(())
    }

    /// Counts the approvals of all promotions, if there is a new one. One that does not hold stays, because hosts do not obey it, and
    /// a backup must be restored as it was.
    pub(super) async fn check_promotions(&mut self) -> Result<(), ImportError> {
        let (true, Some(trust)) = (self.has_promotions, self.import.trust) else { return Ok(()) };
        let trust = TrustRoot { min_version: 0, ..trust.clone() };
        let Ok(trusted) = trust.resolve_with(self.ledger, self.import.logs).await else { return Ok(()) };
        let void = &mut self.report.void_promotions;
        let mut on_void = |key, reason: String| {
            tracing::warn!(promotion = %key, reason, "a promotion does not hold");
            *void += 1;
        };
        let checked = promotions::check(self.ledger, &trusted, &mut on_void).await;
        checked.map(drop).map_err(|source| ImportError::Ledger { line: self.report.lines, source })
    }

    /// Counts the rows that stand in the ledger and do not count any more, if a manifest among the lines has ended their keys. The manifest may
    /// be further down than they are. They stay, because nobody obeys them, and a backup must be restored as it was.
    pub(super) async fn check_ends(&mut self) -> Result<(), ImportError> {
        if self.ends.1 <= self.ends.0 {
            return Ok(());
        }
        let Some(trust) = self.import.trust else { return Ok(()) };
        let trust = TrustRoot { min_version: 0, ..trust.clone() };
        let Ok(trusted) = trust.resolve_with(self.ledger, self.import.logs).await else { return Ok(()) };
        let ended: HashSet<_> = trusted.manifest.ended.iter().map(|ended| ended.key).collect();
        let failed = |source, line| ImportError::Ledger { line, source };
        let mut cursor = None;
        loop {
            let page = self.ledger.scan(&Scope::Operator, &Query::chains(), cursor.as_ref()).await;
            let page = page.map_err(|source| failed(source, self.report.lines))?;
            for row in page.rows.into_iter().filter_map(|row| row.span.ok()).filter(|row| ended.contains(&row.seal.public_key))
            {
                if let Ok(row) = row.verify(&mut self.verifier)
                    && trusted.authorities.check(&row).is_err()
                {
                    tracing::warn!(row = %row.key(), "a row of a key that has ended does not count");
                    self.report.after_end += 1;
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Accepts a line whose signer may sign it. Returns whether it may have changed who may sign.
    async fn accept(&mut self, pending: Pending) -> Result<bool, ImportError> {
        let span = &pending.span;
        self.has_promotions |= span.entity_type == "promotion";
        let decides = span.tenant_id == SYSTEM_TENANT && matches!(span.entity_type.as_str(), "manifest" | "approval");
        let Some(authorities) = &mut self.authorities else { return self.push(pending).await.map(|()| false) };
        // The host that a delegation names may have signed the lines that follow.
        let delegates = authorities.delegate(span);
        self.push(pending).await?;
        // A line that is there already changes nothing.
        let before = self.report.appended;
        if decides {
            self.flush().await?;
        }
        let has_decided = decides && self.report.appended > before;
        if has_decided {
            self.resolve().await?;
        }
        Ok(has_decided || delegates)
    }

    async fn push(&mut self, pending: Pending) -> Result<(), ImportError> {
        // Spans sealed here are compared by their digest, signed ones by their bytes. A batch has only one of the two rules.
        if self.pending.last().is_some_and(|last| last.sealed != pending.sealed) {
            self.flush().await?;
        }
        self.pending_bytes += pending.bytes;
        self.pending.push(pending);
        Ok(())
    }

    /// Looks again at the lines that wait, until none of them changes who may sign. `is_end` says that no line follows: what may
    /// still not be signed is refused.
    pub(super) async fn release(&mut self, is_end: bool) -> Result<(), ImportError> {
        let mut again = !self.held.lines.is_empty();
        while again {
            again = false;
            for pending in std::mem::take(&mut self.held).lines {
                let refusal = self.refusal(&pending);
                if refusal.is_some() || self.held.chains.contains(&pending.chain()) {
                    self.held.push(pending);
                } else {
                    again |= self.accept(pending).await?;
                }
                if self.pending.len() >= BATCH || self.pending_bytes >= BATCH_BYTES {
                    self.flush().await?;
                }
            }
        }
        if !is_end {
            return Ok(());
        }
        for pending in std::mem::take(&mut self.held).lines {
            let chain = pending.chain();
            let refused = self.refused.get(&chain).map(|line| LineError::PredecessorRefused { line: *line });
            let refusal = self.refusal(&pending);
            if let Some(error) = refused.or(refusal.map(LineError::from)) {
                self.refuse(pending.line, Some(chain), error)?;
            }
        }
        Ok(())
    }

    /// Reads which key may sign what from the ledger as it is now.
    pub(super) async fn resolve(&mut self) -> Result<(), ImportError> {
        let Some(trust) = self.import.trust else { return Ok(()) };
        // The newest manifest may be further down.
        let trust = TrustRoot { min_version: 0, ..trust.clone() };
        self.authorities = Some(match trust.resolve_with(self.ledger, self.import.logs).await {
            Ok(trusted) => {
                let before = if self.report.lines == 0 { trusted.manifest.ended.len() } else { self.ends.0 };
                self.ends = (before, trusted.manifest.ended.len());
                trusted.authorities
            }
            // Before the first manifest, only the pinned keys may sign: a manifest and its approvals.
            Err(TrustError::NoManifest { .. }) => Authorities::of_root(trust.manifest_id, &trust.keys),
            Err(error) => return Err(ImportError::Trust(Box::new(error))),
        });
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<(), ImportError> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let Some(first) = pending.first() else { return Ok(()) };
        let (line, options) = (first.line, if first.sealed { AppendOptions::keep() } else { AppendOptions::default() });
        let batch = pending.iter().map(|p| p.span.clone()).collect();
        match self.ledger.append(&Scope::Operator, batch, &options).await {
            Ok(receipts) => {
                for (pending, receipt) in pending.iter().zip(&receipts) {
                    self.count(pending.sealed, receipt);
                }
                Ok(())
            }
            // The ledger refuses one of them. To find it, append them one by one.
            Err(e) if e.is_verdict() => self.one_by_one(pending, &options).await,
            Err(source) => Err(ImportError::Ledger { line, source }),
        }
    }

    async fn one_by_one(&mut self, pending: Vec<Pending>, options: &AppendOptions) -> Result<(), ImportError> {
        for Pending { line, span, sealed, .. } in pending {
            let chain = (span.tenant_id.clone(), span.id);
            match self.ledger.append(&Scope::Operator, vec![span], options).await {
                Ok(receipts) => receipts.iter().for_each(|receipt| self.count(sealed, receipt)),
                Err(e) if e.is_verdict() => {
                    let error = match self.refused.get(&chain) {
                        Some(refused) => LineError::PredecessorRefused { line: *refused },
                        None => e.into(),
                    };
                    self.refuse(line, Some(chain), error)?;
                }
                Err(source) => return Err(ImportError::Ledger { line, source }),
            }
        }
        Ok(())
    }

    fn count(&mut self, sealed: bool, receipt: &AppendReceipt) {
        match receipt.outcome {
            Outcome::Appended => {
                self.report.appended += 1;
                self.report.sealed += u64::from(sealed);
            }
            Outcome::Existing | Outcome::Kept => self.report.existing += 1,
        }
    }
}
