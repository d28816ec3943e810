//! Encrypts, opens and destroys. Keys form three levels: the text of a record is encrypted under the record's key, that key under the key
//! of its subject, and that one under an epoch of the tenant's key, which a [`KeyProvider`] keeps. The two lower levels lie, wrapped, in a
//! [`KeyStore`] that can forget.
//!
//! Texts that need no row of their own (queries, answers) are **letters**: their key is derived from the subject's, so that they become
//! unreadable whenever the subject's key is replaced, that is with every act of forgetting.

mod age;
mod epochs;
mod forget;
mod letters;

use std::collections::BTreeMap;
use std::sync::Arc;

use logline_core::contract::{DataKey, Kept, KeyError, KeyProvider, KeyStore, MAX_KEY_PAGE, RecordKey, SubjectKey};
use logline_core::ledger::LedgerError;
use logline_core::{Hash, Timestamp};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::envelope::{self, EnvelopeError, Place};
use crate::wrap;

pub use epochs::Closed;
pub use forget::{Forget, Forgotten};

/// How often a change is tried that another one has overtaken.
const TRIES: u32 = 16;

/// What the tag of a record is made of, encrypted beside its key.
const NOTE: &str = "logline.note.v1";

/// Why a text was not encrypted or does not open. The message never contains a text or a key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The keys of the text are destroyed. A retry does not help.
    #[error("erased: the key of this text was destroyed, and nothing can open it")]
    Erased,
    /// The text does not open.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The tenant's key cannot be used. Nothing is written without it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store of wrapped keys failed.
    #[error("the store of wrapped keys: {0}")]
    Store(#[from] LedgerError),
    /// The vault has no keys. A retry does not help.
    #[error("this host was set up without keys for memories")]
    NoKeys,
    /// The key of a subject does not open, so that its epoch cannot end. A retry does not help.
    #[error(
        "the key of subject `{subject}` in epoch {epoch} is damaged, so the epoch cannot end: restore the store of keys from a backup that \
         is newer than the last end of an epoch, or forget everything of this user"
    )]
    Damaged {
        /// The subject.
        subject: String,
        /// The epoch.
        epoch: u64,
    },
    /// Others changed the same keys again and again.
    #[error("the subject's keys are being changed by others: try again later")]
    Busy,
}

impl VaultError {
    /// Whether it concerns this text alone, which nothing opens as things are: its key is destroyed, or the text or its key is damaged.
    #[must_use]
    pub fn is_of_text(&self) -> bool {
        matches!(self, Self::Erased | Self::Envelope(_) | Self::Key(KeyError::NotOpened))
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Erased | Self::Envelope(_) | Self::NoKeys | Self::Damaged { .. } => false,
            Self::Key(error) => matches!(error, KeyError::Unavailable { .. }),
            Self::Store(error) => error.retry() == logline_core::ledger::Retry::Later,
            Self::Busy => true,
        }
    }
}

/// A text that is to be opened.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'e> {
    /// The span that it stands in.
    pub span: Uuid,
    /// The member of the span.
    pub field: &'e str,
    /// The envelope.
    pub envelope: &'e [u8],
}

/// A text in the clear. It is cleared from memory when it is dropped.
pub type Text = Zeroizing<Vec<u8>>;

/// Encrypts and opens the texts of memories. Clones share provider and store.
///
/// It keeps no key between two calls: what was destroyed opens nowhere from then on, on no host.
#[derive(Clone)]
pub struct Vault {
    keys: Option<Keys>,
}

#[derive(Clone)]
struct Keys {
    provider: Arc<dyn KeyProvider>,
    store: Arc<dyn KeyStore>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(…)")
    }
}

/// The key of a subject, opened.
struct Opened {
    row: SubjectKey,
    key: DataKey,
}

impl Opened {
    fn wrap(&self, tenant: &str, record: Uuid, span: Uuid, key: &DataKey) -> Result<Vec<u8>, KeyError> {
        wrap::wrap(&self.key, &context(tenant, &self.row.id, &record, &span), key)
    }

    fn unwrap(&self, tenant: &str, record: &RecordKey) -> Result<DataKey, KeyError> {
        wrap::unwrap(&self.key, &context(tenant, &self.row.id, &record.id, &record.span), &record.wrapped)
    }

    fn tag(&self, tenant: &str, text: &[u8]) -> Result<[u8; 32], KeyError> {
        wrap::tag(&self.key, "logline.tag.v1", &[tenant.as_bytes(), text])
    }
}

fn context<'c>(tenant: &'c str, subject_key: &'c Uuid, record: &'c Uuid, span: &'c Uuid) -> [&'c [u8]; 4] {
    [tenant.as_bytes(), subject_key.as_bytes(), record.as_bytes(), span.as_bytes()]
}

