//! Reads the rows that a record names, and checks whether the record can be true, given these rows.

use futures_util::{StreamExt as _, TryStreamExt as _};
use logline_core::contract::{RECEIPT_VERSION, RunReceipt};
use logline_core::ledger::{Ledger, LedgerExt as _, Query};
use logline_core::request::{FUNCTION_RUN, Frame, asks_the_same};
use logline_core::trust::MAX_EMITTED;
use logline_core::{
    Draft, Hash, PublicKey, Rules, Scope, SignedSpan, Span, SpanKey, VerifiedSpan, Verifier, canonical, ids, json as strict,
};
use serde::Deserialize as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Difference, ReplayError};
use crate::run_code::{Journal, NAME};

/// How many reads of emitted spans run at the same time.
const LOOKUPS: usize = 16;

/// An execution and the rows that it names.
pub(crate) struct Evidence {
    pub(crate) span: VerifiedSpan,
    pub(crate) receipt: RunReceipt,
    pub(crate) journal: Journal,
    /// The version of the request that claimed the attempt.
    pub(crate) request: VerifiedSpan,
    pub(crate) function: VerifiedSpan,
    /// What the host recorded about the attempt itself.
    pub(crate) frame: Frame,
}

impl Evidence {
    pub(crate) async fn of(rows: &mut Rows<'_>, tenant: &str, execution: Uuid) -> Result<Self, ReplayError> {
        let span = rows
            .first(tenant, execution)
            .await?
            .ok_or_else(|| ReplayError::Missing { key: SpanKey { tenant_id: tenant.to_owned(), id: execution, seq: 0 } })?;
        let key = span.key();
        let refuse = |reason: String| ReplayError::NotRepeatable { key: key.clone(), reason };
        let deny = |reason: String| ReplayError::DoesNotHold { key: key.clone(), reason };
        if span.entity_type != "execution" {
            return Err(refuse(format!("it is of type `{}`", span.entity_type)));
        }
        if let Some(second) = rows.at(tenant, execution, span.seq.saturating_add(1)).await? {
            return Err(deny(format!("it was replaced by a later version, {}", second.key())));
        }
        match (&span.output, &span.error, span.status.as_deref()) {
            (_, None, Some("complete")) | (None, Some(_), Some("error")) => {}
            (_, _, status) => {
                let status = status.unwrap_or("-");
                return Err(deny(format!("status `{status}`, output and error contradict each other")));
            }
        }
        let Some(receipt) = span.meta("receipt") else {
            // INVARIANT: an attempt in which no code ran has no output.
            return Err(match span.error {
                Some(_) => refuse("no code ran: it has no receipt".to_owned()),
                None => deny("it has a result, but no receipt of the code that computed it".to_owned()),
            });
        };
        let receipt = read_receipt(receipt).map_err(&refuse)?;
        let journal = Journal::of(&span).map_err(&refuse)?;
        let named = |what: &str| named(&span, what).ok_or_else(|| deny(format!("its metadata names no {what}")));
        let (function, request) = (named("function")?, named("request")?);
        let (function, request) = (rows.get(&function).await?, rows.get(&request).await?);
        let first = rows.first(&request.tenant_id, request.id).await?;
        let first = first.ok_or_else(|| ReplayError::Missing { key: request.key() })?;
        let frame = frame(&span).map_err(&deny)?;
        let kernel = named("kernel")?;
        rows.get(&kernel).await?;
        let evidence = Self { span, receipt, journal, request, function, frame };
        evidence.check(&first).map_err(deny)?;
        Ok(evidence)
    }

