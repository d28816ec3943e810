//! Records new requests.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::host::{Host, HostError, publish};
use crate::keys::Verifier;
use crate::ledger::scope::Scope;
use crate::ledger::{AppendOptions, Ledger as _, LedgerError, OnExisting, Outcome};
use crate::request::{FUNCTION_RUN, PARENT_SPAN, Request, lifecycle};
use crate::span::seal::VerifiedSpan;
use crate::span::{DIGEST_KEY, Span, canonical};
use crate::value::failure::Failure;
use crate::value::hex::PublicKey;

impl Host {
    /// Records a request. A worker or [`Host::run_request`] carries it out. If the same request with the same idempotency key was
    /// submitted before, its stored first version is returned; only the trace may differ.
    ///
    /// # Errors
    /// If the request is malformed, its input is larger than the manifest's `limits.input_bytes`, the ledger refuses it, or this
    /// host's key may not sign requests of the tenant. [`HostError::OtherRequest`] if the idempotency key was used for another
    /// request.
    pub async fn submit(&self, request: Request) -> Result<VerifiedSpan, HostError> {
        publish::last(self.submit_all([request]).await?)
    }

    /// Records requests of one tenant, all of them or none, at most
    /// [`Capability::max_batch`](crate::ledger::Capability::max_batch). Returns the spans in the same order. Otherwise as
    /// [`Host::submit`].
    ///
    /// # Errors
    /// As [`Host::submit`]; [`HostError::TwoTenants`] if the requests belong to several tenants.
    pub async fn submit_all(&self, requests: impl IntoIterator<Item = Request>) -> Result<Vec<VerifiedSpan>, HostError> {
        let inner = &self.inner;
        let trusted = self.trusted();
        let driver = self.driver(&trusted);
        let mut batch: Vec<VerifiedSpan> = Vec::new();
        let mut keys = Vec::new();
        // Looking up ids takes time, and only a derived id can exist already.
        let mut options = AppendOptions::default();
        for request in requests {
            if request.derived_id().is_some() {
                options.on_existing = OnExisting::Keep;
            }
            check(&request, trusted.manifest.limits_of(&request.tenant).input_bytes)?;
            keys.push(request.idempotency_key.clone());
            let id = request.derived_id().unwrap_or_else(|| inner.ids.next_id(inner.clock.now()));
            let draft = self.hide_input(request, id).await?.into_draft(id);
            let span = driver.seal(draft, inner.signer.as_ref()).await?;
            lifecycle::check_shape(&span, &inner.rules)?;
            if let Some(first) = batch.first().filter(|first| first.tenant_id != span.tenant_id) {
                let (first, other) = (first.tenant_id.clone(), span.tenant_id.clone());
                return Err(HostError::TwoTenants { first, other });
            }
            batch.push(span);
        }
        let Some(first) = batch.first() else { return Ok(batch) };
        let scope = Scope::runtime(first.tenant_id.clone());
        let mut appended = driver.append(&scope, batch.clone(), &options).await;
        let mut new = vec![true; batch.len()];
        if matches!(appended, Err(LedgerError::KeepMismatch { .. })) {
            // A retry over HTTP has a trace of its own. Such requests are the stored ones; the others are appended.
            for ((span, key), new) in batch.iter_mut().zip(&keys).zip(&mut new) {
                if let Some(stored) = self.asked_before(&scope, span, key.as_deref()).await? {
                    (*span, *new) = (stored, false);
                }
            }
            if new.contains(&false) {
                let rest = batch.iter().zip(&new).filter(|(_, new)| **new).map(|(span, _)| span.clone()).collect();
                appended = driver.append(&scope, rest, &options).await;
            }
        }
        let new = batch.iter_mut().zip(new).filter_map(|(span, new)| new.then_some(span));
        for (span, receipt) in new.zip(appended?) {
            if receipt.outcome == Outcome::Appended {
                trace_request(span);
            } else {
                let not_found = || LedgerError::NotFound { tenant: span.tenant_id.clone(), id: span.id };
                *span = self.stored(&scope, span).await?.ok_or_else(not_found)?;
            }
        }
        Ok(batch)
    }

