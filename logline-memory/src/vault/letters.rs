//! Letters: texts that need no row of their own. Their key is derived from the subject's, so that they become unreadable whenever it is
//! replaced.

use logline_core::contract::{DataKey, KeyError};
use uuid::Uuid;

use super::{Opened, Text, Vault, VaultError, new_id};
use crate::envelope::{self, EnvelopeError, Place};
use crate::wrap;

impl Opened {
    fn letter(&self, letter: Uuid) -> Result<DataKey, KeyError> {
        let bytes = envelope::derive(letter.as_bytes(), &self.key, "logline.letter.v1").ok_or(KeyError::NotOpened)?;
        Ok(DataKey::new(*bytes))
    }
}

impl Vault {
    /// Encrypts a letter: a text that becomes unreadable when the subject forgets anything.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn seal_letter(&self, place: &Place<'_>, text: &[u8]) -> Result<Vec<u8>, VaultError> {
        let subject = self.subject_or_new(place.tenant, place.subject).await?;
        let id = new_id()?;
        Ok(envelope::seal(&subject.letter(id)?, id, place, text)?)
    }

    /// Opens a letter.
    ///
    /// # Errors
    /// [`VaultError::Erased`] if the subject's key was replaced since; see [`VaultError`].
    pub async fn open_letter(&self, place: &Place<'_>, letter: &[u8]) -> Result<Text, VaultError> {
        let id = envelope::key_id(letter)?;
        let subject = self.subject(place.tenant, place.subject).await?.ok_or(VaultError::Erased)?;
        opened(&subject, id, place, letter)
    }

    /// The id of the key that a subject has now. Makes one if the subject has none.
    pub(crate) async fn subject_key(&self, tenant: &str, subject: &str) -> Result<Uuid, VaultError> {
        Ok(self.subject_or_new(tenant, subject).await?.row.id)
    }

    /// As [`Vault::seal_letter`], if the subject still has this key.
    pub(crate) async fn seal_letter_under(&self, key: Uuid, place: &Place<'_>, text: &[u8]) -> Result<Vec<u8>, VaultError> {
        let (subject, id) = (self.subject_with(place.tenant, place.subject, key).await?, new_id()?);
        Ok(envelope::seal(&subject.letter(id)?, id, place, text)?)
    }

    /// As [`Vault::open_letter`], if the subject still has this key.
    pub(crate) async fn open_letter_under(&self, key: Uuid, place: &Place<'_>, letter: &[u8]) -> Result<Text, VaultError> {
        let id = envelope::key_id(letter)?;
        let subject = self.subject_with(place.tenant, place.subject, key).await?;
        opened(&subject, id, place, letter)
    }

    /// A hash that nobody can compute without the subject's key, if the subject still has this one.
    pub(crate) async fn hash_under(
        &self,
        key: Uuid,
        (tenant, subject): (&str, &str),
        purpose: &str,
        bytes: &[u8],
    ) -> Result<[u8; 32], VaultError> {
        let subject = self.subject_with(tenant, subject, key).await?;
        Ok(wrap::tag(&subject.key, "logline.hash.v1", &[purpose.as_bytes(), tenant.as_bytes(), bytes])?)
    }

    async fn subject_with(&self, tenant: &str, subject: &str, key: Uuid) -> Result<Opened, VaultError> {
        self.subject(tenant, subject).await?.filter(|opened| opened.row.id == key).ok_or(VaultError::Erased)
    }
}

fn opened(subject: &Opened, id: Uuid, place: &Place<'_>, letter: &[u8]) -> Result<Text, VaultError> {
    match envelope::open(&subject.letter(id)?, place, letter) {
        Err(EnvelopeError::OtherKey) => Err(VaultError::Erased),
        opened => Ok(opened?),
    }
}
