//! Memories: what an agent may remember of a person, with consent, encrypted, found again in a strict order, and forgotten for good.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may")
)]

mod belief;
mod cipher;
mod consent;
mod contract;
pub mod embed;
pub mod envelope;
mod erasure;
pub mod export;
mod form;
pub mod index;
mod keeper;
mod kernel;
mod local;
mod members;
mod memories;
mod orphans;
pub mod rank;
mod results;
mod vault;
mod wrap;

pub use cipher::MemoryCipher;
pub use consent::{CONSENT, Cited, consent_id};
pub use contract::{ContractValidator, contract, contract_id};
pub use erasure::{Erasure, uses, verify_erasure};
pub use form::{
    Body, Content, Kind, Layer, MAX_DATA, MAX_TAGS, MAX_TEXT, MEMORY, Memory, Mode, Sensitivity, Status, Stored, Terms,
};
pub use keeper::{KeeperReport, MemoryKeeper, memory_keeper};
pub use kernel::{
    Classifier, MAX_LIMIT, MAX_WAIT, MEMORY_CONSENT, MEMORY_EXPIRE, MEMORY_FORGET, MEMORY_FORGET_REST, MEMORY_REVIEW,
    MEMORY_SEAL, MEMORY_SEARCH, MEMORY_UPSERT, MemoryKernel, PREVIEW, RECEIPT, memory_kernel,
};
pub use local::LocalKeys;
pub use members::MAX_NAME;
pub use memories::{Memories, MemoryError, SESSION_TTL, close_epoch, expire, mend};
pub use orphans::{GRACE, Reaped, reap};
pub use results::{Answer, Hit, Recalled, Receipt, ReceiptState, Remembered, Wanted, What};
pub use vault::{Closed, Forget, Forgotten, Sealed, Text, Vault, VaultError};
