//! The manifest: what a ledger's root keys have decided, typed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;
use uuid::Uuid;

use crate::keys::{self, SignatureError};
use crate::roles::Role;
use crate::span::draft::Draft;
use crate::span::{SYSTEM_TENANT, SignedSpan, Span, Visibility};
use crate::trust::limits::{Limits, Share};
use crate::value::hex::PublicKey;

/// The content of a manifest span's `metadata`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// 1 for the first, then exactly one more each time, whatever the span's `seq`.
    pub version: u64,
    /// Who approves the next manifest.
    pub root: RootSet,
    /// Names of kernels, for people and tools.
    #[serde(default)]
    pub kernels: BTreeMap<String, Uuid>,
    /// The kernels that Stage-0 may boot. (Tenants' functions need their tenant's publisher, not this list.)
    pub allowed_boot_ids: Vec<Uuid>,
    /// Which key may sign what for whom.
    pub authorities: Vec<Authority>,
    /// Quotas.
    #[serde(default)]
    pub throttle: Throttle,
    /// Times of executions; `policy` in the manifest.
    #[serde(default, rename = "policy")]
    pub times: Times,
    /// What one execution may use. A function may ask for less in its `metadata.limits`.
    #[serde(default)]
    pub limits: Limits,
    /// Limits of some tenants, where they differ from `limits`: by tenant, an object of the members that differ.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tenant_limits: BTreeMap<String, Value>,
    /// The key that may override a quota: functions that it has signed (as a publisher of their tenant) with `metadata.force` true
    /// are free of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_pubkey_hex: Option<PublicKey>,
    /// Approval thresholds. Recorded, not enforced by this version of the library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governance: Option<Value>,
    /// How long to keep what. Recorded, not enforced by this version of the library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Value>,
    /// Members that a host must understand and enforce, or else refuse the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub critical: Vec<String>,
    /// Members that this version of the library does not know. They are kept and shown.
    #[serde(skip)]
    pub unknown: Map<String, Value>,
}

/// What is read of a manifest before the rest: enough to know whether it was approved, and whether it may be ignored.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ManifestHeader {
    pub(crate) version: u64,
    pub(crate) root: RootSet,
    #[serde(default)]
    pub(crate) critical: Vec<String>,
}

impl ManifestHeader {
    pub(crate) fn from_span(span: &Span) -> Result<Self, ManifestError> {
        let metadata = span.metadata.clone().unwrap_or_default();
        serde_json::from_value(metadata).map_err(|e| ManifestError::Malformed { reason: e.to_string() })
    }
}

/// A set of root keys and how many of them it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootSet {
    /// The keys.
    pub keys: Vec<PublicKey>,
    /// How many distinct ones must approve. 1 is fine for a laptop.
    pub threshold: u32,
}

/// One key's role for some tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// The key.
    pub key: PublicKey,
    /// Its role; root keys stand in [`Manifest::root`] instead.
    pub role: Role,
    /// The tenants by name. `*` means every tenant except `system`, which must be named.
    pub tenants: Vec<String>,
}

impl Authority {
    /// `key` has `role` in `tenants`.
    pub fn new<T: Into<String>>(key: PublicKey, role: Role, tenants: impl IntoIterator<Item = T>) -> Self {
        Self { key, role, tenants: tenants.into_iter().map(Into::into).collect() }
    }

    /// Whether it reaches `tenant`.
    #[must_use]
    pub fn covers(&self, tenant: &str) -> bool {
        covers(&self.tenants, tenant)
    }
}

/// Whether a list of tenants reaches `tenant`: by name, or by `*`, which is every tenant except `system`.
pub(crate) fn covers(tenants: &[String], tenant: &str) -> bool {
    tenants.iter().any(|t| t == tenant || (t == "*" && tenant != SYSTEM_TENANT))
}

