//! The integrator: puts the spans of one tenant into its log, batch by batch.
//!
//! It may crash at any point, and several hosts may run it for one tenant. The order of its writes makes that safe:
//!
//! 1. **Stage**: the new tiles are written to a folder that is named by the size and the root of the new tree.
//! 2. **Re-hash**: what was staged is read back and hashed again, and compared with the rows. A bit that flipped on the way is noticed
//!    before anything is signed.
//! 3. **Sign and swap**: the signed checkpoint replaces the last one in the lock store, if that is still the one that this tree continues.
//!    Of two integrators one wins, and the other has signed something that nobody has seen and forgets it.
//! 4. **Copy**: the tiles go to their public names. After a crash, the next integrator finds them staged.
//! 5. **Publish**: the checkpoint, after all the tiles that it needs.
//!
//! INVARIANT: a checkpoint leaves the process only through the lock store, and each one there continues the one before.

mod batch;
mod cosigning;
mod error;
mod missing;
mod publish;
mod rebuild;
mod record;

use std::fmt;
use std::sync::Arc;

use logline_core::ledger::{Cursor, Ledger, Query};
use logline_core::{Hash, Scope, Signer};

pub use error::IntegrateError;
pub use missing::Missing;
pub use rebuild::Rebuilt;

use crate::checkpoint::{Checkpoint, random_origin};
use crate::integrator::batch::{Batch, Rows};
use crate::integrator::cosigning::Asked;
use crate::integrator::record::LockRecord;
use crate::leaf::{Entry, Leaf};
use crate::note::{KeyKind, KeyName, Note, NoteKey};
use crate::policy::Policy;
use crate::store::{LockStore, TileStore};
use crate::tile::{Bundle, Growth, TileKind, TilePath};
use crate::witness::WitnessClient;

/// Where logs lie and who signs them: the same for all tenants of a host.
#[derive(Clone)]
pub struct LogSite {
    tiles: Arc<dyn TileStore>,
    locks: Arc<dyn LockStore>,
    signer: Arc<dyn Signer>,
    witnesses: Vec<(NoteKey, Arc<dyn WitnessClient>)>,
    quorum: Option<Policy>,
    batch: usize,
}

impl LogSite {
    /// Logs in these stores, signed by this key. The key must sign nothing but checkpoints: their text is signed as it is.
    pub fn new(tiles: Arc<dyn TileStore>, locks: Arc<dyn LockStore>, signer: Arc<dyn Signer>) -> Self {
        Self { tiles, locks, signer, witnesses: Vec::new(), quorum: None, batch: 4096 }
    }

    /// Adds a witness that is asked to cosign each checkpoint before it is published. All are asked at once. One that does not answer is
    /// left alone for a while, and the checkpoint is published without its cosignature, which is added when it answers again.
    #[must_use]
    pub fn witness(mut self, key: NoteKey, client: Arc<dyn WitnessClient>) -> Self {
        self.witnesses.push((key, client));
        self
    }

    /// Publishes no checkpoint before the witnesses have reached the quorum of this policy. Until then the log does not grow, and readers
    /// see the checkpoint before. The policy's logs do not matter here, because origins are random. Its witnesses must have been added by
    /// [`witness`](Self::witness), or the quorum is never reached.
    #[must_use]
    pub fn quorum(mut self, policy: Policy) -> Self {
        self.quorum = Some(policy);
        self
    }

    /// Sets the most spans of one checkpoint; 1 to 65,536. Default 4096.
    #[must_use]
    pub fn batch(mut self, spans: usize) -> Self {
        self.batch = spans.clamp(1, 65_536);
        self
    }
}

impl fmt::Debug for LogSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSite")
            .field("key", &self.signer.public_key())
            .field("witnesses", &self.witnesses.len())
            .finish_non_exhaustive()
    }
}

