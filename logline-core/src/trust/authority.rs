//! Checks whether the signer of a span was allowed to sign it.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::ledger::Tenants;
use crate::roles::{self, Role};
use crate::span::seal::VerifiedSpan;
use crate::span::{SYSTEM_TENANT, SignedSpan, Span, SpanKey};
use crate::trust::manifest::covers;
use crate::trust::{Authority, Delegation, Ends, Manifest};
use crate::value::hex::{Hash, PublicKey};
use crate::value::timestamp::Timestamp;

/// Which key may sign what, according to one resolved manifest and the delegations in the ledger.
#[derive(Debug, Clone)]
pub struct Authorities {
    manifest_id: Uuid,
    roots: BTreeSet<PublicKey>,
    grants: HashMap<PublicKey, Vec<Authority>>,
    delegations: HashMap<PublicKey, Vec<Delegation>>,
    candidates: Vec<Candidate>,
    ends: Ends,
}

/// A version of the manifest that a root key has sealed and that needs more approvals.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// The hash of that version.
    pub(crate) hash: Hash,
    /// The root keys that it names. They may approve this version and no other.
    pub(crate) keys: Vec<PublicKey>,
}

/// The signer of a span does not have a role that the span's type needs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "span {key} of type `{entity_type}` is signed by {signer}, which {}: the signer must be {} of tenant `{}` at {at}",
    describe(.has, .delegated, *.has_ended), names(.needs), .key.tenant_id
)]
pub struct NotAuthorised {
    /// The span that was checked.
    pub key: SpanKey,
    /// The type of that span.
    pub entity_type: String,
    /// The key that sealed it.
    pub signer: PublicKey,
    /// The signer must have one of these roles.
    pub needs: &'static [Role],
    /// When the signer must have it: the span's `at`, or the host's time in [`Authorities::check_now`].
    pub at: Timestamp,
    /// The roles that the manifest gives the signer.
    pub has: Vec<Authority>,
    /// The signer's delegation that expires last; `None` if the signer has no delegation.
    pub delegated: Option<Delegation>,
    /// Whether the signer's right has ended, and no log shows that the span is older.
    pub has_ended: bool,
}

