//! The log's side: asking a witness for a cosignature.

use async_trait::async_trait;
use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::TreeHash;
use crate::note::{KeyKind, Note, NoteError, NoteKey};
use crate::witness::message::{AddCheckpoint, Answer};

/// A way to reach one witness.
///
/// # Contract
/// `add_checkpoint` posts the call's text to `SUBMISSION-PREFIX/add-checkpoint` and reads the answer with [`Answer::parse`]. It has a
/// timeout, does not follow redirects to other hosts, and reads a bounded answer.
#[async_trait]
pub trait WitnessClient: Send + Sync {
    /// Sends one call.
    ///
    /// # Errors
    /// If there was no answer, or none of this protocol. The witness may have cosigned all the same.
    async fn add_checkpoint(&self, call: &AddCheckpoint) -> Result<Answer, WitnessCallError>;
}

/// Makes the consistency proofs that a witness asks for, for example from tiles.
#[async_trait]
pub trait ConsistencyProver: Send + Sync {
    /// The proof that the tree of `new` leaves continues that of `old` leaves; `old` is at least 1.
    ///
    /// # Errors
    /// A text that says why there is none.
    async fn prove(&self, old: u64, new: u64) -> Result<Vec<TreeHash>, String>;
}

/// A witness did not answer. A retry may help.
#[derive(Debug, Error)]
#[error("the witness did not answer: {reason}; try again")]
pub struct WitnessCallError {
    /// What happened.
    pub reason: String,
}

/// Why there is no cosignature.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CosignError {
    /// The witness could not be reached.
    #[error(transparent)]
    Call(#[from] WitnessCallError),
    /// The checkpoint is none.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The tiles that a consistency proof needs could not be read.
    #[error("no consistency proof from size {from}: {reason}")]
    Proof {
        /// The size that the witness has seen.
        from: u64,
        /// What happened.
        reason: String,
    },
    /// The witness has cosigned a larger tree of this log than the log has: the log was restored from a copy, or somebody else has its key.
    #[error(
        "the witness has cosigned {size} leaves, and the log has {own}: do not sign more under this origin; find out who has its key"
    )]
    Ahead {
        /// The size that the witness has cosigned.
        size: u64,
        /// The size of the checkpoint.
        own: u64,
    },
    /// The witness refuses.
    #[error("the witness refuses the checkpoint with status {status}")]
    Refused {
        /// The status: 400, 403, 404 or 422.
        status: u16,
    },
    /// The witness answered with a signature that is not valid, or by another key.
    #[error("the witness answered without a valid signature: {0}")]
    Signature(#[from] NoteError),
}

/// The most calls for one cosignature: one with the size that is believed, and some more if the witness has another one.
const CALLS: usize = 3;

/// Asks a witness to cosign `checkpoint`, and adds its cosignature to the note, in the place of earlier ones of the same key: of an answer
/// with several valid lines the newest is taken, because the note has no room for more from each witness. `known_size` is the size that it has cosigned before, as
/// far as is known. A witness that is behind or ahead of it says so and is asked again. `prove` makes the consistency proof between two
/// sizes.
///
/// Returns the size that the witness has cosigned now.
///
/// # Errors
/// [`CosignError`], with the reason.
pub async fn cosign(
    client: &dyn WitnessClient,
    key: &NoteKey,
    known_size: u64,
    checkpoint: &mut Note,
    prover: &dyn ConsistencyProver,
) -> Result<u64, CosignError> {
    let own = Checkpoint::of(checkpoint)?.size;
    let mut old_size = known_size.min(own);
    for _ in 0..CALLS {
        let proof = if old_size == 0 { Ok(Vec::new()) } else { prover.prove(old_size, own).await };
        let proof = proof.map_err(|reason| CosignError::Proof { from: old_size, reason })?;
        let call = AddCheckpoint { old_size, proof, checkpoint: checkpoint.clone() };
        match client.add_checkpoint(&call).await? {
            Answer::Cosigned(lines) => {
                // Only lines of this witness are taken, and only if they are valid.
                let mut answered = Note::new(checkpoint.text())?;
                for line in lines.into_iter().filter(|line| line.name() == key.name() && line.id() == key.id()) {
                    answered.push(line)?;
                }
                answered.verify(std::slice::from_ref(key))?;
                debug_assert_eq!(key.kind(), KeyKind::Witness);
                answered.keep_newest(key);
                answered.signatures().iter().try_for_each(|line| checkpoint.replace(line.clone()))?;
                return Ok(own);
            }
            Answer::Conflict { size } if size > own => return Err(CosignError::Ahead { size, own }),
            Answer::Conflict { size } => old_size = size,
            refused => return Err(CosignError::Refused { status: refused.status() }),
        }
    }
    Err(CosignError::Refused { status: 409 })
}