/// Quotas per tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Throttle {
    /// Attempts per tenant and UTC day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_tenant_daily_exec_limit: Option<u64>,
    /// Fuel per tenant and UTC day. It is counted when attempts end: those that are under way when it is used up may still end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_tenant_daily_fuel: Option<u64>,
    /// Runs of one tenant at the same time on each host. Default 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_tenant_concurrent_calls: Option<u32>,
    /// Memory that the runs of one tenant may use together on each host, bytes. Default 2 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_tenant_memory_bytes: Option<u64>,
}

/// Times of executions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Times {
    /// A run longer than this is marked slow, milliseconds. Default 5,000.
    pub slow_ms: u64,
    /// A run longer than this is stopped, milliseconds. Default `slow_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Default for Times {
    fn default() -> Self {
        Self { slow_ms: 5_000, timeout_ms: None }
    }
}

/// Why a manifest cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The metadata is no manifest.
    #[error("manifest is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// A threshold that can never, or always, be met.
    #[error("root threshold is {threshold} of {keys} distinct keys: it must be from 1 to the number of keys")]
    Threshold {
        /// The threshold.
        threshold: u32,
        /// Distinct keys.
        keys: usize,
    },
    /// A key that must not be trusted with anything.
    #[error("key {key} cannot be trusted: {source}")]
    Key {
        /// The key.
        key: PublicKey,
        /// Why.
        source: SignatureError,
    },
    /// A root key among the authorities.
    #[error("key {key} has role root among the authorities: root keys stand in `root.keys`")]
    RootAuthority {
        /// The key.
        key: PublicKey,
    },
    /// An authority over nothing.
    #[error("key {key} has role {role} for no tenant")]
    NoTenant {
        /// The key.
        key: PublicKey,
        /// The role.
        role: Role,
    },
    /// A limit that is too high.
    #[error("manifest {reason}")]
    Limits {
        /// Which.
        reason: String,
    },
    /// Something that this library must understand and does not.
    #[error("manifest v{version} demands `{member}`, which this version of the library does not enforce: upgrade the library")]
    Critical {
        /// The manifest's version.
        version: u64,
        /// The member.
        member: String,
    },
    /// A key or right that the next manifest leaves out.
    #[error(
        "manifest v{version} ends {what}: until the transparency log exists keys and rights can be added, not ended; keep it and \
         stop using the key"
    )]
    Ends {
        /// The manifest's version.
        version: u64,
        /// Which key or right.
        what: String,
    },
}

/// Members that this version of the library reads and enforces; `critical` may name them.
const ENFORCED: &[&str] = &[
    "version",
    "root",
    "kernels",
    "allowed_boot_ids",
    "authorities",
    "throttle",
    "override_pubkey_hex",
    "policy",
    "limits",
    "tenant_limits",
    "critical",
];

/// Members that it reads and does not enforce yet.
const RECORDED: &[&str] = &["governance", "retention"];

impl Manifest {
    /// The first manifest of a ledger whose root is `root`: nothing may boot, nobody may sign.
    #[must_use]
    pub fn first(root: RootSet) -> Self {
        Self {
            version: 1,
            root,
            kernels: BTreeMap::new(),
            allowed_boot_ids: Vec::new(),
            authorities: Vec::new(),
            throttle: Throttle::default(),
            times: Times::default(),
            limits: Limits::default(),
            tenant_limits: BTreeMap::new(),
            override_pubkey_hex: None,
            governance: None,
            retention: None,
            critical: Vec::new(),
            unknown: Map::new(),
        }
    }

    /// Lets a kernel boot.
    #[must_use]
    pub fn allow(mut self, name: impl Into<String>, kernel: Uuid) -> Self {
        self.kernels.insert(name.into(), kernel);
        if !self.allowed_boot_ids.contains(&kernel) {
            self.allowed_boot_ids.push(kernel);
        }
        self
    }

    /// Lets every kernel and loop of a [`KernelSet`](crate::KernelSet) boot.
    #[must_use]
    pub fn allow_all<N: Into<String>>(self, kernels: impl IntoIterator<Item = (N, Uuid)>) -> Self {
        kernels.into_iter().fold(self, |manifest, (name, id)| manifest.allow(name, id))
    }

