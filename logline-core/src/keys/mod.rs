//! Signing keys, and the strict verification of signatures.

pub mod dsse;
pub(crate) mod keyfile;

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::value::hex::{PublicKey, Signature};

/// A signing key: one in this process, or one that a KMS or HSM holds.
///
/// # Contract
/// `sign` returns a plain Ed25519 signature (RFC 8032) of exactly `message` by `public_key`. The signature of a remote signer
/// is verified before it is used.
#[async_trait]
pub trait Signer: Send + Sync {
    /// The key that verifies this signer's signatures.
    fn public_key(&self) -> PublicKey;

    /// Signs `message`.
    ///
    /// # Errors
    /// [`SignError`], which says whether a retry may help.
    async fn sign(&self, message: &[u8]) -> Result<Signature, SignError>;

    /// The key pair, if it is in this process. Its signatures need no verification. Remote signers return `None`.
    fn local(&self) -> Option<&KeyPair>;
}

/// Why a signer could not sign.
#[derive(Debug, Error)]
#[error("signer {public_key} could not sign: {reason}{}", if *.retryable { "; try again" } else { "" })]
pub struct SignError {
    /// The public key of the signer.
    pub public_key: PublicKey,
    /// What happened, as the signer reports it.
    pub reason: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
}

/// An Ed25519 key pair in memory. The secret is wiped from memory when it is dropped, and it is never printed.
#[derive(Clone)]
pub struct KeyPair {
    key: SigningKey,
}

impl KeyPair {
    /// Makes a new key from the operating system's random source.
    ///
    /// # Errors
    /// If that source fails, which happens only on a broken machine.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())?;
        Ok(Self::from_seed(&seed))
    }

    /// The key whose RFC 8032 secret is `seed`.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(seed) }
    }

    /// The RFC 8032 secret. This copy is wiped from memory when it is dropped. Do not keep another one.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// Signs `message` at once, without `await`.
    #[must_use]
    pub fn sign_now(&self, message: &[u8]) -> Signature {
        Signature(self.key.sign(message).to_bytes())
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public_key", &self.public_key()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Signer for KeyPair {
    fn public_key(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }

    async fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        Ok(self.sign_now(message))
    }

    fn local(&self) -> Option<&KeyPair> {
        Some(self)
    }
}

/// Why a signature is not valid. A retry cannot help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The public key's bytes are not a point on the curve.
    #[error("public key is not an ed25519 key")]
    MalformedKey,
    /// The public key is a second, non-canonical encoding of its point.
    #[error("public key is not canonically encoded")]
    NonCanonicalKey,
    /// The public key has small order: anybody can make a signature that it accepts for any message.
    #[error("public key is weak (small order)")]
    WeakKey,
    /// The signature was not made by this key over this message.
    #[error("signature does not match the key and the content")]
    Mismatch,
}

/// Verifies signatures and caches the keys that it has unpacked.
///
/// To unpack a key costs about a tenth of a verification. An audit of a million rows signed by five keys unpacks five times.
#[derive(Debug, Default)]
pub struct Verifier {
    keys: HashMap<PublicKey, VerifyingKey>,
}

/// More distinct keys than the hosts of any ledger have. A full cache is cleared, so that hostile input cannot make it grow.
const MAX_CACHED_KEYS: usize = 4096;

impl Verifier {
    /// A verifier with an empty cache of keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Verifies a signature strictly (`verify_strict`: small-order points and malleable encodings are refused).
    ///
    /// # Errors
    /// [`SignatureError`], which says why the signature is not valid.
    pub fn verify(&mut self, key: &PublicKey, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        let key = match self.keys.get(key) {
            Some(key) => key,
            None => {
                let unpacked = unpack(key)?;
                if self.keys.len() >= MAX_CACHED_KEYS {
                    self.keys.clear();
                }
                self.keys.entry(*key).or_insert(unpacked)
            }
        };
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(message, &signature).map_err(|_| SignatureError::Mismatch)
    }
}

/// Checks that `key` can be trusted: it is on the curve, canonically encoded and not weak.
///
/// # Errors
/// [`SignatureError`], which says what is wrong with the key.
pub fn check_key(key: &PublicKey) -> Result<(), SignatureError> {
    unpack(key).map(drop)
}

fn unpack(key: &PublicKey) -> Result<VerifyingKey, SignatureError> {
    if !is_reduced(key) {
        return Err(SignatureError::NonCanonicalKey);
    }
    let key = VerifyingKey::from_bytes(&key.0).map_err(|_| SignatureError::MalformedKey)?;
    if key.is_weak() {
        return Err(SignatureError::WeakKey);
    }
    Ok(key)
}

/// Whether the encoded y coordinate is below p = 2^255 − 19. (The other non-canonical case, a set sign bit with x = 0, is a
/// small-order point, which is refused as weak.)
fn is_reduced(key: &PublicKey) -> bool {
    let [low, middle @ .., high] = &key.0;
    high & 0x7f != 0x7f || middle.iter().any(|b| *b != 0xff) || *low < 0xed
}