    /// Checks whether the record can be true, given the rows that it names. What the function does is not considered here.
    fn check(&self, first: &SignedSpan) -> Result<(), String> {
        let Self { span, receipt, journal, request, function, frame } = self;
        let attempt = frame.attempt;
        let refuse = |reason: String| Err(reason);
        if request.entity_type != "request" || span.id != ids::execution(&request.tenant_id, request.id, attempt) {
            return refuse(format!("it is not attempt {attempt} of request {}", request.key()));
        }
        let is_claim = request.status.as_deref() == Some("running") && request.meta("attempt") == Some(&json!(attempt));
        if !is_claim || request.meta("worker") != Some(&json!(frame.worker)) {
            return refuse(format!(
                "{} is not the version with which attempt {attempt} was claimed by its worker",
                request.key()
            ));
        }
        if span.seal.public_key.to_string() != frame.worker {
            return refuse(format!("it is signed by {}, and claimed by {}", span.seal.public_key, frame.worker));
        }
        let asked = |request: &SignedSpan| {
            let span = &request.span;
            (
                span.input.clone(),
                span.parent_id,
                span.owner_id.clone(),
                span.visibility,
                span.trace_id.clone(),
                span.this.clone(),
            )
        };
        if request.this != FUNCTION_RUN {
            return refuse(format!("{} is of `{}`, not of `{FUNCTION_RUN}`", request.key(), request.this));
        }
        if asked(request) != asked(first) || !asks_the_same(first, request) {
            return refuse(format!("{} asks something else than the request's first version", request.key()));
        }
        if journal.now != request.at {
            return refuse(format!("its journal has the time {}, but it was claimed at {}", journal.now, request.at));
        }
        let is_asked_for = Some(function.id) == request.parent_id && function.tenant_id == request.tenant_id;
        if function.entity_type != "function" || !is_asked_for || function.is_deleted {
            return refuse(format!("{} is not the function that the request asks for", function.key()));
        }
        if !Scope::user(&request.tenant_id, &request.owner_id).may_read(function, Some(&request.tenant_id)) {
            return refuse(format!("{} is not visible to `{}`, who asked", function.key(), request.owner_id));
        }
        if function.runtime.as_deref() != Some(receipt.abi.as_str()) {
            return refuse(format!(
                "its receipt says `{}`, but the function is for `{}`",
                receipt.abi,
                function.runtime.as_deref().unwrap_or("-")
            ));
        }
        let limits = &receipt.limits;
        limits.check()?;
        if let Some(own) = function.meta("limits")
            && limits.with(own)?.min(limits) != *limits
        {
            return refuse(format!("its limits are wider than those of {}", function.key()));
        }
        let used = [
            ("fuel_used", receipt.fuel_used, limits.fuel),
            ("peak_memory_bytes", receipt.peak_memory_bytes, limits.memory_bytes),
        ];
        match used.into_iter().find(|(_, used, most)| used > most) {
            Some((what, used, most)) => refuse(format!("its receipt has {what} {used}, the limit was {most}")),
            None => Ok(()),
        }
    }

    /// The code of the error that the execution ended with. `None` if it completed.
    pub(crate) fn ended(&self) -> Option<&str> {
        self.span.error.as_ref()?.get("code")?.as_str()
    }

    /// The receipt that a true record would have. Members that the function determines come from the repetition, the others
    /// from the record.
    pub(crate) fn expected(&self, repeated: &RunReceipt) -> RunReceipt {
        let mut expected = self.receipt.clone();
        expected.code_hash = repeated.code_hash;
        expected.abi.clone_from(&repeated.abi);
        expected.host_calls = repeated.host_calls;
        if expected.engine_hash == repeated.engine_hash {
            expected.fuel_used = repeated.fuel_used;
            expected.peak_memory_bytes = repeated.peak_memory_bytes;
            expected.engine.clone_from(&repeated.engine);
        }
        expected
    }
}

fn read_receipt(receipt: &Value) -> Result<RunReceipt, String> {
    match receipt.get("v").and_then(Value::as_u64) {
        Some(v) if v == u64::from(RECEIPT_VERSION) => {
            RunReceipt::deserialize(receipt).map_err(|e| format!("its receipt is malformed: {e}"))
        }
        v => Err(format!("its receipt is of version {}, but this library repeats version {RECEIPT_VERSION}", v.unwrap_or(0))),
    }
}

fn frame(span: &SignedSpan) -> Result<Frame, String> {
    let attempt = span.meta("attempt").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    Ok(Frame {
        kernel_name: NAME.to_owned(),
        attempt: attempt.ok_or("its metadata names no attempt")?,
        worker: span.meta("worker").and_then(Value::as_str).ok_or("its metadata names no worker")?.to_owned(),
        kernel: span.meta("kernel").cloned().ok_or("its metadata names no kernel")?,
        at: span.at,
        duration_ms: span.duration_ms.ok_or("it has no duration_ms")?,
    })
}

