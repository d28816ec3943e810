//! Checkpoints: what a log signs about its tree, after C2SP `tlog-checkpoint` v1.0.0.

use std::fmt;

use thiserror::Error;

use crate::hash::TreeHash;
use crate::note::{KeyKind, KeyName, Note, NoteError, NoteKey, Signed};

/// The most lines after the root that a checkpoint of somebody else may have. Ours have none.
const MAX_EXTENSIONS: usize = 16;

/// The identity of a log, its size and its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log. It is also the name of the key that signs. Witnesses see it, so it must say nothing about the tenant.
    pub origin: KeyName,
    /// The number of leaves.
    pub size: u64,
    /// The root of the tree of these leaves.
    pub root: TreeHash,
}

/// Why a note is not the checkpoint that was expected. A retry cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The note is malformed, or its signatures are not valid.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text of the note is not that of a checkpoint.
    #[error("not a checkpoint: {reason}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
    },
    /// It is the checkpoint of another log.
    #[error("checkpoint is of log `{found}`, expected `{expected}`")]
    Origin {
        /// The origin in the checkpoint.
        found: KeyName,
        /// The name of the key that is trusted.
        expected: KeyName,
    },
    /// No key of the log has signed it, whoever else has.
    #[error("the key of log `{origin}` has not signed the checkpoint")]
    NotByLog {
        /// The log.
        origin: KeyName,
    },
}

/// A new origin: 256 random bits, so that nobody can guess it, or tell from it whose log it is.
///
/// # Errors
/// If the system has no random bytes.
pub fn random_origin() -> Result<KeyName, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    // Hex digits are valid in a name. The domain `invalid` can never belong to anybody.
    format!("log.invalid/{}", TreeHash(bytes).to_hex()).parse().map_err(|_| getrandom::Error::UNSUPPORTED)
}

impl Checkpoint {
    /// The checkpoint of a log without leaves.
    #[must_use]
    pub fn empty(origin: KeyName) -> Self {
        Self { origin, size: 0, root: TreeHash::EMPTY }
    }

    /// The text that is signed: three lines.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }

    /// The note to be signed.
    ///
    /// # Errors
    /// Never for an origin that was parsed: the text has nothing that a note may not have.
    pub fn to_note(&self) -> Result<Note, NoteError> {
        Note::new(self.text())
    }

    /// Reads the text of a note. Nothing is verified.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`].
    pub fn of(note: &Note) -> Result<Self, CheckpointError> {
        let malformed = |reason| CheckpointError::Malformed { reason };
        let mut lines = note.text().strip_suffix('\n').unwrap_or_default().split('\n');
        let origin = lines.next().unwrap_or_default();
        let origin = origin.parse().map_err(|_| malformed("the first line cannot be an origin"))?;
        let size = lines.next().and_then(parse_decimal).ok_or_else(|| malformed("the second line is not a size"))?;
        let root = lines.next().and_then(|text| TreeHash::from_base64(text).ok());
        let root = root.ok_or_else(|| malformed("the third line is not a root hash"))?;
        if size == 0 && root != TreeHash::EMPTY {
            return Err(malformed("its tree has no leaves, and the root of another tree"));
        }
        if lines.clone().any(str::is_empty) || lines.count() > MAX_EXTENSIONS {
            return Err(malformed("lines after the root must not be empty, and there may be 16 of them"));
        }
        Ok(Self { origin, size, root })
    }

    /// Reads a checkpoint and verifies that the log itself signed it: `keys` are the log's key and those of witnesses. The lines may
    /// stand in any order. A signature by one of these keys that is not valid makes the whole checkpoint invalid.
    ///
    /// # Errors
    /// [`CheckpointError`], with the reason.
    pub fn verify(note: &Note, log: &NoteKey, witnesses: &[NoteKey]) -> Result<(Self, Vec<Signed>), CheckpointError> {
        let checkpoint = Self::of(note)?;
        if checkpoint.origin != *log.name() {
            return Err(CheckpointError::Origin { found: checkpoint.origin, expected: log.name().clone() });
        }
        let keys: Vec<_> = std::iter::once(log).chain(witnesses).cloned().collect();
        let signed = note.verify(&keys)?;
        if log.kind() != KeyKind::Log || !signed.iter().any(|signed| signed.key == *log) {
            return Err(CheckpointError::NotByLog { origin: checkpoint.origin });
        }
        Ok((checkpoint, signed))
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} leaves of log `{}`, root {}", self.size, self.origin, self.root)
    }
}

/// A decimal without sign and leading zeros, as all formats of C2SP write numbers.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let is_canonical = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_canonical.then(|| text.parse().ok())?
}
