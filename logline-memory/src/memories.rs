//! The memories of one user, as an application uses them.

use std::time::Duration;

use logline_core::contract::Reader;
use logline_core::ledger::{LedgerError, Order, Query, Versions, WorkQueue as _};
use logline_core::request::Request;
use logline_core::{Execution, Failure, Host, HostError, Scope, SignedSpan, Timestamp, Verifier, ids};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::belief::{self, Believed, Rows, Standing, accepted};
use crate::consent::{Asked, Cited, NoConsent, consent_id, covers, deciding};
use crate::envelope::Place;
use crate::form::{Body, Content, Layer, MEMORY, Memory, Mode, Sensitivity, Status, Stored, sealed};
use crate::kernel::{
    CONTENT, ENDED, ERASED, MEMORY_CONSENT, MEMORY_EXPIRE, MEMORY_FORGET, MEMORY_REVIEW, MEMORY_SEAL, MEMORY_SEARCH,
    MEMORY_UPSERT, QUERY, RECEIPT, found_by, preview, public_id,
};
use crate::results::{Answer, Hit, Recalled, Receipt, Remembered, Wanted, What};
use crate::vault::{Sealed, Vault, VaultError};

/// How long a memory of a session is kept, if its writer names no time.
pub const SESSION_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often a call is made again that another one has overtaken.
const TRIES: u32 = 4;

/// Why a call on memories failed. The message never contains a text that was to be kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The call may not remember or recall.
    #[error("{reason}")]
    NoConsent {
        /// Why.
        reason: &'static str,
    },
    /// The memory does not say what it must. A retry does not help.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The kernel refused, and the execution says why.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// A text was not encrypted, or does not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The host could not carry out the request.
    #[error(transparent)]
    Host(#[from] Box<HostError>),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<HostError> for MemoryError {
    fn from(error: HostError) -> Self {
        Self::Host(Box::new(error))
    }
}

impl From<NoConsent> for MemoryError {
    fn from(error: NoConsent) -> Self {
        Self::NoConsent { reason: error.reason() }
    }
}

/// The memories of one user. Each call says what it may remember: there is no default but [`Mode::Off`].
#[derive(Clone)]
pub struct Memories<'h> {
    pub(crate) host: &'h Host,
    pub(crate) vault: &'h Vault,
    pub(crate) tenant: String,
    pub(crate) owner: String,
    pub(crate) mode: Mode,
    pub(crate) session: Option<String>,
}

impl<'h> Memories<'h> {
    /// The memories of `owner` in `tenant`. The host must have the kernel `memory` with the same vault.
    ///
    /// `owner` stands in the ledger in the clear, for good: it should be a pseudonym, such as an account number, and no name.
    #[must_use]
    pub fn new(host: &'h Host, vault: &'h Vault, tenant: impl Into<String>, owner: impl Into<String>, mode: Mode) -> Self {
        Self { host, vault, tenant: tenant.into(), owner: owner.into(), mode, session: None }
    }