/// The row that an execution's metadata names.
fn named(execution: &SignedSpan, what: &str) -> Option<(SpanKey, Hash)> {
    let named = execution.meta(what)?;
    let text = |name: &str| named.get(name).and_then(Value::as_str);
    let seq = named.get("seq").and_then(Value::as_u64).and_then(|seq| u32::try_from(seq).ok())?;
    let key = SpanKey { tenant_id: text("tenant")?.to_owned(), id: text("id")?.parse().ok()?, seq };
    Some((key, text("curr_hash")?.parse().ok()?))
}

/// Reads rows of the ledger. Rows that are named with a hash must have that hash.
pub(crate) struct Rows<'a> {
    ledger: &'a dyn Ledger,
    scope: &'a Scope,
    verifier: Verifier,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(ledger: &'a dyn Ledger, scope: &'a Scope) -> Self {
        Self { ledger, scope, verifier: Verifier::new() }
    }

    /// The first version of a span at or after `seq`.
    async fn at(&mut self, tenant: &str, id: Uuid, seq: u32) -> Result<Option<VerifiedSpan>, ReplayError> {
        let found = self.ledger.history(self.scope, tenant, id, seq, 1).await?.into_iter().next();
        found.map(|found| self.verified(found)).transpose()
    }

    fn verified(&mut self, found: SignedSpan) -> Result<VerifiedSpan, ReplayError> {
        let key = found.key();
        found.verify(&mut self.verifier).map_err(|source| ReplayError::NotVerified { key, source })
    }

    /// Every row that a query finds.
    pub(crate) async fn scan(&mut self, query: &Query) -> Result<Vec<SignedSpan>, ReplayError> {
        Ok(self.ledger.collect(self.scope, query, usize::MAX).await?)
    }

    pub(crate) async fn first(&mut self, tenant: &str, id: Uuid) -> Result<Option<VerifiedSpan>, ReplayError> {
        self.at(tenant, id, 0).await
    }

    pub(crate) async fn get(&mut self, (key, recorded): &(SpanKey, Hash)) -> Result<VerifiedSpan, ReplayError> {
        let found = self.at(&key.tenant_id, key.id, key.seq).await?.filter(|found| found.seq == key.seq);
        let found = found.ok_or_else(|| ReplayError::Missing { key: key.clone() })?;
        match found.seal.curr_hash {
            hash if hash == *recorded => Ok(found),
            found => Err(ReplayError::Changed { key: key.clone(), found, recorded: *recorded }),
        }
    }

    /// Compares what the repetition emitted with the emitted spans in the ledger. Neither may have more than the other.
    pub(crate) async fn compare_emitted(
        &mut self,
        execution: &SignedSpan,
        drafts: &[Draft],
        rules: &Rules,
    ) -> Result<Option<Difference>, ReplayError> {
        let tenant = &execution.tenant_id;
        let differs = |recorded: Value, repeated: Value| Some(Difference { what: "emitted".to_owned(), recorded, repeated });
        // The key that sealed a span is not compared.
        let payload = |span: &Span| canonical::payload(span, &PublicKey([0; 32]));
        let shown = |span: &Span| strict::parse(&payload(span)).unwrap_or_default();
        for draft in drafts {
            let repeated = match draft.validate(rules).and_then(|()| draft.clone().into_span()) {
                Ok(span) => span,
                Err(e) => return Ok(differs(Value::Null, json!(e.to_string()))),
            };
            match self.first(tenant, repeated.id).await? {
                Some(recorded) if payload(&recorded) == payload(&repeated) => {}
                recorded => return Ok(differs(recorded.map_or(Value::Null, |span| shown(&span)), shown(&repeated))),
            }
        }
        // None of the other ids that this execution could have emitted may exist.
        let rest =
            (drafts.len()..MAX_EMITTED as usize).map(|n| ids::derive("emitted", &[&execution.id.to_string(), &n.to_string()]));
        let (ledger, scope) = (self.ledger, self.scope);
        let lookups = futures_util::stream::iter(rest).map(|id| async move { ledger.history(scope, tenant, id, 0, 1).await });
        let found: Vec<_> = lookups.buffered(LOOKUPS).try_collect().await?;
        Ok(found.into_iter().flatten().next().and_then(|extra| differs(shown(&extra), Value::Null)))
    }
}
