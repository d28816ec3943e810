//! The call `add-checkpoint` and its answers, byte by byte.

use std::fmt;

use thiserror::Error;

use crate::checkpoint::parse_decimal;
use crate::hash::TreeHash;
use crate::note::{Note, NoteError, NoteSignature};

/// The most lines of a proof in a call.
pub const MAX_PROOF_LINES: usize = 63;

/// The `Content-Type` of an answer with status 409.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// A checkpoint for a witness, and the proof that it continues one of `old_size` leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size of the last checkpoint that the witness has cosigned, as the caller believes; 0 if there is none.
    pub old_size: u64,
    /// The consistency proof between both sizes.
    pub proof: Vec<TreeHash>,
    /// The checkpoint.
    pub checkpoint: Note,
}

/// Why bytes are not a call. A witness answers them with status 400.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It is not the text of a call.
    #[error("not a call of add-checkpoint: {reason}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
    },
    /// The checkpoint is not a note.
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl AddCheckpoint {
    /// Reads the body of a call.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let malformed = |reason| RequestError::Malformed { reason };
        let text = std::str::from_utf8(body).map_err(|_| malformed("it is not utf-8"))?;
        let (head, checkpoint) =
            text.split_once("\n\n").ok_or_else(|| malformed("it has no empty line before the checkpoint"))?;
        let mut lines = head.split('\n');
        let old_size = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(parse_decimal);
        let old_size = old_size.ok_or_else(|| malformed("the first line is not `old` and a size"))?;
        let proof: Result<Vec<_>, _> = lines.take(MAX_PROOF_LINES + 1).map(TreeHash::from_base64).collect();
        let proof = proof.map_err(|_| malformed("a line of the proof is not the base64 of a hash"))?;
        if proof.len() > MAX_PROOF_LINES {
            return Err(malformed("the proof has more than 63 lines"));
        }
        Ok(Self { old_size, proof, checkpoint: Note::parse(checkpoint.as_bytes())? })
    }
}

/// The body of the call.
impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// The answer of a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// 200: it has cosigned. The lines of its signatures, not verified yet.
    Cosigned(Vec<NoteSignature>),
    /// 400: the call is malformed, or the old size is larger than the checkpoint's.
    BadRequest,
    /// 403: no key that the witness trusts for this log has signed the checkpoint.
    Forbidden,
    /// 404: the witness does not know the log.
    UnknownLog,
    /// 409: the last checkpoint that it has cosigned has this size, not the old size of the call.
    Conflict {
        /// That size.
        size: u64,
    },
    /// 422: the checkpoint does not continue the last one. Either the proof is wrong, or the log has two histories.
    Inconsistent,
}

impl Answer {
    /// Reads an answer by its HTTP status, content type and body.
    ///
    /// # Errors
    /// [`RequestError`] for a status that the protocol does not have, and for a body that does not fit it.
    pub fn parse(status: u16, content_type: Option<&str>, body: &[u8]) -> Result<Self, RequestError> {
        let malformed = |reason| RequestError::Malformed { reason };
        let text = || std::str::from_utf8(body).map_err(|_| malformed("the answer is not utf-8"));
        match status {
            200 => {
                let lines = NoteSignature::parse_lines(text()?)?;
                if lines.is_empty() { Err(malformed("status 200 without a signature")) } else { Ok(Self::Cosigned(lines)) }
            }
            400 => Ok(Self::BadRequest),
            403 => Ok(Self::Forbidden),
            404 => Ok(Self::UnknownLog),
            409 if content_type == Some(SIZE_CONTENT_TYPE) => {
                let size = text()?.strip_suffix('\n').and_then(parse_decimal);
                size.map(|size| Self::Conflict { size }).ok_or_else(|| malformed("status 409 without a size"))
            }
            422 => Ok(Self::Inconsistent),
            _ => Err(malformed("the status is none of those that a witness answers with")),
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Cosigned(_) => 200,
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::UnknownLog => 404,
            Self::Conflict { .. } => 409,
            Self::Inconsistent => 422,
        }
    }

    /// The content type of the body.
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        if let Self::Conflict { .. } = self { SIZE_CONTENT_TYPE } else { "text/plain; charset=utf-8" }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> String {
        match self {
            Self::Cosigned(lines) => lines.iter().map(|line| format!("{line}\n")).collect(),
            Self::Conflict { size } => format!("{size}\n"),
            _ => String::new(),
        }
    }
}
