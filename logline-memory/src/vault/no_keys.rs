//! Neither keys nor a place for them.

use async_trait::async_trait;
use logline_core::contract::{
    DataKey, Destruction, Epoch, Forgetting, Kept, KeyError, KeyProvider, KeyStore, RecordKey, SubjectKey,
};
use logline_core::ledger::LedgerError;
use uuid::Uuid;

/// Refuses every call.
pub(super) struct NoKeys;

const REASON: &str = "this host was set up without keys for memories";

fn key<T>() -> Result<T, KeyError> {
    Err(KeyError::Refused { reason: REASON.to_owned() })
}

fn store<T>() -> Result<T, LedgerError> {
    Err(LedgerError::Refused { reason: REASON.to_owned() })
}

#[async_trait]
impl KeyProvider for NoKeys {
    async fn open_epoch(&self, _: &str, _: u64) -> Result<(), KeyError> {
        key()
    }

    async fn wrap(&self, _: &str, _: u64, _: &str, _: &DataKey) -> Result<Vec<u8>, KeyError> {
        key()
    }

    async fn unwrap(&self, _: &str, _: u64, _: &str, _: &[u8]) -> Result<DataKey, KeyError> {
        key()
    }

    async fn destroy_epoch(&self, _: &str, _: u64) -> Result<Destruction, KeyError> {
        key()
    }
}

#[async_trait]
impl KeyStore for NoKeys {
    async fn epoch(&self, _: &str) -> Result<Option<Epoch>, LedgerError> {
        store()
    }

    async fn open_epoch(&self, _: &str, _: u64) -> Result<Kept, LedgerError> {
        store()
    }

    async fn drop_epoch(&self, _: &str, _: u64) -> Result<Kept, LedgerError> {
        store()
    }

    async fn subject_key(&self, _: &str, _: &str) -> Result<Option<SubjectKey>, LedgerError> {
        store()
    }

    async fn subject_keys(&self, _: &str, _: u64, _: usize) -> Result<Vec<SubjectKey>, LedgerError> {
        store()
    }

    async fn add_subject_key(&self, _: &str, _: &SubjectKey) -> Result<Kept, LedgerError> {
        store()
    }

    async fn rewrap_subject_key(&self, _: &str, _: u64, _: &SubjectKey) -> Result<Kept, LedgerError> {
        store()
    }

    async fn add_record_key(&self, _: &str, _: &RecordKey) -> Result<Kept, LedgerError> {
        store()
    }

    async fn record_keys(&self, _: &str, _: &[Uuid]) -> Result<Vec<RecordKey>, LedgerError> {
        store()
    }

    async fn tagged(&self, _: &str, _: Uuid, _: &[u8; 32]) -> Result<Option<RecordKey>, LedgerError> {
        store()
    }

    async fn records(&self, _: &str, _: Uuid, _: Option<Uuid>, _: usize) -> Result<Vec<RecordKey>, LedgerError> {
        store()
    }

    async fn forget(&self, _: &str, _: Uuid, _: &[Forgetting]) -> Result<Kept, LedgerError> {
        store()
    }

    async fn not_forgotten(&self, _: &str, _: &[Uuid]) -> Result<Vec<Uuid>, LedgerError> {
        store()
    }
}
