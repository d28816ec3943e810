//! The keys of notes, and their text form.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use logline_core::{PublicKey, Signature, SignatureError, check_key};
use thiserror::Error;

use crate::hash::sha256;

/// The longest name of a key, in bytes.
const MAX_NAME: usize = 255;

/// The name of a key: not empty, without spaces, control characters and `+`, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(Box<str>);

/// A text cannot be the name of a key or the origin of a log. A retry cannot help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a name must have 1 to 255 bytes, without spaces, control characters and `+`")]
pub struct KeyNameError;

impl KeyName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyNameError;

    fn from_str(text: &str) -> Result<Self, KeyNameError> {
        let is_valid =
            (1..=MAX_NAME).contains(&text.len()) && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+');
        is_valid.then(|| Self(text.into())).ok_or(KeyNameError)
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// The text of the note, type `0x01`. A log's own key.
    Log,
    /// The text and a time, type `0x04`, `cosignature/v1`. A witness.
    Witness,
}

impl KeyKind {
    fn byte(self) -> u8 {
        match self {
            Self::Log => 0x01,
            Self::Witness => 0x04,
        }
    }

    /// The first four bytes of SHA-256 of the name, a line end, the type and the key.
    pub(super) fn id(self, name: &KeyName, key: &PublicKey) -> [u8; 4] {
        let [a, b, c, d, ..] = sha256(&[name.as_str().as_bytes(), b"\n", &[self.byte()], &key.0]);
        [a, b, c, d]
    }

    /// The bytes that are signed.
    pub(super) fn message(self, text: &str, time: Option<u64>) -> Vec<u8> {
        match self {
            Self::Log => text.into(),
            Self::Witness => format!("cosignature/v1\ntime {}\n{text}", time.unwrap_or(0)).into_bytes(),
        }
    }

    /// Time and signature out of the bytes of a line.
    pub(super) fn split(self, bytes: &[u8]) -> Option<(Option<u64>, Signature)> {
        match self {
            Self::Log => Some((None, Signature(bytes.try_into().ok()?))),
            Self::Witness => {
                let (time, signature) = bytes.split_first_chunk::<8>()?;
                let time = u64::from_be_bytes(*time);
                // A cosignature of a whole tree has a time, of at most 63 bits.
                let is_time = (1..=i64::MAX as u64).contains(&time);
                is_time.then_some((Some(time), Signature(signature.try_into().ok()?)))
            }
        }
    }
}

/// A public key with its name and kind. As text it is a vkey of C2SP: `NAME+ID+BASE64`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoteKey {
    name: KeyName,
    kind: KeyKind,
    key: PublicKey,
}

/// Why a text is not the key of a log or a witness. A retry cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoteKeyError {
    /// It is not `NAME+ID+BASE64`.
    #[error("a key is `NAME+ID+BASE64`, as logs and witnesses publish it")]
    Malformed,
    /// The id is not that of this name and key: one of them was changed.
    #[error("the id in the key of `{name}` does not belong to its name and its bytes: get the key again from its owner")]
    Id {
        /// The name of the key.
        name: KeyName,
    },
    /// The kind of key is not supported.
    #[error("the key of `{name}` has type {kind}: only Ed25519 keys of logs (1) and witnesses (4) are supported")]
    Kind {
        /// The name of the key.
        name: KeyName,
        /// The byte that names the type.
        kind: u8,
    },
    /// The key is weak or malformed.
    #[error("the key of `{name}` cannot be trusted: {source}")]
    Key {
        /// The name of the key.
        name: KeyName,
        /// What is wrong.
        source: SignatureError,
    },
}

impl NoteKey {
    /// A key.
    ///
    /// # Errors
    /// [`NoteKeyError::Key`] if anybody could sign for it.
    pub fn new(name: KeyName, kind: KeyKind, key: PublicKey) -> Result<Self, NoteKeyError> {
        match check_key(&key) {
            Ok(()) => Ok(Self { name, kind, key }),
            Err(source) => Err(NoteKeyError::Key { name, source }),
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// What the key signs.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The key without its name. Keys are counted by it: a cosignature does not commit to the name of its signer.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// The four bytes by which a line of a note names the key.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        self.kind.id(&self.name, &self.key)
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.id());
        write!(f, "{}+{id:08x}+{}", self.name, STANDARD.encode([&[self.kind.byte()], self.key.0.as_slice()].concat()))
    }
}

impl FromStr for NoteKey {
    type Err = NoteKeyError;

    fn from_str(text: &str) -> Result<Self, NoteKeyError> {
        // A name has no `+`, base64 may have some.
        let mut parts = text.splitn(3, '+');
        let mut next = || parts.next().ok_or(NoteKeyError::Malformed);
        let (name, id, key) = (next()?, next()?, next()?);
        let name: KeyName = name.parse().map_err(|_| NoteKeyError::Malformed)?;
        let bytes = STANDARD.decode(key).map_err(|_| NoteKeyError::Malformed)?;
        let (kind, bytes) = bytes.split_first().ok_or(NoteKeyError::Malformed)?;
        let kind = match *kind {
            0x01 => KeyKind::Log,
            0x04 => KeyKind::Witness,
            kind => return Err(NoteKeyError::Kind { name, kind }),
        };
        let key = PublicKey(bytes.try_into().map_err(|_| NoteKeyError::Malformed)?);
        let key = Self::new(name, kind, key)?;
        if id != format!("{:08x}", u32::from_be_bytes(key.id())) {
            return Err(NoteKeyError::Id { name: key.name });
        }
        Ok(key)
    }
}
