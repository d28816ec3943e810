//! Sealing and verifying: the only two ways to a [`VerifiedSpan`].

use std::ops::Deref;

use thiserror::Error;

use crate::keys::dsse;
use crate::keys::{KeyPair, SignError, SignatureError, Signer, Verifier};
use crate::span::canonical;
use crate::span::draft::Draft;
use crate::span::rules::{self, InvalidSpan, Rules};
use crate::span::{Seal, SignedSpan, Span};
use crate::value::hex::{Hash, PublicKey, Signature};

/// A row whose rules, hash and signature hold. Whether its signer was *allowed* to sign it is for
/// [`Authorities`](crate::trust::Authorities) to say.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedSpan(SignedSpan);

/// A row whose seal does not hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// The row.
    pub span: SignedSpan,
    /// The first check that failed.
    pub error: VerifyError,
}

/// Why a draft could not be sealed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The draft breaks an input rule.
    #[error("draft cannot be sealed: {0}")]
    Invalid(#[from] InvalidSpan),
    /// The signer failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The signer returned something that is not its signature.
    #[error("signer {public_key} returned a wrong signature: {source}")]
    WrongSignature {
        /// The key that was asked.
        public_key: PublicKey,
        /// What is wrong with the signature.
        source: SignatureError,
    },
}

/// Why a row is not what its seal says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The columns break an input rule, so no seal over them counts.
    #[error(transparent)]
    Invalid(#[from] InvalidSpan),
    /// The columns are not the ones that were hashed.
    #[error("content was changed: curr_hash is {stored}, the content hashes to {computed}")]
    HashMismatch {
        /// `curr_hash` as stored.
        stored: Hash,
        /// The hash of what is there.
        computed: Hash,
    },
    /// The signature does not count.
    #[error("signature of key {public_key} does not count: {source}")]
    Signature {
        /// The claimed signer.
        public_key: PublicKey,
        /// Why.
        source: SignatureError,
    },
}

impl Draft {
    /// Seals under the default rules with any signer.
    ///
    /// # Errors
    /// The first input rule that the draft breaks, or the signer's failure.
    pub async fn seal(self, signer: &dyn Signer) -> Result<VerifiedSpan, SealError> {
        self.seal_within(signer, &Rules::default()).await
    }

    /// Seals under `rules` with any signer.
    ///
    /// # Errors
    /// As [`Draft::seal`].
    pub async fn seal_within(self, signer: &dyn Signer, rules: &Rules) -> Result<VerifiedSpan, SealError> {
        if let Some(key) = signer.local() {
            return self.seal_local_within(key, rules);
        }
        let public_key = signer.public_key();
        let unsealed = Unsealed::new(self, public_key, rules)?;
        let signature = signer.sign(&unsealed.message).await?;
        Verifier::new()
            .verify(&public_key, &unsealed.message, &signature)
            .map_err(|source| SealError::WrongSignature { public_key, source })?;
        Ok(unsealed.with(signature))
    }

    /// Seals under the default rules with a key of this process, without leaving the thread.
    ///
    /// # Errors
    /// The first input rule that the draft breaks.
    pub fn seal_local(self, key: &KeyPair) -> Result<VerifiedSpan, SealError> {
        self.seal_local_within(key, &Rules::default())
    }

    fn seal_local_within(self, key: &KeyPair, rules: &Rules) -> Result<VerifiedSpan, SealError> {
        let unsealed = Unsealed::new(self, key.public_key(), rules)?;
        let signature = key.sign_now(&unsealed.message);
        Ok(unsealed.with(signature))
    }
}

/// A span on its way to a seal.
struct Unsealed {
    span: Span,
    public_key: PublicKey,
    curr_hash: Hash,
    message: Vec<u8>,
}

impl Unsealed {
    fn new(draft: Draft, public_key: PublicKey, rules: &Rules) -> Result<Self, InvalidSpan> {
        let span = draft.into_span()?;
        let curr_hash = Hash::of(&canonical::payload_within(&span, &public_key, rules)?);
        Ok(Self { span, public_key, curr_hash, message: dsse::pae(dsse::SPAN, curr_hash.as_bytes()) })
    }

    fn with(self, signature: Signature) -> VerifiedSpan {
        let seal = Seal { curr_hash: self.curr_hash, signature, public_key: self.public_key };
        VerifiedSpan(SignedSpan { span: self.span, seal })
    }
}

impl SignedSpan {
    /// Verifies rules, hash and signature, without authority and without the row's place in its chain.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(self, verifier: &mut Verifier) -> Result<VerifiedSpan, VerifyError> {
        self.check(verifier)?;
        Ok(VerifiedSpan(self))
    }

    /// As [`SignedSpan::verify`], giving the row back where it does not hold.
    ///
    /// # Errors
    /// The row and the first check that fails.
    pub fn try_verify(self, verifier: &mut Verifier) -> Result<VerifiedSpan, Box<Rejected>> {
        match self.check(verifier) {
            Ok(()) => Ok(VerifiedSpan(self)),
            Err(error) => Err(Box::new(Rejected { span: self, error })),
        }
    }

    /// As [`SignedSpan::verify`], keeping the row.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(&self, verifier: &mut Verifier) -> Result<(), VerifyError> {
        rules::check(&self.span)?;
        let computed = Hash::of(&canonical::payload(&self.span, &self.seal.public_key));
        if computed != self.seal.curr_hash {
            return Err(VerifyError::HashMismatch { stored: self.seal.curr_hash, computed });
        }
        let message = dsse::pae(dsse::SPAN, computed.as_bytes());
        let Seal { public_key, signature, .. } = self.seal;
        verifier.verify(&public_key, &message, &signature).map_err(|source| VerifyError::Signature { public_key, source })
    }

    /// The row as one line of an export: canonical JSON of all columns, proof columns included, without a line end.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        canonical::row(&self.span, &self.seal)
    }
}

impl VerifiedSpan {
    /// The row, giving up the proof.
    #[must_use]
    pub fn into_signed(self) -> SignedSpan {
        self.0
    }

    /// The digest that decides whether an existing span may be kept in place of this one.
    #[must_use]
    pub fn draft_digest(&self) -> Hash {
        canonical::draft_digest(&self.0.span)
    }
}

impl Deref for VerifiedSpan {
    type Target = SignedSpan;

    fn deref(&self) -> &SignedSpan {
        &self.0
    }
}
