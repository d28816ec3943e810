//! Sealing and verifying: the only two ways to get a [`VerifiedSpan`].

use std::ops::Deref;

use thiserror::Error;

use crate::keys::dsse;
use crate::keys::{KeyPair, SignError, SignatureError, Signer, Verifier};
use crate::span::canonical;
use crate::span::draft::Draft;
use crate::span::rules::{self, InvalidSpan, Rules};
use crate::span::{Seal, SignedSpan, Span};
use crate::value::hex::{Hash, PublicKey, Signature};

/// A row that follows the input rules and whose hash and signature are valid. Whether its signer was *allowed* to sign it is
/// checked by [`Authorities`](crate::trust::Authorities).
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedSpan(SignedSpan);

/// A row that could not be verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// The row, unchanged.
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
    /// The signer could not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The signer returned a signature that is not valid for its key.
    #[error("signer {public_key} returned a wrong signature: {source}")]
    WrongSignature {
        /// The public key of the signer.
        public_key: PublicKey,
        /// What is wrong with the signature.
        source: SignatureError,
    },
}

/// Why a row could not be verified.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The columns break an input rule, so no seal over them is valid.
    #[error(transparent)]
    Invalid(#[from] InvalidSpan),
    /// The columns are not those that were hashed.
    #[error("content was changed: curr_hash is {stored}, the content hashes to {computed}")]
    HashMismatch {
        /// `curr_hash` as stored.
        stored: Hash,
        /// The hash of the columns as they are.
        computed: Hash,
    },
    /// The signature is not valid.
    #[error("signature of key {public_key} is not valid: {source}")]
    Signature {
        /// The key that the row names as its signer.
        public_key: PublicKey,
        /// Why the signature is not valid.
        source: SignatureError,
    },
}

impl Draft {
    /// Seals the draft with any signer, under the default rules.
    ///
    /// # Errors
    /// The first input rule that the draft breaks, or the signer's failure.
    pub async fn seal(self, signer: &dyn Signer) -> Result<VerifiedSpan, SealError> {
        self.seal_within(signer, &Rules::default()).await
    }

    /// Seals the draft with any signer, under `rules`.
    ///
    /// # Errors
    /// The errors of [`Draft::seal`].
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

    /// Seals the draft at once, without `await`, with a key in this process, under the default rules.
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

/// A span with its hash, before it is signed.
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
    /// Verifies the input rules, the hash and the signature. It does not check the signer's authority or the link to the
    /// version before.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(self, verifier: &mut Verifier) -> Result<VerifiedSpan, VerifyError> {
        self.check(verifier)?;
        Ok(VerifiedSpan(self))
    }

    /// Like [`SignedSpan::verify`], but gives the row back if it cannot be verified.
    ///
    /// # Errors
    /// The row and the first check that fails.
    pub fn try_verify(self, verifier: &mut Verifier) -> Result<VerifiedSpan, Box<Rejected>> {
        match self.check(verifier) {
            Ok(()) => Ok(VerifiedSpan(self)),
            Err(error) => Err(Box::new(Rejected { span: self, error })),
        }
    }

    /// Like [`SignedSpan::verify`], but takes the row by reference.
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

    /// The row as one line of an export: canonical JSON of all columns, including the seal, without a line end.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        canonical::row(&self.span, &self.seal)
    }
}

impl VerifiedSpan {
    /// The row, without the proof that it was verified.
    #[must_use]
    pub fn into_signed(self) -> SignedSpan {
        self.0
    }

    /// The digest that decides whether an existing span may be kept instead of this one.
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
