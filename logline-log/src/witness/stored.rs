//! The state of a witness in a lock store: one record for each log, the last checkpoint that was cosigned.

use std::sync::Arc;

use async_trait::async_trait;

use crate::checkpoint::Checkpoint;
use crate::hash::TreeHash;
use crate::note::{KeyName, Note};
use crate::store::LockStore;
use crate::witness::rules::{Seen, WitnessError, WitnessState};

/// Keeps what a witness has cosigned in a [`LockStore`], which is never restored from a copy: a witness that was set back would cosign a
/// second history.
#[derive(Clone)]
pub struct StoredWitness {
    locks: Arc<dyn LockStore>,
}

impl StoredWitness {
    /// The state in this store. No other witness, and no log, may use the same one.
    pub fn new(locks: Arc<dyn LockStore>) -> Self {
        Self { locks }
    }

    async fn load(&self, origin: &KeyName) -> Result<Option<(Vec<u8>, Seen)>, WitnessError> {
        let state = |reason: String| WitnessError::State { reason };
        let bytes = self.locks.load(&name(origin)).await.map_err(|error| state(error.to_string()))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let damaged =
            || state(format!("the record of log `{origin}` is damaged: nothing is cosigned for it until a person has looked"));
        let note = Note::parse(&bytes).map_err(|_| damaged())?;
        let checkpoint = Checkpoint::of(&note).ok().filter(|checkpoint| checkpoint.origin == *origin).ok_or_else(damaged)?;
        Ok(Some((bytes, Seen { size: checkpoint.size, root: checkpoint.root, checkpoint: note })))
    }
}

/// An origin may have characters that the name of a file may not have.
fn name(origin: &KeyName) -> String {
    TreeHash::leaf(origin.as_str().as_bytes()).to_hex()
}

#[async_trait]
impl WitnessState for StoredWitness {
    async fn last(&self, origin: &KeyName) -> Result<Option<Seen>, WitnessError> {
        Ok(self.load(origin).await?.map(|(_, seen)| seen))
    }

    async fn advance(&self, origin: &KeyName, old_size: u64, next: &Seen) -> Result<bool, WitnessError> {
        let last = self.load(origin).await?;
        if last.as_ref().map_or(0, |(_, seen)| seen.size) != old_size {
            return Ok(false);
        }
        let old = last.as_ref().map(|(bytes, _)| bytes.as_slice());
        let new = next.checkpoint.to_string();
        let swapped = self.locks.swap(&name(origin), old, new.as_bytes()).await;
        swapped.map_err(|error| WitnessError::State { reason: error.to_string() })
    }
}
