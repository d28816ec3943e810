//! Keeps a memory.

use logline_core::contract::{Context, Effects, Reader};
use logline_core::ledger::{LedgerError, Query};
use logline_core::trust::Authorities;
use logline_core::{Draft, Failure, Span, VerifiedSpan, Verifier, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use super::lost::kept_since;
use super::{MemoryKernel, Refusal, about, audit, believed, check_consent, input, invalid, refused};
use crate::belief::{self, Believed, Rows, accepted};
use crate::consent::{Asked, Cited};
use crate::contract::{CONTRACT, contract_id, schema};
use crate::form::{Body, Layer, MEMORY, Memory, Mode, Sensitivity, Status, Stored, Terms, envelope, is_memory_of, sealed};
use crate::members::{MAX_NAME, Members};
use crate::vault::Sealed;

/// The member of a memory's span in which its text would stand, as its envelope is bound to it.
pub(crate) const CONTENT: &str = "content";

impl MemoryKernel {
    pub(super) async fn upsert(&self, request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, Refusal> {
        let known = &["id", "terms", "mode", "session_id", "consent", "sealed", "clear", "origin"];
        let members = Members::of(input(request), "the input", known).map_err(invalid)?;
        let (tenant, owner, now) = (request.tenant_id.as_str(), request.owner_id.as_str(), context.attempt.started);
        let id = members.id("id").map_err(invalid)?.ok_or_else(|| invalid("`id` is missing"))?;
        let terms = Terms::read(members.get("terms")).map_err(invalid)?;
        let mode: Mode = members.one("mode").map_err(invalid)?;
        let session = members.text("session_id", MAX_NAME).map_err(invalid)?;
        let cited = Cited::read(members.get("consent"), "consent").map_err(invalid)?;
        let asked = Asked { tenant, owner, mode, session };
        may_be_kept(&terms, mode, session, now)?;
        // It may take long, so it comes before the consent is read.
        self.catch_up(&context.runtime, &context.trusted.authorities, tenant).await?;
        let consent = check_consent(context, &asked, &cited).await?;

        let (body, envelope) = match (terms.sensitivity, members.get("sealed"), members.get("clear")) {
            (Sensitivity::Public, None, Some(clear)) => (Body::read(clear).map_err(invalid)?, None),
            (Sensitivity::Public, ..) => return Err(invalid("a public memory has its text in `clear`")),
            (_, Some(value), None) => {
                let envelope = envelope(value).map_err(invalid)?;
                let text = Sealed { span: id, field: CONTENT, envelope: &envelope };
                let text = self.vault.open_since(tenant, owner, text, kept_since(now)).await?;
                (Body::parse(&text).map_err(invalid)?, Some(envelope))
            }
            _ => {
                return Err(invalid(
                    "the text of a memory that is not public must be encrypted: give `sealed`, and no `clear`",
                ));
            }
        };
        let memory = Memory { terms, body };
        let origin = origin(members.get("origin")).map_err(invalid)?;
        check_id(id, tenant, owner, &memory, origin.as_ref())?;
        if let Some(name) = &memory.terms.schema {
            keeps_contract(context, tenant, name, &memory.body).await?;
        }
        if let Some(classifier) = &self.classifier
            && let Some(reason) = classifier.noise(tenant, &memory).await
        {
            return Err(Refusal::Failed(Failure::new("memory_noise", reason)));
        }

        let seen = belief::see(&context.runtime, &context.trusted.authorities, tenant, id).await?;
        let (draft, superseded) = match seen.standing() {
            None => (seen.next(|| Draft::new(MEMORY)), None),
            Some(before) if !is_memory_of(before, tenant, owner) => {
                return Err(refused("the id belongs to another span: leave the choice of the id to the library"));
            }
            Some(before) if is_here(context, before, origin.as_ref()).await? => {
                let reason = "the memory that is imported is here already";
                return Err(Refusal::Failed(Failure::new(MEMORY_EXISTS, reason)));
            }
            Some(before) if memory.terms.sensitivity != Sensitivity::Public && Stored::read(before).is_err() => {
                return Err(refused("this version of the library cannot read the memory: use a newer one, or another key"));
            }
            Some(before) if memory.terms.sensitivity != Sensitivity::Public && has_ended(before) => {
                let reason = "the memory has ended, and its id with it: keep this as a new one";
                return Err(Refusal::Failed(Failure::new(ENDED, reason)));
            }
            Some(before) => (before.next(), Some(json!({"seq": before.seq, "curr_hash": before.seal.curr_hash.to_string()}))),
        };
        let seq = draft.columns().seq;
        let name = memory.body.key.as_deref().filter(|_| memory.terms.sensitivity == Sensitivity::Public).unwrap_or(MEMORY);
        let mut metadata = memory.terms.metadata();
        metadata.insert("consent".to_owned(), cited.to_value());
        let mut provenance = json!({"request": request.id.to_string(), "supersedes": superseded});
        if let (Some(origin), Some(members)) = (origin, provenance.as_object_mut()) {
            members.insert("origin".to_owned(), origin.to_value());
        }
        metadata.insert("provenance".to_owned(), provenance);
        if let Some(envelope) = &envelope {
            metadata.insert("sealed".to_owned(), sealed(envelope));
        }
        let content = if envelope.is_some() { json!({"redacted": true}) } else { memory.body.to_value() };
        let draft = draft
            .did(if seq == 0 { "remembered" } else { "updated" })
            .this(format!("memory.{}", memory.terms.kind))
            .name(name)
            .visibility(memory.terms.visibility)
            .related([request.id, cited.id])
            .status(Status::Active.as_str())
            .content(content)
            .metadata(Value::Object(metadata));
        let emitted = vec![about(draft, request, context), audit(request, context, (id, seq), owner, "upsert").await?];
        metrics::counter!("logline_memory_upserts_total", "layer" => memory.terms.layer.as_str()).increment(1);
        let output = json!({"memory": id.to_string(), "seq": seq, "superseded": superseded.is_some()});
        // It is committed only if this consent is the latest at that moment: the classifier may have taken its time.
        Ok(Effects::new(Ok(output)).emitted(emitted).relies_on([consent]))
    }
}

/// Where an imported memory came from: a version of a memory, as the importer says.
fn origin(value: Option<&Value>) -> Result<Option<Cited>, String> {
    value.map(|value| Cited::read(Some(value), "origin")).transpose()
}

/// Where a version of a memory came from, if it was imported.
pub(crate) fn origin_of(memory: &Span) -> Option<Cited> {
    origin(memory.meta("provenance").and_then(|provenance| provenance.get("origin"))).ok().flatten()
}

/// Whether a memory that is imported is here already, also if another import of the same one was faster.
async fn is_here(context: &Context<'_>, before: &Believed, origin: Option<&Cited>) -> Result<bool, Refusal> {
    let Some(origin) = origin.filter(|_| !has_ended(before)) else { return Ok(false) };
    Ok(came_from(&context.runtime, &context.trusted.authorities, (&before.tenant_id, before.id), origin).await?)
}

/// Whether a version of a memory is `origin`, or was imported from it or from a later version of it.
pub(crate) async fn came_from(
    reader: &Reader<'_>,
    authorities: &Authorities,
    (tenant, id): (&str, Uuid),
    origin: &Cited,
) -> Result<bool, LedgerError> {
    let (mut rows, mut verifier) = (Rows::of(reader, Query::timeline().tenant(tenant).id(id)), Verifier::new());
    while let Some(row) = rows.next().await? {
        let Some(row) = accepted(authorities, &mut verifier, row) else { continue };
        let is_copy = origin_of(&row).is_some_and(|from| from.id == origin.id && from.seq >= origin.seq);
        if is_copy || row.seal.curr_hash == origin.curr_hash {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The code of the failure of an import that was made before.
pub(crate) const MEMORY_EXISTS: &str = "memory_exists";

/// The code of a failure because the key of a text is gone: it is encrypted again.
pub(crate) const ERASED: &str = "erased";

/// The code of a failure because the memory whose next version a text was to be has ended: it becomes a new memory.
pub(crate) const ENDED: &str = "memory_ended";

/// The id under which a public memory with this key is kept.
pub(crate) fn public_id(tenant: &str, owner: &str, key: &str) -> Uuid {
    ids::derive(MEMORY, &[tenant, owner, key])
}

/// What the id of a memory follows from: its key together with where that counts, as the memories of a session supersede nothing outside it,
/// and are superseded by nothing. If it has no key and was imported, what it came from, so that it is imported once.
pub(crate) fn found_by(memory: &Memory, origin: Option<&Cited>) -> Option<String> {
    match (&memory.body.key, memory.terms.session.as_deref(), origin) {
        (Some(key), Some(session), _) => Some(format!("{}\n{session}\n{key}", session.len())),
        (Some(key), None, _) => Some(format!("\n{key}")),
        (None, _, origin) => origin.map(|origin| format!("import\n{}", origin.id)),
    }
}

pub(crate) fn has_ended(before: &Span) -> bool {
    !Stored::read(before).is_ok_and(|stored| stored.status.is_found() || stored.status == Status::Denied)
}

/// Refuses ids that belong to something else: anybody can compute the derived ids of others.
fn check_id(id: Uuid, tenant: &str, owner: &str, memory: &Memory, origin: Option<&Cited>) -> Result<(), Refusal> {
    let derived = found_by(memory, origin).filter(|_| memory.terms.sensitivity == Sensitivity::Public);
    let may_be = match derived.map(|key| public_id(tenant, owner, &key)) {
        Some(derived) => id == derived,
        None => !id.is_nil() && id.get_version_num() != 5,
    };
    if may_be { Ok(()) } else { Err(refused("the id belongs to another span: leave the choice of the id to the library")) }
}

/// What a user may write without a reviewer, in this mode and session.
fn may_be_kept(terms: &Terms, mode: Mode, session: Option<&str>, now: logline_core::Timestamp) -> Result<(), Refusal> {
    if terms.ttl_at.is_some_and(|at| at <= now) {
        return Err(invalid("`ttl_at` has passed: name a later time"));
    }
    if terms.layer == Layer::Permanent {
        return Err(refused("a permanent memory is approved by a reviewer: keep it as temporary, and ask for a review"));
    }
    if mode == Mode::SessionOnly && terms.layer != Layer::Session {
        return Err(refused("the mode session-only keeps memories of the layer session alone"));
    }
    if terms.layer == Layer::Session && terms.session.as_deref() != session {
        return Err(refused("the memory belongs to another session than the call"));
    }
    Ok(())
}

/// Whether a memory keeps its contract. The error names the place in the schema, and nothing of the memory.
async fn keeps_contract(context: &Context<'_>, tenant: &str, name: &str, body: &Body) -> Result<(), Refusal> {
    let found = believed(context, tenant, contract_id(tenant, name)).await?;
    let found = found.filter(|found| found.entity_type == CONTRACT && found.name.as_deref() == Some(name));
    let failed = |reason: String| Refusal::Failed(Failure::new(CONTRACT, reason));
    let Some(span) = found else {
        let name = name.escape_debug();
        return Err(failed(format!("there is no memory_contract `{name}` by a publisher of the tenant: publish it first")));
    };
    let validator = schema(&span).map_err(failed)?;
    let value = json!({"text": body.text, "data": body.data});
    let first = validator.iter_errors(&value).next();
    match first {
        Some(error) => {
            // Names of members are what was said, as values are: only the schema's own words are told.
            let rule = error.schema_path();
            Err(failed(format!("the contract `{}` is not kept: see `{rule}` of its schema", name.escape_debug())))
        }
        None => Ok(()),
    }
}

/// The memory that a span has, read for a change.
pub(super) fn stored(span: &Span) -> Result<Stored, Refusal> {
    Stored::read(span).map_err(|reason| refused(format!("the span is not a memory that can be read: {reason}")))
}
