//! From what was signed to what is public: tiles first, then the checkpoint, and never back.

use crate::checkpoint::Checkpoint;
use crate::integrator::Integrator;
use crate::integrator::error::IntegrateError;
use crate::integrator::record::LockRecord;
use crate::note::{KeyName, Note};
use crate::tile::{GrowthError, TilePath};

/// The public name of a tile.
pub(super) fn name(origin: &KeyName, path: &TilePath) -> String {
    format!("{origin}/{path}")
}

/// The public name of the checkpoint.
pub(super) fn checkpoint_name(origin: &KeyName) -> String {
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
            let size = published.as_ref().map_or(0, |(_, published)| published.size);
            match published {
                Some((found, published)) if published.size == checkpoint.size && published.root == checkpoint.root => {
                    self.clean(&checkpoint).await?;
                    let found = self.note_cosignatures(found, &checkpoint);
                    let count = found.signatures().len();
                    let cosigned = self.cosigned(&found, &checkpoint).await;
                    if cosigned.signatures().len() == count {
                        return Ok(());
                    }
                    note = cosigned;
                }
                // Another integrator has gone on, or the lock store was set back.
                Some((_, published)) if published.size >= checkpoint.size => {
                    return self.look_again(&published, &checkpoint).await;
                }
                _ => {
                    self.copy_staged(size, &checkpoint).await?;
                    note = self.cosigned(&note, &checkpoint).await;
                    self.check_quorum(&note, &checkpoint)?;
                }
            }
            self.site.tiles.replace(&checkpoint_name(&checkpoint.origin), note.to_string().as_bytes()).await?;
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
    pub(super) async fn published(&self, origin: &KeyName) -> Result<Option<(Note, Checkpoint)>, IntegrateError> {
        let Some(bytes) = self.site.tiles.read(&checkpoint_name(origin)).await? else { return Ok(None) };
        let note = Note::parse(&bytes)?;
        let (checkpoint, _) = Checkpoint::verify(&note, &self.key(origin)?, &[])?;
        Ok(Some((note, checkpoint)))
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
}