fn describe(has: &[Authority], delegated: &Option<Delegation>, has_ended: bool) -> String {
    if has_ended {
        return "has ended, and no log shows that the span is older than that".to_owned();
    }
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
    /// The authorities of `manifest`, without the ends of keys. Its span has the id `manifest_id`. The `pinned` keys count as root keys as well.
    #[must_use]
    pub fn new(manifest_id: Uuid, manifest: &Manifest, pinned: &[PublicKey]) -> Self {
        let mut grants: HashMap<PublicKey, Vec<Authority>> = HashMap::new();
        for authority in &manifest.authorities {
            grants.entry(authority.key).or_default().push(authority.clone());
        }
        let roots = manifest.root.keys.iter().chain(pinned).copied().collect();
        let (delegations, candidates, ends) = (HashMap::new(), Vec::new(), Ends::default());
        Self { manifest_id, roots, grants, delegations, candidates, ends }
    }

    /// Adds the ends of keys.
    pub(crate) fn ends(mut self, ends: Ends) -> Self {
        self.ends = ends;
        self
    }

    /// Adds the versions of the manifest that wait for approvals.
    pub(crate) fn candidates(mut self, candidates: Vec<Candidate>) -> Self {
        self.candidates = candidates;
        self
    }

    /// The authorities before the first manifest: the pinned keys are root keys, and no key has another role.
    #[must_use]
    pub fn of_root(manifest_id: Uuid, pinned: &[PublicKey]) -> Self {
        let roots = pinned.iter().copied().collect();
        let (grants, delegations) = (HashMap::new(), HashMap::new());
        Self { manifest_id, roots, grants, delegations, candidates: Vec::new(), ends: Ends::default() }
    }

    /// Adds the delegation in `span` if its signer may give it. Returns false if it is not a delegation, the signer may not, or it is
    /// known already.
    pub fn delegate(&mut self, span: &VerifiedSpan) -> bool {
        let Some(delegation) = Delegation::from_span(span) else { return false };
        if self.not_delegable(&span.seal.public_key, &delegation).is_some() || !self.ends.is_before(span, Role::Runtime) {
            return false;
        }
        let of_key = self.delegations.entry(delegation.key).or_default();
        if of_key.contains(&delegation) {
            return false;
        }
        of_key.push(delegation);
        true
    }

    /// The first tenant for which `signer` cannot give `delegation`; `None` if it can give all of it. The manifest itself must
    /// name the signer: a delegated key cannot delegate.
    pub(crate) fn not_delegable<'d>(&self, signer: &PublicKey, delegation: &'d Delegation) -> Option<&'d str> {
        let is_runtime = |tenant: &str| self.granted(signer, Role::Runtime, tenant);
        let tenants = delegation.tenants.iter().map(String::as_str);
        std::iter::once(SYSTEM_TENANT).chain(tenants).find(|tenant| !is_runtime(tenant))
    }

    /// As [`Authorities::not_delegable`], for a new delegation: the signer's right must not have ended.
    pub(crate) fn not_delegable_now<'d>(&self, signer: &PublicKey, delegation: &'d Delegation) -> Option<&'d str> {
        let tenants = std::iter::once(SYSTEM_TENANT).chain(delegation.tenants.iter().map(String::as_str));
        let mut ended = tenants.filter(|tenant| self.ends.has_ended(signer, Role::Runtime, tenant));
        self.not_delegable(signer, delegation).or_else(|| ended.next())
    }

    /// Checks that the signer of `span` has a role that the span's type needs, in the span's tenant and at the span's `at`.
    ///
    /// It does not depend on when the check is made. Before a host appends a span, it also checks the signer at the current
    /// time: [`Authorities::check_now`].
    ///
    /// # Errors
    /// [`NotAuthorised`], with the roles that are needed and the roles that the signer has.
    pub fn check(&self, span: &VerifiedSpan) -> Result<(), Box<NotAuthorised>> {
        let needs = if self.approves_manifest(span) { &[Role::Root] } else { roles::required(span) };
        self.check_at(span, needs, span.at)
    }

    /// As [`Authorities::check`]; the signer must also have the role at `now`. So a host whose delegation has expired cannot
    /// sign by dating a span back.
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
        if needs.iter().any(|role| self.had(span, *role, at)) || self.approves_candidate(span) {
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
            has_ended: needs.iter().any(|role| self.held(&signer, *role, &span.tenant_id, at)),
        }))
    }

    /// Whether `key` has `role` in `tenant` for a new span dated `at`. It does not if the right has ended.
    #[must_use]
    pub fn has(&self, key: &PublicKey, role: Role, tenant: &str, at: Timestamp) -> bool {
        self.held(key, role, tenant, at) && !self.ends.has_ended(key, role, tenant)
    }

    /// Whether the signer of a stored span had `role` when it was signed: by the span's `at`, and if the right has ended, by the log.
    #[must_use]
    pub fn had_role(&self, span: &SignedSpan, role: Role) -> bool {
        self.had(span, role, span.at)
    }

    /// Whether the manifest or a delegation gives the signer of a span `role` in the span's tenant, at whatever time, and also if the right
    /// has ended. It gives no right: it is for rows that take one away, such as the withdrawal of a consent.
    #[must_use]
    pub fn has_ever(&self, span: &SignedSpan, role: Role) -> bool {
        let (key, tenant) = (&span.seal.public_key, span.tenant_id.as_str());
        let delegated = || self.delegations.get(key).is_some_and(|given| given.iter().any(|of| covers(&of.tenants, tenant)));
        self.granted(key, role, tenant) || (role == Role::Runtime && delegated())
    }

    fn had(&self, span: &SignedSpan, role: Role, at: Timestamp) -> bool {
        self.held(&span.seal.public_key, role, &span.tenant_id, at) && self.ends.is_before(span, role)
    }

    /// As [`Authorities::has`], if no right had ended.
    fn held(&self, key: &PublicKey, role: Role, tenant: &str, at: Timestamp) -> bool {
        let delegated = || self.delegations.get(key).is_some_and(|d| d.iter().any(|d| d.covers(tenant, at)));
        self.granted(key, role, tenant) || (role == Role::Runtime && delegated())
    }

    /// The tenants, except `system`, in which `key` has the role runtime at the time `at`.
    pub(crate) fn runtime_tenants(&self, key: &PublicKey, at: Timestamp) -> Tenants {
        if self.ends.has_ended(key, Role::Runtime, "*") {
            return Tenants::Only(BTreeSet::new());
        }
        let granted = self.grants.get(key).into_iter().flatten().filter(|authority| authority.role == Role::Runtime);
        let delegated = self.delegations.get(key).into_iter().flatten().filter(|delegation| delegation.is_valid_at(at));
        let names =
            granted.flat_map(|authority| &authority.tenants).chain(delegated.flat_map(|delegation| &delegation.tenants));
        let has_ended = |name: &str| self.ends.has_ended(key, Role::Runtime, name);
        let names: BTreeSet<String> = names.filter(|name| *name != SYSTEM_TENANT && !has_ended(name)).cloned().collect();
        if names.contains("*") { Tenants::All } else { Tenants::Only(names) }
    }

    /// Whether the manifest gives `key` the role, without delegations. Keys of the trust root have the role root as well.
    fn granted(&self, key: &PublicKey, role: Role, tenant: &str) -> bool {
        match role {
            // Manifests are in tenant `system`. A root key has no rights in other tenants.
            Role::Root => tenant == SYSTEM_TENANT && self.roots.contains(key),
            role => self.grants.get(key).is_some_and(|g| g.iter().any(|a| a.role == role && a.covers(tenant))),
        }
    }

    /// Whether `span` approves a version of the manifest that waits for approvals and names the signer as a root key.
    fn approves_candidate(&self, span: &VerifiedSpan) -> bool {
        let approved = || span.meta("subject")?.get("curr_hash")?.as_str()?.parse::<Hash>().ok();
        span.tenant_id == SYSTEM_TENANT
            && self.approves_manifest(span)
            && approved()
                .is_some_and(|hash| self.candidates.iter().any(|of| of.hash == hash && of.keys.contains(&span.seal.public_key)))
    }

    fn approves_manifest(&self, span: &Span) -> bool {
        let subject = span.meta("subject");
        matches!(span.entity_type.as_str(), "approval" | "rejection")
            && subject.and_then(|s| s.get("tenant")).and_then(Value::as_str) == Some(SYSTEM_TENANT)
            && subject.and_then(|s| s.get("id")).and_then(Value::as_str) == Some(&self.manifest_id.to_string())
    }
}
