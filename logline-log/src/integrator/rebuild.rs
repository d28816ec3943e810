//! Makes the files of a log again from the rows of the ledger, after they were lost or damaged.

use std::collections::HashMap;

use logline_core::Hash;
use logline_core::ledger::Cursor;

use crate::checkpoint::Checkpoint;
use crate::integrator::batch::Rows;
use crate::integrator::error::IntegrateError;
use crate::integrator::record::LockRecord;
use crate::integrator::{Integrator, publish};
use crate::leaf::{Entry, Leaf};
use crate::note::{KeyName, Note};
use crate::tile::{Bundle, Growth, TileContent, TileKind, TilePath, Written};

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebuilt {
    /// The last signed checkpoint, to which the files lead.
    pub checkpoint: Checkpoint,
    /// How many files it needs.
    pub files: u64,
    /// How many of them were missing.
    pub missing: u64,
    /// How many had other bytes.
    pub damaged: u64,
}

impl Integrator {
    /// Makes the tiles and bundles of the last signed checkpoint again from the rows of the ledger, and publishes the checkpoint if that is
    /// not done. Files that have other bytes are replaced. Nothing is written unless the rows lead to exactly the root that was signed.
    ///
    /// The first entry of a log that was [begun again](Integrator::begin_again) is the last checkpoint of the log before. It is no row: it is
    /// read from the first bundle, or it is `continues`.
    ///
    /// # Errors
    /// [`IntegrateError::OtherRows`], [`IntegrateError::Restored`] and [`IntegrateError::FirstEntry`] if the ledger does not have what was
    /// entered; otherwise what failed. It may be called again.
    pub async fn rebuild(&mut self, continues: Option<&Note>) -> Result<Rebuilt, IntegrateError> {
        self.held = None;
        let bytes = self.site.locks.load(&self.lock).await?.ok_or(IntegrateError::NoLog)?;
        let record = LockRecord::parse(&bytes)?;
        let checkpoint = self.verified(&record)?;
        let first = match continues {
            Some(note) => Some(Entry::Continues(as_signed(note)?.to_string().into_bytes())),
            None => self.first_entry(&checkpoint).await?,
        };
        // What each file must be. Nothing is written before all of them are known to belong to the signed root.
        let mut expected: HashMap<TilePath, Hash> = HashMap::new();
        let mut again = Again::new(self, &record, &checkpoint, first.as_ref())?;
        while let Some(files) = again.next().await? {
            expected.extend(files.iter().map(|file| (file.path, Hash::of(&file.bytes))));
        }
        let growth = again.growth;
        if growth.size().saturating_add(1) == checkpoint.size && first.is_none() {
            return Err(IntegrateError::FirstEntry { checkpoint });
        }
        if (growth.size(), growth.root()) != (checkpoint.size, checkpoint.root) {
            return Err(IntegrateError::OtherRows { checkpoint, rows: growth.size(), found: growth.root() });
        }
        let mut rebuilt = Rebuilt { checkpoint: checkpoint.clone(), files: 0, missing: 0, damaged: 0 };
        let mut again = Again::new(self, &record, &checkpoint, first.as_ref())?;
        while let Some(files) = again.next().await? {
            for file in files {
                // A row that changes between the two readings must not reach a public file.
                if expected.get(&file.path) != Some(&Hash::of(&file.bytes)) {
                    return Err(IntegrateError::Rehash { what: format!("`{}`", file.path) });
                }
                self.put_back(&checkpoint.origin, &file, &mut rebuilt).await?;
            }
        }
        match self.published(&checkpoint.origin).await {
            // What is there is no checkpoint of this log: cosignatures are asked for again.
            Err(IntegrateError::Note(_) | IntegrateError::Checkpoint(_)) => {
                let note = self.cosigned(&record.checkpoint, &checkpoint).await;
                self.check_quorum(&note, &checkpoint)?;
                self.site.tiles.replace(&publish::checkpoint_name(&checkpoint.origin), note.to_string().as_bytes()).await?;
            }
            published => drop(published?),
        }
        self.finish(&record.checkpoint, &checkpoint).await?;
        self.resume(&checkpoint).await?;
        tracing::info!(%checkpoint, missing = rebuilt.missing, damaged = rebuilt.damaged, "the files of a log were made again");
        Ok(rebuilt)
    }

    /// The first entry, if it is the checkpoint of another log and the first bundle has it still.
    async fn first_entry(&self, checkpoint: &Checkpoint) -> Result<Option<Entry>, IntegrateError> {
        let Some(path) = TilePath::of(TileKind::Entries, 0, checkpoint.size) else { return Ok(None) };
        let Some(bytes) = self.tile(&checkpoint.origin, path).await? else { return Ok(None) };
        let bundle = Bundle::parse(path, &bytes).ok();
        let first = bundle.and_then(|bundle| Entry::parse(bundle.entries().first()?).ok());
        Ok(first.filter(|entry| matches!(entry, Entry::Continues(_))))
    }

