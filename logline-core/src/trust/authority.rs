//! Whether a span's signer was allowed to sign it.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::hex::PublicKey;
use crate::roles::{self, Role};
use crate::seal::VerifiedSpan;
use crate::span::{SYSTEM_TENANT, Span, SpanKey};
use crate::trust::{Authority, Manifest};

/// The authorities of one resolved manifest.
#[derive(Debug, Clone)]
pub struct Authorities {
    manifest_id: Uuid,
    roots: BTreeSet<PublicKey>,
    grants: HashMap<PublicKey, Vec<Authority>>,
}

/// A seal by a key that does not have the role.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "span {key} of type `{entity_type}` is signed by {signer}, which {}: it takes {} of tenant `{}`",
    describe(.has), names(.needs), .key.tenant_id
)]
pub struct NotAuthorised {
    /// The span.
    pub key: SpanKey,
    /// Its type.
    pub entity_type: String,
    /// Its signer.
    pub signer: PublicKey,
    /// The roles one of which it takes.
    pub needs: &'static [Role],
    /// What the signer has.
    pub has: Vec<Authority>,
}

fn describe(has: &[Authority]) -> String {
    if has.is_empty() {
        return "the manifest does not name".to_owned();
    }
    let roles: Vec<_> = has.iter().map(|a| format!("{} of {}", a.role, a.tenants.join(", "))).collect();
    format!("is {}", roles.join("; "))
}

fn names(roles: &[Role]) -> String {
    let names: Vec<_> = roles.iter().map(|r| r.as_str()).collect();
    names.join(" or ")
}

impl Authorities {
    /// The authorities of `manifest`, whose id is `manifest_id`. `pinned` root keys count as root keys.
    #[must_use]
    pub fn new(manifest_id: Uuid, manifest: &Manifest, pinned: &[PublicKey]) -> Self {
        let mut grants: HashMap<PublicKey, Vec<Authority>> = HashMap::new();
        for authority in &manifest.authorities {
            grants.entry(authority.key).or_default().push(authority.clone());
        }
        Self { manifest_id, roots: manifest.root.keys.iter().chain(pinned).copied().collect(), grants }
    }

    /// What holds before there is a manifest: the pinned keys are root keys, and nobody has another role.
    #[must_use]
    pub fn of_root(manifest_id: Uuid, pinned: &[PublicKey]) -> Self {
        Self { manifest_id, roots: pinned.iter().copied().collect(), grants: HashMap::new() }
    }

    /// Whether the signer of `span` has a role that its type takes, in its tenant.
    ///
    /// # Errors
    /// [`NotAuthorised`], saying what it takes and what the signer has.
    pub fn check(&self, span: &VerifiedSpan) -> Result<(), Box<NotAuthorised>> {
        let needs = if self.approves_manifest(span) { &[Role::Root] } else { roles::required(span) };
        if needs.iter().any(|role| self.has(&span.seal.public_key, *role, &span.tenant_id)) {
            return Ok(());
        }
        Err(Box::new(NotAuthorised {
            key: span.key(),
            entity_type: span.entity_type.clone(),
            signer: span.seal.public_key,
            needs,
            has: self.grants.get(&span.seal.public_key).cloned().unwrap_or_default(),
        }))
    }

    /// Whether `key` has `role` in `tenant`.
    #[must_use]
    pub fn has(&self, key: &PublicKey, role: Role, tenant: &str) -> bool {
        match role {
            // Manifests live in `system`; a root key has no say elsewhere.
            Role::Root => tenant == SYSTEM_TENANT && self.roots.contains(key),
            role => self.grants.get(key).is_some_and(|g| g.iter().any(|a| a.role == role && a.covers(tenant))),
        }
    }

    fn approves_manifest(&self, span: &Span) -> bool {
        let subject = span.meta("subject");
        matches!(span.entity_type.as_str(), "approval" | "rejection")
            && subject.and_then(|s| s.get("tenant")).and_then(Value::as_str) == Some(SYSTEM_TENANT)
            && subject.and_then(|s| s.get("id")).and_then(Value::as_str) == Some(&self.manifest_id.to_string())
    }
}
