//! Consent: a span that says what may be remembered of a person. Its latest version counts.

use std::sync::atomic::{AtomicBool, Ordering};

use logline_core::contract::{CurrentTrust, Reader};
use logline_core::ledger::LedgerError;
use logline_core::roles::Role;
use logline_core::trust::Authorities;
use logline_core::{Hash, SignedSpan, Timestamp, VerifiedSpan, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::belief::{self, Seen};
use crate::form::Mode;
use crate::members::{MAX_NAME, Members};

/// The `entity_type` of consents.
pub const CONSENT: &str = "consent";

/// The `status` of a consent that holds.
pub(crate) const GRANTED: &str = "granted";

/// The `status` of a consent that was withdrawn.
pub(crate) const REVOKED: &str = "revoked";

/// The id of a subject's consent: for one session, or for everything.
#[must_use]
pub fn consent_id(tenant: &str, owner: &str, session: Option<&str>) -> Uuid {
    match session {
        Some(session) => ids::derive("consent", &[tenant, owner, session]),
        None => ids::derive("consent", &[tenant, owner]),
    }
}

/// The version of a consent that a call relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cited {
    /// The id of the consent.
    pub id: Uuid,
    /// Its version.
    pub seq: u32,
    /// The hash of the version.
    pub curr_hash: Hash,
}

impl Cited {
    pub(crate) fn of(span: &SignedSpan) -> Self {
        Self { id: span.id, seq: span.seq, curr_hash: span.seal.curr_hash }
    }

    pub(crate) fn to_value(self) -> Value {
        json!({"id": self.id.to_string(), "seq": self.seq, "curr_hash": self.curr_hash.to_string()})
    }

    pub(crate) fn read(value: Option<&Value>, what: &'static str) -> Result<Self, String> {
        let members = Members::of(value, what, &["id", "seq", "curr_hash"])?;
        let seq = members.get("seq").and_then(Value::as_u64).and_then(|seq| u32::try_from(seq).ok());
        Ok(Self {
            id: members.id("id")?.ok_or_else(|| format!("{what}: `id` is missing"))?,
            seq: seq.ok_or_else(|| format!("{what}: `seq` must be a whole number"))?,
            curr_hash: members.needed("curr_hash", MAX_NAME)?.parse().map_err(|e| format!("{what}: `curr_hash` {e}"))?,
        })
    }
}

/// A consent, of which a version decides: the latest that counts, or a withdrawal after it.
///
/// A withdrawal also decides if a host's key has signed it whose right has ended or expired since: that the user was asked no longer shows,
/// and nothing is remembered on a doubt. What others have signed decides nothing, so that nobody ends the consents of others.
pub(crate) async fn deciding(
    reader: &Reader<'_>,
    authorities: &Authorities,
    current: &dyn CurrentTrust,
    tenant: &str,
    id: Uuid,
) -> Result<Seen, LedgerError> {
    match known_to(reader, authorities, tenant, id).await? {
        (seen, Doubt::None) => Ok(seen),
        (_, Doubt::Withdrawn) => Ok(known_to(reader, &current.read().await?.authorities, tenant, id).await?.0),
    }
}

/// What stands after the version that decides.
enum Doubt {
    None,
    /// A withdrawal by a key that is not known: perhaps that of a host that was added since the authorities were read.
    Withdrawn,
}

/// A consent, as far as these authorities know.
async fn known_to(
    reader: &Reader<'_>,
    authorities: &Authorities,
    tenant: &str,
    id: Uuid,
) -> Result<(Seen, Doubt), LedgerError> {
    let is_doubted = AtomicBool::new(false);
    let decides = |row: &VerifiedSpan| {
        let is_withdrawal = row.status.as_deref() == Some(REVOKED);
        let decides = authorities.check(row).is_ok() || (is_withdrawal && authorities.has_ever(row, Role::Runtime));
        is_doubted.fetch_or(is_withdrawal && !decides, Ordering::Relaxed);
        decides
    };
    let seen = belief::see_by(reader, tenant, id, decides).await?;
    Ok((seen, if is_doubted.into_inner() { Doubt::Withdrawn } else { Doubt::None }))
}

/// What a call wants to do, and what it says about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) owner: &'a str,
    pub(crate) mode: Mode,
    pub(crate) session: Option<&'a str>,
}

/// Why a consent does not cover a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoConsent {
    Off,
    Missing,
    Superseded,
    Revoked,
    Expired,
    Foreign,
    Session,
}

impl NoConsent {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Off => "the call's memory mode is off: nothing is remembered or recalled",
            Self::Missing => {
                "there is no consent of this user: ask the user, and record the answer first (`Memories::grant`, `logline memory consent --grant`)"
            }
            Self::Superseded => "the consent that the call cites is no longer the latest: read it again",
            Self::Revoked => "the user has withdrawn the consent",
            Self::Expired => "the consent has expired: ask the user again",
            Self::Foreign => "the consent that the call cites is of another user or session",
            Self::Session => "the mode session-only needs a session",
        }
    }
}

/// Whether `latest`, the latest version of the consent that a call cites, covers the call.
pub(crate) fn covers(asked: &Asked<'_>, cited: &Cited, latest: Option<&SignedSpan>, now: Timestamp) -> Result<(), NoConsent> {
    // A consent for one session covers that session alone, one for everything covers sessions as well.
    let general = consent_id(asked.tenant, asked.owner, None);
    let permitted = match (asked.mode, asked.session) {
        (Mode::Off, _) => return Err(NoConsent::Off),
        (Mode::SessionOnly, None) => return Err(NoConsent::Session),
        (Mode::SessionOnly, Some(session)) => [general, consent_id(asked.tenant, asked.owner, Some(session))],
        (Mode::On, _) => [general, general],
    };
    if !permitted.contains(&cited.id) {
        return Err(NoConsent::Foreign);
    }
    let latest = latest.ok_or(NoConsent::Missing)?;
    if latest.entity_type != CONSENT || latest.tenant_id != asked.tenant || latest.owner_id != asked.owner {
        return Err(NoConsent::Foreign);
    }
    if latest.status.as_deref() != Some(GRANTED) || latest.is_deleted {
        return Err(NoConsent::Revoked);
    }
    if Cited::of(latest) != *cited {
        return Err(NoConsent::Superseded);
    }
    match latest.meta("until").map(|until| until.as_str().and_then(|until| until.parse::<Timestamp>().ok())) {
        Some(Some(until)) if now < until => Ok(()),
        Some(_) => Err(NoConsent::Expired),
        None => Ok(()),
    }
}

/// Whether the consent under which a memory was kept is in force.
pub(crate) async fn is_in_force(
    reader: &Reader<'_>,
    authorities: &Authorities,
    memory: &SignedSpan,
    now: Timestamp,
) -> Result<bool, LedgerError> {
    let Ok(cited) = Cited::read(memory.meta("consent"), "consent") else { return Ok(false) };
    let Some(latest) = known_to(reader, authorities, &memory.tenant_id, cited.id).await?.0.into_version() else {
        return Ok(false);
    };
    let session = latest.meta("session_id").and_then(Value::as_str);
    let mode = if session.is_some() { Mode::SessionOnly } else { Mode::On };
    let asked = Asked { tenant: &memory.tenant_id, owner: &memory.owner_id, mode, session };
    // A consent that was given again since counts as well.
    Ok(covers(&asked, &Cited::of(&latest), Some(&latest), now).is_ok())
}
