//! The core of LogLine: signed spans, the ledger contract, trust, Stage-0 and the driver.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! use logline_core::ledger::{Ledger as _, LedgerExt as _};
//! use logline_core::{Draft, KeyPair, MemoryLedger, Scope, SystemClock, SystemIds, Verifier};
//!
//! let (ledger, key) = (MemoryLedger::new(), KeyPair::generate()?);
//! let alice = Scope::user("acme", "alice");
//! let note = Draft::new("note").tenant("acme").owner("alice").who("user:alice").this("note.meeting");
//! let note = note.content(serde_json::json!({"text": "budget approved"}));
//! let first = note.stamp(&SystemClock, &SystemIds).seal_local(&key)?;
//! ledger.append_one(&alice, first.clone()).await?;
//!
//! // A change is the next version, linked to the version before it.
//! let second = Draft::next_version(&first).status("final").stamp(&SystemClock, &SystemIds).seal_local(&key)?;
//! ledger.append_one(&alice, second).await?;
//!
//! // Do not trust a row before you verify it. Users of other tenants cannot read it.
//! let read = ledger.get(&alice, "acme", first.id).await?;
//! assert_eq!(read.verify(&mut Verifier::new())?.status.as_deref(), Some("final"));
//! assert!(ledger.find(&Scope::user("globex", "alice"), "acme", first.id).await?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Overview
//!
//! | subject | start at |
//! |---|---|
//! | what a row is | [`Span`], [`Draft`], [`SignedSpan`], [`VerifiedSpan`] |
//! | what is hashed and signed | [`canonical`], [`dsse`], [`KeyPair`], [`Signer`] |
//! | where rows go | [`ledger::Ledger`], [`Scope`], [`MemoryLedger`] |
//! | who may sign what | [`trust::TrustRoot`], [`trust::Manifest`], [`roles`] |
//! | what runs | [`Host`], [`contract::Kernel`], [`contract::Sandbox`], [`request`] |
//! | checking and moving ledgers | [`fsck`], [`ndjson`] |
//!
//! # Features
//!
//! - `conformance`: the trials that every ledger backend must pass, for authors of backends.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may"))]

mod audit;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod contract;
mod host;
mod keys;
pub mod ledger;
pub mod request;
pub mod roles;
mod span;
pub mod trust;
mod value;

pub use audit::{fsck, ndjson};
pub use host::driver::AdmitError;
pub use host::stage0::{BootError, Booted};
pub use host::{
    Claim, EXECUTIONS_QUOTA, Execution, FUEL_QUOTA, Host, HostBuilder, HostError, KernelSet, Service, ServiceReport, Shutdown,
};
pub use keys::keyfile::{HexErrorKind, KeyFileError, KeyTextError};
pub use keys::{KeyPair, SignError, SignatureError, Signer, Verifier, check_key, dsse};
pub use ledger::in_memory::MemoryLedger;
pub use ledger::scope::{Denied, Scope};
pub use span::draft::Draft;
pub use span::parse::{ParsedSpan, parse_draft, parse_line, parse_unsealed};
pub use span::rules::{InvalidSpan, MAX_INTEGER, MAX_NAME_BYTES, Rules};
pub use span::seal::{Rejected, SealError, VerifiedSpan, VerifyError};
pub use span::{CANONICAL_VERSION, DIGEST_KEY, SYSTEM_TENANT, Seal, SignedSpan, Span, SpanKey, Visibility, canonical};
pub use value::clock::{Clock, IdSource, ManualClock, SeededIds, SystemClock, SystemIds};
pub use value::failure::Failure;
pub use value::hex::{Hash, HexError, PublicKey, Signature};
pub use value::timestamp::{Timestamp, TimestampError};
pub use value::{ids, json};
