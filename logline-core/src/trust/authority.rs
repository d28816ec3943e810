//! Whether a span's signer was allowed to sign it.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::roles::{self, Role};
use crate::span::seal::VerifiedSpan;
use crate::span::{SYSTEM_TENANT, Span, SpanKey};
use crate::trust::{Authority, Delegation, Manifest};
use crate::value::hex::PublicKey;
use crate::value::timestamp::Timestamp;

/// The authorities of one resolved manifest.
#[derive(Debug, Clone)]
pub struct Authorities {
    manifest_id: Uuid,
    roots: BTreeSet<PublicKey>,
    grants: HashMap<PublicKey, Vec<Authority>>,
    delegations: HashMap<PublicKey, Vec<Delegation>>,
}

/// A seal by a key that does not have the role.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "span {key} of type `{entity_type}` is signed by {signer}, which {}: it takes {} of tenant `{}` at {at}",
    describe(.has, .delegated), names(.needs), .key.tenant_id
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
    /// When: the span's time, or the host's where that is what was held against it.
    pub at: Timestamp,
    /// What the signer has by the manifest.
    pub has: Vec<Authority>,
    /// What it has had by delegation; the last one.
    pub delegated: Option<Delegation>,
}

fn describe(has: &[Authority], delegated: &Option<Delegation>) -> String {
    let named = has.iter().map(|a| format!("{} of {}", a.role, a.tenants.join(", ")));
    let delegated = delegated.iter().map(|d| {
        format!(
            "by delegation runtime of {} from {} until {} (renew it in time)",
            d.tenants.join(", "),
            d.not_before,
            d.expires
        )
    });
    let roles: Vec<_> = named.chain(delegated).collect();
    if roles.is_empty() {
        return "neither the manifest nor a delegation names".to_owned();
    }
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
        let roots = manifest.root.keys.iter().chain(pinned).copied().collect();
        Self { manifest_id, roots, grants, delegations: HashMap::new() }
    }

    /// What holds before there is a manifest: the pinned keys are root keys, and nobody has another role.
    #[must_use]
    pub fn of_root(manifest_id: Uuid, pinned: &[PublicKey]) -> Self {
        let roots = pinned.iter().copied().collect();
        Self { manifest_id, roots, grants: HashMap::new(), delegations: HashMap::new() }
    }

    /// Takes a delegation into account, if its signer could give what it gives. Says whether it did.
    pub fn delegate(&mut self, span: &VerifiedSpan) -> bool {
        let Some(delegation) = Delegation::from_span(span) else { return false };
        if self.not_delegable(&span.seal.public_key, &delegation).is_some() {
            return false;
        }
        let of_key = self.delegations.entry(delegation.key).or_default();
        if !of_key.contains(&delegation) {
            of_key.push(delegation);
        }
        true
    }

    /// The first tenant of `delegation` that `signer` cannot delegate for. The manifest itself must name the signer: what was
    /// delegated is not passed on.
    pub(crate) fn not_delegable<'d>(&self, signer: &PublicKey, delegation: &'d Delegation) -> Option<&'d str> {
        let is_runtime = |tenant: &str| self.granted(signer, Role::Runtime, tenant);
        let tenants = delegation.tenants.iter().map(String::as_str);
        std::iter::once(SYSTEM_TENANT).chain(tenants).find(|tenant| !is_runtime(tenant))
    }

    /// Whether the signer of `span` has a role that its type takes, in its tenant and at its time.
    ///
    /// That is what can be said about a row whenever it is found. Before a host appends, it also holds the signer to the time that
    /// it is: [`Authorities::check_now`].
    ///
    /// # Errors
    /// [`NotAuthorised`], saying what it takes and what the signer has.
    pub fn check(&self, span: &VerifiedSpan) -> Result<(), Box<NotAuthorised>> {
        let needs = if self.approves_manifest(span) { &[Role::Root] } else { roles::required(span) };
        self.check_at(span, needs, span.at)
    }

    /// As [`Authorities::check`], and the signer has the role now as well: an expired delegation does not sign by dating back.
    ///
    /// # Errors
    /// [`NotAuthorised`].
    pub fn check_now(&self, span: &VerifiedSpan, now: Timestamp) -> Result<(), Box<NotAuthorised>> {
        self.check(span)?;
        if !self.delegations.contains_key(&span.seal.public_key) {
            return Ok(());
        }
        let needs = if self.approves_manifest(span) { &[Role::Root] } else { roles::required(span) };
        self.check_at(span, needs, now)
    }

    fn check_at(&self, span: &VerifiedSpan, needs: &'static [Role], at: Timestamp) -> Result<(), Box<NotAuthorised>> {
        let signer = span.seal.public_key;
        if needs.iter().any(|role| self.has(&signer, *role, &span.tenant_id, at)) {
            return Ok(());
        }
        Err(Box::new(NotAuthorised {
            key: span.key(),
            entity_type: span.entity_type.clone(),
            signer,
            needs,
            at,
            has: self.grants.get(&signer).cloned().unwrap_or_default(),
            delegated: self.delegations.get(&signer).and_then(|d| d.iter().max_by_key(|d| d.expires)).cloned(),
        }))
    }

    /// Whether `key` has `role` in `tenant` for what is dated `at`.
    #[must_use]
    pub fn has(&self, key: &PublicKey, role: Role, tenant: &str, at: Timestamp) -> bool {
        let delegated = || self.delegations.get(key).is_some_and(|d| d.iter().any(|d| d.covers(tenant, at)));
        self.granted(key, role, tenant) || (role == Role::Runtime && delegated())
    }

    /// Whether the manifest, or for root keys also the trust root, gives `key` the role.
    fn granted(&self, key: &PublicKey, role: Role, tenant: &str) -> bool {
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
