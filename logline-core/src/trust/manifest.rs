//! The manifest: what the root keys of a ledger have decided, as a typed value.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;
use uuid::Uuid;

use crate::keys::{self, SignatureError};
use crate::roles::Role;
use crate::span::draft::Draft;
use crate::span::{SYSTEM_TENANT, SignedSpan, Span, Visibility};
use crate::trust::capability;
use crate::trust::ended::Ended;
use crate::trust::governance::Governance;
use crate::trust::limits::{Budget, Limits, Share};
use crate::value::hex::PublicKey;

/// The content of a manifest span's `metadata`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// 1 for the first manifest, then one more for each next one. It does not depend on the span's `seq`.
    pub version: u64,
    /// The root keys that must approve the next manifest.
    pub root: RootSet,
    /// Kernel ids by name, for people and tools. No check depends on it.
    #[serde(default)]
    pub kernels: BTreeMap<String, Uuid>,
    /// The kernels that Stage-0 may boot. Tenants' functions are not listed here: a publisher of their tenant signs them.
    pub allowed_boot_ids: Vec<Uuid>,
    /// Which key has which role in which tenants.
    pub authorities: Vec<Authority>,
    /// Daily quotas per tenant, and what one tenant may use of each host.
    #[serde(default)]
    pub throttle: Throttle,
    /// When an execution is slow and when it is stopped. The member is named `policy` in the metadata.
    #[serde(default, rename = "policy")]
    pub times: Times,
    /// What one execution may use. A function may set lower limits in its `metadata.limits`.
    #[serde(default)]
    pub limits: Limits,
    /// Limits of single tenants: by tenant, a JSON object with those members of `limits` that differ.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tenant_limits: BTreeMap<String, Value>,
    /// What calls to providers of models may cost in a day: by tenant, or `*` for each tenant that is not named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<String, Budget>,
    /// What functions may do besides reading and emitting, such as `provider.invoke:main/*`: by tenant, or `*` for each tenant that is
    /// not named. A function needs each capability in its own metadata as well.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capabilities: BTreeMap<String, Vec<String>>,
    /// The key that may override the daily quotas. They do not apply to a function with `metadata.force` true that this key has
    /// signed. The key must be a publisher of the function's tenant as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_pubkey_hex: Option<PublicKey>,
    /// What a quorum must approve before it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governance: Option<Governance>,
    /// Keys and rights that have ended, and where in which log. Rights that have ended stay among the authorities, as the rows of before
    /// still count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<Ended>,
    /// How long rows are kept. Recorded, not enforced by this version of the library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Value>,
    /// Members that a host must enforce. A host that does not enforce one of them refuses the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub critical: Vec<String>,
    /// Members that this version of the library does not know. They are kept and shown, not enforced.
    #[serde(skip)]
    pub unknown: Map<String, Value>,
}

/// The members that are read first. They decide whether the manifest is approved and whether it may be skipped, even if the
/// rest cannot be read.
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

/// Root keys, and how many of them must approve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootSet {
    /// The root keys. Duplicates count once.
    pub keys: Vec<PublicKey>,
    /// How many distinct keys must approve, from 1 to their number. 1 is fine for a laptop.
    pub threshold: u32,
}

/// The role of one key in some tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// The key that has the role.
    pub key: PublicKey,
    /// The role. It is never [`Role::Root`]: root keys are in [`Manifest::root`].
    pub role: Role,
    /// The tenants by name. `*` means every tenant except `system`, which must be named.
    pub tenants: Vec<String>,
}

impl Authority {
    /// Gives `key` the role `role` in `tenants`.
    pub fn new<T: Into<String>>(key: PublicKey, role: Role, tenants: impl IntoIterator<Item = T>) -> Self {
        Self { key, role, tenants: tenants.into_iter().map(Into::into).collect() }
    }

    /// Whether it applies to `tenant`.
    #[must_use]
    pub fn covers(&self, tenant: &str) -> bool {
        covers(&self.tenants, tenant)
    }
}

/// Whether a list of tenants includes `tenant`, by name or by `*`. `*` includes every tenant except `system`.
pub(crate) fn covers(tenants: &[String], tenant: &str) -> bool {
    tenants.iter().any(|t| t == tenant || (t == "*" && tenant != SYSTEM_TENANT))
}

/// Daily quotas per tenant, and what one tenant may use of each host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Throttle {
    /// Attempts per tenant and UTC day. `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_tenant_daily_exec_limit: Option<u64>,
    /// Fuel per tenant and UTC day. `None`: no limit. Fuel is counted when an attempt ends, so attempts that are running when
    /// the limit is reached may still end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_tenant_daily_fuel: Option<u64>,
    /// The highest priority of a request that a member has signed. A request with a higher one is refused. (Publishers and hosts
    /// are not limited.) `None`: members may use every priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member_max_priority: Option<u8>,
    /// Runs of one tenant at the same time on each host. Default 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_tenant_concurrent_calls: Option<u32>,
    /// Memory that the runs of one tenant may use together on each host, bytes. Default 2 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_tenant_memory_bytes: Option<u64>,
}