    /// Writes a file whose bytes are known to be those that were signed.
    async fn put_back(&self, origin: &KeyName, file: &Written, rebuilt: &mut Rebuilt) -> Result<(), IntegrateError> {
        let tiles = &self.site.tiles;
        rebuilt.files += 1;
        let name = publish::name(origin, &file.path);
        match tiles.read(&name).await? {
            Some(found) if found == file.bytes => {}
            Some(_) => {
                tiles.replace(&name, &file.bytes).await?;
                rebuilt.damaged += 1;
            }
            None => {
                tiles.create(&name, &file.bytes).await?;
                rebuilt.missing += 1;
            }
        }
        let narrow = format!("{}.p", publish::name(origin, &file.path.full()));
        if file.path.is_full() {
            // Readers of older checkpoints take the full one.
            return Ok(tiles.remove(&narrow).await?);
        }
        for width in tiles.list(&narrow).await? {
            let Some(width) = width.parse::<u16>().ok().filter(|width| *width < file.path.width) else { continue };
            let path = TilePath { width, ..file.path };
            let (name, bytes) = (publish::name(origin, &path), first_part(file, path)?);
            if tiles.read(&name).await?.as_ref() != Some(&bytes) {
                tiles.replace(&name, &bytes).await?;
                rebuilt.damaged += 1;
            }
        }
        Ok(())
    }
}

/// A narrower file, for readers of older checkpoints, from a wider one.
fn first_part(file: &Written, path: TilePath) -> Result<Vec<u8>, IntegrateError> {
    let width = usize::from(path.width);
    let of = |error| IntegrateError::Tiles(crate::tile::GrowthError::Tile(error));
    match path.kind {
        TileKind::Hashes(_) => {
            let content = TileContent::parse(file.path, &file.bytes).map_err(of)?;
            Ok(content.hashes().iter().take(width).flat_map(|hash| hash.0).collect())
        }
        TileKind::Entries => {
            let mut bytes = Vec::new();
            for entry in Bundle::parse(file.path, &file.bytes).map_err(of)?.entries().iter().take(width) {
                Bundle::write(entry, &mut bytes);
            }
            Ok(bytes)
        }
    }
}

/// A checkpoint with the log's own signature alone, as the next log has entered it.
fn as_signed(note: &Note) -> Result<Note, IntegrateError> {
    let origin = Checkpoint::of(note)?.origin;
    let mut signed = Note::new(note.text())?;
    for line in note.signatures().iter().filter(|line| *line.name() == origin) {
        signed.push(line.clone())?;
    }
    Ok(signed)
}

/// Grows the tree of a checkpoint again, batch by batch.
struct Again<'i> {
    integrator: &'i Integrator,
    growth: Growth,
    checkpoint: &'i Checkpoint,
    after: Option<Cursor>,
    /// The position of the last row that was entered; `None` after it.
    end: Option<Cursor>,
    is_over: bool,
}

impl<'i> Again<'i> {
    fn new(
        integrator: &'i Integrator,
        record: &LockRecord,
        checkpoint: &'i Checkpoint,
        first: Option<&Entry>,
    ) -> Result<Self, IntegrateError> {
        let mut growth = Growth::new();
        if let Some(first) = first.map(Entry::to_bytes)
            && !growth.push(&first, |_| ())
        {
            return Err(IntegrateError::TooLong { bytes: first.len() });
        }
        Ok(Self { integrator, growth, checkpoint, after: None, end: record.after.clone(), is_over: false })
    }

    /// The next files; `None` at the end. The last ones are those that are not full.
    async fn next(&mut self) -> Result<Option<Vec<Written>>, IntegrateError> {
        let Some(end) = &self.end else {
            let is_over = std::mem::replace(&mut self.is_over, true);
            return Ok((!is_over).then(|| self.growth.partial()));
        };
        let Integrator { ledger, tenant, site, .. } = self.integrator;
        let rows = Rows::read(ledger.as_ref(), tenant, self.after.as_ref(), site.batch).await?;
        let mut files = Vec::new();
        for (cursor, row) in rows.cursored() {
            let entry = Leaf::of(row).to_bytes();
            if !self.growth.push(&entry, |file| files.push(file)) {
                return Err(IntegrateError::TooLong { bytes: entry.len() });
            }
            self.after = Some(cursor.clone());
            if cursor == end {
                self.end = None;
                return Ok(Some(files));
            }
        }
        if rows.is_empty() {
            let (tenant, checkpoint) = (tenant.clone(), self.checkpoint.clone());
            return Err(IntegrateError::Restored { tenant, checkpoint });
        }
        Ok(Some(files))
    }
}