/// The checkpoint of a tenant's log that was signed last, as the lock store has it; `None` if the tenant has no log. It may not be
/// published yet.
///
/// # Errors
/// If the store fails, or the record is damaged.
pub async fn last_signed(locks: &dyn LockStore, tenant: &str) -> Result<Option<Note>, IntegrateError> {
    let bytes = locks.load(&lock_name(tenant)).await?;
    bytes.map(|bytes| LockRecord::parse(&bytes).map(|record| record.checkpoint)).transpose()
}

/// A tenant's name may have characters that the name of a file may not have.
fn lock_name(tenant: &str) -> String {
    Hash::of(tenant.as_bytes()).to_string()
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The log has every span that there is.
    Idle,
    /// The log was begun: it has no leaves yet.
    Begun(Checkpoint),
    /// So many spans were entered under this checkpoint.
    Integrated {
        /// The number of spans.
        spans: u64,
        /// The checkpoint that covers them.
        checkpoint: Checkpoint,
    },
    /// Another integrator was first. Nothing was signed that anybody has seen.
    Lost,
}

/// The log of one tenant, as it was signed last.
struct Held {
    bytes: Vec<u8>,
    record: LockRecord,
    checkpoint: Checkpoint,
    growth: Growth,
}

/// Puts the spans of one tenant into its log.
pub struct Integrator {
    ledger: Arc<dyn Ledger>,
    site: LogSite,
    tenant: String,
    lock: String,
    /// `None` until it was read, and after every failure.
    held: Option<Held>,
    /// Whether the tenant is known to be new here.
    begins: bool,
    /// What is known of the witnesses.
    asked: Vec<Asked>,
}

impl Integrator {
    /// An integrator of this tenant's spans. It reads and writes nothing yet.
    pub fn new(ledger: Arc<dyn Ledger>, site: LogSite, tenant: impl Into<String>) -> Self {
        let tenant = tenant.into();
        let lock = lock_name(&tenant);
        let asked = site.witnesses.iter().map(|_| Asked::default()).collect();
        Self { ledger, site, tenant, lock, held: None, begins: false, asked }
    }

    /// Begins a log if the tenant has none, also in stores that are in use: somebody knows that the tenant is new there. Otherwise such a
    /// tenant is refused ([`IntegrateError::Missing`]), because its last signed checkpoint may be lost or on a disk that is not there.
    #[must_use]
    pub fn begins(mut self) -> Self {
        self.begins = true;
        self
    }

    /// Enters the next spans, at most one batch of them. A log that does not exist is begun first, in new stores or if the tenant
    /// [is new](Integrator::begins) there. Call it again until it returns
    /// [`Step::Idle`].
    ///
    /// # Errors
    /// [`IntegrateError`]. Nothing inconsistent was signed. [`IntegrateError::is_temporary`] says whether to call it again.
    pub async fn step(&mut self) -> Result<Step, IntegrateError> {
        let Some(held) = self.hold().await? else {
            if !self.begins {
                self.site.missing([&self.tenant]).await?.refuse(&self.tenant)?;
            }
            return self.begin(None).await;
        };
        let stepped = self.advance(&held).await?;
        if stepped == Step::Idle {
            if self.is_witness_due(&held.checkpoint) {
                self.finish(&held.record.checkpoint, &held.checkpoint).await?;
            }
            self.held = Some(held);
        }
        Ok(stepped)
    }

    /// Begins a new log whose first entry is the last checkpoint of the present one. The old log stays as it is, and nobody signs it
    /// again. All spans of the ledger are entered into the new one.
    ///
    /// Call it when the ledger or the lock store was restored from a copy, after you know what was lost, and when the log's key is
    /// replaced: the site then has the new key.
    ///
    /// # Errors
    /// [`IntegrateError`]. There must be a log.
    pub async fn begin_again(&mut self) -> Result<Step, IntegrateError> {
        self.held = None;
        let bytes = self.site.locks.load(&self.lock).await?.ok_or(IntegrateError::NoLog)?;
        let last = LockRecord::parse(&bytes)?;
        self.begin(Some((bytes, last.checkpoint))).await
    }

