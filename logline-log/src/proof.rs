//! `.tlog-proof` files: everything that is needed to verify offline that an entry is in a log, after C2SP `tlog-proof`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use logline_core::SignedSpan;
use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError, parse_decimal};
use crate::hash::TreeHash;
use crate::leaf::Leaf;
use crate::note::{MAX_NOTE, Note, NoteError};
use crate::policy::{Policy, PolicyError};
use crate::tree::{MAX_PROOF, ProofError, verify_inclusion};

const FIRST: &str = "c2sp.org/tlog-proof@v1";

/// The most bytes of a file: a note, 64 hashes, and as much again for `extra`.
pub const MAX_PROOF_FILE: usize = 2 * MAX_NOTE;

/// A proof that the entry with some hash is in a log. What is parsed is not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogProof {
    /// Anything that the writer of the file has added. **Nothing authenticates it.**
    pub extra: Option<Vec<u8>>,
    /// The number of the entry.
    pub index: u64,
    /// The hashes from the entry's sibling up to the root's child.
    pub hashes: Vec<TreeHash>,
    /// The checkpoint, with the signatures of the log and of witnesses.
    pub checkpoint: Note,
}

/// Why a proof file proves nothing. A retry cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LogProofError {
    /// The text is not that of a proof.
    #[error("not a `.tlog-proof`: {reason}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
    },
    /// The checkpoint in the file is malformed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The policy does not accept the checkpoint.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The hashes do not lead from the entry to the root of the checkpoint. It may be a valid proof of another entry.
    #[error("the entry is not in the log: {0}")]
    Proof(#[from] ProofError),
}

impl From<NoteError> for LogProofError {
    fn from(error: NoteError) -> Self {
        Self::Checkpoint(error.into())
    }
}

impl LogProof {
    /// A proof with these parts.
    #[must_use]
    pub fn new(index: u64, hashes: Vec<TreeHash>, checkpoint: Note) -> Self {
        Self { extra: None, index, hashes, checkpoint }
    }

    /// Reads a proof file.
    ///
    /// # Errors
    /// [`LogProofError::Malformed`] and [`LogProofError::Checkpoint`].
    pub fn parse(bytes: &[u8]) -> Result<Self, LogProofError> {
        let malformed = |reason| LogProofError::Malformed { reason };
        if bytes.len() > MAX_PROOF_FILE {
            return Err(malformed("it is longer than 512 KiB"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is not utf-8"))?;
        let (head, checkpoint) =
            text.split_once("\n\n").ok_or_else(|| malformed("it has no empty line before its checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST) {
            return Err(malformed("the first line is not `c2sp.org/tlog-proof@v1`"));
        }
        let extra = lines.next_if(|line| line.starts_with("extra ")).and_then(|line| line.strip_prefix("extra "));
        let extra = extra.map(|text| STANDARD.decode(text).map_err(|_| malformed("`extra` is not base64"))).transpose()?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(parse_decimal);
        let index = index.ok_or_else(|| malformed("there is no line `index` with a number"))?;
        let hashes: Result<Vec<_>, _> = lines.take(MAX_PROOF + 1).map(TreeHash::from_base64).collect();
        let hashes = hashes.map_err(|_| malformed("a line of the proof is not the base64 of a hash"))?;
        if hashes.len() > MAX_PROOF {
            return Err(malformed("the proof has more than 64 hashes"));
        }
        Ok(Self { extra, index, hashes, checkpoint: Note::parse(checkpoint.as_bytes())? })
    }

    /// Verifies that `row` is in a log that `policy` trusts, under a checkpoint with as many cosignatures as it asks for. Returns that
    /// checkpoint.
    ///
    /// The row itself is not verified here: [`SignedSpan::verify`] does. Both are needed, because the log says only that a row was
    /// entered, and the row alone does not say that.
    ///
    /// # Errors
    /// [`LogProofError`], with the reason.
    pub fn verify(&self, row: &SignedSpan, policy: &Policy) -> Result<Checkpoint, LogProofError> {
        self.verify_leaf(Leaf::of(row).hash(), policy)
    }

    /// As [`LogProof::verify`], for any entry, by its hash in the tree ([`TreeHash::leaf`]).
    ///
    /// # Errors
    /// [`LogProofError`], with the reason.
    pub fn verify_leaf(&self, leaf: TreeHash, policy: &Policy) -> Result<Checkpoint, LogProofError> {
        let checkpoint = policy.verify(&self.checkpoint)?.checkpoint;
        verify_inclusion(leaf, self.index, checkpoint.size, checkpoint.root, &self.hashes)?;
        Ok(checkpoint)
    }
}

/// The text of the file.
impl fmt::Display for LogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}
