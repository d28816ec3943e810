//! Records what a user permits.

use std::time::Duration;

use logline_core::contract::{Context, Effects};
use logline_core::{Draft, Failure, Timestamp, VerifiedSpan};
use serde_json::json;

use super::{Refusal, about, input, invalid, seen_consent};
use crate::consent::{CONSENT, GRANTED, REVOKED, consent_id};
use crate::members::{MAX_NAME, Members};

/// When the user decided last, as far as decisions were carried out.
const DECIDED: &str = "decided_at";

/// A consent for one session ends with it.
const SESSION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(super) async fn run(request: &VerifiedSpan, context: &Context<'_>) -> Result<Effects, Refusal> {
    let members = Members::of(input(request), "the input", &["decision", "session_id", "until"]).map_err(invalid)?;
    let session = members.text("session_id", MAX_NAME).map_err(invalid)?;
    let until = members.time("until").map_err(invalid)?;
    let now = context.attempt.started;
    if until.is_some_and(|until| until <= now) {
        return Err(invalid("`until` has passed: leave it out, or name a later time"));
    }
    let status = match members.needed("decision", MAX_NAME).map_err(invalid)? {
        "grant" => GRANTED,
        "revoke" => REVOKED,
        other => return Err(invalid(format!("`decision` must be grant or revoke, not `{}`", other.escape_debug()))),
    };
    let id = consent_id(&request.tenant_id, &request.owner_id, session);
    // When the user decided: the request may be carried out much later.
    let first = context.runtime.version(&request.tenant_id, request.id, 0).await?;
    let decided = first.map_or(request.at, |first| first.at);
    let seen = seen_consent(context, &request.tenant_id, id).await?;
    let later = seen.standing().and_then(|before| before.meta(DECIDED)?.as_str()?.parse::<Timestamp>().ok());
    // A withdrawal always counts. A grant does not, if the user has decided again since.
    if status == GRANTED && later.is_some_and(|later| decided < later) {
        let reason = "the user has decided again since this was asked for: ask the user once more if memories are wanted";
        return Err(Refusal::Failed(Failure::new("superseded", reason)));
    }
    let mut draft = seen
        .next(|| Draft::new(CONSENT))
        .without_meta("until")
        .meta(DECIDED, later.into_iter().chain([decided]).max().unwrap_or(decided).to_string())
        .did(if status == GRANTED { "granted" } else { "revoked" })
        .this(if session.is_some() { "memory.session" } else { "memory" })
        .related([request.id])
        .status(status);
    if let Some(session) = session {
        draft = draft.meta("session_id", session);
    }
    // A consent for a session ends with it, whatever was asked for.
    let last = session.map(|_| now.saturating_add(SESSION));
    let until = until.into_iter().chain(last).min();
    if let Some(until) = until.filter(|_| status == GRANTED) {
        draft = draft.meta("until", until.to_string());
    }
    let output = json!({"consent": id.to_string(), "seq": draft.columns().seq, "status": status});
    Ok(Effects::new(Ok(output)).emitted(vec![about(draft, request, context)]))
}