    async fn begin(&mut self, last: Option<(Vec<u8>, Note)>) -> Result<Step, IntegrateError> {
        let origin = random_origin().map_err(|error| IntegrateError::Random { reason: error.to_string() })?;
        let mut batch = Batch::of(Growth::new());
        if let Some((_, note)) = &last {
            batch.push(&Entry::Continues(note.to_string().into_bytes()))?;
        }
        let (bytes, record, checkpoint) = self.sign(&origin, &batch, None, None).await?;
        // The witnesses have seen nothing of this log.
        self.asked = self.site.witnesses.iter().map(|_| Asked::default()).collect();
        batch.stage(&self.site, &checkpoint).await?;
        let old = last.as_ref().map(|(bytes, _)| bytes.as_slice());
        if !self.site.locks.swap(&self.lock, old, &bytes).await? {
            return Ok(Step::Lost);
        }
        tracing::info!(%checkpoint, "a log was begun");
        self.finish(&record.checkpoint, &checkpoint).await?;
        Ok(Step::Begun(checkpoint))
    }

    /// The key under which this site signs a log.
    fn key(&self, origin: &KeyName) -> Result<NoteKey, IntegrateError> {
        Ok(NoteKey::new(origin.clone(), KeyKind::Log, self.site.signer.public_key())?)
    }

    /// Reads what was signed last, finishes its publication, and continues its tree. `None` if there is no log.
    async fn hold(&mut self) -> Result<Option<Held>, IntegrateError> {
        let held = self.held.take();
        let Some(bytes) = self.site.locks.load(&self.lock).await? else { return Ok(None) };
        if let Some(held) = held.filter(|held| held.bytes == bytes) {
            return Ok(Some(held));
        }
        let record = LockRecord::parse(&bytes)?;
        let checkpoint = self.verified(&record)?;
        self.finish(&record.checkpoint, &checkpoint).await?;
        let growth = self.resume(&checkpoint).await?;
        Ok(Some(Held { bytes, record, checkpoint, growth }))
    }

    /// The checkpoint of a record, which must be by the site's key.
    fn verified(&self, record: &LockRecord) -> Result<Checkpoint, IntegrateError> {
        let origin = Checkpoint::of(&record.checkpoint)?.origin;
        let verified = Checkpoint::verify(&record.checkpoint, &self.key(&origin)?, &[]);
        let (checkpoint, _) = verified.map_err(|source| IntegrateError::NotOurs { origin, source: Box::new(source) })?;
        Ok(checkpoint)
    }

    async fn resume(&self, checkpoint: &Checkpoint) -> Result<Growth, IntegrateError> {
        let mut files = std::collections::BTreeMap::new();
        for path in Growth::needed(checkpoint.size) {
            if let Some(bytes) = self.tile(&checkpoint.origin, path).await? {
                files.insert(path, bytes);
            }
        }
        Ok(Growth::resume(checkpoint.size, checkpoint.root, |path| files.get(path).cloned())?)
    }

    /// A public tile; the full one, if the narrow one was deleted since.
    async fn tile(&self, origin: &KeyName, path: TilePath) -> Result<Option<Vec<u8>>, IntegrateError> {
        let narrow = self.site.tiles.read(&publish::name(origin, &path)).await?;
        match narrow {
            None if !path.is_full() => Ok(self.site.tiles.read(&publish::name(origin, &path.full())).await?),
            found => Ok(found),
        }
    }