/// What the tenant's key authenticates with a subject's key. A key management service may write it into its log: it names nobody.
fn of_subject(id: Uuid, subject: &str) -> String {
    format!("logline.subject.v1:{id}:{}", Hash::of(subject.as_bytes()))
}

/// A new random id.
fn new_id() -> Result<Uuid, KeyError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| KeyError::Unavailable { reason: format!("no random bytes: {e}") })?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

impl Vault {
    /// A vault over these keys.
    #[must_use]
    pub fn new(provider: impl KeyProvider + 'static, store: impl KeyStore + 'static) -> Self {
        Self { keys: Some(Keys { provider: Arc::new(provider), store: Arc::new(store) }) }
    }

    /// A vault that has no keys and refuses every call: for a set-up that needs the kernel's name alone. A host with it leaves memories to
    /// other hosts.
    #[must_use]
    pub fn without_keys() -> Self {
        Self { keys: None }
    }

    /// Whether it has keys.
    pub(crate) fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    fn keys(&self) -> Result<&Keys, VaultError> {
        self.keys.as_ref().ok_or(VaultError::NoKeys)
    }

    fn provider(&self) -> Result<&dyn KeyProvider, VaultError> {
        Ok(self.keys()?.provider.as_ref())
    }

    fn store(&self) -> Result<&dyn KeyStore, VaultError> {
        Ok(self.keys()?.store.as_ref())
    }

