//! Signed notes of C2SP: a text with lines of signatures below it, which is the form of checkpoints.
//!
//! Two kinds of signatures are known: Ed25519 of the text (type `0x01`, by logs), and timestamped cosignatures (type `0x04`, by
//! witnesses). Lines by other keys and of other kinds are kept and ignored, as the specification asks, so that a log can add ML-DSA
//! signatures without breaking anybody.
//!
//! Why an implementation of our own: the crate `signed_note` verifies Ed25519 without the strict rules that rows are held to, knows no
//! cosignatures, and brings a second major version of the curve library. Two verifiers that disagree about a signature are two truths.

mod key;
mod line;

use std::fmt;

use logline_core::{SignError, Signature, SignatureError, Signer, Verifier};
use thiserror::Error;

pub use key::{KeyKind, KeyName, KeyNameError, NoteKey, NoteKeyError};
pub use line::NoteSignature;

/// The most bytes of a note: enough for 16 signatures of the largest kind.
pub const MAX_NOTE: usize = 256 * 1024;

/// The most lines of signatures. The specification asks for 16 at least.
pub const MAX_SIGNATURES: usize = 100;

/// A text and the signatures below it. What is parsed is not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// A signature that was verified: whose it is, and when it was made, if it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signed {
    /// The key that signed.
    pub key: NoteKey,
    /// Seconds since 1970, of a cosignature. The signer says so; nobody else vouches for it.
    pub time: Option<u64>,
}

/// Why a note is refused. A retry cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoteError {
    /// It is not the text of a note.
    #[error("not a signed note: {reason}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
    },
    /// A signature by a key that is known does not verify. The whole note is refused then: somebody has changed it.
    #[error("signature of `{name}` on the note is not valid: {source}")]
    BadSignature {
        /// The name of the key.
        name: KeyName,
        /// What is wrong.
        source: SignatureError,
    },
    /// None of the keys has signed it.
    #[error("none of the {known} keys that are trusted has signed the note")]
    Unsigned {
        /// How many keys are trusted.
        known: usize,
    },
}

const MALFORMED_CONTROL: NoteError = NoteError::Malformed { reason: "it has a control character other than a line end" };

impl Note {
    /// A note without signatures.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] if the text does not end with a line end, has other control characters, or is too long.
    pub fn new(text: impl Into<String>) -> Result<Self, NoteError> {
        let text = text.into();
        let malformed = |reason| Err(NoteError::Malformed { reason });
        if text.len() > MAX_NOTE {
            return malformed("it is longer than 256 KiB");
        }
        if !text.ends_with('\n') {
            return malformed("the text does not end with a line end");
        }
        if text.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(MALFORMED_CONTROL);
        }
        Ok(Self { text, signatures: Vec::new() })
    }

    /// Reads a note: text, empty line, lines of signatures.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        let malformed = |reason| NoteError::Malformed { reason };
        if bytes.len() > MAX_NOTE {
            return Err(malformed("it is longer than 256 KiB"));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| malformed("it is not utf-8"))?;
        // The text may have empty lines of its own.
        let at = note.rfind("\n\n").ok_or_else(|| malformed("it has no empty line before its signatures"))?;
        let (text, lines) = note.split_at(at + 1);
        let mut parsed = Self::new(text)?;
        parsed.signatures = NoteSignature::parse_lines(lines.strip_prefix('\n').unwrap_or_default())?;
        if parsed.signatures.is_empty() {
            return Err(malformed("it has no signatures"));
        }
        Ok(parsed)
    }

    /// The text that is signed, with its last line end.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, verified or not, in their order.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Verifies every signature by one of `keys`, wherever its line stands.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] if one of them is not valid, also if others are; [`NoteError::Unsigned`] if there is none.
    pub fn verify(&self, keys: &[NoteKey]) -> Result<Vec<Signed>, NoteError> {
        let mut verifier = Verifier::new();
        let mut signed: Vec<Signed> = Vec::new();
        for line in &self.signatures {
            for key in keys.iter().filter(|key| key.name() == line.name() && key.id() == line.id()) {
                let bad = |source| NoteError::BadSignature { name: key.name().clone(), source };
                let (time, signature) = key.kind().split(line.signature()).ok_or_else(|| bad(SignatureError::Mismatch))?;
                verifier.verify(key.public_key(), &key.kind().message(&self.text, time), &signature).map_err(bad)?;
                // A witness that signed twice is one witness; the later time counts.
                match signed.iter_mut().find(|other| other.key == *key) {
                    Some(other) => other.time = other.time.max(time),
                    None => signed.push(Signed { key: key.clone(), time }),
                }
            }
        }
        if signed.is_empty() { Err(NoteError::Unsigned { known: keys.len() }) } else { Ok(signed) }
    }

    /// Signs the text as a log (type `0x01`), under this name.
    ///
    /// # Errors
    /// If the signer cannot sign.
    pub async fn sign(&mut self, name: &KeyName, signer: &dyn Signer) -> Result<(), SignError> {
        self.add(name, KeyKind::Log, None, signer).await
    }

    /// Cosigns the text as a witness (type `0x04`) at `time`, seconds since 1970.
    ///
    /// # Errors
    /// If the signer cannot sign.
    pub async fn cosign(&mut self, name: &KeyName, time: u64, signer: &dyn Signer) -> Result<(), SignError> {
        self.add(name, KeyKind::Witness, Some(time), signer).await
    }

    async fn add(&mut self, name: &KeyName, kind: KeyKind, time: Option<u64>, signer: &dyn Signer) -> Result<(), SignError> {
        let public_key = signer.public_key();
        let message = kind.message(&self.text, time);
        let signature: Signature = signer.sign(&message).await?;
        // A remote signer may be wrong, and what it returns is about to be published.
        Verifier::new().verify(&public_key, &message, &signature).map_err(|error| SignError {
            public_key,
            reason: format!("it returned a wrong signature: {error}"),
            retryable: false,
        })?;
        let mut bytes = time.map(u64::to_be_bytes).map(Vec::from).unwrap_or_default();
        bytes.extend_from_slice(&signature.0);
        self.signatures.push(NoteSignature::new(name.clone(), kind.id(name, &public_key), bytes));
        Ok(())
    }

    /// Adds a signature that somebody else has made. One that is there already is not added again.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] if the note has [`MAX_SIGNATURES`] already.
    pub fn push(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        if self.signatures.contains(&signature) {
            return Ok(());
        }
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(NoteError::Malformed { reason: "it has more than 100 signatures" });
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Adds a signature in the place of all earlier ones that name the same key.
    pub(crate) fn replace(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        self.signatures.retain(|line| line.name() != signature.name() || line.id() != signature.id());
        self.push(signature)
    }

    /// Keeps one line of this key, the newest: a signer has room for one signature, however many it makes. The lines must have been verified.
    pub(crate) fn keep_newest(&mut self, key: &NoteKey) {
        let is_its = |line: &NoteSignature| line.name() == key.name() && line.id() == key.id();
        let time = |line: &NoteSignature| key.kind().split(line.signature()).and_then(|(time, _)| time);
        let newest = self.signatures.iter().filter(|line| is_its(line)).max_by_key(|line| time(line)).cloned();
        let mut is_kept = false;
        self.signatures
            .retain(|line| !is_its(line) || (Some(line) == newest.as_ref() && !std::mem::replace(&mut is_kept, true)));
    }
}

/// The note as it is stored and sent.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str("\n")?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}
