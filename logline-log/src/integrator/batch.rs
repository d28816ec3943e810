//! One batch: rows of the ledger, and the files of the tree that they grow.

use futures_util::future::try_join_all;
use logline_core::ledger::{Cursor, Ledger, LedgerError, Query};
use logline_core::{Scope, VerifiedSpan, Verifier};

use crate::checkpoint::Checkpoint;
use crate::integrator::LogSite;
use crate::integrator::error::IntegrateError;
use crate::integrator::publish;
use crate::leaf::{Entry, Leaf};
use crate::note::KeyName;
use crate::tile::{Bundle, Growth, TileKind, TilePath, Written};

/// How many files are written at the same time.
const WRITES: usize = 16;

/// The next rows of a tenant, verified.
pub(super) struct Rows(Vec<(Cursor, VerifiedSpan)>);

impl Rows {
    /// Reads and verifies up to `limit` rows after a position.
    pub(super) async fn read(
        ledger: &dyn Ledger,
        tenant: &str,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Self, IntegrateError> {
        let (mut rows, mut verifier) = (Vec::new(), Verifier::new());
        let mut cursor = after.cloned();
        while rows.len() < limit {
            let query = Query::timeline().tenant(tenant).limit(limit - rows.len());
            let page = ledger.scan(&Scope::runtime(tenant), &query, cursor.as_ref()).await?;
            for row in page.rows {
                let span = row.span.map_err(LedgerError::from)?;
                let span = span.try_verify(&mut verifier).map_err(|rejected| {
                    let key = rejected.span.key();
                    IntegrateError::Row { key, source: rejected.error }
                })?;
                rows.push((row.cursor, span));
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(Self(rows))
    }

    pub(super) fn cursored(&self) -> impl Iterator<Item = (&Cursor, &VerifiedSpan)> {
        self.0.iter().map(|(cursor, span)| (cursor, span))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn spans(&self) -> impl Iterator<Item = &VerifiedSpan> {
        self.0.iter().map(|(_, span)| span)
    }

    /// Whether these rows are worth a checkpoint. Spans that record checkpoints are not, or a log would grow for ever by itself; they are
    /// entered with the next other span.
    pub(super) fn ask_for_a_checkpoint(&self, limit: usize) -> bool {
        self.0.len() >= limit || self.spans().any(|span| span.entity_type != "checkpoint")
    }

    /// The positions before the last row, and after it.
    pub(super) fn cursors(&self, before: Option<&Cursor>) -> (Option<Cursor>, Option<Cursor>) {
        let mut newest = self.0.iter().rev().map(|(cursor, _)| cursor.clone());
        let after = newest.next();
        (newest.next().or_else(|| before.cloned()), after)
    }
}

/// A tree with new leaves, and the files that it gets.
pub(super) struct Batch {
    growth: Growth,
    full: Vec<Written>,
    old: u64,
}

impl Batch {
    pub(super) fn of(growth: Growth) -> Self {
        Self { old: growth.size(), growth, full: Vec::new() }
    }

    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), IntegrateError> {
        let bytes = entry.to_bytes();
        let full = &mut self.full;
        if self.growth.push(&bytes, |file| full.push(file)) {
            Ok(())
        } else {
            Err(IntegrateError::TooLong { bytes: bytes.len() })
        }
    }

    pub(super) fn checkpoint(&self, origin: &KeyName) -> Checkpoint {
        Checkpoint { origin: origin.clone(), size: self.growth.size(), root: self.growth.root() }
    }

    pub(super) fn into_growth(self) -> Growth {
        self.growth
    }

    /// The files that the tree did not have before.
    fn files(&self) -> Vec<Written> {
        let partial = self.growth.partial().into_iter().filter(|file| Some(file.path) != self.had(&file.path));
        self.full.iter().cloned().chain(partial).collect()
    }

    fn had(&self, path: &TilePath) -> Option<TilePath> {
        TilePath::of(path.kind, path.index, self.old)
    }

    /// Writes the files to the folder of this size and root.
    pub(super) async fn stage(&self, site: &LogSite, checkpoint: &Checkpoint) -> Result<(), IntegrateError> {
        write_all(site, self.files(), |path| publish::staged(checkpoint, path)).await
    }

    /// Reads the staged files back and builds the tree again from them.
    pub(super) async fn rehash(
        &self,
        site: &LogSite,
        checkpoint: &Checkpoint,
        old: &Growth,
        rows: &Rows,
    ) -> Result<(), IntegrateError> {
        let changed = |what: String| IntegrateError::Rehash { what };
        let mut again = Self::of(old.clone());
        let mut rows = rows.spans();
        for file in self.files() {
            let name = publish::staged(checkpoint, &file.path);
            let bytes = site.tiles.read(&name).await?.ok_or_else(|| changed(name.clone()))?;
            if bytes != file.bytes {
                return Err(changed(name));
            }
            if file.path.kind != TileKind::Entries {
                continue;
            }
            let bundle = Bundle::parse(file.path, &bytes).map_err(|_| changed(name.clone()))?;
            let known = again.growth.size().saturating_sub(file.path.index * crate::tile::WIDTH);
            for entry in bundle.entries().iter().skip(usize::try_from(known).unwrap_or(usize::MAX)) {
                let row = rows.next().ok_or_else(|| changed(name.clone()))?;
                if *entry != Leaf::of(row).to_bytes() {
                    return Err(changed(format!("the entry of {}", row.key())));
                }
                again.push(&Entry::Span(Leaf::of(row)))?;
            }
        }
        if rows.next().is_some() || again.growth != self.growth || again.files() != self.files() {
            return Err(changed(format!("the tree of {checkpoint}")));
        }
        Ok(())
    }

    /// Writes the files to their public names, and deletes narrow tiles that are full now.
    pub(super) async fn copy(&self, site: &LogSite, last: &Checkpoint, checkpoint: &Checkpoint) -> Result<(), IntegrateError> {
        write_all(site, self.files(), |path| publish::name(&checkpoint.origin, path)).await?;
        for file in &self.full {
            if TilePath::of(file.path.kind, file.path.index, last.size).is_some() {
                // Readers of older checkpoints take the full tile.
                let narrow = format!("{}.p", publish::name(&checkpoint.origin, &file.path));
                site.tiles.remove(&narrow).await?;
            }
        }
        Ok(())
    }
}

async fn write_all(site: &LogSite, files: Vec<Written>, name: impl Fn(&TilePath) -> String) -> Result<(), IntegrateError> {
    let files: Vec<_> = files.into_iter().map(|file| (name(&file.path), file.bytes)).collect();
    for part in files.chunks(WRITES) {
        try_join_all(part.iter().map(|(name, bytes)| site.tiles.create(name, bytes))).await?;
    }
    Ok(())
}
