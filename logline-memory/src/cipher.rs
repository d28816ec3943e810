//! Encrypts confidential requests under the keys of memories: what a model was asked and what it answered becomes unreadable when the user
//! forgets anything, because it may quote what was forgotten.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use logline_core::contract::{Cipher, CipherError, Generation, Reader, Slot};
use logline_core::ledger::Ledger;
use logline_core::trust::Authorities;
use logline_core::{Hash, Scope};
use zeroize::Zeroizing;

use crate::envelope::{EnvelopeError, MAX_PLAINTEXT, Place};
use crate::kernel::MemoryKernel;
use crate::vault::{Vault, VaultError};

/// Encrypts confidential requests with a vault: for [`HostBuilder::cipher`](logline_core::HostBuilder::cipher).
///
/// Each text is a letter under its owner's key. Before anything of a tenant is opened, the receipts of what was forgotten are compared with
/// the store of keys, so that a store which comes from a backup opens nothing that was forgotten.
#[derive(Clone)]
pub struct MemoryCipher {
    kernel: MemoryKernel,
    ledger: Arc<dyn Ledger>,
}

impl MemoryKernel {
    /// A cipher with this kernel's vault, for the host of `ledger`.
    #[must_use]
    pub fn cipher(&self, ledger: impl Ledger + 'static) -> MemoryCipher {
        MemoryCipher { kernel: self.clone(), ledger: Arc::new(ledger) }
    }
}

impl MemoryCipher {
    fn vault(&self) -> &Vault {
        self.kernel.vault()
    }
}

fn place<'a>(slot: &Slot<'a>) -> Place<'a> {
    Place { tenant: slot.tenant, subject: slot.owner, span: slot.span, field: slot.member }
}

#[async_trait]
impl Cipher for MemoryCipher {
    async fn generation(&self, authorities: &Authorities, tenant: &str, owner: &str) -> Result<Generation, CipherError> {
        let reader = Reader::new(self.ledger.as_ref(), Scope::runtime(tenant));
        let caught_up = self.kernel.catch_up(&reader, authorities, tenant).await;
        caught_up.map_err(|refusal| CipherError::Unavailable { reason: refusal.reason() })?;
        Ok(Generation(self.vault().subject_key(tenant, owner).await.map_err(encrypting)?))
    }

    async fn encrypt(&self, slot: &Slot<'_>, key: Generation, clear: &[u8]) -> Result<String, CipherError> {
        let letter = self.vault().seal_letter_under(key.0, &place(slot), clear).await.map_err(encrypting)?;
        Ok(BASE64.encode(letter))
    }

    async fn decrypt(&self, slot: &Slot<'_>, key: Generation, sealed: &str) -> Result<Zeroizing<Vec<u8>>, CipherError> {
        let letter = BASE64.decode(sealed).map_err(|e| CipherError::NotOpened { reason: format!("it is not base64: {e}") })?;
        self.vault().open_letter_under(key.0, &place(slot), &letter).await.map_err(decrypting)
    }

    async fn keyed_hash(
        &self,
        tenant: &str,
        owner: &str,
        key: Generation,
        purpose: &str,
        bytes: &[u8],
    ) -> Result<Hash, CipherError> {
        Ok(Hash(self.vault().hash_under(key.0, (tenant, owner), purpose, bytes).await.map_err(encrypting)?))
    }
}

fn encrypting(error: VaultError) -> CipherError {
    match error {
        VaultError::Erased => CipherError::Erased,
        VaultError::Envelope(EnvelopeError::TooLong) => CipherError::TooLong { most: MAX_PLAINTEXT },
        VaultError::Envelope(EnvelopeError::Random) => CipherError::Unavailable { reason: error.to_string() },
        error if error.may_retry() => CipherError::Unavailable { reason: error.to_string() },
        error => CipherError::Refused { reason: error.to_string() },
    }
}

fn decrypting(error: VaultError) -> CipherError {
    match encrypting(error) {
        CipherError::Refused { reason } => CipherError::NotOpened { reason },
        error => error,
    }
}
