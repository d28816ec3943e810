//! Asking the witnesses, and whether enough of them have cosigned.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use thiserror::Error;
use tokio::time::Instant;

use crate::checkpoint::Checkpoint;
use crate::hash::TreeHash;
use crate::integrator::error::IntegrateError;
use crate::integrator::publish::name;
use crate::integrator::{Integrator, LogSite};
use crate::note::{Note, NoteKey};
use crate::store::StoreError;
use crate::tile::{ProveError, TileSet};
use crate::tree::ProofPlan;
use crate::witness::{ConsistencyProver, CosignError, WitnessClient, cosign};

/// How long a witness is left alone after its first failure, and at most.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What is known of a witness of one log.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// The size that it has cosigned last; `None` if that is not known.
    size: Option<u64>,
    failures: u32,
    rests_until: Option<Instant>,
}

impl Asked {
    fn is_due(&self, size: u64) -> bool {
        self.size != Some(size) && self.rests_until.is_none_or(|until| until <= Instant::now())
    }

    fn has_cosigned(&mut self, size: u64) {
        *self = Self { size: Some(size), ..Self::default() };
    }

    /// A witness that is away must not delay every batch by its timeout.
    fn has_failed(&mut self) {
        let pause = REST.saturating_mul(1 << self.failures.min(10)).min(LONGEST_REST);
        self.failures = self.failures.saturating_add(1);
        self.rests_until = Some(Instant::now() + pause);
    }
}

impl Integrator {
    /// Whether there is a witness to be asked for a cosignature of this checkpoint.
    pub(super) fn is_witness_due(&self, checkpoint: &Checkpoint) -> bool {
        self.asked.iter().any(|asked| asked.is_due(checkpoint.size))
    }

    /// The checkpoint with the cosignatures of the witnesses that are due and answer.
    pub(super) async fn cosigned(&mut self, note: &Note, checkpoint: &Checkpoint) -> Note {
        let prover = FromTiles { site: &self.site, checkpoint };
        let due = self.site.witnesses.iter().zip(&mut self.asked).filter(|(_, asked)| asked.is_due(checkpoint.size));
        let answers = join_all(due.map(|((key, client), asked)| ask(client.as_ref(), key, asked, note, &prover))).await;
        let mut cosigned = note.clone();
        for line in answers.iter().flatten().flat_map(Note::signatures) {
            // Each witness has added one line at most. A note has room for a hundred.
            if let Err(error) = cosigned.push(line.clone()) {
                tracing::warn!(%checkpoint, %error, "a cosignature has no room on the checkpoint");
            }
        }
        cosigned
    }

    /// Remembers who has cosigned a published checkpoint. If a cosignature on it is not valid, all of them are left out and asked for again.
    pub(super) fn note_cosignatures(&mut self, mut published: Note, checkpoint: &Checkpoint) -> Note {
        let keys: Vec<_> = self.site.witnesses.iter().map(|(key, _)| key.clone()).collect();
        let Ok(signed) = published.verify(&keys) else {
            let by_witness = |line: &&crate::note::NoteSignature| keys.iter().any(|key| key.id() == line.id());
            if !published.signatures().iter().any(|line| by_witness(&line)) {
                return published;
            }
            tracing::warn!(%checkpoint, "a cosignature on the published checkpoint is not valid: all are asked for again");
            let mut clean = Note::new(published.text()).unwrap_or_else(|_| published.clone());
            for line in published.signatures().iter().filter(|line| !by_witness(line)) {
                let _ = clean.push(line.clone());
            }
            return clean;
        };
        for ((key, _), asked) in self.site.witnesses.iter().zip(&mut self.asked) {
            if signed.iter().any(|signed| signed.key == *key) {
                asked.has_cosigned(checkpoint.size);
            }
        }
        // Of a witness that has given several, the others take the room of somebody else.
        keys.iter().for_each(|key| published.keep_newest(key));
        published
    }

    /// Refuses a checkpoint that fewer witnesses have cosigned than the policy asks for.
    pub(super) fn check_quorum(&self, note: &Note, checkpoint: &Checkpoint) -> Result<(), IntegrateError> {
        let Some(policy) = &self.site.quorum else { return Ok(()) };
        let signed = note.verify(policy.witnesses()).unwrap_or_default();
        if policy.has_quorum(&signed) {
            Ok(())
        } else {
            Err(IntegrateError::Quorum { checkpoint: checkpoint.clone(), cosigned: signed.len() })
        }
    }
}

/// The note with the cosignature of one witness, or `None` if it gave none.
async fn ask(
    client: &dyn WitnessClient,
    key: &NoteKey,
    asked: &mut Asked,
    note: &Note,
    prover: &FromTiles<'_>,
) -> Option<Note> {
    let (mut cosigned, checkpoint) = (note.clone(), prover.checkpoint);
    match cosign(client, key, asked.size.unwrap_or(0), &mut cosigned, prover).await {
        Ok(size) => {
            asked.has_cosigned(size);
            return Some(cosigned);
        }
        // Somebody has the log's key, or the lock store was restored from a copy.
        Err(error @ CosignError::Ahead { .. }) => {
            tracing::error!(witness = %key.name(), %checkpoint, %error, "a witness has seen more of the log than there is");
        }
        Err(error) => tracing::warn!(witness = %key.name(), %checkpoint, %error, "a witness has not cosigned"),
    }
    asked.has_failed();
    None
}

/// Makes consistency proofs from the public tiles of a checkpoint.
struct FromTiles<'a> {
    site: &'a LogSite,
    checkpoint: &'a Checkpoint,
}

#[async_trait]
impl ConsistencyProver for FromTiles<'_> {
    async fn prove(&self, old: u64, _: u64) -> Result<Vec<TreeHash>, String> {
        self.consistency(old).await.map_err(|error| error.to_string())
    }
}

impl FromTiles<'_> {
    async fn consistency(&self, old: u64) -> Result<Vec<TreeHash>, CosigningError> {
        let plan = ProofPlan::consistency(old, self.checkpoint.size).map_err(ProveError::from)?;
        let mut tiles = TileSet::new(self.checkpoint.size);
        for path in tiles.needed(&plan) {
            let mut bytes = self.site.tiles.read(&name(&self.checkpoint.origin, &path)).await?;
            if bytes.is_none() {
                bytes = self.site.tiles.read(&name(&self.checkpoint.origin, &path.full())).await?;
            }
            tiles.insert(path, &bytes.ok_or(ProveError::Missing { path })?).map_err(ProveError::from)?;
        }
        Ok(tiles.from_size(old, self.checkpoint)?)
    }
}

/// Why a witness gets no proof.
#[derive(Debug, Error)]
enum CosigningError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Prove(#[from] ProveError),
}
