//! What the manifest demands before something is in force: its member `governance`, and what follows from it for one class in one
//! tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::roles::Role;
use crate::span::canonical;
use crate::trust::ended::Ended;
use crate::trust::governance::class::{Class, Environment};
use crate::trust::manifest::{Authority, Manifest, covers};
use crate::value::hex::{Hash, PublicKey};
use crate::value::timestamp::Timestamp;

/// The member `governance` of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Governance {
    /// Whether hosts use promoted versions and nothing else. Default: they use the last version.
    #[serde(default)]
    pub promotion: Promotion,
    /// The classes that are governed, and how many approvals each needs. What is of another class is not governed.
    pub classes: BTreeMap<Class, ClassRule>,
    /// The environments in which promotion is required. Default: all of them.
    #[serde(default = "every_environment")]
    pub environments: BTreeSet<Environment>,
    /// The tenants that are governed, by name. `*` means every tenant except `system`, which must be named. Default `["*"]`.
    #[serde(default = "every_tenant")]
    pub tenants: Vec<String>,
    /// Whether the approval of the key that made the proposal does not count.
    #[serde(default)]
    pub exclude_proposer: bool,
    /// Whether the approvals of keys do not count that have signed a version between the one in force and the proposed one. Otherwise
    /// somebody could approve what they have written themselves.
    #[serde(default)]
    pub exclude_signers: bool,
    /// How to change something at once. `None`: there is no other way than the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency: Option<Emergency>,
}

/// Whether hosts use promoted versions and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Promotion {
    /// Hosts use the last version. Promotions may be made, and nothing depends on them.
    #[default]
    Optional,
    /// In the environments and tenants that are governed, hosts use the promoted versions of governed classes, and nothing else.
    Required,
}

/// What a promotion of one class needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassRule {
    /// How many distinct keys must approve, at least 1. For the class `manifest`: of the root keys.
    pub threshold: u32,
    /// What must have passed for exactly the proposed version. Default: nothing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gates: BTreeSet<Gate>,
}

/// Something that a version must have passed. A `test_result` that a host has signed says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Gate {
    /// The kernels of a host accept it, the sandbox its code.
    Check,
    /// An evaluation of a prompt reached its gate.
    Eval,
    /// A dry run of a policy did what was expected.
    DryRun,
    /// A request in another environment ended as expected.
    Smoke,
}

/// How to change something at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emergency {
    /// How many distinct keys must approve, at least 1.
    pub threshold: u32,
    /// How long an emergency promotion is in force, in seconds, unless it is reviewed before: from 60 to 30 days.
    pub expires_s: u64,
}

impl Emergency {
    /// How long an emergency promotion is in force.
    #[must_use]
    pub fn lasts(self) -> Duration {
        Duration::from_secs(self.expires_s)
    }
}

impl Gate {
    /// Every gate.
    pub const ALL: [Self; 4] = [Self::Check, Self::Eval, Self::DryRun, Self::Smoke];

    /// The name of the gate in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Eval => "eval",
            Self::DryRun => "dry_run",
            Self::Smoke => "smoke",
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

fn every_environment() -> BTreeSet<Environment> {
    Environment::ALL.into()
}

fn every_tenant() -> Vec<String> {
    vec!["*".to_owned()]
}

impl Default for Governance {
    fn default() -> Self {
        Self {
            promotion: Promotion::default(),
            classes: BTreeMap::new(),
            environments: every_environment(),
            tenants: every_tenant(),
            exclude_proposer: false,
            exclude_signers: false,
            emergency: None,
        }
    }
}

/// The longest time for which an emergency promotion may be in force.
const MAX_EMERGENCY_S: u64 = 30 * 24 * 60 * 60;

impl Governance {
    /// Promotion is required, of no class yet. Neither a proposer nor the signers of a version may approve it.
    #[must_use]
    pub fn required() -> Self {
        Self { promotion: Promotion::Required, exclude_proposer: true, exclude_signers: true, ..Self::default() }
    }

    /// Governs a class: `threshold` distinct keys must approve.
    #[must_use]
    pub fn class(mut self, class: Class, threshold: u32) -> Self {
        self.classes.insert(class, ClassRule { threshold, gates: BTreeSet::new() });
        self
    }

    /// Adds a gate to a class that is governed.
    #[must_use]
    pub fn gate(mut self, class: Class, gate: Gate) -> Self {
        if let Some(rule) = self.classes.get_mut(&class) {
            rule.gates.insert(gate);
        }
        self
    }

    /// Allows emergency promotions.
    #[must_use]
    pub fn emergency(mut self, threshold: u32, lasts: Duration) -> Self {
        self.emergency = Some(Emergency { threshold, expires_s: lasts.as_secs() });
        self
    }