/// When an execution is slow and when it is stopped.
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
    /// The metadata is not a valid manifest.
    #[error("manifest is malformed: {reason}")]
    Malformed {
        /// What is wrong with the metadata.
        reason: String,
    },
    /// The root threshold is 0, or above the number of distinct root keys.
    #[error("root threshold is {threshold} of {keys} distinct keys: it must be from 1 to the number of keys")]
    Threshold {
        /// The root threshold.
        threshold: u32,
        /// How many distinct root keys there are.
        keys: usize,
    },
    /// A key is malformed, weak or not canonically encoded.
    #[error("key {key} cannot be trusted: {source}")]
    Key {
        /// The root key or authority's key that was refused.
        key: PublicKey,
        /// Why it cannot be trusted.
        source: SignatureError,
    },
    /// An authority has the role root.
    #[error("key {key} has role root among the authorities: root keys belong in `root.keys`")]
    RootAuthority {
        /// The key of the authority.
        key: PublicKey,
    },
    /// An authority names no tenant.
    #[error("key {key} has role {role} for no tenant: name its tenants")]
    NoTenant {
        /// The key of the authority.
        key: PublicKey,
        /// The role of the authority.
        role: Role,
    },
    /// A limit is too high or malformed, a tenant's share of a host is too small for one run, or the governance cannot be obeyed.
    #[error("manifest {reason}")]
    Limits {
        /// Which member it is, and what is allowed.
        reason: String,
    },
    /// It demands something that this version of the library does not enforce.
    #[error("manifest v{version} demands `{member}`, which this version of the library does not enforce: upgrade the library")]
    Critical {
        /// The manifest's version.
        version: u64,
        /// The member that is not enforced.
        member: String,
    },
    /// It takes back or moves the end of a key.
    #[error(
        "manifest v{version} takes back or moves the end of key {key}: an end stays as it is; grant the right to a new key"
    )]
    Revives {
        /// The manifest's version.
        version: u64,
        /// The key.
        key: PublicKey,
    },
    /// It leaves out a key or right of the manifest before it.
    #[error(
        "manifest v{version} leaves out {what}: what it has signed would not count any more; keep it, and end it with a member of \
         `ended`, which names a log"
    )]
    Ends {
        /// The manifest's version.
        version: u64,
        /// The key or right that is left out.
        what: String,
    },
}

/// Members that this version of the library reads and enforces. `critical` may name them.
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
    "budgets",
    "capabilities",
    "governance",
    "ended",
    "critical",
];

/// Members that this version of the library reads but does not enforce.
const RECORDED: &[&str] = &["retention"];

