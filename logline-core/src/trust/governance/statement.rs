//! The statement that an approver signs.
//!
//! It names everything that the decision depends on, so that it is worth nothing anywhere else: not for another ledger, tenant or
//! environment, not for other content, not once something else is in force, and not after its end. The reviewers of memories sign the
//! same.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::keys::{SignError, SignatureError, Signer, Verifier, dsse};
use crate::span::canonical;
use crate::span::draft::Draft;
use crate::span::rules::MAX_NAME_BYTES;
use crate::span::seal::VerifiedSpan;
use crate::trust::governance::class::{Class, Environment};
use crate::value::hex::{Hash, PublicKey, Signature};
use crate::value::timestamp::Timestamp;

/// The member of a span's metadata that holds a signed statement.
pub const MEMBER: &str = "statement";

/// What an approver has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The content may be put in force. It stands in a span of type `approval`.
    Approve,
    /// It may not. It stands in a span of type `rejection`.
    Reject,
}

impl Decision {
    /// The type of the span in which the statement stands.
    #[must_use]
    pub fn entity_type(self) -> &'static str {
        match self {
            Self::Approve => "approval",
            Self::Reject => "rejection",
        }
    }
}

/// What an approver says about one version of one span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The ledger: the hash of its first manifest ([`Trusted::ledger`](crate::trust::Trusted::ledger)). The manifest's id would not do,
    /// as most ledgers have the same.
    pub ledger: Hash,
    /// The tenant of the subject.
    pub tenant: String,
    /// Where the content shall be in force.
    pub environment: Environment,
    /// What the subject is.
    pub class: Class,
    /// The subject's id.
    pub subject: Uuid,
    /// The proposal that is decided about; `None` if the subject itself asks for the decision, as memories do.
    pub proposal: Option<Uuid>,
    /// The hash of the version that is in force and would be replaced; `None` if there is none. If another one is in force by the
    /// time the votes are counted, the statement does not count.
    pub replaces: Option<Hash>,
    /// The hash of the version that is decided about.
    pub approves: Hash,
    /// What is decided.
    pub decision: Decision,
    /// The end, exclusive, by the ledger's clock: at this time the statement does not count any more.
    pub expires: Timestamp,
}

/// A statement, and the signature of the key that stands for it. Its signature is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStatement {
    statement: Statement,
    key: PublicKey,
    signature: Signature,
}

/// Why a span holds no statement that counts. A retry cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StatementError {
    /// The metadata has no signed statement, or it is not written as it must be.
    #[error("the statement is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The statement is for an other kind of span.
    #[error("a span of type `{found}` cannot hold this decision, it belongs in one of type `{expected}`")]
    EntityType {
        /// The type of the span.
        found: String,
        /// The type that the decision demands.
        expected: &'static str,
    },
    /// The span stands in another tenant than the statement names.
    #[error("the statement is for tenant `{named}`, and its span is in another")]
    Tenant {
        /// The tenant that the statement names.
        named: String,
    },
    /// The span is sealed by another key than the statement.
    #[error("the statement is signed by {signed}, and its span is sealed by {sealed}: an approver brings only their own")]
    Key {
        /// The key of the statement.
        signed: PublicKey,
        /// The key of the span.
        sealed: PublicKey,
    },
    /// The span is a later version, or hidden: only a first version decides, and it cannot be changed.
    #[error("only the first version of a decision counts")]
    NotFirst,
    /// The signature does not match.
    #[error("statement of {key}: {source}")]
    Signature {
        /// The key that is named.
        key: PublicKey,
        /// What is wrong.
        source: SignatureError,
    },
}

/// The statement as it stands in metadata.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    statement: Value,
    public_key: PublicKey,
    signature: Signature,
}