    /// Sets the session of the calls.
    #[must_use]
    pub fn session(mut self, session: impl Into<String>) -> Self {
        self.session = Some(session.into());
        self
    }

    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked { tenant: &self.tenant, owner: &self.owner, mode: self.mode, session: self.session.as_deref() }
    }

    /// The latest version of a span that counts, if the scope may read it. It is read as the runtime: a row that does not count must not
    /// hide it from those who may.
    async fn believed(&self, scope: &Scope, tenant: &str, id: Uuid) -> Result<Option<Believed>, MemoryError> {
        let found = belief::find(&self.reader(), &self.host.trusted().authorities, tenant, id).await?;
        Ok(found.filter(|found| scope.may_read(found, Some(tenant))))
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader::new(self.host.ledger().as_ref(), Scope::runtime(&self.tenant))
    }

    /// The consent that these calls can cite: that of the session, or the general one.
    pub(crate) async fn consent(&self) -> Result<Cited, MemoryError> {
        if self.mode == Mode::Off {
            return Err(NoConsent::Off.into());
        }
        let (reader, trusted) = (self.reader(), self.host.trusted());
        let now = self.host.ledger().now().await?;
        let session = self.session.as_deref().filter(|_| self.mode == Mode::SessionOnly);
        let mut last = NoConsent::Missing;
        for session in [session, None] {
            let id = consent_id(&self.tenant, &self.owner, session);
            let seen = deciding(&reader, &trusted.authorities, self.host, &self.tenant, id).await?;
            let Some(found) = seen.into_version() else { continue };
            let cited = Cited::of(&found);
            match covers(&self.asked(), &cited, Some(&*found), now) {
                Ok(()) => return Ok(cited),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    /// Records that the user permits what these calls do: for the session if the mode is [`Mode::SessionOnly`], else for everything.
    /// It ends at `until`; a consent for a session ends after seven days at the latest.
    ///
    /// # Errors
    /// If it could not be recorded.
    pub async fn grant(&self, until: Option<Timestamp>) -> Result<(), MemoryError> {
        self.decide("grant", until).await
    }

    /// Records that the user permits it no more. From then on nothing is remembered or recalled under that consent, also by what waits
    /// already.
    ///
    /// # Errors
    /// If it could not be recorded.
    pub async fn revoke(&self) -> Result<(), MemoryError> {
        self.decide("revoke", None).await
    }

    async fn decide(&self, decision: &str, until: Option<Timestamp>) -> Result<(), MemoryError> {
        let session = match (self.mode, &self.session) {
            (Mode::Off, _) => return Err(NoConsent::Off.into()),
            (Mode::SessionOnly, None) => return Err(NoConsent::Session.into()),
            (Mode::SessionOnly, session) => session.as_deref(),
            (Mode::On, _) => None,
        };
        let mut input = json!({"decision": decision});
        if let Some(members) = input.as_object_mut() {
            members.extend(session.map(|session| ("session_id".to_owned(), session.into())));
            members.extend(until.map(|until| ("until".to_owned(), until.to_string().into())));
        }
        self.ask(MEMORY_CONSENT, consent_id(&self.tenant, &self.owner, session), input).await.map(drop)
    }

    /// Submits a request of the user and carries it out.
    pub(crate) async fn ask(&self, this: &str, about: Uuid, input: Value) -> Result<Value, MemoryError> {
        Ok(self.executed(this, about, input).await?.result?)
    }

    async fn executed(&self, this: &str, about: Uuid, input: Value) -> Result<Execution, MemoryError> {
        let request = Request::new(&self.tenant, &self.owner, about, input).this(this);
        Ok(self.host.execute(request).await?)
    }

    /// Keeps a memory. Everything but public ones is encrypted before the request is written. A memory under the same key supersedes
    /// the earlier one.
    ///
    /// # Errors
    /// [`MemoryError::NoConsent`], [`MemoryError::Invalid`]; [`MemoryError::Failed`] with `memory_noise`, `memory_contract` and others;
    /// [`MemoryError::Vault`] if the tenant's key is missing: nothing is kept then.
    pub async fn remember(&self, memory: &Memory) -> Result<Remembered, MemoryError> {
        self.remember_from(memory, None).await
    }

    pub(crate) async fn remember_from(&self, memory: &Memory, origin: Option<&Cited>) -> Result<Remembered, MemoryError> {
        let mut memory = memory.clone();
        let terms = &mut memory.terms;
        if terms.layer == Layer::Session {
            terms.session = terms.session.take().or_else(|| self.session.clone());
            if terms.ttl_at.is_none() {
                terms.ttl_at = Some(self.host.ledger().now().await?.saturating_add(SESSION_TTL));
            }
        }
        let invalid = |reason: String| MemoryError::Invalid { reason };
        terms.check().map_err(invalid)?;
        memory.body.check().map_err(invalid)?;
        for _ in 1..TRIES {
            match self.try_remember(&memory, origin).await {
                // The subject forgot something in between, and with it went the key of this text, or the memory that it was the next
                // version of: it is encrypted again. Or others were faster with the same memory, again and again.
                Err(MemoryError::Failed(failure)) if [ERASED, ENDED, "conflict"].contains(&failure.code.as_str()) => {}
                remembered => return remembered,
            }
        }
        self.try_remember(&memory, origin).await
    }

    /// The id that a memory is kept under, if it follows from what the memory says or came from.
    pub(crate) async fn id_of(&self, memory: &Memory, origin: Option<&Cited>) -> Result<Option<Uuid>, MemoryError> {
        let Some(key) = found_by(memory, origin) else { return Ok(None) };
        Ok(Some(match memory.terms.sensitivity {
            Sensitivity::Public => public_id(&self.tenant, &self.owner, &key),
            _ => self.vault.memory_id(&self.tenant, &self.owner, &key).await?,
        }))
    }

    async fn try_remember(&self, memory: &Memory, origin: Option<&Cited>) -> Result<Remembered, MemoryError> {
        let consent = self.consent().await?;
        let Memory { terms, body } = memory;
        let is_public = terms.sensitivity == Sensitivity::Public;
        let key = found_by(memory, origin);
        let new_id = async || Ok::<_, MemoryError>(self.host.ids().next_id(self.host.ledger().now().await?));
        let (id, envelope) = match &key {
            Some(key) if is_public => (public_id(&self.tenant, &self.owner, key), None),
            None if is_public => (new_id().await?, None),
            Some(key) => {
                let text = body.to_bytes();
                let (id, envelope) = self.vault.seal_keyed(&self.tenant, &self.owner, CONTENT, key, &text).await?;
                (id, Some(envelope))
            }
            None => {
                let id = new_id().await?;
                let place = Place { tenant: &self.tenant, subject: &self.owner, span: id, field: CONTENT };
                (id, Some(self.vault.seal(&place, &body.to_bytes()).await?))
            }
        };
        let mut input = json!({
            "id": id.to_string(),
            "terms": terms.to_value(),
            "mode": self.mode.as_str(),
            "session_id": self.session,
            "consent": consent.to_value(),
        });
        if let Some(members) = input.as_object_mut() {
            match &envelope {
                Some(envelope) => members.insert("sealed".to_owned(), sealed(envelope)),
                None => members.insert("clear".to_owned(), body.to_value()),
            };
            members.extend(origin.map(|origin| ("origin".to_owned(), origin.to_value())));
        }
        let execution = self.executed(MEMORY_UPSERT, id, input).await?;
        if let Some(envelope) = &envelope {
            self.settle(&execution, envelope).await?;
        }
        if let (Err(failure), Some(key), false) = (&execution.result, &key, is_public)
            && failure.code == ENDED
        {
            // A text that was never kept leads to the memory that has ended.
            if let Err(error) = self.vault.drop_tagged(&self.tenant, &self.owner, key, id).await {
                tracing::warn!(tenant = self.tenant, %error, "the keys of texts that were never kept were not deleted: they are later");
            }
        }
        let output = execution.result?;
        let number = |name: &str| output.get(name).and_then(Value::as_u64);
        Ok(Remembered {
            id,
            seq: number("seq").and_then(|seq| u32::try_from(seq).ok()).unwrap_or_default(),
            superseded: output.get("superseded").and_then(Value::as_bool).unwrap_or_default(),
        })
    }

    /// Leaves no key without a text, and no text without a key, after a text was encrypted and its request carried out.
    async fn settle(&self, execution: &Execution, envelope: &[u8]) -> Result<(), MemoryError> {
        let is_kept = execution.result.is_ok();
        if !is_kept && execution.retry_at().is_none() {
            // The refusal is recorded, and the text stands in the request alone. What fails here is done by the loop `memory_keeper`.
            if let Err(error) = self.vault.drop_key_of(&self.tenant, envelope).await {
                tracing::warn!(tenant = self.tenant, %error, "the key of a refused text was not deleted: it is deleted later");
            }
        }
        if is_kept && self.vault.is_lost(&self.tenant, envelope).await? {
            // Everything of the user was forgotten while the memory was being written. It gets a receipt of its own.
            mend(self.host, &self.tenant, &self.owner).await?;
            let reason = "everything of the user was forgotten while the memory was being kept: keep it again";
            return Err(Failure::new(ERASED, reason).into());
        }
        Ok(())
    }

    /// A memory that the user may read, in the clear. `None` if there is none, if it is not found any more, or if its time has passed.
    ///
    /// # Errors
    /// [`MemoryError::NoConsent`]; [`MemoryError::Vault`] with [`VaultError::Erased`] if its key was destroyed.
    pub async fn get(&self, id: Uuid) -> Result<Option<Recalled>, MemoryError> {
        self.consent().await?;
        let scope = Scope::user(&self.tenant, &self.owner);
        let Some(span) = self.believed(&scope, &self.tenant, id).await? else { return Ok(None) };
        if span.entity_type != MEMORY {
            return Ok(None);
        }
        let now = self.host.ledger().now().await?;
        self.open(&span, now).await
    }

    /// Opens a memory that is found now, and that the mode and the session of these calls allow.
    pub(crate) async fn open(&self, span: &SignedSpan, now: Timestamp) -> Result<Option<Recalled>, MemoryError> {
        let stored = Stored::read(span).map_err(|reason| MemoryError::Invalid { reason })?;
        let is_of_session = stored.terms.layer == Layer::Session && stored.terms.session == self.session;
        let is_allowed = is_of_session || (self.mode == Mode::On && stored.terms.layer != Layer::Session);
        if !is_allowed {
            return Ok(None);
        }
        self.opened(span, stored, now).await
    }

    /// Opens a memory that is found now.
    pub(crate) async fn open_any(&self, span: &SignedSpan, now: Timestamp) -> Result<Option<Recalled>, MemoryError> {
        let stored = Stored::read(span).map_err(|reason| MemoryError::Invalid { reason })?;
        self.opened(span, stored, now).await
    }

    async fn opened(&self, span: &SignedSpan, stored: Stored, now: Timestamp) -> Result<Option<Recalled>, MemoryError> {
        if stored.terms.ttl_at.is_some_and(|at| at <= now) || !stored.status.is_found() {
            return Ok(None);
        }
        let body = match stored.content {
            Content::Gone => return Ok(None),
            Content::Clear(body) => body,
            Content::Sealed(envelope) => {
                let text = Sealed { span: span.id, field: CONTENT, envelope: &envelope };
                let text = self.vault.open(&self.tenant, &span.owner_id, &[text]).await?.pop();
                let text = text.unwrap_or(Err(VaultError::Erased))?;
                Body::parse(&text).map_err(|reason| MemoryError::Invalid { reason })?
            }
        };
        Ok(Some(Recalled {
            id: span.id,
            seq: span.seq,
            owner: span.owner_id.clone(),
            terms: stored.terms,
            status: stored.status,
            body,
        }))
    }

    /// The member `memory` of the input of a confidential request that asks a model: what the model may be told of this user's
    /// memories. It cites the consent that is in force now.
    ///
    /// # Errors
    /// [`MemoryError::NoConsent`].
    pub async fn for_prompt(&self, wanted: &Wanted) -> Result<Value, MemoryError> {
        Ok(self.wants(&self.consent().await?, wanted))
    }

    fn wants(&self, consent: &Cited, wanted: &Wanted) -> Value {
        json!({
            "mode": self.mode.as_str(),
            "session_id": self.session,
            "consent": consent.to_value(),
            "limit": wanted.limit,
            "tokens": wanted.tokens,
            "types": wanted.kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>(),
            "tags": wanted.tags,
        })
    }

    /// Finds memories, the best first, in the strict order session, private, tenant, public. What may be found depends on the mode, and
    /// on nothing that the query says.
    ///
    /// # Errors
    /// [`MemoryError::NoConsent`]; [`MemoryError::Failed`].
    pub async fn search(&self, query: &str, wanted: &Wanted) -> Result<Answer, MemoryError> {
        let consent = self.consent().await?;
        let letter = self.host.ids().next_id(self.host.ledger().now().await?);
        let place = Place { tenant: &self.tenant, subject: &self.owner, span: letter, field: QUERY };
        let query = self.vault.seal_letter(&place, query.as_bytes()).await?;
        let mut input = self.wants(&consent, wanted);
        if let Some(members) = input.as_object_mut() {
            members.insert("letter".to_owned(), letter.to_string().into());
            members.insert("query".to_owned(), sealed(&query));
        }
        let output = self.ask(MEMORY_SEARCH, consent.id, input).await?;
        let now = self.host.ledger().now().await?;
        let scope = Scope::user(&self.tenant, &self.owner);
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut hits = Vec::new();
        for hit in output.get("hits").and_then(Value::as_array).into_iter().flatten() {
            let Ok(id) = text(hit, "id").parse::<Uuid>() else { continue };
            // What was forgotten since the search is not read.
            let Some(span) = self.believed(&scope, &text(hit, "tenant"), id).await? else { continue };
            let memory = match self.open(&span, now).await {
                Ok(Some(memory)) => memory,
                Ok(None) => continue,
                Err(MemoryError::Vault(error)) if error.is_of_text() => continue,
                Err(error) => return Err(error),
            };
            let score = hit.get("score").and_then(Value::as_f64).unwrap_or_default();
            hits.push(Hit { preview: preview(&memory.body.text), memory, score, scope: text(hit, "scope") });
        }
        Ok(Answer {
            result: text(&output, "result").parse().unwrap_or_default(),
            hits,
            is_truncated: output.get("truncated").and_then(Value::as_bool).unwrap_or_default(),
        })
    }

    /// Asks for a review of a temporary memory. A reviewer then decides ([`Memories::review`]).
    ///
    /// # Errors
    /// If it is not the user's, or is not active and temporary.
    pub async fn ask_for_review(&self, id: Uuid) -> Result<(), MemoryError> {
        self.ask(MEMORY_REVIEW, id, json!({"step": "ask", "id": id.to_string()})).await.map(drop)
    }

    /// Carries out a reviewer's decision: a span that holds a
    /// [`SignedStatement`](logline_core::trust::governance::SignedStatement) about exactly this version of the memory.
    ///
    /// # Errors
    /// If the decision does not count; the message says why.
    pub async fn review(&self, id: Uuid, decision: Uuid) -> Result<(), MemoryError> {
        let input = json!({"step": "decide", "id": id.to_string(), "decision_id": decision.to_string()});
        self.ask(MEMORY_REVIEW, id, input).await.map(drop)
    }

    /// Forgets, whatever the mode and the consent are. When this returns, no host opens what was forgotten.
    ///
    /// # Errors
    /// If there is nothing that could be forgotten, or the keys could not be destroyed: then make the call again.
    pub async fn forget(&self, what: &What) -> Result<Receipt, MemoryError> {
        let input = match what {
            // Named here, so that an attempt that is made again forgets the same one.
            What::Last => json!({"what": "one", "id": self.newest().await?.to_string()}),
            What::One(id) => json!({"what": "one", "id": id.to_string()}),
            What::Session(session) => json!({"what": "session", "session_id": session}),
            What::Subject => json!({"what": "subject"}),
        };
        let about = match what {
            What::One(id) => *id,
            _ => consent_id(&self.tenant, &self.owner, None),
        };
        let mut tries = 1;
        let mut output = loop {
            match self.ask(MEMORY_FORGET, about, input.clone()).await {
                // Others wrote the same memories again and again. Their keys are destroyed; the receipt is still to be written.
                Err(MemoryError::Failed(failure)) if failure.code == "conflict" && tries < TRIES => tries += 1,
                output => break output?,
            }
        };
        let receipt = self.receipt(&output).await?;
        // What did not fit into one batch ends its rows in the next ones.
        while let Some(next) = output.get("next").and_then(Value::as_str).and_then(|next| next.parse().ok()) {
            output = match self.host.run_request(&self.tenant, next).await {
                Ok(execution) => execution.result?,
                // A worker has it.
                Err(_) => self.host.outcome(&self.tenant, next).await?.result?,
            };
        }
        Ok(receipt)
    }

    /// The memory that the user began last, of those that are there.
    async fn newest(&self) -> Result<Uuid, MemoryError> {
        let query = Query::new().tenant(&self.tenant).entity_type(MEMORY).owner(&self.owner).order(Order::Newest);
        let query = query.versions(Versions::All);
        let (scope, trusted) = (Scope::runtime(&self.tenant), self.host.trusted());
        let reader = self.reader();
        let (mut rows, mut verifier) = (Rows::of(&reader, query), Verifier::new());
        while let Some(row) = rows.next().await? {
            // Only first versions say when a memory began.
            if row.prev_hash.is_none()
                && let Some(first) = accepted(&trusted.authorities, &mut verifier, row)
                && let Some(last) = self.believed(&scope, &self.tenant, first.id).await?
                && Stored::read(&last).is_ok_and(|stored| stored.status.is_found() || stored.status == Status::Denied)
            {
                return Ok(first.id);
            }
        }
        Err(Failure::new("memory_refused", "there is no memory of this user: nothing was forgotten").into())
    }

    async fn receipt(&self, output: &Value) -> Result<Receipt, MemoryError> {
        let id = output.get("receipt").and_then(Value::as_str).and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| MemoryError::Invalid { reason: "the kernel has named no receipt".to_owned() })?;
        let span = self.believed(&Scope::runtime(&self.tenant), &self.tenant, id).await?;
        let receipt = span.as_ref().and_then(|span| Receipt::of(span));
        receipt.ok_or_else(|| MemoryError::Invalid { reason: format!("the receipt {id} cannot be read: run `logline fsck`") })
    }

    /// The receipts of the user, the newest first, at most `limit`.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn receipts(&self, limit: usize) -> Result<Vec<Receipt>, MemoryError> {
        let query = Query::new().tenant(&self.tenant).entity_type(RECEIPT).owner(&self.owner).order(Order::Newest);
        let (reader, trusted) = (self.reader(), self.host.trusted());
        let mut receipts = Vec::new();
        let mut standing = Standing::of(&reader, &trusted.authorities, query);
        while receipts.len() < limit
            && let Some(row) = standing.next().await?
        {
            receipts.extend(Receipt::of(&row));
        }
        Ok(receipts)
    }
}