impl Manifest {
    /// The first manifest of a ledger, with the root keys `root`. No kernel may boot and no other key has a role yet.
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
            budgets: BTreeMap::new(),
            capabilities: BTreeMap::new(),
            override_pubkey_hex: None,
            governance: None,
            ended: Vec::new(),
            retention: None,
            critical: Vec::new(),
            unknown: Map::new(),
        }
    }

    /// Allows the kernel with the id `kernel` to boot, and records its name.
    #[must_use]
    pub fn allow(mut self, name: impl Into<String>, kernel: Uuid) -> Self {
        self.kernels.insert(name.into(), kernel);
        if !self.allowed_boot_ids.contains(&kernel) {
            self.allowed_boot_ids.push(kernel);
        }
        self
    }

    /// Allows every kernel and loop of a [`KernelSet`](crate::KernelSet) to boot.
    #[must_use]
    pub fn allow_all<N: Into<String>>(self, kernels: impl IntoIterator<Item = (N, Uuid)>) -> Self {
        kernels.into_iter().fold(self, |manifest, (name, id)| manifest.allow(name, id))
    }

    /// Gives `key` the role `role` in `tenants`.
    #[must_use]
    pub fn grant<T: Into<String>>(mut self, key: PublicKey, role: Role, tenants: impl IntoIterator<Item = T>) -> Self {
        self.authorities.push(Authority::new(key, role, tenants));
        self
    }

    /// Reads the manifest in a span's metadata.
    ///
    /// # Errors
    /// If the metadata is malformed or does not pass [`Manifest::check`]. [`Manifest::check_critical`] checks `critical`.
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

    /// Checks the root, the keys, the authorities and the limits.
    ///
    /// # Errors
    /// The first fault that was found.
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
        for (tenant, budget) in &self.budgets {
            budget.check().map_err(|reason| limits(format!("budget of `{tenant}`: {reason}")))?;
        }
        for (tenant, some) in &self.capabilities {
            let wrong = some.iter().find_map(|one| capability::check(one).err());
            wrong.map_or(Ok(()), |reason| Err(limits(format!("capabilities of `{tenant}`: {reason}"))))?;
        }
        for (tenant, some) in &self.tenant_limits {
            let of_tenant = self.limits.with(some).and_then(|all| all.check());
            of_tenant.map_err(|reason| limits(format!("tenant_limits of `{tenant}`: {reason}")))?;
        }
        for ended in &self.ended {
            ended.check().map_err(limits)?;
        }
        // Whoever has ended decides nothing any more.
        let deciding = distinct.iter().filter(|key| !self.has_ended_root(key)).count();
        if deciding < self.root.threshold as usize {
            return Err(ManifestError::Threshold { threshold: self.root.threshold, keys: deciding });
        }
        if let Some(governance) = &self.governance {
            governance.check(deciding).map_err(limits)?;
        }
        let share = self.share();
        if share.calls == 0 {
            return Err(limits("throttle.per_tenant_concurrent_calls is 0: no function could run".to_owned()));
        }
        let largest = self.tenant_limits.keys().map(|tenant| self.limits_of(tenant).memory_bytes);
        if let Some(bytes) = largest.chain([self.limits.memory_bytes]).max().filter(|bytes| *bytes > share.memory_bytes) {
            let reason = format!("throttle.per_tenant_memory_bytes is {}, below the {bytes} of one run", share.memory_bytes);
            return Err(limits(reason));
        }
        Ok(())
    }

    /// What one execution of a function of `tenant` may use, before the function's own limits are applied.
    #[must_use]
    pub fn limits_of(&self, tenant: &str) -> Limits {
        let own = self.tenant_limits.get(tenant).and_then(|some| self.limits.with(some).ok());
        let mut limits = own.unwrap_or_else(|| self.limits.clone());
        limits.timeout_ms = self.times.timeout_ms.unwrap_or(self.times.slow_ms).min(limits.timeout_ms);
        limits
    }

    /// What one execution of `function` may use: the limits of its tenant, or its own `metadata.limits` if they are lower.
    ///
    /// # Errors
    /// A text, if `metadata.limits` is not a valid object of limits.
    pub fn limits_for(&self, function: &Span) -> Result<Limits, String> {
        let allowed = self.limits_of(&function.tenant_id);
        match function.meta("limits") {
            Some(own) => Ok(allowed.with(own).map_err(|reason| format!("metadata.{reason}"))?.min(&allowed)),
            None => Ok(allowed),
        }
    }

    /// What the calls of `tenant` to providers of models may cost in a day.
    #[must_use]
    pub fn budget_of(&self, tenant: &str) -> Budget {
        self.budgets.get(tenant).or_else(|| self.budgets.get("*")).cloned().unwrap_or_default()
    }

    /// What functions of `tenant` may do besides reading and emitting.
    #[must_use]
    pub fn capabilities_of(&self, tenant: &str) -> &[String] {
        self.capabilities.get(tenant).or_else(|| self.capabilities.get("*")).map(Vec::as_slice).unwrap_or_default()
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

    /// Checks that this version of the library can enforce what the manifest demands.
    ///
    /// # Errors
    /// [`ManifestError::Critical`] with the first member of `critical` that it does not enforce, or with `promotion: required` beside
    /// `governance`, where it would have no effect.
    pub fn check_critical(&self) -> Result<(), ManifestError> {
        let refuse = |member: String| ManifestError::Critical { version: self.version, member };
        if let Some(member) = self.critical.iter().find(|m| !ENFORCED.contains(&m.as_str())) {
            return Err(refuse(member.clone()));
        }
        match self.unknown.get("promotion").and_then(Value::as_str) {
            Some("required") => Err(refuse("promotion".to_owned())),
            _ => Ok(()),
        }
    }

    /// Whether `key` decides about manifests no longer.
    #[must_use]
    pub fn has_ended_root(&self, key: &PublicKey) -> bool {
        self.ended.iter().any(|end| end.key == *key && end.ends(Role::Root, SYSTEM_TENANT))
    }

    /// Ends a key or a right.
    #[must_use]
    pub fn end(mut self, ended: Ended) -> Self {
        self.ended.push(ended);
        self
    }

    /// Checks that it keeps every root key in `previous_root`, every right in `previous` and every end in `previous_ended`.
    ///
    /// # Errors
    /// [`ManifestError::Ends`] with the first key or right that it leaves out, [`ManifestError::Revives`] with the first end.
    pub fn check_keeps(
        &self,
        previous_root: &[PublicKey],
        previous: &[Authority],
        previous_ended: &[Ended],
    ) -> Result<(), ManifestError> {
        if let Some(ended) = previous_ended.iter().find(|ended| !self.ended.contains(ended)) {
            return Err(ManifestError::Revives { version: self.version, key: ended.key });
        }
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

    /// Sets what a quorum must approve before it is in force.
    #[must_use]
    pub fn governed(mut self, governance: Governance) -> Self {
        self.governance = Some(governance);
        self
    }

    /// Drafts its span. The span is public, so that every tenant can check which manifest the hosts obey.
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

    /// Whether the daily quotas do not apply to `function`: its `metadata.force` is true, and the override key has signed it.
    #[must_use]
    pub fn is_forced(&self, function: &SignedSpan) -> bool {
        self.override_pubkey_hex == Some(function.seal.public_key) && function.meta("force") == Some(&Value::Bool(true))
    }
}

impl RootSet {
    /// A root in which `threshold` of `keys` must approve.
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
