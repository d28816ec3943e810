//! The rules of a witness, and the state that it must not lose.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use logline_core::{Clock, SignError, Signer};
use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::TreeHash;
use crate::note::{KeyKind, KeyName, Note, NoteError, NoteKey, NoteKeyError};
use crate::tree::verify_consistency;
use crate::witness::message::{AddCheckpoint, Answer};

/// What a witness has cosigned last of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The size of the tree.
    pub size: u64,
    /// Its root.
    pub root: TreeHash,
    /// The checkpoint as the log signed it. It is evidence if the log ever shows another one.
    pub checkpoint: Note,
}

/// Where a witness keeps what it has cosigned.
///
/// # Contract
/// `advance` compares and replaces in one step, and what it stored survives a crash: a witness that forgets, or that can be taken back to
/// an older checkpoint, cosigns two histories.
#[async_trait]
pub trait WitnessState: Send + Sync {
    /// The last checkpoint that was cosigned of this log; `None` if there is none.
    ///
    /// # Errors
    /// If the state cannot be read. An answer is then impossible.
    async fn last(&self, origin: &KeyName) -> Result<Option<Seen>, WitnessError>;

    /// Stores `next` as the last checkpoint of this log, if the last one still has `old_size` leaves (0 if there is none). Returns false
    /// if it has not.
    ///
    /// # Errors
    /// If the state cannot be written. Nothing is cosigned then.
    async fn advance(&self, origin: &KeyName, old_size: u64, next: &Seen) -> Result<bool, WitnessError>;
}

/// Why a witness could not answer: status 500. A retry may help.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// Its state could not be read or written.
    #[error("the state of the witness is not available: {reason}; try again")]
    State {
        /// What happened.
        reason: String,
    },
    /// Its key could not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Its own key is not one that anybody would trust.
    #[error(transparent)]
    Key(#[from] NoteKeyError),
    /// The note cannot be built.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// A state in memory, for tests: it forgets when the process ends.
#[derive(Debug, Clone, Default)]
pub struct MemoryWitness(Arc<Mutex<BTreeMap<KeyName, Seen>>>);

#[async_trait]
impl WitnessState for MemoryWitness {
    async fn last(&self, origin: &KeyName) -> Result<Option<Seen>, WitnessError> {
        Ok(self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(origin).cloned())
    }

    async fn advance(&self, origin: &KeyName, old_size: u64, next: &Seen) -> Result<bool, WitnessError> {
        let mut seen = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if seen.get(origin).map_or(0, |seen| seen.size) != old_size {
            return Ok(false);
        }
        seen.insert(origin.clone(), next.clone());
        Ok(true)
    }
}

/// A witness: a name, a key, the logs that it watches, and its state. It may run many calls at once.
pub struct Witness<S> {
    name: KeyName,
    signer: Arc<dyn Signer>,
    clock: Arc<dyn Clock>,
    logs: Vec<NoteKey>,
    state: S,
}

impl<S: WitnessState> Witness<S> {
    /// A witness of these logs. Its key must sign nothing else: a cosignature does not commit to the name of its signer.
    pub fn new(name: KeyName, signer: Arc<dyn Signer>, clock: Arc<dyn Clock>, logs: Vec<NoteKey>, state: S) -> Self {
        Self { name, signer, clock, logs, state }
    }

    /// The key by which others know this witness.
    ///
    /// # Errors
    /// If the signer's key is weak or malformed.
    pub fn key(&self) -> Result<NoteKey, NoteKeyError> {
        NoteKey::new(self.name.clone(), KeyKind::Witness, self.signer.public_key())
    }

    /// Answers a call by its body.
    ///
    /// # Errors
    /// [`WitnessError`] if it cannot answer now.
    pub async fn add_checkpoint(&self, body: &[u8]) -> Result<Answer, WitnessError> {
        match AddCheckpoint::parse(body) {
            Ok(call) => self.add(call).await,
            Err(error) => {
                tracing::debug!(%error, "a call was refused");
                Ok(Answer::BadRequest)
            }
        }
    }

    async fn add(&self, call: AddCheckpoint) -> Result<Answer, WitnessError> {
        let Ok(claimed) = Checkpoint::of(&call.checkpoint) else {
            // A checkpoint of no leaves with a wrong root is told apart from a text that is none.
            return Ok(refused(&call.checkpoint));
        };
        let logs: Vec<_> = self.logs.iter().filter(|log| *log.name() == claimed.origin).collect();
        if logs.is_empty() {
            return Ok(Answer::UnknownLog);
        }
        let verified = logs.iter().map(|log| Checkpoint::verify(&call.checkpoint, log, &[])).find_map(Result::ok);
        let bad = |log: &&NoteKey| {
            let error = Checkpoint::verify(&call.checkpoint, log, &[]).err();
            matches!(error, Some(CheckpointError::Note(NoteError::BadSignature { .. })))
        };
        let Some((checkpoint, _)) = verified.filter(|_| !logs.iter().any(bad)) else { return Ok(Answer::Forbidden) };
        if call.old_size > checkpoint.size {
            return Ok(Answer::BadRequest);
        }
        let last = self.state.last(&checkpoint.origin).await?;
        let (size, root) = last.as_ref().map_or((0, TreeHash::EMPTY), |seen| (seen.size, seen.root));
        if call.old_size != size {
            return Ok(Answer::Conflict { size });
        }
        if let Err(error) = verify_consistency((size, root), (checkpoint.size, checkpoint.root), &call.proof) {
            tracing::warn!(origin = %checkpoint.origin, size = checkpoint.size, %error, "a checkpoint does not continue the last one");
            return Ok(Answer::Inconsistent);
        }
        // It signs only what it has stored: after a crash in between, the log asks again.
        let seen = Seen { size: checkpoint.size, root: checkpoint.root, checkpoint: call.checkpoint.clone() };
        if !self.state.advance(&checkpoint.origin, size, &seen).await? {
            let size = self.state.last(&checkpoint.origin).await?.map_or(0, |seen| seen.size);
            return Ok(Answer::Conflict { size });
        }
        let mut cosigned = Note::new(call.checkpoint.text())?;
        let time = self.clock.now().unix_micros() / 1_000_000;
        cosigned.cosign(&self.name, u64::try_from(time).unwrap_or(0).max(1), self.signer.as_ref()).await?;
        Ok(Answer::Cosigned(cosigned.signatures().to_vec()))
    }
}

/// How a checkpoint is refused that cannot be read: its tree has no leaves and another root (422), or it is none (400).
fn refused(note: &Note) -> Answer {
    let mut lines = note.text().lines().skip(1);
    let is_empty = lines.next() == Some("0") && lines.next().is_some_and(|root| TreeHash::from_base64(root).is_ok());
    if is_empty { Answer::Inconsistent } else { Answer::BadRequest }
}
