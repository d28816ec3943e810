//! A proposal: what shall be put in force, where, instead of what, under which rules, and until when it may be approved.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::span::draft::Draft;
use crate::span::seal::VerifiedSpan;
use crate::span::{SignedSpan, Visibility, canonical};
use crate::trust::governance::class::{Class, Environment};
use crate::value::hex::{Hash, PublicKey};
use crate::value::ids;
use crate::value::timestamp::Timestamp;

/// The member of a proposal's metadata that holds it.
const MEMBER: &str = "proposal";

/// The most bytes of a reason.
pub const MAX_REASON_BYTES: usize = 4096;

/// What a promotion does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Act {
    /// Puts a newer version in force than the one that is.
    Promote,
    /// Puts a version in force again that was in force before.
    Rollback,
}

/// One version of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// The span's id.
    pub id: Uuid,
    /// The number of the version.
    pub seq: u32,
    /// Its hash.
    pub curr_hash: Hash,
}

impl Version {
    /// The version that `span` is.
    #[must_use]
    pub fn of(span: &SignedSpan) -> Self {
        Self { id: span.id, seq: span.seq, curr_hash: span.seal.curr_hash }
    }
}

/// What a proposal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// What shall be done.
    pub act: Act,
    /// Where.
    pub environment: Environment,
    /// What the subject is.
    pub class: Class,
    /// The version that shall be in force.
    pub subject: Version,
    /// The hash of the version that is in force now; `None` if there is none.
    pub replaces: Option<Hash>,
    /// [`Rules::pin`](crate::trust::governance::Rules::pin) of the rules under which it was made.
    pub rules: Hash,
    /// The end, exclusive, by the ledger's clock.
    pub expires: Timestamp,
    /// Why it is an emergency; `None` if it is none.
    pub emergency: Option<String>,
    /// Why it is proposed, for those who approve.
    pub reason: Option<String>,
}

/// A proposal as it stands in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// Its id, which follows from its content and its proposer.
    pub id: Uuid,
    /// The hash of its span.
    pub curr_hash: Hash,
    /// The tenant of its subject.
    pub tenant: String,
    /// The key that proposes.
    pub proposer: PublicKey,
    /// What is proposed.
    pub proposal: Proposal,
}

impl Proposal {
    /// The id of this proposal by `proposer`. As it follows from the content, an approval that names the id approves nothing else.
    #[must_use]
    pub fn id(&self, tenant: &str, proposer: &PublicKey) -> Uuid {
        let content = Hash::of(&canonical::to_vec(&self.to_value()));
        ids::derive("proposal", &[tenant, &content.to_string(), &proposer.to_string()])
    }

    /// The proposal as JSON.
    #[must_use]
    pub fn to_value(&self) -> Value {
        // A struct of texts and numbers always serialises.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Drafts its span. `proposer` is the publisher's key that will seal it.
    #[must_use]
    pub fn to_draft(&self, tenant: &str, owner: &str, proposer: &PublicKey) -> Draft {
        Draft::new("proposal")
            .id(self.id(tenant, proposer))
            .tenant(tenant)
            .owner(owner)
            .visibility(Visibility::Tenant)
            .who("publisher")
            .did("proposed")
            .this(format!("{}.{}", self.class, self.subject.id))
            .parent(self.subject.id)
            .related([self.subject.id])
            .status("open")
            .metadata(json!({ MEMBER: self.to_value() }))
    }
}

impl Proposed {
    /// Reads the proposal in a span.
    ///
    /// # Errors
    /// A text with what is wrong.
    pub fn of(span: &VerifiedSpan) -> Result<Self, String> {
        if span.entity_type != "proposal" || span.prev_hash.is_some() || span.is_deleted {
            return Err("it is not the first version of a proposal".to_owned());
        }
        let value = span.meta(MEMBER).ok_or_else(|| format!("metadata has no member `{MEMBER}`"))?;
        let proposal: Proposal = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
        if proposal.to_value() != *value {
            return Err("the proposal is not written in its canonical form".to_owned());
        }
        let is_long = |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > MAX_REASON_BYTES);
        if is_long(&proposal.reason) || is_long(&proposal.emergency) {
            return Err(format!("a reason may have {MAX_REASON_BYTES} bytes"));
        }
        if proposal.emergency.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
            return Err("an emergency needs a reason".to_owned());
        }
        let proposer = span.seal.public_key;
        if span.id != proposal.id(&span.tenant_id, &proposer) {
            return Err("its id does not follow from its content and its signer".to_owned());
        }
        Ok(Self { id: span.id, curr_hash: span.seal.curr_hash, tenant: span.tenant_id.clone(), proposer, proposal })
    }

    /// Drafts the span with which a publisher takes the proposal back.
    #[must_use]
    pub fn withdrawal(&self, owner: &str, reason: Option<&str>) -> Draft {
        Draft::new("withdrawal")
            .id(ids::derive("withdrawal", &[&self.tenant, &self.id.to_string()]))
            .tenant(&self.tenant)
            .owner(owner)
            .visibility(Visibility::Tenant)
            .who("publisher")
            .did("withdrew")
            .this(format!("proposal.{}", self.id))
            .parent(self.id)
            .related([self.id, self.proposal.subject.id])
            .status("complete")
            .metadata(json!({"withdrawal": {"proposal": self.id.to_string(), "reason": reason}}))
    }
}