    /// Gives `key` a role in `tenants`.
    #[must_use]
    pub fn grant<T: Into<String>>(mut self, key: PublicKey, role: Role, tenants: impl IntoIterator<Item = T>) -> Self {
        self.authorities.push(Authority::new(key, role, tenants));
        self
    }

    /// Reads the manifest in a span's metadata.
    ///
    /// # Errors
    /// Where it is malformed or trusts what must not be trusted. `critical` is checked apart ([`Manifest::check_critical`]).
    pub fn from_span(span: &Span) -> Result<Self, ManifestError> {
        let malformed = |reason: String| ManifestError::Malformed { reason };
        let Some(metadata @ Value::Object(members)) = &span.metadata else {
            return Err(malformed("metadata is not an object".to_owned()));
        };
        let mut manifest: Self = serde_json::from_value(metadata.clone()).map_err(|e| malformed(e.to_string()))?;
        manifest.unknown = members
            .iter()
            .filter(|(name, _)| !ENFORCED.contains(&name.as_str()) && !RECORDED.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        manifest.check()?;
        Ok(manifest)
    }

    /// Holds it to what every manifest must be.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), ManifestError> {
        let distinct = self.root.distinct();
        if self.root.threshold == 0 || self.root.threshold as usize > distinct.len() {
            return Err(ManifestError::Threshold { threshold: self.root.threshold, keys: distinct.len() });
        }
        for key in distinct.iter().chain(self.authorities.iter().map(|a| &a.key)) {
            keys::check_key(key).map_err(|source| ManifestError::Key { key: *key, source })?;
        }
        for authority in &self.authorities {
            if authority.role == Role::Root {
                return Err(ManifestError::RootAuthority { key: authority.key });
            }
            if authority.tenants.is_empty() {
                return Err(ManifestError::NoTenant { key: authority.key, role: authority.role });
            }
        }
        let limits = |reason| ManifestError::Limits { reason };
        self.limits.check().map_err(limits)?;
        for (tenant, some) in &self.tenant_limits {
            let of_tenant = self.limits.with(some).and_then(|all| all.check());
            of_tenant.map_err(|reason| limits(format!("tenant_limits of `{tenant}`: {reason}")))?;
        }
        let share = self.share();
        if share.calls == 0 {
            return Err(limits("throttle.per_tenant_concurrent_calls is 0: nothing could run".to_owned()));
        }
        let largest = self.tenant_limits.keys().map(|tenant| self.limits_of(tenant).memory_bytes);
        if let Some(bytes) = largest.chain([self.limits.memory_bytes]).max().filter(|bytes| *bytes > share.memory_bytes) {
            let reason = format!("throttle.per_tenant_memory_bytes is {}, below the {bytes} of one run", share.memory_bytes);
            return Err(limits(reason));
        }
        Ok(())
    }

    /// What one execution of a tenant's function may use, before the function's own limits.
    #[must_use]
    pub fn limits_of(&self, tenant: &str) -> Limits {
        let own = self.tenant_limits.get(tenant).and_then(|some| self.limits.with(some).ok());
        let mut limits = own.unwrap_or_else(|| self.limits.clone());
        limits.timeout_ms = self.times.timeout_ms.unwrap_or(self.times.slow_ms).min(limits.timeout_ms);
        limits
    }

    /// What one execution of `function` may use: the manifest's limits of its tenant, or less where its `metadata.limits` says so.
    ///
    /// # Errors
    /// Where `metadata.limits` is no object of limits, as a text.
    pub fn limits_for(&self, function: &Span) -> Result<Limits, String> {
        let allowed = self.limits_of(&function.tenant_id);
        match function.meta("limits") {
            Some(own) => Ok(allowed.with(own).map_err(|reason| format!("metadata.{reason}"))?.min(&allowed)),
            None => Ok(allowed),
        }
    }