    async fn advance(&mut self, held: &Held) -> Result<Step, IntegrateError> {
        self.check_ledger(held).await?;
        let rows = Rows::read(self.ledger.as_ref(), &self.tenant, held.record.after.as_ref(), self.site.batch).await?;
        if !rows.ask_for_a_checkpoint(self.site.batch) {
            return Ok(Step::Idle);
        }
        let mut batch = Batch::of(held.growth.clone());
        for row in rows.spans() {
            batch.push(&Entry::Span(Leaf::of(row)))?;
        }
        // INVARIANT: the tree that is signed grew from the tree that was signed last.
        if held.growth.root() != held.checkpoint.root || held.growth.size() != held.checkpoint.size {
            return Err(IntegrateError::Rehash { what: "the tree that was signed last".to_owned() });
        }
        let (before, after) = rows.cursors(held.record.after.as_ref());
        let checkpoint = batch.checkpoint(&held.checkpoint.origin);
        let staged = match batch.stage(&self.site, &checkpoint).await {
            Ok(()) => batch.rehash(&self.site, &checkpoint, &held.growth, &rows).await,
            failed => failed,
        };
        if let Err(error) = staged {
            // Another integrator that went on may have cleaned up what this one was staging, or had staged.
            let has_gone_on = self.site.locks.load(&self.lock).await?.is_none_or(|bytes| bytes != held.bytes);
            return if has_gone_on { Ok(Step::Lost) } else { Err(error) };
        }
        let (bytes, record, checkpoint) = self.sign(&held.checkpoint.origin, &batch, before, after).await?;
        if !self.site.locks.swap(&self.lock, Some(&held.bytes), &bytes).await? {
            tracing::debug!(%checkpoint, "another integrator was first");
            return Ok(Step::Lost);
        }
        batch.copy(&self.site, &held.checkpoint, &checkpoint).await?;
        self.finish(&record.checkpoint, &checkpoint).await?;
        let spans = checkpoint.size - held.checkpoint.size;
        self.held = Some(Held { bytes, record, checkpoint: checkpoint.clone(), growth: batch.into_growth() });
        Ok(Step::Integrated { spans, checkpoint })
    }

    async fn sign(
        &self,
        origin: &KeyName,
        batch: &Batch,
        before: Option<Cursor>,
        after: Option<Cursor>,
    ) -> Result<(Vec<u8>, LockRecord, Checkpoint), IntegrateError> {
        let checkpoint = batch.checkpoint(origin);
        let mut note = checkpoint.to_note()?;
        note.sign(origin, self.site.signer.as_ref()).await?;
        let record = LockRecord { before, after, checkpoint: note };
        Ok((record.to_bytes(), record, checkpoint))
    }

    /// Checks that the ledger still has the last row that the log has, at the same place. A ledger that was restored from a copy lacks it,
    /// or has another one there.
    async fn check_ledger(&self, held: &Held) -> Result<(), IntegrateError> {
        let Some(after) = &held.record.after else { return Ok(()) };
        let restored = || IntegrateError::Restored { tenant: self.tenant.clone(), checkpoint: held.checkpoint.clone() };
        let query = Query::timeline().tenant(self.tenant.as_str()).limit(1);
        let page = self.ledger.scan(&Scope::runtime(&self.tenant), &query, held.record.before.as_ref()).await;
        let page = match page {
            // A cursor that this ledger has never given out.
            Err(logline_core::ledger::LedgerError::InvalidCursor { .. }) => return Err(restored()),
            page => page?,
        };
        let row = page.rows.into_iter().next().filter(|row| row.cursor == *after).ok_or_else(restored)?;
        let row = row.span.map_err(logline_core::ledger::LedgerError::from)?;
        let index = held.checkpoint.size - 1;
        let path = TilePath::of(TileKind::Entries, index / crate::tile::WIDTH, held.checkpoint.size);
        let path = path.ok_or_else(restored)?;
        let bytes = self.tile(&held.checkpoint.origin, path).await?.ok_or(crate::tile::GrowthError::Missing { path })?;
        let bundle = Bundle::parse(path, &bytes).map_err(crate::tile::GrowthError::from)?;
        if bundle.entries().last().is_some_and(|entry| *entry == Leaf::of(&row).to_bytes()) { Ok(()) } else { Err(restored()) }
    }
}

impl fmt::Debug for Integrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Integrator").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}