impl Statement {
    /// The bytes whose [PAE](dsse::pae) is signed, with the type [`dsse::APPROVAL`]: the statement in RFC 8785's canonical form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical::to_vec(&self.to_value())
    }

    /// Reads a statement. It must be written exactly as [`Statement::to_value`] writes it.
    ///
    /// # Errors
    /// [`StatementError::Malformed`], with what is wrong.
    pub fn parse(value: &Value) -> Result<Self, StatementError> {
        let malformed = |reason: String| StatementError::Malformed { reason };
        let statement: Self = serde_json::from_value(value.clone()).map_err(|error| malformed(error.to_string()))?;
        if statement.tenant.is_empty() || statement.tenant.len() > MAX_NAME_BYTES {
            return Err(malformed(format!("`tenant` must have 1 to {MAX_NAME_BYTES} bytes")));
        }
        if statement.to_value() != *value {
            return Err(malformed("a value is not written in its canonical form, or a member is missing".to_owned()));
        }
        Ok(statement)
    }

    /// The statement as JSON.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let text = |hash: Option<Hash>| hash.map(|hash| hash.to_string());
        json!({
            "ledger": self.ledger.to_string(),
            "tenant": self.tenant,
            "environment": self.environment.as_str(),
            "class": self.class.as_str(),
            "subject": self.subject.to_string(),
            "proposal": self.proposal.map(|id| id.to_string()),
            "replaces": text(self.replaces),
            "approves": self.approves.to_string(),
            "decision": match self.decision {
                Decision::Approve => "approve",
                Decision::Reject => "reject",
            },
            "expires": self.expires.to_string(),
        })
    }

    /// Signs the statement.
    ///
    /// # Errors
    /// If the signer fails, or its signature is not valid.
    pub async fn sign(self, signer: &dyn Signer) -> Result<SignedStatement, SignError> {
        let (key, message) = (signer.public_key(), dsse::pae(dsse::APPROVAL, &self.to_bytes()));
        let signature = signer.sign(&message).await?;
        Verifier::new().verify(&key, &message, &signature).map_err(|error| SignError {
            public_key: key,
            reason: error.to_string(),
            retryable: false,
        })?;
        Ok(SignedStatement { statement: self, key, signature })
    }
}

impl SignedStatement {
    /// What is said.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The key that stands for it.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Reads the value that [`SignedStatement::to_value`] writes, and verifies its signature.
    ///
    /// # Errors
    /// If it is malformed, or the signature does not match.
    pub fn parse(value: &Value, verifier: &mut Verifier) -> Result<Self, StatementError> {
        let envelope: Envelope =
            serde_json::from_value(value.clone()).map_err(|error| StatementError::Malformed { reason: error.to_string() })?;
        let statement = Statement::parse(&envelope.statement)?;
        let (key, message) = (envelope.public_key, dsse::pae(dsse::APPROVAL, &statement.to_bytes()));
        let signature = envelope.signature;
        verifier.verify(&key, &message, &signature).map_err(|source| StatementError::Signature { key, source })?;
        Ok(Self { statement, key, signature })
    }

    /// The statement that a span of type `approval` or `rejection` holds.
    ///
    /// Whether its key may decide is not checked here: that depends on the manifest.
    ///
    /// # Errors
    /// If there is none, it does not belong in this span, or it is signed by another key than the span.
    pub fn of(span: &VerifiedSpan, verifier: &mut Verifier) -> Result<Self, StatementError> {
        let missing = || StatementError::Malformed { reason: format!("metadata has no member `{MEMBER}`") };
        if span.prev_hash.is_some() || span.is_deleted {
            return Err(StatementError::NotFirst);
        }
        let signed = Self::parse(span.meta(MEMBER).ok_or_else(missing)?, verifier)?;
        let expected = signed.statement.decision.entity_type();
        if span.entity_type != expected {
            return Err(StatementError::EntityType { found: span.entity_type.clone(), expected });
        }
        if span.tenant_id != signed.statement.tenant {
            return Err(StatementError::Tenant { named: signed.statement.tenant });
        }
        if span.seal.public_key != signed.key {
            return Err(StatementError::Key { signed: signed.key, sealed: span.seal.public_key });
        }
        Ok(signed)
    }

    /// The statement with its key and signature, as it stands in metadata.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({
            "statement": self.statement.to_value(),
            "public_key": self.key.to_string(),
            "signature": self.signature.to_string(),
        })
    }

    /// Drafts the span that holds the statement. Its approver seals it, with the key that has signed the statement. Its parent is the
    /// proposal, or the subject if there is none.
    #[must_use]
    pub fn to_draft(&self, owner: &str) -> Draft {
        let Statement { tenant, class, subject, proposal, decision, .. } = &self.statement;
        Draft::new(decision.entity_type())
            .tenant(tenant)
            .owner(owner)
            .visibility(crate::span::Visibility::Tenant)
            .who("approver")
            .did(match decision {
                Decision::Approve => "approved",
                Decision::Reject => "rejected",
            })
            .this(format!("{class}.{subject}"))
            .parent(proposal.unwrap_or(*subject))
            .related([*subject])
            .status("complete")
            .meta(MEMBER, self.to_value())
    }
}