    /// What all runs of one tenant may use of one host at the same time.
    #[must_use]
    pub fn share(&self) -> Share {
        let usual = Share::default();
        Share {
            calls: self.throttle.per_tenant_concurrent_calls.unwrap_or(usual.calls),
            memory_bytes: self.throttle.per_tenant_memory_bytes.unwrap_or(usual.memory_bytes),
        }
    }

    /// Whether this library can do what the manifest demands.
    ///
    /// # Errors
    /// The first member of `critical` that it does not enforce, or a demand for promotion, which it cannot give yet.
    pub fn check_critical(&self) -> Result<(), ManifestError> {
        let refuse = |member: String| ManifestError::Critical { version: self.version, member };
        if let Some(member) = self.critical.iter().find(|m| !ENFORCED.contains(&m.as_str())) {
            return Err(refuse(member.clone()));
        }
        let promotion = self.governance.as_ref().and_then(|g| g.get("promotion")).or_else(|| self.unknown.get("promotion"));
        match promotion.and_then(Value::as_str) {
            Some("required") => Err(refuse("promotion: required".to_owned())),
            _ => Ok(()),
        }
    }

    /// Whether it may follow `previous`: nothing that was trusted may be left out.
    ///
    /// # Errors
    /// The first key or right that it ends.
    pub fn check_keeps(&self, previous_root: &[PublicKey], previous: &[Authority]) -> Result<(), ManifestError> {
        let ends = |what: String| ManifestError::Ends { version: self.version, what };
        if let Some(key) = previous_root.iter().find(|key| !self.root.keys.contains(key)) {
            return Err(ends(format!("root key {key}")));
        }
        for old in previous {
            let lost = old.tenants.iter().find(|tenant| {
                !self.authorities.iter().any(|new| {
                    new.key == old.key
                        && new.role == old.role
                        && (new.tenants.contains(tenant) || (*tenant != "*" && new.covers(tenant)))
                })
            });
            if let Some(tenant) = lost {
                return Err(ends(format!("role {} of key {} for tenant `{tenant}`", old.role, old.key)));
            }
        }
        Ok(())
    }

    /// Its draft: public, so that every tenant can check what the hosts obey.
    #[must_use]
    pub fn to_draft(&self, id: Uuid) -> Draft {
        let mut metadata = self.unknown.clone();
        // A struct of maps, strings and numbers always serialises.
        if let Ok(Value::Object(members)) = serde_json::to_value(self) {
            metadata.extend(members);
        }
        Draft::new("manifest")
            .id(id)
            .tenant(SYSTEM_TENANT)
            .owner(SYSTEM_TENANT)
            .who("root")
            .did("decided")
            .this("manifest")
            .name("kernel_manifest")
            .status("active")
            .visibility(Visibility::Public)
            .metadata(Value::Object(metadata))
    }

    /// Whether `function` is free of the daily quota: it says so, and the override key has signed it.
    #[must_use]
    pub fn is_forced(&self, function: &SignedSpan) -> bool {
        self.override_pubkey_hex == Some(function.seal.public_key) && function.meta("force") == Some(&Value::Bool(true))
    }
}

impl RootSet {
    /// `threshold` of `keys`.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>, threshold: u32) -> Self {
        Self { keys: keys.into_iter().collect(), threshold }
    }

    fn distinct(&self) -> BTreeSet<PublicKey> {
        self.keys.iter().copied().collect()
    }

    /// Whether enough distinct keys of this set are among `approvers`.
    #[must_use]
    pub fn is_met(&self, approvers: &BTreeSet<PublicKey>) -> bool {
        self.distinct().intersection(approvers).count() >= self.threshold.max(1) as usize
    }

    /// How many distinct keys of this set are among `approvers`.
    #[must_use]
    pub fn count(&self, approvers: &BTreeSet<PublicKey>) -> usize {
        self.distinct().intersection(approvers).count()
    }
}
