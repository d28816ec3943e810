//! From what was signed to what is public: tiles first, then the checkpoint, and never back.

use crate::checkpoint::Checkpoint;
use crate::integrator::error::IntegrateError;
use crate::integrator::record::LockRecord;
use crate::integrator::{Integrator, LogSite};
use crate::note::{KeyName, Note};
use crate::tile::{GrowthError, TilePath, TileSet};
use crate::tree::ProofPlan;
use crate::witness::cosign;

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
        for ((key, client), known) in self.site.witnesses.iter().zip(&mut self.cosigned) {
            let site = &self.site;
            let prove = async |old: u64, _: u64| prove(site, old, checkpoint).await.map_err(|error| error.to_string());
            match cosign(client.as_ref(), key, *known, &mut note, prove).await {
                Ok(size) => *known = size,
                Err(error) => tracing::warn!(witness = %key.name(), %checkpoint, %error, "a witness has not cosigned"),
            }
        }
        note
    }
}

async fn prove(site: &LogSite, old: u64, checkpoint: &Checkpoint) -> Result<Vec<crate::hash::TreeHash>, IntegrateError> {
    let proof = |error: crate::tile::ProveError| IntegrateError::Record { reason: error.to_string() };
    let plan = ProofPlan::consistency(old, checkpoint.size).map_err(|error| proof(error.into()))?;
    let mut tiles = TileSet::new(checkpoint.size);
    for path in tiles.needed(&plan) {
        let narrow = site.tiles.read(&name(&checkpoint.origin, &path)).await?;
        let bytes = match narrow {
            Some(bytes) => bytes,
            None => site.tiles.read(&name(&checkpoint.origin, &path.full())).await?.ok_or(GrowthError::Missing { path })?,
        };
        tiles.insert(path, &bytes).map_err(GrowthError::from)?;
    }
    tiles.from_size(old, checkpoint).map_err(proof)
}
