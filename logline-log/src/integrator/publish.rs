//! From what was signed to what is public: tiles first, then the checkpoint, and never back.

use async_trait::async_trait;
use thiserror::Error;

use crate::checkpoint::Checkpoint;
use crate::hash::TreeHash;
use crate::integrator::error::IntegrateError;
use crate::integrator::record::LockRecord;
use crate::integrator::{Integrator, LogSite};
use crate::note::{KeyName, Note};
use crate::store::StoreError;
use crate::tile::{GrowthError, ProveError, TilePath, TileSet};
use crate::tree::ProofPlan;
use crate::witness::{ConsistencyProver, cosign};

/// The public name of a tile.
pub(super) fn name(origin: &KeyName, path: &TilePath) -> String {
    format!("{origin}/{path}")
}

/// The public name of the checkpoint.
fn checkpoint_name(origin: &KeyName) -> String {
    format!("{origin}/checkpoint")
}

fn staging(origin: &KeyName) -> String {
    format!("staging/{origin}")
}

/// The name of a tile before it is public.
pub(super) fn staged(checkpoint: &Checkpoint, path: &TilePath) -> String {
    format!("{}/{:020}-{}/{path}", staging(&checkpoint.origin), checkpoint.size, checkpoint.root.to_hex())
}

/// How often a publication looks whether another integrator was faster.
const LOOKS: usize = 8;

impl Integrator {
    /// Makes everything public that belongs to a signed checkpoint. It may be called again, by anybody, after a crash anywhere in it.
    pub(super) async fn finish(&mut self, note: &Note, checkpoint: &Checkpoint) -> Result<(), IntegrateError> {
        let (mut note, mut checkpoint) = (note.clone(), checkpoint.clone());
        for _ in 0..LOOKS {
            let published = self.published(&checkpoint.origin).await?;
            if let Some(published) = &published {
                let is_same = published.size == checkpoint.size && published.root == checkpoint.root;
                if is_same {
                    return self.clean(&checkpoint).await;
                }
                if published.size >= checkpoint.size {
                    // Another integrator has gone on, or the lock store was set back.
                    return self.look_again(published, &checkpoint).await;
                }
            }
            self.copy_staged(published.map_or(0, |published| published.size), &checkpoint).await?;
            let cosigned = self.cosigned(&note, &checkpoint).await;
            self.site.tiles.replace(&checkpoint_name(&checkpoint.origin), cosigned.to_string().as_bytes()).await?;
            // An integrator that was stopped for a while may have written an older checkpoint over a newer one just now. Whoever writes
            // looks afterwards, so the last one to write puts it right.
            let Some(bytes) = self.site.locks.load(&self.lock).await? else { return Ok(()) };
            let record = LockRecord::parse(&bytes)?;
            let newest = Checkpoint::of(&record.checkpoint)?;
            if newest.origin != checkpoint.origin {
                return Ok(());
            }
            (note, checkpoint) = (record.checkpoint, newest);
        }
        Ok(())
    }

    async fn look_again(&self, published: &Checkpoint, checkpoint: &Checkpoint) -> Result<(), IntegrateError> {
        let set_back = || IntegrateError::SetBack { published: published.clone(), signed: checkpoint.clone() };
        let bytes = self.site.locks.load(&self.lock).await?.ok_or_else(set_back)?;
        let signed = Checkpoint::of(&LockRecord::parse(&bytes)?.checkpoint)?;
        let has_gone_on = signed.origin != published.origin || signed.size > published.size || signed == *published;
        if has_gone_on { Ok(()) } else { Err(set_back()) }
    }

    /// The published checkpoint, which must be by the log's key; `None` if there is none.
    async fn published(&self, origin: &KeyName) -> Result<Option<Checkpoint>, IntegrateError> {
        let Some(bytes) = self.site.tiles.read(&checkpoint_name(origin)).await? else { return Ok(None) };
        let (checkpoint, _) = Checkpoint::verify(&Note::parse(&bytes)?, &self.key(origin)?, &[])?;
        Ok(Some(checkpoint))
    }

    async fn copy_staged(&self, published: u64, checkpoint: &Checkpoint) -> Result<(), IntegrateError> {
        for path in TilePath::added(published, checkpoint.size) {
            if self.tile(&checkpoint.origin, path).await?.is_some() {
                continue;
            }
            let staged = self.site.tiles.read(&staged(checkpoint, &path)).await?;
            match staged {
                Some(bytes) => self.site.tiles.create(&name(&checkpoint.origin, &path), &bytes).await?,
                // Another integrator may have copied it, and cleaned up, between both reads.
                None if self.tile(&checkpoint.origin, path).await?.is_some() => {}
                None => return Err(GrowthError::Missing { path }.into()),
            }
        }
        Ok(())
    }

    /// Removes what was staged for this checkpoint and older ones. What has a larger size may be about to be signed.
    async fn clean(&self, published: &Checkpoint) -> Result<(), IntegrateError> {
        let folder = staging(&published.origin);
        for name in self.site.tiles.list(&folder).await? {
            let size = name.split('-').next().and_then(|size| size.parse::<u64>().ok());
            if size.is_some_and(|size| size <= published.size) {
                self.site.tiles.remove(&format!("{folder}/{name}")).await?;
            }
        }
        Ok(())
    }

    /// The checkpoint with the cosignatures of the witnesses that answer.
    async fn cosigned(&mut self, note: &Note, checkpoint: &Checkpoint) -> Note {
        let mut note = note.clone();
        let prover = FromTiles { site: &self.site, checkpoint };
        for ((key, client), known) in self.site.witnesses.iter().zip(&mut self.cosigned) {
            match cosign(client.as_ref(), key, *known, &mut note, &prover).await {
                Ok(size) => *known = size,
                Err(error) => tracing::warn!(witness = %key.name(), %checkpoint, %error, "a witness has not cosigned"),
            }
        }
        note
    }
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