    /// Opens the key of a subject. `None` if the subject has none.
    async fn subject(&self, tenant: &str, subject: &str) -> Result<Option<Opened>, VaultError> {
        // Between the two reads the key may be wrapped again and the old epoch destroyed: then it is read again.
        for _ in 0..TRIES {
            let Some(row) = self.store()?.subject_key(tenant, subject).await? else { return Ok(None) };
            let context = of_subject(row.id, subject);
            match self.provider()?.unwrap(tenant, row.epoch, &context, &row.wrapped).await {
                Ok(key) => return Ok(Some(Opened { row, key })),
                Err(error @ KeyError::Destroyed { .. }) => {
                    let again = self.store()?.subject_key(tenant, subject).await?;
                    if again.is_some_and(|again| again.epoch == row.epoch && again.id == row.id) {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(VaultError::Busy)
    }

    /// A new key for a subject, wrapped under the newest epoch, not stored yet.
    async fn new_subject(&self, tenant: &str, subject: &str) -> Result<Opened, VaultError> {
        let epoch = self.newest_epoch(tenant).await?;
        let (id, key) = (new_id()?, DataKey::random()?);
        let wrapped = self.provider()?.wrap(tenant, epoch, &of_subject(id, subject), &key).await?;
        Ok(Opened { row: SubjectKey { id, subject: subject.to_owned(), epoch, wrapped, added: 0 }, key })
    }

    async fn subject_or_new(&self, tenant: &str, subject: &str) -> Result<Opened, VaultError> {
        for _ in 0..TRIES {
            if let Some(opened) = self.subject(tenant, subject).await? {
                return Ok(opened);
            }
            match self.new_subject(tenant, subject).await {
                Ok(new) if self.store()?.add_subject_key(tenant, &new.row).await? == Kept::Stored => return Ok(new),
                // The epoch ended between the two calls.
                Ok(_) | Err(VaultError::Key(KeyError::Destroyed { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Err(VaultError::Busy)
    }

    /// Encrypts the text of a record. Its wrapped key is durable when this returns, so no span ever has a text that has no key.
    ///
    /// # Errors
    /// See [`VaultError`]. Nothing is encrypted if the tenant's key is missing.
    pub async fn seal(&self, place: &Place<'_>, text: &[u8]) -> Result<Vec<u8>, VaultError> {
        for _ in 0..TRIES {
            let subject = self.subject_or_new(place.tenant, place.subject).await?;
            if let Some(envelope) = self.seal_under(&subject, place, text, None).await? {
                return Ok(envelope);
            }
        }
        Err(VaultError::Busy)
    }

    /// As [`Vault::seal`], for the memory that a subject keeps under the name `key` ([`Vault::memory_id`]). Returns the id of the memory and
    /// the envelope: both are made with the same cryptographic key of the subject, as another one gives another id.
    ///
    /// # Errors
    /// As [`Vault::seal`].
    pub async fn seal_keyed(
        &self,
        tenant: &str,
        subject: &str,
        field: &str,
        key: &str,
        text: &[u8],
    ) -> Result<(Uuid, Vec<u8>), VaultError> {
        for _ in 0..TRIES {
            let opened = self.subject_or_new(tenant, subject).await?;
            let span = self.id_under(&opened, tenant, key).await?;
            let place = Place { tenant, subject, span, field };
            if let Some(envelope) = self.seal_under(&opened, &place, text, Some(key)).await? {
                return Ok((span, envelope));
            }
        }
        Err(VaultError::Busy)
    }

    /// `None` if the subject's key has been replaced.
    async fn seal_under(
        &self,
        subject: &Opened,
        place: &Place<'_>,
        text: &[u8],
        key: Option<&str>,
    ) -> Result<Option<Vec<u8>>, VaultError> {
        let (id, record) = (new_id()?, DataKey::random()?);
        let envelope = envelope::seal(&record, id, place, text)?;
        let note = key.map(|key| wrap::seal(&record, NOTE, &[id.as_bytes()], key.as_bytes())).transpose()?;
        let row = RecordKey {
            id,
            subject_key: subject.row.id,
            span: place.span,
            wrapped: subject.wrap(place.tenant, id, place.span, &record)?,
            tag: key.map(|key| subject.tag(place.tenant, key.as_bytes())).transpose()?,
            note,
            added_at: Timestamp::EPOCH,
        };
        let kept = self.store()?.add_record_key(place.tenant, &row).await?;
        Ok((kept == Kept::Stored).then_some(envelope))
    }

    /// Opens texts of one subject, in their order. The subject's key is opened once for all.
    ///
    /// # Errors
    /// If keys or their store fail. A text that does not open is an error of its own.
    pub async fn open(
        &self,
        tenant: &str,
        subject: &str,
        texts: &[Sealed<'_>],
    ) -> Result<Vec<Result<Text, VaultError>>, VaultError> {
        self.open_all(tenant, subject, texts, Timestamp::EPOCH).await
    }

    /// As [`Vault::open`], for texts whose keys were added at `since` or later.
    async fn open_all(
        &self,
        tenant: &str,
        subject: &str,
        texts: &[Sealed<'_>],
        since: Timestamp,
    ) -> Result<Vec<Result<Text, VaultError>>, VaultError> {
        for _ in 0..TRIES {
            let Some(opened) = self.subject(tenant, subject).await? else {
                return Ok(texts.iter().map(|_| Err(VaultError::Erased)).collect());
            };
            let found = self.open_under(tenant, &opened, texts, since).await?;
            // A record that is not under this key is gone, or was wrapped under a new one since the key was read.
            if !found.iter().any(|text| matches!(text, Err(VaultError::Erased)))
                || self.store()?.subject_key(tenant, subject).await?.is_some_and(|again| again.id == opened.row.id)
            {
                return Ok(found);
            }
        }
        Err(VaultError::Busy)
    }

    async fn open_under(
        &self,
        tenant: &str,
        opened: &Opened,
        texts: &[Sealed<'_>],
        since: Timestamp,
    ) -> Result<Vec<Result<Text, VaultError>>, VaultError> {
        let mut found = Vec::with_capacity(texts.len());
        for texts in texts.chunks(MAX_KEY_PAGE) {
            let ids: Vec<_> = texts.iter().filter_map(|text| envelope::key_id(text.envelope).ok()).collect();
            let rows = self.store()?.record_keys(tenant, &ids).await?;
            let rows = rows.into_iter().filter(|row| row.added_at >= since);
            let rows: BTreeMap<_, _> = rows.map(|row| (row.id, row)).collect();
            for text in texts {
                found.push(open_one(tenant, opened, &rows, text));
            }
        }
        Ok(found)
    }

    /// The id of the memory that a subject keeps under `key`: the one that has it, or the one that a new memory gets. Two hosts that begin
    /// a memory under the same key at the same time get the same id. Nobody who lacks the subject's key can compute it.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn memory_id(&self, tenant: &str, subject: &str, key: &str) -> Result<Uuid, VaultError> {
        let subject = self.subject_or_new(tenant, subject).await?;
        self.id_under(&subject, tenant, key).await
    }

    async fn id_under(&self, subject: &Opened, tenant: &str, key: &str) -> Result<Uuid, VaultError> {
        let tag = subject.tag(tenant, key.as_bytes())?;
        if let Some(row) = self.store()?.tagged(tenant, subject.row.id, &tag).await? {
            return Ok(row.span);
        }
        let hash = wrap::tag(&subject.key, "logline.id.v1", &[tenant.as_bytes(), key.as_bytes()])?;
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash).for_each(|(byte, from)| *byte = from);
        Ok(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

fn open_one(tenant: &str, subject: &Opened, rows: &BTreeMap<Uuid, RecordKey>, text: &Sealed<'_>) -> Result<Text, VaultError> {
    let id = envelope::key_id(text.envelope)?;
    // A record under another subject's key is not this subject's.
    let row = rows.get(&id).filter(|row| row.subject_key == subject.row.id).ok_or(VaultError::Erased)?;
    if row.span != text.span {
        return Err(EnvelopeError::Changed.into());
    }
    let key = subject.unwrap(tenant, row)?;
    let place = Place { tenant, subject: &subject.row.subject, span: text.span, field: text.field };
    Ok(envelope::open(&key, &place, text.envelope)?)
}