    /// The stored first version of the request that `span` asks for again. `None` if there is none, or it has another id's content
    /// for a reason that is not the caller's.
    async fn asked_before(
        &self,
        scope: &Scope,
        span: &VerifiedSpan,
        key: Option<&str>,
    ) -> Result<Option<VerifiedSpan>, HostError> {
        let Some(key) = key else { return Ok(None) };
        let Some(stored) = self.stored(scope, span).await? else { return Ok(None) };
        let mut differ = differences(&stored, span);
        if differ.iter().any(|column| column == "input") && self.asks_the_same(&stored, span).await? {
            differ.retain(|column| column != "input");
        }
        if !differ.is_empty() {
            return Err(HostError::OtherRequest { key: key.to_owned(), request: stored.key(), differ: differ.join(", ") });
        }
        Ok(Some(stored))
    }

    /// The stored version with the key of `span`. Anybody who can write to the store can have taken the id: only a row whose signer
    /// may sign it is an answer.
    pub(super) async fn stored(&self, scope: &Scope, span: &VerifiedSpan) -> Result<Option<VerifiedSpan>, HostError> {
        let stored = self.inner.ledger.history(scope, &span.tenant_id, span.id, span.seq, 1).await?;
        let Some(stored) = stored.into_iter().next() else { return Ok(None) };
        let stored = stored.verify(&mut Verifier::new())?;
        self.trusted().authorities.check(&stored)?;
        Ok(Some(stored))
    }
}

/// Opens and ends the `tracing` span of a new request, whose parent is the span of whoever asks. Attempts come later, and on any host: they
/// know the request, so whoever exports traces can derive from its id what they hang on.
pub(super) fn trace_request(request: &Span) {
    let trace_id = request.trace_id.as_deref();
    let parent_span = request.meta(PARENT_SPAN).and_then(Value::as_str);
    drop(tracing::info_span!("request", request = %request.id, kind = request.this, trace_id, parent_span));
}

/// Refuses what would only fail later, or would collide with the requests of others.
fn check(request: &Request, max_input: usize) -> Result<(), HostError> {
    let refused = |code: &str, message: String| {
        Err(HostError::NotValid { entity_type: "request".to_owned(), reason: Failure::new(code, message) })
    };
    if request.idempotency_key.as_deref() == Some("") {
        return refused(
            "invalid_idempotency_key",
            "the idempotency key is empty: leave it out, or make one for each request".to_owned(),
        );
    }
    if request.this == FUNCTION_RUN {
        let bytes = canonical::to_vec(&request.input).len();
        if bytes > max_input {
            let message = format!("the input has {bytes} bytes, the manifest's limit for the tenant is {max_input}: send less");
            return refused("input_limit", message);
        }
    }
    Ok(())
}

/// The columns, and the members of metadata, in which two requests differ. Their traces and times are not compared.
fn differences(stored: &Span, asked: &Span) -> Vec<String> {
    let row = |span: &Span| -> BTreeMap<String, Value> {
        // Every span can be written as a row of its columns.
        let row: Value = serde_json::from_slice(&canonical::payload(span, &PublicKey([0; 32]))).unwrap_or_default();
        let columns =
            row.as_object().into_iter().flatten().filter(|(name, _)| !["at", "trace_id", "metadata"].contains(&name.as_str()));
        columns.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let (stored_row, asked_row) = (row(stored), row(asked));
    let columns: BTreeSet<_> = stored_row.keys().chain(asked_row.keys()).collect();
    let mut differ: Vec<_> =
        columns.into_iter().filter(|name| stored_row.get(*name) != asked_row.get(*name)).cloned().collect();
    let names = |span: &Span| -> BTreeSet<String> {
        span.metadata.as_ref().and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let members = names(stored).into_iter().chain(names(asked)).collect::<BTreeSet<_>>();
    let members = members.into_iter().filter(|name| ![DIGEST_KEY, PARENT_SPAN].contains(&name.as_str()));
    let members = members.filter(|name| stored.meta(name) != asked.meta(name));
    differ.extend(members.map(|name| format!("metadata.{name}")));
    differ
}