    /// Checks that it can be obeyed. `roots` is the number of root keys that may approve the next manifest.
    ///
    /// # Errors
    /// A text with the first fault.
    pub(crate) fn check(&self, roots: usize) -> Result<(), String> {
        for (class, rule) in &self.classes {
            if rule.threshold == 0 {
                return Err(format!("governance.classes.{class}.threshold is 0: it must be at least 1"));
            }
        }
        if let Some(rule) = self.classes.get(&Class::Manifest) {
            let most = roots.saturating_sub(usize::from(self.exclude_proposer));
            if rule.threshold as usize > most {
                return Err(format!(
                    "governance.classes.manifest.threshold is {} and {most} root keys may approve: no manifest could follow",
                    rule.threshold
                ));
            }
            if let Some(gate) = rule.gates.first() {
                return Err(format!("governance.classes.manifest.gates names `{gate}`: manifests have no gates"));
            }
        }
        if self.environments.is_empty() || self.tenants.is_empty() {
            return Err("governance.environments and governance.tenants must name at least one each".to_owned());
        }
        if let Some(emergency) = self.emergency {
            if emergency.threshold == 0 {
                return Err("governance.emergency.threshold is 0: it must be at least 1".to_owned());
            }
            if !(60..=MAX_EMERGENCY_S).contains(&emergency.expires_s) {
                return Err(format!("governance.emergency.expires_s must be from 60 to {MAX_EMERGENCY_S}"));
            }
        }
        Ok(())
    }

    /// Whether something of `class` in `tenant` is governed in `environment`.
    #[must_use]
    pub fn governs(&self, tenant: &str, environment: Environment, class: Class) -> bool {
        class != Class::Manifest
            && self.classes.contains_key(&class)
            && self.environments.contains(&environment)
            && covers(&self.tenants, tenant)
    }

    /// Whether hosts of `environment` use nothing of `class` in `tenant` but promoted versions.
    #[must_use]
    pub fn requires(&self, tenant: &str, environment: Environment, class: Class) -> bool {
        self.promotion == Promotion::Required && self.governs(tenant, environment, class)
    }
}

/// What a manifest that counts, or has counted, says of governance.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    /// Its number.
    pub(crate) version: u64,
    /// The hash of its span.
    pub(crate) hash: Hash,
    /// When it was made, as its signer says.
    pub(crate) at: Timestamp,
    governance: Option<Governance>,
    approvers: Vec<Authority>,
    ended: Vec<Ended>,
}

impl Past {
    pub(crate) fn of(manifest: &Manifest, hash: Hash, at: Timestamp) -> Self {
        let approvers = manifest.authorities.iter().filter(|of| of.role == Role::Approver).cloned().collect();
        Self {
            version: manifest.version,
            hash,
            at,
            governance: manifest.governance.clone(),
            approvers,
            ended: manifest.ended.clone(),
        }
    }

    /// Whether it demanded promotions of anything.
    pub(crate) fn governs_anything(&self) -> bool {
        self.governance.as_ref().is_some_and(|governance| governance.promotion == Promotion::Required)
    }

    /// As [`Governance::requires`].
    pub(crate) fn requires(&self, tenant: &str, environment: Environment, class: Class) -> bool {
        self.governance.as_ref().is_some_and(|governance| governance.requires(tenant, environment, class))
    }

    pub(crate) fn rules(&self, place: (&str, Environment, Class)) -> Option<Rules> {
        Rules::of(self.governance.as_ref()?, &self.approvers, &self.ended, place)
    }
}

/// What one manifest demands for a class in one tenant and environment, and who may approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How many distinct keys must approve.
    pub threshold: u32,
    /// What must have passed.
    pub gates: BTreeSet<Gate>,
    /// Whether the approval of the proposer does not count.
    pub exclude_proposer: bool,
    /// Whether the approvals of those who have signed versions that are not in force do not count.
    pub exclude_signers: bool,
    /// How to change something at once.
    pub emergency: Option<Emergency>,
    /// The keys that may approve.
    pub approvers: BTreeSet<PublicKey>,
}

impl Rules {
    /// The rules that follow from `governance`, where `authorities` says who may approve, and `ended` who may not any more. `None` if nothing is governed there.
    #[must_use]
    pub fn of(
        governance: &Governance,
        authorities: &[Authority],
        ended: &[Ended],
        (tenant, environment, class): (&str, Environment, Class),
    ) -> Option<Self> {
        let rule = governance.classes.get(&class).filter(|_| governance.governs(tenant, environment, class))?;
        let has_ended = |key: &PublicKey| ended.iter().any(|end| end.key == *key && end.ends(Role::Approver, tenant));
        let approvers = authorities.iter().filter(|of| of.role == Role::Approver && of.covers(tenant) && !has_ended(&of.key));
        Some(Self {
            threshold: rule.threshold,
            gates: rule.gates.clone(),
            exclude_proposer: governance.exclude_proposer,
            exclude_signers: governance.exclude_signers,
            emergency: governance.emergency,
            approvers: approvers.map(|of| of.key).collect(),
        })
    }

    /// The hash that proposals pin, so that neither the rules nor the approvers can change during a vote. It covers what these rules
    /// say and nothing else: a manifest that changes only other things voids no vote.
    #[must_use]
    pub fn pin(&self) -> Hash {
        let approvers: Vec<_> = self.approvers.iter().map(ToString::to_string).collect();
        let value = json!({
            "threshold": self.threshold,
            "gates": self.gates,
            "exclude_proposer": self.exclude_proposer,
            "exclude_signers": self.exclude_signers,
            "emergency": self.emergency,
            "approvers": approvers,
        });
        Hash::of(&canonical::to_vec(&value))
    }
}