/// Ends the newest epoch of a tenant's key, so that backups open nothing of what was forgotten before, and seals the receipts. Returns how
/// many were sealed. By default a service calls it once a day.
///
/// # Errors
/// If an epoch could not be ended: make the call again.
pub async fn close_epoch(host: &Host, tenant: &str) -> Result<u64, MemoryError> {
    let mut sealed = 0;
    loop {
        let about = ids::derive("memory_epochs", &[tenant]);
        let request = Request::new(tenant, "system", about, json!({})).this(MEMORY_SEAL).who("host");
        let output = host.execute(request).await?.result?;
        sealed += output.get("sealed").and_then(Value::as_u64).unwrap_or_default();
        if output.get("more").and_then(Value::as_bool) != Some(true) {
            return Ok(sealed);
        }
    }
}

/// Ends the memories of a user whose time has passed, and destroys their keys. Returns how many.
///
/// # Errors
/// If they could not be ended.
pub async fn expire(host: &Host, tenant: &str, owner: &str) -> Result<u64, MemoryError> {
    let request = Request::new(tenant, owner, consent_id(tenant, owner, None), json!({})).this(MEMORY_EXPIRE).who("host");
    let output = host.execute(request).await?.result?;
    Ok(output.get("memories").and_then(Value::as_u64).unwrap_or_default())
}

/// Ends the memories of a user that lost their keys because everything of the user was forgotten at the same time, and writes a receipt
/// for them. Returns how many.
///
/// # Errors
/// If they could not be ended.
pub async fn mend(host: &Host, tenant: &str, owner: &str) -> Result<u64, MemoryError> {
    let input = json!({"lost": true});
    let request = Request::new(tenant, owner, consent_id(tenant, owner, None), input).this(MEMORY_EXPIRE).who("host");
    let output = host.execute(request).await?.result?;
    Ok(output.get("memories").and_then(Value::as_u64).unwrap_or_default())
}
